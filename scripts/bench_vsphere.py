"""A vCenter for the benchmark, and what a script does by hand to import a staged disk there.

    bench_vsphere.py close FILE             give qemu-img's stream the footer and the end marker that ESXi asks for
    bench_vsphere.py import ADDRESS FILE    make a VM of one disk of it: an ImportVApp lease, the file POSTed by curl
"""

import hashlib
import os
import re
import shutil
import ssl
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
USER, PASSWORD = "administrator@vsphere.local", "bench-secret"
SECTOR = 512
POOL, FOLDER = "/DC0/host/DC0_C0/Resources", "/DC0/vm"
SPEC = """<spec xsi:type="VirtualMachineImportSpec"><configSpec><name>by-hand</name><files><vmPathName>[LocalDS_0]</vmPathName>
</files><numCPUs>1</numCPUs><memoryMB>128</memoryMB><deviceChange><operation>add</operation>
<device xsi:type="ParaVirtualSCSIController"><key>1000</key><busNumber>0</busNumber><sharedBus>noSharing</sharedBus></device>
</deviceChange><deviceChange><operation>add</operation><fileOperation>create</fileOperation><device xsi:type="VirtualDisk">
<key>2000</key><backing xsi:type="VirtualDiskFlatVer2BackingInfo"><fileName></fileName><diskMode>persistent</diskMode>
<thinProvisioned>true</thinProvisioned></backing><controllerKey>1000</controllerKey><unitNumber>0</unitNumber>
<capacityInKB>{kib}</capacityInKB></device></deviceChange></configSpec></spec><folder type="Folder">{folder}</folder>"""


class Vsphere:
    """The simulator that the tests use, with nothing in it. It keeps disks as they come: what is measured is who sends them."""

    def __init__(self, work, run, wait_for):
        self.work, self.folder = work, work.path / "vsphere"
        self.folder.mkdir()
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"),
            *("-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"),
            cwd=self.folder,
        )
        certificate = ssl.PEM_cert_to_DER_cert((self.folder / "cert.pem").read_text())
        self.thumbprint = hashlib.sha256(certificate).hexdigest()
        said = self.folder / "said"
        with open(said, "wb") as out:
            self.server = work.start(
                *(self.program(), "-cert=cert.pem", "-key=key.pem", "-work=work", f"-user={USER}", f"-password={PASSWORD}"),
                *("-api-version=8.0.2.0", "-frugal"),
                cwd=self.folder,
                env=os.environ | {"TMPDIR": str(self.folder)},
                stdout=out,
            )
        wait_for("the simulator of vSphere", lambda: "ready " in said.read_text())
        self.address = said.read_text().partition("ready ")[2].split()[0]
        self.provider = f'{{ type: vsphere, endpoint: "https://{self.address}/sdk", credentialSecretRef: {{ name: vsphere }} }}'
        self.secret = f'username: "{USER}"\n  password: "{PASSWORD}"\n  thumbprint: "{self.thumbprint}"'

    @staticmethod
    def program():
        sources = b"".join(file.read_bytes() for file in sorted((ROOT / "crates/testkit/vcsim").glob("*.go")))
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        program = cache / "vmferry/tools/bin" / f"vmferry-vcsim-{hashlib.sha256(sources).hexdigest()[:16]}"
        if not program.exists():
            sys.exit(f"bench.py: {program} is missing: run scripts/deps.sh vsphere")
        return program

    def check(self, disk, run):
        """That one disk came, and is the same."""
        streams = list(self.folder.rglob("*.stream"))
        if len(streams) != 1:
            sys.exit(f"bench.py: {len(streams)} disks came to vSphere")
        run("qemu-img", "compare", "-f", "qcow2", "-F", "vmdk", disk, streams[0])

    def stop(self):
        self.work.stop(self.server)
        shutil.rmtree(self.folder)


class Client:
    """Calls methods as scripts do: XML put together by hand."""

    def __init__(self, address):
        self.url, self.cookie = f"https://{address}/sdk", None
        self.tls = ssl.create_default_context()
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        login = f"<userName>{escape(USER)}</userName><password>{escape(PASSWORD)}</password>"
        self.call("Login", "SessionManager", "SessionManager", login)

    def call(self, method, kind, this, arguments=""):
        body = f"""<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<Body><{method} xmlns="urn:vim25"><_this type="{kind}">{this}</_this>{arguments}</{method}></Body></Envelope>"""
        headers = {"Content-Type": "text/xml"} | ({"Cookie": self.cookie} if self.cookie else {})
        request = urllib.request.Request(self.url, body.encode(), headers)
        with urllib.request.urlopen(request, context=self.tls) as answer:
            self.cookie = self.cookie or answer.headers["Set-Cookie"].partition(";")[0]
            return answer.read().decode()

    def find(self, path):
        answer = self.call("FindByInventoryPath", "SearchIndex", "SearchIndex", f"<inventoryPath>{path}</inventoryPath>")
        return value(answer, "returnval")

    def lease(self, lease, path):
        return self.call(
            "RetrieveProperties",
            "PropertyCollector",
            "propertyCollector",
            f"<specSet><propSet><type>HttpNfcLease</type><pathSet>{path}</pathSet></propSet>"
            f'<objectSet><obj type="HttpNfcLease">{lease}</obj></objectSet></specSet>',
        )


def value(xml, name):
    found = re.search(rf"<{name}\b[^>]*>([^<]*)<", xml)
    return found.group(1) if found else sys.exit(f"bench_vsphere.py: there is no {name} in {xml}")


def close(file):
    with open(file, "r+b") as stream:
        header = stream.read(SECTOR)
        stream.seek(0, os.SEEK_END)
        stream.write(b"\0" * (-stream.tell() % SECTOR))
        stream.write(struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0") + header + b"\0" * SECTOR)


def bring(address, file):
    with open(file, "rb") as stream:
        capacity = struct.unpack_from("<Q", stream.read(SECTOR), 12)[0] * SECTOR
    client = Client(address)
    spec = SPEC.format(kib=capacity // 1024, folder=client.find(FOLDER))
    lease = value(client.call("ImportVApp", "ResourcePool", client.find(POOL), spec), "returnval")
    while ">ready<" not in client.lease(lease, "state"):
        time.sleep(0.1)
    subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", "--insecure", "--output", "/dev/null", "--header", "Expect:"]
        + ["--header", "Content-Type: application/x-vnd.vmware-streamVmdk", "--header", f"Cookie: {client.cookie}"]
        + ["--request", "POST", "--upload-file", file, value(client.lease(lease, "info"), "url")],
        check=True,
    )
    client.call("HttpNfcLeaseComplete", "HttpNfcLease", lease)


if __name__ == "__main__":
    {"close": close, "import": bring}[sys.argv[1]](*sys.argv[2:])
