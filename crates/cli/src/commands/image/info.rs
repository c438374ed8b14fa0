//! `vmferry image info`.

use serde::Serialize;

use super::args::Look;
use super::open::{self, Opened};
use super::place::Place;
use crate::exit::{Code, Failure};
use crate::output::{line, units};

/// What is told of an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    name: String,
    format: &'static str,
    virtual_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_usage: Option<u64>,
    data_bytes: u64,
    /// From the first backing file to the base.
    backing_chain: Vec<String>,
}

/// Shows what an image is.
pub async fn info(args: &Look) -> Result<Code, Failure> {
    let place = Place::parse(&args.source)?;
    let opened = open::open(&place, &args.input).await?;
    let info = gather(&opened).await?;
    if args.shown.as_json() {
        let text = serde_json::to_string(&info).map_err(Failure::failed)?;
        line(&text);
    } else {
        show(&info);
    }
    Ok(Code::Success)
}

async fn gather(opened: &Opened) -> Result<Info, Failure> {
    let map = opened.image.map().await.map_err(Failure::failed)?;
    Ok(Info {
        name: opened.name.clone(),
        format: opened.format.as_str(),
        virtual_size: opened.image.capacity(),
        file_size: opened.file_size,
        disk_usage: opened.disk_usage,
        data_bytes: map.data_bytes(),
        backing_chain: opened.image.chain().skip(1).map(str::to_owned).collect(),
    })
}

fn show(info: &Info) {
    let row = |name: &str, value: &str| line(&format!("{name:<15} {value}"));
    let bytes = |number: u64| format!("{} ({number} bytes)", units::size(number));
    row("image", &info.name);
    row("format", info.format);
    row("virtual size", &bytes(info.virtual_size));
    if let Some(size) = info.file_size {
        row("file size", &bytes(size));
    }
    if let Some(usage) = info.disk_usage {
        row("on the disk", &bytes(usage));
    }
    row("data", &bytes(info.data_bytes));
    for backing in &info.backing_chain {
        row("backing file", backing);
    }
}
