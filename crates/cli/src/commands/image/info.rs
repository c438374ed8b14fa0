//! `vmferry image info`.

use serde::Serialize;
use vmferry_image::{Info, Limits, inspect};

use super::args::Look;
use super::open::{self, Content};
use super::place::Place;
use crate::exit::{Code, Failure};
use crate::output::{line, units};

/// What is told of an image.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Told {
    /// One that vmferry reads.
    Native(Box<Native>),
    /// One that another process reads.
    Disk(Disk),
}

/// What an image says of itself, and its file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Native {
    #[serde(flatten)]
    info: Info,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_usage: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Disk {
    name: String,
    format: &'static str,
    virtual_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "diskUsage")]
    usage: Option<u64>,
}

/// Shows what an image is. Its backing files are not opened.
pub async fn info(args: &Look) -> Result<Code, Failure> {
    let place = Place::parse(&args.source)?;
    let located = open::locate(&place, &args.input).await?;
    let disk_usage = located.disk_usage;
    let told = match located.content {
        Content::File(source, opener) => {
            let info = inspect(source, &*opener, Limits::default())
                .await
                .map_err(Failure::failed)?;
            Told::Native(Box::new(Native { info, disk_usage }))
        }
        Content::Disk(image, _server) => Told::Disk(Disk {
            name: located.name,
            format: located.format.as_str(),
            virtual_size: image.capacity(),
            usage: disk_usage,
        }),
    };
    if args.shown.as_json() {
        line(&serde_json::to_string(&told).map_err(Failure::failed)?);
        return Ok(Code::Success);
    }
    for (name, value) in rows(&told) {
        line(&format!("{name:<15} {value}"));
    }
    Ok(Code::Success)
}

fn rows(told: &Told) -> Vec<(&'static str, String)> {
    match told {
        Told::Disk(disk) => {
            let mut rows = vec![
                ("image", disk.name.clone()),
                ("format", disk.format.to_owned()),
                ("virtual size", bytes(disk.virtual_size)),
            ];
            rows.extend(disk.usage.map(|usage| ("on the disk", bytes(usage))));
            rows
        }
        Told::Native(native) => native_rows(native),
    }
}

fn native_rows(Native { info, disk_usage }: &Native) -> Vec<(&'static str, String)> {
    let version = info.version.map(|version| format!(", version {version}"));
    let mut rows = vec![
        ("image", info.name.clone()),
        ("format", format!("{}{}", info.format, version.unwrap_or_default())),
        ("virtual size", bytes(info.virtual_size)),
        ("file size", bytes(info.file_size)),
    ];
    rows.extend(disk_usage.map(|usage| ("on the disk", bytes(usage))));
    rows.extend(info.cluster_size.map(|size| ("cluster size", bytes(size))));
    rows.extend(info.compression.map(|how| ("compression", how.to_owned())));
    if let Some(backing) = &info.backing_file {
        let format = info.backing_format.as_ref();
        let format = format.map_or("format not recorded".to_owned(), ToString::to_string);
        rows.push(("backing file", format!("{backing:?} ({format})")));
    }
    if let Some(qcow2) = &info.qcow2 {
        rows.push(("snapshots", qcow2.snapshots.to_string()));
        rows.push(("bitmaps", qcow2.bitmaps.to_string()));
        if qcow2.extended_l2 {
            rows.push(("subclusters", "yes".to_owned()));
        }
        if qcow2.dirty {
            rows.push((
                "state",
                "it was not closed: its reference counts may be stale".to_owned(),
            ));
        }
    }
    if let Some(vmdk) = &info.vmdk {
        rows.push(("created as", vmdk.create_type.clone()));
        for extent in &vmdk.extents {
            let file = extent.file.as_ref().map(|file| format!(" in {file:?}"));
            let text = format!("{} of {}{}", extent.kind, bytes(extent.size), file.unwrap_or_default());
            rows.push(("extent", text));
        }
    }
    rows
}

fn bytes(number: u64) -> String {
    format!("{} ({number} bytes)", units::size(number))
}
