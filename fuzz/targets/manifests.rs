//! Manifests as people write them, and the rules over them.
#![no_main]

use vmferry_api::manifest::{Manifests, Source};
use vmferry_api::validate;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let source = Source {
        name: "file".to_owned(),
        text: text.to_owned(),
    };
    match Manifests::parse(&[source]) {
        Ok(manifests) => {
            for declared in manifests.migrations.values() {
                let _ = validate::migration(&declared.object);
                let _ = validate::bandwidth_limit(&declared.object);
                assert!(validate::migration_update(&declared.object, &declared.object).is_empty());
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            errors.iter().for_each(|error| assert!(!error.to_string().is_empty()));
        }
    }
});
