//! Connections that break, servers that die, and what changes under us.

use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use tokio::sync::mpsc;

use super::*;

const VERSIONS: [&str; 3] = ["vers=3", "vers=4.0", "vers=4.1"];
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until the server has these bytes at `offset` of the only upload of `key`.
async fn arrived(served: &Served, name: &str, offset: usize, bytes: &[u8]) {
    let started = Instant::now();
    loop {
        let file = std::fs::read(served.file(name)).unwrap();
        if file.get(offset..offset + bytes.len()) == Some(bytes) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the bytes at {offset} do not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The server dies in the middle of a part, with what it had not committed.
async fn a_killed_server_loses_no_bytes(options: &'static str) {
    const LEN: usize = 48 * MIB;
    let mut served = Served::new(options);
    let mut store = served.store();
    // Only what fills the window is committed before the end.
    store.link.target.lull = PATIENCE;
    let (store, key, bytes) = (Arc::new(store), key("a/disk"), noise(LEN, 3));
    let upload = store.begin(&key, LEN as u64, LEN as u64).await.unwrap();
    let hidden = format!("a/.disk.{}.part", upload.0);
    let (pieces, body) = mpsc::channel(2);
    let putting = tokio::spawn({
        let (store, key, upload) = (Arc::clone(&store), key.clone(), upload.clone());
        async move {
            let body = PartBody::flowing(LEN as u64, body);
            store.put_part(&key, &upload, 0, 0, body).await
        }
    });
    let feed = async |range: std::ops::Range<usize>| {
        for piece in bytes[range.start * MIB..range.end * MIB].chunks(700_000) {
            pieces.send(Buf::copy_of(piece)).await.unwrap();
        }
    };
    feed(0..40).await;
    arrived(&served, &hidden, 0, &bytes[..40 * MIB]).await;
    served.ganesha.kill();
    let file = std::fs::File::options().write(true).open(served.file(&hidden)).unwrap();
    file.write_all_at(&vec![0; 7 * MIB], 33 << 20).unwrap();
    // Its verifier is the second in which it started.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    served.ganesha.restart();
    feed(40..48).await;
    drop(pieces);
    let part = putting.await.unwrap().unwrap();
    let meta = store.complete(&key, &upload, LEN as u64, &[part]).await.unwrap();
    assert!(
        std::fs::read(served.file("a/disk")).unwrap() == bytes,
        "the bytes differ"
    );
    assert!(
        download(&*store, &key, &meta).await.unwrap() == bytes,
        "the bytes differ"
    );
    store.delete(&key).await.unwrap();
    assert!(served.everything().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_no_bytes_over_version_3() {
    a_killed_server_loses_no_bytes("vers=3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_no_bytes_over_version_4_0() {
    a_killed_server_loses_no_bytes("vers=4.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_no_bytes_over_version_4_1() {
    a_killed_server_loses_no_bytes("vers=4.1").await;
}

/// The connection is cut again and again while the server is being killed and started: in the middle of writes and reads.
async fn cuts_lose_no_bytes(options: &'static str) {
    const LEN: usize = 64 * MIB;
    let mut served = Served::new(options);
    let proxy = Arc::new(served.proxy());
    let store = Arc::new(served.by(&proxy, PATIENCE));
    let (key, bytes) = (key("a/disk"), noise(LEN, 4));
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let cutter = std::thread::spawn({
        let proxy = Arc::clone(&proxy);
        move || {
            let mut cuts = 0;
            let mut seen = 0;
            while stopped.try_recv().is_err() {
                // A cut every few MiB: there is always some progress between two.
                if proxy.passed() > seen + 9 * MIB as u64 {
                    seen = proxy.passed();
                    proxy.cut();
                    cuts += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            cuts
        }
    });
    let working = tokio::spawn({
        let (store, key, bytes) = (Arc::clone(&store), key.clone(), bytes.clone());
        async move {
            let meta = upload(&*store, &key, &bytes).await?;
            let read = download(&*store, &key, &meta).await?;
            assert!(read == bytes, "the bytes differ");
            Ok::<_, Error>(())
        }
    });
    let started = Instant::now();
    while proxy.passed() < 20 * MIB as u64 {
        assert!(started.elapsed() < PATIENCE, "nothing passes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served.ganesha.restart();
    working.await.unwrap().unwrap();
    stop.send(()).unwrap();
    let cuts = cutter.join().unwrap();
    assert!(cuts > 3, "only {cuts} cuts");
    assert!(
        std::fs::read(served.file("a/disk")).unwrap() == bytes,
        "the bytes differ"
    );
    store.delete(&key).await.unwrap();
    assert!(served.everything().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_lose_no_bytes_over_version_3() {
    cuts_lose_no_bytes("vers=3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_lose_no_bytes_over_version_4_0() {
    cuts_lose_no_bytes("vers=4.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_lose_no_bytes_over_version_4_1() {
    cuts_lose_no_bytes("vers=4.1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_a_call() {
    let mut served = Served::new("");
    for options in VERSIONS {
        served.options = options;
        let proxy = served.proxy();
        let (store, key) = (served.by(&proxy, Duration::from_secs(2)), key("a/disk"));
        let meta = upload(&store, &key, &noise(MIB, 1)).await.unwrap();
        proxy.stall(true);
        let started = Instant::now();
        let (head, read, write) = tokio::join!(
            store.head(&key),
            download(&store, &key, &meta),
            upload(&store, &key, &[1; 4096])
        );
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{options}: it took {took:?}");
        for error in [head.unwrap_err(), read.unwrap_err(), write.unwrap_err()] {
            assert_eq!(error.kind(), Kind::Unreachable, "{options}: {error}");
        }
        proxy.stall(false);
        assert!(
            store.head(&key).await.unwrap().is_some(),
            "{options}: it does not recover"
        );
        store.abort(&key).await.unwrap();
        store.delete(&key).await.unwrap();
    }
    assert!(served.everything().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_was_made_again_has_nothing_of_ours() {
    let export = Export {
        size: Some(64 << 20),
        ..Export::default()
    };
    let mut served = Served::with("", export);
    for options in VERSIONS {
        served.options = options;
        let (store, object, other) = (served.store(), key("a/object"), key("a/other"));
        let meta = upload(&store, &object, &noise(MIB, 1)).await.unwrap();
        store
            .read_one(&object, &meta.version, 0, Buf::alone(4096))
            .await
            .unwrap();
        let id = store.begin(&other, 2 << 20, 1 << 20).await.unwrap();
        served.ganesha.restart();
        let body = PartBody::held([Buf::alone(MIB)]);
        let error = store.put_part(&other, &id, 0, 0, body).await.unwrap_err();
        assert_eq!(error.kind(), Kind::UploadGone, "{options}: {error}");
        let error = store
            .read_one(&object, &meta.version, 0, Buf::alone(4096))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Changed, "{options}: {error}");
        assert_eq!(store.head(&object).await.unwrap(), None);
        upload(&store, &object, &noise(MIB, 2)).await.unwrap();
        store.delete(&object).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_removed_under_its_writer_is_gone() {
    let mut served = Served::new("");
    for options in VERSIONS {
        served.options = options;
        let (store, key) = (Arc::new(served.store()), key("a/disk"));
        let id = store.begin(&key, 2 << 20, 2 << 20).await.unwrap();
        let (pieces, body) = mpsc::channel(1);
        let putting = tokio::spawn({
            let (store, key, id) = (Arc::clone(&store), key.clone(), id.clone());
            async move { store.put_part(&key, &id, 0, 0, PartBody::flowing(2 << 20, body)).await }
        });
        pieces.send(Buf::copy_of(&noise(MIB, 6))).await.unwrap();
        arrived(&served, &format!("a/.disk.{}.part", id.0), 0, &noise(MIB, 6)).await;
        served.store().abort(&key).await.unwrap();
        pieces.send(Buf::copy_of(&noise(MIB, 6))).await.unwrap_or_default();
        drop(pieces);
        match putting.await.unwrap() {
            Err(error) => assert_eq!(error.kind(), Kind::UploadGone, "{options}: {error}"),
            // Version 4.0 has it open, and writes into nowhere.
            Ok(part) => {
                let error = store.complete(&key, &id, 2 << 20, &[part]).await.unwrap_err();
                assert_eq!(error.kind(), Kind::UploadGone, "{options}: {error}");
            }
        }
        store.abort(&key).await.unwrap();
    }
    assert!(served.everything().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_under_a_reader_is_noticed() {
    let mut served = Served::new("");
    for options in VERSIONS {
        served.options = options;
        let (store, key) = (served.store(), key("a/disk"));
        let meta = upload(&store, &key, &noise(MIB, 1)).await.unwrap();
        store.read_one(&key, &meta.version, 0, Buf::alone(4096)).await.unwrap();
        // Another client writes into it.
        let other = served.store();
        let session = other.link.call().session().await.unwrap();
        let seat = tree::find(&session, &key).await.unwrap().unwrap();
        let write = async |file| {
            let receipts = session.write(&file, 0, bytes::Bytes::from_static(b"theirs")).await?;
            session.commit(&file, &receipts).await
        };
        session.write_to(&seat.folder, "disk", write).await.unwrap();
        let error = store
            .read_one(&key, &meta.version, 0, Buf::alone(4096))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Changed, "{options}: {error}");
        let meta = store.head(&key).await.unwrap().unwrap();
        store.read_one(&key, &meta.version, 0, Buf::alone(4096)).await.unwrap();
        let cut = async |file| session.resize(&file, 10).await;
        session.write_to(&seat.folder, "disk", cut).await.unwrap();
        let error = store.read_one(&key, &meta.version, 4096, Buf::alone(4096)).await;
        assert_eq!(error.unwrap_err().kind(), Kind::Changed, "{options}");
        store.delete(&key).await.unwrap();
    }
    assert!(served.everything().is_empty());
}
