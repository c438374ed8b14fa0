"""What the versions of Proxmox VE that the double plays differ in."""

import re

from fakepve.model import PveError

RELEASES = {'7.4': '7.4-19', '8.2': '8.2.10', '8.3': '8.3.5', '8.4': '8.4.14', '9': '9.1.6'}
UNKNOWN = 'property is not defined in schema and the schema does not allow additional properties'
# Paths whose parameter `content` takes `import` only in later versions.
TRANSFERS = re.compile(r'/nodes/[^/]+/storage/[^/]+/(?:upload|download-url)$')


class Profile(object):
    """One version."""

    def __init__(self, name):
        self.name = name
        self.version = RELEASES[name]
        self.number = tuple(int(part) for part in (name + '.0').split('.')[:2])

    @property
    def release(self):
        """As GET /version says it."""
        return '.'.join(re.split(r'[.-]', self.version)[:2])

    def has(self, feature):
        """Whether it has a feature."""
        return self.number >= {'access-network': (8, 2), 'sdn-use': (8, 0), 'import-content': (8, 3), 'image-upload': (8, 4),
                               'blockdev': (9, 0), 'guest-agent-privileges': (9, 0)}[feature]

    def content(self, listed):
        """A storage's content types without those that the version does not know."""
        kinds = [kind for kind in listed.split(',') if kind != 'import' or self.has('import-content')]
        return ','.join(kinds)

    def check(self, path, values):
        """Refuses parameters that the version's schema does not have."""
        if self.has('import-content'):
            return
        if TRANSFERS.search(path) and values.get('content') == 'import':
            raise PveError(400, 'Parameter verification failed.', {
                'content': "value 'import' does not have a value in the enumeration 'iso, vztmpl'"})
        if 'import-working-storage' in values:
            raise PveError(400, 'Parameter verification failed.', {'import-working-storage': UNKNOWN})

    def import_name(self, filename):
        """The kind of an import file by its name, or a refusal."""
        kinds = 'ova|qcow2|raw|vmdk' if self.has('image-upload') else 'ova'
        found = re.fullmatch(r'[a-zA-Z0-9\-.+=_]+\.(' + kinds + ')', filename)
        if not found:
            raise PveError(400, 'Parameter verification failed.', {'filename': 'invalid filename or wrong extension'})
        return found.group(1)
