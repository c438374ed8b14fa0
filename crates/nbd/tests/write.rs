//! Writing, against the real server, `qemu-nbd`.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use futures::future::join_all;
use support::Server;
use tempfile::TempDir;
use vmferry_block::{Buf, Pool};
use vmferry_nbd::{Client, Error, Zeroing};

const MIB: u64 = 1 << 20;

/// A raw file of `size` bytes with this byte everywhere, and a server for it.
async fn raw(size: u64, fill: u8, more: &[&str]) -> (Server, PathBuf) {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, vec![fill; size as usize]).unwrap();
    let server = Server::start(folder, "raw", &image, more).await;
    (server, image)
}

fn bytes_at(image: &Path, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    File::open(image).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

#[tokio::test]
async fn many_writes_at_once_arrive_where_they_belong() {
    let (server, image) = raw(64 * MIB, 0, &["--discard=unmap"]).await;
    let client = server.open("disk").await.unwrap();
    assert!(!client.is_read_only() && client.can_zero());
    let pool = Pool::new(MIB as usize, 16);
    let writes = (0..64u64).map(|at| {
        let (client, pool) = (&client, &pool);
        async move {
            let mut buf = pool.take(MIB as usize).await;
            buf.fill(at as u8 + 1);
            client.write(at * MIB, buf).await.unwrap();
        }
    });
    join_all(writes).await;
    client.flush().await.unwrap();
    for at in 0..64 {
        assert!(
            bytes_at(&image, at * MIB, MIB as usize)
                .iter()
                .all(|byte| u64::from(*byte) == at + 1)
        );
    }
    let back = client.read(5 * MIB, Buf::alone(MIB as usize)).await.unwrap();
    assert!(back.iter().all(|byte| *byte == 6));
    client.disconnect().await;
}

#[tokio::test]
async fn a_write_that_is_longer_than_the_server_takes_is_cut() {
    let (server, image) = raw(80 * MIB, 0, &[]).await;
    let client = server.open("disk").await.unwrap();
    assert!(u64::from(client.blocks().max) < 72 * MIB);
    let mut long = Buf::alone((72 * MIB) as usize);
    for (at, byte) in long.iter_mut().enumerate() {
        *byte = (at / 4096 % 251) as u8;
    }
    let long = std::sync::Arc::new(long);
    client
        .write_durably(4 * MIB, std::sync::Arc::clone(&long))
        .await
        .unwrap();
    assert!(bytes_at(&image, 4 * MIB, long.len()) == long[..]);
    assert!(bytes_at(&image, 76 * MIB, 4 << 20).iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn zeros_are_written_without_being_sent() {
    let (server, image) = raw(16 * MIB, 0xaa, &["--discard=unmap"]).await;
    let client = server.open("disk").await.unwrap();
    let taken = || std::fs::metadata(&image).unwrap().blocks() * 512;
    assert!(taken() >= 16 * MIB);
    client.write_zeroes(4 * MIB, 8 * MIB, Zeroing::default()).await.unwrap();
    client.flush().await.unwrap();
    assert!(taken() <= 9 * MIB, "{}", taken());
    assert!(bytes_at(&image, 4 * MIB, 8 << 20).iter().all(|byte| *byte == 0));
    assert!(bytes_at(&image, 12 * MIB, 4 << 20).iter().all(|byte| *byte == 0xaa));

    let kept = Zeroing {
        keep_space: true,
        only_fast: false,
    };
    client.write_zeroes(0, 4 * MIB, kept).await.unwrap();
    client.write_zeroes(4 * MIB, 8 * MIB, kept).await.unwrap();
    client.flush().await.unwrap();
    assert!(taken() >= 16 * MIB, "{}", taken());
    assert!(bytes_at(&image, 0, 12 << 20).iter().all(|byte| *byte == 0));
    if client.can_zero_fast() {
        let fast = Zeroing {
            keep_space: false,
            only_fast: true,
        };
        match client.write_zeroes(12 * MIB, MIB, fast).await {
            Ok(()) => assert!(bytes_at(&image, 12 * MIB, 1 << 20).iter().all(|byte| *byte == 0)),
            Err(Error::NoZeroes) => assert!(bytes_at(&image, 12 * MIB, 1 << 20).iter().all(|byte| *byte == 0xaa)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn zeros_over_many_gib_are_a_few_requests() {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("disk.raw");
    let file = File::create(&image).unwrap();
    file.set_len(40 << 30).unwrap();
    file.write_all_at(&[1; 4096], 39 << 30).unwrap();
    let server = Server::start(folder, "raw", &image, &["--discard=unmap"]).await;
    let client = server.open("disk").await.unwrap();
    client.write_zeroes(0, 40 << 30, Zeroing::default()).await.unwrap();
    assert!(bytes_at(&image, 39 << 30, 4096).iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_read_only_export_is_refused_before_anything_is_sent() {
    let (server, image) = raw(MIB, 7, &["--read-only"]).await;
    let client = server.open("disk").await.unwrap();
    assert!(client.is_read_only());
    let write = client.write(0, Buf::alone(4096)).await.unwrap_err();
    let zeros = client.write_zeroes(0, 4096, Zeroing::default()).await.unwrap_err();
    assert!(
        matches!((&write, &zeros), (Error::ReadOnly, Error::ReadOnly)),
        "{write} {zeros}"
    );
    assert!(bytes_at(&image, 0, 4096).iter().all(|byte| *byte == 7));
    assert_eq!(client.read(0, Buf::alone(1)).await.unwrap()[0], 7);
}

#[tokio::test]
async fn what_lies_outside_is_refused() {
    let (server, _) = raw(MIB, 7, &[]).await;
    let client = server.open("disk").await.unwrap();
    let outside = client.write(MIB - 512, Buf::alone(1024)).await.unwrap_err();
    assert!(matches!(outside, Error::OutOfRange { .. }), "{outside}");
}

/// A server of 1 MiB with blkdebug between it and its file.
async fn debugged(options: &str) -> (Server, Client, PathBuf) {
    let folder = TempDir::new().unwrap();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, vec![7; 1 << 20]).unwrap();
    let options = format!(
        "driver=blkdebug,{options},image.driver=file,image.filename={}",
        image.display()
    );
    let server = Server::launch(folder, &["--image-opts", &options]).await;
    let client = server.open("disk").await.unwrap();
    (server, client, image)
}

#[tokio::test]
async fn a_full_disk_is_known_as_one_and_the_connection_lives_on() {
    let (_server, client, _) =
        debugged("inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.errno=28").await;
    let error = client.write(0, Buf::alone(65536)).await.unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(error.to_string().contains("cannot write 65536 bytes at 0"), "{error}");
    let again = client.write(4096, Buf::alone(4096)).await.unwrap_err();
    assert!(again.is_no_space(), "{again}");
}

#[tokio::test]
async fn a_write_beside_whole_blocks_is_refused_before_anything_is_sent() {
    let (_server, client, image) = debugged("align=4096").await;
    assert_eq!(client.blocks().min, 4096);
    for (offset, len) in [(1, 4096), (4096, 512)] {
        let error = client.write(offset, Buf::alone(len)).await.unwrap_err();
        assert!(matches!(error, Error::Unaligned { block: 4096, .. }), "{error}");
    }
    client.write(4096, Buf::alone(8192)).await.unwrap();
    assert!(bytes_at(&image, 4096, 8192).iter().all(|byte| *byte == 0));
    assert!(bytes_at(&image, 0, 4096).iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_server_that_dies_fails_the_writes_under_way() {
    let (mut server, _) = raw(64 * MIB, 7, &[]).await;
    let client = server.open("disk").await.unwrap();
    client.write(0, Buf::alone(4096)).await.unwrap();
    server.kill();
    let writes = (0..32u64).map(|at| client.write(at * MIB, Buf::alone(MIB as usize)));
    for answer in join_all(writes).await {
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::Closed | Error::Io(_)), "{error}");
    }
}
