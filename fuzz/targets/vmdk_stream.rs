//! A streamOptimized VMDK, front to back. The first byte says in which sizes it comes.
#![no_main]

use vmferry_image::vmdk::stream::{Limits, Reader, ReaderState, Unpacker};

/// Everything that there is to know of a file: its grains and where it ends.
fn read(bytes: &[u8], step: usize) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let limits = Limits { capacity: 1 << 40 };
    let (mut reader, mut unpacker) = (Reader::new("file", limits), Unpacker::new());
    let (mut grains, mut found) = (Vec::new(), Vec::new());
    let mut out = vec![0; 2 << 20];
    for piece in bytes.chunks(step) {
        reader.push(piece, &mut grains).map_err(|error| error.to_string())?;
        for grain in grains.drain(..) {
            let len = unpacker.unpack(&grain, &mut out).map_err(|error| error.to_string())?;
            let capacity = reader.capacity().expect("the header came");
            assert!(grain.guest + len as u64 <= capacity);
            found.push((grain.guest, out[..len.min(64)].to_vec()));
        }
        let text = serde_json::to_string(&reader.save()).expect("a note");
        let state: ReaderState = serde_json::from_str(&text).expect("our own note");
        assert!(Reader::restore("file", limits, &state).is_some());
    }
    let facts = reader.finish().map_err(|error| error.to_string())?;
    assert_eq!(facts.grains, found.len() as u64);
    assert!(facts.len <= bytes.len() as u64);
    let mut guests: Vec<u64> = found.iter().map(|(guest, _)| *guest).collect();
    guests.sort_unstable();
    guests.dedup();
    assert_eq!(guests.len(), found.len(), "a grain came twice");
    Ok(found)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((step, file)) = bytes.split_first() else { return };
    let whole = read(file, file.len().max(1));
    let pieces = read(file, 512 + usize::from(*step) * 97);
    assert_eq!(whole.is_ok(), pieces.is_ok(), "{whole:?} {pieces:?}");
    if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
        assert_eq!(whole, pieces);
    }
});
