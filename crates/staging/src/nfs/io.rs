//! Reading and writing past the page cache: direct I/O costs a tenth of the processor time of buffered I/O.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use vmferry_block::ALIGN;

use super::tree::Seat;

/// A file, open twice: direct where the file system can do that, and buffered for what is not aligned.
#[derive(Debug)]
pub(super) struct File {
    direct: Option<OwnedFd>,
    buffered: OwnedFd,
}

impl File {
    /// Opens an existing file of a folder.
    pub(super) fn open(seat: &Seat<'_>, name: &str, flags: OFlags) -> Result<Self, Errno> {
        let direct = match seat.open(name, flags | OFlags::DIRECT) {
            Ok(file) => Some(file),
            Err(Errno::INVAL) => None,
            Err(errno) => return Err(errno),
        };
        Ok(Self {
            direct,
            buffered: seat.open(name, flags)?,
        })
    }

    /// The buffered handle, for everything but bytes.
    pub(super) fn handle(&self) -> &OwnedFd {
        &self.buffered
    }

    /// Writes all of `bytes` at `offset`.
    pub(super) fn write_all(&self, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let (file, most) = self.way(bytes, offset);
            match rustix::io::pwrite(file, &bytes[..most], offset) {
                Ok(0) => return Err(Errno::IO),
                Ok(n) => {
                    bytes = &bytes[n..];
                    offset += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Fills the whole of `buf` from `offset`; says how much of it there was before the end of the file.
    pub(super) fn read_full(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (file, most) = self.way(&buf[done..], at);
            match rustix::io::pread(file, &mut buf[done..done + most], at) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Makes what was written durable.
    pub(super) fn sync_data(&self) -> Result<(), Errno> {
        rustix::fs::fdatasync(&self.buffered)
    }

    /// The handle that can take the front of `bytes` at `offset`, and how much of it.
    fn way(&self, bytes: &[u8], offset: u64) -> (&OwnedFd, usize) {
        let whole = bytes.len() / ALIGN * ALIGN;
        let aligned = offset.is_multiple_of(ALIGN as u64) && bytes.as_ptr().align_offset(ALIGN) == 0;
        match &self.direct {
            Some(direct) if aligned && whole > 0 => (direct, whole),
            _ => (&self.buffered, bytes.len()),
        }
    }
}
