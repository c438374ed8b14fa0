//! One authenticated ssh session.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate, decode_secret_key};
use secrecy::ExposeSecret;

use super::known_hosts::{KnownHost, Verdict};
use crate::credentials::Credentials;
use crate::{Error, Kind};

/// How long it may take until the session is authenticated.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// How long it may take to open a channel.
pub(super) const CHANNEL_LIMIT: Duration = Duration::from_secs(15);

/// A silent server is asked for a sign of life this often…
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// …and given up after so many unanswered.
const KEEPALIVE_COUNT: usize = 4;

/// How many rounds of questions are answered.
const MAX_PROMPTS: usize = 4;

/// How many bytes of a channel may be under way: disks come through it.
const WINDOW: u32 = 8 << 20;

/// A byte stream to a unix socket at the other side.
pub(crate) type UnixChannel = russh::ChannelStream<client::Msg>;

/// Where to, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// User name.
    pub user: String,
    /// Name or address, as known_hosts has it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What says host and port, for messages.
    pub said_by: &'static str,
}

impl Target {
    pub(super) fn name(&self) -> String {
        format!("ssh host {}@{}:{}", self.user, self.host, self.port)
    }
}

/// An authenticated session.
pub(crate) struct Session {
    pub(super) target: Target,
    pub(super) handle: Handle<Verifier>,
}

impl Session {
    /// Connects, checks the host's key and authenticates.
    pub async fn connect(target: &Target, credentials: &Credentials) -> Result<Self, Error> {
        if let Ok(session) = tokio::time::timeout(CONNECT_LIMIT, Self::open(target, credentials)).await {
            session
        } else {
            let detail = format!("no answer within {} s", CONNECT_LIMIT.as_secs());
            Err(Error::new(Kind::Unreachable, "connect to", target.name()).detail(detail))
        }
    }

    async fn open(target: &Target, credentials: &Credentials) -> Result<Self, Error> {
        let (known, origin) = known_host(target, credentials).await;
        let config = Arc::new(config(&known));
        let refusal = Arc::new(Mutex::new(None));
        let verifier = Verifier {
            target: target.clone(),
            known,
            origin,
            refusal: Arc::clone(&refusal),
        };
        let address = (target.host.as_str(), target.port);
        let handle = client::connect(config, address, verifier).await.map_err(|error| {
            let refused = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
            refused.unwrap_or_else(|| {
                Error::new(Kind::Unreachable, "connect to", target.name())
                    .source(error)
                    .remedy(format!(
                        "check the host and port of {}, and that sshd runs there",
                        target.said_by
                    ))
            })
        })?;
        let mut session = Self {
            target: target.clone(),
            handle,
        };
        session.authenticate(credentials).await?;
        Ok(session)
    }

    /// With the key where there is one, then with the password.
    async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), Error> {
        let mut tried = Vec::new();
        if let Some(text) = &credentials.ssh_private_key {
            let key = decode_secret_key(text.expose_secret(), None).map_err(|_| {
                Error::new(Kind::Invalid, "read", "ssh-privatekey of the Secret")
                    .detail("it is not a private key in OpenSSH or PEM form, or it has a passphrase")
                    .remedy("put an unencrypted private key there")
            })?;
            let hash = self.rsa_hash().await;
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
            let user = self.target.user.clone();
            let answer = self.handle.authenticate_publickey(user, key).await;
            if self.accepted(answer)? {
                return Ok(());
            }
            tried.push("key");
        }
        if let Some(password) = &credentials.password {
            let user = self.target.user.clone();
            let answer = self.handle.authenticate_password(user, password.expose_secret()).await;
            if self.accepted(answer)? {
                return Ok(());
            }
            let user = self.target.user.clone();
            let answer = self.ask_interactively(user, password.expose_secret()).await;
            if answer.unwrap_or(false) {
                return Ok(());
            }
            tried.push("password");
        }
        let fault = Error::new(Kind::Denied, "log in to", self.target.name());
        Err(if tried.is_empty() {
            fault
                .detail("the Secret has neither a key nor a password")
                .remedy("set ssh-privatekey or password in the Secret of spec.credentialSecretRef")
        } else {
            fault
                .detail(format!("the host refused the {} of the Secret", tried.join(" and the ")))
                .remedy("check ssh-privatekey and password in the Secret of spec.credentialSecretRef, and the user's authorized_keys")
        })
    }

    /// Keyboard-interactive (RFC 4256), where a server asks for the password that way only: each hidden prompt gets it.
    async fn ask_interactively(&mut self, user: String, password: &str) -> Result<bool, russh::Error> {
        use client::KeyboardInteractiveAuthResponse::{InfoRequest, Success};
        let mut answer = self.handle.authenticate_keyboard_interactive_start(user, None).await?;
        for _ in 0..MAX_PROMPTS {
            let InfoRequest { prompts, .. } = answer else { break };
            let hidden = prompts.iter().map(|prompt| {
                if prompt.echo {
                    String::new()
                } else {
                    password.to_owned()
                }
            });
            answer = self
                .handle
                .authenticate_keyboard_interactive_respond(hidden.collect())
                .await?;
        }
        Ok(matches!(answer, Success))
    }

    /// The best signature for an RSA key that the server takes.
    async fn rsa_hash(&self) -> Option<HashAlg> {
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(hash)) => hash,
            _ => Some(HashAlg::Sha256),
        }
    }

    fn accepted(&self, answer: Result<AuthResult, russh::Error>) -> Result<bool, Error> {
        match answer {
            Ok(answer) => Ok(answer.success()),
            Err(error) => Err(Error::new(Kind::Unreachable, "log in to", self.target.name()).source(error)),
        }
    }

    /// Whether the other side is still there.
    pub fn is_alive(&self) -> bool {
        !self.handle.is_closed()
    }

    /// Opens a channel to a unix socket at the other side (`direct-streamlocal@openssh.com`, OpenSSH's PROTOCOL, 2.4).
    pub async fn open_unix(&self, path: &str) -> Result<UnixChannel, Error> {
        let object = || format!("socket {path} on {}", self.target.name());
        match tokio::time::timeout(CHANNEL_LIMIT, self.handle.channel_open_direct_streamlocal(path)).await {
            Ok(Ok(channel)) => Ok(channel.into_stream()),
            Ok(Err(error)) => Err(channel_fault(object(), error)),
            Err(_) => {
                let detail = format!("no answer within {} s", CHANNEL_LIMIT.as_secs());
                Err(Error::new(Kind::Unreachable, "open", object()).detail(detail))
            }
        }
    }
}

pub(super) fn channel_fault(object: String, error: russh::Error) -> Error {
    use russh::ChannelOpenFailure::{AdministrativelyProhibited, ConnectFailed};
    match error {
        russh::Error::ChannelOpenFailure(AdministrativelyProhibited) => Error::new(Kind::Denied, "open", object)
            .detail("sshd forbids it")
            .remedy("set AllowStreamLocalForwarding yes in the host's sshd_config"),
        russh::Error::ChannelOpenFailure(ConnectFailed) => Error::new(Kind::Unreachable, "open", object)
            .detail("nothing listens there, or the user may not connect to it"),
        error => Error::new(Kind::Unreachable, "open", object).source(error),
    }
}

fn config(known: &KnownHost) -> client::Config {
    let mut preferred = russh::Preferred::default();
    // With AES instructions, which every server has, several times as fast as ChaCha20.
    let mut ciphers = vec![russh::cipher::AES_256_GCM];
    ciphers.extend(
        preferred
            .cipher
            .iter()
            .filter(|name| **name != russh::cipher::AES_256_GCM),
    );
    preferred.cipher = Cow::Owned(ciphers);
    preferred.key = Cow::Owned(known.prefer(&preferred.key));
    client::Config {
        window_size: WINDOW,
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        keepalive_max: KEEPALIVE_COUNT,
        nodelay: true,
        preferred,
        ..client::Config::default()
    }
}

/// The trusted keys of a host, and where they were looked up.
async fn known_host(target: &Target, credentials: &Credentials) -> (KnownHost, String) {
    let (list, origin) = if let Some(list) = &credentials.known_hosts {
        (list.clone(), "known_hosts of the Secret".to_owned())
    } else {
        let path = std::env::home_dir().unwrap_or_default().join(".ssh/known_hosts");
        let list = tokio::fs::read_to_string(&path).await.unwrap_or_default();
        (list, path.display().to_string())
    };
    (KnownHost::find(&list, &target.host, target.port), origin)
}

/// Checks the host's key.
pub(super) struct Verifier {
    target: Target,
    known: KnownHost,
    /// Where the trusted keys come from.
    origin: String,
    /// Why the key was refused.
    refusal: Arc<Mutex<Option<Error>>>,
}

impl client::Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        // A certificate is never asked for (`Preferred` names none), so none is trusted.
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            return Ok(false);
        };
        let verdict = self.known.verdict(key);
        if verdict == Verdict::Trusted {
            return Ok(true);
        }
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        let kind = key.algorithm();
        let origin = &self.origin;
        let detail = match verdict {
            Verdict::Changed => {
                format!("its {kind} key has the fingerprint {fingerprint}, and {origin} has another key for it")
            }
            Verdict::Revoked => format!("its {kind} key {fingerprint} is marked @revoked in {origin}"),
            _ => format!("its {kind} key has the fingerprint {fingerprint}, and {origin} has no key for it"),
        };
        let remedy = format!(
            "compare the fingerprint with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub); if it is right, put the \
             line of ssh-keyscan -p {} {} into known_hosts of the Secret",
            self.target.port, self.target.host
        );
        let fault = Error::new(Kind::Untrusted, "trust", self.target.name())
            .detail(detail)
            .remedy(remedy);
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        Ok(false)
    }
}
