//! What a failure means for the migration.

use vmferry_engine::port::{FailureKind, JobFailure, StoreError};
use vmferry_fault::{Fault, Kind as FaultKind};

/// A failure that says what it says.
pub(crate) fn failure(kind: FailureKind, message: impl Into<String>) -> JobFailure {
    JobFailure {
        kind,
        message: message.into(),
    }
}

/// A failure of the mover.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(crate) fn moving(error: vmferry_mover::Error) -> JobFailure {
    use vmferry_mover::Kind;
    let kind = match error.kind() {
        Kind::FrozenStateGone => FailureKind::FrozenStateGone,
        Kind::StagedCorrupt => FailureKind::StagedCorrupt,
        kind => kind.class().into(),
    };
    failure(kind, error.to_string())
}

/// A failure of a hypervisor.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(crate) fn hypervisor(error: vmferry_provider::Error) -> JobFailure {
    let kind = match error.kind() {
        vmferry_provider::Kind::FrozenStateGone => FailureKind::FrozenStateGone,
        kind => kind.class().into(),
    };
    failure(kind, error.to_string())
}

/// A failure of anything else.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(crate) fn other<K: FaultKind>(error: Fault<K>) -> JobFailure {
    failure(error.class().into(), error.to_string())
}

/// A failure of the store: it holds state, so trying again helps.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(crate) fn store(error: StoreError) -> JobFailure {
    failure(FailureKind::Retryable, error.to_string())
}

/// The job was called off.
pub(crate) fn cancelled() -> JobFailure {
    failure(
        FailureKind::Retryable,
        "the job was called off; what arrived is kept for the next attempt",
    )
}
