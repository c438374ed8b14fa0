"""What a node's own commands (`pvesm`, `qm`, `pvesh`) do, for the stubs of them that run over ssh."""

import asyncio
import os

from fakepve import agent as guest_agent
from fakepve.lxc import format_size
from fakepve.model import PveError, TaskError
from fakepve.qemu import drives_of
from fakepve.storage import _is_file

import images


class Commands(object):
    """Mixin of the cluster: (exit code, output) of commands on a node."""

    async def command(self, node, tool, args):
        """Runs one."""
        if not self.nodes[node].get('online', True):
            return 255, 'the node is down\n'
        self.scan()
        words = [tool] + [arg for arg in args]
        self.calls.append({'method': 'SSH', 'path': ' '.join(words), 'query': node, 'received': 0, 'status': 0, 'at': 0,
                           'params': {}})
        handler = getattr(self, '_{0}_{1}'.format(tool, args[0] if args else ''), None)
        if handler is None:
            return 255, "ERROR: unknown command '{0}'\n".format(' '.join(words))
        plain, options = [], {}
        rest = list(args[1:])
        while rest:
            word = rest.pop(0)
            if word.startswith('-'):
                options[word.lstrip('-')] = rest.pop(0) if rest else ''
            else:
                plain.append(word)
        try:
            return 0, await handler(node, plain, options)
        except PveError as error:
            return 255, error.message + '\n'
        except (TaskError, OSError, IndexError, KeyError, ValueError) as error:
            return 255, '{0}\n'.format(error)

    async def _pvesm_path(self, node, args, options):
        sid, _, name = args[0].partition(':')
        self._check_enabled(sid, node)
        self._parse_volname(self._store(sid), name)
        return self.path(args[0]) + '\n'

    async def _pvesm_alloc(self, node, args, options):
        sid, vmid, name, size = args
        store = self._check_enabled(sid, node)
        fmt = options.get('format') or (images.file_format(name) if _is_file(store) else 'raw')
        kib = int(size[:-1]) * {'M': 1024, 'G': 1024 ** 2}[size[-1]] if size[-1] in 'MG' else int(size)
        volname, fmt = self._volume_name(store, int(vmid), fmt, name)
        path = self.path('{0}:{1}'.format(sid, volname))
        if os.path.exists(path):
            raise TaskError("disk image '{0}' already exists".format(path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        await images.qemu_img('create', '-q', '-f', fmt, path, str(kib * 1024))
        return "successfully created '{0}:{1}'\n".format(sid, volname)

    async def _pvesm_free(self, node, args, options):
        sid, _, name = args[0].partition(':')
        self._check_enabled(sid, node)
        if not os.path.exists(self.path(args[0])):
            raise TaskError("can't remove '{0}': no such file".format(args[0]))
        self._qm_free(args[0])
        return "Removed volume '{0}'\n".format(args[0])

    async def _pvesm_list(self, node, args, options):
        self._check_enabled(args[0], node)
        lines = ['Volid Format Type Size VMID']
        for name, volume in sorted(self._volumes(args[0]).items()):
            if options.get('vmid') in (None, str(volume.get('vmid'))):
                lines.append('{0}:{1} {2} {3} {4} {5}'.format(args[0], name, volume['format'], volume['content'],
                                                              volume['size'], volume.get('vmid') or ''))
        return '\n'.join(lines) + '\n'

    async def _pvesm_status(self, node, args, options):
        return ''.join('{0} {1} active\n'.format(name, store['type']) for name, store in sorted(self.storages.items()))

    async def _qm_config(self, node, args, options):
        vm = self.find(node, args[0])
        return ''.join('{0}: {1}\n'.format(key, vm.config[key]) for key in sorted(vm.config))

    async def _qm_status(self, node, args, options):
        return 'status: {0}\n'.format(self.find(node, args[0]).status)

    async def _qm_importdisk(self, node, args, options):
        vm, source, sid = self.find(node, args[0]), args[1], args[2]
        self._check_lock(vm)
        store = self._check_enabled(sid, node)
        path = self._on_node(node, source)
        if not os.path.isfile(path):
            raise TaskError("'{0}' does not exist".format(source))
        wanted = self._format_on(sid, options.get('format'))
        size = await images.check_untrusted(path, images.file_format(path))
        volid, fmt = self._qm_alloc(sid, vm.vmid, wanted if _is_file(store) else None, size)
        fault = self._take_fault('importdisk')
        try:
            # Interrupted, it leaves the volume, of which the VM knows nothing yet.
            await asyncio.sleep(self.task_seconds.get('importdisk', 0))
            if fault:
                await asyncio.sleep(fault[1])
                raise TaskError(fault[2])
            await self._convert(path, path, images.file_format(path), volid, fmt)
        except TaskError:
            self._qm_free(volid)
            raise
        number = next(n for n in range(256) if 'unused{0}'.format(n) not in vm.config)
        vm.config['unused{0}'.format(number)] = volid
        # The disk stays unused: its size is read when it is attached.
        return "importing disk '{0}' to VM {1} ...\ntransferred {2} of {2} (100.00%)\nunused{3}: successfully imported disk '{4}'\n".format(
            source, vm.vmid, format_size(size), number, volid)

    def _on_node(self, node, path):
        """A file of a node as this process sees it: /var/tmp is a node's own, but for what the cluster itself is in."""
        if path.startswith('/var/tmp/') and not path.startswith(tuple(os.path.join(f, '') for f in self.folders.values())):
            return os.path.join(self.folder, 'nodes', node, 'tmp', path[len('/var/tmp/'):])
        return path

    async def _qm_disk(self, node, args, options):
        if args[:1] != ['import']:
            raise TaskError("unknown command 'disk {0}'".format(' '.join(args)))
        return await self._qm_importdisk(node, args[1:], options)

    async def _qm_guest(self, node, args, options):
        if args[:1] != ['cmd']:
            raise TaskError("unknown command 'guest {0}'".format(' '.join(args)))
        vm = self.find(node, args[1])
        if vm.status != 'running' or vm.agent is None or vm.agent_hangs:
            raise TaskError('QEMU guest agent is not running')
        guest_agent.record(vm, args[2], {})
        return '{0}\n'.format(guest_agent.result(vm, args[2], {}))

    async def _qm_resume(self, node, args, options):
        vm = self.find(node, args[0])
        if vm.vmid in self.machines:
            await self.monitor(vm, 'cont')
        return ''

    async def _qm_list(self, node, args, options):
        return ''.join('{0} {1} {2} {3}\n'.format(vm.vmid, vm.name, vm.status, len(drives_of(vm.config)))
                       for vm in self.vms if vm.node == node)
