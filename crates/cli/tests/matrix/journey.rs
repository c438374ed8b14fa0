//! A VM on its way from one hypervisor to another.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vmferry_testkit::{DiskSpec, Format, MIB, image, poll};

use crate::side::{Found, Kind, Seed, Side, start};
use crate::support::{Crossing, Ferry, Outcome, Place, Record};

/// The VM at the source, and at the target.
pub const VM: &str = "traveller";
pub const ARRIVED: &str = "arrived";
/// The interface's address.
pub const MAC: &str = "52:54:00:12:34:56";
/// How long what ends by itself may take.
const SETTLE: Duration = Duration::from_secs(10);

/// Two hypervisors, a staging storage, and a place for the runs.
pub struct Journey {
    pub from: Box<dyn Side>,
    pub to: Box<dyn Side>,
    pub place: Place,
    pub ferry: Ferry,
    /// What the source's disks were made of.
    pub images: Vec<(PathBuf, Format)>,
    before: (Vec<String>, Vec<String>),
    _folder: TempDir,
}

impl Journey {
    /// A VM of two disks, raw and qcow2, with one interface, shut off.
    pub fn new(from: Kind, to: Kind, place: Place) -> Self {
        Self::of(from, to, place, 2, false)
    }

    /// A VM of so many disks; the first one boots.
    pub fn of(from: Kind, to: Kind, place: Place, disks: usize, running: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let images: Vec<_> = (0..disks).map(|index| make(&folder, index)).collect();
        let (from, to) = (start(from, "a"), start(to, "b"));
        from.seed(&Seed {
            name: VM.to_owned(),
            disks: images.clone(),
            mac: Some(MAC.to_owned()),
            running,
        });
        let before = (from.everything(), to.everything());
        Self {
            from,
            to,
            place,
            ferry: Ferry::new(),
            images,
            before,
            _folder: folder,
        }
    }

    /// The manifests.
    pub fn crossing(&self) -> Crossing {
        crossing("m", (VM, &*self.from), (ARRIVED, &*self.to), &self.place)
            .set("targetNetworkHints", json!([self.to.network()]))
    }

    /// Goes all the way.
    #[track_caller]
    pub fn run(&self, crossing: &Crossing) -> Outcome {
        self.ferry.run(crossing)
    }

    /// Asserts that the VM arrived, whole, and that nothing else came or went anywhere. Gives what it is made of.
    #[track_caller]
    pub fn arrived(&self, outcome: &Outcome) -> Found {
        outcome.ready();
        let found = self.to.found(ARRIVED);
        self.assert_same(0..self.images.len());
        let names = self.to.names(ARRIVED);
        self.assert_left(&names);
        let said = [outcome.text.clone()].into_iter().chain(self.ferry.saved());
        let hidden = [self.from.hidden(), self.to.hidden(), self.place.hidden()];
        for text in said {
            for hidden in hidden.iter().flatten() {
                assert!(!text.contains(hidden), "a secret shows in: {text}");
            }
        }
        found
    }

    /// Asserts that all disks arrived, and that these hold what the source's were made of.
    #[track_caller]
    pub fn assert_same(&self, which: Range<usize>) {
        let disks = self.to.disks(ARRIVED);
        assert_eq!(disks.len(), self.images.len());
        for ((image, format), (arrived, arrived_format)) in
            self.images.iter().zip(&disks).skip(which.start).take(which.len())
        {
            image::assert_same(image, *format, arrived, *arrived_format);
        }
    }

    /// Asserts that nothing came or went but what has one of these names at the target.
    #[track_caller]
    pub fn assert_left(&self, names: &[String]) {
        let change = || {
            let (from, mut to) = (self.from.everything(), self.to.everything());
            to.retain(|line| self.before.1.contains(line) || !names.iter().any(|name| line.contains(name)));
            let staged = self.place.everything();
            (from != self.before.0 || to != self.before.1 || !staged.is_empty()).then_some((from, to, staged))
        };
        if poll(SETTLE, || change().is_none().then_some(())).is_none() {
            let (from, to, staged) = change().unwrap_or_default();
            panic!(
                "not as it was\nsource: {:#?}\nnow: {from:#?}\ntarget: {:#?}\nnow: {to:#?}\nstaged: {staged:#?}",
                self.before.0, self.before.1
            );
        }
        self.from.assert_proper();
        self.to.assert_proper();
    }

    /// What is known of the migration.
    pub fn record(&self) -> Record {
        self.ferry.record("m")
    }
}

/// The manifests that move a VM.
pub fn crossing(name: &str, from: (&str, &dyn Side), to: (&str, &dyn Side), place: &Place) -> Crossing {
    let mut crossing = Crossing {
        name: name.to_owned(),
        spec: json!({
            "sourceName": from.0,
            "sourceNamespace": "default",
            "targetProviderRef": { "name": "b" },
            "targetName": to.0,
            "storage": {},
            "retryPolicy": { "maxAttempts": 3, "backoffDuration": "1s", "maxBackoffDuration": "2s" },
        }),
        vm: Some(json!({ "providerRef": { "name": "a" } })),
        providers: vec![("a".to_owned(), from.1.provider()), ("b".to_owned(), to.1.provider())],
        secrets: Vec::new(),
        annotations: json!({}),
    };
    for (name, side) in [("a", from.1), ("b", to.1)] {
        if let Some(secret) = side.secret() {
            crossing = crossing.secret(name, secret);
        }
    }
    crossing.by(place)
}

/// The content digests of a migration's disks.
pub fn digests(record: &Record) -> Vec<Value> {
    let disks = record.0["status"]["disks"].as_array().unwrap();
    disks.iter().map(|disk| disk["contentDigest"].clone()).collect()
}

fn make(folder: &TempDir, index: usize) -> (PathBuf, Format) {
    let (spec, marker) = match index {
        0 => (DiskSpec::qcow2(32 * MIB).noise(9 * MIB), Some(VM)),
        _ => (DiskSpec::raw((16 + 8 * index as u64) * MIB).noise(3 * MIB), None),
    };
    let path = folder.path().join(format!("{VM}-{index}.{}", spec.format.name()));
    spec.make(&path, marker);
    (path, spec.format)
}
