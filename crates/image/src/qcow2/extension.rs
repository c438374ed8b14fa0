//! The extensions behind the header [Header extensions].

use super::fields::Fields;
use super::header::corrupt;
use super::spec;
use crate::error::Refusal;

/// What is read of them. Others, and what they are for, can be ignored: who needs to know them is told by a feature bit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) backing_format: Option<String>,
    /// Names of incompatible features, by their bit [Feature name table].
    pub(crate) features: Vec<(u8, String)>,
    pub(crate) bitmaps: Option<Bitmaps>,
}

/// Where the bitmaps are [Bitmaps extension].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bitmaps {
    pub(crate) count: u32,
    pub(crate) directory_offset: u64,
    pub(crate) directory_size: u64,
}

impl Extensions {
    /// Walks the extensions from `start` to where the name of the backing file or the cluster ends them.
    pub(crate) fn parse(fields: &Fields<'_>, start: u64, end: u64) -> Result<Self, Refusal> {
        let (mut all, mut at) = (Self::default(), start);
        while at + 8 <= end {
            let (kind, len) = (fields.u32(at)?, u64::from(fields.u32(at + 4)?));
            let data = at + 8;
            if kind == spec::EXT_END {
                break;
            }
            if data + len > end {
                let detail = format!("a header extension of {len} bytes at {at} goes past the end of the header");
                return Err(corrupt(detail));
            }
            match kind {
                spec::EXT_BACKING_FORMAT => all.backing_format = Some(fields.text(data, len)?),
                spec::EXT_FEATURE_NAMES => all.features = feature_names(fields.bytes(data, len)?),
                spec::EXT_BITMAPS if len >= spec::EXT_BITMAPS_LEN => all.bitmaps = Some(bitmaps(fields, data)?),
                _ => {}
            }
            at = data + len.next_multiple_of(8);
        }
        Ok(all)
    }

    /// The names of these incompatible features, as far as the image names them.
    pub(crate) fn describe(&self, features: u64) -> String {
        let bits = (0..64u8).filter(|bit| features >> bit & 1 == 1);
        let names = bits.map(|bit| {
            let named = self.features.iter().find(|(of, _)| *of == bit);
            named.map_or(format!("bit {bit}"), |(_, name)| format!("{name:?} (bit {bit})"))
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

fn bitmaps(fields: &Fields<'_>, at: u64) -> Result<Bitmaps, Refusal> {
    Ok(Bitmaps {
        count: fields.u32(at)?,
        directory_size: fields.u64(at + 8)?,
        directory_offset: fields.u64(at + 16)?,
    })
}

fn feature_names(table: &[u8]) -> Vec<(u8, String)> {
    let entries = table.as_chunks::<{ spec::FEATURE_NAME_LEN }>().0;
    let named = entries.iter().filter_map(|entry| {
        let (&[kind, bit], name) = entry.split_first_chunk::<2>()?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        (kind == spec::FEATURE_INCOMPATIBLE).then(|| (bit, String::from_utf8_lossy(name).into_owned()))
    });
    named.collect()
}
