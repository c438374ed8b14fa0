//! On SeaweedFS.

use super::server::Weed;
use super::*;

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
            "the server checks a CRC-64 of every part",
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
