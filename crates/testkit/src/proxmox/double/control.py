"""The way in for the Rust side of the kit and for the nodes' stubs: JSON over HTTP at a unix socket."""

import os

from aiohttp import web
from fakepve.lxc import format_size
from fakepve.model import PveError, TaskError
from fakepve.qemu import DRIVE_KEY, drives_of, is_cdrom, join_drive, split_drive

import images


class Control(object):
    """The tests' hands on the cluster."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.runner = None

    async def start(self, path):
        """Listens."""
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post('/command', self._command)
        app.router.add_post('/{verb}', self._verb)
        # A command whose stub was killed goes no further, as its own process would not.
        self.runner = web.AppRunner(app, handler_cancellation=True)
        await self.runner.setup()
        await web.UnixSite(self.runner, path).start()

    async def _command(self, request):
        words = (await request.read()).decode().split('\0')[:-1]
        code, said = await self.cluster.command(words[0], words[1], words[2:])
        return web.Response(text=said, status=200 if code == 0 else 500)

    async def _verb(self, request):
        handler = getattr(self, 'do_' + request.match_info['verb'].replace('-', '_'), None)
        if handler is None:
            return web.json_response({'error': 'no such verb'}, status=404)
        try:
            return web.json_response(await handler(**(await request.json())))
        except (PveError, TaskError, OSError, KeyError, ValueError, TypeError) as error:
            return web.json_response({'error': '{0}: {1}'.format(type(error).__name__, error)}, status=500)

    # ---------------------------------------------------------------- seeing

    async def do_state(self):
        """All that there is."""
        self.cluster.scan()
        return {
            'vms': [{'id': vm.vmid, 'name': vm.name, 'node': vm.node, 'status': vm.status, 'lock': vm.lock,
                     'config': {k: str(v) for k, v in vm.config.items()}, 'snapshots': sorted(vm.snapshots),
                     'agent': [command for command, _ in vm.agent_requests], 'frozen': vm.agent_frozen}
                    for vm in self.cluster.vms],
            'volumes': sorted('{0}:{1}'.format(sid, name) for sid, store in self.cluster.storages.items()
                              for name in store['volumes']),
            'tasks': [{'upid': t['upid'], 'type': t['type'], 'id': t['id'], 'node': t['node'], 'user': t['user'],
                       'status': t.get('exitstatus') or 'running', 'log': t['log']} for t in self.cluster.tasklog],
            'spool': sorted(os.listdir(os.path.join(self.cluster.folder, 'spool'))),
        }

    async def do_calls(self):
        """Every request and command so far."""
        return self.cluster.calls

    async def do_violations(self):
        """What was not of the official API."""
        return self.cluster.violations

    async def do_forget(self):
        """Forgets calls so far; violations stay."""
        del self.cluster.calls[:]

    async def do_disks(self, vmid):
        """The volumes and files of a VM's disks, in the order of their keys."""
        vm = self.cluster.vm(vmid)
        return [{'key': key, 'volume': volume, 'path': self.cluster.path(volume), 'format': images.file_format(volume)}
                for key, volume, props in drives_of(vm.config) if not is_cdrom(volume, props)]

    # --------------------------------------------------------------- seeding

    async def do_add_vm(self, vmid, name, node, config, disks):
        """A VM with disks from files: each has a key, a file with its format, a storage, the format there, and options."""
        cluster, config = self.cluster, dict(config)
        vm = cluster.add_vm(vmid, name, node=node, config=config)
        for disk in disks:
            size = images.virtual_size(disk['path']) if disk['format'] == 'raw' else await images.check_untrusted(
                disk['path'], disk['format'])
            volid, fmt = cluster._qm_alloc(disk['storage'], vmid, cluster._format_on(disk['storage'], disk['as']), size)
            await images.qemu_img('convert', '-n', '-f', disk['format'], '-O', fmt, disk['path'], cluster.path(volid))
            vm.config[disk['key']] = join_drive(volid, dict(disk['options'], size=format_size(size)))

    async def do_set_config(self, vmid, config):
        """Changes a VM's config behind everybody's back; null takes a key away."""
        vm = self.cluster.vm(vmid)
        for key, value in config.items():
            if value is None:
                vm.config.pop(key, None)
            else:
                vm.config[key] = value
        vm.template = str(vm.config.get('template', '0')) == '1'

    async def do_monitor(self, vmid, command, arguments):
        """What a running VM's monitor answers: its value, or why not."""
        try:
            return {'return': await self.cluster.monitor(self.cluster.vm(vmid), command, **arguments)}
        except TaskError as error:
            return {'error': str(error)}

    async def do_leave_volume(self, volume):
        """A raw volume appears that is in no VM's config."""
        path = self.cluster.path(volume)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        await images.qemu_img('create', '-q', '-f', 'raw', path, '1M')

    async def do_start_vm(self, vmid):
        """Starts a VM's process."""
        vm = self.cluster.vm(vmid)
        await self.cluster.launch(vm)
        vm.status = vm.qmpstatus = 'running'
        self.cluster.note_start(vm)

    async def do_stop_vm(self, vmid):
        """Pulls a VM's plug."""
        vm = self.cluster.vm(vmid)
        await self.cluster.end(vm)
        vm.status = vm.qmpstatus = 'stopped'

    async def do_remove_vm(self, vmid):
        """A VM is gone, with its volumes, as if somebody had deleted it."""
        vm = self.cluster.vm(vmid)
        await self.cluster.end(vm)
        for key in [k for k in vm.config if DRIVE_KEY.match(k)]:
            self.cluster._qm_free(split_drive(vm.config[key])[0])
        self.cluster.vms.remove(vm)

    # ---------------------------------------------------------------- faults

    async def do_fail_task(self, kind, after, reason):
        """The next task of a kind fails."""
        self.cluster.fail_task(kind, after, reason)

    async def do_rule(self, method, path, times=1, status=None, message='', cut_after=None, delay=None):
        """The next requests of a method whose path has a text in it are answered so, cut, or delayed."""
        self.cluster.rules.append({'method': method, 'path': path, 'times': times, 'status': status, 'message': message,
                                   'cut_after': cut_after, 'delay': delay})

    async def do_clear_rules(self):
        """Everything passes again."""
        del self.cluster.rules[:]
        del self.cluster.task_faults[:]

    async def do_lock_vm(self, vmid, lock):
        """Locks or unlocks a VM."""
        if lock:
            self.cluster.snapshot_lock(vmid, lock)
        else:
            self.cluster.unlock(vmid)

    async def do_move_vm(self, vmid, node):
        """The VM is at another node from now on."""
        await self.cluster.move(vmid, node)

    async def do_node_online(self, node, online):
        """A node goes down or comes back; its ssh is the Rust side's affair."""
        self.cluster.set_node_offline(node, not online)
        for vm in self.cluster.vms:
            if vm.node == node and not online and vm.vmid in self.cluster.machines:
                self.cluster.machines[vm.vmid].kill()

    async def do_fill_storage(self, storage, left):
        """A storage has so many bytes left."""
        self.cluster.storages[storage]['total'] = self.cluster.taken(storage) + left

    async def do_storage_active(self, storage, active):
        """A storage goes offline or comes back."""
        self.cluster.storages[storage]['active'] = 1 if active else 0

    async def do_storage_nodes(self, storage, nodes):
        """Only these nodes have a storage."""
        self.cluster.storages[storage]['nodes'] = ','.join(nodes)

    async def do_take_next_id(self):
        """The next VM to be created finds its id taken."""
        self.cluster.taken_ids = True

    async def do_revoke(self, user, privilege):
        """Takes a privilege."""
        self.cluster.revoke(user, privilege)

    async def do_agent(self, vmid, answers):
        """Whether a VM's guest agent answers."""
        self.cluster.vm(vmid).agent_hangs = not answers

    async def do_task_seconds(self, kind, seconds):
        """How long tasks of a kind take at least."""
        self.cluster.task_seconds[kind] = seconds

    async def do_expire_tickets(self):
        """Nobody is logged in any more."""
        self.cluster.revoke_tickets()

    async def do_node_init(self, node, pid):
        """The process that holds a node's namespaces."""
        self.cluster.node_init[node] = pid
