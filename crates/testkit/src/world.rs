//! Everything on some hosts and in some folders, line by line, and what became of it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Host;
use crate::command::{Must, try_run};
use crate::wait::poll;

/// How long what ends by itself (a connection's process, a socket) may take to go.
const SETTLE: Duration = Duration::from_secs(10);

/// All that is at some hosts and in some folders at one moment. Each item is one line, `<host> <what> <name> …`:
///
/// - `a domain g1 running`, `a config g1 <digest>`, `a disk g1 vda /path`
/// - `a snapshot g1 <name>`, `a checkpoint g1 <name>`, `a job g1 <kind>`
/// - `a pool default`, `a volume default g1-0.qcow2`, `a bitmap <file> <name>`
/// - `a file pool/g1-0.qcow2`: any file, hidden or not, and any socket below the host's folder that is not libvirt's own
///   bookkeeping of a domain that is listed
/// - `a process qemu-system-x86_64 guest=g1`
/// - `folder <path>`: any file in a folder that was named
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World(BTreeSet<String>);

/// What came and what went between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Lines that were not there before.
    pub came: Vec<String>,
    /// Lines that are not there any more.
    pub went: Vec<String>,
}

impl Change {
    /// Nothing came and nothing went.
    pub fn is_nothing(&self) -> bool {
        self.came.is_empty() && self.went.is_empty()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.came.iter().try_for_each(|line| writeln!(f, "  + {line}"))?;
        self.went.iter().try_for_each(|line| writeln!(f, "  - {line}"))
    }
}

impl World {
    /// Looks at hosts and folders.
    pub fn of(hosts: &[&Host], folders: &[&Path]) -> Self {
        let mut items = BTreeSet::new();
        for host in hosts {
            look_at_host(host, &mut items);
        }
        for folder in folders {
            for path in files_below(folder) {
                items.insert(format!("folder {}", path.display()));
            }
        }
        Self(items)
    }

    /// The lines, sorted.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }

    /// What is different later.
    pub fn until(&self, later: &Self) -> Change {
        Change {
            came: later.0.difference(&self.0).cloned().collect(),
            went: self.0.difference(&later.0).cloned().collect(),
        }
    }

    /// Asserts that the world is as it was, but for lines that contain one of `expected`. What ends by itself has a few seconds.
    #[track_caller]
    pub fn assert_unchanged_but(&self, hosts: &[&Host], folders: &[&Path], expected: &[&str]) {
        let mut change = None;
        poll(SETTLE, || {
            let now = self.until(&Self::of(hosts, folders)).without(expected);
            let same = now.is_nothing();
            change = Some(now);
            same.then_some(())
        });
        let change = change.must("look at the world");
        assert!(change.is_nothing(), "the world is not as it was:\n{change}");
    }

    /// Asserts that nothing came and nothing went.
    #[track_caller]
    pub fn assert_unchanged(&self, hosts: &[&Host], folders: &[&Path]) {
        self.assert_unchanged_but(hosts, folders, &[]);
    }
}

impl Change {
    fn without(mut self, expected: &[&str]) -> Self {
        let unexpected = |line: &String| !expected.iter().any(|text| line.contains(text));
        self.came.retain(unexpected);
        self.went.retain(unexpected);
        self
    }
}

fn look_at_host(host: &Host, items: &mut BTreeSet<String>) {
    let domains = names(&host.virsh(["list", "--all", "--name"]));
    let mut lines = Vec::new();
    for domain in &domains {
        look_at_domain(host, domain, &mut lines);
    }
    look_at_pools(host, &mut lines);
    look_at_files(host, &domains, &mut lines);
    lines.extend(
        host.processes()
            .iter()
            .map(|process| format!("process {}", short(process))),
    );
    items.extend(lines.into_iter().map(|line| format!("{} {line}", host.label())));
}

fn look_at_domain(host: &Host, domain: &str, lines: &mut Vec<String>) {
    // A domain may go away while we look.
    let quoted = quoted(domain);
    let said = host.virsh_each(&[
        format!("domstate {quoted}"),
        format!("dumpxml --inactive {quoted}"),
        format!("domblklist {quoted}"),
        format!("snapshot-list {quoted} --name"),
        format!("checkpoint-list {quoted} --name"),
        format!("domjobinfo {quoted}"),
    ]);
    let [state, config, disks, snapshots, checkpoints, job, ..] = &said[..] else {
        unreachable!("an answer for each command");
    };
    lines.push(format!("domain {domain} {state}"));
    lines.push(format!("config {domain} {:016x}", digest(config)));
    for line in disks.lines() {
        lines.push(format!(
            "disk {domain} {}",
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        ));
    }
    for (what, list) in [("snapshot", snapshots), ("checkpoint", checkpoints)] {
        lines.extend(names(list).into_iter().map(|name| format!("{what} {domain} {name}")));
    }
    let kind = job
        .lines()
        .find_map(|line| line.strip_prefix("Job type:"))
        .unwrap_or("None")
        .trim();
    if kind != "None" {
        lines.push(format!("job {domain} {kind}"));
    }
}

fn look_at_pools(host: &Host, lines: &mut Vec<String>) {
    let pools = names(&host.virsh(["pool-list", "--all", "--name"]));
    let commands: Vec<String> = pools
        .iter()
        .map(|pool| quoted(pool))
        .map(|pool| format!("pool-refresh {pool}; vol-list {pool}"))
        .collect();
    for (pool, volumes) in pools.iter().zip(host.virsh_each(&commands)) {
        lines.push(format!("pool {pool}"));
        for volume in volumes.lines().filter(|line| !line.is_empty()) {
            lines.push(format!(
                "volume {pool} {}",
                volume.split_whitespace().next().unwrap_or_default()
            ));
        }
    }
}

fn look_at_files(host: &Host, domains: &[String], lines: &mut Vec<String>) {
    for path in files_below(host.dir()) {
        let name = path.strip_prefix(host.dir()).unwrap_or(&path).display().to_string();
        if is_bookkeeping(&name, domains) {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "qcow2") {
            lines.extend(bitmaps(&path).iter().map(|bitmap| format!("bitmap {name} {bitmap}")));
        }
        lines.push(format!("file {name}"));
    }
}

/// A name as one word of virsh's own command language.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', r"\\").replace('"', r#"\""#))
}

/// The lines of a list, trimmed.
fn names(said: &str) -> Vec<String> {
    said.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Files that libvirt keeps for itself: logs, caches, locks, and what it knows of a domain that exists.
fn is_bookkeeping(name: &str, domains: &[String]) -> bool {
    let in_pool = name.starts_with("pool/");
    let own = ["log/", "var/log/", "var/cache/", "ready", "pid-namespace", "ssh/"];
    let parts = [
        "/cache/",
        "/qemu/log/",
        ".pid",
        "/dbus",
        "libvirt-sock",
        "libvirt-admin-sock",
        "/driver.pid",
        "/lock",
    ];
    !in_pool
        && (own.iter().any(|prefix| name.starts_with(prefix))
            || parts.iter().any(|part| name.contains(part))
            || domains.iter().any(|domain| is_of_domain(name, domain)))
}

/// `etc/qemu/g1.xml`, `run/qemu/g1.xml`, `var/lib/qemu/domain-3-g1/monitor.sock`, …
fn is_of_domain(name: &str, domain: &str) -> bool {
    let of_run = |part: &str| {
        let rest = part.strip_prefix("domain-").and_then(|rest| rest.split_once('-'));
        // libvirt shortens a long name there.
        rest.is_some_and(|(_, short)| !short.is_empty() && domain.starts_with(short))
    };
    name.split('/')
        .any(|part| part.strip_suffix(".xml") == Some(domain) || of_run(part))
        || name.contains("/run/channel/target/") && name.contains(domain)
}

/// The process's program, and for a guest its name.
fn short(line: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let guest = line
        .split("guest=")
        .nth(1)
        .and_then(|rest| rest.split([',', ' ']).next());
    match guest {
        Some(guest) => format!("{program} guest={guest}"),
        None => program.to_owned(),
    }
}

/// Names of the dirty bitmaps that are kept in a qcow2.
fn bitmaps(path: &Path) -> Vec<String> {
    // The file may go away while we look.
    let info = try_run(Command::new("qemu-img").args(["info", "-U", "--output=json"]).arg(path)).unwrap_or_default();
    let list = info.split_once("\"bitmaps\"").map_or("", |(_, list)| list);
    list.split("\"name\": \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

/// Every file and socket below a folder, sorted; what vanishes meanwhile is left out.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

fn digest(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
