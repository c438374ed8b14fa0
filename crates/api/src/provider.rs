//! `Provider`: a hypervisor, as users already declare it. What is not known here is preserved.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SecretReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A hypervisor and how to reach it.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infra.virtrigaud.io",
    version = "v1beta1",
    kind = "Provider",
    plural = "providers",
    category = "virtrigaud",
    namespaced,
    status = "ProviderStatus",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint"),
    printcolumn(name = "Healthy", type_ = "boolean", json_path = ".status.healthy"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSpec {
    /// Which hypervisor.
    #[serde(rename = "type")]
    pub provider_type: ProviderType,
    /// Where it is: `qemu+ssh://root@host/system`, `https://host:8006`, `https://vc/sdk`.
    #[schemars(length(min = 1, max = 2048))]
    pub endpoint: String,
    /// Secret with the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_secret_ref: Option<SecretReference>,
    /// Whether TLS certificates go unverified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
    /// Defaults for placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<ProviderDefaults>,
    /// Everything else (`runtime`, `rateLimit`, `healthCheck`, `connectionPooling`, …), preserved.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A kind of hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderType {
    /// VMware vSphere.
    Vsphere,
    /// libvirt/KVM.
    Libvirt,
    /// Proxmox VE.
    Proxmox,
    /// Firecracker.
    Firecracker,
    /// QEMU.
    Qemu,
}

/// Defaults for placement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderDefaults {
    /// Datastore, storage or pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// Network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Everything else, preserved.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Status of a provider.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderStatus {
    /// Whether it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// Additive: who says so, where it is vmferry itself. Its own migrations ask the host, and do not go by what it said a
    /// while ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_checked_by: Option<String>,
    /// `ProviderAvailable`, `ProviderRuntimeReady`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Everything else, preserved.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}
