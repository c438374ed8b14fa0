//! `VirtualMachine`: a VM, as users already declare it. What is not known here is preserved.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ObjectReference;

/// A VM at a provider.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infra.virtrigaud.io",
    version = "v1beta1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    category = "virtrigaud",
    namespaced,
    status = "VirtualMachineStatus",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.providerRef.name"),
    printcolumn(name = "Power", type_ = "string", json_path = ".status.powerState"),
    printcolumn(name = "ID", type_ = "string", json_path = ".status.id"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineSpec {
    /// The Provider that it runs at.
    pub provider_ref: ObjectReference,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_ref: Option<ObjectReference>,
    /// The disk that it was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_disk: Option<ImportedDisk>,
    /// Its networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<VirtualMachineNetwork>,
    /// Whether it is to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_state: Option<PowerStateSpec>,
    /// Everything else (`imageRef`, `disks`, `resources`, `placement`, …), preserved.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A disk that a VM was imported from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImportedDisk {
    /// The volume at the provider.
    #[serde(rename = "diskID", skip_serializing_if = "Option::is_none")]
    pub disk_id: Option<String>,
    /// Its format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Where it came from: `migration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The migration that brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration_ref: Option<ObjectReference>,
    /// Its size in GiB.
    #[serde(rename = "sizeGiB", skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<i64>,
    /// Everything else, preserved.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A network of a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineNetwork {
    /// Its name.
    pub name: String,
    /// MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Everything else, preserved.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Whether a VM is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PowerStateSpec {
    /// It is to run.
    On,
    /// It is to be shut off.
    Off,
    /// It is to be shut down by its guest.
    OffGraceful,
}

/// Status of a VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualMachineStatus {
    /// Its id at the provider: libvirt domain name, vSphere MoRef, Proxmox VMID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Everything else (`powerState`, `ips`, `phase`, `conditions`, …), preserved.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
