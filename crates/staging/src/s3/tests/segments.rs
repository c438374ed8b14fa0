//! Objects of more parts than the server takes: on SeaweedFS, with a front that makes it fail; and refused where a server has no lists.

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use vmferry_testkit::front::{Action, Front, Reply, Rule};
use vmferry_testkit::stores::SeaweedFs;

use super::folder::S3s;
use super::*;
use crate::s3::upload::Upload;
use crate::s3::wire::Call;

const PART: u64 = 5 << 20;

/// A server that takes few parts of an object, with a front before it.
struct Few {
    weed: SeaweedFs,
    front: Front,
    count: u32,
}

impl Few {
    /// Segments of two parts; with 3 parts of an object at most, all of six are in segments.
    fn start(count: u32) -> Self {
        let weed = SeaweedFs::start();
        let front = Front::to(&weed.address());
        Self { weed, front, count }
    }

    fn store(&self) -> Bucket {
        let settings = settings(&self.front.url(), SeaweedFs::BUCKET, SeaweedFs::KEY);
        Bucket::new(&settings).unwrap().with_few_parts(self.count, 2 * PART)
    }

    fn everything(&self) -> Vec<String> {
        self.weed.everything(SeaweedFs::BUCKET)
    }

    fn on(&self, method: &'static str, text: &str, action: Action) {
        self.front.on(Rule::new(action).method(method).path(text).once());
    }
}

#[async_trait]
impl Subject for Few {
    fn open(&self) -> Arc<dyn StagingStore> {
        Arc::new(self.store())
    }

    async fn leftovers(&self) -> Vec<String> {
        self.everything()
    }
}

/// An object of five parts, the last one short: two segments, and one of one part.
struct Five {
    key: ObjectKey,
    bytes: Vec<u8>,
}

impl Five {
    fn new() -> Self {
        let len = 4 * PART + 12_345;
        Self {
            key: key("a/disk.vmdk"),
            bytes: (0..len)
                .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
                .collect(),
        }
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn begin(&self, store: &Bucket) -> UploadId {
        store.begin(&self.key, 6 * PART, PART).await.unwrap()
    }

    async fn put(&self, store: &Bucket, upload: &UploadId, number: u32) -> Result<Part, Error> {
        let start = u64::from(number) * PART;
        let end = (start + PART).min(self.len());
        let body = PartBody::held([Buf::copy_of(&self.bytes[start as usize..end as usize])]);
        store.put_part(&self.key, upload, number, start, body).await
    }

    async fn put_all(&self, store: &Bucket, upload: &UploadId) -> Vec<Part> {
        let mut parts = Vec::new();
        for number in 0..5 {
            parts.push(self.put(store, upload, number).await.unwrap());
        }
        parts
    }

    async fn settle(&self, store: &Bucket, upload: &UploadId, len: Option<u64>) -> Result<(), Error> {
        store.settle(&self.key, upload, len, &|| {}).await
    }

    async fn numbers(&self, store: &Bucket, upload: &UploadId) -> Vec<u32> {
        match store.parts(&self.key, upload).await.unwrap() {
            Uploaded::Parts(parts) => parts.into_iter().map(|part| part.number).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Completes it, compares it, and removes it.
    async fn end(&self, few: &Few, store: &Bucket, upload: &UploadId, parts: &[Part]) {
        let meta = store.complete(&self.key, upload, self.len(), parts).await.unwrap();
        assert_eq!(meta.len, self.len());
        let everything = few.everything();
        assert!(
            everything.len() == 1 && everything[0].ends_with("/a/disk.vmdk"),
            "{everything:?}"
        );
        let read = store
            .read_one(&self.key, &meta.version, 0, Buf::alone(self.bytes.len()))
            .await
            .unwrap();
        assert!(read[..] == self.bytes, "the object differs");
        store.delete(&self.key).await.unwrap();
        assert!(few.everything().is_empty(), "{:?}", few.everything());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_with_segments_alone_and_after_direct_parts() {
    for count in [3, 4, 5] {
        let few = Few::start(count);
        conformance::run(&few)
            .await
            .unwrap_or_else(|error| panic!("{count}: {error}"));
        assert!(
            few.front.count("PUT", ".segments/") > 0,
            "{count}: there were no segments"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_where_versions_are_kept() {
    let few = Few::start(3);
    let on = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status></VersioningConfiguration>";
    let call = Call::new(Method::PUT, "", "s3:PutBucketVersioning")
        .query("versioning", "")
        .text(on);
    few.store().wire.call(&call).await.unwrap();
    conformance::run(&few).await.unwrap();
}

/// Every piece passes through all of its states; at each of them another process goes on, and at each another one gives up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_up_and_given_up_at_every_step() {
    let (few, five) = (Few::start(3), Five::new());
    for (state, goes_on) in (0..6).flat_map(|state| [(state, true), (state, false)]) {
        let store = few.store();
        let upload = five.begin(&store).await;
        let arrived = match state {
            0 => vec![],
            1 => vec![0, 4],
            _ => vec![0, 1, 2, 3, 4],
        };
        for number in &arrived {
            five.put(&store, &upload, *number).await.unwrap();
        }
        match state {
            // The segments are objects, and no parts.
            3 => {
                few.front.on(Rule::new(refused(403, "AccessDenied"))
                    .method("PUT")
                    .path("a/disk.vmdk?partNumber="));
                let error = five.settle(&store, &upload, None).await.unwrap_err();
                assert!(error.to_string().contains("s3:GetObject"), "{error}");
                few.front.clear();
            }
            4 => five.settle(&store, &upload, None).await.unwrap(),
            5 => five.settle(&store, &upload, Some(five.len())).await.unwrap(),
            _ => {}
        }
        let other = few.store();
        assert_eq!(five.numbers(&other, &upload).await, arrived, "{state}");
        drop(store);
        if goes_on {
            for number in (0..5).filter(|number| !arrived.contains(number)) {
                five.put(&other, &upload, number).await.unwrap();
            }
            let parts: Vec<_> = (0..5)
                .map(|number| Part {
                    number,
                    tag: String::new(),
                })
                .collect();
            five.end(&few, &few.store(), &upload, &parts).await;
        }
        other.abort(&five.key).await.unwrap();
        assert!(few.everything().is_empty(), "{state}: {:?}", few.everything());
        assert_eq!(few.store().parts(&five.key, &upload).await.unwrap(), Uploaded::Gone);
    }
    // What is whole already is not sent again, and not lost by being put again.
    let store = few.store();
    let upload = five.begin(&store).await;
    let parts = five.put_all(&store, &upload).await;
    five.settle(&store, &upload, None).await.unwrap();
    five.put(&store, &upload, 1).await.unwrap();
    five.end(&few, &store, &upload, &parts).await;
}

fn refused(status: u16, code: &str) -> Action {
    let body = format!("<Error><Code>{code}</Code><Message>as it is</Message></Error>");
    Action::Answer(Reply::status(status).body(body))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_on_the_way_is_done_again() {
    let (few, five) = (Few::start(3), Five::new());
    let store = few.store();
    let upload = five.begin(&store).await;
    // The answer to the beginning of a segment is lost: there are two of it then.
    few.on("POST", "/00000?uploads=", Action::LoseAnswer);
    five.put(&store, &upload, 0).await.unwrap_err();
    five.put(&store, &upload, 0).await.unwrap();
    assert_eq!(five.numbers(&few.store(), &upload).await, [0]);
    let store = few.store();
    let parts = five.put_all(&store, &upload).await;
    few.on("POST", "/00000?uploadId=", Action::LoseAnswer);
    few.on("POST", "/00001?uploadId=", refused(200, "InternalError"));
    few.on("PUT", "disk.vmdk?partNumber=1&", refused(500, "InternalError"));
    let then = Rule::new(refused(200, "SlowDown")).method("PUT");
    few.front.on(then.path("disk.vmdk?partNumber=1&").skip(1).once());
    few.on("PUT", "disk.vmdk?partNumber=2&", Action::LoseAnswer);
    few.on("PUT", "disk.vmdk?partNumber=3&", Action::CutAnswer(20));
    few.on("DELETE", "/00000", refused(503, "SlowDown"));
    few.on("POST", "disk.vmdk?uploadId=", Action::LoseAnswer);
    few.front.forget();
    five.end(&few, &store, &upload, &parts).await;
    assert_eq!(few.front.count("PUT", "disk.vmdk?partNumber="), 3 + 4);
}

/// What cannot be done now is left as it was, for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_good_is_left_for_the_next_one() {
    let (few, five) = (Few::start(3), Five::new());
    for (method, text) in [
        ("POST", "/00001?uploadId="),
        ("PUT", "disk.vmdk?partNumber=2&"),
        ("DELETE", "/00001"),
        ("HEAD", "/00001"),
        ("POST", "disk.vmdk?uploadId="),
    ] {
        let store = few.store();
        let upload = five.begin(&store).await;
        let parts = five.put_all(&store, &upload).await;
        few.front
            .on(Rule::new(refused(403, "AccessDenied")).method(method).path(text));
        let error = store
            .complete(&five.key, &upload, five.len(), &parts)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{method} {text}: {error}");
        few.front.clear();
        assert_eq!(
            five.numbers(&few.store(), &upload).await,
            [0, 1, 2, 3, 4],
            "{method} {text}"
        );
        five.end(&few, &store, &upload, &parts).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_copy_is_alive() {
    let (few, five) = (Few::start(3), Five::new());
    let store = few.store();
    let upload = five.begin(&store).await;
    let parts = five.put_all(&store, &upload).await;
    few.on(
        "PUT",
        "disk.vmdk?partNumber=1&",
        Action::Delay(Duration::from_millis(3500)),
    );
    let signs = AtomicUsize::new(0);
    let alive = || {
        signs.fetch_add(1, Ordering::Relaxed);
    };
    store
        .settle(&five.key, &upload, Some(five.len()), &alive)
        .await
        .unwrap();
    assert!(signs.load(Ordering::Relaxed) >= 3, "{signs:?}");
    few.front.forget();
    five.end(&few, &store, &upload, &parts).await;
    assert_eq!(few.front.count("PUT", "partNumber="), 0, "it was copied twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_after_an_abort_leaves_nothing() {
    let (few, five) = (Few::start(3), Five::new());
    let late = few.store();
    let upload = five.begin(&late).await;
    five.put(&late, &upload, 0).await.unwrap();
    five.put(&late, &upload, 1).await.unwrap();
    few.store().abort(&five.key).await.unwrap();
    // In a segment that it knows, in one that it begins, and joining one.
    for number in [1, 2] {
        let error = five.put(&late, &upload, number).await.unwrap_err();
        assert_eq!(error.kind(), Kind::UploadGone, "{number}: {error}");
    }
    let error = five.settle(&late, &upload, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UploadGone, "{error}");
    assert!(few.everything().is_empty(), "{:?}", few.everything());

    // The abort comes between the making of a segment and its copy.
    let upload = five.begin(&late).await;
    five.put_all(&late, &upload).await;
    few.on("PUT", "disk.vmdk?partNumber=", Action::Delay(Duration::from_secs(2)));
    let aborting = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        few.store().abort(&five.key).await.unwrap();
    };
    let (settled, ()) = tokio::join!(five.settle(&late, &upload, None), aborting);
    assert_eq!(settled.unwrap_err().kind(), Kind::UploadGone);
    assert!(few.everything().is_empty(), "{:?}", few.everything());

    // The abort is over when the segments become objects.
    let upload = five.begin(&late).await;
    for number in 0..4 {
        five.put(&late, &upload, number).await.unwrap();
    }
    let id = Upload::parse(&upload.0).unwrap().id;
    multipart::abort(&late.wire, five.key.as_str(), &id).await.unwrap();
    let error = five.settle(&late, &upload, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UploadGone, "{error}");
    assert!(few.everything().is_empty(), "{:?}", few.everything());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_length_is_no_object() {
    let (few, five) = (Few::start(3), Five::new());
    let store = few.store();
    let upload = five.begin(&store).await;
    let parts = five.put_all(&store, &upload).await;
    let error = store
        .complete(&five.key, &upload, five.len() - 1, &parts)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unfit, "{error}");
    assert!(store.head(&five.key).await.unwrap().is_none());
    store.abort(&five.key).await.unwrap();
    assert!(few.everything().is_empty(), "{:?}", few.everything());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_join_is_told_of_before_a_byte_moves() {
    let (few, five) = (Few::start(3), Five::new());
    for (action, kind, word) in [
        (refused(501, "NotImplemented"), Kind::Unfit, "UploadPartCopy"),
        (refused(400, "InvalidRequest"), Kind::Unfit, "another staging storage"),
        (refused(403, "AccessDenied"), Kind::Denied, "s3:GetObject"),
    ] {
        few.front
            .on(Rule::new(action).method("PUT").path("probe-copy?partNumber="));
        let error = few.store().begin(&five.key, 6 * PART, PART).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        few.front.clear();
        assert!(few.everything().is_empty(), "{:?}", few.everything());
    }
    // Whoever does not need it does not ask.
    few.front.forget();
    few.store().begin(&five.key, 3 * PART, PART).await.unwrap();
    assert_eq!(few.front.count("", ".segments/"), 0);
    // A server that takes no checksums with copies gets none, and is asked once.
    let store = few.store();
    few.on("PUT", "probe-copy?partNumber=", refused(400, "InvalidRequest"));
    let first = five.begin(&store).await;
    let second = five.begin(&store).await;
    assert!(first.0.contains(":p:") && second.0.contains(":p:"), "{first:?}");
    assert_eq!(few.front.count("PUT", "probe-copy?partNumber="), 2);
    let parts = five.put_all(&store, &second).await;
    store.complete(&five.key, &second, five.len(), &parts).await.unwrap();

    let server = S3s::start().await;
    let settings = S3s::settings(&format!("http://{}", server.address));
    let store = Bucket::new(&settings).unwrap().with_few_parts(3, 2 * PART);
    let error = store.begin(&five.key, 6 * PART, PART).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unfit, "{error}");
    assert!(error.to_string().contains("does not list uploads"), "{error}");
    assert!(server.everything().is_empty(), "{:?}", server.everything());
}
