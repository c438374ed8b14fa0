//! The arguments of `vmferry image`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use crate::args::{Format as Form, StorageHosts};

/// `vmferry image`.
#[derive(Debug, ClapArgs)]
pub struct Image {
    #[command(subcommand)]
    pub action: Action,
}

/// What is done with an image.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Shows what an image is: format, sizes, backing files.
    Info(Look),
    /// Shows which parts of the disk hold data and which are zeros.
    Map(Look),
    /// Looks for damage: reads the tables and every byte of data.
    Check(Look),
    /// Copies a disk into another image, NBD export or staging store.
    Convert(Convert),
}

/// An image to look at.
#[derive(Debug, ClapArgs)]
pub struct Look {
    /// The image: a file, nbd+unix:///EXPORT?socket=PATH, or an object of a store.
    #[arg(value_name = "SRC")]
    pub source: OsString,
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub shown: Shown,
}

/// `vmferry image convert`.
#[derive(Debug, ClapArgs)]
pub struct Convert {
    /// The image: a file, nbd+unix:///EXPORT?socket=PATH, or an object of a store.
    #[arg(value_name = "SRC")]
    pub source: OsString,
    /// Where the copy goes: a file that does not exist yet, an NBD export, or a new object of a store.
    #[arg(value_name = "DST")]
    pub destination: OsString,
    #[command(flatten)]
    pub input: Input,
    /// Format of the copy: raw, qcow2 or vmdk (streamOptimized). Default: by the name of DST.
    #[arg(short = 'O', long = "output-format", value_name = "FORMAT")]
    pub output_format: Option<String>,
    /// Replaces DST if it is a file.
    #[arg(long)]
    pub force: bool,
    /// Reads the copy back and compares it: a file before it gets its name; an object that differs is deleted.
    #[arg(long)]
    pub verify: bool,
    /// Does not take the SHA-256 of the written file: for a raw file it covers the holes, too, at about 0.5 s a GiB.
    #[arg(long)]
    pub no_sha256: bool,
    #[command(flatten)]
    pub shown: Shown,
}

/// How an image is read.
#[derive(Debug, Clone, ClapArgs)]
pub struct Input {
    /// Format of SRC: raw, qcow2, vmdk, or one that qemu-nbd reads (vhdx, vdi, vpc, parallels, qed, …). Default: by its name,
    /// never by its content.
    #[arg(short = 'f', long = "format", value_name = "FORMAT")]
    pub format: Option<String>,
    /// The folder in which backing files may lie. Default: the folder of SRC.
    #[arg(long, value_name = "DIR")]
    pub pool: Option<PathBuf>,
    /// Format of backing files whose format is not recorded.
    #[arg(short = 'F', long, value_name = "FORMAT")]
    pub backing_format: Option<String>,
    #[command(flatten)]
    pub access: Access,
}

/// How the stores among the places are opened.
#[derive(Debug, Clone, ClapArgs)]
pub struct Access {
    /// A manifest with the Secret that opens the stores: the same keys as for spec.storage.
    #[arg(long, value_name = "FILE")]
    pub secret: Option<PathBuf>,
    /// Region of s3:// places.
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Endpoint of s3:// places.
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    #[command(flatten)]
    pub hosts: StorageHosts,
}

/// How the outcome is shown.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub struct Shown {
    /// The form of what is shown.
    #[arg(long, value_enum, default_value_t = Form::Text, value_name = "FORM")]
    pub output: Form,
    /// Short for --output json.
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
}

impl Shown {
    /// Whether the outcome is for a machine.
    pub fn as_json(self) -> bool {
        self.json || self.output == Form::Json
    }
}
