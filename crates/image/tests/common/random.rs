//! Random disks, and the streamOptimized files that our writer makes of them.

use proptest::prelude::*;
use vmferry_block::AllocationMap;
use vmferry_image::vmdk::stream::{Adapter, GRAIN, Packer, Writer};

use super::noise;

/// What the disk holds: where, and bytes.
pub type Data = Vec<(u64, Vec<u8>)>;

/// Some bytes of a kind: text, dice, zeros, half of each.
pub fn content(kind: u8, seed: u64, len: usize) -> Vec<u8> {
    match kind % 4 {
        0 => format!("line {seed} of a text that compresses; ")
            .into_bytes()
            .into_iter()
            .cycle()
            .take(len)
            .collect(),
        1 => noise(seed, len),
        2 => vec![0; len],
        _ => {
            let mut bytes = noise(seed, len);
            bytes[len / 2..].fill(7);
            bytes
        }
    }
}

pub fn disk_of(capacity: u64, data: &Data) -> Vec<u8> {
    let mut disk = vec![0; capacity as usize];
    for (at, bytes) in data {
        disk[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
    }
    disk
}

pub fn map_of(capacity: u64, data: &Data) -> AllocationMap {
    let mut map = AllocationMap::builder(capacity);
    for (at, bytes) in data {
        map.data(*at, bytes.len() as u64).unwrap();
    }
    map.build()
}

/// Packs a disk in runs of at most `step` grains.
pub fn write(capacity: u64, disk: &[u8], map: &AllocationMap, step: u64) -> Vec<u8> {
    let mut writer = Writer::new(capacity, Adapter::LsiLogic).unwrap();
    let mut out = Vec::new();
    writer.start(&mut out);
    for (start, end) in runs(map, step) {
        let run = Packer::new().pack(start, &disk[start as usize..end as usize]);
        writer.append(&run, &mut out).unwrap();
        assert_eq!(writer.len(), out.len() as u64);
    }
    writer.finish(&mut out).unwrap();
    assert_eq!(writer.len(), out.len() as u64);
    assert!(
        writer.len() <= Writer::most(capacity, map),
        "{} of {}",
        writer.len(),
        Writer::most(capacity, map)
    );
    out
}

pub fn runs(map: &AllocationMap, step: u64) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    for extent in map.align(GRAIN).extents() {
        let mut at = extent.start;
        while at < extent.end() {
            let end = (at + step * GRAIN).min(extent.end());
            runs.push((at, end));
            at = end;
        }
    }
    runs
}

/// Random disks: sectors of capacity, and data as gap, length and kind.
pub fn disks() -> impl Strategy<Value = (u64, Data)> {
    let steps = prop::collection::vec((0u64..1500, 1u64..900, any::<u8>(), any::<u64>()), 0..10);
    (1u64..16_000, steps).prop_map(|(sectors, steps)| {
        let capacity = sectors * 512;
        let (mut at, mut data) = (0, Data::new());
        for (gap, len, kind, seed) in steps {
            let start = at + gap * 512;
            let len = (len * 512).min(capacity.saturating_sub(start));
            if len > 0 {
                data.push((start, content(kind, seed, len as usize)));
            }
            at = start + len;
        }
        (capacity, data)
    })
}
