//! Guests: what they are made of, how they are made, and what they say.

pub mod micro;
mod spec;
mod xml;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use micro::Counters;
pub use spec::{Bus, DiskSpec, Format, GuestSpec, NicSpec};

use crate::command::Must;
use crate::{Host, MIB, image};

/// How long an emulated guest may take to boot while other tests run.
const BOOT_LIMIT: Duration = Duration::from_mins(1);

/// Where the noise of a disk begins.
const NOISE_START: u64 = 8 * MIB;
/// Where the patterns of a backing chain's layers begin, and how long each is.
const LAYER_START: u64 = 4 * MIB;
const LAYER_LEN: u64 = 64 << 10;

/// A VM on a host.
#[derive(Debug, Clone)]
pub struct Guest<'h> {
    host: &'h Host,
    /// Name of the domain.
    pub name: String,
    /// What it greets with, if it is a micro guest.
    pub marker: String,
    /// Its images, in the order of its disks.
    pub disks: Vec<(PathBuf, Format)>,
}

impl Host {
    /// Makes a guest's disks in the pool `default` and defines it, shut off.
    #[track_caller]
    pub fn define(&self, spec: &GuestSpec) -> Guest<'_> {
        let disks: Vec<_> = spec
            .disks
            .iter()
            .enumerate()
            .map(|(index, disk)| (self.make_disk(spec, index), disk.format))
            .collect();
        self.virsh(["pool-refresh", "default"]);
        let paths: Vec<_> = disks.iter().map(|(path, _)| path.clone()).collect();
        let mut file = tempfile::NamedTempFile::new().must("make a temporary file");
        file.write_all(xml::domain(spec, &paths).as_bytes())
            .must("write the domain's XML");
        self.virsh(["define", &file.path().display().to_string()]);
        Guest {
            host: self,
            name: spec.name.clone(),
            marker: spec.marker.clone(),
            disks,
        }
    }

    /// Makes a micro guest and waits until it has booted.
    #[track_caller]
    pub fn boot(&self, spec: &GuestSpec) -> Guest<'_> {
        let guest = self.define(spec);
        guest.start();
        guest
    }

    /// A guest that something else made on this host.
    pub fn guest(&self, name: &str) -> Guest<'_> {
        let list = self.virsh(["domblklist", name, "--details"]);
        let disks = list.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let path = (words.next()? == "file" && words.next()? == "disk")
                .then(|| words.nth(1))
                .flatten()?;
            let format = if image::info(Path::new(path)).contains("\"format\": \"qcow2\"") {
                Format::Qcow2
            } else {
                Format::Raw
            };
            Some((PathBuf::from(path), format))
        });
        Guest {
            host: self,
            name: name.to_owned(),
            marker: String::new(),
            disks: disks.collect(),
        }
    }

    /// Makes the image of one disk, and gives its path.
    fn make_disk(&self, spec: &GuestSpec, index: usize) -> PathBuf {
        let disk = &spec.disks[index];
        if let Some(existing) = &disk.existing {
            return existing.clone();
        }
        let formats: Vec<_> = disk.backing.iter().chain([&disk.format]).copied().collect();
        let mut below: Option<(PathBuf, Format)> = None;
        for (layer, format) in formats.iter().enumerate() {
            let top = layer + 1 == formats.len();
            let suffix = if top { String::new() } else { format!("-base{layer}") };
            let path = self
                .pool_dir()
                .join(format!("{}-{index}{suffix}.{}", spec.name, format.name()));
            match &below {
                None => make_base(disk, &path, *format, (index == 0).then_some(spec.marker.as_str())),
                Some((base, base_format)) => image::overlay(base, *base_format, &path),
            }
            if formats.len() > 1 {
                let offset = LAYER_START + layer as u64 * LAYER_LEN;
                image::write_pattern(
                    &path,
                    *format,
                    offset,
                    LAYER_LEN,
                    u8::try_from(layer + 1).must("count layers"),
                );
            }
            self.give(&path);
            below = Some((path, *format));
        }
        below.must("make at least one layer").0
    }
}

impl DiskSpec {
    /// Makes this disk's image, on no host yet. With a marker it is one that the micro guest boots from.
    ///
    /// # Panics
    /// Where it has backing files: those are of a host.
    #[track_caller]
    pub fn make(&self, path: &Path, marker: Option<&str>) {
        assert!(self.backing.is_empty(), "a disk of no host stands alone");
        make_base(self, path, self.format, marker);
    }
}

/// Makes the image that stands on no other.
fn make_base(disk: &DiskSpec, path: &Path, format: Format, marker: Option<&str>) {
    let raw_path = path.with_extension("tmp");
    let raw = File::create(&raw_path).must(format!("make {}", raw_path.display()));
    raw.set_len(disk.size).must("set the image's length");
    if let Some(marker) = marker {
        micro::install(&raw, marker);
    }
    write_noise(&raw, disk.noise);
    match format {
        Format::Raw => std::fs::rename(&raw_path, path).must("rename the image"),
        Format::Qcow2 => {
            image::convert(&raw_path, Format::Raw, path, format);
            std::fs::remove_file(&raw_path).must("remove the raw image");
        }
    }
}

/// Writes noise: a xorshift generator, the same for every disk.
fn write_noise(raw: &File, len: u64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0_u8; MIB as usize];
    let mut done = 0;
    while done < len {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let piece = (len - done).min(MIB);
        raw.write_all_at(&block[..piece as usize], NOISE_START + done)
            .must("write noise");
        done += piece;
    }
}

impl Guest<'_> {
    /// Starts it and waits for its greeting.
    #[track_caller]
    pub fn start(&self) {
        self.host.virsh(["start", &self.name]);
        self.await_greeting();
    }

    /// Waits until it greets on its serial console, and gives the number of its boots.
    #[track_caller]
    pub fn await_greeting(&self) -> u32 {
        let greeting = format!("GUEST-BOOT marker={} boots=0x", self.marker);
        let line = self.host.console_line(&self.name, &greeting, BOOT_LIMIT);
        let digits = line
            .rsplit("boots=0x")
            .next()
            .and_then(|rest| rest.get(..8))
            .must(format!("read {line}"));
        u32::from_str_radix(digits, 16).must(format!("read {line}"))
    }

    /// How often it booted: what it says where it runs, else what its disk says.
    #[track_caller]
    pub fn boots(&self) -> u32 {
        if self.state() == "running" {
            self.await_greeting()
        } else {
            self.counters().boots
        }
    }

    /// The state that libvirt gives: `running`, `shut off`, …
    #[track_caller]
    pub fn state(&self) -> String {
        self.host.virsh(["domstate", &self.name])
    }

    /// The id that libvirt gives a domain for as long as it runs: the same id means that it ran all the time.
    #[track_caller]
    pub fn run_id(&self) -> String {
        self.host.virsh(["domid", &self.name])
    }

    /// Its XML as it would start the next time.
    #[track_caller]
    pub fn xml(&self) -> String {
        self.host.virsh(["dumpxml", "--inactive", &self.name])
    }

    /// Pulls its plug.
    #[track_caller]
    pub fn destroy(&self) {
        self.host.virsh(["destroy", &self.name]);
    }

    /// The micro guest's counters, out of its first disk.
    #[track_caller]
    pub fn counters(&self) -> Counters {
        let (path, format) = &self.disks[0];
        Counters::read(path, *format)
    }
}
