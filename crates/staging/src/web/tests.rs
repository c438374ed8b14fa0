use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use reqwest::{Method, Url};
use tokio::sync::mpsc;
use vmferry_block::Buf;

use super::*;
use crate::hosts::HostPolicy;
use crate::{Kind, PartBody};

fn client(silence: Duration, redirects: Redirects) -> Client {
    Client::new(Config {
        ca: None,
        hosts: HostPolicy::default(),
        redirects,
        silence: Some(silence),
    })
    .unwrap()
}

/// A server for one connection.
fn serve(work: impl FnOnce(TcpStream) + Send + 'static) -> Url {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/x?signature=hush", listener.local_addr().unwrap());
    std::thread::spawn(move || work(listener.accept().unwrap().0));
    url.parse().unwrap()
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_part_is_sent_with_its_length_and_an_answer_fills_buffers() {
    let url = serve(|mut stream| {
        let head = read_head(&mut stream).to_lowercase();
        assert!(
            head.contains("content-length: 7\r\n") && !head.contains("chunked"),
            "{head}"
        );
        let mut body = [0; 7];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"onetwo!");
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12345").unwrap();
        stream.flush().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        write!(stream, "6789").unwrap();
    });
    let client = client(LONG, Redirects::No);
    let request = client.request(Method::PUT, url).build().unwrap();
    let body = PartBody::held([Buf::copy_of(b"one"), Buf::copy_of(b"two!")]);
    let answer = client.send(request, Some(body), None).await.unwrap();
    let mut bufs = [Buf::copy_of(b"??"), Buf::copy_of(b"?"), Buf::copy_of(b"????????")];
    let (filled, outcome) = answer.fill(&mut bufs, 2).await;
    outcome.unwrap();
    assert_eq!(
        (filled, &bufs[0][..], &bufs[1][..], &bufs[2][..]),
        (11, &b"??"[..], &b"1"[..], &b"23456789"[..])
    );
}

/// A proxy would look the host up where no policy holds. The environment is that of a process of its own.
#[tokio::test]
async fn a_proxy_of_the_environment_is_not_used() {
    const NAME: &str = "http_proxy";
    if std::env::var_os(NAME).is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "web::tests::a_proxy_of_the_environment_is_not_used"])
            .env(NAME, "http://127.0.0.1:1")
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let url = serve(|mut stream| {
        read_head(&mut stream);
        write!(stream, "HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    let client = client(LONG, Redirects::No);
    let request = client.request(Method::GET, url).build().unwrap();
    let answer = client.send(request, None, None).await.unwrap();
    assert_eq!(answer.status(), 204);
}

#[tokio::test]
async fn silence_ends_a_request_in_either_direction() {
    // No answer.
    let url = serve(|mut stream| {
        read_head(&mut stream);
        std::thread::sleep(LONG);
    });
    let client = client(SHORT, Redirects::No);
    let request = client.request(Method::GET, url).build().unwrap();
    let trouble = client.send(request, None, None).await.unwrap_err();
    assert_eq!(trouble.kind, Kind::Unreachable, "{trouble:?}");

    // A body that the server does not take, of more than the sockets hold.
    let url = serve(|stream| {
        std::thread::sleep(LONG);
        drop(stream);
    });
    let request = client.request(Method::PUT, url).build().unwrap();
    let body = PartBody::held((0..64).map(|_| Buf::alone(1 << 20)).collect::<Vec<_>>());
    let trouble = client.send(request, Some(body), Some(LONG)).await.unwrap_err();
    assert_eq!(trouble.kind, Kind::Unreachable, "{trouble:?}");

    // Half an answer.
    let url = serve(|mut stream| {
        read_head(&mut stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12345").unwrap();
        std::thread::sleep(LONG);
    });
    let request = client.request(Method::GET, url).build().unwrap();
    let answer = client.send(request, None, None).await.unwrap();
    let (filled, outcome) = answer.fill(&mut [Buf::alone(9)], 0).await;
    assert_eq!((filled, outcome.unwrap_err().kind), (5, Kind::Unreachable));
}

#[tokio::test]
async fn a_part_that_ends_early_and_an_answer_that_is_cut_are_failures() {
    let url = serve(|mut stream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let client = client(LONG, Redirects::No);
    let (send, pieces) = mpsc::channel(1);
    send.send(Buf::copy_of(b"too short")).await.unwrap();
    drop(send);
    let request = client.request(Method::PUT, url).build().unwrap();
    let trouble = client
        .send(request, Some(PartBody::flowing(100, pieces)), None)
        .await
        .unwrap_err();
    assert_eq!(trouble.kind, Kind::Unreachable);
    assert!(trouble.detail.contains("91 bytes early"), "{trouble:?}");
    assert!(!trouble.detail.contains("hush"), "a query in {trouble:?}");

    let url = serve(|mut stream| {
        read_head(&mut stream);
        write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Length: 9\r\n\r\n12345").unwrap();
    });
    let request = client.request(Method::GET, url).build().unwrap();
    let answer = client.send(request, None, None).await.unwrap();
    let mut bufs = [Buf::alone(9)];
    let (filled, outcome) = answer.fill(&mut bufs, 0).await;
    assert_eq!((filled, outcome.unwrap_err().kind), (5, Kind::Unreachable));
    assert_eq!(&bufs[0][..5], b"12345");
}

#[tokio::test]
async fn redirects_stay_on_their_host() {
    let url = serve(|mut stream| {
        read_head(&mut stream);
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: http://other.example.com/\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
    });
    let client = client(LONG, Redirects::SameHost);
    let request = client.request(Method::GET, url).build().unwrap();
    let trouble = client.send(request, None, None).await.unwrap_err();
    assert_eq!(trouble.kind, Kind::Denied);
    assert!(trouble.detail.contains("other.example.com"), "{trouble:?}");
}

#[tokio::test]
async fn forbidden_addresses_are_not_connected_to() {
    let client = client(LONG, Redirects::No);
    for url in [
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
    ] {
        let request = client.request(Method::GET, url.parse().unwrap()).build().unwrap();
        let trouble = client.send(request, None, None).await.unwrap_err();
        assert_eq!(trouble.kind, Kind::Denied, "{url}: {trouble:?}");
    }
    let request = client
        .request(Method::GET, "http://no-such-host.invalid/".parse().unwrap())
        .build()
        .unwrap();
    let trouble = client.send(request, None, None).await.unwrap_err();
    assert_eq!(trouble.kind, Kind::Unreachable, "{trouble:?}");
    assert!(trouble.detail.contains("no-such-host.invalid"), "{trouble:?}");
}

#[tokio::test]
async fn only_what_passes_is_tried_again() {
    for (kind, again) in [(Kind::Busy, 4), (Kind::Failed, 4), (Kind::Denied, 0)] {
        let (mut tries, mut seen) = (Tries::new(), 0);
        while tries
            .again(Trouble::new(kind, "no").wait(Some(Duration::ZERO)))
            .await
            .is_ok()
        {
            seen += 1;
        }
        assert_eq!(seen, again, "{kind:?}");
    }
}

#[tokio::test]
async fn a_server_is_left_alone_for_as_long_as_it_asked() {
    for _ in 0..5 {
        let (start, asked) = (std::time::Instant::now(), Duration::from_millis(50));
        let trouble = Trouble::new(Kind::Busy, "no").wait(Some(asked));
        Tries::new().again(trouble).await.unwrap();
        assert!(start.elapsed() >= asked);
    }
}
