"""Tasks: what is done before fakepve's own part of one, and tasks that fail because a test wants them to."""

import asyncio
import contextlib
import contextvars
import os

from aiohttp import web
from fakepve.model import PveError, TaskError
from fakepve.server import USER, params

BEFORE = contextvars.ContextVar('before', default=None)
RECORD = contextvars.ContextVar('record', default=None)


def say(line):
    """Adds a line to the log of the task that runs."""
    record = RECORD.get()
    if record:
        record['log'].append(line)


class Tasks(object):
    """Mixin of the cluster: its tasks move bytes, take a moment, and fail on demand."""

    @contextlib.contextmanager
    def before_task(self, act, undo=None):
        """The task that is started within runs `act` first; where that or the task fails, `undo`."""
        token = BEFORE.set((act, undo))
        try:
            yield
        finally:
            BEFORE.reset(token)

    def fail_task(self, kind, after, reason):
        """The next task of this kind runs so many seconds, and ends with this reason."""
        self.task_faults.append((kind, after, reason))

    def note_tasks(self, node):
        """Writes a node's own list of its tasks, all users': `active`, and `index` of those that have ended."""
        folder = os.path.join(self.folder, 'nodes', node, 'tasks')
        os.makedirs(folder, exist_ok=True)
        lines = {'active': [], 'index': []}
        for record in [record for record in self.tasklog if record['node'] == node]:
            if record['status'] == 'running':
                lines['active'].append(record['upid'] + ' 0\n')
            else:
                lines['index'].append('{0} {1:08X} {2}\n'.format(record['upid'], record['endtime'], record['exitstatus']))
        for name, found in lines.items():
            with open(os.path.join(folder, name), 'w') as out:
                out.writelines(found)

    def note_start(self, vm):
        """A VM that was started past the API has a task all the same: root's, of `qm start`."""
        upid, pid, start = self._upid(vm.node, 'qmstart', vm.vmid, 'root@pam')
        record = {'upid': upid, 'node': vm.node, 'pid': pid, 'pstart': pid * 7, 'starttime': start, 'type': 'qmstart',
                  'id': str(vm.vmid), 'user': 'root@pam', 'status': 'stopped', 'exitstatus': 'OK', 'endtime': start,
                  'log': ['TASK OK']}
        self.tasks[upid] = record
        self.tasklog.append(record)
        self.note_tasks(vm.node)

    def _take_fault(self, kind):
        for fault in self.task_faults:
            if fault[0] == kind:
                self.task_faults.remove(fault)
                return fault
        return None

    async def task(self, node, ttype, tid, user, body, vm=None, lock=True, log=()):
        act, undo = BEFORE.get() or (None, None)
        fault = self._take_fault(ttype)
        holder = {}

        async def work():
            await asyncio.sleep(self.task_seconds.get(ttype, 0))
            if fault:
                await asyncio.sleep(fault[1])
                raise TaskError(fault[2])
            if act:
                await act()
            return await body()

        async def whole():
            RECORD.set(holder.get('record'))
            worker = self.workers[holder['record']['upid']] = asyncio.ensure_future(work())
            try:
                return await worker
            except asyncio.CancelledError:
                if undo:
                    undo()
                raise TaskError('received interrupt') from None
            except (TaskError, PveError, OSError) as error:
                if undo:
                    undo()
                if isinstance(error, TaskError):
                    raise
                raise TaskError(getattr(error, 'message', None) or str(error)) from error
            finally:
                del self.workers[holder['record']['upid']]
        # The task begins to run only after this returns, so it finds its record.
        upid = await super().task(node, ttype, tid, user, whole, vm=vm, lock=lock, log=log)
        holder['record'] = self.tasks[upid]
        self.note_tasks(node)
        return upid

    async def stop_task(self, v, user):
        """DELETE of a task: it is interrupted where it still runs."""
        record = self.tasks.get(v['upid'])
        if record is None or record['node'] != v['node']:
            raise PveError(500, "unable to parse worker upid '{0}'".format(v['upid']))
        if not self._task_owner(user, record):
            self.require(user, '/nodes/' + v['node'], 'Sys.Modify')
        worker = self.workers.get(v['upid'])
        if worker:
            worker.cancel()

    async def _task_list(self, request):
        """The tasks of a node: by default those that have ended."""
        v, user = self._verify(request, await params(request)), request[USER]
        source, kinds = v.get('source', 'archive'), v.get('typefilter')
        audit = self.allowed(user, '/nodes/' + v['node'], 'Sys.Audit')
        found = [record for record in self.tasklog if record['node'] == v['node']
                 and (source == 'all' or (record['status'] == 'running') == (source == 'active'))
                 and ('vmid' not in v or record['id'] == str(v['vmid']))
                 and kinds in (None, record['type']) and (audit or self._task_owner(user, record))]
        found.sort(key=lambda record: -record['starttime'])
        start = v.get('start', 0)
        return web.json_response({'data': [self._task_view(record, True) for record in found][start:start + v.get('limit', 50)],
                                  'total': len(found)})

    async def _task_log(self, request):
        v, lines = self._verify(request, await params(request)), self._get_task(request)['log']
        start = v.get('start', 0)
        part = lines[start:start + v.get('limit', 50)]
        return web.json_response({'data': [{'n': start + n, 't': text} for n, text in enumerate(part, 1)], 'total': len(lines)})
