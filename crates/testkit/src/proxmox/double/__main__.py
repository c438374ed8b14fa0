"""A Proxmox VE cluster for tests: `python double CONFIG.json`, where the Rust side of the kit writes the configuration.

The control plane is fakepve's, which checks parameters, permissions and locks as Proxmox VE does. What moves bytes is here: storages
are folders, volumes are files, and uploads, downloads, imports, clones, snapshots and resizes are done with qemu-img. VMs that run are
QEMU processes where the configuration says so.
"""

import asyncio
import json
import os
import sys

from cluster import Cluster
from control import Control


async def serve(config):
    cluster = Cluster(config)
    await cluster.start(config['certificate'], config['key'])
    control = Control(cluster)
    await control.start(config['control'])
    ready = os.path.join(config['folder'], 'ready')
    with open(ready + '.new', 'w') as out:
        out.write(str(cluster.port))
    os.rename(ready + '.new', ready)
    await asyncio.Event().wait()


if __name__ == '__main__':
    with open(sys.argv[1]) as text:
        asyncio.run(serve(json.load(text)))
