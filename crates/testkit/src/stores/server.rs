//! A server process of a test.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::command::Must;
use crate::wait::poll;

/// How long a server may take to come up on a machine that is busy.
const STARTING: Duration = Duration::from_mins(1);

/// A server process with a folder of its own. Both are gone when this is dropped; the process dies with the test, too.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    name: String,
    process: Option<Child>,
}

impl Server {
    /// A folder for a server that is started next.
    pub fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("vmf-{name}-"))
            .tempdir_in("/var/tmp")
            .must("make a server's folder");
        Self {
            folder,
            name: name.to_owned(),
            process: None,
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Starts `command` and waits until it is ready.
    pub fn start(&mut self, command: &mut Command, ready: impl FnMut() -> bool) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .must("open a server's log");
        let errors = log.try_clone().must("open a server's log");
        // The server gets SIGKILL when the thread that starts it ends: no test leaves one behind, however it ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .must(format!("start {command:?}"));
        self.process = Some(child);
        self.await_ready(ready);
    }

    fn await_ready(&mut self, mut ready: impl FnMut() -> bool) {
        let up = poll(STARTING, || {
            let ended = !matches!(self.process.as_mut().map(Child::try_wait), Some(Ok(None)));
            if ended { Some(false) } else { ready().then_some(true) }
        });
        assert!(up == Some(true), "{} did not come up: {}", self.name, self.log());
    }

    /// Its process id; 0 where it was killed.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// Kills it with its children. It may be started again.
    pub fn kill(&mut self) {
        let Some(mut child) = self.process.take() else { return };
        if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.wait();
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of 127.0.0.1 that nobody listens at.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).must("bind a port");
    listener.local_addr().must("read a port").port()
}

/// Whether somebody listens at this port of 127.0.0.1.
pub fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The full path of a program; ends the test where it is missing, with what installs it.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| panic!("{name} is not installed: run scripts/deps.sh stores"))
}

/// The full path of a program on `PATH`, in the cache of `scripts/deps.sh`, or where servers are.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let ours = cache.map(|cache| cache.join("vmferry/tools/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(ours)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
