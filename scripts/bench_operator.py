"""Measures the controller: thousands of migrations on a real API server, some of them active, their workers real processes."""

import base64
import contextlib
import http.client
import json
import os
import ssl
import subprocess
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from bench import MIB, TARGET, VMFERRY, free_port, run, say, wait_for

CLUSTER = TARGET / "release" / "examples" / "cluster"
API = "/apis/infra.virtrigaud.io/v1beta1/namespaces/default"
COUNTED = ("vmmigrations", "virtualmachines", "providers", "secrets", "events", "jobs", "pods", "leases")
# What workers may do is tested elsewhere.
WORKERS = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "workers"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts"}],
}


class Cluster:
    """A control plane of its own with one node, for as long as its standard input is open."""

    def __init__(self, work):
        self.server = work.start(CLUSTER, VMFERRY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.kubeconfig = Path(self.server.stdout.readline().decode().strip())
        config = json.loads(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.address = urlsplit(cluster["server"])
        self.tls = ssl.create_default_context(cadata=decode(cluster["certificate-authority-data"]))
        certificate, key = work.path / "admin.crt", work.path / "admin.key"
        certificate.write_text(decode(user["client-certificate-data"]))
        key.write_text(decode(user["client-key-data"]))
        self.tls.load_cert_chain(certificate, key)
        self.connection = None
        self.own = Counter()

    def call(self, method, path, body=None):
        """One request; the answer's JSON, or its text."""
        self.connection = self.connection or http.client.HTTPSConnection(self.address.netloc, context=self.tls)
        self.connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read().decode()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status}: {text}")
        return json.loads(text) if text.startswith("{") else text

    def migrations(self):
        self.own["LIST vmmigrations"] += 1
        return self.call("GET", f"{API}/vmmigrations?resourceVersion=0")["items"]

    def calls(self):
        """Requests so far that are not ours, by verb and resource."""
        found = Counter()
        for line in self.call("GET", "/metrics").splitlines():
            if not line.startswith("apiserver_request_total{"):
                continue
            labels, _, count = line.partition("{")[2].rpartition("} ")
            labels = dict(label.split("=", 1) for label in labels.replace('"', "").split(",") if "=" in label)
            resource = labels.get("resource", "")
            if resource in COUNTED:
                subresource = f"/{labels['subresource']}" if labels.get("subresource") else ""
                found[f"{labels['verb']} {resource}{subresource}"] += int(float(count))
        return found - self.own


def decode(text):
    return base64.b64decode(text).decode()


class Controller:
    """`vmferry controller`, and what it takes."""

    def __init__(self, work, cluster):
        self.metrics = free_port()
        self.process = work.start(
            VMFERRY,
            "controller",
            "--worker-image=vmferry",
            "--max-concurrent=1000",
            "--bandwidth-limit=512KiB",
            "--leader-elect=false",
            f"--metrics-addr=127.0.0.1:{self.metrics}",
            f"--health-addr=127.0.0.1:{free_port()}",
            env=os.environ | {"KUBECONFIG": str(cluster.kubeconfig)},
        )

    def cpu(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, which="VmRSS"):
        """MiB that are resident now, or were at most (`VmHWM`)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))

    def reconciles(self):
        """Steps so far."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics)
        connection.request("GET", "/metrics")
        total = 0
        for line in connection.getresponse().read().decode().splitlines():
            if line.startswith("vmferry_reconcile_duration_seconds_count"):
                total += float(line.rpartition(" ")[2])
        return total


def provider(name, host):
    return {
        "apiVersion": "infra.virtrigaud.io/v1beta1",
        "kind": "Provider",
        "metadata": {"name": name},
        "spec": {"type": "libvirt", "endpoint": host.uri},
    }


def machine(name):
    return {
        "apiVersion": "infra.virtrigaud.io/v1beta1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"providerRef": {"name": "a"}},
    }


def migration(name, vm, staging):
    return {
        "apiVersion": "infra.virtrigaud.io/v1beta1",
        "kind": "VMMigration",
        "metadata": {"name": name},
        "spec": {
            "sourceName": vm,
            "sourceNamespace": "default",
            "targetProviderRef": {"name": "b"},
            "targetName": vm,
            "storage": {"type": "nfs", "path": str(staging)},
        },
    }


def ended(status):
    return bool(status.get("completionTime"))


class Fleet:
    """All migrations: those at their end, and those that are to run."""

    def __init__(self, bench, cluster, count, active):
        self.bench, self.cluster, self.count, self.active = bench, cluster, count, active
        self.staging = bench.path / "fleet"
        self.staging.mkdir()
        cluster.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", WORKERS)
        for name, host in (("a", bench.a), ("b", bench.b)):
            cluster.call("POST", f"{API}/providers", provider(name, host))

    def rest(self):
        """Those that came to their end long ago."""
        for n in range(self.count - self.active):
            made = self.cluster.call("POST", f"{API}/vmmigrations", migration(f"old-{n}", f"old-{n}", self.staging))
            made["status"] = {
                "phase": "Ready",
                "progress": 100,
                "startTime": "2026-01-01T00:00:00Z",
                "completionTime": "2026-01-01T00:30:00Z",
                "bytesTransferred": 10 << 30,
                "checksum": "sha256:" + "0" * 64,
                "message": "Migration completed",
                "conditions": [
                    {
                        "type": kind,
                        "status": "True",
                        "reason": "Done",
                        "message": "Done",
                        "lastTransitionTime": "2026-01-01T00:30:00Z",
                    }
                    for kind in ("Validated", "Snapshotted", "Exported", "Transferred", "Imported", "Created", "Ready")
                ],
            }
            self.cluster.call("PUT", f"{API}/vmmigrations/old-{n}/status", made)

    def start(self):
        """Those that are to run, each with a VM that is shut off and 12 MiB of noise on its disk."""
        for n in range(self.active):
            vm = f"f{n}"
            disk = self.bench.a.path / "pool" / f"{vm}.qcow2"
            noise = self.bench.path / "noise"
            noise.write_bytes(os.urandom(12 * MIB))
            run("qemu-img", "create", "-q", "-f", "qcow2", disk, "64M")
            run("qemu-io", "-f", "qcow2", "-c", f"write -q -s {noise} 16M 12M", disk)
            os.chown(disk, 65534, -1)
        self.bench.a.virsh("pool-refresh", "default")
        for n in range(self.active):
            self.bench.define(self.bench.a, self.bench.a.path / "pool" / f"f{n}.qcow2", f"f{n}")
            self.cluster.call("POST", f"{API}/virtualmachines", machine(f"f{n}"))
        for n in range(self.active):
            self.cluster.call("POST", f"{API}/vmmigrations", migration(f"m{n}", f"f{n}", self.staging))

    def statuses(self):
        found = {each["metadata"]["name"]: each.get("status", {}) for each in self.cluster.migrations()}
        return [found[f"m{n}"] for n in range(self.active)]


def watched(fleet, controller):
    """Waits until all have ended; the sum of the seconds that each was under way."""
    started, active, last = time.monotonic(), 0.0, time.monotonic()
    while True:
        time.sleep(2)
        statuses = fleet.statuses()
        now = time.monotonic()
        running = sum(not ended(status) for status in statuses)
        active, last = active + running * (now - last), now
        if running == 0:
            return active, now - started, Counter(status["phase"] for status in statuses)
        if now - started > 1200:
            raise RuntimeError(f"{running} migrations have not ended: {statuses[0]}")


def measure(bench, count, active):
    """Runs all of it; the table, and the figures for the summary."""
    say(f"operator: {count} migrations, {active} of them active")
    cluster = Cluster(bench.work)
    fleet = Fleet(bench, cluster, count, active)
    fleet.rest()
    controller = Controller(bench.work, cluster)
    wait_for("the controller", lambda: listening(controller))
    time.sleep(20)

    say("operator: nothing changes, for a minute")
    quiet_calls, quiet_cpu = cluster.calls(), controller.cpu()
    time.sleep(60)
    idle = (controller.cpu() - quiet_cpu) / 60
    idle_calls = (cluster.calls() - quiet_calls).total()
    resting = controller.memory()

    say(f"operator: {active} migrations run")
    fleet.start()
    before, cpu, steps = cluster.calls(), controller.cpu(), controller.reconciles()
    seconds, wall, phases = watched(fleet, controller)
    calls = cluster.calls() - before
    steps, cpu = controller.reconciles() - steps, controller.cpu() - cpu
    writes = sum(n for call, n in calls.items() if call.endswith("vmmigrations/status"))
    figures = {
        "migrations": count,
        "active": active,
        "ended": dict(phases),
        "idle_cpu_percent": round(100 * idle, 2),
        "idle_calls_per_minute": idle_calls,
        "idle_mib": round(resting),
        "peak_mib": round(controller.memory("VmHWM")),
        "wall_s": round(wall, 1),
        "reconciles_per_s": round(steps / wall, 1),
        "cpu_percent": round(100 * cpu / wall, 1),
        "calls_per_migration": {call: round(n / active, 1) for call, n in sorted(calls.items())},
        "status_writes_per_active_s": round(writes / seconds, 2),
    }
    bench.work.stop(controller.process)
    return table(figures), figures


def listening(controller):
    with contextlib.suppress(OSError):
        controller.reconciles()
        return True
    return False


def table(figures):
    calls = "; ".join(f"{call} {n}" for call, n in figures["calls_per_migration"].items())
    rows = [
        ("CPU when nothing changes", f"{figures['idle_cpu_percent']} % of a core"),
        ("API calls a minute when nothing changes (watches that begin anew, leases)", figures["idle_calls_per_minute"]),
        ("memory when nothing changes, and at most", f"{figures['idle_mib']} and {figures['peak_mib']} MiB"),
        (f"{figures['active']} migrations, from the first to the last", f"{figures['wall_s']} s, {figures['ended']}"),
        ("reconciles per second meanwhile", figures["reconciles_per_s"]),
        ("CPU meanwhile", f"{figures['cpu_percent']} % of a core"),
        ("status writes per second and active migration", figures["status_writes_per_active_s"]),
        ("API calls per migration, its worker's and the cluster's own included", calls),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in rows)])
