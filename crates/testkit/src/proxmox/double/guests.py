"""VMs whose disks are files: create with imports, config with new drives, clone, snapshots, resize, destroy."""

import os
import re

from fakepve.lxc import format_size
from fakepve.model import FakeVm, PveError, TaskError
from fakepve.qemu import DRIVE_KEY, NEW_DISK, drives_of, join_drive, split_drive, volume_ref
from fakepve.routing import die
from fakepve.storage import _is_file

import images
from tasks import say

UNITS = {'': 1, 'K': 1024, 'M': 1024 ** 2, 'G': 1024 ** 3, 'T': 1024 ** 4}


class Guests(object):
    """Mixin of the cluster: what VMs do to their volumes."""

    # --------------------------------------------------------------- create

    async def _qm_create(self, v, user):
        vmid, default, working = int(v['vmid']), v.get('storage'), v.get('import-working-storage')
        if self.taken_ids:
            # Another client was faster than the one that asked for a free id.
            self.taken_ids = False
            self.vms.append(FakeVm(vmid, 'stranger', node=v['node']))
        self.need_bridges(user, v)
        drives, made = self.imported_drives(v), []

        async def act():
            vm = self.vm(vmid)
            # While it is made, its file has nothing but the lock.
            vm.name = 'VM {0}'.format(vmid)
            for key in sorted(drives):
                try:
                    self._imported[vmid, key] = await self.import_drive(vmid, key, drives[key], default, working, made)
                except (TaskError, PveError) as error:
                    raise TaskError('unable to create VM {0} - {1}'.format(vmid, getattr(error, 'message', error))) from None

        def undo():
            for key in drives:
                self._imported.pop((vmid, key), None)
            for volid in made:
                self._qm_free(volid)
            vm = self.vm(vmid)
            if vm is not None and vm.lock == 'create':
                self.vms.remove(vm)
        self._working = working
        try:
            with self.before_task(act, undo):
                return await super()._qm_create(v, user)
        finally:
            self._working = None

    _working = None

    @property
    def _imported(self):
        return self.__dict__.setdefault('_imported_drives', {})

    def _qm_new_drive(self, vmid, key, value, default):
        done = self._imported.pop((vmid, key), None)
        return (done, []) if done else super()._qm_new_drive(vmid, key, value, default)

    # --------------------------------------------------------------- config

    async def _apply_config(self, vm, user, p):
        updates, made = dict(p), []
        self.need_bridges(user, updates)
        working = updates.pop('import-working-storage', None)
        before = {key: volume for key, volume, props in drives_of(vm.config, skip_cdrom=True)}
        unused = {key: split_drive(vm.config[key])[0] for key in vm.config if re.fullmatch(r'unused\d+', key)}
        try:
            for key in [k for k in updates if DRIVE_KEY.match(k)]:
                if 'import-from=' in str(updates[key]) or NEW_DISK.match(split_drive(updates[key])[0]):
                    self._check_lock(vm)
                    self.require(user, '/vms/{0}'.format(vm.vmid), 'VM.Config.Disk')
                    self._working = working
                    self._qm_check_drive(user, vm.vmid, None, key, updates[key], None)
                    self._working = None
                    if 'import-from=' in str(updates[key]):
                        updates[key] = await self.import_drive(vm.vmid, key, updates[key], None, working, made)
                    else:
                        updates[key], volids = self._qm_new_drive(vm.vmid, key, updates[key], None)
                        made += volids
            forced = str(updates.pop('force', '0')) in ('1', 'true')
            await super()._apply_config(vm, user, updates)
        except (PveError, TaskError) as error:
            for volid in made:
                self._qm_free(volid)
            raise error if isinstance(error, PveError) else PveError(500, str(error))
        finally:
            self._working = None
        self._settle_volumes(vm, before, unused, forced)
        self._attach_unused(vm, unused)

    def _attach_unused(self, vm, unused):
        """A volume that is attached is not unused any more, and its size is written down."""
        for key, volume, props in drives_of(vm.config, skip_cdrom=True):
            if volume not in unused.values():
                continue
            if 'size' not in props:
                props['size'] = format_size(images.virtual_size(self.path(volume)))
                vm.config[key] = join_drive(volume, props)
            for name in [name for name, volid in unused.items() if volid == volume]:
                vm.config.pop(name, None)

    def _settle_volumes(self, vm, before, unused, forced):
        """A volume that is taken off a VM becomes unused; an unused one that is deleted is gone."""
        kept = {split_drive(vm.config[key])[0] for key in vm.config if DRIVE_KEY.match(key) or key.startswith('unused')}
        for key, volid in before.items():
            if volid in kept or vm.status == 'running':
                continue
            if forced:
                self._qm_free(volid)
            elif os.path.exists(self.path(volid)):
                number = next(n for n in range(256) if 'unused{0}'.format(n) not in vm.config)
                vm.config['unused{0}'.format(number)] = volid
        for key, volid in unused.items():
            if key not in vm.config and volid not in {split_drive(v)[0] for k, v in vm.config.items() if DRIVE_KEY.match(k)}:
                self._qm_free(volid)

    async def _qm_resize(self, v, user):
        vm, key = self.find(v['node'], v['vmid']), v['disk']
        self._check_lock(vm)
        if key not in vm.config:
            raise die("disk '{0}' does not exist".format(key))
        volume, props = split_drive(vm.config[key])
        path = self.path(volume)
        old = images.virtual_size(path)
        found = re.fullmatch(r'(\+?)(\d+(?:\.\d+)?)([KMGT]?)', v['size'])
        size = int(float(found.group(2)) * UNITS[found.group(3)]) + (old if found.group(1) else 0)
        size = (size + 1023) // 1024 * 1024
        if size < old:
            raise die("shrinking disks is not supported")

        async def body():
            if size > old:
                await images.qemu_img('resize', '-q', '-f', images.file_format(volume), path, str(size))
            props['size'] = format_size(size)
            vm.config[key] = join_drive(volume, props)
        return await self.task(vm.node, 'resize', vm.vmid, user, body, vm=vm)

    # ---------------------------------------------------------------- clone

    async def _qm_clone(self, v, user):
        src, newid = self.find(v['node'], v['vmid']), int(v['newid'])
        snapname = v.get('snapname')
        old = src.snapshots.get(snapname, {}) if snapname else src.config
        self.need_bridges(user, old)
        drives = {k: volume for k, volume, props in drives_of(old, skip_cdrom=True) if volume_ref(volume)[0]}

        async def fill(new):
            for key, volume in drives.items():
                target = split_drive(new.config[key])[0]
                fmt, args = images.file_format(volume), []
                path = self.path(volume)
                if snapname and not _is_file(self.storages[volume_ref(volume)[0]]):
                    path = self.snapshot_file(path, snapname)
                elif snapname:
                    args = ['-l', 'snapshot.name=' + snapname]
                say('create full clone of drive {0} ({1})'.format(key, volume))
                self.need_space(volume_ref(target)[0], 1, 'clone failed: qemu-img: error while writing')
                await images.qemu_img('convert', '-U', '-n', '-f', fmt, *args, '-O', images.file_format(target), path,
                                      self.path(target))

        def undo():
            new = self.vm(newid)
            if new is not None and new.lock == 'clone':
                for key, volume, _props in drives_of(new.config, skip_cdrom=True):
                    if volume_ref(volume)[0] and volume != drives.get(key):
                        self._qm_free(volume)
                self.vms.remove(new)

        told = {}

        async def begin():
            new = self.vm(newid)
            new.name, new.config = told['name'], told['config']

        self._after_clone[newid] = fill
        try:
            with self.before_task(begin, undo):
                upid = await super()._qm_clone(v, user)
            # Up to the end of its first disk, its file has nothing but the lock.
            new = self.vm(newid)
            told.update(name=new.name, config=new.config)
            new.name, new.config = 'VM {0}'.format(newid), {'lock': 'clone'}
            return upid
        except BaseException:
            self._after_clone.pop(newid, None)
            raise

    @property
    def _after_clone(self):
        return self.__dict__.setdefault('_clones', {})

    async def ceph_io(self, vm, keys=None):
        """fakepve calls this when a clone's volumes are there, and still undoes all of it where this fails."""
        fill = self._after_clone.pop(vm.vmid, None)
        if fill and vm.lock == 'clone':
            await fill(vm)
        await super().ceph_io(vm, keys)

    # ------------------------------------------------------------ snapshots

    async def _qm_snapshot(self, v, user):
        vm = self.find(v['node'], v['vmid'])

        async def act():
            if v['snapname'] in vm.snapshots or vm.lock or not self._qm_can_snapshot(vm.config):
                return  # fakepve says why.
            for key, volume, _props in drives_of(vm.config, skip_cdrom=True):
                path = self.path(volume)
                if not _is_file(self.storages[volume_ref(volume)[0]]):
                    await self.copy_sparse(path, self.snapshot_file(path, v['snapname']))
                elif vm.vmid in self.machines:
                    await self.monitor(vm, 'blockdev-snapshot-internal-sync', device='drive-' + key, name=v['snapname'])
                else:
                    await images.qemu_img('snapshot', '-c', v['snapname'], path)
        with self.before_task(act):
            return await super()._qm_snapshot(v, user)

    async def _qm_snapshot_delete(self, v, user):
        vm, name = self.find(v['node'], v['vmid']), v['snapname']

        async def act():
            if name not in vm.snapshots or vm.lock:
                return
            for key, volume, _props in drives_of(vm.snapshots[name], skip_cdrom=True):
                path = self.path(volume)
                if not _is_file(self.storages[volume_ref(volume)[0]]):
                    os.remove(self.snapshot_file(path, name))
                elif vm.vmid in self.machines:
                    await self.monitor(vm, 'blockdev-snapshot-delete-internal-sync', device='drive-' + key, name=name)
                else:
                    await images.qemu_img('snapshot', '-d', name, path)
        with self.before_task(act):
            return await super()._qm_snapshot_delete(v, user)
