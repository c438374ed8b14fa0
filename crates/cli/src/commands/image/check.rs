//! `vmferry image check`.

use vmferry_image::{BackingRef, Depth, Limits, Opener, Report, Severity, Source, check as look, inspect};

use super::args::Look;
use super::convert::content;
use super::open::{self, Content};
use super::place::Place;
use crate::exit::{Code, Failure};
use crate::output::line;

/// Looks for damage in an image and in its backing files.
pub async fn check(args: &Look) -> Result<Code, Failure> {
    let place = Place::parse(&args.source)?;
    let located = open::locate(&place, &args.input).await?;
    let reports = match located.content {
        Content::File(source, opener) => chain(source, &*opener).await?,
        // Whoever reads it for us keeps its tables for himself: what can be seen is whether all of it can be read.
        Content::Disk(image, _server) => {
            content(&image, image.capacity(), "checking").await?;
            let (name, format) = (&located.name, located.format);
            if args.shown.as_json() {
                let value = serde_json::json!({ "name": name, "format": format.as_str(), "errors": 0, "leaks": 0 });
                line(&value.to_string());
            } else {
                line(&format!("{name}: no error: all of it can be read"));
            }
            return Ok(Code::Success);
        }
    };
    for report in &reports {
        if args.shown.as_json() {
            line(&serde_json::to_string(report).map_err(Failure::failed)?);
        } else {
            show(report);
        }
    }
    match reports.iter().find(|report| !report.is_sound()) {
        None => Ok(Code::Success),
        Some(damaged) => Err(Failure::failed(format!(
            "image {} is damaged: {} found; restore it from a copy, or see what qemu-img check -r can save",
            damaged.name,
            count(damaged.errors, "error")
        ))),
    }
}

/// The reports of an image and of the files below it, down to the base or to the first that is damaged.
async fn chain(source: Source, opener: &dyn Opener) -> Result<Vec<Report>, Failure> {
    let limits = Limits::default();
    let mut reports = Vec::new();
    let mut next = Some(source);
    while let Some(source) = next.take() {
        let depth = reports.len() as u32 + 1;
        if depth > limits.chain {
            return Err(Failure::failed(format!(
                "cannot check image {}: its backing chain has more than {} files, or is a loop; flatten it first: \
                 qemu-img convert -O qcow2",
                source.name, limits.chain
            )));
        }
        let report = look(source.clone(), opener, limits, Depth::Content).await;
        let report = report.map_err(Failure::failed)?;
        let sound = report.is_sound();
        reports.push(report);
        if !sound {
            break;
        }
        let info = inspect(source, opener, limits).await.map_err(Failure::failed)?;
        if let Some(path) = info.backing_file {
            let backing = BackingRef {
                from: info.name,
                path,
                format: info.backing_format,
                depth,
            };
            next = Some(opener.open_backing(&backing).await.map_err(Failure::failed)?);
        }
    }
    Ok(reports)
}

fn show(report: &Report) {
    let (errors, leaks) = (count(report.errors, "error"), count(report.leaks, "leaked cluster"));
    line(&format!("{}: {errors}, {leaks}", report.name));
    for finding in &report.findings {
        let mark = match finding.severity {
            Severity::Error => "error",
            Severity::Leak => "leak ",
        };
        line(&format!("  {mark}  {}", finding.detail));
    }
    let told = report.findings.len() as u64;
    let left = (report.errors + report.leaks).saturating_sub(told);
    if left > 0 && told >= 100 {
        line("  … and more");
    }
    if report.total_clusters > 0 {
        line(&format!(
            "  {} of {} clusters allocated, {} of them compressed",
            report.allocated_clusters, report.total_clusters, report.compressed_clusters
        ));
    }
}

/// `no error`, `1 error`, `2 errors`.
fn count(number: u64, what: &str) -> String {
    match number {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}
