"""Image files: their size as the guest sees it, and qemu-img."""

import asyncio
import json
import os
import struct

from fakepve.model import TaskError


def file_format(name):
    """The format that a volume's name stands for."""
    extension = name.rsplit('.', 1)[-1]
    return extension if extension in ('qcow2', 'vmdk') else 'raw'


def virtual_size(path):
    """The capacity of an image in bytes; the file's own length where its header says nothing."""
    with open(path, 'rb') as image:
        head = image.read(32)
    if file_format(path) == 'qcow2' and head[:4] == b'QFI\xfb':
        return struct.unpack('>Q', head[24:32])[0]
    if file_format(path) == 'vmdk' and head[:4] == b'KDMV':
        return struct.unpack('<Q', head[12:20])[0] * 512
    return os.path.getsize(path)


def used(path):
    """Bytes that a file takes on its disk."""
    return os.stat(path).st_blocks * 512


async def run(*command):
    """(exit code, standard output, standard error) of a command."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    return process.returncode, out.decode(), err.decode()


async def qemu_img(*args):
    """What qemu-img says; a task that fails where it does."""
    code, out, err = await run('qemu-img', *args)
    if code:
        raise TaskError("command '/usr/bin/qemu-img {0}' failed: exit code {1}: {2}".format(
            args[0], code, (err or out).strip()))
    return out


async def check_untrusted(path, kind):
    """PVE::Storage::file_size_info for an image that a user brought: its capacity, or a task that fails."""
    try:
        info = json.loads(await qemu_img('info', '-f', kind, '--output=json', path))
    except TaskError:
        raise TaskError('failed to query file information with qemu-img') from None
    special = info.get('format-specific') or {}
    data = special.get('data') or {}
    if special.get('type') == 'qcow2' and data.get('data-file'):
        raise TaskError("{0}: 'data-file' references are not allowed!".format(path))
    if special.get('type') == 'vmdk' and len(data.get('extents') or []) > 1:
        raise TaskError('{0}: multiple children or extents are not allowed!'.format(path))
    if info.get('backing-filename'):
        raise TaskError("backing file not allowed for untrusted image '{0}'!".format(path))
    return int(info['virtual-size'])


async def digest(path, algorithm):
    """The hex digest of a file."""
    code, out, err = await run(algorithm + 'sum', path)
    if code:
        raise TaskError(err.strip())
    return out.split()[0].lstrip('\\')
