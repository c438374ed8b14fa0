//! Short texts: durations, rates, object keys, digests, mount options, host rules. What is read and written again is the same.
//!
//! The parsers of the staging crate are taken in as source: it would bring every client of every store along.
#![no_main]
#![allow(dead_code)]

#[path = "../../crates/staging/src/hosts.rs"]
mod hosts;
#[path = "../../crates/staging/src/key.rs"]
mod key;
#[path = "../../crates/staging/src/nfs/network/options.rs"]
mod options;

use std::fmt::Display;
use std::str::FromStr;

use vmferry_api::{ByteRate, GoDuration};
use vmferry_block::Digest;
use vmferry_image::ImageFormat;

use hosts::HostPolicy;
use key::ObjectKey;
use options::MountOptions;

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
