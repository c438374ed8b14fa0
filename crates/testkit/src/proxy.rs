//! A TCP relay that can be shut, cut and stalled, so that a server becomes unreachable and comes back.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::command::Must;

/// Relays connections to an address while it is open. Shut, it accepts and hangs up.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    is_open: AtomicBool,
    is_stalled: AtomicBool,
    is_over: AtomicBool,
    /// Bytes to the server and from it.
    passed: AtomicU64,
    under_way: Mutex<Vec<[TcpStream; 2]>>,
}

impl Proxy {
    /// A relay to `address:port`.
    pub fn to(target: &str, open: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).must("bind a relay");
        let address = listener.local_addr().must("read a relay's address");
        let shared = Arc::new(Shared {
            target: target.parse().must(format!("read the address {target}")),
            is_open: AtomicBool::new(open),
            is_stalled: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            under_way: Mutex::default(),
        });
        let state = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.is_over.load(Ordering::SeqCst) {
                    return;
                }
                // A client that went away again is no failure of the relay's.
                let _ = state.accept(client);
            }
        });
        Self { address, shared }
    }

    /// The port that it listens at, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Lets connections through from now on.
    pub fn open(&self) {
        self.shared.is_open.store(true, Ordering::SeqCst);
    }

    /// Hangs up on new connections from now on, and cuts those under way.
    pub fn shut(&self) {
        self.shared.is_open.store(false, Ordering::SeqCst);
        self.cut();
    }

    /// Cuts the connections under way; new ones go through while it is open.
    pub fn cut(&self) {
        for pair in self.shared.lock().drain(..) {
            hang_up(&pair);
        }
    }

    /// Cuts one of the connections under way, the `index`-th of those there are, round and round; says whether there was one.
    pub fn cut_one(&self, index: usize) -> bool {
        let mut under_way = self.shared.lock();
        under_way.retain(|[client, _]| client.peer_addr().is_ok());
        if under_way.is_empty() {
            return false;
        }
        let index = index % under_way.len();
        hang_up(&under_way.swap_remove(index));
        true
    }

    /// Passes no byte any more, in either direction, without hanging up; or goes on.
    pub fn stall(&self, stalled: bool) {
        self.shared.is_stalled.store(stalled, Ordering::SeqCst);
    }

    /// Bytes that passed so far, both ways together.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.shared.is_stalled.store(false, Ordering::SeqCst);
        self.shut();
        // Wakes the accepting thread, which ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        if !self.is_open.load(Ordering::SeqCst) {
            return Ok(());
        }
        let server = TcpStream::connect(self.target)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        self.lock().push([client.try_clone()?, server.try_clone()?]);
        self.relay(client.try_clone()?, server.try_clone()?);
        self.relay(server, client);
        Ok(())
    }

    fn relay(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream) {
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                while shared.is_stalled.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(10));
                }
                if to.write_all(&bytes[..n]).is_err() {
                    break;
                }
                shared.passed.fetch_add(n as u64, Ordering::SeqCst);
            }
            hang_up(&[from, to]);
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<[TcpStream; 2]>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hang_up(streams: &[TcpStream; 2]) {
    for stream in streams {
        // It may be gone already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}
