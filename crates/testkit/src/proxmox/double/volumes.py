"""Storages as folders and volumes as files. What lies in the folders is the truth: it is looked at before every request."""

import os
import re
import subprocess

from fakepve.model import TaskError
from fakepve.storage import _is_file

import images

# Where each kind of content of a storage with files lies, and which names it may have.
PLACES = {'import': 'import', 'iso': 'template/iso'}
GIB = 1024 ** 3


class Volumes(object):
    """Mixin of the cluster: the volumes of its storages."""

    def add_storage(self, spec):
        """Adds a storage out of the configuration: name, type, content, folder, total, shared."""
        folder = spec['folder']
        for place in ('images', 'import', 'template/iso') if spec['type'] != 'lvmthin' else ('',):
            os.makedirs(os.path.join(folder, place), exist_ok=True)
        store = {'type': spec['type'], 'active': 1, 'content': spec['content'], 'files': set(), 'volumes': {},
                 'total': spec.get('total') or 100 * GIB}
        if spec['type'] == 'lvmthin':
            store.update(vgname='pve', thinpool='data')
        else:
            store['path'] = folder
        if spec.get('shared'):
            store['shared'] = 1
        if spec.get('nodes'):
            store['nodes'] = ','.join(spec['nodes'])
        self.storages[spec['name']] = store
        self.folders[spec['name']] = folder

    def path(self, volid):
        """The file of a volume."""
        sid, _, name = volid.partition(':')
        folder = self.folders[sid]
        if not _is_file(self.storages[sid]):
            return os.path.join(folder, name)
        kind, _, rest = name.partition('/')
        if kind in PLACES:
            return os.path.join(folder, PLACES[kind], rest)
        return os.path.join(folder, 'images', name)

    def scan(self):
        """Makes the volumes that are known those that are there."""
        for sid, store in self.storages.items():
            known, seen = store.get('volumes', {}), {}
            for volname, path, content, vmid in self._files_of(sid, store):
                try:
                    size, ctime = images.virtual_size(path), int(os.path.getmtime(path))
                except OSError:
                    continue
                kept = {k: v for k, v in known.get(volname, {}).items() if k in ('notes', 'protected')}
                seen[volname] = dict(kept, content=content, format=images.file_format(volname), size=size, ctime=ctime,
                                     used=images.used(path), **({'vmid': vmid} if vmid else {}))
                if content == 'import':
                    seen[volname]['format'] = volname.rsplit('.', 1)[-1]
                    seen[volname]['size'] = os.path.getsize(path)
            store['volumes'] = seen

    def _files_of(self, sid, store):
        folder = self.folders[sid]
        if not _is_file(store):
            for name in sorted(os.listdir(folder)):
                found = re.match(r'^(?:vm|base)-(\d+)-\S+$', name)
                if found:
                    yield name, os.path.join(folder, name), 'images', int(found.group(1))
            return
        for kind, place in PLACES.items():
            for name in sorted(os.listdir(os.path.join(folder, place))):
                if '.tmp_dwnl.' not in name:
                    yield '{0}/{1}'.format(kind, name), os.path.join(folder, place, name), kind, None
        for vmid in sorted(os.listdir(os.path.join(folder, 'images'))):
            below = os.path.join(folder, 'images', vmid)
            for name in sorted(os.listdir(below)) if vmid.isdigit() else ():
                if re.match(r'^(?:vm-|base-)\d+-[^/\s]+\.(?:raw|qcow2|vmdk)$', name):
                    yield '{0}/{1}'.format(vmid, name), os.path.join(below, name), 'images', int(vmid)

    def _volumes(self, name):
        self.scan()
        return super()._volumes(name)

    def taken(self, sid):
        """Bytes that a storage's files take."""
        taken = 0
        for folder, _, files in os.walk(self.folders[sid]):
            for file in files:
                try:
                    taken += images.used(os.path.join(folder, file))
                except OSError:
                    continue
        return taken

    def _space(self, store):
        sid = next(name for name, known in self.storages.items() if known is store)
        total, taken = store['total'], self.taken(sid)
        return total, min(taken, total), max(total - taken, 0)

    def need_space(self, sid, nbytes, what):
        """A task that fails as a full disk does, where so many bytes more do not fit."""
        if self._space(self.storages[sid])[2] < nbytes:
            raise TaskError('{0}: No space left on device'.format(what))

    def _qm_alloc(self, sid, vmid, fmt, size, linked_from=None):
        """As fakepve does it, and the file."""
        volid, fmt = super()._qm_alloc(sid, vmid, fmt, size)
        path = self.path(volid)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        done = subprocess.run(['qemu-img', 'create', '-q', '-f', fmt, path, str(size)], capture_output=True, text=True)
        if done.returncode:
            raise TaskError('unable to create image: ' + done.stderr.strip())
        return volid, fmt

    def _qm_free(self, volid):
        super()._qm_free(volid)
        sid = volid.partition(':')[0]
        if sid not in self.folders:
            return
        path = self.path(volid)
        for gone in [path] + self._snapshot_files(path):
            try:
                os.remove(gone)
            except FileNotFoundError:
                pass
        if _is_file(self.storages[sid]):
            self.remove_empty(os.path.dirname(path))

    @staticmethod
    def remove_empty(folder):
        """Removes a folder where nothing is in it."""
        try:
            os.rmdir(folder)
        except OSError:
            pass

    @staticmethod
    def _snapshot_files(path):
        """The files that stand for a thin volume's snapshots."""
        folder, name = os.path.split(path)
        try:
            return [os.path.join(folder, file) for file in os.listdir(folder) if file.startswith('snap_' + name + '_')]
        except FileNotFoundError:
            return []

    @staticmethod
    def snapshot_file(path, snapshot):
        """The file that stands for one snapshot of a thin volume."""
        folder, name = os.path.split(path)
        return os.path.join(folder, 'snap_{0}_{1}'.format(name, snapshot))

    async def _content_delete(self, v, user):
        sid, volname, volid, _store, vtype, _owner, _fmt = self._volume_target(v)

        def remove():
            if vtype in ('import', 'iso'):
                try:
                    os.remove(self.path(volid))
                except FileNotFoundError:
                    pass
            else:
                self._qm_free('{0}:{1}'.format(sid, volname))
        with self.before_task(lambda: self._later(remove)):
            return await super()._content_delete(v, user)

    @staticmethod
    async def _later(action):
        action()

    async def copy_sparse(self, source, target):
        """A copy of a file with its holes."""
        code, _, err = await images.run('cp', '--sparse=always', source, target)
        if code:
            raise TaskError(err.strip())
