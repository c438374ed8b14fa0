#!/usr/bin/env python3
"""Measures vmferry beside the commands that people script today, on the same disk and the same server in the same run.

    bench.py [--rounds N] [--only NAME[,NAME…]] [--quick]

Prints the tables of docs/benchmarks.md and writes target/bench/summary.json. Nothing is asserted: these are figures to read,
on a machine that may be busy with something else. `scripts/bench.sh` installs and builds what this needs.
"""

import argparse
import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
VMFERRY = TARGET / "release" / "vmferry"
THIN_S3 = TARGET / "release" / "examples" / "thin_s3"
MIB = 1 << 20
BUCKET, KEYS = "bench", ("bench-access", "bench-secret")
TOKEN = "bench-token"


def say(text):
    print(f"\n==> {text}", file=sys.stderr, flush=True)


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"bench.py: {command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition, limit=60):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"bench.py: waited {limit} s in vain for {what}")
        time.sleep(0.05)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Work:
    """A folder for everything, and the servers in it; gone at the end. Short, since paths of sockets must be; on a disk, since
    tmpfs would measure memory."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="vmf.", dir=os.environ.get("BENCH_DIR", "/var/tmp")))
        self.path.chmod(0o755)
        self.servers = []
        atexit.register(self.close)

    def start(self, *command, **options):
        log = open(self.path / "servers.log", "ab")
        options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True} | options
        server = subprocess.Popen([str(word) for word in command], **options)
        self.servers.append(server)
        return server

    def stop(self, server):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        self.servers.remove(server)

    def close(self):
        for server in list(self.servers):
            if server.stdin:
                server.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(20)
            self.stop(server)
        shutil.rmtree(self.path, ignore_errors=True)


class Host:
    """A libvirt host of its own."""

    def __init__(self, work, name):
        self.path = work.path / name
        # Its standard input is its lifeline.
        work.start(ROOT / "scripts/host.sh", "session", self.path, stdin=subprocess.PIPE)
        wait_for(f"host {name}", (self.path / "ready").exists)
        self.uri = f"qemu+unix:///session?socket={self.path}/run/libvirt/libvirt-sock"

    def virsh(self, *command, **options):
        return run("virsh", "-q", "-c", self.uri, *command, **options)

    def daemon_cpu(self):
        """CPU seconds of its daemon: what vmferry makes it do counts as vmferry's."""
        ticks = 0
        for pid in run("pgrep", "-x", "libvirtd").split():
            with contextlib.suppress(OSError):
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                if f"XDG_RUNTIME_DIR={self.path}/".encode() in environment:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Run:
    """What one run took."""

    def __init__(self, wall, cpu, peak, read, written):
        self.wall, self.cpu, self.peak, self.read, self.written = wall, cpu, peak, read, written
        # Bytes of what it made, where that is compared.
        self.size = None
        # Seconds that all processors together were at work, whoever it was for.
        self.busy = 0.0


def busy():
    """Seconds that all processors together were at work since the machine was started."""
    user, nice, system, _idle, _waiting, *interrupts = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def measure(*command, hosts=(), env=None):
    """Runs a command with cold caches. CPU and I/O are those of the command with all its children (and of the daemons of
    `hosts`); I/O is what the kernel counts as read from and written to disks."""
    run("sync")
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")
    daemons = sum(host.daemon_cpu() for host in hosts)
    with tempfile.TemporaryFile("w+") as log:
        start, worked = time.monotonic(), busy()
        child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | (env or {})
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall, worked = time.monotonic() - start, busy() - worked
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            log.seek(0)
            sys.exit(f"bench.py: {command} ended with {child.returncode}:\n{log.read()}")
    cpu = usage.ru_utime + usage.ru_stime + sum(host.daemon_cpu() for host in hosts) - daemons
    measured = Run(wall, cpu, usage.ru_maxrss / 1024, usage.ru_inblock / 2048, usage.ru_oublock / 2048)
    measured.busy = worked
    return measured


def add(*runs):
    """Several commands in a row as one."""
    total = lambda field: sum(getattr(run, field) for run in runs)
    whole = Run(total("wall"), total("cpu"), max(run.peak for run in runs), total("read"), total("written"))
    whole.busy = total("busy")
    return whole


# The disk.


def make_disk(work, quick):
    """8 GiB with ext4, filled with files of this machine and a part that does not compress."""
    tree = work.path / "tree"
    (tree / "files").mkdir(parents=True)
    budget = (300 if quick else 2350) * MIB
    for source in ("/usr/bin", "/usr/lib", "/usr/share", "/usr/local"):
        for folder, _, names in os.walk(source):
            for name in names:
                file = Path(folder) / name
                with contextlib.suppress(OSError):
                    size = file.lstat().st_size
                    if file.is_symlink() or not file.is_file() or size > budget:
                        continue
                    to = tree / "files" / file.relative_to("/")
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, to)
                    budget -= size
    with open(tree / "random", "wb") as random:
        for _ in range(100 if quick else 600):
            random.write(os.urandom(MIB))
    raw, disk = work.path / "disk.raw", work.path / "disk.qcow2"
    with open(raw, "wb") as file:
        file.truncate(8 << 30)
    run("mkfs.ext4", "-q", "-F", "-d", tree, raw)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk)
    shutil.rmtree(tree)
    raw.unlink()
    return disk


# The stores. Each gives the endpoint and Secret for vmferry, and commands that copy a file there and back.


class S3:
    def __init__(self, work):
        self.work, self.port, self.folder = work, free_port(), work.path / "s3"
        self.server = work.start(THIN_S3, self.folder, self.port)
        wait_for("the S3 server", lambda: listens(self.port))
        self.storage = f'type: s3\n    bucket: {BUCKET}\n    region: us-east-1\n    endpoint: "http://127.0.0.1:{self.port}"'
        self.secret = f"accessKey: {KEYS[0]}\n  secretKey: {KEYS[1]}\n  region: us-east-1\n  endpoint: http://127.0.0.1:{self.port}"

    def url(self, name):
        return f"s3://{BUCKET}/{name}"

    def copies(self):
        tool = f"s5cmd --log error --endpoint-url http://127.0.0.1:{self.port} cp"
        return f"{tool} $1 s3://{BUCKET}/by-hand", f"{tool} s3://{BUCKET}/by-hand $1"

    def env(self):
        return {"AWS_ACCESS_KEY_ID": KEYS[0], "AWS_SECRET_ACCESS_KEY": KEYS[1], "AWS_REGION": "us-east-1"}

    def empty(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Http:
    """Apache with mod_dav."""

    def __init__(self, work):
        self.port, self.folder = free_port(), work.path / "http"
        (self.folder / "data").mkdir(parents=True)
        (self.folder / "lock").mkdir()
        shutil.chown(self.folder / "data", "www-data")
        shutil.chown(self.folder / "lock", "www-data")
        modules = "mpm_event:mpm_event authz_core:authz_core unixd: dav:dav dav_fs:dav_fs setenvif:setenvif authz_user:authz_user"
        load = "\n".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
            for name in (entry.split(":")[0] for entry in modules.split())
            if Path(f"/usr/lib/apache2/modules/mod_{name}.so").exists()
        )
        (self.folder / "conf").write_text(
            f"""ServerRoot {self.folder}
ServerName localhost
Listen 127.0.0.1:{self.port}
PidFile {self.folder}/pid
ErrorLog {self.folder}/log
{load}
User www-data
Group www-data
DavLockDB {self.folder}/lock/db
DocumentRoot {self.folder}/data
LimitRequestBody 0
SetEnvIf Authorization "^Bearer {TOKEN}$" TOKEN_OK
<Directory {self.folder}/data>
  Dav On
  Require env TOKEN_OK
</Directory>
"""
        )
        work.start("apache2", "-f", self.folder / "conf", "-DFOREGROUND")
        wait_for("Apache", lambda: listens(self.port))
        self.storage = f'type: http\n    endpoint: "http://127.0.0.1:{self.port}"'
        self.secret = f"token: Bearer {TOKEN}"

    def url(self, name):
        return f"http://127.0.0.1:{self.port}/{name}"

    def copies(self):
        tool = f'curl --silent --show-error --fail --header "Authorization: Bearer {TOKEN}"'
        return f"{tool} --upload-file $1 {self.url('by-hand')}", f"{tool} --output $1 {self.url('by-hand')}"

    def env(self):
        return {}

    def empty(self):
        run("find", self.folder / "data", "-mindepth", "1", "-delete")


class Nfs:
    """nfs-ganesha. By hand: nfs-cp of libnfs, since it needs no mount either."""

    def __init__(self, work):
        self.folder = work.path / "nfs"
        self.data = self.folder / "data"
        (self.folder / "recovery").mkdir(parents=True)
        self.data.mkdir()
        self.data.chmod(0o777)
        self.port, mount_port = free_port(), free_port()
        self.options = f"port={self.port}&mountport={mount_port}"
        (self.folder / "conf").write_text(
            f"""NFS_CORE_PARAM {{ Protocols=3,4; NFS_Port={self.port}; MNT_Port={mount_port}; Bind_addr=127.0.0.1; Enable_NLM=false;
  Enable_RQUOTA=false; Enable_UDP=false; MaxRPCRecvBufferSize=9437184; MaxRPCSendBufferSize=9437184; }}
NFSV4 {{ Graceless=true; Grace_Period=5; Lease_Lifetime=10; Minor_Versions=0,1,2; RecoveryBackend=fs;
  RecoveryRoot={self.folder}/recovery; Only_Numeric_Owners=true; }}
EXPORT {{ Export_Id=1; Path={self.data}; Pseudo=/export; Protocols=3,4; Transports=TCP; Access_Type=RW; Squash=No_Root_Squash;
  SecType=sys; FSAL {{ Name=VFS; }} }}
"""
        )
        if subprocess.run(["rpcinfo", "-p", "127.0.0.1"], capture_output=True).returncode != 0:
            work.start("rpcbind", "-f")
        work.start("ganesha.nfsd", "-F", "-f", self.folder / "conf", "-L", self.folder / "log", "-p", self.folder / "pid")
        wait_for("nfs-ganesha", lambda: listens(self.port))
        self.storage = "type: nfs\n    endpoint: 127.0.0.1\n    path: /export"
        self.secret = f"mountOptions: vers=4.1,port={self.port}"

    def url(self, name):
        return f"nfs://127.0.0.1/export/{name}"

    def copies(self):
        url = f"nfs://127.0.0.1{self.data}/by-hand?{self.options.replace('port=', 'nfsport=', 1)}"
        return f"nfs-cp $1 '{url}'", f"nfs-cp '{url}' $1"

    def env(self):
        return {}

    def empty(self):
        run("find", self.data, "-mindepth", "1", "-delete")


class Mounted:
    """A folder, as a mounted NFS export is one."""

    def __init__(self, work):
        self.folder = work.path / "mounted"
        self.folder.mkdir()
        self.storage = f'type: nfs\n    path: "{self.folder}"'
        self.secret = "mountOptions: rw"

    def empty(self):
        run("find", self.folder, "-mindepth", "1", "-delete")


# What is measured.


class Bench:
    def __init__(self, options):
        self.options, self.work = options, Work()
        self.path = self.work.path
        self.summary, self.rows = [], []

    def define(self, host, disk, vm="vm"):
        host.virsh(
            "define",
            "/dev/stdin",
            input=f"""<domain type='qemu'><name>{vm}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>""",
        )

    def manifest(self, store, target_format, vm="vm", server=None):
        target = server.provider if server else f'{{ type: libvirt, endpoint: "{self.b.uri}" }}'
        secret = f"apiVersion: v1\nkind: Secret\nmetadata: {{ name: vsphere }}\nstringData:\n  {server.secret}\n---\n" if server else ""
        disk_format = f"targetDiskFormat: {target_format}\n  " if target_format else ""
        file = self.path / "migration.yaml"
        file.write_text(
            f"""{secret}apiVersion: v1
kind: Secret
metadata: {{ name: storage }}
stringData:
  {store.secret}
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: Provider
metadata: {{ name: a }}
spec: {{ type: libvirt, endpoint: "{self.a.uri}" }}
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: Provider
metadata: {{ name: b }}
spec: {target}
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: VirtualMachine
metadata: {{ name: {vm} }}
spec: {{ providerRef: {{ name: a }} }}
---
apiVersion: infra.virtrigaud.io/v1beta1
kind: VMMigration
metadata: {{ name: {vm} }}
spec:
  sourceName: {vm}
  sourceNamespace: default
  targetProviderRef: {{ name: b }}
  targetName: {vm}
  {disk_format}cleanupPolicy: {{ deleteIntermediate: false }}
  storage:
    {store.storage}
    credentialsSecretRef: {{ name: storage }}
"""
        )
        return file

    def migrate(self, store, target_format, vm="vm"):
        """A whole `vmferry run` of a VM that is shut off, from the manifests to Ready."""
        manifest = self.manifest(store, target_format, vm)
        store.empty()
        subprocess.run(["virsh", "-q", "-c", self.b.uri, "undefine", vm], capture_output=True)
        for volume in (self.b.path / "pool").iterdir():
            volume.unlink()
        self.b.virsh("pool-refresh", "default")
        state = self.path / "state"
        shutil.rmtree(state, ignore_errors=True)
        return measure(VMFERRY, "run", "-f", manifest, "--state", state, hosts=(self.a, self.b))

    def convert(self, store):
        """`vmferry image convert` to a staged streamOptimized vmdk, and from it to a qcow2 file."""
        store.empty()
        secret = self.path / "secret.yaml"
        secret.write_text(f"apiVersion: v1\nkind: Secret\nmetadata: {{ name: storage }}\nstringData:\n  {store.secret}\n")
        out = self.path / "out.qcow2"
        out.unlink(missing_ok=True)
        there = measure(
            VMFERRY, "image", "convert", "-f", "qcow2", "-O", "vmdk", "--secret", secret, self.disk, store.url("staged.vmdk")
        )
        back = measure(
            VMFERRY, "image", "convert", "-f", "vmdk", "-O", "qcow2", "--secret", secret, store.url("staged.vmdk"), out
        )
        out.unlink()
        return add(there, back)

    def encode(self, ours):
        """The disk as a streamOptimized vmdk file."""
        out = self.path / "out.vmdk"
        out.unlink(missing_ok=True)
        if ours:
            done = measure(VMFERRY, "image", "convert", "-f", "qcow2", "-O", "vmdk", self.disk, out)
        else:
            done = measure("qemu-img", "convert", "-f", "qcow2", "-O", "vmdk", "-o", "subformat=streamOptimized", self.disk, out)
        done.size = out.stat().st_size
        out.unlink()
        return done

    def to_vsphere(self, store, ours):
        """From the disk of a VM at libvirt to a VM at vSphere, through the store, on a server of its own."""
        import bench_vsphere

        store.empty()
        server = bench_vsphere.Vsphere(self.work, run, wait_for)
        folder, state = self.path / "by-hand", self.path / "state"
        for old in (folder, state):
            shutil.rmtree(old, ignore_errors=True)
        folder.mkdir()
        there, back = store.copies()
        vsphere = f"python3 -B {bench_vsphere.__file__}"
        script = f"""
            qemu-img convert -f qcow2 -O vmdk -o subformat=streamOptimized {self.disk} {folder}/staged
            {vsphere} close {folder}/staged
            set -- {folder}/staged; {there}; rm {folder}/staged
            set -- {folder}/fetched; {back}
            {vsphere} import {server.address} {folder}/fetched
            sha256sum {folder}/fetched"""
        try:
            if ours:
                manifest = self.manifest(store, None, server=server)
                done = measure(VMFERRY, "run", "-f", manifest, "--state", state, hosts=(self.a,))
            else:
                done = measure("sh", "-euc", script, env=store.env())
            server.check(self.disk, run)
            return done
        finally:
            server.stop()
            shutil.rmtree(folder)

    def by_hand(self, store, staged, target):
        """qemu-img convert, copy there, copy back, qemu-img convert, sha256sum: what scripts do."""
        store.empty()
        folder = self.path / "by-hand"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        options = "-o subformat=streamOptimized" if staged == "vmdk" else ""
        there, back = store.copies()
        script = f"""
            qemu-img convert -f qcow2 -O {staged} {options} {self.disk} {folder}/staged
            set -- {folder}/staged; {there}; rm {folder}/staged
            set -- {folder}/fetched; {back}
            qemu-img convert -f {staged} -O {target} {folder}/fetched {folder}/out
            sha256sum {folder}/out"""
        done = measure("sh", "-euc", script, env=store.env())
        shutil.rmtree(folder)
        return done

    def nbd(self):
        """Two qemu-nbd servers: the disk, and an empty file to write to."""
        source, target, out = self.path / "src.sock", self.path / "dst.sock", self.path / "nbd.raw"
        out.unlink(missing_ok=True)
        with open(out, "wb") as file:
            file.truncate(8 << 30)
        common = ("--cache=none", "--aio=native", "--shared=8", "--persistent")
        servers = [
            self.work.start("qemu-nbd", *common, "--read-only", "-f", "qcow2", f"--socket={source}", self.disk),
            self.work.start("qemu-nbd", *common, "--discard=unmap", "-f", "raw", f"--socket={target}", out),
        ]
        wait_for("qemu-nbd", lambda: source.exists() and target.exists())
        return servers, f"nbd+unix:///?socket={source}", f"nbd+unix:///?socket={target}"

    def direct(self, ours):
        servers, source, target = self.nbd()
        try:
            if ours:
                return measure(VMFERRY, "image", "convert", "-f", "raw", "-O", "raw", source, target)
            return measure("nbdcopy", "--flush", source, target)
        finally:
            for server in servers:
                self.work.stop(server)

    def compare(self, name, what, ours, anchor):
        if self.options.only and name not in self.options.only:
            return
        say(f"{name}: {what}, {self.options.rounds} rounds in turn")
        pairs = []
        for _ in range(self.options.rounds):
            pairs.append((ours(), anchor()))
            mine, other = pairs[-1]
            print(
                f"{name}: vmferry {mine.wall:.1f} s, {mine.cpu:.1f} CPU s, {mine.peak:.0f} MiB; "
                f"by hand {other.wall:.1f} s, {other.cpu:.1f} CPU s; at work were {mine.busy / mine.wall:.2f} and "
                f"{other.busy / other.wall:.2f} of {os.cpu_count()} processors",
                file=sys.stderr,
                flush=True,
            )
        median = lambda side, field: statistics.median(getattr(pair[side], field) for pair in pairs)
        ratio = lambda field: statistics.median(getattr(pair[1], field) / getattr(pair[0], field) for pair in pairs)
        figures = lambda side: {
            "wall_s": round(median(side, "wall"), 2),
            "cpu_s": round(median(side, "cpu"), 2),
            "read_mib": round(median(side, "read")),
            "written_mib": round(median(side, "written")),
        }
        self.summary.append(
            {
                "name": name,
                "ours": figures(0),
                "anchor": figures(1),
                "ratio_wall": round(ratio("wall"), 2),
                "ratio_cpu": round(ratio("cpu"), 2),
                "peak_mib": round(max(pair[0].peak for pair in pairs)),
            }
        )
        if pairs[0][0].size:
            self.summary[-1]["ratio_size"] = round(statistics.median(mine.size / other.size for mine, other in pairs), 3)
        spread = lambda side, field: (
            f"{median(side, field):.1f} ({min(getattr(pair[side], field) for pair in pairs):.1f}–"
            f"{max(getattr(pair[side], field) for pair in pairs):.1f})"
        )
        self.rows.append((name, spread, median, ratio, self.summary[-1]))

    def sparse(self):
        """The same data in disks of different sizes: what a migration costs must not depend on the size."""
        store, sizes = Mounted(self.work), {"1 GiB": 1 << 10, "20 GiB": 20 << 10, "1 TiB": 1 << 20}
        say(f"sparse: 200 MiB of data in disks of {', '.join(sizes)}, {self.options.rounds} rounds in turn")
        runs = {size: [] for size in sizes}
        for size, mib in sizes.items():
            vm = f"g{mib}"
            disk = self.a.path / "pool" / f"{vm}.qcow2"
            run("qemu-img", "create", "-q", "-f", "qcow2", disk, f"{mib}M")
            with open(self.path / "random", "wb") as file:
                file.write(os.urandom(10 * MIB))
            writes = [word for n in range(20) for word in ("-c", f"write -q -s {file.name} {n * mib // 20}M 10M")]
            run("qemu-io", "-f", "qcow2", "-t", "none", *writes, disk)
            shutil.chown(disk, "nobody")
            self.a.virsh("pool-refresh", "default")
            self.define(self.a, disk, vm)
        for _ in range(self.options.rounds):
            for size, mib in sizes.items():
                runs[size].append(self.migrate(store, "qcow2", f"g{mib}"))
        lines = ["| disk | wall s | CPU s | peak MiB |", "| --- | --- | --- | --- |"]
        median = lambda size, field: statistics.median(getattr(one, field) for one in runs[size])
        for size in sizes:
            lines.append(f"| {size} | {median(size, 'wall'):.2f} | {median(size, 'cpu'):.2f} | {median(size, 'peak'):.0f} |")
        ratio = lambda field: statistics.median(
            getattr(large, field) / getattr(small, field) for large, small in zip(runs["1 TiB"], runs["1 GiB"])
        )
        lines.append(f"| 1 TiB / 1 GiB | {ratio('wall'):.2f} | {ratio('cpu'):.2f} | |")
        return "\n".join(lines)

    def table(self):
        lines = [
            "| | by hand: wall s | CPU s | vmferry: wall s | CPU s | peak MiB | disk read / written MiB | ratio wall | ratio CPU |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, spread, median, ratio, entry in self.rows:
            lines.append(
                f"| `{name}` | {spread(1, 'wall')} | {spread(1, 'cpu')} | {spread(0, 'wall')} | {spread(0, 'cpu')} | "
                f"{entry['peak_mib']} | {median(0, 'read'):.0f} / {median(0, 'written'):.0f} | **{ratio('wall'):.2f}** | "
                f"**{ratio('cpu'):.2f}** |"
            )
        sizes = [f"`{row[0]}`: {row[4]['ratio_size']} times the size" for row in self.rows if "ratio_size" in row[4]]
        return "\n".join(lines + [""] + sizes if sizes else lines)

    def run(self):
        wanted = lambda *names: not self.options.only or any(name in self.options.only for name in names)
        say("Making the disk")
        self.disk = make_disk(self.work, self.options.quick)
        allocated = json.loads(run("qemu-img", "info", "--output=json", self.disk))["actual-size"]
        if wanted("s3-raw", "s3-qcow2", "http-qcow2", "nfs-qcow2", "s3-vsphere", "sparse", "operator"):
            say("Starting two libvirt hosts")
            self.a, self.b = Host(self.work, "a"), Host(self.work, "b")
            disk = self.a.path / "pool" / "disk.qcow2"
            self.disk.rename(disk)
            self.disk = disk
            shutil.chown(disk, "nobody")
            self.a.virsh("pool-refresh", "default")
            self.define(self.a, disk)
        self.compare("vmdk-encode", "a streamOptimized vmdk", lambda: self.encode(True), lambda: self.encode(False))
        if wanted("s3-raw", "s3-qcow2", "s3-vmdk", "s3-vsphere"):
            s3 = S3(self.work)
            for target in ("raw", "qcow2"):
                self.compare(
                    f"s3-{target}",
                    f"a migration to a {target} disk over S3",
                    lambda: self.migrate(s3, target),
                    lambda: self.by_hand(s3, "qcow2", target),
                )
            self.compare("s3-vmdk", "a staged vmdk over S3", lambda: self.convert(s3), lambda: self.by_hand(s3, "vmdk", "qcow2"))
            self.compare(
                "s3-vsphere", "a migration to vSphere over S3", lambda: self.to_vsphere(s3, True), lambda: self.to_vsphere(s3, False)
            )
            s3.empty()
        for name, kind in (("http", Http), ("nfs", Nfs)):
            if wanted(f"{name}-qcow2"):
                store = kind(self.work)
                self.compare(
                    f"{name}-qcow2",
                    f"a migration over {name}",
                    lambda: self.migrate(store, "qcow2"),
                    lambda: self.by_hand(store, "qcow2", "qcow2"),
                )
                store.empty()
        self.compare("direct-nbd", "from NBD to NBD", lambda: self.direct(True), lambda: self.direct(False))
        sparse = self.sparse() if wanted("sparse") else None
        operator, out = None, TARGET / "bench"
        if wanted("operator"):
            import bench_operator  # It imports this file, too.

            few = self.options.quick
            operator, figures = bench_operator.measure(self, 200 if few else 2000, 10 if few else 50)
            out.mkdir(parents=True, exist_ok=True)
            (out / "operator.json").write_text(json.dumps(figures, indent=2) + "\n")
        out.mkdir(parents=True, exist_ok=True)
        if self.summary:
            (out / "summary.json").write_text(json.dumps(self.summary, indent=2) + "\n")
        if self.rows:
            print(f"\nA disk of 8 GiB with {allocated / MIB:.0f} MiB of data, median (min–max) of {self.options.rounds} rounds:\n")
            print(self.table())
        if sparse:
            print(f"\n200 MiB of data in disks of different sizes, median of {self.options.rounds} rounds:\n\n{sparse}")
        if operator:
            print(f"\nThe controller:\n\n{operator}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each pair is run")
    parser.add_argument("--only", type=lambda text: text.split(","), help="only these comparisons")
    parser.add_argument("--quick", action="store_true", help="a small disk, to see that everything runs")
    # Ending in an orderly way is what stops the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    Bench(parser.parse_args()).run()


if __name__ == "__main__":
    main()
