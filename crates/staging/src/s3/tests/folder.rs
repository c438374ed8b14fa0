//! s3s-fs: an S3 server in this process, on a folder. It lists no uploads, lists parts without tags and knows no If-Match.

use std::path::Path;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use vmferry_testkit::stores::everything_below;

use super::*;

const KEY: (&str, &str) = ("AKIAFOLDER", "folder/secret");
const BUCKET: &str = "vm-migrations";

/// A running server; its connections end with the test's runtime.
pub(super) struct S3s {
    folder: tempfile::TempDir,
    pub(super) address: String,
    accepting: JoinHandle<()>,
}

impl Drop for S3s {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl S3s {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY.0, KEY.1));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
                tokio::spawn(connection);
            }
        });
        Self {
            folder,
            address,
            accepting,
        }
    }

    /// Settings for such a server at `endpoint`: itself, or a front before it.
    pub(super) fn settings(endpoint: &str) -> Settings {
        settings(endpoint, BUCKET, KEY)
    }

    /// Files but those of s3s-fs's own about objects, which it never removes.
    pub(super) fn everything(&self) -> Vec<String> {
        let root: &Path = self.folder.path();
        let mut found = everything_below(root);
        found.retain(|name| !name.starts_with(".bucket-") && !root.join(name).is_dir());
        found
    }
}

#[async_trait]
impl Subject for S3s {
    fn open(&self) -> Arc<dyn StagingStore> {
        let url = format!("http://{}", self.address);
        Arc::new(Bucket::new(&Self::settings(&url)).unwrap())
    }

    async fn leftovers(&self) -> Vec<String> {
        self.everything()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conformance::run(&S3s::start().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_tells_what_this_server_lacks() {
    let server = S3s::start().await;
    let clauses = server.open().check(0).await.unwrap();
    assert_eq!(
        clauses,
        [
            "the server lists no parts: an upload is taken up again from vmferry's own list",
            "every part carries a CRC-64 for the server to check",
            "the server lists no uploads: vmferry notes them down beside the object",
        ]
    );
    assert!(server.everything().is_empty(), "{:?}", server.everything());
}
