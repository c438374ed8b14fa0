//! One file past the page cache where that is possible.
//!
//! Buffered writes cost some twenty times the processor time of direct ones, so a file is opened twice: for direct I/O,
//! where the file system takes it, and buffered, for what is not aligned and for the file systems that do not. Both
//! are the same file, and the kernel keeps them coherent.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use crate::ALIGN;

/// One file opened buffered and, where the file system takes it, direct. Its calls block.
#[derive(Debug)]
pub struct DirectFile {
    buffered: File,
    direct: Option<File>,
    /// Set when direct I/O was refused although everything was aligned.
    refused: AtomicBool,
}

impl DirectFile {
    /// A file that was opened twice: without `O_DIRECT`, and with it where that was taken.
    pub fn new(buffered: File, direct: Option<File>) -> Self {
        Self {
            buffered,
            direct,
            refused: AtomicBool::new(false),
        }
    }

    /// Opens the same file a second time, by its descriptor: its path may lead elsewhere by now.
    pub(crate) fn reopen(buffered: File, options: &mut OpenOptions) -> Self {
        let itself = format!("/proc/self/fd/{}", buffered.as_raw_fd());
        let direct = options
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(itself)
            .ok();
        Self::new(buffered, direct)
    }

    /// The buffered file, for everything but bytes.
    pub fn buffered(&self) -> &File {
        &self.buffered
    }

    /// Fills `bytes` from `offset`; says how many there were before the end of the file.
    pub fn read_full(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (file, len, is_direct) = self.way(at, &bytes[done..]);
            match file.read_at(&mut bytes[done..done + len], at) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) => self.go_on(error, is_direct)?,
            }
        }
        Ok(done)
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write_all(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (file, len, is_direct) = self.way(at, &bytes[done..]);
            match file.write_at(&bytes[done..done + len], at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(error) => self.go_on(error, is_direct)?,
            }
        }
        Ok(())
    }

    /// The file that takes the front of `bytes` at `offset`, how much of it, and whether it is the direct one.
    fn way(&self, offset: u64, bytes: &[u8]) -> (&File, usize, bool) {
        let whole = bytes.len() / ALIGN * ALIGN;
        let aligned = offset.is_multiple_of(ALIGN as u64) && bytes.as_ptr().addr().is_multiple_of(ALIGN);
        match &self.direct {
            Some(direct) if aligned && whole > 0 && !self.refused.load(Ordering::Relaxed) => (direct, whole, true),
            _ => (&self.buffered, bytes.len(), false),
        }
    }

    /// Whether to try again: after an interruption, and buffered where the file system takes no direct I/O after all.
    fn go_on(&self, error: io::Error, is_direct: bool) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::InvalidInput if is_direct => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(error),
        }
    }
}
