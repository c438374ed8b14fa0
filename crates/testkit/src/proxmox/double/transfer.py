"""Upload and download-url: files come into a storage (PVE/API2/Storage/Status.pm)."""

import os
import re

from fakepve.model import PveError, TaskError
from fakepve.routing import die, split_list
from fakepve.server import USER, ok, params
from fakepve.storage import _is_file

import images
from front import Cut
from multipart import Multipart
from tasks import say

EXTENSIONS = {'iso': r'.+\.(?:iso|img)'}


def normalized(filename):
    """PVE::Storage::normalize_content_filename."""
    return re.sub(r'[^a-zA-Z0-9_.-]', '_', re.sub(r'^.*[/\\]', '', filename.rstrip('\n')))


class Transfer(object):
    """Mixin of the cluster: the calls that put files on a storage."""

    def _place(self, sid, content, filename):
        """(path, kind) of a file to come, or a refusal."""
        if content == 'import':
            kind = self.profile.import_name(filename)
        elif not re.fullmatch(EXTENSIONS.get(content, '(?!)'), filename):
            raise PveError(400, 'Parameter verification failed.', {'filename': 'wrong file extension'})
        else:
            kind = 'iso'
        return self.path('{0}:{1}/{2}'.format(sid, content, filename)), kind

    async def _receive(self, request, spool):
        """Reads an upload's body into a file; (fields, filename)."""
        kind = request.headers.get('Content-Type', '')
        boundary = re.search(r'boundary=("?)([^";]+)\1', kind)
        if not kind.startswith('multipart/form-data') or not boundary:
            raise die("upload 'Content-Type '{0}' not implemented".format(kind))
        if not request.headers.get('Content-Length'):
            raise die('upload without content length header not supported')
        body, entry, cut = Multipart(boundary.group(2)), request['entry'], request['cut_after']
        with open(spool, 'wb') as out:
            async for data in request.content.iter_any():
                entry['received'] += len(data)
                if cut is not None and entry['received'] > cut:
                    raise Cut
                out.write(body.feed(data))
        if not body.closed:
            raise die('upload failed')
        return body.fields, body.filename

    async def _upload(self, request):
        self.uploads += 1
        spool = os.path.join(self.folder, 'spool', 'pveupload-{0:032x}'.format(self.uploads))
        try:
            fields, filename = await self._receive(request, spool)
            return ok(await self._take_upload(request, spool, fields, filename))
        except BaseException:
            if os.path.exists(spool):
                os.remove(spool)
            raise

    async def _take_upload(self, request, spool, fields, filename):
        user = request[USER]
        values = dict(fields, filename=filename)
        request['entry']['params'] = values
        self.check_schema(request, values)
        self.profile.check(request.path, values)
        values = self._verify(request, values)
        name, store = self._file_storage(request, 'upload')
        self.require(user, '/storage/' + name, 'Datastore.AllocateTemplate')
        if not _is_file(store):
            raise die("can't upload to storage type '{0}'".format(store['type']))
        content = values['content']
        dest, kind = self._place(name, content, normalized(filename))
        if content not in split_list(store['content']):
            raise die("storage '{0}' does not support '{1}' content".format(name, content))

        async def body():
            say('starting file import from: ' + spool)
            try:
                await self._verify_checksum(spool, values)
                if kind in ('qcow2', 'raw', 'vmdk'):
                    await images.check_untrusted(spool, kind)
                say('target node: ' + request.match_info['node'])
                say('target file: ' + dest)
                self.need_space(name, images.used(spool), 'import failed: cp: error writing ' + dest)
                await self.copy_sparse(spool, dest)
            finally:
                os.remove(spool)
            return 'finished file import successfully'

        def undo():
            if os.path.exists(spool):
                os.remove(spool)
        with self.before_task(None, undo):
            return await self.task(request.match_info['node'], 'imgcopy', '', user, body)

    @staticmethod
    async def _verify_checksum(path, values):
        algorithm, wanted = values.get('checksum-algorithm'), values.get('checksum')
        if not algorithm:
            return
        say('calculating checksum...')
        got = await images.digest(path, algorithm)
        if got.lower() != wanted.lower():
            raise TaskError("checksum mismatch: got '{0}' != expect '{1}'".format(got, wanted))
        say('OK, checksum verified')

    async def _download_url(self, request):
        name, store = self._file_storage(request, 'download')
        user, node = request[USER], request.match_info['node']
        self.require(user, '/storage/' + name, 'Datastore.AllocateTemplate')
        if not (self.profile.has('access-network') and self.allowed(user, '/nodes/' + node, 'Sys.AccessNetwork')):
            for privilege in ('Sys.Audit', 'Sys.Modify'):
                if not self.allowed(user, '/', privilege):
                    # Of several alternatives that do not hold, Proxmox VE names none.
                    raise PveError(403, 'Permission check failed' if self.profile.has('access-network') else
                                   'Permission check failed (/, {0})'.format(privilege))
        values = self._verify(request, await params(request))
        if not _is_file(store):
            raise die("can't upload to storage type '{0}', not a file based storage!".format(store['type']))
        content = values['content']
        if content not in split_list(store['content']):
            raise die("storage '{0}' is not configured for content-type '{1}'".format(name, content))
        filename = normalized(values['filename'])
        dest, kind = self._place(name, content, filename)

        async def body():
            await self._fetch(name, values, dest, kind)
        return ok(await self.task(node, 'download', filename.replace(':', '_'), user, body))

    async def _fetch(self, name, values, dest, kind):
        """PVE::Tools::download_file_from_url."""
        url = values['url']
        say('downloading {0} to {1}'.format(url, dest))
        if os.path.exists(dest):
            if not values.get('checksum'):
                raise TaskError('refusing to override existing file \'{0}\''.format(dest))
            say('calculating checksum of existing file...')
            got = await images.digest(dest, values['checksum-algorithm'])
            if got.lower() == values['checksum'].lower():
                say('OK, got correct file already, no need to download')
                return
            raise TaskError("mismatch: got '{0}' != expect '{1}', refusing to override existing file".format(
                got, values['checksum']))
        partial = '{0}.tmp_dwnl.{1}'.format(dest, os.getpid())
        command = ['wget', '--progress=dot:giga', '--tries=2', '--timeout=20', '-O', partial]
        if str(values.get('verify-certificates', 1)) == '0':
            command.append('--no-check-certificate')
        elif self.ca:
            command.append('--ca-certificate=' + self.ca)
        try:
            code, _, said = await images.run(*command, url)
            for line in said.splitlines():
                say(line)
            if code:
                raise TaskError("download failed: command '/usr/bin/{0}' failed: exit code {1}".format(
                    ' '.join(command + [url]), code))
            self.need_space(name, 0, 'wget: ' + partial)
            if self._space(self.storages[name])[2] == 0:
                raise TaskError('{0}: No space left on device'.format(partial))
            await self._verify_checksum(partial, values)
            if kind in ('qcow2', 'raw', 'vmdk'):
                await images.check_untrusted(partial, kind)
            os.rename(partial, dest)
        finally:
            if os.path.exists(partial):
                os.remove(partial)
        say("download of '{0}' to '{1}' finished".format(url, dest))
