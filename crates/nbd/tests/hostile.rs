//! Against servers that say what no server should.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use vmferry_block::Buf;
use vmferry_nbd::{Client, Error};

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\x00\x03";
const SIZE: u64 = 1 << 20;

fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn info(size: u64) -> Vec<u8> {
    let mut data = vec![0, 0];
    data.extend(size.to_be_bytes());
    data.extend([0, 1]);
    reply(7, 3, &data)
}

/// A whole handshake, with or without structured replies.
fn handshake(structured: bool) -> Vec<u8> {
    let mut bytes = GREETING.to_vec();
    if structured {
        bytes.extend(reply(8, 1, &[]));
        bytes.extend(reply(10, 4, b"\0\0\0\x07base:allocation"));
        bytes.extend(reply(10, 1, &[]));
    } else {
        bytes.extend(reply(8, 1 << 31 | 1, b"no"));
    }
    bytes.extend(info(SIZE));
    bytes.extend(reply(7, 1, &[]));
    bytes
}

fn chunk(flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = 0x668e_33ef_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn data(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [&offset.to_be_bytes()[..], bytes].concat()
}

fn hole(offset: u64, len: u32) -> Vec<u8> {
    [&offset.to_be_bytes()[..], &len.to_be_bytes()].concat()
}

fn status(context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
    let mut bytes = context.to_be_bytes().to_vec();
    for (len, flags) in extents {
        bytes.extend(len.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
    }
    bytes
}

/// A client whose server says `handshake` at once, then `answer` after the first request, and then stays silent.
async fn client(handshake: Vec<u8>, answer: Vec<u8>) -> Result<Client, Error> {
    let (near, far) = duplex(1 << 16);
    tokio::spawn(serve(far, handshake, answer));
    let limit = Duration::from_millis(300);
    Client::connect_within(near, "disk", limit, limit).await
}

async fn serve(mut far: DuplexStream, handshake: Vec<u8>, answer: Vec<u8>) {
    let _ = far.write_all(&handshake).await;
    let mut sink = vec![0; 1 << 16];
    // The flags and options of the client end where its first request starts.
    loop {
        match far.read(&mut sink).await {
            Ok(0) | Err(_) => return,
            Ok(count) if sink[..count].windows(4).any(|four| four == [0x25, 0x60, 0x95, 0x13]) => break,
            Ok(_) => {}
        }
    }
    let _ = far.write_all(&answer).await;
    while matches!(far.read(&mut sink).await, Ok(count) if count > 0) {}
}

/// What a read of 8 bytes at 16 gives.
async fn read(structured: bool, answer: Vec<u8>) -> Result<Buf, Error> {
    let client = client(handshake(structured), answer).await.unwrap();
    let mut buf = Buf::alone(8);
    buf.fill(0xee);
    client.read(16, buf).await
}

async fn refused(answer: Vec<u8>, why: &str) {
    match read(true, answer).await {
        Err(Error::Protocol(what)) => assert!(what.contains(why), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn well_formed_replies_are_taken() {
    let whole = chunk(1, 1, 0, &data(16, b"12345678"));
    assert_eq!(read(true, whole).await.unwrap()[..], *b"12345678");
    let pieces = [
        chunk(0, 2, 0, &hole(20, 4)),
        chunk(0, 1, 0, &data(16, b"1234")),
        chunk(1, 0, 0, &[]),
    ]
    .concat();
    assert_eq!(read(true, pieces).await.unwrap()[..], *b"1234\0\0\0\0");
    let mut simple = 0x6744_6698_u32.to_be_bytes().to_vec();
    simple.extend([0; 12]);
    simple.extend(b"12345678");
    assert_eq!(read(false, simple).await.unwrap()[..], *b"12345678");
}

#[tokio::test]
async fn replies_that_lie_are_refused() {
    refused(chunk(1, 1, 0, &data(16, b"1234567")), "without all of the").await;
    refused(chunk(1, 1, 0, &data(16, b"123456789")), "in reply to").await;
    refused(chunk(1, 1, 0, &data(15, b"12345678")), "in reply to").await;
    refused(chunk(1, 1, 0, &data(u64::MAX, b"12345678")), "in reply to").await;
    refused(chunk(1, 1, 0, &data(16, b"")), "without data").await;
    refused(chunk(1, 2, 0, &hole(16, 0)), "in reply to").await;
    refused(chunk(1, 2, 0, &hole(16, u32::MAX)), "in reply to").await;
    refused(
        [chunk(0, 1, 0, &data(16, b"12345")), chunk(1, 2, 0, &hole(20, 4))].concat(),
        "twice",
    )
    .await;
    refused(chunk(1, 5, 0, &status(7, &[(512, 0)])), "where it was not asked for").await;
    refused(chunk(0, 0, 0, &[]), "type 0").await;
    refused(chunk(1, 77, 0, &[]), "type 77").await;
    refused(chunk(1, 0x8001, 0, b"\0\0\0\x05\xff\xff"), "longer than the chunk").await;
    refused(b"garbage garbage garbage".to_vec(), "starts with").await;
    let error = read(true, chunk(1, 1, 9, &data(16, b"12345678"))).await.unwrap_err();
    assert!(error.to_string().contains("not under way"), "{error}");
}

#[tokio::test]
async fn an_error_fails_the_request_and_not_the_connection() {
    let answer = [
        chunk(1, 0x8001, 0, b"\0\0\0\x05\0\x03bad"),
        chunk(1, 1, 1, &data(16, b"12345678")),
    ]
    .concat();
    let client = client(handshake(true), answer).await.unwrap();
    let (first, second) = tokio::join!(client.read(16, Buf::alone(8)), client.read(16, Buf::alone(8)));
    let error = first.unwrap_err();
    assert!(
        matches!(&error, Error::Request { errno: 5, message, .. } if message == "bad"),
        "{error}"
    );
    assert_eq!(second.unwrap()[..], *b"12345678");
}

#[tokio::test]
async fn silence_and_the_end_are_noticed() {
    assert!(matches!(read(true, Vec::new()).await, Err(Error::Timeout(_))));
    assert!(matches!(
        read(true, chunk(1, 1, 0, &data(16, b"12345678"))[..30].to_vec()).await,
        Err(Error::Timeout(_))
    ));
    let silent = client(GREETING[..10].to_vec(), Vec::new()).await;
    assert!(matches!(silent, Err(Error::Timeout(_))));
    let (near, far) = duplex(64);
    drop(far);
    assert!(matches!(
        Client::connect(near, "disk").await,
        Err(Error::Closed | Error::Io(_))
    ));
}

#[tokio::test]
async fn block_status_that_lies_is_refused() {
    for (answer, why) in [
        (chunk(1, 5, 0, &status(8, &[(512, 0)])), "not asked for"),
        (chunk(1, 5, 0, &status(7, &[])), "block status of 4 bytes"),
        (chunk(1, 5, 0, &status(7, &[(0, 0), (512, 0)])), "no bytes"),
        (chunk(1, 0, 0, &[]), "no block status"),
        (chunk(1, 1, 0, &data(0, b"1")), "where it was not asked for"),
        (chunk(1, 5, 0, &[0; 11]), "of 11 bytes"),
    ] {
        let client = client(handshake(true), answer).await.unwrap();
        let error = client.allocation().await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    // The last extent may reach past what was asked for, here the end of the disk.
    let answer = chunk(1, 5, 0, &status(7, &[(4096, 3), (u32::MAX, 0)]));
    let map = client(handshake(true), answer)
        .await
        .unwrap()
        .allocation()
        .await
        .unwrap();
    assert_eq!((map.extents()[0].start, map.data_bytes()), (4096, SIZE - 4096));
    let everything = client(handshake(false), Vec::new())
        .await
        .unwrap()
        .allocation()
        .await
        .unwrap();
    assert_eq!(everything.data_bytes(), SIZE);
}

#[tokio::test]
async fn handshakes_that_lie_are_refused() {
    let greeted = |rest: &[Vec<u8>]| [GREETING.to_vec(), rest.concat()].concat();
    let mut huge = reply(8, 1, &[]);
    huge[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    for (bytes, why) in [
        (b"HTTP/1.1 400 Bad".to_vec(), "does not greet"),
        (b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53".to_vec(), "oldstyle"),
        (b"NBDMAGICIHAVEOPT\x00\x02".to_vec(), "fixed newstyle"),
        (greeted(&[huge]), "a reply of 4294967295 bytes"),
        (greeted(&[reply(9, 1, &[])]), "to option 9"),
        (greeted(&[reply(8, 1 << 31 | 1, b""), reply(7, 1, &[])]), "how large"),
        (greeted(&[reply(8, 1 << 31 | 1, b""), info(u64::MAX)]), "an export of"),
        (greeted(&[reply(8, 1 << 31 | 1, b""), reply(7, 3, &[0])]), "of 1 bytes"),
        (
            greeted(&[reply(8, 1 << 31 | 1, b""), reply(7, 1 << 31 | 5, b"tls\x1b")]),
            "tls (error 5)",
        ),
        (
            greeted(&[vec![reply(8, 1 << 31 | 1, b"")], vec![reply(7, 3, &[9, 9]); 70]].concat()),
            "without end",
        ),
    ] {
        let error = client(bytes, Vec::new()).await.err().unwrap();
        assert!(error.to_string().contains(why), "{error} has no {why:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes, the answer is an error or the right bytes, soon, and never a panic or a large allocation.
    #[test]
    fn any_bytes_end_in_an_answer(
        flip in prop::collection::vec((0usize..400, any::<u8>()), 0..4),
        noise in prop::collection::vec(any::<u8>(), 0..64),
        structured in any::<bool>(),
    ) {
        let mut bytes = [handshake(structured), chunk(0, 1, 0, &data(16, b"1234")), chunk(1, 2, 0, &hole(20, 4)), noise].concat();
        for (at, byte) in flip {
            let at = at % bytes.len();
            bytes[at] ^= byte;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, mut far) = duplex(1 << 16);
            tokio::spawn(async move {
                let _ = far.write_all(&bytes).await;
                let mut sink = vec![0; 1024];
                while matches!(far.read(&mut sink).await, Ok(count) if count > 0) {}
            });
            let limit = Duration::from_millis(20);
            if let Ok(client) = Client::connect_within(near, "disk", limit, limit).await {
                let _ = client.read(16.min(client.size()), Buf::alone(0)).await;
                let _ = client.read(16, Buf::alone(8)).await;
                let _ = client.allocation().await;
            }
        });
    }
}

/// What a write of 8 bytes at 16 gives.
async fn write(structured: bool, answer: Vec<u8>) -> Result<(), Error> {
    let client = client(handshake(structured), answer).await.unwrap();
    client.write(16, Buf::alone(8)).await
}

#[tokio::test]
async fn a_write_is_done_only_when_the_server_says_so() {
    let simple = |errno: u32| [&0x6744_6698_u32.to_be_bytes()[..], &errno.to_be_bytes(), &[0; 8]].concat();
    for structured in [true, false] {
        write(structured, simple(0)).await.unwrap();
        let full = write(structured, simple(28)).await.unwrap_err();
        assert!(
            full.is_no_space() && full.to_string().contains("no space left"),
            "{full}"
        );
        let silent = write(structured, Vec::new()).await.unwrap_err();
        assert!(matches!(silent, Error::Timeout(_)), "{silent}");
    }
    write(true, chunk(1, 0, 0, &[])).await.unwrap();
    let data = write(true, chunk(1, 1, 0, &data(16, b"12345678"))).await.unwrap_err();
    assert!(matches!(data, Error::Protocol(_)), "{data}");
    let bad = [&5u32.to_be_bytes()[..], &3u16.to_be_bytes(), b"bad"].concat();
    let bad = write(true, chunk(1, 1 << 15 | 1, 0, &bad)).await.unwrap_err();
    assert!(
        matches!(
            &bad,
            Error::Request {
                action: "write",
                errno: 5,
                ..
            }
        ),
        "{bad}"
    );
}
