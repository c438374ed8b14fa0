//! Notes beside objects.

use bytes::{Bytes, BytesMut};

use super::link::Link;
use super::session::{Handle, Session};
use super::tree::{self, Seat};
use super::trouble::Trouble;
use crate::nfs::names;
use crate::{Error, Kind, ObjectKey};

/// The longest note that is read, in bytes. A longer one is not ours.
const LONGEST: u64 = 4 << 20;

pub(super) async fn read(link: &Link, key: &ObjectKey) -> Result<Option<String>, Error> {
    let object = || object(link, key);
    let bytes = link.run("read", object, |session| load(session, key)).await?;
    let text = bytes.map(|bytes| String::from_utf8(bytes.into()));
    text.transpose()
        .map_err(|error| Error::new(Kind::Invalid, "read", object()).source(error))
}

async fn load(session: Session, key: &ObjectKey) -> Result<Option<BytesMut>, Trouble> {
    let Some(seat) = tree::find(&session, key).await? else {
        return Ok(None);
    };
    let Some(node) = session.find_any(&seat.folder, &names::note(seat.name)).await? else {
        return Ok(None);
    };
    let node = node.file()?;
    if node.meta.len > LONGEST {
        return Err(Trouble::Final(
            Kind::Invalid,
            "it is longer than any note of ours".to_owned(),
            None,
        ));
    }
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < node.meta.len {
        let left = u32::try_from(node.meta.len - bytes.len() as u64).unwrap_or(u32::MAX);
        let read = session
            .read(&node.handle, bytes.len() as u64, left.min(session.read_size))
            .await?;
        if read.is_empty() {
            break;
        }
        bytes.extend_from_slice(&read);
    }
    Ok(Some(bytes))
}

pub(super) async fn write(link: &Link, key: &ObjectKey, text: &str) -> Result<(), Error> {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    let store = |session| store(session, key, bytes.clone());
    link.run("write", || object(link, key), store).await
}

async fn store(session: Session, key: &ObjectKey, bytes: Bytes) -> Result<(), Trouble> {
    let fill = |seat: Seat<'_>| {
        let (session, bytes) = (session.clone(), bytes.clone());
        let (folder, name) = (seat.folder, names::note(seat.name));
        let new = names::new_note(seat.name);
        async move {
            let outcome = fill(&session, &folder, &new, &name, &bytes).await;
            if outcome.is_err() {
                // An abort removes what stays.
                let _ = session.remove(&folder, &new).await;
            }
            outcome
        }
    };
    tree::make(&session, key, fill).await
}

/// Writes the file `new` and gives it its name.
async fn fill(session: &Session, folder: &Handle, new: &str, name: &str, bytes: &Bytes) -> Result<(), Trouble> {
    let write = |file| async move {
        let mut receipts = Vec::new();
        let size = session.write_size as usize;
        for at in (0..bytes.len()).step_by(size) {
            let piece = bytes.slice(at..bytes.len().min(at + size));
            receipts.extend(session.write(&file, at as u64, piece).await?);
        }
        session.commit(&file, &receipts).await
    };
    session.create(folder, new, write).await?;
    session.rename(folder, new, name).await
}

pub(super) async fn delete(link: &Link, key: &ObjectKey) -> Result<(), Error> {
    let remove = |session: Session| async move {
        if let Some(seat) = tree::find(&session, key).await? {
            session.remove(&seat.folder, &names::note(seat.name)).await?;
        }
        tree::prune(&session, key).await
    };
    link.run("delete", || object(link, key), remove).await
}

fn object(link: &Link, key: &ObjectKey) -> String {
    format!("the note of {}", link.object(key))
}
