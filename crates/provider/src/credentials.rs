//! What a provider needs to be let in.

use secrecy::SecretString;

/// Credentials out of a Provider's Secret. Nothing in it is ever printed: the secrets print as `[REDACTED]`.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// User name; the endpoint's own wins.
    pub username: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
    /// Proxmox VE: id of an API token, `user@realm!name`.
    pub token_id: Option<String>,
    /// Proxmox VE: secret of that token.
    pub token_secret: Option<SecretString>,
    /// Private ssh key in OpenSSH or PEM form.
    pub ssh_private_key: Option<SecretString>,
    /// Trusted host keys, in the form of `~/.ssh/known_hosts`.
    pub known_hosts: Option<String>,
    /// Trusted certificate authorities, PEM.
    pub ca: Option<String>,
    /// Fingerprint of the one certificate that is trusted instead: hex digits with or without colons, SHA-256 or (vSphere) SHA-1.
    pub fingerprint: Option<String>,
}
