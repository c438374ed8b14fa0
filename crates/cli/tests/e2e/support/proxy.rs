//! A TCP relay that can be shut, so that a host becomes unreachable and comes back.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Relays connections to an address while it is open. Shut, it accepts and hangs up.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    open: Arc<AtomicBool>,
    under_way: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// A relay to `address:port`.
    pub fn to(target: &str, open: bool) -> Self {
        let target: SocketAddr = target.parse().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::new(AtomicBool::new(open));
        let under_way = Arc::new(Mutex::new(Vec::new()));
        let (is_open, streams) = (Arc::clone(&open), Arc::clone(&under_way));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    streams.lock().unwrap().push(from.try_clone().unwrap());
                    relay(from.try_clone().unwrap(), to.try_clone().unwrap());
                }
            }
        });
        Self { port, open, under_way }
    }

    /// The port that it listens at, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets connections through from now on.
    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Cuts the connections under way; new ones go through while it is open.
    pub fn cut(&self) {
        for stream in self.under_way.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn relay(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
