//! What a process that was killed held is called off by the next one, long before it ends by itself.

use std::time::Instant;

use tokio::runtime::Runtime;
use vmferry_provider::{Kind, TargetHost};
use vmferry_testkit::MIB;
use vmferry_testkit::vsphere::{Fault, Vsphere};

use super::*;

/// Five minutes are what a lease lives by itself.
const SOON: Duration = Duration::from_secs(20);

/// Begins an import and dies: no word to the server, and no more signs of life.
fn killed_in_the_middle(server: &Vsphere, staged: &Staged) {
    let process = Runtime::new().unwrap();
    process.block_on(async {
        let host = connect(server).await;
        let id = host.create_volume(&volume(0), &owner()).await.unwrap().id;
        let sink = open(&host, &id, staged).await.unwrap();
        write(&*sink, &staged.object, staged.object.len() / 2).await.unwrap();
        std::mem::forget((sink, host));
    });
    process.shutdown_background();
    assert_eq!(server.state().leases.len(), 1);
}

#[test]
fn an_import_that_was_cut_short_is_called_off_by_the_next_process() {
    let server = Vsphere::start();
    let staged = Staged::new(64 * MIB, 1);
    let next = Runtime::new().unwrap();
    let host = next.block_on(connect(&server));

    killed_in_the_middle(&server, &staged);
    let start = Instant::now();
    next.block_on(import(&host, 0, &staged)).unwrap();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_content(&server, "vmferry-0f8fad5bd9cb-0", 0, &staged.image());
    assert_eq!(server.count("CancelTask"), 1);

    // One that was completed is deleted without that.
    next.block_on(host.delete_volume(&volume(0), &owner())).unwrap();
    assert_eq!(server.count("CancelTask"), 1);
    assert_nothing(&server.state());

    // Nor does whoever only cleans up wait for it.
    killed_in_the_middle(&server, &staged);
    let start = Instant::now();
    next.block_on(host.delete_volume(&volume(0), &owner())).unwrap();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_nothing(&server.state());
}

#[test]
fn an_import_that_cannot_be_called_off_is_waited_for() {
    let server = Vsphere::start();
    let staged = Staged::new(32 * MIB, 1);
    let next = Runtime::new().unwrap();
    let host = next.block_on(connect(&server));
    killed_in_the_middle(&server, &staged);
    server.inject(&Fault::of("CancelTask", "NotSupported").times(99));
    let error = next.block_on(import(&host, 0, &staged)).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.to_string().contains("some minutes"), "{error}");
    server.set_lease_timeout(Duration::ZERO);
    vmferry_testkit::wait_for("the end of the lease", SOON, || {
        server.state().leases.is_empty().then_some(())
    });
    server.set_lease_timeout(Duration::from_mins(5));
    next.block_on(import(&host, 0, &staged)).unwrap();
    assert_content(&server, "vmferry-0f8fad5bd9cb-0", 0, &staged.image());
}
