//! Checking an image: whether its tables are sound, and, where asked, whether its compressed content unpacks.
//!
//! Memory is bounded whatever the size of the image: a file is looked at in windows, and only the first findings are kept
//! in words.

mod content;

use std::sync::Arc;

use serde::Serialize;

use crate::layer::Layer;
use crate::tables::Tables;
use crate::{Error, ImageFormat, Kind, Limits, Opener, Source};

/// How many findings are kept in words. The others are counted.
const FINDINGS: usize = 100;

/// How far a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// The tables: where they point to, and, for qcow2, whether reference counts are right.
    #[default]
    Tables,
    /// Also that every compressed cluster or grain unpacks.
    Content,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The image's [`Source::name`].
    pub name: String,
    /// Its format.
    pub format: ImageFormat,
    /// How many errors there are: the image may read wrong, or break when it is written to.
    pub errors: u64,
    /// How many clusters are counted as used and are not: they waste space, and nothing else. qcow2 only.
    pub leaks: u64,
    /// The first of both, in words.
    pub findings: Vec<Finding>,
    /// Clusters or grains of the disk.
    pub total_clusters: u64,
    /// Those of them that are in the file.
    pub allocated_clusters: u64,
    /// Those of them that are compressed.
    pub compressed_clusters: u64,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and where.
    pub detail: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The image may read wrong, or break when it is written to.
    Error,
    /// It wastes space.
    Leak,
}

impl Report {
    fn new(layer: &Layer) -> Self {
        Self {
            name: layer.name().to_owned(),
            format: layer.format(),
            errors: 0,
            leaks: 0,
            findings: Vec::new(),
            total_clusters: 0,
            allocated_clusters: 0,
            compressed_clusters: 0,
        }
    }

    /// Whether no error was found. Leaks do no harm to who reads.
    pub fn is_sound(&self) -> bool {
        self.errors == 0
    }

    /// Counts an error.
    pub(crate) fn error(&mut self, detail: impl FnOnce() -> String) {
        self.errors += 1;
        self.note(Severity::Error, detail);
    }

    /// Counts leaked clusters that lie in a row.
    pub(crate) fn leak(&mut self, clusters: u64, detail: impl FnOnce() -> String) {
        self.leaks += clusters;
        self.note(Severity::Leak, detail);
    }

    /// Counts what a reader would stop at, and lets through what is no finding.
    pub(crate) fn take<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == Kind::Corrupt => {
                self.error(|| error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn note(&mut self, severity: Severity, detail: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS {
            let detail = detail();
            self.findings.push(Finding { severity, detail });
        }
    }
}

/// Checks one image. Its backing file is not opened, and may be missing; the files that a VMDK's descriptor names are opened through `opener`.
///
/// An image that cannot be opened is an error, not a report.
pub async fn check(source: Source, opener: &dyn Opener, limits: Limits, depth: Depth) -> Result<Report, Error> {
    let tables = Arc::new(Tables::new(limits.cache));
    let layer = Layer::open(source, opener, &tables).await?;
    let mut report = Report::new(&layer);
    match &layer {
        Layer::Raw(_) => {}
        Layer::Qcow2(qcow2) => qcow2.check(&mut report).await?,
        Layer::Vmdk(vmdk) => vmdk.check(&mut report).await?,
    }
    // Content is found by tables: where they are wrong, it says nothing more.
    if depth == Depth::Content && report.is_sound() {
        content::check(&layer, tables.window(1), &mut report).await?;
    }
    Ok(report)
}
