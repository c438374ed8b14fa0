//! Transfers that nothing disturbs, and what they find wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use proptest::prelude::*;
use vmferry_image::ImageFormat::{self, Qcow2, Raw, Vmdk};
use vmferry_staging::StagingStore as _;

use super::support::*;
use crate::export::export_tuned;
use crate::{Kind, Progress, TargetForm, verify_volume};

const SPREAD: [(u64, u64); 4] = [
    (0, 70_000),
    (5 * MIB + 4096, 3 * MIB),
    (9 * MIB, 512),
    (20 * MIB - 5, 5),
];

async fn there_and_back(source: ImageFormat, staged: ImageFormat, target: ImageFormat, concurrency: usize, grow: u64) {
    let lab = Lab::new();
    let (capacity, raw) = (20 * MIB, lab.disk("disk.raw", 20 * MIB, &SPREAD, 1));
    let mut disk = raw.clone();
    if source == Qcow2 {
        disk = lab.path("disk.qcow2");
        qemu_img(&[
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            raw.to_str().unwrap(),
            disk.to_str().unwrap(),
        ]);
    }
    let source = FileSource::open(&disk, source).await;
    let export_spec = spec(staged, "frozen-1");
    let sent = export(&source, &*lab.store(), &export_spec).await.unwrap();
    let object = lab.path("staging/ns/migration/disk-0");
    assert_eq!(sent.len, std::fs::metadata(&object).unwrap().len());
    assert_eq!(sent.moved, sent.len);
    let sum = std::process::Command::new("sha256sum")
        .arg(&object)
        .output()
        .unwrap()
        .stdout;
    assert_eq!(sent.checksum.to_string()[7..], String::from_utf8(sum).unwrap()[..64]);
    same_disk(&object, staged, &raw);

    let mut import_spec = import_spec(&export_spec, &sent, capacity, target);
    import_spec.form = TargetForm::Volume {
        format: target,
        capacity: capacity + grow,
    };
    let volume = lab.path("volume");
    let sink = FileSink::create(&volume, concurrency).await;
    let got = import(lab.store(), import_spec, Arc::clone(&sink)).await.unwrap();
    assert!(sink.is_finished());
    assert_eq!(
        (got.checksum, got.content_digest, got.len),
        (sent.checksum, sent.content_digest, sent.len)
    );
    std::fs::File::options()
        .write(true)
        .open(&raw)
        .unwrap()
        .set_len(capacity + grow)
        .unwrap();
    same_disk(&volume, target, &raw);

    let volume = FileSource::open(&volume, target).await;
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    verify_volume(volume, capacity, sent.content_digest, &progress, &cancel)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_of_formats() {
    for source in [Raw, Qcow2] {
        for staged in [Raw, Qcow2, Vmdk] {
            for target in [Raw, Qcow2] {
                there_and_back(source, staged, target, 1, 0).await;
            }
        }
    }
}

/// What is staged as VMDK is what QEMU takes it for, also of a disk that is no whole grain, and of an empty one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_staged_as_vmdk() {
    for (capacity, extents) in [
        (20 * MIB, &SPREAD[..]),
        (40 * MIB + 3 * 512, &[(0, 40 * MIB + 3 * 512)]),
        (MIB, &[]),
    ] {
        let lab = Lab::new();
        let raw = lab.disk("disk.raw", capacity, extents, 1);
        let source = FileSource::raw(&raw).await;
        let spec = spec(Vmdk, "frozen-1");
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        let sent = export_tuned(&*source, &*lab.store(), &spec, &progress, &cancel, SMALL)
            .await
            .unwrap();
        let object = lab.path("staging/ns/migration/disk-0");
        assert_eq!(sent.len, std::fs::metadata(&object).unwrap().len());
        assert_eq!(
            (progress.snapshot().done, progress.snapshot().total),
            (sent.len, sent.len)
        );
        same_disk(&object, Vmdk, &raw);
        let (elsewhere, raw_spec) = (Lab::new(), super::support::spec(Raw, "frozen-1"));
        let plain = export(&source, &*elsewhere.store(), &raw_spec).await.unwrap();
        assert_eq!(sent.content_digest, plain.content_digest);
    }
}

#[tokio::test]
async fn a_disk_grows_on_its_way() {
    there_and_back(Raw, Qcow2, Raw, 4, 13 * MIB).await;
    there_and_back(Raw, Vmdk, Qcow2, 4, 13 * MIB).await;
    there_and_back(Raw, Qcow2, Qcow2, 4, 13 * MIB).await;
}

#[tokio::test]
async fn an_empty_disk_arrives() {
    let lab = Lab::new();
    let raw = lab.disk("disk.raw", MIB, &[], 1);
    let source = FileSource::raw(&raw).await;
    let export_spec = spec(Qcow2, "frozen-1");
    let sent = export(&source, &*lab.store(), &export_spec).await.unwrap();
    let sink = FileSink::create(&lab.path("volume"), 1).await;
    import(lab.store(), import_spec(&export_spec, &sent, MIB, Qcow2), sink)
        .await
        .unwrap();
    same_disk(&lab.path("volume"), Qcow2, &raw);
}

#[tokio::test]
async fn a_tebibyte_of_nothing_takes_no_time() {
    let lab = Lab::new();
    let capacity = 1 << 40;
    let raw = lab.disk(
        "disk.raw",
        capacity,
        &[(0, 4096), (capacity / 2, MIB), (capacity - 4096, 4096)],
        1,
    );
    let (source, started) = (FileSource::raw(&raw).await, Instant::now());
    let export_spec = spec(Qcow2, "frozen-1");
    let sent = export(&source, &*lab.store(), &export_spec).await.unwrap();
    let sink = FileSink::create(&lab.path("volume"), 1).await;
    import(lab.store(), import_spec(&export_spec, &sent, capacity, Raw), sink)
        .await
        .unwrap();
    let volume = FileSource::raw(&lab.path("volume")).await;
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    verify_volume(volume, capacity, sent.content_digest, &progress, &cancel)
        .await
        .unwrap();
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    assert!(source.bytes.load(Ordering::Relaxed) < 4 * MIB as usize);
}

#[tokio::test]
async fn one_wrong_byte_in_staging_is_found() {
    use std::os::unix::fs::FileExt as _;
    let lab = Lab::new();
    let source = FileSource::raw(&lab.disk("disk.raw", 20 * MIB, &SPREAD, 1)).await;
    let export_spec = spec(Qcow2, "frozen-1");
    let sent = export(&source, &*lab.store(), &export_spec).await.unwrap();
    let object = std::fs::File::options()
        .read(true)
        .write(true)
        .open(lab.path("staging/ns/migration/disk-0"))
        .unwrap();
    // The header, a reserved byte of the header, a table, the first and the last byte of the data.
    for (index, at) in [0, 500, 3 << 16, 6 << 16, sent.len - 1].into_iter().enumerate() {
        let mut byte = [0];
        object.read_exact_at(&mut byte, at).unwrap();
        object.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let sink = FileSink::create(&lab.path(&format!("volume-{index}")), 1).await;
        let spec = import_spec(&export_spec, &sent, 20 * MIB, Raw);
        let error = import(lab.store(), spec, Arc::clone(&sink)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::StagedCorrupt, "byte {at}: {error}");
        assert!(!sink.is_finished());
        object.write_all_at(&byte, at).unwrap();
    }
    let mut wrong = import_spec(&export_spec, &sent, 20 * MIB, Raw);
    wrong.content_digest = wrong.checksum;
    let sink = FileSink::create(&lab.path("volume"), 1).await;
    let error = import(lab.store(), wrong, sink).await.unwrap_err();
    assert_eq!(error.kind(), Kind::StagedCorrupt);
    for digest in [sent.checksum, sent.content_digest] {
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
    }
}

#[tokio::test]
async fn one_wrong_byte_in_a_staged_vmdk_is_found() {
    use std::os::unix::fs::FileExt as _;
    let lab = Lab::new();
    let source = FileSource::raw(&lab.disk("disk.raw", 20 * MIB, &SPREAD, 1)).await;
    let export_spec = spec(Vmdk, "frozen-1");
    let sent = export(&source, &*lab.store(), &export_spec).await.unwrap();
    let object = std::fs::File::options()
        .read(true)
        .write(true)
        .open(lab.path("staging/ns/migration/disk-0"))
        .unwrap();
    // The header, the padding before the grains, a marker, a grain, the footer, the end marker.
    let places = [
        0,
        60_000,
        65_536,
        65_536 + 700,
        sent.len / 2,
        sent.len - 1000,
        sent.len - 1,
    ];
    for (index, at) in places.into_iter().enumerate() {
        let mut byte = [0];
        object.read_exact_at(&mut byte, at).unwrap();
        object.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let sink = FileSink::create(&lab.path(&format!("volume-{index}")), 1).await;
        let spec = import_spec(&export_spec, &sent, 20 * MIB, Raw);
        let error = import(lab.store(), spec, Arc::clone(&sink)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::StagedCorrupt, "byte {at}: {error}");
        assert!(!sink.is_finished());
        object.write_all_at(&byte, at).unwrap();
    }
}

#[tokio::test]
async fn an_object_of_another_disk_is_refused() {
    let lab = Lab::new();
    let source = FileSource::raw(&lab.disk("disk.raw", 20 * MIB, &SPREAD, 1)).await;
    let export_spec = spec(Qcow2, "frozen-1");
    let sent = export(&source, &*lab.store(), &export_spec).await.unwrap();
    let sink = FileSink::create(&lab.path("volume"), 1).await;
    let error = import(lab.store(), import_spec(&export_spec, &sent, 21 * MIB, Raw), sink)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::StagedCorrupt, "{error}");
    lab.store().delete(&export_spec.object).await.unwrap();
    let sink = FileSink::create(&lab.path("volume-2"), 1).await;
    let error = import(lab.store(), import_spec(&export_spec, &sent, 20 * MIB, Raw), sink)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::StagedCorrupt, "{error}");
}

#[tokio::test]
async fn one_wrong_byte_in_a_volume_is_found() {
    let lab = Lab::new();
    let raw = lab.disk("disk.raw", 20 * MIB, &SPREAD, 1);
    let source = FileSource::raw(&raw).await;
    let sent = export(&source, &*lab.store(), &spec(Qcow2, "frozen-1")).await.unwrap();
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    for at in [100, 12 * MIB, 20 * MIB, 21 * MIB - 1] {
        use std::os::unix::fs::FileExt as _;
        std::fs::copy(&raw, lab.path("copy")).unwrap();
        let copy = std::fs::File::options().write(true).open(lab.path("copy")).unwrap();
        copy.set_len(21 * MIB).unwrap();
        let good = FileSource::raw(&lab.path("copy")).await;
        verify_volume(good, 20 * MIB, sent.content_digest, &progress, &cancel)
            .await
            .unwrap();
        copy.write_all_at(&[7], at).unwrap();
        let bad = FileSource::raw(&lab.path("copy")).await;
        let error = verify_volume(bad, 20 * MIB, sent.content_digest, &progress, &cancel)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::VolumeCorrupt, "byte {at}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_disk_arrives(
        raw_extents in prop::collection::vec((0u64..2 * MIB, 1u64..MIB), 0..12),
        tail in 0u64..3000,
        target_raw in any::<bool>(),
        packed in any::<bool>(),
        concurrency in 1usize..5,
    ) {
        let mut at = 0;
        let extents: Vec<_> = raw_extents.into_iter().map(|(gap, len)| { let start = at + gap; at = start + len; (start, len) }).collect();
        let capacity = (at + tail).next_multiple_of(512).max(512);
        let target = if target_raw { Raw } else { Qcow2 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let lab = Lab::new();
            let raw = lab.disk("disk.raw", capacity, &extents, 1);
            let export_spec = spec(if packed { Vmdk } else { Qcow2 }, "frozen-1");
            let sent = export(&*FileSource::raw(&raw).await, &*lab.store(), &export_spec).await.unwrap();
            let sink = FileSink::create(&lab.path("volume"), concurrency).await;
            import(lab.store(), import_spec(&export_spec, &sent, capacity, target), sink).await.unwrap();
            same_disk(&lab.path("volume"), target, &raw);
        });
    }
}

/// Whoever moves disks does so on tasks: this compiles or it does not.
#[test]
fn transfers_can_be_spawned() {
    fn is_send<T: Send>(_: impl FnOnce() -> T) {}
    type Store = Arc<dyn vmferry_staging::StagingStore>;
    type Source = Arc<dyn vmferry_provider::DiskSource>;
    let export = |source: Source, store: Store| {
        let (progress, cancel) = (Arc::default(), CancellationToken::new());
        async move { crate::export_disk(source, store, spec(Raw, ""), progress, cancel).await }
    };
    let verify = |volume: Source, digest: crate::Digest, progress: Arc<Progress>| async move {
        verify_volume(volume, 0, digest, &progress, &CancellationToken::new()).await
    };
    let import = |import: crate::Import, sink: Arc<FileSink>, progress: Arc<Progress>| async move {
        import.run(sink, &progress, &CancellationToken::new()).await
    };
    let _ =
        |source: Source, store: Store, digest, progress: Arc<Progress>, from: crate::Import, sink: Arc<FileSink>| {
            is_send(|| export(Arc::clone(&source), store));
            is_send(|| verify(source, digest, Arc::clone(&progress)));
            is_send(|| import(from, sink, progress));
        };
}
