mod faults;
mod folder;
mod given;
mod seaweedfs;
mod segments;

use std::sync::Arc;

use async_trait::async_trait;

use super::*;
use crate::conformance::{self, Subject};
use crate::{HostPolicy, Kind};

/// Settings for a server of the tests.
fn settings(endpoint: &str, bucket: &str, (access_key, secret_key): (&str, &str)) -> Settings {
    Settings {
        bucket: bucket.to_owned(),
        region: None,
        endpoint: Some(endpoint.to_owned()),
        access_key: access_key.to_owned(),
        secret_key: secret_key.to_owned().into(),
        session_token: None,
        ca: None,
        hosts: HostPolicy::default(),
        silence: Some(Duration::from_secs(20)),
    }
}

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

/// An object of this many bytes in parts of 5 MiB.
async fn put(store: &dyn StagingStore, key: &ObjectKey, bytes: &[u8]) -> Result<ObjectMeta, Error> {
    let upload = store.begin(key, bytes.len() as u64, 5 << 20).await?;
    let mut parts = Vec::new();
    for (number, part) in (0..).zip(bytes.chunks(5 << 20)) {
        let body = PartBody::held([Buf::copy_of(part)]);
        parts.push(
            store
                .put_part(key, &upload, number, u64::from(number) * (5 << 20), body)
                .await?,
        );
    }
    store.complete(key, &upload, bytes.len() as u64, &parts).await
}
