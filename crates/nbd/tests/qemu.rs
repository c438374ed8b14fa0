//! Against the real server, `qemu-nbd`.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::path::Path;
use std::process::Command;

use futures::future::join_all;
use support::Server;
use tempfile::TempDir;
use vmferry_block::{Buf, Extent, Pool};
use vmferry_nbd::{Client, Error};

const MIB: u64 = 1 << 20;

fn pattern(at: u64) -> u8 {
    (at / 512 % 251) as u8 + 1
}

/// A raw file of 6 GiB with data at the front, over the border of two windows, and at the very end.
fn sparse_raw(path: &Path) -> [Extent; 3] {
    use std::os::unix::fs::FileExt;
    let extents = [
        (0, MIB),
        (2048 * MIB - MIB, 2 * MIB),
        (6144 * MIB - 64 * 1024, 64 * 1024),
    ];
    let file = std::fs::File::create(path).unwrap();
    file.set_len(6144 * MIB).unwrap();
    for (start, len) in extents {
        let bytes: Vec<u8> = (start..start + len).map(pattern).collect();
        file.write_all_at(&bytes, start).unwrap();
    }
    extents.map(|(start, len)| Extent { start, len })
}

async fn check_content(client: &Client, extents: &[Extent]) {
    assert_eq!(client.size(), 6144 * MIB);
    let map = client.allocation().await.unwrap();
    for extent in extents {
        let covered = |found: &&Extent| found.start <= extent.start && extent.end() <= found.end();
        assert!(
            map.extents().iter().any(|found| covered(&found)),
            "{extent:?} is missing in {map:?}"
        );
    }
    assert!(map.data_bytes() < 16 * MIB, "{map:?}");
    // Many at once, over data and holes, in buffers that hold what was there before.
    let pool = Pool::new(256 * 1024, 24);
    let reads = (0..24u64).map(|at| {
        let (offset, pool) = (2048 * MIB - 3 * MIB + at * 256 * 1024, &pool);
        async move {
            let mut buf = pool.take(256 * 1024).await;
            buf.fill(0xee);
            (offset, client.read(offset, buf).await.unwrap())
        }
    });
    for (offset, buf) in join_all(reads).await {
        for (at, byte) in buf.iter().enumerate() {
            let at = offset + at as u64;
            let data = extents.iter().any(|extent| extent.start <= at && at < extent.end());
            assert_eq!(*byte, if data { pattern(at) } else { 0 }, "at {at}");
        }
    }
}

#[tokio::test]
async fn reads_a_sparse_raw_disk() {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("disk.raw");
    let extents = sparse_raw(&image);
    let server = Server::start(folder, "raw", &image, &["--read-only"]).await;
    let client = server.open("disk").await.unwrap();
    check_content(&client, &extents).await;
    client.disconnect().await;
}

#[tokio::test]
async fn reads_a_sparse_qcow2_disk() {
    let folder = TempDir::new().unwrap();
    let (raw, image) = (folder.path().join("disk.raw"), folder.path().join("disk.qcow2"));
    let extents = sparse_raw(&raw);
    let status = Command::new("qemu-img")
        .args(["convert", "-O", "qcow2"])
        .arg(&raw)
        .arg(&image)
        .status();
    assert!(status.unwrap().success());
    let server = Server::start(folder, "qcow2", &image, &["--read-only"]).await;
    let client = server.open("disk").await.unwrap();
    check_content(&client, &extents).await;
    client.disconnect().await;
}

#[tokio::test]
async fn reads_what_no_single_request_can() {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("disk.raw");
    let bytes: Vec<u8> = (0..40 * MIB).map(pattern).collect();
    std::fs::write(&image, &bytes).unwrap();
    let server = Server::start(folder, "raw", &image, &["--read-only"]).await;
    let client = server.open("disk").await.unwrap();
    let whole = client.read(0, Buf::alone(bytes.len())).await.unwrap();
    assert!(whole[..] == bytes[..]);
    let odd = client.read(513, Buf::alone(1027)).await.unwrap();
    assert_eq!(odd[..], bytes[513..513 + 1027]);
    let outside = client.read(40 * MIB - 1, Buf::alone(2)).await.unwrap_err();
    assert!(matches!(outside, Error::OutOfRange { .. }), "{outside}");
    assert_eq!(client.read(0, Buf::alone(1)).await.unwrap()[0], 1);
}

#[tokio::test]
async fn a_missing_export_is_named() {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, vec![1; 4096]).unwrap();
    let server = Server::start(folder, "raw", &image, &["--read-only"]).await;
    let error = server.open("other").await.err().unwrap();
    assert!(
        matches!(&error, Error::NoExport { name, .. } if name == "other"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_dies_fails_what_is_under_way_and_what_comes_after() {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, vec![1; 1 << 20]).unwrap();
    let mut server = Server::start(folder, "raw", &image, &["--read-only"]).await;
    let client = server.open("disk").await.unwrap();
    client.read(0, Buf::alone(4096)).await.unwrap();
    server.kill();
    for _ in 0..3 {
        let error = client.read(0, Buf::alone(4096)).await.unwrap_err();
        assert!(matches!(error, Error::Closed | Error::Io(_)), "{error}");
    }
}
