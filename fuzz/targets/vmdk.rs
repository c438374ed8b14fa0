//! A VMDK: a descriptor of which every extent is the same file, a file with tables, a stream at any offset.
#![no_main]

use vmferry_image::ImageFormat;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    vmferry_fuzz::block_on(vmferry_fuzz::read_image(ImageFormat::Vmdk, bytes));
});
