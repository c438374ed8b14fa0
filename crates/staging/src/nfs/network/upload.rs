//! Uploads: a hidden file that gets its name when it is whole.

use rustix::io::Errno;

use super::link::{Call, Link};
use super::part::Writing;
use super::session::{Node, Session};
use super::tree::{self, Seat};
use super::trouble::Trouble;
use crate::nfs::names::{self, Upload};
use crate::{Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, UploadId, Uploaded};

pub(super) async fn begin(link: &Link, key: &ObjectKey, most: u64, part_size: u64) -> Result<UploadId, Error> {
    let object = || link.object(key);
    let upload = Upload::new(most, part_size, object)?;
    link.run("upload", object, |session| make(session, key, upload)).await?;
    Ok(UploadId(upload.to_string()))
}

/// Makes the file of an upload.
async fn make(session: Session, key: &ObjectKey, upload: Upload) -> Result<(), Trouble> {
    let work = |seat: Seat<'_>| {
        let (session, hidden) = (&session, upload.file_name(seat.name));
        async move {
            // The length is there from the start, as with a mounted path.
            let resize = |file| async move { session.resize(&file, upload.most).await };
            session.create(&seat.folder, &hidden, resize).await
        }
    };
    tree::make(&session, key, work).await
}

pub(super) async fn parts(link: &Link, key: &ObjectKey, id: &UploadId) -> Result<Uploaded, Error> {
    let Some(upload) = Upload::parse(&id.0) else {
        return Ok(Uploaded::Gone);
    };
    let look = |session: Session| async move { Ok(find(&session, key, upload).await?.map(|(_, node)| node.meta.len)) };
    match link.run("look up", || link.object(key), look).await? {
        // Cut to its length, it waits for its name: completing it once more does that.
        Some(len) if len <= upload.most => Ok(Uploaded::Unlisted),
        _ => Ok(Uploaded::Gone),
    }
}

/// The file of an upload and where it is.
async fn find<'key>(
    session: &Session,
    key: &'key ObjectKey,
    upload: Upload,
) -> Result<Option<(Seat<'key>, Node)>, Trouble> {
    let Some(seat) = tree::find(session, key).await? else {
        return Ok(None);
    };
    let node = session.find_any(&seat.folder, &upload.file_name(seat.name)).await?;
    Ok(node.map(Node::file).transpose()?.map(|node| (seat, node)))
}

pub(super) async fn put_part(
    link: &Link,
    key: &ObjectKey,
    id: &UploadId,
    number: u32,
    offset: u64,
    body: PartBody,
) -> Result<Part, Error> {
    let object = || link.object(key);
    let upload = Upload::of(id, object)?;
    let len = body.len();
    upload.check_part(number, offset, len, object)?;
    let name = || format!("part {number} of {}", object());
    let mut writing = Writing::new(offset, body, link.target.lull);
    let mut call = link.call();
    loop {
        let answered = writing.answered();
        let outcome = write(&mut call, key, upload, &mut writing).await;
        if writing.answered() > answered {
            call.progressed();
        }
        let Err(trouble) = outcome else { break };
        let trouble = if trouble.is(Errno::NOENT) {
            upload.gone(object).into()
        } else {
            trouble
        };
        call.survive(trouble)
            .await
            .map_err(|trouble| trouble.fault("upload", name()))?;
    }
    let came = writing.end() - offset;
    if came != len {
        return Err(Error::new(Kind::Failed, "upload", name()).detail(format!("{came} of {len} bytes came")));
    }
    Ok(Part {
        number,
        tag: String::new(),
    })
}

async fn write(call: &mut Call<'_>, key: &ObjectKey, upload: Upload, writing: &mut Writing) -> Result<(), Trouble> {
    let session = call.session().await?;
    let gone = || Trouble::answer(Errno::NOENT, "its folder is gone");
    let seat = tree::find(&session, key).await?.ok_or_else(gone)?;
    let session = &session;
    let write = |file| async move {
        while writing.advance(session, &file).await? {
            call.committed();
        }
        Ok(())
    };
    session
        .write_to(&seat.folder, &upload.file_name(seat.name), write)
        .await
}

/// Completes an upload in three steps, each of which may be done again without harm: where an answer is lost, it is.
pub(super) async fn complete(
    link: &Link,
    key: &ObjectKey,
    id: &UploadId,
    len: u64,
    numbers: Vec<u32>,
) -> Result<ObjectMeta, Error> {
    let object = || link.object(key);
    let upload = Upload::of(id, object)?;
    upload.check_whole(len, numbers, object)?;

    let cut = link.run("complete", object, |session| cut(session, key, upload, len));
    let file = cut.await?.ok_or_else(|| upload.gone(object))?;

    let name = |session| give_name(session, key, upload, &file);
    if !link.run("complete", object, name).await? {
        return Err(upload.gone(object));
    }

    let forget = |session: Session| async move {
        let Some(seat) = tree::find(&session, key).await? else {
            return Ok(());
        };
        session.remove(&seat.folder, &upload.file_name(seat.name)).await
    };
    link.run("complete", object, forget).await?;
    Ok(file.meta)
}

/// Cuts the file to its length; `None` where it is not there or too short.
async fn cut(session: Session, key: &ObjectKey, upload: Upload, len: u64) -> Result<Option<Node>, Trouble> {
    let Some((_, file)) = find(&session, key, upload).await? else {
        return Ok(None);
    };
    if file.meta.len < len {
        return Ok(None);
    }
    if file.meta.len > len {
        session.resize(&file.handle, len).await?;
    }
    session.flush(&file.handle).await?;
    let file = session.look(&file.handle).await?.file()?;
    Ok((file.meta.len == len).then_some(file))
}

/// Gives the file the object's name, if nothing has it: NFS renames over what is there, but links never do. Says whether the
/// file was still there.
async fn give_name(session: Session, key: &ObjectKey, upload: Upload, file: &Node) -> Result<bool, Trouble> {
    let Some(seat) = tree::find(&session, key).await? else {
        return Ok(false);
    };
    let trouble = match session.link(&file.handle, &seat.folder, seat.name).await {
        Ok(()) => return Ok(true),
        Err(trouble) => trouble,
    };
    if trouble.is(Errno::EXIST) {
        // The name may be the one that an attempt before gave, and a crash kept from removing the hidden one.
        let there = session.find(&seat.folder, seat.name).await?;
        return if there.id == file.id && there.meta == file.meta {
            Ok(true)
        } else {
            Err(trouble)
        };
    }
    if !trouble.is(Errno::OPNOTSUPP) {
        return Err(trouble);
    }
    // A server without links. Somebody who completes the same object in this very moment is not noticed.
    let hidden = upload.file_name(seat.name);
    match session.find_any(&seat.folder, seat.name).await? {
        Some(there) if there.id == file.id => return Ok(true),
        Some(_) => return Err(Trouble::answer(Errno::EXIST, "an object of that name exists")),
        None => {}
    }
    session.rename(&seat.folder, &hidden, seat.name).await?;
    Ok(true)
}

/// Removes every upload and every half-written note of a key.
pub(super) async fn abort(link: &Link, key: &ObjectKey) -> Result<(), Error> {
    let sweep = |session: Session| async move {
        if let Some(seat) = tree::find(&session, key).await? {
            let partial = |file: &str| names::is_partial(file, seat.name);
            for name in session.names(&seat.folder, partial).await? {
                session.remove(&seat.folder, &name).await?;
            }
        }
        tree::prune(&session, key).await
    };
    link.run("abort", || format!("uploads of {}", link.object(key)), sweep)
        .await
}
