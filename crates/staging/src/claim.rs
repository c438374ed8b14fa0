//! Whose a staged object is, and its removal where it is ours.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{Error, ObjectKey, StagingStore};

/// What the note beside an object must say of it, whatever else stands there: whose it is, and whether it was ever whole. An
/// object beside a note that was not sealed came from elsewhere.
#[derive(Debug, Deserialize)]
struct Claim {
    owner: String,
    #[serde(default)]
    sealed: Option<IgnoredAny>,
}

/// What became of a staged object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// Nothing of it is left.
    All,
    /// Something of that name is there that does not carry the owner, and was left alone.
    NotOurs,
}

/// Removes what `owner` staged under a key: uploads, the object, the note, in this order, so that a removal that is broken off
/// is known as ours until its end. An object is removed where its note says that it is the owner's, or where there is none and
/// `recorded` says that the owner made it; a note that is another's vouches for all that is there.
pub async fn discard(
    store: &dyn StagingStore,
    key: &ObjectKey,
    owner: &str,
    recorded: bool,
) -> Result<Discarded, Error> {
    let note = store.note(key).await?;
    let claim = note.as_deref().map(serde_json::from_str::<Claim>);
    let sealed = match claim {
        Some(Ok(claim)) if claim.owner == owner => claim.sealed.is_some(),
        Some(_) => return Ok(not_ours(store, key)),
        None => recorded,
    };
    store.abort(key).await?;
    let outcome = if sealed {
        store.delete(key).await?;
        Discarded::All
    } else if store.head(key).await?.is_some() {
        not_ours(store, key)
    } else {
        Discarded::All
    };
    store.delete_note(key).await?;
    Ok(outcome)
}

fn not_ours(store: &dyn StagingStore, key: &ObjectKey) -> Discarded {
    tracing::warn!(object = %store.url(key), "it does not carry this migration's UID, so it is left where it is");
    Discarded::NotOurs
}
