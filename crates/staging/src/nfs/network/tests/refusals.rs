//! What servers refuse, and what we refuse.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use super::*;
use crate::HostPolicy;
use crate::nfs::MountedPath;

const VERSIONS: [&str; 3] = ["vers=3", "vers=4.0", "vers=4.1"];

#[tokio::test]
async fn a_read_only_export_is_said() {
    let export = Export {
        read_only: true,
        ..Export::default()
    };
    let mut served = Served::with("", export);
    for options in VERSIONS {
        served.options = options;
        let error = served.store().check(0).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{options}: {error}");
        assert!(
            error.to_string().ends_with("export the folder read-write"),
            "{options}: {error}"
        );
        let error = served.store().begin(&key("a/disk"), 1, 1 << 20).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{options}: {error}");
    }
    assert!(served.everything().is_empty());
}

#[tokio::test]
async fn a_squashed_root_is_told_to_be_somebody_else() {
    let export = Export {
        squash: true,
        ..Export::default()
    };
    let mut served = Served::with("", export);
    for options in VERSIONS {
        served.options = options;
        let error = served.store().check(0).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{options}: {error}");
        assert!(error.to_string().contains("set uid and gid"), "{options}: {error}");
    }
    assert!(served.everything().is_empty());
    chown(served.ganesha.path(), Some(1234), Some(2345)).unwrap();
    for options in ["vers=3,uid=1234,gid=2345", "vers=4,uid=1234,gid=2345"] {
        served.options = options;
        // The server may remember for a while who could do what.
        served.ganesha.restart();
        let (store, key) = (served.store(), key("a/disk"));
        store.check(1).await.unwrap();
        upload(&store, &key, b"bytes").await.unwrap();
        let meta = std::fs::metadata(served.file("a/disk")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 2345));
        store.delete(&key).await.unwrap();
    }
    assert!(served.everything().is_empty());
}

#[tokio::test]
async fn an_export_for_low_ports_is_called_from_one() {
    let export = Export {
        privileged_port: true,
        ..Export::default()
    };
    let mut served = Served::with("", export);
    for (options, refused) in [
        ("vers=3,resvport", false),
        ("vers=4.1", false),
        ("vers=3,noresvport", true),
        ("vers=4.1,noresvport", true),
    ] {
        served.options = options;
        match served.store().check(0).await {
            Ok(_) => assert!(!refused, "{options}"),
            Err(error) => {
                assert!(refused, "{options}: {error}");
                // nfs-ganesha hides over NFSv4 what it does not export to somebody.
                let expected = if options.contains("vers=3") {
                    Kind::Denied
                } else {
                    Kind::NotFound
                };
                assert_eq!(error.kind(), expected, "{options}: {error}");
                assert!(error.to_string().contains("resvport"), "{options}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_given_back() {
    let export = Export {
        size: Some(8 << 20),
        ..Export::default()
    };
    let mut served = Served::with("", export);
    for options in VERSIONS {
        served.options = options;
        let (store, key) = (served.store(), key("a/disk"));
        let error = store.check(1 << 30).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NoSpace, "{options}: {error}");
        assert!(
            error.to_string().contains("1073741824 bytes are needed and "),
            "{error}"
        );
        let error = upload(&store, &key, &noise(12 * MIB, 1)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NoSpace, "{options}: {error}");
        store.abort(&key).await.unwrap();
        assert!(served.everything().is_empty(), "{options}: {:?}", served.everything());
        upload(&store, &key, &noise(4 * MIB, 2)).await.unwrap();
        store.delete(&key).await.unwrap();
    }
}

#[tokio::test]
async fn a_path_that_is_not_exported_is_not_found() {
    let mut served = Served::new("");
    for options in VERSIONS {
        served.options = options;
        let mut config = served.config();
        config.path.push_str("/missing");
        let error = NfsServer::new(config).unwrap().check(0).await.unwrap_err();
        // nfs-ganesha denies over NFSv3 what it does not export.
        let expected = if options == "vers=3" {
            Kind::Denied
        } else {
            Kind::NotFound
        };
        assert_eq!(error.kind(), expected, "{options}: {error}");
        assert!(error.to_string().contains("spec.storage.path"), "{options}: {error}");
        assert!(error.to_string().contains("/missing"), "{options}: {error}");
    }
    std::fs::write(served.file("file"), "").unwrap();
    for options in ["vers=4.0", "vers=4.1"] {
        served.options = options;
        let mut config = served.config();
        config.path.push_str("/file");
        let error = NfsServer::new(config).unwrap().check(0).await.unwrap_err();
        assert!(
            matches!(error.kind(), Kind::NotFound | Kind::Invalid),
            "{options}: {error}"
        );
    }
}

#[tokio::test]
async fn hosts_that_are_not_allowed_are_not_called() {
    let proxy = Proxy::to("127.0.0.1:9", true);
    let mut config = NfsConfig::new(format!("127.0.0.1:{}", proxy.port()), "/export");
    config.hosts = HostPolicy::allowing(["10.0.0.0/8"]).unwrap();
    let error = NfsServer::new(config).unwrap().check(0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert!(error.to_string().contains("--allowed-storage-hosts"), "{error}");
    let error = NfsServer::new(NfsConfig::new("169.254.169.254", "/"))
        .unwrap()
        .check(0)
        .await;
    assert_eq!(error.unwrap_err().kind(), Kind::Denied);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let mut config = NfsConfig::new(format!("127.0.0.1:{}", vmferry_testkit::stores::free_port()), "/export");
    config.patience = Duration::from_secs(1);
    let store = NfsServer::new(config).unwrap();
    let started = std::time::Instant::now();
    let error = store.check(0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    assert!(started.elapsed() >= Duration::from_millis(900), "it gave up at once");
    let mut config = NfsConfig::new("no-such-host.invalid", "/export");
    config.patience = Duration::from_millis(500);
    let error = NfsServer::new(config).unwrap().check(0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
}

#[tokio::test]
async fn links_lead_nowhere() {
    let mut served = Served::new("");
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("disk"), "theirs").unwrap();
    symlink(outside.path(), served.file("linked")).unwrap();
    symlink(outside.path().join("disk"), served.file("disk")).unwrap();
    for options in VERSIONS {
        served.options = options;
        let store = served.store();
        for key in [key("linked/disk"), key("disk")] {
            let error = store.head(&key).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{options}: {error}");
            assert!(store.read_one(&key, "v", 0, Buf::alone(1)).await.is_err());
            assert!(upload(&store, &key, b"ours").await.is_err());
            store.abort(&key).await.unwrap_or_default();
        }
        assert!(store.put_note(&key("linked/disk"), "note").await.is_err());
        assert!(store.delete(&key("linked/disk")).await.is_err());
    }
    assert_eq!(std::fs::read(outside.path().join("disk")).unwrap(), b"theirs");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(served.everything(), ["disk", "linked"]);
}

#[tokio::test]
async fn what_is_made_is_private() {
    let mut served = Served::new("");
    for options in VERSIONS {
        served.options = options;
        let (store, key) = (served.store(), key("ns/migration/disk-0.raw"));
        upload(&store, &key, b"secret").await.unwrap();
        store.put_note(&key, "note").await.unwrap();
        store.begin(&key, 1, 1 << 20).await.unwrap();
        let everything = served.everything();
        assert_eq!(everything.len(), 5, "{everything:?}");
        for name in everything {
            let mode = std::fs::metadata(served.file(&name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{options}: {name} has mode {mode:o}");
        }
        store.delete(&key).await.unwrap();
        store.delete_note(&key).await.unwrap();
        store.abort(&key).await.unwrap();
        assert!(served.everything().is_empty());
    }
}

/// One machine has the export mounted, another one speaks NFS: they share uploads, notes and objects.
#[tokio::test]
async fn a_mounted_path_and_the_network_are_one_store() {
    let mut served = Served::new("");
    for options in VERSIONS {
        served.options = options;
        let (network, mounted) = (served.store(), MountedPath::new(served.ganesha.path()).unwrap());
        let (key, bytes) = (key("ns/m/disk-0"), noise(3 * MIB, 7));
        let stores: [&dyn StagingStore; 2] = [&network, &mounted];
        for (first, second) in [(stores[0], stores[1]), (stores[1], stores[0])] {
            let upload = first.begin(&key, 9 << 20, 1 << 20).await.unwrap();
            let mut parts = Vec::new();
            for (number, piece) in (0_u32..).zip(bytes.chunks(MIB)) {
                let store = if number == 1 { second } else { first };
                let body = PartBody::held([Buf::copy_of(piece)]);
                let offset = u64::from(number) << 20;
                parts.push(store.put_part(&key, &upload, number, offset, body).await.unwrap());
            }
            assert_eq!(second.parts(&key, &upload).await.unwrap(), Uploaded::Unlisted);
            let meta = second.complete(&key, &upload, 3 << 20, &parts).await.unwrap();
            assert_eq!(mounted.head(&key).await.unwrap(), Some(meta.clone()), "{options}");
            assert_eq!(download(&mounted, &key, &meta).await.unwrap(), bytes, "{options}");
            // What was changed past the server it remembers otherwise for a while; it forgets that when it is restarted.
            served.ganesha.restart();
            assert_eq!(network.head(&key).await.unwrap(), Some(meta.clone()), "{options}");
            assert_eq!(download(&network, &key, &meta).await.unwrap(), bytes, "{options}");
            first.put_note(&key, "journal").await.unwrap();
            assert_eq!(second.note(&key).await.unwrap().as_deref(), Some("journal"));
            network.delete(&key).await.unwrap();
            network.delete_note(&key).await.unwrap();
        }
    }
    assert!(served.everything().is_empty());
}
