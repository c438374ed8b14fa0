"""VMs that run: QEMU processes with the monitor where Proxmox VE has it, and with its names of drives."""

import asyncio
import json
import os
import re
import time

from fakepve.model import TaskError
from fakepve.qemu import drives_of, is_cdrom
from fakepve.server import ok

import images

# Where a node keeps the sockets of its VMs, as its own processes see it.
RUN = '/var/run/qemu-server'


class Machines(object):
    """Mixin of the cluster: the processes of its VMs. Without a node to run them on, VMs run in name only."""

    def _run_folder(self, node):
        return os.path.join(self.folder, 'nodes', node, 'run')

    def _drive_args(self, key, volume, props):
        path, fmt = self.path(volume), images.file_format(volume)
        drive, kind = 'drive-' + key, re.match(r'\D+', key).group(0)
        device = {'virtio': 'virtio-blk-pci', 'scsi': 'scsi-hd,bus=virtioscsi.0', 'ide': 'ide-hd',
                  'sata': 'ide-hd,bus=ahci.' + re.sub(r'\D', '', key)}[kind]
        serial = ',serial=' + props['serial'] if props.get('serial') else ''
        if self.profile.has('blockdev'):
            node = {'driver': 'throttle', 'node-name': drive, 'throttle-group': 'throttle-' + drive,
                    'file': {'driver': fmt, 'node-name': 'f' + key, 'file': {
                        'driver': 'file', 'node-name': 'e' + key, 'filename': path}}}
            args = ['-object', 'throttle-group,id=throttle-' + drive, '-blockdev', json.dumps(node)]
        else:
            args = ['-drive', 'file={0},if=none,id={1},format={2}'.format(path, drive, fmt)]
        return args + ['-device', '{0},drive={1},id={2}{3}'.format(device, drive, key, serial)]

    def _command(self, vm):
        config, run = vm.config, RUN if self.node_init.get(vm.node) else self._run_folder(vm.node)
        log = os.path.join(self.folder, 'serial', '{0}.log'.format(vm.vmid))
        args = ['qemu-system-x86_64', '-name', vm.name + ',debug-threads=on', '-no-shutdown',
                '-chardev', 'socket,id=qmp,path={0}/{1}.qmp,server=on,wait=off'.format(run, vm.vmid),
                '-mon', 'chardev=qmp,mode=control', '-pidfile', '{0}/{1}.pid'.format(run, vm.vmid),
                '-machine', ('q35' if 'q35' in str(config.get('machine', '')) else 'pc') + ',accel=tcg',
                '-m', str(config.get('memory', 128)).split('=')[-1], '-smp', str(config.get('cores', 1)),
                '-display', 'none', '-vga', 'none', '-serial', 'file:' + log,
                '-device', 'virtio-scsi-pci,id=virtioscsi', '-device', 'ahci,id=ahci', '-nic', 'none']
        for key, volume, props in drives_of(config):
            if not is_cdrom(volume, props) and re.match(r'(?:virtio|scsi|sata|ide)\d', key):
                args += self._drive_args(key, volume, props)
        return args

    async def launch(self, vm):
        """Starts a VM's process, and waits for its monitor."""
        init = self.node_init.get(vm.node)
        if not self.real_machines:
            return
        run = self._run_folder(vm.node)
        os.makedirs(run, exist_ok=True)
        enter = ['nsenter', '--target', str(init), '--mount', '--'] if init else []
        log = open(os.path.join(self.folder, 'serial', '{0}.qemu'.format(vm.vmid)), 'ab')
        # It dies with the double: nobody is left behind, however the test ends.
        process = await asyncio.create_subprocess_exec(
            'setpriv', '--pdeathsig', 'KILL', '--', *enter, *self._command(vm), stdin=asyncio.subprocess.DEVNULL,
            stdout=log, stderr=log)
        log.close()
        self.machines[vm.vmid] = process
        asyncio.ensure_future(self._watch(vm, process))
        deadline = time.time() + 20
        while True:
            try:
                return await self.monitor(vm, 'query-status')
            except (OSError, ConnectionError, asyncio.IncompleteReadError):
                if process.returncode is not None or time.time() > deadline:
                    raise TaskError('start failed: QEMU exited with code {0}'.format(process.returncode)) from None
                await asyncio.sleep(0.05)

    async def _watch(self, vm, process):
        """A process that ends by itself is a VM that is stopped."""
        await process.wait()
        if self.machines.get(vm.vmid) is process:
            del self.machines[vm.vmid]
            vm.status = vm.qmpstatus = 'stopped'
        for name in ('{0}.qmp', '{0}.pid'):
            try:
                os.remove(os.path.join(self._run_folder(vm.node), name.format(vm.vmid)))
            except FileNotFoundError:
                pass

    async def end(self, vm):
        """Ends a VM's process."""
        process = self.machines.get(vm.vmid)
        if process is None:
            return
        try:
            await self.monitor(vm, 'quit')
            await asyncio.wait_for(process.wait(), 10)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, TaskError):
            process.kill()
            await process.wait()
        await asyncio.sleep(0)

    async def _resources(self, request):
        """As pvestatd tells them: where a VM runs, what QEMU says of it (`paused`, `prelaunch`, `io-error`)."""
        told = json.loads((await super()._resources(request)).text)['data']
        for item in told:
            if item.get('type') == 'qemu' and item['status'] == 'running':
                item['status'] = self.vm(item['vmid']).qmpstatus
        return ok(told)

    async def monitor(self, vm, command, **arguments):
        """What a VM's monitor answers."""
        answer = await self._ask_monitor(vm, command, **arguments)
        vm.qmpstatus = {'stop': 'paused', 'cont': 'running'}.get(command, vm.qmpstatus)
        return answer

    async def _ask_monitor(self, vm, command, **arguments):
        path = os.path.join(self._run_folder(vm.node), '{0}.qmp'.format(vm.vmid))
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            await reader.readuntil(b'\n')
            answer = None
            for name, values in (('qmp_capabilities', {}), (command, arguments)):
                writer.write(json.dumps({'execute': name, 'arguments': values}).encode() + b'\n')
                await writer.drain()
                while True:
                    answer = json.loads(await asyncio.wait_for(reader.readuntil(b'\n'), 20))
                    if 'error' in answer:
                        raise TaskError("VM {0} qmp command '{1}' failed - {2}".format(
                            vm.vmid, name, answer['error']['desc']))
                    if 'return' in answer:
                        break
            return answer['return']
        finally:
            writer.close()

    async def move(self, vmid, node):
        """The VM goes on at another node, as after a migration."""
        vm = self.vm(vmid)
        runs = vmid in self.machines
        if runs:
            await self.end(vm)
            await asyncio.sleep(0.05)
        vm.node = node
        if runs:
            await self.launch(vm)
            vm.status = vm.qmpstatus = 'running'

    async def _do_start(self, vm, user, p):
        async def act():
            if vm.status != 'running' and not vm.lock and not vm.template and not vm.start_error:
                vm.apply_pending()
                await self.launch(vm)
        with self.before_task(act):
            return await super()._do_start(vm, user, p)

    async def _do_stop(self, vm, user, p):
        with self.before_task(lambda: self.end(vm)):
            return await super()._do_stop(vm, user, p)

    async def _do_shutdown(self, vm, user, p):
        async def act():
            if vm.acpi:
                await self.end(vm)
        with self.before_task(act):
            return await super()._do_shutdown(vm, user, p)

    async def _agent_call(self, match, values):
        vm = self.find(values['node'], values['vmid'])
        on = str(vm.config.get('agent', '0')).split(',')[0].split('=')[-1] == '1'
        if on and vm.status == 'running' and vm.agent is None and not vm.__dict__.get('no_agent'):
            vm.agent = {}
        return await super()._agent_call(match, values)
