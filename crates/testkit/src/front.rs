//! A front before a real HTTP server: a reverse proxy that passes everything on until a rule says otherwise.
//!
//! The server behind it stays a real one; the front makes its way and its answers bad. What went through is counted, so that
//! a test can say how often a part was sent.

mod relay;
mod rule;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ClientConfig;

use crate::authority::Authority;
use crate::command::Must;
pub use rule::{Action, Reply, Rule};

/// A request that reached the front.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path with its query, as it was sent.
    pub target: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    body: Arc<AtomicU64>,
}

impl Seen {
    /// Bytes of its body that came so far.
    pub fn body_len(&self) -> u64 {
        self.body.load(Ordering::SeqCst)
    }

    /// One of its headers, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }
}

/// How a front is made.
#[derive(Debug, Clone)]
pub struct FrontBuilder {
    target: String,
    onwards: Option<Arc<ClientConfig>>,
    with_tls: bool,
    rewrite_host: bool,
}

impl FrontBuilder {
    /// Speaks TLS with a certificate for `localhost` and 127.0.0.1 by an authority of its own: see [`Front::ca`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.with_tls = true;
        self
    }

    /// Speaks TLS to the server, as whom this makes it.
    #[must_use]
    pub(crate) fn onwards(mut self, tls: Arc<ClientConfig>) -> Self {
        self.onwards = Some(tls);
        self
    }

    /// Gives the server its own address as `Host`, instead of what the client sent (which signatures cover).
    #[must_use]
    pub fn rewrite_host(mut self) -> Self {
        self.rewrite_host = true;
        self
    }

    /// Starts it.
    pub fn start(self) -> Front {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).must("bind a front");
        listener.set_nonblocking(true).must("prepare a front");
        let address = listener.local_addr().must("read a front's address");
        let authority = self.with_tls.then(Authority::new);
        let acceptor = authority
            .as_ref()
            .map(|authority| authority.server(&["localhost", "127.0.0.1"]).acceptor());
        let shared = Arc::new(Shared {
            target: self.target,
            onwards: self.onwards,
            rewrite_host: self.rewrite_host,
            rules: Mutex::default(),
            seen: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let state = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .must("start a front's runtime");
            // The runtime is dropped with what is under way: every connection ends here.
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).must("listen");
                tokio::select! {
                    () = accept(listener, acceptor, state) => {}
                    _ = stopped => {}
                }
            });
        });
        Front {
            address,
            shared,
            ca: authority.map(|authority| authority.pem().to_owned()),
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

/// A running front. It ends with its connections when this is dropped.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    ca: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    onwards: Option<Arc<ClientConfig>>,
    rewrite_host: bool,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
}

impl Front {
    /// A plain front before `address:port` that keeps `Host`.
    pub fn to(target: &str) -> Self {
        Self::builder(target).start()
    }

    /// A front before `address:port`, to be adjusted.
    pub fn builder(target: &str) -> FrontBuilder {
        FrontBuilder {
            target: target.to_owned(),
            onwards: None,
            with_tls: false,
            rewrite_host: false,
        }
    }

    /// The port that it listens at, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its URL: `http://127.0.0.1:port`, or `https://localhost:port`.
    pub fn url(&self) -> String {
        match self.ca {
            Some(_) => format!("https://localhost:{}", self.port()),
            None => format!("http://{}", self.address),
        }
    }

    /// The certificate of the authority that signed its own, as PEM, where it speaks TLS.
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Adds a rule. All rules that match a request apply to it, in the order in which they were added.
    pub fn on(&self, rule: Rule) {
        lock(&self.shared.rules).push(rule);
    }

    /// Removes all rules: everything passes.
    pub fn clear(&self) {
        lock(&self.shared.rules).clear();
    }

    /// All requests that came, in order.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Forgets what came so far.
    pub fn forget(&self) {
        lock(&self.shared.seen).clear();
    }

    /// How many requests came with this method (any where empty) and this text in their path and query.
    pub fn count(&self, method: &str, target: &str) -> usize {
        let counts = |seen: &&Seen| rule::fits(method, target, &seen.method, &seen.target);
        lock(&self.shared.seen).iter().filter(counts).count()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(greet(stream, acceptor.clone(), Arc::clone(&shared)));
    }
}

async fn greet(stream: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // A connection that goes away is what tests are about, not a failure of the front's.
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => serve(stream, shared).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, shared).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(move |request| relay::answer(Arc::clone(&shared), request));
    let _ = http1::Builder::new()
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
