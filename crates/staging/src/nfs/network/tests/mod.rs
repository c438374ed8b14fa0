mod breaks;
mod refusals;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vmferry_testkit::Proxy;
use vmferry_testkit::stores::{Export, Ganesha, everything_below};

use super::*;
use crate::Kind;
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

    /// A store that gives up soon, by way of a proxy.
    fn by(&self, proxy: &Proxy, patience: Duration) -> NfsServer {
        let mut config = self.config();
        config.endpoint = format!("127.0.0.1:{}", proxy.port());
        config.patience = patience;
        NfsServer::new(config).unwrap()
    }

    fn proxy(&self) -> Proxy {
        Proxy::to(&format!("127.0.0.1:{}", self.ganesha.port()), true)
    }

    fn everything(&self) -> Vec<String> {
        everything_below(&self.ganesha.folder())
    }

    /// The bytes of an object or a hidden file, as they lie on the server.
    fn file(&self, name: &str) -> PathBuf {
        self.ganesha.folder().join(name)
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

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

const MIB: usize = 1 << 20;

/// Bytes that differ from place to place.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
        (state ^ (state >> 29)).to_le_bytes()
    };
    std::iter::repeat_with(word).flatten().take(len).collect()
}

/// Uploads an object of one part.
async fn upload(store: &dyn StagingStore, key: &ObjectKey, bytes: &[u8]) -> Result<ObjectMeta, Error> {
    let len = bytes.len() as u64;
    let upload = store.begin(key, len, len.max(1 << 20)).await?;
    let pieces: Vec<Buf> = bytes.chunks(300_000).map(Buf::copy_of).collect();
    let part = store.put_part(key, &upload, 0, 0, PartBody::held(pieces)).await?;
    store.complete(key, &upload, len, &[part]).await
}

async fn download(store: &dyn StagingStore, key: &ObjectKey, meta: &ObjectMeta) -> Result<Vec<u8>, Error> {
    let buf = Buf::alone(usize::try_from(meta.len).unwrap());
    Ok(store.read_one(key, &meta.version, 0, buf).await?.to_vec())
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
