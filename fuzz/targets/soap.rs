//! SOAP as a vCenter or an ESXi host sends it. The reader is private to its crate, which is more than the fuzzer has to build: so its
//! source is taken in here.
#![no_main]
#![allow(dead_code, unused_imports, clippy::all)]

#[path = "../../crates/provider/src/vsphere/soap/mod.rs"]
mod soap;

use soap::{Arg, Body, Element, Moref, VimFault};

fn look(element: &Element, depth: usize) {
    assert!(depth <= 200, "deeper than what is read");
    let _ = (
        element.moref(),
        element.flag(),
        element.schema_type(),
        VimFault::of_localized(element),
    );
    for child in element.children() {
        look(child, depth + 1);
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(element) = Element::parse(text) {
        look(&element, 0);
    }
    let _ = soap::body(text);
    // What we write is read as it was.
    if let Ok(sent) = soap::envelope(&Moref::vm(text), "M", &[Arg::text("a", text)]) {
        let read = Element::parse(&sent).expect("what we wrote");
        let method = read.at("Body/M").expect("what we wrote");
        assert_eq!(method.text_at("a").unwrap_or_default(), text.trim());
        assert_eq!(
            method.moref_at("_this"),
            Some(Moref::vm(text.trim())).filter(|this| !this.value.is_empty())
        );
    }
});
