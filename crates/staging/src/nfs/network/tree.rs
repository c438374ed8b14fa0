//! The folder tree below the staging path, walked by handles, without following links.

use bytes::Bytes;
use rustix::io::Errno;

use super::session::{Handle, Session};
use super::trouble::Trouble;
use crate::{Kind, ObjectKey};

/// How often a folder is made again that another process, which found it empty, removed meanwhile.
const RACES: usize = 8;

/// Where an object is, or would be: a folder and a name in it.
#[derive(Debug, Clone)]
pub(super) struct Seat<'key> {
    pub(super) folder: Handle,
    pub(super) name: &'key str,
}

/// The folder of an object; `None` where it does not exist.
pub(super) async fn find<'key>(session: &Session, key: &'key ObjectKey) -> Result<Option<Seat<'key>>, Trouble> {
    let (folders, name) = split(key);
    let mut folder = session.root().await?;
    for segment in folders {
        folder = match session.find_any(&folder, segment).await? {
            Some(next) => next.folder()?.handle,
            None => return Ok(None),
        };
    }
    Ok(Some(Seat { folder, name }))
}

/// Does `work` in the folder of an object, which is made if need be.
pub(super) async fn make<'key, T, F: Future<Output = Result<T, Trouble>>>(
    session: &Session,
    key: &'key ObjectKey,
    work: impl Fn(Seat<'key>) -> F,
) -> Result<T, Trouble> {
    let mut races = 0;
    loop {
        let outcome = match make_folders(session, key).await {
            Ok(seat) => work(seat).await,
            Err(trouble) => Err(trouble),
        };
        match outcome {
            // A folder that is gone is a handle that is stale.
            Err(trouble) if races < RACES && (trouble.is(Errno::NOENT) || trouble.is(Errno::STALE)) => races += 1,
            outcome => return outcome,
        }
    }
}

async fn make_folders<'key>(session: &Session, key: &'key ObjectKey) -> Result<Seat<'key>, Trouble> {
    let (folders, name) = split(key);
    let mut folder = session.root().await?;
    for segment in folders {
        let found = if let Some(found) = session.find_any(&folder, segment).await? {
            found
        } else {
            session.make_folder(&folder, segment).await?;
            session.find(&folder, segment).await?
        };
        folder = found.folder()?.handle;
    }
    Ok(Seat { folder, name })
}

/// Removes the folders of an object that are empty, from the innermost, never the staging path itself.
pub(super) async fn prune(session: &Session, key: &ObjectKey) -> Result<(), Trouble> {
    let mut at = key.as_str();
    while let Some((parent, _)) = at.rsplit_once('/') {
        let Ok(folder) = parent.parse::<ObjectKey>() else { break };
        if let Some(seat) = find(session, &folder).await?
            && !session.remove_folder(&seat.folder, seat.name).await?
        {
            break;
        }
        at = parent;
    }
    Ok(())
}

/// Whether the path is a folder that can be written and has room for `need` bytes.
pub(super) async fn check(session: &Session, need: u64, probe: &str) -> Result<(), Trouble> {
    let root = session.root().await?;
    session.look(&root).await?.folder()?;
    let write = |file| async move {
        let receipts = session.write(&file, 0, Bytes::from_static(b"vmferry")).await?;
        session.commit(&file, &receipts).await
    };
    let wrote = session.create(&root, probe, write).await;
    if wrote.is_ok() {
        session.remove(&root, probe).await?;
    } else {
        // What failed says more than that it could not be removed.
        let _ = session.remove(&root, probe).await;
    }
    wrote?;
    let free = session.free().await?;
    if free < need {
        return Err(Trouble::Final(
            Kind::NoSpace,
            format!("{need} bytes are needed and {free} bytes are free"),
            Some("free some space there or use another staging path"),
        ));
    }
    Ok(())
}

fn split(key: &ObjectKey) -> (impl Iterator<Item = &str>, &str) {
    let (folders, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
    (folders.split('/').filter(|segment| !segment.is_empty()), name)
}
