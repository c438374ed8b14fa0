//! An NBD server that says anything: from the greeting on, or after a handshake as it should be.
#![no_main]

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use vmferry_block::Buf;
use vmferry_nbd::Client;

const LIMIT: Duration = Duration::from_secs(5);

/// A reply to an option.
fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// A whole handshake of an export of 1 MiB, with or without structured replies.
fn handshake(structured: bool) -> Vec<u8> {
    let mut bytes = b"NBDMAGICIHAVEOPT\x00\x03".to_vec();
    if structured {
        bytes.extend(reply(8, 1, &[]));
        bytes.extend(reply(10, 4, b"\0\0\0\x07base:allocation"));
        bytes.extend(reply(10, 1, &[]));
    } else {
        bytes.extend(reply(8, 1 << 31 | 1, b"no"));
    }
    bytes.extend(reply(7, 3, &[0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 1]));
    bytes.extend(reply(7, 1, &[]));
    bytes
}

/// Says `first` at once and `then` after the first request, and hangs up.
async fn serve(mut far: DuplexStream, first: Vec<u8>, then: Vec<u8>) {
    let _ = far.write_all(&first).await;
    let mut sink = vec![0; 1 << 16];
    loop {
        match far.read(&mut sink).await {
            Ok(0) | Err(_) => return,
            Ok(count) if sink[..count].windows(4).any(|four| four == [0x25, 0x60, 0x95, 0x13]) => break,
            Ok(_) => {}
        }
    }
    let _ = far.write_all(&then).await;
}

async fn talk(first: Vec<u8>, then: Vec<u8>) {
    let (near, far) = duplex(1 << 20);
    let server = tokio::spawn(serve(far, first, then));
    if let Ok(client) = Client::connect_within(near, "disk", LIMIT, LIMIT).await {
        let size = client.size();
        let mut buf = Buf::alone(8.min(size) as usize);
        buf.fill(0xee);
        let offset = 16.min(size - buf.len() as u64);
        let (read, map) = tokio::join!(client.read(offset, buf), client.allocation());
        drop(read);
        if let Ok(map) = map {
            assert_eq!(map.capacity(), size);
        }
    }
    server.abort();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let (first, then) = match how % 3 {
        0 => (bytes.to_vec(), Vec::new()),
        how => (handshake(how == 1), bytes.to_vec()),
    };
    vmferry_fuzz::block_on(talk(first, then));
});
