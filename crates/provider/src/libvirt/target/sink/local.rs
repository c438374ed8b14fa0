//! Straight into the file: several writes at once, past the page cache. Owner and permissions stay as libvirt made them.

use std::fs::File;
use std::io;

use async_trait::async_trait;
use vmferry_block::{Buf, LocalFileWriter};

use super::{MORE_ROOM, check_end, check_range};
use crate::libvirt::Libvirt;
use crate::libvirt::target::name::Place;
use crate::libvirt::target::volume;
use crate::{DiskSink, Error, Kind};

/// Enough writes at once to keep a fast disk busy.
const CONCURRENCY: usize = 4;

/// A volume that is a file of this machine.
pub(super) struct LocalSink {
    libvirt: Libvirt,
    place: Place,
    writer: LocalFileWriter,
    len: u64,
}

impl LocalSink {
    /// Empties the file from byte `kept` on and makes it `len` bytes long.
    pub async fn open(libvirt: &Libvirt, place: Place, file: File, kept: u64, len: u64) -> Result<Self, Error> {
        let emptied = async {
            let writer = LocalFileWriter::from_file(file).await?;
            writer.set_len(kept).await?;
            writer.set_len(len).await?;
            Ok(writer)
        };
        let writer = emptied.await.map_err(|error| fault("open", &place, error))?;
        Ok(Self {
            libvirt: libvirt.clone(),
            place,
            writer,
            len,
        })
    }
}

#[async_trait]
impl DiskSink for LocalSink {
    fn concurrency(&self) -> usize {
        CONCURRENCY
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), Error> {
        check_range(&self.place, offset, &buf, self.len)?;
        let written = self.writer.write_at(offset, buf).await;
        written.map_err(|error| fault("write", &self.place, error))
    }

    async fn flush(&self) -> Result<bool, Error> {
        let synced = self.writer.sync().await;
        synced.map_err(|error| fault("flush", &self.place, error))?;
        Ok(true)
    }

    async fn finish(&self, len: u64) -> Result<(), Error> {
        check_end(&self.place, len, self.len)?;
        let finished = async {
            self.writer.set_len(len).await?;
            self.writer.sync().await
        };
        finished.await.map_err(|error| fault("finish", &self.place, error))?;
        volume::refresh(&self.libvirt, &self.place).await;
        Ok(())
    }
}

fn fault(action: &'static str, place: &Place, error: io::Error) -> Error {
    let fault = |kind| Error::new(kind, action, place.object());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            fault(Kind::NoSpace).remedy(MORE_ROOM)
        }
        io::ErrorKind::PermissionDenied => fault(Kind::Denied),
        _ => fault(Kind::Failed),
    }
    .source(error)
}
