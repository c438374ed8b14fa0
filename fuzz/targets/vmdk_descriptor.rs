//! The text of a VMDK's descriptor: as a file, and in front of a stream.
#![no_main]

use vmferry_image::ImageFormat;
use vmferry_image::vmdk::stream::{Adapter, Limits, Reader, Writer};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let mut file = b"# Disk DescriptorFile\n".to_vec();
    file.extend_from_slice(text);
    vmferry_fuzz::block_on(vmferry_fuzz::read_image(ImageFormat::Vmdk, &file));

    let mut stream = Vec::new();
    let mut writer = Writer::new(1 << 20, Adapter::Ide).expect("a small disk");
    writer.start(&mut stream);
    let room = &mut stream[512..21 * 512];
    let len = file.len().min(room.len());
    room.fill(0);
    room[..len].copy_from_slice(&file[..len]);
    writer.finish(&mut stream).expect("an empty disk");
    vmferry_fuzz::block_on(vmferry_fuzz::read_image(ImageFormat::Vmdk, &stream));
    let mut reader = Reader::new("stream", Limits::default());
    if reader.push(&stream, &mut Vec::new()).is_ok() {
        reader.finish().expect("the rest is sound");
    }
});
