#!/usr/bin/env python3
"""Prints which ways between hypervisors were gone, and how they ended, from the report of a run of the tests.

    matrix.py REPORT [--write FILE]     REPORT is nextest's junit.xml; FILE gets the table between its marks
"""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

NAMES = {"libvirt": "libvirt", "vsphere": "vCenter", "esxi": "ESXi", "proxmox": "Proxmox VE"}
COLUMNS = {
    "over_s3": "S3",
    "over_http": "HTTP",
    "over_nfs": "NFS",
    "with_hints": "three disks, hints",
    "running": "running",
}
BEGIN, END = "<!-- matrix -->", "<!-- /matrix -->"


def ended(case):
    """How a test ended, in a word."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "**failed**"
    return "yes" if case.find("skipped") is None else "–"


def cells(report):
    """The outcome of each test of a pair, by its pair and its column."""
    found = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        parts = case.get("name", "").split("::")
        if parts[0] == "pairs" and len(parts) == 3 and "_to_" in parts[1]:
            found.setdefault(tuple(parts[1].split("_to_")), {})[parts[2]] = ended(case)
    return found


def table(found):
    """The table, as Markdown."""
    lines = [
        "| from | to | " + " | ".join(COLUMNS.values()) + " |",
        "| --- | --- |" + " --- |" * len(COLUMNS),
    ]
    for (source, target), row in found.items():
        outcomes = " | ".join(row.get(column, "–") for column in COLUMNS)
        lines.append(f"| {NAMES.get(source, source)} | {NAMES.get(target, target)} | {outcomes} |")
    return "\n".join(lines)


def main(arguments):
    report = Path(arguments[0])
    found = cells(report) if report.exists() else {}
    if not found:
        return
    text = table(found)
    print(text)
    if arguments[1:2] == ["--write"]:
        page = Path(arguments[2])
        before, rest = page.read_text().split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


main(sys.argv[1:])
