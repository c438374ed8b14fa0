"""The cluster: fakepve with nodes, storages, users and a version out of a configuration, and the parts that move bytes."""

import os

from fakepve import FakePve
from fakepve.server import ok

from commands import Commands
from front import Front
from guests import Guests
from imports import Imports
from machines import Machines
from profile import Profile
from tasks import Tasks
from transfer import Transfer
from volumes import Volumes


class Cluster(Front, Transfer, Guests, Imports, Machines, Commands, Volumes, Tasks, FakePve):
    """The double."""

    def __init__(self, config):
        super().__init__(user='root@pam', password=config['root_password'], host='127.0.0.1', port=0)
        self.folder = config['folder']
        self.profile = Profile(config['version'])
        self.version, self.release_version = self.profile.version, self.profile.release
        # A second of Proxmox VE's is so much here: tasks run for a moment, and nobody waits for it.
        self.time_scale = 0.02
        self.body_timeout = 60
        self.calls, self.violations, self.rules, self.task_faults = [], [], [], []
        self.folders, self.machines, self.taken_ids = {}, {}, False
        self.task_seconds = {'qmcreate': 0.2, 'qmclone': 0.2, 'download': 0.1, 'imgcopy': 0.1, 'qmsnapshot': 0.05}
        self.uploads, self.real_machines, self.workers = 0, config['real_machines'], {}
        self.ca = config.get('trusted_ca')
        self.nodes = {node['name']: {'online': True, 'ip': node['ip']} for node in config['nodes']}
        self.node_init = {node['name']: node.get('init') for node in config['nodes']}
        for folder in ['spool', 'serial'] + ['nodes/{0}/run'.format(node) for node in self.nodes] + [
                'nodes/{0}/tasks'.format(node) for node in self.nodes]:
            os.makedirs(os.path.join(self.folder, folder), exist_ok=True)
        self.storages = {}
        for spec in config['storages']:
            self.add_storage(dict(spec, content=self.profile.content(spec['content'])))
        self.users[config['user']] = config['password']
        self.apitokens[config['token_id']] = config['token_secret']
        self.apitokens['root@pam!root'] = config['token_secret']
        self.grant(config['user'], '/', *config['privileges'])

    def revoke(self, user, privilege):
        """Takes a privilege from a user, everywhere."""
        for _, held in self.acl.get(user, []):
            held.discard(privilege)

    async def _cluster_status(self, request):
        data = [{'type': 'cluster', 'id': 'cluster', 'name': self.cluster_name, 'nodes': len(self.nodes), 'quorate': 1,
                 'version': 1}]
        for number, (name, node) in enumerate(sorted(self.nodes.items()), 1):
            data.append({'type': 'node', 'id': 'node/' + name, 'name': name, 'nodeid': number, 'level': '',
                         'ip': node['ip'], 'online': 1 if node.get('online', True) else 0,
                         'local': 1 if number == 1 else 0})
        return ok(data)

    def _routes_aaa(self):
        """Calls that fakepve answers without doing anything."""
        return [('PUT', '/nodes/{node}/qemu/{vmid}/resize', self._qm_resize),
                ('GET', '/nodes/{node}/network', self._networks),
                ('DELETE', '/nodes/{node}/tasks/{upid}', self.stop_task)]

    async def _networks(self, v, user):
        return [{'iface': name, 'type': 'bridge', 'active': 1, 'autostart': 1, 'method': 'manual', 'method6': 'manual',
                 'priority': 3, 'families': ['inet'], 'bridge_vlan_aware': 1} for name in ('vmbr0', 'vmbr1')]
