//! Whether a host's file is a file of this machine.
//!
//! A local socket does not prove it: it may be forwarded from elsewhere, or its daemon may live in another mount namespace,
//! where the same path is another file. What proves it is that the host sees the file change at the very nanoseconds at
//! which we do. Of a file that is in no pool the host does not tell that; there the host itself must be this machine, by its
//! name and by how much its processors have worked.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use rustix::fs::OFlags;

use super::Libvirt;
use super::conn::Transport;
use super::xml::storage::VolumeXml;
use crate::{Error, Hypervisor as _, Kind};

impl Libvirt {
    /// Whether the host may be this machine.
    pub(super) fn may_be_local(&self) -> bool {
        matches!(
            self.handle.endpoint().transport,
            Transport::Local | Transport::Unix { .. }
        )
    }

    /// Whether the host is this machine, and called so: a container has a name of its own, and may have files of its own.
    pub(super) async fn is_here(&self) -> Result<bool, Error> {
        if !self.may_be_local() {
            return Ok(false);
        }
        let ask = self.handle.call("ask", self.describe(), |connect| {
            let before = worked();
            let told = vmferry_libvirt::cpu_time(connect)?;
            let (after, name) = (worked(), connect.hostname()?);
            let is_same = before
                .zip(after)
                .zip(told)
                .is_some_and(|((before, after), told)| (before..=after).contains(&told));
            Ok(is_same && rustix::system::uname().nodename().to_bytes() == name.as_bytes())
        });
        match ask.await {
            Err(error) if error.kind() == Kind::Unsupported => Ok(false),
            answer => answer,
        }
    }
}

/// Nanoseconds for which the processors of this machine were at work since it was started, as libvirt counts them: user, nice,
/// system, irq and softirq of [`/proc/stat`](https://man7.org/linux/man-pages/man5/proc_stat.5.html). Blocks.
fn worked() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> = text
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect();
    let [user, nice, system, _idle, _waiting, irq, softirq, ..] = ticks[..] else {
        return None;
    };
    Some((user + nice + system + irq + softirq) * (1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

/// Opens the volume's file for reading, and for writing where that is asked for, if it is provably a file of this machine
/// and we may. Blocks.
pub(super) fn open(volume: &VolumeXml, write: bool) -> Option<File> {
    let (modified, changed) = volume.changed.as_ref()?;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags.bits().cast_signed())
        .open(&volume.path)
        .ok()?;
    let seen = file.metadata().ok()?;
    let is_same = seen.is_file()
        && seen.nlink() == 1
        && seen.len() == volume.file_bytes
        && is_at(modified, seen.mtime(), seen.mtime_nsec())
        && is_at(changed, seen.ctime(), seen.ctime_nsec());
    is_same.then_some(file)
}

/// libvirt leaves the fraction out where it is zero.
fn is_at(text: &str, seconds: i64, nanoseconds: i64) -> bool {
    text == format!("{seconds}.{nanoseconds:09}") || (nanoseconds == 0 && text == seconds.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn described(path: &Path) -> VolumeXml {
        let seen = path.metadata().unwrap();
        let time = |seconds, nanoseconds| format!("{seconds}.{nanoseconds:09}");
        VolumeXml {
            path: path.to_str().unwrap().to_owned(),
            file_bytes: seen.len(),
            changed: Some((
                time(seen.mtime(), seen.mtime_nsec()),
                time(seen.ctime(), seen.ctime_nsec()),
            )),
        }
    }

    #[test]
    fn only_the_very_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "x").unwrap();
        let right = described(&path);
        assert!(open(&right, true).is_some());

        let mut wrong = right.clone();
        wrong.changed = None;
        assert!(open(&wrong, false).is_none());
        wrong = right.clone();
        wrong.file_bytes += 1;
        assert!(open(&wrong, false).is_none());
        wrong = right.clone();
        wrong.changed.as_mut().unwrap().1.push('1');
        assert!(open(&wrong, false).is_none());

        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        wrong = right.clone();
        wrong.path = link.to_str().unwrap().to_owned();
        assert!(open(&wrong, false).is_none());

        std::fs::hard_link(&path, folder.path().join("second name")).unwrap();
        assert!(open(&described(&path), false).is_none());
        assert!(
            open(
                &VolumeXml {
                    path: "/nowhere".to_owned(),
                    ..right
                },
                false
            )
            .is_none()
        );
    }
}
