//! The custom resources: their fields, defaults and rules.
//!
//! Group `infra.virtrigaud.io`, version `v1beta1`. [`VMMigration`] is ours to the letter of its reference; [`Provider`] and
//! [`VirtualMachine`] accept the manifests that users already have and preserve what they do not know.
//!
//! Architecture Invariant: no hypervisor, no storage and no Kubernetes client is known here.

// The columns that `kubectl get` prints repeat their types, which clippy takes for a slip.
#![allow(clippy::duplicated_attributes)]

mod accepted;
pub mod crd;
mod duration;
mod key;
mod migration;
mod provider;
mod rate;
mod request;
mod status;
mod virtual_machine;

pub mod manifest;
pub mod names;
pub mod rules;
pub mod validate;

pub use accepted::AcceptedSpec;
pub use duration::{GoDuration, ParseDurationError};
pub use k8s_openapi::api::core::v1::Secret;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
pub use key::Key;
pub use kube::{Resource, ResourceExt};
pub use migration::{
    CleanupPolicy, DiskFormat, MigrationStorage, NetworkHint, ObjectReference, ResourceHints, RetryPolicy, StorageType,
    VMMigration, VMMigrationSpec,
};
pub use provider::{Provider, ProviderDefaults, ProviderSpec, ProviderStatus, ProviderType};
pub use rate::{ByteRate, ParseRateError};
pub use status::{DiskStatus, Phase, SourcePower, VMMigrationStatus};
pub use virtual_machine::{
    ImportedDisk, PowerStateSpec, VirtualMachine, VirtualMachineNetwork, VirtualMachineSpec, VirtualMachineStatus,
};
