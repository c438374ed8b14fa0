use std::collections::VecDeque;
use std::sync::Arc;

use vmferry_testkit::stores::{Export, Ganesha};

use super::*;
use crate::conformance::{self, Subject};

/// A server and how it is spoken to.
struct Served {
    ganesha: Ganesha,
    options: &'static str,
}

impl Served {
    fn new(options: &'static str) -> Self {
        Self::with(options, Export::default())
    }

    fn with(options: &'static str, export: Export) -> Self {
        Self {
            ganesha: Ganesha::start(export),
            options,
        }
    }

    fn config(&self) -> NfsConfig {
        let is_v3 = self.options.contains("vers=3");
        let path = if is_v3 {
            self.ganesha.path().display().to_string()
        } else {
            Ganesha::PSEUDO.to_owned()
        };
        let mut config = NfsConfig::new(format!("127.0.0.1:{}", self.ganesha.port()), path);
        let options = format!("{},mountport={}", self.options, self.ganesha.mount_port());
        config.options = options.parse().unwrap();
        config
    }

    fn store(&self) -> NfsServer {
        NfsServer::new(self.config()).unwrap()
    }

    fn everything(&self) -> Vec<String> {
        let top = self.ganesha.folder();
        let mut queue = VecDeque::from([top.clone()]);
        let mut found = Vec::new();
        while let Some(folder) = queue.pop_front() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                found.push(entry.path().strip_prefix(&top).unwrap().display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    queue.push_back(entry.path());
                }
            }
        }
        found
    }
}

#[async_trait]
impl Subject for Served {
    fn open(&self) -> Arc<dyn StagingStore> {
        Arc::new(self.store())
    }

    async fn leftovers(&self) -> Vec<String> {
        self.everything()
    }
}

async fn conforms(options: &'static str) {
    let served = Served::new(options);
    if let Err(error) = conformance::run(&served).await {
        panic!("{error}\n{}", served.ganesha.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_over_version_3() {
    conforms("vers=3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_over_version_4_0() {
    conforms("vers=4.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_over_version_4_1() {
    conforms("vers=4.1").await;
}
