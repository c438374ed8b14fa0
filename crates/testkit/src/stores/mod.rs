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
