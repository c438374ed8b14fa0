//! On SeaweedFS.

use reqwest::Method;
use vmferry_testkit::stores::{Identity, SeaweedFs};

use super::*;
use crate::s3::wire::Call;

/// A server and its bucket.
struct Weed(SeaweedFs);

impl Weed {
    fn start() -> Self {
        Self(SeaweedFs::start())
    }

    fn settings(&self) -> Settings {
        settings(&self.0.url(), SeaweedFs::BUCKET, SeaweedFs::KEY)
    }

    fn store(&self) -> Bucket {
        Bucket::new(&self.settings()).unwrap()
    }

    /// Everything in the bucket.
    fn everything(&self) -> Vec<String> {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conformance::run(&Weed::start()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_tells_what_the_server_can_and_leaves_nothing() {
    let weed = Weed::start();
    let clauses = weed.store().check(1 << 30).await.unwrap();
    assert_eq!(
        clauses,
        [
            "an upload is taken up again from the server's list of its parts",
            "every part carries a CRC-64 for the server to check",
        ]
    );
    assert!(weed.everything().is_empty(), "{:?}", weed.everything());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_and_buckets_are_named() {
    let weed = Weed::start();
    let right = weed.settings();
    let mut secret = right.clone();
    secret.secret_key = "hunter2".to_owned().into();
    let mut access = right.clone();
    access.access_key = "AKIANOBODY".to_owned();
    let mut bucket = right;
    bucket.bucket = "no-such-bucket".to_owned();
    for (settings, kind, word) in [
        (secret, Kind::Denied, "secretKey"),
        (access, Kind::Denied, "accessKey"),
        (bucket, Kind::NotFound, "spec.storage.bucket"),
    ] {
        let store = Bucket::new(&settings).unwrap();
        let object = key("a/disk");
        let mut errors = vec![store.check(0).await.unwrap_err()];
        errors.extend(store.begin(&object, 1, 5 << 20).await.err());
        errors.extend(store.put_note(&object, "x").await.err());
        if kind == Kind::Denied {
            errors.extend(store.head(&object).await.err());
        }
        for error in errors {
            let text = format!("{error:?}");
            assert!(error.kind() == kind && text.contains(word), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    assert!(weed.everything().is_empty(), "{:?}", weed.everything());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_is_told_what_is_missing() {
    let reader = Identity {
        access_key: "AKIAREADER",
        secret_key: "reader",
        actions: &["Read", "List"],
    };
    let weed = Weed(SeaweedFs::start_for(&[reader]));
    let settings = settings(&weed.0.url(), SeaweedFs::BUCKET, (reader.access_key, reader.secret_key));
    let error = Bucket::new(&settings).unwrap().check(0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("allow s3:DeleteObject"), "{error}");
    assert!(weed.everything().is_empty(), "{:?}", weed.everything());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_versions_are_kept_none_of_ours_stay() {
    let weed = Weed::start();
    let on = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status></VersioningConfiguration>";
    let call = Call::new(Method::PUT, "", "s3:PutBucketVersioning")
        .query("versioning", "")
        .text(on);
    weed.store().wire.call(&call).await.unwrap();
    let clauses = weed.store().check(0).await.unwrap();
    assert!(
        clauses.iter().any(|clause| clause.contains("deletes its own for good")),
        "{clauses:?}"
    );
    assert!(weed.everything().is_empty(), "{:?}", weed.everything());
    let store = weed.store();
    for text in ["one", "two", "three"] {
        store.put_note(&key("a/disk"), text).await.unwrap();
    }
    // What is there is the last one, and no older one behind it.
    assert!(weed.everything().len() <= 2, "{:?}", weed.everything());
    // Another process does not know what this one wrote.
    weed.store().put_note(&key("a/disk"), "four").await.unwrap();
    weed.store().delete_note(&key("a/disk")).await.unwrap();
    assert!(weed.everything().is_empty(), "{:?}", weed.everything());
    conformance::run(&weed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_presigned_url_reads_until_it_is_touched() {
    let weed = Weed::start();
    let (store, object) = (weed.store(), key("a/disk"));
    put(&store, &object, b"for whom it may concern").await.unwrap();
    let url = store
        .presigned_url(&object, Duration::from_mins(5))
        .await
        .unwrap()
        .unwrap();
    let url = secrecy::ExposeSecret::expose_secret(&url);
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), "for whom it may concern");
    for touched in [
        url.replace("a/disk", "a/disk2"),
        url.replace("X-Amz-Expires=300", "X-Amz-Expires=301"),
    ] {
        assert_eq!(reqwest::get(touched).await.unwrap().status(), 403);
    }
    store.delete(&object).await.unwrap();
}
