//! One part on its way.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use futures::StreamExt as _;
use reqwest::Method;
use reqwest::header::HeaderMap;
use sha2::{Digest as _, Sha256};

use super::manner::{Manner, Proof};
use super::multipart::Multipart;
use super::object::{tag, text};
use super::refusal::Refusal;
use super::sign::Payload;
use super::wire::{Call, Wire};
use crate::web::{Tries, Trouble};
use crate::{Kind, PartBody};

/// The checksum of a part: CRC-64/NVME, big-endian, in base64.
const CHECKSUM: &str = "x-amz-checksum-crc64nvme";

/// Stores a part; gives its tag. One that is held is sent again where that can help, and in another manner where the server did not
/// take the first.
pub(super) async fn put(
    wire: &Wire,
    manner: &Manner,
    upload: &Multipart<'_>,
    number: u32,
    body: PartBody,
) -> Result<String, Refusal> {
    let number = (u64::from(number) + 1).to_string();
    let call = Call::new(Method::PUT, upload.name, "s3:PutObject")
        .query("partNumber", &number)
        .query("uploadId", upload.id);
    if body.again().is_none() {
        // It can be sent but once, and nothing is known of it before.
        return send(wire, call, body, None, Payload::Unsigned).await;
    }
    let mut proof = manner.first();
    if proof == Proof::Checksum && !upload.has_checksums {
        proof = Proof::Plain;
    }
    let (first, mut refused) = (proof, None);
    loop {
        match in_manner(wire, &call, &body, proof).await {
            Ok(tag) => {
                if proof != first {
                    manner.settle(proof);
                }
                return Ok(tag);
            }
            Err(refusal) if refusal.may_be_a_header() => {
                // What was said first is what counts if nothing else is taken, either.
                let refusal = refused.take().unwrap_or(refusal);
                let Some(next) = proof.next() else { return Err(refusal) };
                (proof, refused) = (next, Some(refusal));
            }
            Err(refusal) => return Err(refusal),
        }
    }
}

/// Sends a part that is held with this proof, until it is taken or refused.
async fn in_manner(wire: &Wire, call: &Call<'_>, body: &PartBody, proof: Proof) -> Result<String, Refusal> {
    let missing = || Refusal::from(Trouble::new(Kind::Bug, "a part that was held is gone"));
    let (sum, payload) = match proof {
        Proof::Checksum => (
            Some(checksum(body.again().ok_or_else(missing)?).await),
            Payload::Unsigned,
        ),
        Proof::Plain => (None, Payload::Unsigned),
        Proof::Signed => (None, Payload::Digest(sha256(body.again().ok_or_else(missing)?).await)),
    };
    let mut tries = Tries::new();
    loop {
        let again = body.again().ok_or_else(missing)?;
        match send(wire, call.clone(), again, sum.as_deref(), payload).await {
            Ok(tag) => return Ok(tag),
            Err(refusal) => call.failed(&mut tries, refusal).await?,
        }
    }
}

async fn send(
    wire: &Wire,
    mut call: Call<'_>,
    body: PartBody,
    sum: Option<&str>,
    payload: Payload,
) -> Result<String, Refusal> {
    if let Some(sum) = sum {
        call = call.header(CHECKSUM, sum);
    }
    let answer = wire.put(&call, body, payload).await?;
    let headers = answer.headers().clone();
    // Read to its end, so that the connection serves the next part.
    let _ = answer.text(1024).await;
    compare(&headers, sum)?;
    tag(&headers).ok_or_else(|| {
        Trouble::new(Kind::Unfit, "the server took a part and gave no ETag for it")
            .remedy("check that spec.storage.endpoint is an S3 server")
            .into()
    })
}

/// A server that says what checksum it found is taken at its word.
fn compare(headers: &HeaderMap, sum: Option<&str>) -> Result<(), Refusal> {
    match (text(headers, CHECKSUM), sum) {
        (Some(theirs), Some(ours)) if theirs != ours => {
            Err(Trouble::new(Kind::Failed, "the part arrived with another checksum").into())
        }
        _ => Ok(()),
    }
}

async fn checksum(body: PartBody) -> String {
    let mut crc = Crc::new(CrcAlgorithm::Crc64Nvme);
    let mut pieces = body.into_stream();
    while let Some(piece) = pieces.next().await {
        for block in piece.chunks(BLOCK) {
            crc.update(block);
            tokio::task::consume_budget().await;
        }
    }
    BASE64_STANDARD.encode(crc.finalize().to_be_bytes())
}

async fn sha256(body: PartBody) -> [u8; 32] {
    let mut sha = Sha256::new();
    let mut pieces = body.into_stream();
    while let Some(piece) = pieces.next().await {
        for block in piece.chunks(BLOCK) {
            sha.update(block);
            tokio::task::yield_now().await;
        }
    }
    sha.finalize().into()
}

/// What is hashed in one go: a fraction of a millisecond.
const BLOCK: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use vmferry_block::Buf;

    use super::*;

    #[tokio::test]
    async fn the_checksum_is_the_one_that_aws_computes() {
        // The check value of CRC-64/NVME in the catalogue of CRC algorithms: 0xae8b14860a799888.
        let body = || PartBody::held([Buf::copy_of(b"1234"), Buf::copy_of(b"56789")]);
        assert_eq!(
            checksum(body()).await,
            BASE64_STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes())
        );
        assert_eq!(sha256(body()).await[..4], [0x15, 0xe2, 0xb0, 0xd3]);
    }
}
