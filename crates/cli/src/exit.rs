//! How a command ends.

use std::fmt;
use std::process::ExitCode;

/// What a command ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// All is well.
    Success,
    /// It was tried and failed.
    Failed,
    /// The input is bad, and nothing was started.
    BadInput,
    /// It was interrupted, with the state kept.
    Interrupted,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(match code {
            Code::Success => 0,
            Code::Failed => 1,
            Code::BadInput => 2,
            Code::Interrupted => 130,
        })
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// What the process ends with.
    pub code: Code,
    /// What, where, and what to do: one line each.
    pub messages: Vec<String>,
}

impl Failure {
    /// Bad input: nothing was started.
    pub fn bad_input(message: impl fmt::Display) -> Self {
        Self {
            code: Code::BadInput,
            messages: vec![message.to_string()],
        }
    }

    /// Several faults of the input.
    pub fn all_bad<T: fmt::Display>(messages: impl IntoIterator<Item = T>) -> Self {
        let messages = messages.into_iter().map(|message| message.to_string()).collect();
        Self {
            code: Code::BadInput,
            messages,
        }
    }

    /// It was tried and failed.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self {
            code: Code::Failed,
            messages: vec![message.to_string()],
        }
    }
}
