//! One SeaweedFS for a test.

use vmferry_testkit::stores::SeaweedFs;

use super::*;

/// A server and its bucket.
pub(super) struct Weed(pub(super) SeaweedFs);

impl Weed {
    pub(super) fn start() -> Self {
        Self(SeaweedFs::start())
    }

    pub(super) fn settings(&self) -> Settings {
        settings(&self.0.url(), SeaweedFs::BUCKET, SeaweedFs::KEY)
    }

    pub(super) fn store(&self) -> Bucket {
        Bucket::new(&self.settings()).unwrap()
    }

    /// Everything in the bucket.
    pub(super) fn everything(&self) -> Vec<String> {
        self.0.everything(SeaweedFs::BUCKET)
    }
}

#[async_trait]
impl Subject for Weed {
    fn open(&self) -> Arc<dyn StagingStore> {
        Arc::new(self.store())
    }

    async fn leftovers(&self) -> Vec<String> {
        self.everything()
    }
}
