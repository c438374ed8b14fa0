//! What a front does to which requests.

use std::time::Duration;

/// An answer that no server gave.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Reply {
    /// An empty answer of this status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }
}

/// What happens to a request or to its answer. Byte positions count from 0.
#[derive(Debug, Clone)]
pub enum Action {
    /// The whole request is taken and this is the answer; the server hears nothing.
    Answer(Reply),
    /// The request has its effect, and this is the answer.
    AnswerInstead(Reply),
    /// The request has its effect, and the connection is closed without an answer.
    LoseAnswer,
    /// The connection is cut on both sides after this many bytes of the request's body; the server has got them.
    CutRequest(u64),
    /// The connection is cut after this many bytes of the answer's body, whose promised length stays.
    CutAnswer(u64),
    /// Not a byte is taken after this many of the request's body, and nothing is answered, without hanging up.
    StallRequest(u64),
    /// Nothing follows this many bytes of the answer's body, without hanging up.
    StallAnswer(u64),
    /// The request waits this long before it is passed on.
    Delay(Duration),
    /// The answer claims this `Content-Length`. More bytes than that are not sent; after fewer the connection is cut.
    ClaimLength(u64),
    /// This byte of the answer's body is another one.
    Corrupt(u64),
    /// The server never sees this header.
    DropRequestHeader(&'static str),
    /// The client never sees this header.
    DropAnswerHeader(&'static str),
    /// The client sees this header, instead of the server's where it sent one.
    SetAnswerHeader(&'static str, String),
    /// The answer's `Date` is this many seconds off: a server whose clock is wrong.
    ShiftDate(i64),
}

/// An action, and the requests that it happens to: all of them until it is narrowed.
#[derive(Debug, Clone)]
pub struct Rule {
    action: Action,
    method: &'static str,
    target: String,
    skip: usize,
    left: usize,
}

impl Rule {
    /// A rule for every request.
    pub fn new(action: Action) -> Self {
        Self {
            action,
            method: "",
            target: String::new(),
            skip: 0,
            left: usize::MAX,
        }
    }

    /// Only requests of this method.
    #[must_use]
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Only requests with this text in their path or query, as they are sent.
    #[must_use]
    pub fn path(mut self, text: impl Into<String>) -> Self {
        self.target = text.into();
        self
    }

    /// The first `count` of the requests that match pass untouched.
    #[must_use]
    pub fn skip(mut self, count: usize) -> Self {
        self.skip = count;
        self
    }

    /// It happens to this many of the requests that match, and no more.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.left = count;
        self
    }

    /// It happens once.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// What happens to a request, which is counted.
    pub(super) fn apply(&mut self, method: &str, target: &str) -> Option<Action> {
        if !fits(self.method, &self.target, method, target) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        Some(self.action.clone())
    }
}

/// Whether a request is of a method (any where empty) and has a text in its path or query.
pub(super) fn fits(method: &str, text: &str, its_method: &str, its_target: &str) -> bool {
    (method.is_empty() || method == its_method) && its_target.contains(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_counts_the_requests_that_match() {
        let mut rule = Rule::new(Action::LoseAnswer)
            .method("PUT")
            .path("part=2")
            .skip(1)
            .once();
        let mut applies = |method, target| rule.apply(method, target).is_some();
        assert!(!applies("PUT", "/a?part=2"), "skipped");
        assert!(!applies("GET", "/a?part=2") && !applies("PUT", "/a?part=1"), "others");
        assert!(applies("PUT", "/b?x&part=2"));
        assert!(!applies("PUT", "/b?x&part=2"), "once");
    }
}
