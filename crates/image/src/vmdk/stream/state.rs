//! Tables of file sectors as short text, for notes that are written often.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

/// Writes a table whose entries other than 0 ascend: distances to the one before, in groups of seven bits.
pub(super) fn encode(entries: &[u32]) -> String {
    let (mut bytes, mut last) = (Vec::new(), 0);
    let used = entries.iter().rposition(|entry| *entry != 0).map_or(0, |at| at + 1);
    for entry in &entries[..used] {
        let mut step = entry.saturating_sub(last);
        while step >= 0x80 {
            bytes.push(step as u8 | 0x80);
            step >>= 7;
        }
        bytes.push(step as u8);
        last = last.max(*entry);
    }
    BASE64.encode(bytes)
}

/// Reads a table of at most `len` entries, and fills it up to `len`.
pub(super) fn decode(text: &str, len: usize) -> Option<Vec<u32>> {
    let mut bytes = BASE64.decode(text).ok()?.into_iter();
    let (mut entries, mut last) = (Vec::new(), 0u32);
    while let Some(first) = bytes.next() {
        let (mut step, mut shift, mut byte) = (u64::from(first & 0x7f), 7, first);
        while byte & 0x80 != 0 {
            byte = bytes.next()?;
            if shift > 28 {
                return None;
            }
            step |= u64::from(byte & 0x7f) << shift;
            shift += 7;
        }
        let mut entry = 0;
        if step > 0 {
            last = u32::try_from(u64::from(last) + step).ok()?;
            entry = last;
        }
        entries.push(entry);
        if entries.len() > len {
            return None;
        }
    }
    entries.resize(len, 0);
    Some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_it_wrote(steps in prop::collection::vec(prop_oneof![Just(0u32), 1u32..200, any::<u32>()], 0..600)) {
            let mut last = 0u32;
            let table: Vec<u32> = steps.iter().map(|step| {
                last = last.saturating_add(*step);
                if *step == 0 || last == u32::MAX { 0 } else { last }
            }).collect();
            prop_assert_eq!(decode(&encode(&table), table.len()), Some(table));
        }

        #[test]
        fn survives_any_text(text in "[A-Za-z0-9+/]{0,40}") {
            let _ = decode(&text, 16);
        }
    }
}
