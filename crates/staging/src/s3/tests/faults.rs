//! A real server behind a front that makes its way and its answers bad.

use std::time::Instant;

use vmferry_testkit::front::{Action, Front, Reply, Rule};

use super::folder::S3s;
use super::*;

/// A server, a front before it, and the store through the front.
struct Way {
    server: S3s,
    front: Front,
    store: Bucket,
}

impl Way {
    async fn new() -> Self {
        Self::silent_for(Duration::from_secs(20)).await
    }

    async fn silent_for(silence: Duration) -> Self {
        let server = S3s::start().await;
        let front = Front::to(&server.address);
        let mut settings = S3s::settings(&front.url());
        settings.silence = Some(silence);
        let store = Bucket::new(&settings).unwrap();
        Self { server, front, store }
    }
}

fn on(method: &'static str, text: &str, action: Action) -> Rule {
    Rule::new(action).method(method).path(text)
}

fn refused(status: u16, code: &str) -> Action {
    Action::Answer(Reply::status(status).body(error(code, "")))
}

fn error(code: &str, more: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as it is</Message>{more}</Error>")
}

/// Bytes of which none repeats its neighbours.
fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

async fn read(store: &Bucket, key: &ObjectKey, meta: &ObjectMeta, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
    let buf = store.read_one(key, &meta.version, offset, Buf::alone(len)).await?;
    Ok(buf.to_vec())
}

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_or_failing_server_is_asked_again() {
    let way = Way::new().await;
    let (object, body) = (key("a/disk"), bytes(6 * MIB));
    let patience = Reply::status(503)
        .header("retry-after", "1")
        .body(error("SlowDown", ""));
    way.front
        .on(on("PUT", "partNumber=1&", Action::Answer(patience)).once());
    way.front
        .on(on("PUT", "partNumber=2&", refused(500, "InternalError")).once());
    way.front
        .on(on("POST", "uploads=", Action::Answer(Reply::status(429))).once());
    // A completion may fail after it said that all is well.
    way.front
        .on(on("POST", "uploadId=", refused(200, "InternalError")).once());
    way.front.on(on("HEAD", "", Action::Answer(Reply::status(502))).once());
    let start = Instant::now();
    let meta = put(&way.store, &object, &body).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After was not heeded");
    assert_eq!(meta.len, body.len() as u64);
    assert_eq!(way.front.count("PUT", "partNumber="), 4);
    way.front
        .on(on("GET", "a/disk", Action::Answer(Reply::status(503))).once());
    assert!(read(&way.store, &object, &meta, 0, body.len()).await.unwrap() == body);

    way.front.on(on("GET", "a/disk", Action::Answer(Reply::status(503))));
    way.front.forget();
    let error = read(&way.store, &object, &meta, 0, 10).await.unwrap_err();
    assert_eq!(
        (error.kind(), way.front.count("GET", "a/disk")),
        (Kind::Busy, 5),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_part_is_sent_again_and_a_cut_answer_taken_up_where_it_ended() {
    let way = Way::new().await;
    let (object, body) = (key("a/disk"), bytes(7 * MIB));
    way.front
        .on(on("PUT", "partNumber=1&", Action::CutRequest(MIB as u64)).once());
    way.front.on(on("PUT", "partNumber=2&", Action::LoseAnswer).once());
    let meta = put(&way.store, &object, &body).await.unwrap();
    assert_eq!(way.front.count("PUT", "partNumber="), 4);
    for _ in 0..3 {
        way.front.on(on("GET", "a/disk", Action::CutAnswer(MIB as u64)).once());
    }
    way.front.forget();
    assert!(read(&way.store, &object, &meta, 100, 5 * MIB).await.unwrap() == body[100..100 + 5 * MIB]);
    let seen = way.front.seen();
    let first = |n: usize| {
        let range = seen[n].header("range").unwrap().strip_prefix("bytes=").unwrap();
        range.split_once('-').unwrap().0.parse::<usize>().unwrap()
    };
    assert_eq!(first(0), 100);
    assert!(
        (1..seen.len()).all(|n| first(n) > first(n - 1)),
        "a read began again from where it was"
    );

    // Never a byte: it is given up.
    way.front.on(on("GET", "a/disk", Action::CutAnswer(0)));
    way.front.forget();
    let error = read(&way.store, &object, &meta, 0, MIB).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(way.front.count("GET", "a/disk") <= 5 * 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_connection_is_given_up_and_made_again() {
    let way = Way::silent_for(Duration::from_secs(2)).await;
    let (object, body) = (key("a/disk"), bytes(6 * MIB));
    way.front
        .on(on("PUT", "partNumber=1&", Action::StallRequest(MIB as u64)).once());
    let meta = put(&way.store, &object, &body).await.unwrap();
    way.front
        .on(on("GET", "a/disk", Action::StallAnswer(MIB as u64)).once());
    assert!(read(&way.store, &object, &meta, 0, body.len()).await.unwrap() == body);
    assert_eq!(way.front.count("PUT", "partNumber=1&"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_whose_answer_was_lost_is_recognised() {
    let way = Way::new().await;
    let object = key("a/disk");
    way.front.on(on("POST", "uploadId=", Action::LoseAnswer).once());
    let meta = put(&way.store, &object, b"ours").await.unwrap();
    assert_eq!(way.store.head(&object).await.unwrap(), Some(meta));
    way.store.delete(&object).await.unwrap();
    assert!(way.server.everything().is_empty(), "{:?}", way.server.everything());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_ranges_or_lies_about_lengths_is_unfit() {
    let way = Way::new().await;
    let (object, body) = (key("a/disk"), bytes(MIB));
    let meta = put(&way.store, &object, &body).await.unwrap();
    let whole = Reply::status(200)
        .header("etag", format!("\"{}\"", meta.version))
        .body("x".repeat(1000));
    let range = |text: &str| Action::SetAnswerHeader("content-range", text.to_owned());
    for action in [
        Action::Answer(whole),
        Action::ClaimLength(4096),
        range("bytes 0-999/1048576"),
        range("bytes 500-1499/1048577000000000000000000"),
        range("pages 500-1499/1048576"),
        Action::DropAnswerHeader("content-range"),
    ] {
        way.front.on(on("GET", "a/disk", action.clone()));
        let error = read(&way.store, &object, &meta, 500, 1001).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unfit, "{action:?}: {error}");
        way.front.clear();
    }
    // What says that it is another object is not read, whatever the server thinks of conditions.
    way.front.on(on(
        "GET",
        "a/disk",
        Action::SetAnswerHeader("etag", "\"other\"".to_owned()),
    ));
    let error = read(&way.store, &object, &meta, 0, 10).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Changed, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_refuses_is_said_with_what_to_do() {
    let way = Way::new().await;
    let time = "<ServerTime>2020-01-02T03:04:05Z</ServerTime>";
    let elsewhere = Reply::status(301).header("x-amz-bucket-region", "eu-west-1");
    for (action, kind, word) in [
        (refused(400, "ExpiredToken"), Kind::Denied, "fresh credentials"),
        (refused(400, "InvalidToken"), Kind::Denied, "sessionToken"),
        (
            Action::Answer(Reply::status(403).body(error("RequestTimeTooSkewed", time))),
            Kind::Denied,
            "2020-01-02T03:04:05Z there and 20",
        ),
        (refused(403, "QuotaExceeded"), Kind::NoSpace, "quota"),
        (Action::Answer(Reply::status(507)), Kind::NoSpace, "space"),
        (refused(403, "AccessDenied"), Kind::Denied, "s3:PutObject"),
        (refused(400, "EntityTooLarge"), Kind::Invalid, "larger parts"),
        (
            Action::Answer(elsewhere.body(error("PermanentRedirect", ""))),
            Kind::Invalid,
            "set spec.storage.region to eu-west-1",
        ),
        (Action::Answer(Reply::status(404).body("<html>")), Kind::UploadGone, ""),
        (
            Action::Answer(Reply::status(418).body("tea")),
            Kind::Unfit,
            "is an S3 server",
        ),
    ] {
        let object = key("a/disk");
        way.front.on(on("PUT", "partNumber=", action.clone()));
        let error = put(&way.store, &object, b"ours").await.unwrap_err();
        assert_eq!(error.kind(), kind, "{action:?}: {error}");
        assert!(error.to_string().contains(word), "{action:?}: {error}");
        way.front.clear();
        way.store.abort(&object).await.unwrap();
    }
    assert!(way.server.everything().is_empty(), "{:?}", way.server.everything());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_delete_may_not_begin() {
    let way = Way::new().await;
    way.front.on(on("DELETE", "", refused(403, "AccessDenied")));
    let error = way.store.check(0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("allow s3:DeleteObject"), "{error}");
    assert!(way.server.everything().is_empty(), "{:?}", way.server.everything());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_sweeps_what_it_wrote_before_it_failed() {
    for (method, text, code, kind) in [
        ("POST", "uploadId=", "AccessDenied", Kind::Denied),
        ("PUT", "partNumber=", "QuotaExceeded", Kind::NoSpace),
        ("GET", "probe", "AccessDenied", Kind::Denied),
    ] {
        let way = Way::new().await;
        way.front.on(on(method, text, refused(403, code)).times(3));
        let error = way.store.check(0).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(
            way.server.everything().is_empty(),
            "{method} {text}: {:?}",
            way.server.everything()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_gets_parts_in_the_manner_that_it_takes() {
    let way = Way::new().await;
    // No uploads with checksums, and no part that the signature does not cover.
    way.front
        .on(on("POST", "uploads=", refused(501, "NotImplemented")).once());
    way.front
        .on(on("PUT", "partNumber=", refused(400, "XAmzContentSHA256Mismatch")).once());
    let clauses = way.store.check(0).await.unwrap();
    assert!(
        clauses.iter().any(|clause| clause.contains("wants signed parts")),
        "{clauses:?}"
    );
    way.front.forget();
    put(&way.store, &key("a/disk"), &bytes(6 * MIB)).await.unwrap();
    let seen = way.front.seen();
    let parts: Vec<_> = seen.iter().filter(|seen| seen.target.contains("partNumber=")).collect();
    assert_eq!(parts.len(), 2);
    for part in parts {
        assert_eq!(part.header("x-amz-content-sha256").unwrap().len(), 64);
        assert!(part.header("x-amz-checksum-crc64nvme").is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_in_the_secret_is_trusted_and_no_other() {
    let server = S3s::start().await;
    let front = Front::builder(&server.address).tls().start();
    let mut settings = S3s::settings(&front.url());
    let untrusted = Bucket::new(&settings).unwrap().check(0).await.unwrap_err();
    assert_eq!(untrusted.kind(), Kind::Untrusted, "{untrusted}");
    assert!(untrusted.to_string().contains("ca.crt"), "{untrusted}");
    // Without a scheme it is https, too.
    settings.endpoint = Some(format!("localhost:{}", front.port()));
    settings.ca = front.ca().map(str::to_owned);
    let store = Bucket::new(&settings).unwrap();
    store.check(0).await.unwrap();
    put(&store, &key("a/disk"), b"ours").await.unwrap();
    let part = front
        .seen()
        .into_iter()
        .find(|seen| seen.target.contains("a/disk?partNumber="))
        .unwrap();
    assert_eq!(part.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    assert!(part.header("x-amz-checksum-crc64nvme").is_some());
    settings.ca = Some("no certificate".to_owned());
    assert_eq!(Bucket::new(&settings).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn addresses_of_metadata_services_are_refused_at_once() {
    for endpoint in ["http://169.254.169.254", "http://[fe80::1]:80"] {
        let error = Bucket::new(&settings(endpoint, "vms", ("a", "b"))).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
    }
}
