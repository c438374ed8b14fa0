//! `vmferry get`.

use vmferry_api::manifest::key_of;
use vmferry_api::{VMMigration, names};
use vmferry_local::Record;

use crate::args::{Get, GetFormat};
use crate::exit::{Code, Failure};
use crate::output::{self, units};

/// Lists migrations, as `kubectl get` would.
pub fn get(args: &Get) -> Result<Code, Failure> {
    let store = args.state.look()?;
    let records = match &args.name {
        Some(name) => vec![args.namespace.find(&store, name)?],
        None => store.records(),
    };
    let wanted = |record: &Record| {
        let namespace = &key_of(&record.migration).namespace;
        args.name.is_some()
            || args
                .namespace
                .namespace
                .as_ref()
                .is_none_or(|wanted| wanted == namespace)
    };
    let migrations: Vec<VMMigration> = records
        .into_iter()
        .filter(wanted)
        .map(|record| record.migration)
        .collect();
    if args.output == GetFormat::Json {
        for migration in &migrations {
            output::line(&serde_json::to_string(migration).unwrap_or_default());
        }
        return Ok(Code::Success);
    }
    if migrations.is_empty() {
        output::line(&format!("no migrations in {}", store.dir().root().display()));
        return Ok(Code::Success);
    }
    let wide = args.output == GetFormat::Wide;
    let mut rows = vec![header(wide)];
    rows.extend(migrations.iter().map(|migration| row(migration, wide)));
    for line in table(&rows) {
        output::line(&line);
    }
    Ok(Code::Success)
}

fn header(wide: bool) -> Vec<String> {
    let mut header = vec![
        "NAMESPACE",
        "NAME",
        "PHASE",
        "PROGRESS",
        "SOURCE",
        "TARGET",
        "RATE",
        "AGE",
    ];
    if wide {
        header.extend(["FROM", "TO", "CHECKSUM", "MESSAGE"]);
    }
    header.into_iter().map(str::to_owned).collect()
}

fn row(migration: &VMMigration, wide: bool) -> Vec<String> {
    let key = key_of(migration);
    let status = migration.status.clone().unwrap_or_default();
    let rate: u64 = match status.completion_time {
        Some(_) => 0,
        None => status
            .disks
            .iter()
            .map(|disk| units::count(disk.bytes_per_second))
            .sum(),
    };
    let mut row = vec![
        key.namespace,
        key.name,
        format!("{:?}", status.phase),
        format!("{} %", status.progress),
        migration.spec.source_name.clone(),
        migration.spec.target_name.clone(),
        if rate == 0 { "-".to_owned() } else { units::rate(rate) },
        migration
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or_else(|| "-".to_owned(), units::age),
    ];
    if wide {
        let label = |name: &str| {
            let labels = migration.metadata.labels.as_ref();
            labels
                .and_then(|labels| labels.get(name))
                .cloned()
                .unwrap_or_else(|| "-".to_owned())
        };
        row.extend([
            label(names::LABEL_SOURCE_PROVIDER),
            format!(
                "{} ({})",
                migration.target_provider_key(),
                label(names::LABEL_TARGET_PROVIDER)
            ),
            status.checksum.unwrap_or_else(|| "-".to_owned()),
            status.message.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    row
}

/// Columns of equal width, three spaces between them.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell: &String| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            cells.join("   ").trim_end().to_owned()
        })
        .collect()
}
