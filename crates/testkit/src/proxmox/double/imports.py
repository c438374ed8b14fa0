"""`import-from`: a drive of a VM is made from a volume or an import file, with real bytes (create_disks in PVE/API2/Qemu.pm)."""

import os
import re
import tarfile

from fakepve.lxc import format_size
from fakepve.model import PveError, TaskError
from fakepve.qemu import DRIVE_KEY, NEW_DISK, join_drive, split_drive, volume_ref
from fakepve.routing import param_error, split_list
from fakepve.storage import _is_file, spec_of

import images
from tasks import say


class Imports(object):
    """Mixin of the cluster: new drives, empty or imported."""

    def _source_of(self, key, source):
        """(kind, path, format, member of an OVA) of what `import-from` names, or a refusal."""
        sid, name = volume_ref(source)
        if sid is None:
            return 'path', source, None, None
        store = self._store(sid)
        found = re.fullmatch(r'import/([^/]+\.ova)/([^/]+\.(qcow2|raw|vmdk))', name)
        if found:
            return 'import', self.path('{0}:import/{1}'.format(sid, found.group(1))), found.group(3), found.group(2)
        vtype, owner, fmt = self._parse_volname(store, name)
        if vtype not in ('images', 'import'):
            raise param_error(**{key: "{0} has wrong type '{1}' - needs to be 'images' or 'import'".format(source, vtype)})
        if vtype == 'import':
            fmt = name.rsplit('.', 1)[-1]
        return vtype, self.path(source), fmt, None

    def _qm_check_drive(self, user, vmid, pool, key, value, default):
        volume, props = split_drive(value)
        source = props.pop('import-from', None)
        working = getattr(self, '_working', None)
        if source is None:
            return super()._qm_check_drive(user, vmid, pool, key, value, default)
        found = NEW_DISK.match(volume)
        if not found or float(found.group(2)) != 0:
            raise param_error(**{key: "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"})
        if key == 'efidisk0' and not {'efitype', 'pre-enrolled-keys'} <= set(props):
            raise param_error(**{key: "need to specify 'efitype' when using 'import-from'"})
        kind, _path, _fmt, member = self._source_of(key, source)
        if kind == 'path':
            # A token of root's is not root.
            if user != 'root@pam':
                raise PveError(403, 'Only root can pass arbitrary filesystem paths.')
        elif kind == 'images':
            owner = int(self._parse_volname(self._store(volume_ref(source)[0]), volume_ref(source)[1])[1])
            self.require(user, '/vms/{0}'.format(owner), 'VM.Clone')
        else:
            self._check_access(user, volume_ref(source)[0], 'import', None, source)
        if member:
            sid = working or volume_ref(source)[0]
            store = self._store(sid)
            if 'images' not in split_list(store['content']) or not _is_file(store):
                raise param_error(**{'import-working-storage' if working else key:
                                     "import working storage '{0}' does not support 'images' content type or is not file "
                                     'based.'.format(sid)})
            self.require(user, '/storage/' + sid, 'Datastore.AllocateSpace')
        return super()._qm_check_drive(user, vmid, pool, key, join_drive(volume, props), default)

    async def import_drive(self, vmid, key, value, default, working, made):
        """The value of a drive whose content is imported. Volumes that are made go to `made`."""
        volume, props = split_drive(value)
        source = props.pop('import-from')
        sid = NEW_DISK.match(volume).group(1) or default
        kind, path, fmt, member = self._source_of(key, source)
        extracted = None
        if member:
            extracted = await self._extract(vmid, source, path, member, working or volume_ref(source)[0])
            path = extracted
        try:
            if not os.path.exists(path):
                raise TaskError("cannot import from '{0}' - volume does not exist".format(source))
            size = await images.check_untrusted(path, fmt or images.file_format(path)) if kind != 'images' \
                else images.virtual_size(path)
            wanted = props.pop('format', None) or (fmt if kind == 'images' else None)
            volid, target_format = self._qm_alloc(sid, vmid, self._format_on(sid, wanted), size)
            made.append(volid)
            await self._convert(source, path, fmt or images.file_format(path), volid, target_format)
        finally:
            if extracted:
                os.remove(extracted)
                self.remove_empty(os.path.dirname(extracted))
        props['size'] = format_size(size)
        return join_drive(volid, props)

    def _format_on(self, sid, wanted):
        spec = spec_of(self.storages[sid]) or {'format': 'raw', 'formats': None}
        return wanted if wanted in (spec['formats'] or ['raw']) else spec['format']

    async def _convert(self, source, path, fmt, volid, target_format):
        sid, target = volid.partition(':')[0], self.path(volid)
        self.need_space(sid, 1, "cannot import from '{0}' - copy failed: qemu-img: error while writing".format(source))
        say('importing disk \'{0}\' to {1}'.format(source, volid))
        await images.qemu_img('convert', '-U', '-n', '-f', fmt, '-O', target_format, path, target)
        self.need_space(sid, 1, "cannot import from '{0}' - copy failed: qemu-img: error while writing".format(source))
        say('transferred {0} of {0} (100.00%)'.format(images.virtual_size(target)))

    async def _extract(self, vmid, source, ova, member, sid):
        """PVE::GuestImport::extract_disk_from_import_file."""
        say('extracting ' + source)
        folder = os.path.join(self.folders[sid], 'images', str(vmid))
        os.makedirs(folder, exist_ok=True)
        target = os.path.join(folder, 'extracted-' + member)

        def copy():
            with tarfile.open(ova, 'r:') as archive, open(target, 'wb') as out:
                inner = archive.extractfile(member)
                if inner is None:
                    raise TaskError("'{0}' is no file in '{1}'".format(member, ova))
                while True:
                    data = inner.read(1 << 20)
                    if not data:
                        return
                    out.write(data)
        try:
            copy()
        except (KeyError, tarfile.TarError, FileNotFoundError) as error:
            if os.path.exists(target):
                os.remove(target)
            raise TaskError("cannot extract from '{0}' - {1}".format(source, error)) from None
        return target

    def imported_drives(self, params):
        """The parameters of a create call that are drives with `import-from`."""
        return {k: v for k, v in params.items() if DRIVE_KEY.match(k) and 'import-from=' in str(v)}

    def need_bridges(self, user, params):
        """PVE::QemuServer::check_bridge_access."""
        if not self.profile.has('sdn-use'):
            return
        for key in sorted(params):
            found = re.fullmatch(r'net\d+', key) and re.search(r'(?:^|,)bridge=([^,]+)', str(params[key]))
            if found:
                self.require(user, '/sdn/zones/localnetwork/' + found.group(1), 'SDN.Use')
