//! What the mover's journal is made of: states of hashes, writers and readers. A state that is taken up can be worked with,
//! whatever it says.
#![no_main]

use vmferry_block::{ContentDigest, ContentState, Digest, ObjectHash, ObjectState};
use vmferry_image::vmdk::stream::{GRAIN, Limits, Packer, Reader, ReaderState, Writer, WriterState};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = text.parse::<Digest>();
    if let Ok(state) = serde_json::from_str::<ObjectState>(text)
        && let Some(mut hash) = ObjectHash::restore(&state)
    {
        hash.update(&[1; 100]);
        assert!(hash.len() >= 100);
        hash.finish();
    }
    if let Ok(state) = serde_json::from_str::<ContentState>(text)
        && let Some(digest) = ContentDigest::restore(&state)
    {
        let again = ContentDigest::restore(&digest.save()).expect("our own state");
        assert_eq!(again.position(), digest.position());
    }
    if let Ok(state) = serde_json::from_str::<WriterState>(text)
        && let Some(mut writer) = Writer::restore(&state)
    {
        assert_eq!(Writer::restore(&writer.save()), Some(writer.clone()));
        let mut out = Vec::new();
        writer.start(&mut out);
        let next = writer.next_guest();
        if next.is_multiple_of(GRAIN) && next < writer.capacity() {
            let len = (writer.capacity() - next).min(GRAIN) as usize;
            let _ = writer.append(&Packer::new().pack(next, &vec![7; len]), &mut out);
        }
        let _ = writer.finish(&mut out);
    }
    if let Ok(state) = serde_json::from_str::<ReaderState>(text)
        && let Some(mut reader) = Reader::restore("file", Limits::default(), &state)
    {
        let _ = reader.capacity();
        let _ = reader.push(&[0; 2048], &mut Vec::new());
        let _ = reader.finish();
    }
});
