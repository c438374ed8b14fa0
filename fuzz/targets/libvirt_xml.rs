//! XML as a libvirt daemon sends it. The reader is private to its crate, and its crate links libvirt: so its source is taken in here.
#![no_main]
#![allow(dead_code, unused_imports, clippy::all)]

#[path = "../../crates/provider/src/error.rs"]
mod error;
#[path = "../../crates/provider/src/model.rs"]
mod model;
#[path = "../../crates/provider/src/libvirt/xml/mod.rs"]
mod xml;

pub use error::*;
pub use model::*;
pub use vmferry_image::ImageFormat;
use xml::tree::Element;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = xml::DomainXml::parse(text);
    let _ = xml::caps::Capabilities::parse(text);
    let _ = xml::storage::PoolXml::parse(text);
    let _ = xml::storage::VolumeXml::parse(text);
    if let Ok(element) = Element::parse(text)
        && let Ok(written) = element.render()
    {
        // Not the same text: what we write is indented.
        assert_eq!(Element::parse(&written).expect("what we wrote").name(), element.name());
    }
});
