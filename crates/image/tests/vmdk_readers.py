"""Compares N.vmdk, as dissect.hypervisor reads it, with N.raw for each N below the argument; says a line of each."""

import sys
from pathlib import Path

from dissect.hypervisor.disk.vmdk import VMDK

SECTOR, STEP = 512, 1 << 20


def compare(number):
    expected = Path(f"{number}.raw").read_bytes()
    disk = VMDK(Path(f"{number}.vmdk"))
    if disk.size != len(expected):
        return f"{disk.size} bytes, not {len(expected)}"
    for at in range(0, len(expected), STEP):
        end = min(at + STEP, len(expected))
        # Its stream reads past the end of disks that are no multiple of its buffer.
        if disk.read_sectors(at // SECTOR, (end - at) // SECTOR) != expected[at:end]:
            return f"other bytes within {at}..{end}"
    return "same"


for number in range(int(sys.argv[1])):
    print(compare(number))
