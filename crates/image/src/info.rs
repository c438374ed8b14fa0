//! What an image says of itself.

use serde::Serialize;

use crate::layer::Layer;
use crate::tables::Tables;
use crate::{Error, ImageFormat, Limits, Opener, Source};

/// What one image of a chain says of itself, for people and for scripts. A field that the format does not have is `None`, and left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// Its [`Source::name`].
    pub name: String,
    /// Its format.
    pub format: ImageFormat,
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Bytes of its file; of all of them, where it has several.
    pub file_size: u64,
    /// Version of the format: 2 or 3 for qcow2, 1 to 3 for vmdk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Bytes of a cluster or a grain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// How clusters are compressed, where some are or can be: `deflate` or `zstd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<&'static str>,
    /// The backing file or parent, as the image names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_file: Option<String>,
    /// The format that is recorded with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_format: Option<String>,
    /// What only qcow2 has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qcow2: Option<Qcow2Info>,
    /// What only vmdk has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmdk: Option<VmdkInfo>,
}

/// What only a qcow2 image says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Qcow2Info {
    /// How many internal snapshots it has. They are not read.
    pub snapshots: u32,
    /// How many bitmaps it has. They are not read.
    pub bitmaps: u32,
    /// Whether clusters have subclusters.
    pub extended_l2: bool,
    /// Width of a reference count in bits.
    pub refcount_bits: u32,
    /// Whether it was not closed, so that reference counts may be stale.
    pub dirty: bool,
}

/// What only a VMDK says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VmdkInfo {
    /// The descriptor's `createType`.
    pub create_type: String,
    /// The content identifier, in hex as the descriptor has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// The content identifier of the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_cid: Option<String>,
    /// Whether one of its files was not closed.
    pub dirty: bool,
    /// Parts of the disk, in order.
    pub extents: Vec<VmdkExtent>,
}

/// A part of a VMDK's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VmdkExtent {
    /// `flat`, `sparse` or `zero`.
    pub kind: &'static str,
    /// Bytes of the disk that it has.
    pub size: u64,
    /// The file, as the descriptor names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Reads what an image says of itself. Its backing file is not opened, and may be missing; the files that a VMDK's descriptor names
/// are opened through `opener`.
pub async fn inspect(source: Source, opener: &dyn Opener, limits: Limits) -> Result<Info, Error> {
    let tables = std::sync::Arc::new(Tables::new(limits.cache));
    Ok(Layer::open(source, opener, &tables).await?.info())
}
