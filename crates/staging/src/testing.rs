//! A folder below which decorators are tried.

use std::sync::Arc;

use async_trait::async_trait;

use crate::StagingStore;
use crate::conformance::Subject;
use crate::nfs::MountedPath;

/// Puts something around a store.
type Decorate = dyn Fn(Arc<dyn StagingStore>) -> Arc<dyn StagingStore> + Send + Sync;

/// A mounted path behind a decorator.
pub struct Folder {
    folder: tempfile::TempDir,
    decorate: Box<Decorate>,
}

impl Folder {
    pub fn new(decorate: impl Fn(Arc<dyn StagingStore>) -> Arc<dyn StagingStore> + Send + Sync + 'static) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            decorate: Box::new(decorate),
        }
    }
}

#[async_trait]
impl Subject for Folder {
    fn open(&self) -> Arc<dyn StagingStore> {
        (self.decorate)(Arc::new(MountedPath::new(self.folder.path()).unwrap()))
    }

    async fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}
