//! How calls go wrong.

use serde_json::{Value, json};

/// How the next calls of a method go wrong: once, unless it is said how often.
#[derive(Debug, Clone)]
pub struct Fault {
    method: String,
    kind: String,
    message: String,
    fields: Value,
    way: Way,
    skip: u32,
    times: u32,
}

/// What comes of a call that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// An answer, or none, and nothing is done.
    Refused,
    /// A task that fails.
    Task,
    /// It is made, and nobody hears of it.
    Late,
    /// A task that nobody knows.
    Forgotten,
    /// A task that waits.
    Held,
}

impl Fault {
    /// It answers with a fault of this type, as in `NoPermission`.
    pub fn of(method: &str, fault: &str) -> Self {
        Self {
            method: method.to_owned(),
            kind: fault.to_owned(),
            message: format!("injected {fault}"),
            fields: json!({}),
            way: Way::Refused,
            skip: 0,
            times: 1,
        }
    }

    /// The connection ends without an answer, and nothing was done.
    pub fn hang_up(method: &str) -> Self {
        Self::of(method, "")
    }

    /// The call is made, and the connection ends before its answer.
    pub fn lose_answer(method: &str) -> Self {
        Self {
            way: Way::Late,
            ..Self::hang_up(method)
        }
    }

    /// The call gives a task that the server has forgotten when it is asked for it, as after a restart, and nothing was done.
    pub fn forget_task(method: &str) -> Self {
        Self {
            way: Way::Forgotten,
            ..Self::hang_up(method)
        }
    }

    /// The call gives a task that runs until [`go_on`](super::Vsphere::go_on).
    pub fn hold_task(method: &str) -> Self {
        Self {
            way: Way::Held,
            ..Self::hang_up(method)
        }
    }

    /// The call succeeds, and its task ends with the fault.
    #[must_use]
    pub fn in_task(mut self) -> Self {
        self.way = Way::Task;
        self
    }

    /// With the server's own words.
    #[must_use]
    pub fn saying(mut self, message: &str) -> Self {
        message.clone_into(&mut self.message);
        self
    }

    /// With fields of the fault, such as `{"privilegeId": "VApp.Import"}`.
    #[must_use]
    pub fn with(mut self, fields: Value) -> Self {
        self.fields = fields;
        self
    }

    /// Only after so many calls went well.
    #[must_use]
    pub fn after(mut self, calls: u32) -> Self {
        self.skip = calls;
        self
    }

    /// So many times.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "method": self.method, "fault": self.kind, "message": self.message, "fields": self.fields,
            "task": self.way == Way::Task, "late": self.way == Way::Late, "forgotten": self.way == Way::Forgotten,
            "held": self.way == Way::Held, "skip": self.skip, "times": self.times,
        })
    }
}
