//! A VM's configuration as Proxmox VE gives it. The reader is private to its crate: so its source is taken in here.
#![no_main]
#![allow(dead_code, unused_imports, clippy::all)]

#[path = "../../crates/provider/src/error.rs"]
mod error;
#[path = "../../crates/provider/src/model.rs"]
mod model;
#[path = "../../crates/provider/src/proxmox/config/mod.rs"]
mod config;

pub use error::*;
pub use model::*;
pub use vmferry_image::ImageFormat;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let options = lines.map(|(option, value)| (option.trim().to_owned(), value.trim().to_owned())).collect();
    let config = config::VmConfig::read(&options);
    assert_eq!(config.disks.len(), config.hardware.disks.len());
});
