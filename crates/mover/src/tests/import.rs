//! Imports that are broken off, and what the next attempt makes of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vmferry_image::ImageFormat::{self, Qcow2, Raw, Vmdk};
use vmferry_staging::StagingStore;

use super::support::*;
use crate::import::Tuning;
use crate::{Error, Import, ImportSpec, Kind, Progress, Report, TargetForm};

const CAPACITY: u64 = 40 * MIB;
/// Not whole leaves, and holes within leaves.
const EXTENTS: [(u64, u64); 4] = [
    (4096, 5 * MIB),
    (8 * MIB + 70_000, 10 * MIB),
    (19 * MIB, 200_000),
    (24 * MIB + 300_000, 8 * MIB),
];
/// A note at every mebibyte, and no patience.
const OFTEN: Tuning = Tuning {
    patience: (0, Duration::ZERO),
    stall: Some(Duration::from_secs(30)),
    note: MIB,
    mark: MIB,
};

fn format_of(spec: &ImportSpec) -> ImageFormat {
    match spec.form {
        TargetForm::Volume { format, .. } => format,
        TargetForm::Object => spec.staged_format,
    }
}

/// A disk that is staged.
struct Staged {
    lab: Lab,
    raw: PathBuf,
    spec: ImportSpec,
    report: Report,
}

impl Staged {
    async fn new(staged: ImageFormat, target: ImageFormat) -> Self {
        let lab = Lab::new();
        let raw = lab.disk("disk.raw", CAPACITY, &EXTENTS, 1);
        let export_spec = spec(staged, "frozen-1");
        let report = export(&*FileSource::raw(&raw).await, &*lab.store(), &export_spec)
            .await
            .unwrap();
        let spec = import_spec(&export_spec, &report, CAPACITY, target);
        Self { lab, raw, spec, report }
    }

    fn volume(&self) -> PathBuf {
        self.lab.path("volume")
    }

    /// Opens the volume as a worker does, and imports.
    async fn import(
        &self,
        store: Arc<dyn StagingStore>,
        concurrency: usize,
        tuning: Tuning,
    ) -> (u64, Result<Report, Error>) {
        let cancel = CancellationToken::new();
        let mut import = Import::open(store, self.spec.clone(), &cancel)
            .await
            .unwrap()
            .tuned(tuning);
        let written = import.written();
        let sink = if written > 0 {
            FileSink::reopen(&self.volume(), concurrency, written).await
        } else {
            import.start_over().await.unwrap();
            FileSink::anew(&self.volume(), concurrency).await
        };
        (written, import.run(sink, &Progress::default(), &cancel).await)
    }

    fn arrived(&self, got: &Report) {
        assert_eq!(
            (got.checksum, got.content_digest, got.len),
            (self.report.checksum, self.report.content_digest, self.report.len)
        );
        same_disk(&self.volume(), format_of(&self.spec), &self.raw);
        assert_eq!(self.lab.staged(), [".disk-0.note", "disk-0", "migration", "ns"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_goes_on_by_itself() {
    for (staged, target, concurrency) in [(Qcow2, Raw, 1), (Qcow2, Qcow2, 4), (Vmdk, Raw, 1), (Vmdk, Qcow2, 4)] {
        let staged = Staged::new(staged, target).await;
        let tuning = Tuning {
            patience: (3, Duration::from_millis(1)),
            ..OFTEN
        };
        let store = Arc::new(Faulty::new(staged.lab.store(), i64::MAX, Fault::Before).fails_to_read(2));
        let (_, got) = staged.import(Arc::clone(&store) as _, concurrency, tuning).await;
        staged.arrived(&got.unwrap());
        assert!(store.faults() > 1);
        // What was read ahead when a read failed is read again.
        let most = staged.report.len as usize + store.faults() * 16 * MIB as usize;
        assert!(store.read.load(Ordering::SeqCst) <= most);
    }
}

/// The store is gone for good at any read: the next attempt goes on where this one stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_fails_goes_on_where_it_stopped() {
    for (staged, target) in [(Qcow2, Raw), (Raw, Qcow2), (Vmdk, Raw)] {
        let staged = Staged::new(staged, target).await;
        for after in [2, 3, 4] {
            let store = Arc::new(Faulty::new(staged.lab.store(), i64::MAX, Fault::Before).fails_to_read(after));
            let (_, got) = staged.import(store, 4, OFTEN).await;
            let unreachable = Kind::Staging(vmferry_staging::Kind::Unreachable);
            assert_eq!(got.unwrap_err().kind(), unreachable);

            let store = Arc::new(Faulty::new(staged.lab.store(), i64::MAX, Fault::Before));
            let (written, got) = staged.import(Arc::clone(&store) as _, 4, OFTEN).await;
            let got = got.unwrap();
            staged.arrived(&got);
            assert!(written > 0);
            assert!(got.moved < got.len, "everything was read again");
            // The tables, a leaf, and what is left.
            let read = store.read.load(Ordering::SeqCst) as u64;
            assert!(read <= got.moved + 3 * MIB, "{read} bytes for {}", got.moved);
        }
    }
}

/// The process dies at any time, and what it wrote last is lost, too.
#[test]
fn an_import_whose_process_dies_goes_on_where_it_was_noted() {
    // When a runtime ends it waits for calls that cannot be broken off, as the end of a process does.
    fn process<T>(work: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build().unwrap().block_on(work)
    }
    for (staged, target) in [(Qcow2, Raw), (Qcow2, Qcow2), (Vmdk, Raw)] {
        let staged = process(Staged::new(staged, target));
        let (mut millis, mut attempts, mut went_on) = (2, 0, 0);
        let got = loop {
            let life = Duration::from_millis(millis);
            let import = staged.import(staged.lab.store(), 4, OFTEN);
            match process(async { tokio::time::timeout(life, import).await }) {
                Ok((_, got)) => break got.unwrap(),
                Err(_) => millis = millis * 4 / 3 + 1,
            }
            attempts += 1;
            let cancel = CancellationToken::new();
            let opened = process(Import::open(staged.lab.store(), staged.spec.clone(), &cancel));
            let written = opened.unwrap().written();
            if written > 0 {
                went_on += 1;
                let volume = std::fs::File::options().write(true).open(staged.volume()).unwrap();
                volume.set_len(written).unwrap();
            }
        };
        staged.arrived(&got);
        assert!(
            attempts > 2 && went_on > 0,
            "{went_on} of {attempts} attempts were noted"
        );
    }
}

#[tokio::test]
async fn a_sink_that_keeps_nothing_leaves_no_note() {
    let staged = Staged::new(Qcow2, Raw).await;
    let store = Arc::new(Faulty::new(staged.lab.store(), i64::MAX, Fault::Before).fails_to_read(3));
    let (_, got) = staged.import(store, 1, OFTEN).await;
    got.unwrap_err();
    let (written, got) = staged.import(staged.lab.store(), 1, OFTEN).await;
    assert_eq!(written, 0);
    staged.arrived(&got.unwrap());
}

#[tokio::test]
async fn only_the_same_import_is_gone_on_with() {
    let staged = Staged::new(Qcow2, Raw).await;
    let store = Arc::new(Faulty::new(staged.lab.store(), i64::MAX, Fault::Before).fails_to_read(3));
    let (_, got) = staged.import(store, 4, OFTEN).await;
    got.unwrap_err();
    let written = async |spec: ImportSpec| {
        let cancel = CancellationToken::new();
        let import = Import::open(staged.lab.store(), spec, &cancel).await.unwrap();
        import.written()
    };
    assert!(written(staged.spec.clone()).await > 0);
    let others = [
        ImportSpec {
            volume: "another".to_owned(),
            ..staged.spec.clone()
        },
        ImportSpec {
            form: TargetForm::Volume {
                format: Qcow2,
                capacity: CAPACITY,
            },
            ..staged.spec.clone()
        },
        ImportSpec {
            form: TargetForm::Volume {
                format: format_of(&staged.spec),
                capacity: CAPACITY + MIB,
            },
            ..staged.spec.clone()
        },
        ImportSpec {
            checksum: staged.spec.content_digest,
            ..staged.spec.clone()
        },
    ];
    for other in others {
        assert_eq!(written(other).await, 0);
    }
    // A note that nobody can read is none, and the object replaced by an equal one is another.
    let (store, key) = (staged.lab.store(), staged.spec.object.import());
    let note = store.note(&key).await.unwrap().unwrap();
    store.put_note(&key, "{").await.unwrap();
    assert_eq!(written(staged.spec.clone()).await, 0);
    store.put_note(&key, &note).await.unwrap();
    let object = staged.lab.path("staging/ns/migration/disk-0");
    std::fs::copy(&object, staged.lab.path("copy")).unwrap();
    std::fs::rename(staged.lab.path("copy"), &object).unwrap();
    assert_eq!(written(staged.spec.clone()).await, 0);
}

#[tokio::test]
async fn called_off_it_keeps_what_was_written() {
    let staged = Staged::new(Qcow2, Raw).await;
    let cancel = CancellationToken::new();
    let store = staged.lab.store();
    let import = Import::open(store, staged.spec.clone(), &cancel).await.unwrap();
    let sink = FileSink::create(&staged.volume(), 4).await;
    let progress = Progress::default();
    let off = async {
        while progress.moved() < 5 * MIB {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(import.run(sink, &progress, &cancel), off);
    assert_eq!(outcome.unwrap_err().kind(), Kind::Cancelled);
    let moved = progress.moved();
    let (written, got) = staged.import(staged.lab.store(), 4, OFTEN).await;
    let got = got.unwrap();
    assert!(written > 0);
    assert_eq!(got.moved, got.len - moved);
    staged.arrived(&got);
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up_and_the_place_is_kept() {
    let staged = Staged::new(Qcow2, Raw).await;
    let tuning = Tuning {
        stall: Some(Duration::from_millis(300)),
        ..OFTEN
    };
    let store = Arc::new(Faulty::new(staged.lab.store(), i64::MAX, Fault::Hang).fails_to_read(3));
    let (_, got) = staged.import(store, 4, tuning).await;
    assert_eq!(got.unwrap_err().kind(), Kind::Stalled);
    let (written, got) = staged.import(staged.lab.store(), 4, OFTEN).await;
    assert!(written > 0);
    staged.arrived(&got.unwrap());
}

/// A write that hangs, as on a path that is failing over, and fails after the import was taken for stalled. What it was to write is
/// not there, so nobody may go on behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_after_a_silence_is_not_gone_past() {
    for (staged, target) in [(Qcow2, Raw), (Vmdk, Raw)] {
        let staged = Staged::new(staged, target).await;
        let tuning = Tuning {
            patience: (3, Duration::from_millis(1)),
            // Taken for stalled after three seconds, and given up after five.
            stall: Some(Duration::from_secs(2)),
            ..OFTEN
        };
        let cancel = CancellationToken::new();
        let store = staged.lab.store();
        let mut import = Import::open(store, staged.spec.clone(), &cancel)
            .await
            .unwrap()
            .tuned(tuning);
        import.start_over().await.unwrap();
        let sink = LateFailure::new(FileSink::anew(&staged.volume(), 4).await, 5, Duration::from_secs(4));
        let error = import.run(sink, &Progress::default(), &cancel).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Target(vmferry_provider::Kind::Failed), "{error}");
        let (_, got) = staged.import(staged.lab.store(), 4, OFTEN).await;
        staged.arrived(&got.unwrap());
    }
}
