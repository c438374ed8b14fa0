//! The requests that the store makes, on one connection.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use nfs_rs::{Attr, Mount, NFSVersion, WriteOutcome};
use rustix::io::Errno;
use tokio::time::timeout_at;

use super::link::{Clock, Connection};
use super::options::MountOptions;
use super::trouble::Trouble;
use crate::ObjectMeta;
use crate::nfs::names;

/// Mode of the folders that we make.
const FOLDER: u32 = 0o700;
/// Mode of the files that we make.
const FILE: u32 = 0o600;
/// Most bytes of a request, whatever the server takes: several smaller ones under way are faster than one.
const REQUEST: u32 = 1 << 20;

/// A file handle: what the server calls a file or folder.
pub(super) type Handle = Bytes;

/// A connection as one call uses it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    connection: Connection,
    clock: Arc<Clock>,
    pub(super) read_size: u32,
    pub(super) write_size: u32,
}

/// What a name leads to.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) handle: Handle,
    kind: u32,
    links: u32,
    /// Length and version, as of now.
    pub(super) meta: ObjectMeta,
    /// The inode.
    pub(super) id: u64,
}

/// Regular files and folders among the types of RFC 1813, section 2.6, and RFC 7530, section 2.1.
const REGULAR: u32 = 1;
const DIRECTORY: u32 = 2;
const LINK: u32 = 5;

impl Node {
    fn new(handle: Handle, attr: &Attr) -> Self {
        let (seconds, nanoseconds) = (attr.mtime.seconds.into(), attr.mtime.nseconds.into());
        Self {
            handle,
            kind: attr.type_,
            links: attr.nlink,
            meta: ObjectMeta {
                len: attr.filesize,
                version: names::version(attr.fileid, seconds, nanoseconds, attr.filesize),
            },
            id: attr.fileid,
        }
    }

    /// This, if it is a regular file that still has a name.
    pub(super) fn file(self) -> Result<Self, Trouble> {
        match self.kind {
            REGULAR if self.links == 0 => Err(Trouble::answer(Errno::STALE, "it is deleted")),
            REGULAR => Ok(self),
            LINK => Err(Trouble::answer(Errno::LOOP, "it is a symbolic link")),
            _ => Err(Trouble::answer(Errno::ISDIR, "it is not a file")),
        }
    }

    /// This, if it is a folder.
    pub(super) fn folder(self) -> Result<Self, Trouble> {
        match self.kind {
            DIRECTORY => Ok(self),
            LINK => Err(Trouble::answer(Errno::LOOP, "a symbolic link is in its path")),
            _ => Err(Trouble::answer(Errno::NOTDIR, "something in its path is not a folder")),
        }
    }
}

impl Session {
    pub(super) fn new(connection: Connection, clock: Arc<Clock>, options: &MountOptions) -> Self {
        let size = |server: u32, wanted: Option<u32>| server.min(REQUEST).min(wanted.unwrap_or(REQUEST)).max(1);
        let mount = &connection.mount;
        Self {
            read_size: size(mount.get_max_read_size(), options.read_size),
            write_size: size(mount.get_max_write_size(), options.write_size),
            connection,
            clock,
        }
    }

    /// What is worth telling about the connection.
    pub(super) fn clauses(&self) -> Vec<String> {
        self.connection.clauses.clone()
    }

    fn mount(&self) -> &dyn Mount {
        &*self.connection.mount
    }

    /// Waits for an answer for as long as patience lasts.
    async fn ask<T>(&self, request: impl Future<Output = nfs_rs::Result<T>>) -> Result<T, Trouble> {
        let answer = timeout_at(self.clock.deadline(), request).await;
        let answer = answer.map_err(|_| self.clock.silent())?.map_err(Trouble::from);
        if matches!(answer, Ok(_) | Err(Trouble::Answer { .. })) {
            self.clock.heard();
        }
        answer
    }

    /// The staging folder.
    pub(super) async fn root(&self) -> Result<Handle, Trouble> {
        Ok(self.mount().getfh().await)
    }

    /// What a handle stands for now.
    pub(super) async fn look(&self, handle: &Handle) -> Result<Node, Trouble> {
        let attr = self.ask(self.mount().getattr(handle.clone())).await?;
        Ok(Node::new(handle.clone(), &attr))
    }

    /// What a name in a folder leads to; links are not followed.
    pub(super) async fn find(&self, folder: &Handle, name: &str) -> Result<Node, Trouble> {
        let found = self.ask(self.mount().lookup(folder.clone(), name)).await?;
        match &found.attr {
            Some(attr) => Ok(Node::new(found.fh, attr)),
            None => self.look(&found.fh).await,
        }
    }

    /// The same; `None` where there is no such name.
    pub(super) async fn find_any(&self, folder: &Handle, name: &str) -> Result<Option<Node>, Trouble> {
        match self.find(folder, name).await {
            Err(trouble) if trouble.is(Errno::NOENT) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Makes a file with a name that nobody else knows, or finds the one that a lost attempt made, does `work` with it, and
    /// closes it: version 4 opens what it makes.
    pub(super) async fn create<F: Future<Output = Result<(), Trouble>>>(
        &self,
        folder: &Handle,
        name: &str,
        work: impl FnOnce(Handle) -> F,
    ) -> Result<(), Trouble> {
        let made = self.ask(self.mount().create(folder.clone(), name, Some(FILE))).await?;
        let outcome = work(made.fh.clone()).await;
        self.close(&made.fh, outcome).await
    }

    /// Finds a file to write to it, does `work` with it, and lets go of it.
    ///
    /// nfs-rs writes over version 4.0 only to files that it opened, one at a time. With the other versions nothing is opened:
    /// then there is nothing to be lost.
    pub(super) async fn write_to<F: Future<Output = Result<(), Trouble>>>(
        &self,
        folder: &Handle,
        name: &str,
        work: impl FnOnce(Handle) -> F,
    ) -> Result<(), Trouble> {
        let file = self.find(folder, name).await?.file()?.handle;
        if self.mount().version() != NFSVersion::NFSv4p0 {
            return work(file).await;
        }
        let _alone = self.connection.writer.lock().await;
        let opened = self
            .ask(self.mount().open(folder.clone(), name, nfs_rs::OPEN_WRITE))
            .await?;
        let outcome = if opened.fh == file {
            work(file).await
        } else {
            Err(Trouble::answer(Errno::STALE, "it was replaced"))
        };
        self.close(&opened.fh, outcome).await
    }

    async fn close(&self, file: &Handle, outcome: Result<(), Trouble>) -> Result<(), Trouble> {
        if !matches!(outcome, Err(Trouble::Lost(_))) {
            // What was done is done; the server closes by itself what we cannot.
            let _ = self.ask(self.mount().close(file.clone())).await;
        }
        outcome
    }

    /// Cuts a file to this length, or makes it that long.
    pub(super) async fn resize(&self, file: &Handle, len: u64) -> Result<(), Trouble> {
        let request = self
            .mount()
            .setattr(file.clone(), None, None, None, None, Some(len), None, None);
        self.ask(request).await
    }

    /// Makes a folder, if there is nothing of that name.
    pub(super) async fn make_folder(&self, parent: &Handle, name: &str) -> Result<(), Trouble> {
        match self.ask(self.mount().mkdir(parent.clone(), name, FOLDER)).await {
            Err(trouble) if !trouble.is(Errno::EXIST) => Err(trouble),
            _ => Ok(()),
        }
    }

    /// Removes a file, if there is one.
    pub(super) async fn remove(&self, folder: &Handle, name: &str) -> Result<(), Trouble> {
        match self.ask(self.mount().remove(folder.clone(), name)).await {
            Err(trouble) if !trouble.is(Errno::NOENT) => Err(trouble),
            _ => Ok(()),
        }
    }

    /// Removes a folder; says whether it is gone. One that is not empty stays.
    pub(super) async fn remove_folder(&self, parent: &Handle, name: &str) -> Result<bool, Trouble> {
        match self.ask(self.mount().rmdir(parent.clone(), name)).await {
            Err(trouble) if trouble.is(Errno::NOTEMPTY) || trouble.is(Errno::EXIST) => Ok(false),
            Err(trouble) if !trouble.is(Errno::NOENT) => Err(trouble),
            _ => Ok(true),
        }
    }

    /// Gives a file a second name; [`Errno::EXIST`] where that is taken.
    pub(super) async fn link(&self, file: &Handle, folder: &Handle, name: &str) -> Result<(), Trouble> {
        let linked = self.ask(self.mount().link(file.clone(), folder.clone(), name)).await;
        linked.map(|_| ())
    }

    /// Renames a file within its folder, replacing what has the name.
    pub(super) async fn rename(&self, folder: &Handle, from: &str, to: &str) -> Result<(), Trouble> {
        self.ask(self.mount().rename(folder.clone(), from, folder.clone(), to))
            .await
    }

    /// The names in a folder that `wanted` picks.
    pub(super) async fn names(&self, folder: &Handle, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, Trouble> {
        let mut entries = self
            .ask(async { Ok(self.mount().readdir(folder.clone()).await) })
            .await?;
        let mut names = Vec::new();
        while let Some(entry) = self.ask(async { entries.next().await.transpose() }).await? {
            if wanted(&entry.file_name) {
                names.push(entry.file_name);
            }
        }
        Ok(names)
    }

    /// Reads up to `len` bytes; none at the end of the file.
    pub(super) async fn read(&self, file: &Handle, offset: u64, len: u32) -> Result<Bytes, Trouble> {
        self.ask(self.mount().read(file.clone(), offset, len)).await
    }

    /// Writes all of `bytes`, which are durable once they are committed with what this gives.
    pub(super) async fn write(
        &self,
        file: &Handle,
        mut offset: u64,
        mut bytes: Bytes,
    ) -> Result<Vec<WriteOutcome>, Trouble> {
        let mut receipts = Vec::with_capacity(1);
        while !bytes.is_empty() {
            let receipt = self
                .ask(self.mount().write(file.clone(), offset, bytes.clone()))
                .await?;
            let written = receipt.count as usize;
            if written == 0 || written > bytes.len() {
                return Err(Trouble::Lost(format!(
                    "the server wrote {written} of {} bytes",
                    bytes.len()
                )));
            }
            bytes = bytes.split_off(written);
            offset += written as u64;
            receipts.push(receipt);
        }
        Ok(receipts)
    }

    /// Makes everything durable that was written to a file with these receipts; [`Trouble::Forgot`] where the server was
    /// restarted meanwhile.
    pub(super) async fn commit(&self, file: &Handle, receipts: &[WriteOutcome]) -> Result<(), Trouble> {
        // From 0, 0 bytes: the whole file.
        self.ask(self.mount().commit_write_batch(file.clone(), 0, 0, receipts))
            .await
    }

    /// Makes everything durable that is in a file, whoever wrote it.
    pub(super) async fn flush(&self, file: &Handle) -> Result<(), Trouble> {
        self.ask(self.mount().commit(file.clone(), 0, 0)).await
    }

    /// How many bytes we may still write to the file system.
    pub(super) async fn free(&self) -> Result<u64, Trouble> {
        Ok(self.ask(self.mount().fsstat()).await?.abytes)
    }
}
