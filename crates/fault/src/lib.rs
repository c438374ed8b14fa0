//! How everything in vmferry fails.
//!
//! A [`Fault`] says what was tried, on which object, what the other side answered and what to do next. Each crate has
//! its own kinds ([`Kind`]), so that a caller can decide by matching, and each kind is classified once, here, into the
//! only question the engine asks: is it worth trying again?
//!
//! Architecture Invariant: a fault never carries a secret. Whoever builds one names objects, not credentials.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The world may change by itself: a connection cut, a server restarting, a disk full.
    Retryable,
    /// Only a person can change it: a name taken, a wrong credential, an unsupported disk.
    Permanent,
    /// vmferry itself is wrong. Not retried, and worth a report.
    Bug,
}

/// The kinds of fault of one crate.
pub trait Kind: fmt::Debug + Copy + Send + Sync + 'static {
    /// The class of this kind.
    fn class(self) -> Class;
}

/// One failure: kind, what was tried, on what, the answer, and what to do next.
///
/// It is built in the order in which it reads:
///
/// ```
/// # use vmferry_fault::{Class, Fault, Kind};
/// # #[derive(Debug, Clone, Copy)] enum K { NotFound }
/// # impl Kind for K { fn class(self) -> Class { Class::Permanent } }
/// let fault = Fault::new(K::NotFound, "look up", "domain \"web\" on qemu:///system")
///     .detail("no domain with that name")
///     .remedy("set VirtualMachine status.id to the domain's name");
/// assert_eq!(
///     fault.to_string(),
///     "cannot look up domain \"web\" on qemu:///system: no domain with that name; \
///      set VirtualMachine status.id to the domain's name"
/// );
/// ```
pub struct Fault<K>(Box<Inner<K>>);

struct Inner<K> {
    kind: K,
    action: Cow<'static, str>,
    object: String,
    detail: Option<String>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl<K: Kind> Fault<K> {
    /// A fault of `kind` while doing `action` (a verb: `"create"`, `"read"`) to `object` (a noun with its name and place).
    pub fn new(kind: K, action: impl Into<Cow<'static, str>>, object: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            action: action.into(),
            object: object.into(),
            detail: None,
            remedy: None,
            source: None,
        }))
    }

    /// What the other side answered, or what was found instead.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// What the user can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// The error underneath. Its text becomes the detail where none was given.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind, for callers that decide by it.
    pub fn kind(&self) -> K {
        self.0.kind
    }

    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        self.0.kind.class()
    }
}

impl<K: Kind> fmt::Display for Fault<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            action,
            object,
            detail,
            remedy,
            source,
            ..
        } = &*self.0;
        write!(f, "cannot {action} {object}")?;
        match (detail, source) {
            (Some(detail), _) => write!(f, ": {detail}")?,
            (None, Some(source)) => write!(f, ": {source}")?,
            (None, None) => {}
        }
        match remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl<K: Kind> fmt::Debug for Fault<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl<K: Kind> StdError for Fault<K> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
