//! Freezing a VM whose guest agent answers, is slow, or does not answer. One guest for many cases: a Linux takes long to boot.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use vmferry_provider::libvirt::Libvirt;
use vmferry_provider::{Hypervisor as _, Kind, SourceHost, Vm};
use vmferry_testkit::{DiskSpec, Format, GuestSpec, Host, MIB, World, image, run, try_run, wait_for};

use crate::{Way, copy, find, named, owner};

const NAME: &str = "linux";

/// Where the ext4 of `scripts/guest.sh` begins.
const ROOT_START: u64 = 51_200 * 512;

/// How libvirt tells that vmferry holds the guest's file systems.
const MARK: &str = "https://vmferry.dev/ns/quiesced/1";

/// The guest, and a disk in a pool of its own that can be filled.
struct Linux {
    host: Host,
}

impl Linux {
    fn boot() -> Self {
        let host = Host::system("a");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/guest.sh");
        let raw = host.dir().join("linux.raw");
        run(Command::new(script).arg(&raw).args(["96", "agent", "0", "agent"]));
        let disk = host.pool_dir().join("linux.qcow2");
        image::convert(&raw, Format::Raw, &disk, Format::Qcow2);
        host.add_small_pool("tiny", 4 * MIB);
        host.virsh(["vol-create-as", "tiny", "second.qcow2", "8M", "--format", "qcow2"]);
        let second = host.dir().join("tiny/second.qcow2");
        let mut spec = GuestSpec::micro(NAME)
            .disk(DiskSpec::existing(&disk, Format::Qcow2))
            .disk(DiskSpec::existing(&second, Format::Qcow2))
            .agent();
        spec.memory_mib = 256;
        host.define(&spec);
        host.virsh(["start", NAME]);
        let linux = Self { host };
        wait_for("the guest agent", Duration::from_mins(1), || {
            linux.is_connected().then_some(())
        });
        linux
    }

    fn is_connected(&self) -> bool {
        self.host.virsh(["dumpxml", NAME]).contains("state='connected'")
    }

    fn agent(&self, command: &str) -> String {
        self.host.virsh(["qemu-agent-command", NAME, command])
    }

    fn is_frozen(&self) -> bool {
        let status = self.agent(r#"{"execute":"guest-fsfreeze-status"}"#);
        assert!(status.contains("frozen") || status.contains("thawed"), "{status}");
        status.contains("frozen")
    }

    /// Runs a script in the guest. Its parent is the agent.
    fn shell(&self, script: &str) {
        self.agent(&exec(script));
    }

    /// How often the guest wrote to its first disk: its counters do so all the time.
    fn writes(&self) -> u64 {
        let stats = self.host.virsh(["domblkstat", NAME, "vda"]);
        let line = stats.lines().find(|line| line.contains("wr_req")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn writes_go_on(&self) -> bool {
        let before = self.writes();
        vmferry_testkit::poll(Duration::from_secs(2), || (self.writes() > before + 4).then_some(())).is_some()
    }

    fn is_marked(&self) -> bool {
        self.host.virsh(["dumpxml", NAME]).contains(MARK)
    }

    /// Asserts that the domain has the mark that [`freeze_as_killed`](Self::freeze_as_killed) imitates, but not for ever.
    #[track_caller]
    fn assert_marked_for(&self, id: &str) {
        let mark = self.host.virsh(["metadata", NAME, MARK, "--live"]);
        assert_eq!(mark, format!("<frozen by=\"{id}\"/>"));
        let definition = self.host.virsh(["dumpxml", "--inactive", NAME]);
        assert!(!definition.contains(MARK), "{definition}");
    }

    #[track_caller]
    fn assert_thawed(&self) {
        assert!(!self.is_frozen(), "the guest is still frozen");
        assert!(!self.is_marked(), "the mark is still there");
        assert!(self.writes_go_on(), "the guest stands still");
    }

    /// Waits until nothing of vmferry's holds the guest.
    #[track_caller]
    fn await_thawed(&self) {
        wait_for("the thaw", Duration::from_secs(10), || {
            (!self.is_marked()).then_some(())
        });
        self.assert_thawed();
    }

    /// Freezes the file systems as a vmferry that was killed meanwhile leaves them.
    fn freeze_as_killed(&self, tag: &str) {
        let mark = format!("<frozen by='vmferry-{tag}-00000000'/>");
        self.host
            .virsh(["metadata", NAME, MARK, "--live", "--key", "vmferry", "--set", &mark]);
        self.host.virsh(["domfsfreeze", NAME]);
    }
}

/// Whether the journal of the guest's file system has something in it to be replayed; otherwise it must be without a fault.
async fn needs_recovery(libvirt: &Libvirt, vm: &Vm, id: &vmferry_provider::FrozenId) -> bool {
    let disk = libvirt.open_disk(vm, id, "vda").await.unwrap().into_random().unwrap();
    let copy = copy(&*disk).await;
    disk.finish().await.unwrap();
    // A file of its own: some versions of these tools take a path with an offset for a label.
    let (mut disk, mut root) = (File::open(copy.path()).unwrap(), NamedTempFile::new().unwrap());
    disk.seek(SeekFrom::Start(ROOT_START)).unwrap();
    std::io::copy(&mut disk, &mut root).unwrap();
    let root = root.path();
    let header = run(Command::new("dumpe2fs").arg("-h").arg(root));
    let recovery = header.contains("needs_recovery");
    assert!(header.contains("Filesystem state:         clean"), "{header}");
    if !recovery {
        try_run(Command::new("e2fsck").args(["-f", "-n"]).arg(root)).unwrap();
    }
    recovery
}

async fn freeze(libvirt: &Libvirt, vm: &Vm) -> (vmferry_provider::Frozen, Duration) {
    let start = Instant::now();
    let frozen = libvirt.freeze(vm, &owner(), false).await.unwrap();
    (frozen, start.elapsed())
}

async fn release(libvirt: &Libvirt) {
    libvirt.release(&named(NAME), &owner(), false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_an_agent_is_frozen_and_never_left_so() {
    let linux = Linux::boot();
    let before = World::of(&[&linux.host], &[]);
    let libvirt = Way::ssh(&linux.host).connect().await;
    let vm = find(&libvirt, NAME).await;

    its_addresses_are_told(&linux, &libvirt, &vm).await;
    a_state_is_clean(&linux, &libvirt, &vm).await;
    a_failed_begin_thaws(&linux, &libvirt, &vm).await;
    a_cancelled_freeze_thaws(&linux, &libvirt, &vm).await;
    what_a_killed_one_froze_is_thawed(&linux, &libvirt, &vm).await;
    what_another_froze_stays_frozen(&linux, &libvirt, &vm).await;
    a_job_that_starts_late_does_not_hold_the_guest(&linux, &libvirt, &vm).await;

    drop(libvirt);
    before.assert_unchanged(&[&linux.host], &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_slow_hangs_or_is_gone_costs_seconds_and_leaves_nothing_frozen() {
    let linux = Linux::boot();
    let before = World::of(&[&linux.host], &[]);
    let libvirt = Way::ssh(&linux.host).connect().await;
    let vm = find(&libvirt, NAME).await;

    a_late_freeze_thaws(&linux, &libvirt, &vm).await;
    a_lost_connection_thaws(&linux, &libvirt, &vm).await;
    an_agent_that_hangs_costs_seconds(&linux, &libvirt, &vm).await;
    an_agent_that_is_gone_costs_nothing(&linux, &libvirt, &vm).await;

    drop(libvirt);
    before.assert_unchanged(&[&linux.host], &[]);
}

/// What has the agent run a script.
fn exec(script: &str) -> String {
    let arg = format!(r#"["sh","-c","{script}"]"#);
    format!(r#"{{"execute":"guest-exec","arguments":{{"path":"/bin/busybox","arg":{arg}}}}}"#)
}

async fn addresses(libvirt: &Libvirt, vm: &Vm) -> Vec<String> {
    let found = libvirt.addresses(&vm.id).await.unwrap();
    found.iter().map(ToString::to_string).collect()
}

async fn its_addresses_are_told(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    assert_eq!(addresses(libvirt, vm).await, [""; 0]);
    let add = |address: &str| format!("/bin/busybox ip address add {address} dev lo");
    linux.shell(
        &[
            add("192.0.2.7/24"),
            add("169.254.7.7/16"),
            add("2001:db8::7/64"),
            add("192.0.2.6/24"),
        ]
        .join("; "),
    );
    let begun = Instant::now();
    while addresses(libvirt, vm).await != ["192.0.2.6", "192.0.2.7", "2001:db8::7"] {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            addresses(libvirt, vm).await
        );
    }
    // An agent answers nothing else while the guest stands still, and what it said before is still so.
    linux.host.virsh(["domfsfreeze", NAME]);
    let error = libvirt.addresses(&vm.id).await.unwrap_err();
    assert!(error.to_string().contains("addresses"), "{error}");
    linux.host.virsh(["domfsthaw", NAME]);
}

async fn a_state_is_clean(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    let (frozen, _) = freeze(libvirt, vm).await;
    linux.assert_thawed();
    assert!(frozen.detail.contains("1 file system"), "{frozen:?}");
    assert!(
        !needs_recovery(libvirt, vm, &frozen.id).await,
        "the state was taken before the freeze"
    );
    release(libvirt).await;
}

async fn a_failed_begin_thaws(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    let fill = ["vol-create-as", "tiny", "fill", "3800K", "--allocation", "3800K"];
    linux.host.virsh(fill);
    let error = libvirt.freeze(vm, &owner(), false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    linux.assert_thawed();
    linux.host.virsh(["vol-delete", "fill", "--pool", "tiny"]);
    release(libvirt).await;
}

async fn a_cancelled_freeze_thaws(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    let mut cut = 0;
    for millis in [20, 40, 60, 80, 120, 200, 300] {
        let limit = Duration::from_millis(millis);
        let cancelled = tokio::time::timeout(limit, libvirt.freeze(vm, &owner(), false)).await;
        if cancelled.is_err() {
            cut += 1;
        }
        linux.await_thawed();
        // A job may have begun nevertheless.
        release(libvirt).await;
    }
    assert!(cut > 1, "nothing was cancelled");
}

async fn what_a_killed_one_froze_is_thawed(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    let tag = owner().tag();
    // Killed before the job began, and the migration goes on.
    linux.freeze_as_killed(&tag);
    assert!(linux.is_frozen() && !linux.writes_go_on(), "the test froze nothing");
    let (frozen, _) = freeze(libvirt, vm).await;
    assert!(frozen.detail.contains("1 file system"), "{frozen:?}");
    linux.assert_thawed();
    // Killed after the job began.
    linux.freeze_as_killed(&tag);
    let held = libvirt.frozen(vm, &owner()).await.unwrap();
    assert_eq!(held.unwrap().id, frozen.id);
    linux.assert_thawed();
    // Killed, and the migration is given up.
    linux.freeze_as_killed(&tag);
    release(libvirt).await;
    linux.assert_thawed();
    // Killed, and another migration comes.
    linux.freeze_as_killed("cccccccccccc");
    let (frozen, _) = freeze(libvirt, vm).await;
    assert!(frozen.detail.contains("1 file system"), "{frozen:?}");
    linux.assert_thawed();
    release(libvirt).await;
}

async fn what_another_froze_stays_frozen(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    linux.host.virsh(["domfsfreeze", NAME]);
    assert_eq!(libvirt.frozen(vm, &owner()).await.unwrap(), None);
    let (frozen, _) = freeze(libvirt, vm).await;
    assert!(frozen.detail.contains("crash-consistent"), "{frozen:?}");
    release(libvirt).await;
    assert!(linux.is_frozen(), "what another froze was thawed");
    assert!(!linux.is_marked());
    linux.host.virsh(["domfsthaw", NAME]);
    linux.assert_thawed();
}

/// Another job on the VM, which nothing else than reading its output ends, keeps ours from starting.
async fn a_job_that_starts_late_does_not_hold_the_guest(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    let pipe = linux.host.dir().join("dump");
    run(Command::new("mkfifo").arg(&pipe));
    linux.shell("echo 2 >/run/slow");
    let owner = owner();
    let stand_in_the_way = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut dump = linux.host.virsh_command();
        let mut dump = dump.args(["dump", "--live", NAME]).arg(&pipe).spawn().unwrap();
        let mut output = std::fs::File::open(&pipe).unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(linux.is_frozen());
        // The thread that thaws is another.
        wait_for("the thaw", Duration::from_secs(14), || {
            std::thread::sleep(Duration::from_millis(500));
            (!linux.is_frozen()).then_some(())
        });
        std::io::copy(&mut output, &mut std::io::sink()).unwrap();
        assert!(dump.wait().unwrap().success());
    };
    let (frozen, ()) = futures::join!(libvirt.freeze(vm, &owner, false), stand_in_the_way);
    let frozen = frozen.unwrap();
    assert!(
        frozen.detail.contains("the job did not start within 10 s"),
        "{frozen:?}"
    );
    linux.assert_thawed();
    linux.shell("rm /run/slow");
    std::fs::remove_file(&pipe).unwrap();
    release(libvirt).await;
}

async fn a_late_freeze_thaws(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    linux.shell("echo 12 >/run/slow");
    let (frozen, took) = freeze(libvirt, vm).await;
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert!(frozen.detail.contains("did not answer within 10 s"), "{frozen:?}");
    linux.assert_marked_for(&frozen.id.0);
    assert!(needs_recovery(libvirt, vm, &frozen.id).await);
    release(libvirt).await;
    linux.await_thawed();
    linux.shell("rm /run/slow");
}

async fn a_lost_connection_thaws(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    linux.shell("echo 3 >/run/slow");
    let owner = owner();
    let cut = async {
        let begun = Instant::now();
        while !linux.is_marked() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not freeze");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // `sshd: root…` or `sshd-session: root…`, by version.
        let sessions = linux.host.pids(": root");
        assert!(!sessions.is_empty(), "{:?}", linux.host.processes());
        for pid in sessions {
            run(Command::new("kill").args(["-KILL", &pid.to_string()]));
        }
    };
    let (frozen, ()) = futures::join!(libvirt.freeze(vm, &owner, false), cut);
    // Either the job was begun over a new connection, or that came too early.
    if let Ok(frozen) = frozen {
        assert!(frozen.detail.contains("crash-consistent"), "{frozen:?}");
    }
    linux.await_thawed();
    linux.shell("rm /run/slow");
    release(libvirt).await;
}

async fn an_agent_that_hangs_costs_seconds(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    linux.shell("sleep 1; kill -STOP $PPID; sleep 15; kill -CONT $PPID");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (frozen, took) = freeze(libvirt, vm).await;
    assert!(took < Duration::from_secs(9), "{took:?}");
    assert!(frozen.detail.contains("crash-consistent"), "{frozen:?}");
    assert!(linux.writes_go_on());
    release(libvirt).await;
    libvirt.addresses(&vm.id).await.unwrap_err();
    wait_for("the agent's return", Duration::from_secs(20), || {
        let ping = ["qemu-agent-command", NAME, r#"{"execute":"guest-ping"}"#];
        linux.host.try_virsh(ping).ok()
    });
    linux.assert_thawed();
}

async fn an_agent_that_is_gone_costs_nothing(linux: &Linux, libvirt: &Libvirt, vm: &Vm) {
    // Its answer may end with it.
    let _ = linux
        .host
        .try_virsh(["qemu-agent-command", NAME, &exec("kill -KILL $PPID")]);
    wait_for("the agent's end", Duration::from_secs(5), || {
        (!linux.is_connected()).then_some(())
    });
    let (frozen, took) = freeze(libvirt, vm).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(frozen.detail.contains("not connected"), "{frozen:?}");
    assert_eq!(addresses(libvirt, vm).await, [""; 0], "and is no error");
    assert!(linux.writes_go_on());
    release(libvirt).await;
}
