//! What a replica says of itself over HTTP.

use std::sync::Arc;

use super::tasks::Tasks;
use crate::http::Answers;
use crate::lease::Leadership;
use crate::metrics::{Metrics, Now};
use crate::store::KubeStore;

/// What a replica says of itself.
pub(super) struct Face {
    pub store: Arc<KubeStore>,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    pub tasks: Arc<Tasks>,
}

impl Answers for Face {
    fn metrics(&self) -> String {
        self.metrics.text(&Now {
            migrations: &self.store.migrations.all(),
            tasks: self.tasks.len(),
            leads: self.leadership.holds(),
        })
    }

    fn ill(&self) -> Option<&'static str> {
        let ill = !self.leadership.is_looked_after();
        ill.then_some("the lease was not looked at for a minute")
    }

    fn unready(&self) -> Option<&'static str> {
        (!self.store.is_synced()).then_some("the objects of the cluster are not known yet")
    }
}
