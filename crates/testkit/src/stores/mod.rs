//! Real staging servers, one file each, and what cuts and disturbs the way to them.
//!
//! Each is started by the test that needs it, on a free port of 127.0.0.1, with its data in a temporary folder, and ends with
//! the test.

mod apache;
mod ganesha;
mod nginx;
mod seaweedfs;
mod server;

pub use apache::{Apache, ApacheSpec};
pub use ganesha::{Export, Ganesha};
pub use nginx::{Nginx, NginxSpec};
pub use seaweedfs::{Identity, SeaweedFs};
pub(crate) use server::find_program;
pub use server::{Server, free_port, listens, program};

/// Everything below a folder, folders too, as sorted paths relative to it.
pub fn everything_below(folder: &std::path::Path) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if let Ok(name) = path.strip_prefix(folder) {
                found.push(name.display().to_string());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A server's command on a disk of its own of so many bytes, mounted at its folder where only its process sees it, and gone with
/// it. The mount has a folder `.tmp`. Needs root, or user namespaces.
fn on_small_disk(command: &std::process::Command, folder: &std::path::Path, bytes: u64) -> std::process::Command {
    const MOUNT: &str =
        r#"mount -t tmpfs -o "size=$1,mode=1777" tmpfs "$2" && mkdir -m 1777 "$2/.tmp" && shift 2 && exec "$@""#;
    let mut small = std::process::Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        small.arg("--map-root-user");
    }
    small.args(["--mount", "--", "sh", "-c", MOUNT, "sh"]);
    small.arg(bytes.to_string()).arg(folder);
    small.arg(command.get_program()).args(command.get_args());
    small
}
