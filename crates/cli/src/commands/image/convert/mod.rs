//! `vmferry image convert`.
//!
//! ```text
//! source ── 16 reads ahead ──▶ zeros found ──┬──▶ hashing, in order
//!                                            └──▶ writes, as the destination takes them
//! ```
//!
//! Invariant: memory does not grow with the disk: buffers come out of one pool ([`read::pool`]).
//!
//! Invariant: a destination file has its name only when it is whole, and is gone where anything fails.

mod digest;
mod export;
mod file;
mod progress;
mod read;
mod target;
mod vmdk;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use tokio_util::sync::CancellationToken;
use vmferry_block::{AllocationMap, Digest};
use vmferry_image::{Image, ImageFormat};

use super::args::Convert;
use super::format::Format;
use super::open::{self, Opened};
use super::place::{Object, Place};
use super::{interrupted, nbd, store, unless};
use crate::exit::{Code, Failure};
use crate::output::{line, units};
use digest::{Digests, Feed, Hasher};
use progress::{Progress, rate};
use target::Target;

/// What is copied, and how.
pub struct Job {
    /// The disk.
    image: Arc<Image>,
    /// Which parts of it hold data.
    map: AllocationMap,
    /// Whether the SHA-256 of the written file is taken.
    sha256: bool,
}

/// A copy that was made.
struct Copied {
    /// Length of the written file, or of what was written of an export, in bytes.
    len: u64,
    digests: Digests,
}

/// Copies a disk, or leaves nothing where `stop` is cancelled.
pub async fn convert(args: &Convert, stop: &CancellationToken) -> Result<Code, Failure> {
    let (from, to) = (Place::parse(&args.source)?, Place::parse(&args.destination)?);
    let format = output_format(&to, args.output_format.as_deref())?;
    // What cannot be read is said before what cannot be written is made.
    let opened = unless(stop, open::open(&from, &args.input)).await?;
    let since = Instant::now();
    let map = async { opened.image.map().await.map_err(Failure::failed) };
    let job = Job {
        map: unless(stop, map).await?,
        image: Arc::clone(&opened.image),
        sha256: !args.no_sha256,
    };
    let copied = match &to {
        Place::File(path) => unless(stop, to_file(&job, path, format, args)).await?,
        Place::Nbd(_) => unless(stop, to_export(&job, &to, args.verify)).await?,
        Place::Store(object) => to_store(&job, object, format, args, stop).await?,
    };
    show(args, &opened, &to, format, &copied, &job, since.elapsed());
    Ok(Code::Success)
}

/// The format of the copy.
fn output_format(to: &Place, given: Option<&str>) -> Result<ImageFormat, Failure> {
    let format = match Format::of_place(to, given, "-O")? {
        Format::Native(format) => format,
        Format::Foreign(format) => {
            return Err(Failure::bad_input(format!(
                "{to}: {format} is not written; give -O raw, qcow2 or vmdk"
            )));
        }
    };
    if matches!(to, Place::Nbd(_)) && format != ImageFormat::Raw {
        return Err(Failure::bad_input(format!(
            "{to}: an NBD export gets the plain bytes of the disk, not {format}; its server gives them their format \
             (qemu-nbd -f {format})"
        )));
    }
    Ok(format)
}

async fn to_file(job: &Job, path: &Path, format: ImageFormat, args: &Convert) -> Result<Copied, Failure> {
    let target = Target::create(path, args.force).await?;
    let copied = match format {
        ImageFormat::Raw | ImageFormat::Qcow2 => file::copy(job, &target, format).await?,
        ImageFormat::Vmdk => vmdk::copy(job, &target).await?,
    };
    target.file.sync().await.map_err(|error| target.failure(&error))?;
    if args.verify {
        let copy = open::open_copy(target.hidden(), format).await?;
        verify(
            &Arc::new(copy),
            job,
            &copied.digests.content,
            &path.display().to_string(),
        )
        .await?;
    }
    target.name()?;
    Ok(copied)
}

async fn to_export(job: &Job, to: &Place, back: bool) -> Result<Copied, Failure> {
    let len = job.image.capacity();
    let target = export::Target::open(to, len).await?;
    let digests = target.copy(job).await?;
    if back && let Place::Nbd(export) = to {
        let name = to.to_string();
        let copy = nbd::image(nbd::connect(export).await?, &name).await?;
        verify(&Arc::new(copy), job, &digests.content, &name).await?;
    }
    Ok(Copied { len, digests })
}

async fn to_store(
    job: &Job,
    object: &Object,
    format: ImageFormat,
    args: &Convert,
    stop: &CancellationToken,
) -> Result<Copied, Failure> {
    let access = &args.input.access;
    let report = store::write(&job.image, object, format, access, stop).await;
    let report = match report {
        Err(failure) if stop.is_cancelled() => {
            // What could not be undone is told.
            let mut interrupted = interrupted();
            interrupted.messages.extend(failure.messages.into_iter().skip(1));
            return Err(interrupted);
        }
        report => report?,
    };
    if args.verify {
        let check = async {
            let copy = open::open_object(object, format, access).await?;
            verify(&copy, job, &report.content_digest, &object.url).await
        };
        if let Err(mut failure) = unless(stop, check).await {
            // What was not found to be right does not stay under its name.
            if let Err(left) = store::remove(object, access).await {
                failure.messages.extend(left.messages);
            }
            return Err(failure);
        }
    }
    Ok(Copied {
        len: report.len,
        digests: Digests {
            content: report.content_digest,
            file: Some(report.checksum),
        },
    })
}

/// Reads a copy and compares what it holds. A copy may be longer than the disk.
async fn verify(copy: &Arc<Image>, job: &Job, expected: &Digest, name: &str) -> Result<(), Failure> {
    let capacity = job.image.capacity();
    let found = content(copy, capacity, "verifying").await?;
    if found == *expected {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the copy {name} is not what was read: content digest {found} instead of {expected}; look for a failing disk or \
         server, and convert again"
    )))
}

/// The content digest of the first `capacity` bytes of a disk.
pub async fn content(image: &Arc<Image>, capacity: u64, what: &str) -> Result<Digest, Failure> {
    let map = image.map().await.map_err(Failure::failed)?;
    let hasher = Hasher::start(capacity, false)?;
    let progress = Progress::new(what, map.data_bytes());
    let chunks = read::chunks(Arc::clone(image), &map);
    let mut chunks = std::pin::pin!(chunks);
    while let Some(chunk) = chunks.try_next().await? {
        let (guest, buf) = (chunk.guest, chunk.buf);
        progress.add(buf.len() as u64);
        hasher.feed(Feed::Content { guest, buf }).await?;
    }
    Ok(hasher.finish().await?.content)
}

fn show(args: &Convert, from: &Opened, to: &Place, format: ImageFormat, copied: &Copied, job: &Job, time: Duration) {
    let data = job.map.data_bytes();
    let (content, sha256) = (copied.digests.content, copied.digests.file);
    if args.shown.as_json() {
        let value = serde_json::json!({
            "source": from.name,
            "sourceFormat": from.format.as_str(),
            "destination": to.to_string(),
            "format": format,
            "virtualSize": job.image.capacity(),
            "dataBytes": data,
            "writtenLength": copied.len,
            "seconds": (time.as_secs_f64() * 1000.0).round() / 1000.0,
            "bytesPerSecond": rate(data, time),
            "contentDigest": content,
            "sha256": sha256.map(|digest| digest.to_string().trim_start_matches("sha256:").to_owned()),
            "verified": args.verify,
        });
        return line(&value.to_string());
    }
    line(&format!(
        "{} of data in {:.1} s ({}); {format} of {} with {} of disk",
        units::size(data),
        time.as_secs_f64(),
        units::rate(rate(data, time)),
        units::size(copied.len),
        units::size(job.image.capacity()),
    ));
    line(&format!("content digest  {content}"));
    if let Some(digest) = sha256 {
        line(&format!("file            {digest}"));
    }
    if args.verify {
        line("verified        the copy was read back and holds the same");
    }
}
