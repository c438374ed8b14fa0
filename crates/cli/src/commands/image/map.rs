//! `vmferry image map`.

use std::io::{self, BufWriter, Write};

use vmferry_block::AllocationMap;

use super::args::Look;
use super::open;
use super::place::Place;
use crate::exit::{Code, Failure};

/// Shows which parts of the disk hold data and which are zeros.
pub async fn map(args: &Look) -> Result<Code, Failure> {
    let place = Place::parse(&args.source)?;
    let opened = open::open(&place, &args.input).await?;
    let map = opened.image.map().await.map_err(Failure::failed)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.shown.as_json() {
        as_json(&mut out, &map)
    } else {
        as_text(&mut out, &map)
    };
    match written.and_then(|()| out.flush()) {
        // Whoever read it has gone, which is no failure of ours.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write the map: {error}")))
        }
        _ => Ok(Code::Success),
    }
}

/// Start, length and whether it is data, over the whole disk.
fn runs(map: &AllocationMap) -> impl Iterator<Item = (u64, u64, bool)> {
    let mut at = 0;
    let end = std::iter::once((map.capacity(), 0));
    let extents = map.extents().iter().map(|extent| (extent.start, extent.len)).chain(end);
    let both = extents.flat_map(move |(start, len)| {
        let zeros = (at, start - at, false);
        at = start + len;
        [zeros, (start, len, true)]
    });
    both.filter(|(_, len, _)| *len > 0)
}

fn as_text(out: &mut impl Write, map: &AllocationMap) -> io::Result<()> {
    writeln!(out, "{:>20} {:>20} CONTENT", "START", "LENGTH")?;
    for (start, len, data) in runs(map) {
        let content = if data { "data" } else { "zeros" };
        writeln!(out, "{start:>20} {len:>20} {content}")?;
    }
    Ok(())
}

fn as_json(out: &mut impl Write, map: &AllocationMap) -> io::Result<()> {
    write!(out, "[")?;
    for (number, (start, len, data)) in runs(map).enumerate() {
        let comma = if number == 0 { "" } else { ",\n " };
        write!(
            out,
            r#"{comma}{{"start":{start},"length":{len},"data":{data},"zero":{}}}"#,
            !data
        )?;
    }
    writeln!(out, "]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_disk_is_covered_once() {
        let mut map = AllocationMap::builder(100);
        map.data(10, 20).unwrap();
        map.data(90, 10).unwrap();
        let map = map.build();
        let found: Vec<_> = runs(&map).collect();
        assert_eq!(found, [(0, 10, false), (10, 20, true), (30, 60, false), (90, 10, true)]);
        let mut text = Vec::new();
        as_json(&mut text, &map).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value[1]["length"], 20);
        assert_eq!(value[2]["zero"], true);
        assert_eq!(runs(&AllocationMap::full(0)).count(), 0);
    }
}
