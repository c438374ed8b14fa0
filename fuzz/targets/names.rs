//! Short texts: durations, rates, object keys, digests, mount options, host rules. What is read and written again is the same.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use vmferry_api::{ByteRate, GoDuration};
use vmferry_block::Digest;
use vmferry_image::ImageFormat;
use vmferry_staging::nfs::MountOptions;
use vmferry_staging::{HostPolicy, ObjectKey};

fn again<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        assert!(written.parse::<T>().is_ok_and(|read| read == value), "{text:?} became {written:?}");
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    again::<GoDuration>(text);
    again::<ByteRate>(text);
    again::<ObjectKey>(text);
    again::<Digest>(text);
    again::<ImageFormat>(text);
    let _ = text.parse::<MountOptions>();
    if let Ok(policy) = HostPolicy::allowing(text.split(',')) {
        let metadata = "169.254.169.254".parse().expect("an address");
        assert!(policy.check("metadata", metadata).is_err(), "the metadata service is never allowed");
    }
    if let Ok(key) = text.parse::<ObjectKey>() {
        let path = std::path::Path::new("/pool").join(key.as_str());
        assert!(path.starts_with("/pool") && path.components().all(|part| part != std::path::Component::ParentDir));
    }
});
