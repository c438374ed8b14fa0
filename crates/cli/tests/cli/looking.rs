//! Commands that only look or print.

use crate::support::{Bench, GOOD};

#[test]
fn good_manifests_are_valid() {
    let bench = Bench::new();
    bench.write("m.yaml", GOOD);
    let ran = bench.run(&["validate", "-f", "m.yaml"]);
    assert!(
        ran.succeeded()
            .contains("1 VMMigration, 2 Provider, 1 VirtualMachine, 1 Secret"),
        "{}",
        ran.out
    );
    let output = bench
        .command(&["validate", "-f", "-"])
        .write_stdin(GOOD)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(!bench.path("state").exists(), "looking makes nothing");
}

#[test]
fn validating_with_the_hosts_says_which_does_not_answer() {
    let bench = Bench::new();
    bench.write("m.yaml", GOOD);
    bench
        .run(&["validate", "-f", "m.yaml", "--connect"])
        .refused(1, &["VMMigration default/web", "/nonexistent/a"]);
    assert!(!bench.path("state").exists());
}

#[test]
fn crds_are_printed_and_written_as_they_are_committed() {
    let bench = Bench::new();
    let printed = bench.run(&["crds"]);
    assert_eq!(printed.succeeded().matches("kind: CustomResourceDefinition").count(), 3);
    bench.run(&["crds", "--write", "out"]).succeeded();
    let committed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    for entry in std::fs::read_dir(bench.path("out")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            std::fs::read(committed.join(name)).unwrap(),
            "{}",
            name.display()
        );
    }
}

#[test]
fn phases_are_explained_in_order() {
    let bench = Bench::new();
    for args in [&["explain", "phases"][..], &["explain", "phases", "--markdown"]] {
        let ran = bench.run(args);
        let places: Vec<_> = ["Pending", "Snapshotting", "Transferring", "Importing", "Failed"]
            .iter()
            .map(|phase| ran.succeeded().find(phase).unwrap())
            .collect();
        assert!(places.is_sorted(), "{places:?}");
    }
}

#[test]
fn every_shell_gets_completions() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = bench.run(&["completion", shell]);
        assert!(
            ran.succeeded().contains("vmferry") && ran.out.contains("max-concurrent"),
            "{shell}"
        );
    }
}

#[test]
fn it_says_its_version_and_how_it_ends() {
    let bench = Bench::new();
    assert!(bench.run(&["--version"]).succeeded().starts_with("vmferry 0."));
    assert!(bench.run(&["run", "--help"]).succeeded().contains("130"));
}

#[test]
fn nothing_known_is_told() {
    let bench = Bench::new();
    assert!(bench.run(&["get"]).succeeded().contains("no migrations in"));
    for command in ["get", "describe", "delete"] {
        bench
            .run(&[command, "web"])
            .refused(2, &["no migration default/web", "known are none", "--state"]);
    }
}
