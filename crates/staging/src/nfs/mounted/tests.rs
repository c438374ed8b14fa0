use std::collections::VecDeque;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::conformance::{self, Subject};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> MountedPath {
        MountedPath::new(self.0.path()).unwrap()
    }

    fn everything(&self) -> Vec<String> {
        let mut queue = VecDeque::from([self.0.path().to_owned()]);
        let mut found = Vec::new();
        while let Some(folder) = queue.pop_front() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                found.push(entry.path().strip_prefix(self.0.path()).unwrap().display().to_string());
                if entry.file_type().unwrap().is_dir() {
                    queue.push_back(entry.path());
                }
            }
        }
        found
    }
}

#[async_trait]
impl Subject for Folder {
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

async fn upload(store: &MountedPath, key: &ObjectKey, bytes: &[u8]) -> Result<ObjectMeta, Error> {
    let upload = store.begin(key, bytes.len() as u64, 1 << 20).await?;
    let part = store
        .put_part(key, &upload, 0, 0, PartBody::held([Buf::copy_of(bytes)]))
        .await?;
    store.complete(key, &upload, bytes.len() as u64, &[part]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conformance::run(&Folder::new()).await.unwrap();
}

/// The same on a file system without direct I/O, or at least on another one.
#[tokio::test]
async fn conforms_on_shared_memory() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    conformance::run(&Folder(folder)).await.unwrap();
}

#[tokio::test]
async fn a_path_that_is_no_folder_is_refused() {
    assert_eq!(MountedPath::new("mnt/staging").unwrap_err().kind(), Kind::Invalid);
    let folder = Folder::new();
    let file = folder.0.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file, folder.0.path().join("missing")] {
        let error = MountedPath::new(&path).unwrap().check(0).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn too_little_room_is_said_with_both_figures() {
    let folder = Folder::new();
    folder.store().check(1).await.unwrap();
    let error = folder.store().check(1 << 60).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace);
    assert!(
        error.to_string().contains("1152921504606846976 bytes are needed and "),
        "{error}"
    );
    assert!(folder.everything().is_empty());
}

#[tokio::test]
async fn what_is_made_is_private() {
    let folder = Folder::new();
    let key = key("ns/migration/disk-0.raw");
    upload(&folder.store(), &key, b"secret").await.unwrap();
    folder.store().put_note(&key, "note").await.unwrap();
    for name in folder.everything() {
        let mode = std::fs::metadata(folder.0.path().join(&name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
}

#[tokio::test]
async fn links_lead_nowhere() {
    let (folder, outside) = (Folder::new(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("disk"), "theirs").unwrap();
    let store = folder.store();
    symlink(outside.path(), folder.0.path().join("linked")).unwrap();
    symlink(outside.path().join("disk"), folder.0.path().join("disk")).unwrap();
    for key in [key("linked/disk"), key("disk")] {
        let error = store.head(&key).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(store.read_one(&key, "v", 0, Buf::alone(1)).await.is_err());
        assert!(upload(&store, &key, b"ours").await.is_err());
        store.abort(&key).await.unwrap_or_default();
    }
    assert!(store.put_note(&key("linked/disk"), "note").await.is_err());
    assert!(store.delete(&key("linked/disk")).await.is_err());
    assert_eq!(std::fs::read(outside.path().join("disk")).unwrap(), b"theirs");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(folder.everything().len(), 2);
}

#[tokio::test]
async fn a_crash_between_link_and_unlink_is_completed() {
    let folder = Folder::new();
    let (store, key) = (folder.store(), key("a/disk"));
    let upload = store.begin(&key, 3, 1 << 20).await.unwrap();
    let part = store
        .put_part(&key, &upload, 0, 0, PartBody::held([Buf::copy_of(b"abc")]))
        .await
        .unwrap();
    let hidden = folder.0.path().join(format!("a/.disk.{}.part", upload.0));
    std::fs::hard_link(&hidden, folder.0.path().join("a/disk")).unwrap();
    let meta = store.complete(&key, &upload, 3, &[part]).await.unwrap();
    assert_eq!(store.head(&key).await.unwrap(), Some(meta));
    assert!(!Path::new(&hidden).exists());
}

#[tokio::test]
async fn without_a_rename_that_spares_others_a_link_does_it() {
    let folder = Folder::new();
    let (tree, key) = (Tree::new(folder.0.path().to_owned()), key("disk"));
    let seat = tree.find("test", &key).unwrap().unwrap();
    std::fs::write(folder.0.path().join("from"), "ours").unwrap();
    seat.link_new("from", "disk").unwrap();
    assert_eq!(folder.everything(), ["disk"]);
    std::fs::write(folder.0.path().join("from"), "other").unwrap();
    assert_eq!(seat.link_new("from", "disk"), Err(rustix::io::Errno::EXIST));
    assert_eq!(std::fs::read(folder.0.path().join("disk")).unwrap(), b"ours");
}

#[tokio::test]
async fn a_file_that_was_cut_short_does_not_become_an_object() {
    let folder = Folder::new();
    let (store, key) = (folder.store(), key("disk"));
    let upload = store.begin(&key, 3, 1 << 20).await.unwrap();
    let part = store
        .put_part(&key, &upload, 0, 0, PartBody::held([Buf::copy_of(b"abc")]))
        .await
        .unwrap();
    std::fs::write(folder.0.path().join(format!(".disk.{}.part", upload.0)), "a").unwrap();
    assert_eq!(
        store.complete(&key, &upload, 3, &[part]).await.unwrap_err().kind(),
        Kind::UploadGone
    );
    assert_eq!(store.head(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_change_under_a_reader_is_noticed() {
    let folder = Folder::new();
    let (store, key) = (folder.store(), key("disk"));
    let meta = upload(&store, &key, &[1; 8192]).await.unwrap();
    store.read_one(&key, &meta.version, 0, Buf::alone(4096)).await.unwrap();
    std::fs::write(folder.0.path().join("disk"), [2; 8192]).unwrap();
    let error = store
        .read_one(&key, &meta.version, 0, Buf::alone(4096))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Changed, "{error}");
}

#[tokio::test]
async fn folders_that_others_use_stay() {
    let folder = Folder::new();
    let (store, first, second) = (folder.store(), key("ns/m/disk-0"), key("ns/m/disk-1"));
    upload(&store, &first, b"one").await.unwrap();
    upload(&store, &second, b"two").await.unwrap();
    store.delete(&first).await.unwrap();
    assert_eq!(folder.everything(), ["ns", "ns/m", "ns/m/disk-1"]);
    store.delete(&second).await.unwrap();
    assert!(folder.everything().is_empty());
    assert!(folder.0.path().exists());
}
