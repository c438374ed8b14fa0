//! A qcow2 file, its own backing file.
#![no_main]

use vmferry_image::ImageFormat;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    vmferry_fuzz::block_on(vmferry_fuzz::read_image(ImageFormat::Qcow2, bytes));
});
