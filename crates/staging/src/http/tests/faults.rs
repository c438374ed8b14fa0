//! What goes wrong on the way and at the server: each with its kind and its message, and nothing left.

use std::fs;
use std::time::Instant;

use tokio::sync::mpsc;
use vmferry_testkit::front::{Action, Front, Reply, Rule};
use vmferry_testkit::stores::{Apache, ApacheSpec, Nginx, NginxSpec};

use super::*;

const PART: usize = 1 << 20;

fn key() -> ObjectKey {
    "ns/migration/disk-0.qcow2".parse().unwrap()
}

/// Bytes that differ from place to place: two parts and a bit.
fn bytes() -> Vec<u8> {
    (0..2 * PART + 12_345).map(|at| (at / 7 % 251) as u8).collect()
}

fn behind(front: &Front) -> HttpStore {
    store_at(&format!("127.0.0.1:{}", front.port()), Credentials::None)
}

fn body_of(bytes: &[u8]) -> PartBody {
    PartBody::held([Buf::copy_of(bytes)])
}

async fn put_all(store: &HttpStore, upload: &UploadId, bytes: &[u8]) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    for (number, part) in (0..).zip(bytes.chunks(PART)) {
        let offset = u64::from(number) * PART as u64;
        parts.push(store.put_part(&key(), upload, number, offset, body_of(part)).await?);
    }
    Ok(parts)
}

async fn upload(store: &HttpStore, bytes: &[u8]) -> Result<ObjectMeta, Error> {
    let upload = store.begin(&key(), bytes.len() as u64, PART as u64).await?;
    let parts = put_all(store, &upload, bytes).await?;
    store.complete(&key(), &upload, bytes.len() as u64, &parts).await
}

async fn download(store: &HttpStore, meta: &ObjectMeta) -> Result<Vec<u8>, Error> {
    let buf = store
        .read_one(&key(), &meta.version, 0, Buf::alone(meta.len as usize))
        .await?;
    Ok(buf.to_vec())
}

/// Uploads, compares, deletes.
async fn round_trip(store: &HttpStore) {
    let meta = upload(store, &bytes()).await.unwrap();
    assert!(download(store, &meta).await.unwrap() == bytes());
    store.delete(&key()).await.unwrap();
}

/// The failure of a check, of this kind and with these words.
async fn refused(store: &HttpStore, kind: Kind, words: &[&str]) {
    let error = store.check(0).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
}

/// nginx and Apache, each with a front before it.
struct Two {
    nginx: Nginx,
    apache: Apache,
    fronts: [Front; 2],
}

impl Two {
    fn start() -> Self {
        let (nginx, apache) = (Nginx::start(), Apache::start());
        let fronts = [Front::to(&nginx.address()), Front::to(&apache.address())];
        Self { nginx, apache, fronts }
    }

    fn assert_empty(&self) {
        assert_eq!(
            (files_of(&self.nginx), left(self.apache.files())),
            (Vec::new(), Vec::new())
        );
    }
}

#[tokio::test]
async fn a_redirect_to_another_server_is_not_followed() {
    let two = Two::start();
    let elsewhere = Front::to(&two.nginx.address());
    for front in &two.fronts {
        for method in ["PUT", "DELETE", "GET"] {
            let location = format!("http://localhost:{}/staging/x", elsewhere.port());
            front.on(Rule::new(Action::Answer(Reply::status(307).header("Location", location))).method(method));
            let store = store_at(&format!("127.0.0.1:{}", front.port()), token("hush"));
            refused(&store, Kind::Denied, &["127.0.0.1", "localhost", "another server"]).await;
            front.clear();
        }
    }
    assert_eq!(elsewhere.count("", ""), 0);
    two.assert_empty();
}

#[tokio::test]
async fn a_wrong_token_or_password_is_refused_and_not_told() {
    let nginx = Nginx::with(&NginxSpec {
        token: Some("right".to_owned()),
        ..NginxSpec::default()
    });
    let apache = Apache::with(&ApacheSpec {
        user: Some(("mover".to_owned(), "right".to_owned())),
        ..ApacheSpec::default()
    });
    for address in [nginx.address(), apache.address()] {
        for credentials in [
            token("Bearer_hush-hush"),
            password("mover", "hush-hush"),
            Credentials::None,
        ] {
            let store = store_at(&address, credentials);
            let error = store.check(0).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Denied, "{error}");
            assert!(
                error.to_string().contains("401") && error.to_string().contains("Secret"),
                "{error}"
            );
            assert!(!format!("{error:?}{store:?}").contains("hush"), "{error:?} {store:?}");
        }
    }
    assert_eq!((nginx.files().len(), apache.files().len()), (0, 0));
}

#[tokio::test]
async fn what_the_account_may_not_do_is_named() {
    for (method, right) in [("DELETE", "delete"), ("PUT", "write"), ("GET", "read")] {
        let nginx = Nginx::with(&NginxSpec {
            denied: if method == "GET" {
                String::new()
            } else {
                method.to_owned()
            },
            ..NginxSpec::default()
        });
        let apache = Apache::with(&ApacheSpec {
            denied: method.to_owned(),
            ..ApacheSpec::default()
        });
        let words = ["403", method, &format!("let this account {right}")];
        refused(&store_at(&apache.address(), Credentials::None), Kind::Denied, &words).await;
        if method != "GET" {
            refused(&store_at(&nginx.address(), Credentials::None), Kind::Denied, &words).await;
        }
        assert_eq!((files_of(&nginx), apache.files()), (Vec::new(), Vec::new()), "{method}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_do_enough_is_refused_with_what_is_missing() {
    for (methods, missing) in [("PUT DELETE", "MOVE"), ("PUT MOVE", "DELETE"), ("DELETE MOVE", "PUT")] {
        let nginx = Nginx::with(&NginxSpec {
            methods: methods.to_owned(),
            ..NginxSpec::default()
        });
        let store = store_at(&nginx.address(), Credentials::None);
        refused(&store, Kind::Unfit, &["405", &format!("let the server take {missing}")]).await;
        assert_eq!(files_of(&nginx), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_server_that_would_overwrite_is_refused() {
    let two = Two::start();
    for front in &two.fronts {
        front.on(Rule::new(Action::DropRequestHeader("overwrite")));
        refused(&behind(front), Kind::Unfit, &["Overwrite: F"]).await;
    }
    two.assert_empty();
}

#[tokio::test]
async fn a_check_leaves_nothing_not_even_the_folder() {
    let apache = Apache::start();
    let store = HttpStore::new(&HttpConfig {
        endpoint: format!("http://{}/a/b/c", apache.address()),
        ..HttpConfig::default()
    })
    .unwrap();
    let notes = store.check(0).await.unwrap();
    assert_eq!(notes, ["uploads are resumed by PUT with Content-Range"]);
    assert_eq!(apache.files(), Vec::<String>::new());
    round_trip(&store).await;
}

#[tokio::test]
async fn a_folder_that_another_makes_at_the_same_moment_is_there() {
    let apache = Apache::start();
    let front = Front::to(&apache.address());
    front.on(Rule::new(Action::AnswerInstead(Reply::status(403)))
        .method("MKCOL")
        .path("/migration")
        .once());
    round_trip(&behind(&front)).await;
    assert_eq!(left(apache.files()), Vec::<String>::new());
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full() {
    let disk = Some(2 * PART as u64);
    let apache = Apache::with(&ApacheSpec {
        disk,
        ..ApacheSpec::default()
    });
    let nginx = Nginx::with(&NginxSpec {
        disk,
        ..NginxSpec::default()
    });
    for (address, kind) in [(apache.address(), Kind::NoSpace), (nginx.address(), Kind::Failed)] {
        let store = store_at(&address, Credentials::None);
        let error = upload(&store, &bytes()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("part "), "{error}");
        assert!(
            error.to_string().contains("disk may be full") || error.to_string().contains("free some space"),
            "{error}"
        );
        store.abort(&key()).await.unwrap();
    }
    assert_eq!((files_of(&nginx), left(apache.files())), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_part_that_is_too_large_for_the_server_is_said_to_be() {
    let nginx = Nginx::with(&NginxSpec {
        max_body: "512k".to_owned(),
        ..NginxSpec::default()
    });
    let apache = Apache::with(&ApacheSpec {
        max_body: 512 << 10,
        ..ApacheSpec::default()
    });
    for address in [nginx.address(), apache.address()] {
        let store = store_at(&address, Credentials::None);
        let error = upload(&store, &bytes()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(error.to_string().contains("client_max_body_size"), "{error}");
        store.abort(&key()).await.unwrap();
    }
    assert_eq!((files_of(&nginx), left(apache.files())), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_server_that_ignores_ranges_or_lies_about_lengths_is_unfit() {
    let two = Two::start();
    for front in &two.fronts {
        let store = behind(front);
        let meta = upload(&store, &bytes()).await.unwrap();
        let read = async || {
            let read = store.read_one(&key(), &meta.version, 4096, Buf::alone(8192)).await;
            read.unwrap_err()
        };
        front.on(Rule::new(Action::DropRequestHeader("range")).method("GET"));
        let error = read().await;
        assert_eq!(error.kind(), Kind::Unfit, "{error}");
        refused(&behind(front), Kind::Unfit, &["ignores Range"]).await;
        front.clear();
        for len in [100, 10_000] {
            front.on(Rule::new(Action::ClaimLength(len)).method("GET").once());
            let error = read().await;
            assert_eq!(error.kind(), Kind::Unfit, "{error}");
        }
        front.on(
            Rule::new(Action::SetAnswerHeader("content-range", "bytes 0-8191/99".to_owned()))
                .method("GET")
                .once(),
        );
        let error = read().await;
        assert_eq!(error.kind(), Kind::Unfit, "{error}");
        store.delete(&key()).await.unwrap();
    }
    two.assert_empty();
}

#[tokio::test]
async fn a_read_that_is_cut_goes_on_where_it_was() {
    let two = Two::start();
    for front in &two.fronts {
        let store = behind(front);
        let meta = upload(&store, &bytes()).await.unwrap();
        front.on(Rule::new(Action::CutAnswer(300_000))
            .method("GET")
            .path("disk-0")
            .times(2));
        assert!(download(&store, &meta).await.unwrap() == bytes());
        let asked: Vec<_> = front
            .seen()
            .iter()
            .filter_map(|seen| Some(seen.header("range")?.to_owned()))
            .collect();
        assert!(
            asked.iter().any(|range| range.starts_with("bytes=300000-")),
            "{asked:?}"
        );
        front.on(Rule::new(Action::CutAnswer(0)).method("GET"));
        let error = download(&store, &meta).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        front.clear();
        store.delete(&key()).await.unwrap();
    }
    two.assert_empty();
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_some() {
    let two = Two::start();
    for front in &two.fronts {
        let store = behind(front);
        store.check(0).await.unwrap();
        for status in [429, 500, 503] {
            let busy = Reply::status(status).header("Retry-After", "1");
            front.on(Rule::new(Action::Answer(busy)).once());
            let start = Instant::now();
            assert_eq!(store.head(&key()).await.unwrap(), None);
            assert!(start.elapsed() >= Duration::from_millis(500), "{status}");
        }
        let busy = Reply::status(503).header("Retry-After", "0");
        front.on(Rule::new(Action::Answer(busy)).method("PUT").times(2));
        round_trip(&store).await;
        front.on(Rule::new(Action::Answer(Reply::status(429).header("Retry-After", "0"))));
        front.forget();
        let error = store.head(&key()).await.unwrap_err();
        assert_eq!((error.kind(), front.count("HEAD", "")), (Kind::Busy, 5), "{error}");
    }
    two.assert_empty();
}

#[tokio::test]
async fn a_part_that_is_cut_is_sent_again_where_it_is_held() {
    let two = Two::start();
    for front in &two.fronts {
        let (store, bytes) = (behind(front), bytes());
        let upload = store.begin(&key(), bytes.len() as u64, PART as u64).await.unwrap();
        front.forget();
        front.on(Rule::new(Action::CutRequest(100_000)).method("PUT").once());
        let mut parts = put_all(&store, &upload, &bytes).await.unwrap();
        assert_eq!(front.count("PUT", ""), 4);

        // One that flows is not: whoever makes it makes it again.
        front.on(Rule::new(Action::CutRequest(100_000)).method("PUT").once());
        let flowing = || {
            let (send, pieces) = mpsc::channel(4);
            for piece in bytes[PART..2 * PART].chunks(PART / 4) {
                send.try_send(Buf::copy_of(piece)).unwrap();
            }
            PartBody::flowing(PART as u64, pieces)
        };
        let error = store
            .put_part(&key(), &upload, 1, PART as u64, flowing())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable, "{error}");
        parts[1] = store
            .put_part(&key(), &upload, 1, PART as u64, flowing())
            .await
            .unwrap();
        let meta = store
            .complete(&key(), &upload, bytes.len() as u64, &parts)
            .await
            .unwrap();
        assert!(download(&store, &meta).await.unwrap() == bytes);
        store.delete(&key()).await.unwrap();
    }
    two.assert_empty();
}

#[tokio::test]
async fn an_answer_that_is_lost_is_no_loss() {
    let two = Two::start();
    for front in &two.fronts {
        let store = behind(front);
        store.check(0).await.unwrap();
        for method in ["PUT", "MOVE", "DELETE"] {
            // Of all such requests one after the other.
            for skip in 0..4 {
                front.on(Rule::new(Action::LoseAnswer).method(method).skip(skip).once());
                round_trip(&store).await;
                front.clear();
            }
        }
    }
    two.assert_empty();
}

#[tokio::test]
async fn silence_ends_a_request_and_not_the_upload() {
    let two = Two::start();
    for front in &two.fronts {
        let store = HttpStore::new(&HttpConfig {
            endpoint: front.url(),
            silence: Some(Duration::from_secs(1)),
            ..HttpConfig::default()
        })
        .unwrap();
        store.check(0).await.unwrap();
        front.on(Rule::new(Action::StallRequest(1000))
            .method("PUT")
            .path("disk-0")
            .once());
        front.on(Rule::new(Action::StallAnswer(1000))
            .method("GET")
            .path("disk-0")
            .skip(2)
            .once());
        round_trip(&store).await;
    }
    two.assert_empty();
}

#[tokio::test]
async fn an_authority_is_trusted_when_it_is_given() {
    let (nginx, apache) = (Nginx::start(), Apache::start());
    for address in [nginx.address(), apache.address()] {
        let front = Front::builder(&address).tls().start();
        let config = |ca: Option<&str>| HttpConfig {
            endpoint: format!("{}/staging", front.url()),
            ca: ca.map(str::to_owned),
            ..HttpConfig::default()
        };
        let store = HttpStore::new(&config(front.ca())).unwrap();
        store.check(0).await.unwrap();
        round_trip(&store).await;
        refused(&HttpStore::new(&config(None)).unwrap(), Kind::Untrusted, &["ca.crt"]).await;
        let error = HttpStore::new(&config(Some("no certificate"))).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    assert_eq!((files_of(&nginx), left(apache.files())), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn an_object_that_changes_under_us_is_noticed() {
    let (nginx, apache) = (Nginx::start(), Apache::start());
    let file = |root: &std::path::Path, name: &str| root.join("staging/ns/migration").join(name);
    for (address, root) in [(nginx.address(), nginx.root()), (apache.address(), apache.root())] {
        let store = store_at(&address, Credentials::None);
        let meta = upload(&store, &bytes()).await.unwrap();
        let segments = file(root, "disk-0.qcow2.parts");
        let changed = match fs::read_dir(&segments) {
            Ok(mut folders) => folders.next().unwrap().unwrap().path().join("00000001"),
            Err(_) => file(root, "disk-0.qcow2"),
        };
        // Another length, so that servers that count seconds notice at once.
        fs::write(&changed, "other").unwrap();
        let read = store
            .read_one(&key(), &meta.version, PART as u64, Buf::alone(4096))
            .await;
        let error = read.unwrap_err();
        assert_eq!(error.kind(), Kind::Changed, "{error}");
        store.delete(&key()).await.unwrap();
    }
    assert_eq!((files_of(&nginx), left(apache.files())), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn segments_put_together_are_the_object() {
    let nginx = Nginx::start();
    let store = store_at(&nginx.address(), Credentials::None);
    upload(&store, &bytes()).await.unwrap();
    let mut command = std::process::Command::new("sh");
    let cat = command
        .args(["-c", "cat staging/ns/migration/disk-0.qcow2.parts/*/*"])
        .current_dir(nginx.root());
    assert!(cat.output().unwrap().stdout == bytes());
    store.delete(&key()).await.unwrap();
    assert_eq!(files_of(&nginx), Vec::<String>::new());
}

#[tokio::test]
async fn a_completion_that_broke_off_is_completed_or_aborted() {
    let nginx = Nginx::start();
    let front = Front::to(&nginx.address());
    for is_completed in [true, false] {
        // Nothing is moved, or the segments are and the manifest is not.
        for skip in [0, 1] {
            let (store, bytes) = (behind(&front), bytes());
            let upload = store.begin(&key(), bytes.len() as u64, PART as u64).await.unwrap();
            let parts = put_all(&store, &upload, &bytes).await.unwrap();
            let broken = Reply::status(500).header("Retry-After", "0");
            front.on(Rule::new(Action::Answer(broken)).method("MOVE").skip(skip));
            let outcome = store.complete(&key(), &upload, bytes.len() as u64, &parts).await;
            assert_eq!(outcome.unwrap_err().kind(), Kind::Failed);
            assert_eq!(store.head(&key()).await.unwrap(), None);
            front.clear();
            let store = behind(&front);
            if is_completed {
                assert!(
                    matches!(store.parts(&key(), &upload).await.unwrap(), Uploaded::Parts(parts) if parts.len() >= 2)
                );
                let meta = store
                    .complete(&key(), &upload, bytes.len() as u64, &parts)
                    .await
                    .unwrap();
                assert!(download(&store, &meta).await.unwrap() == bytes);
                store.delete(&key()).await.unwrap();
            } else {
                store.abort(&key()).await.unwrap();
                assert_eq!(store.parts(&key(), &upload).await.unwrap(), Uploaded::Gone);
            }
            assert_eq!(files_of(&nginx), Vec::<String>::new(), "{is_completed} {skip}");
        }
    }
}

#[tokio::test]
async fn what_others_have_there_stays() {
    let nginx = Nginx::start();
    let store = store_at(&nginx.address(), Credentials::None);
    let folder = nginx.root().join("staging/ns/migration");
    for name in ["disk-0.qcow2", "disk-0.qcow2.manifest.json"] {
        let theirs = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(&theirs, "theirs").unwrap();
        let error = upload(&store, &bytes()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NameTaken, "{error}");
        store.abort(&key()).await.unwrap();
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
        assert_eq!(files_of(&nginx), [format!("staging/ns/migration/{name}")]);
        fs::remove_file(&theirs).unwrap();
    }
    let theirs = folder.join("disk-0.qcow2.parts/theirs");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, "theirs").unwrap();
    round_trip(&store).await;
    store.abort(&key()).await.unwrap();
    assert_eq!(files_of(&nginx), ["staging/ns/migration/disk-0.qcow2.parts/theirs"]);
}

#[tokio::test]
async fn folders_that_others_use_stay() {
    let apache = Apache::start();
    let store = store_at(&apache.address(), Credentials::None);
    upload(&store, &bytes()).await.unwrap();
    let other = "ns/other".parse().unwrap();
    store.put_note(&other, "note").await.unwrap();
    store.delete(&key()).await.unwrap();
    assert_eq!(left(apache.files()), ["staging/ns", "staging/ns/.other.note"]);
    store.delete_note(&other).await.unwrap();
    assert_eq!(left(apache.files()), Vec::<String>::new());
}

#[test]
fn endpoints_that_make_no_sense_are_refused() {
    for bad in [
        "",
        "files.example.com/x",
        "ftp://files.example.com/",
        "http://",
        "https://user:hush@files.example.com/",
        "https://files.example.com/?signature=hush",
        "https://files.example.com/#x",
    ] {
        let config = HttpConfig {
            endpoint: bad.to_owned(),
            ..HttpConfig::default()
        };
        let error = HttpStore::new(&config).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{bad}: {error}");
        assert!(
            !error.to_string().contains("hush") && error.to_string().contains("spec.storage.endpoint"),
            "{error}"
        );
    }
}

#[test]
fn credentials_on_an_open_line_are_told() {
    for (endpoint, exposed) in [
        ("http://files.example.com/", true),
        ("https://files.example.com/", false),
        ("http://localhost:8080", false),
        ("http://127.0.0.2/", false),
        ("http://[::1]/x", false),
        ("http://192.0.2.1/", true),
    ] {
        for (credentials, given) in [(token("t"), true), (Credentials::None, false)] {
            let store = HttpStore::new(&HttpConfig {
                endpoint: endpoint.to_owned(),
                credentials,
                ..HttpConfig::default()
            });
            assert_eq!(store.unwrap().is_exposed(), exposed && given, "{endpoint}");
        }
    }
}
