//! The fake staging store. The engine only checks, discards and asks for addresses; bytes are the executor's.

use async_trait::async_trait;
use vmferry_block::Buf;
use vmferry_fault::Fault;
use vmferry_staging::{
    Error, Kind, ObjectKey, ObjectMeta, Part, PartBody, PartLimits, StagingStore, UploadId, Uploaded,
};

use super::world::{State, World, is_foreign};

pub(crate) struct Staging(pub World);

fn fault(permanent: bool) -> Error {
    Fault::new(
        if permanent { Kind::Denied } else { Kind::Unreachable },
        "use",
        "staging",
    )
    .detail("planned")
}

impl Staging {
    async fn change(
        &self,
        name: &'static str,
        key: &ObjectKey,
        act: impl FnOnce(&mut State, &str),
    ) -> Result<(), Error> {
        let change = |state: &mut State| {
            if is_foreign(key.as_str()) {
                state.violation(format!("{name} of foreign {key}"));
            }
            act(state, key.as_str());
            Ok(())
        };
        self.0.call(name, fault, change).await
    }
}

#[async_trait]
impl StagingStore for Staging {
    fn describe(&self) -> String {
        "fake staging".to_owned()
    }

    fn url(&self, key: &ObjectKey) -> String {
        format!("nfs:///staging/{key}")
    }

    fn limits(&self) -> PartLimits {
        PartLimits {
            min: 1,
            max: 1 << 30,
            count: 10_000,
            joined: 0,
            in_flight: 3,
        }
    }

    async fn check(&self, _: u64) -> Result<Vec<String>, Error> {
        let notes = || vec!["uploads are resumed part by part".to_owned()];
        self.0.call("staging.check", fault, |_| Ok(notes())).await
    }

    async fn abort(&self, key: &ObjectKey) -> Result<(), Error> {
        self.change("staging.abort", key, |state, key| drop(state.uploads.remove(key)))
            .await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        self.change("staging.delete", key, |state, key| drop(state.objects.remove(key)))
            .await
    }

    async fn delete_note(&self, key: &ObjectKey) -> Result<(), Error> {
        self.change("staging.delete_note", key, |state, key| drop(state.notes.remove(key)))
            .await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
        let meta = || ObjectMeta {
            len: 1,
            version: "1".to_owned(),
        };
        let head = |state: &mut State| Ok(state.objects.contains_key(key.as_str()).then(meta));
        self.0.call("staging.head", fault, head).await
    }

    async fn read(&self, _: &ObjectKey, _: &str, _: u64, _: Vec<Buf>) -> Result<Vec<Buf>, Error> {
        unreachable!("the engine moves no bytes")
    }

    async fn begin(&self, _: &ObjectKey, _: u64, _: u64) -> Result<UploadId, Error> {
        unreachable!("the engine moves no bytes")
    }

    async fn parts(&self, _: &ObjectKey, _: &UploadId) -> Result<Uploaded, Error> {
        unreachable!("the engine moves no bytes")
    }

    async fn put_part(&self, _: &ObjectKey, _: &UploadId, _: u32, _: u64, _: PartBody) -> Result<Part, Error> {
        unreachable!("the engine moves no bytes")
    }

    async fn complete(&self, _: &ObjectKey, _: &UploadId, _: u64, _: &[Part]) -> Result<ObjectMeta, Error> {
        unreachable!("the engine moves no bytes")
    }

    async fn note(&self, key: &ObjectKey) -> Result<Option<String>, Error> {
        let note = |state: &mut State| Ok(state.notes.get(key.as_str()).cloned());
        self.0.call("staging.note", fault, note).await
    }

    async fn put_note(&self, _: &ObjectKey, _: &str) -> Result<(), Error> {
        unreachable!("the note is the mover's")
    }
}
