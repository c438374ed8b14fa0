//! Running, as far as it goes without a host: the engine validates, fails, and the outcome is shown and kept.

use serde_json::Value;

use crate::support::{Bench, GOOD};

/// Bench with a migration that has failed, because nobody answers at its source.
fn failed() -> Bench {
    let bench = Bench::new();
    bench.write("m.yaml", GOOD);
    let ran = bench.run(&["run", "-f", "m.yaml"]);
    assert_eq!(ran.code, 1, "{}\n{}", ran.out, ran.err);
    for words in [
        "default/web",
        "Validating",
        "Failed",
        "/nonexistent/a",
        "vmferry delete default/web",
    ] {
        assert!(ran.out.contains(words), "{words:?} is not in: {}", ran.out);
    }
    assert!(!ran.out.contains("hunter2") && !ran.err.contains("hunter2"));
    bench
}

#[test]
fn a_failure_is_shown_kept_described_and_deleted() {
    let bench = failed();
    let list = bench.run(&["get"]);
    assert!(list.succeeded().starts_with("NAMESPACE   NAME"), "{}", list.out);
    assert!(list.out.contains("default     web    Failed"), "{}", list.out);
    assert!(bench.run(&["get", "web", "-o", "wide"]).succeeded().contains("libvirt"));
    let json: Value = serde_json::from_str(bench.run(&["get", "default/web", "-o", "json"]).succeeded()).unwrap();
    assert_eq!(json["status"]["phase"], "Failed");
    let described = bench.run(&["describe", "web"]);
    for words in [
        "Conditions:",
        "Events:",
        "ValidationStarted",
        "MigrationFailed",
        "m.yaml",
        "/nonexistent/a",
    ] {
        assert!(
            described.succeeded().contains(words),
            "{words:?} is not in: {}",
            described.out
        );
    }

    let again = bench.run(&["run", "-f", "m.yaml"]);
    assert_eq!(again.code, 1, "what has failed stays so until it is deleted");

    assert!(
        bench
            .run(&["delete", "web"])
            .succeeded()
            .contains("default/web  deleted")
    );
    assert!(bench.run(&["get"]).succeeded().contains("no migrations"));
    bench
        .run(&["describe", "web"])
        .refused(2, &["no migration default/web"]);
}

#[test]
fn json_is_one_object_a_line() {
    let bench = Bench::new();
    bench.write("m.yaml", GOOD);
    let ran = bench.run(&["run", "-f", "m.yaml", "--output", "json"]);
    assert_eq!(ran.code, 1);
    let lines: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for kind in ["status", "event", "result"] {
        assert!(
            lines.iter().any(|line| line["type"] == kind),
            "{kind} is not in: {}",
            ran.out
        );
    }
    assert!(lines.iter().all(|line| line["time"].is_string()));
    let result = lines.last().unwrap();
    assert_eq!(result["result"], "Failed");
    assert_eq!(result["migration"]["name"], "web");
    assert_eq!(result["status"]["phase"], "Failed");
}

/// A migration that waits for its retry for an hour.
fn waiting(bench: &Bench) {
    bench.write(
        "m.yaml",
        &GOOD.replace(
            "maxAttempts: 0",
            "maxAttempts: 3, backoffDuration: 1h, maxBackoffDuration: 1h",
        ),
    );
}

#[test]
fn the_time_limit_ends_it_with_the_state_kept() {
    let bench = Bench::new();
    waiting(&bench);
    let ran = bench.run(&["run", "-f", "m.yaml", "--timeout", "1s"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains("--timeout") && ran.out.contains("the same command continues"),
        "{}",
        ran.out
    );
    assert!(bench.run(&["get"]).succeeded().contains("Validating"));

    bench.write(
        "m.yaml",
        &std::fs::read_to_string(bench.path("m.yaml"))
            .unwrap()
            .replace("web-2", "web-3"),
    );
    bench
        .run(&["run", "-f", "m.yaml"])
        .refused(2, &["spec.targetName is \"web-3\"", "cannot change any more"]);
}

#[test]
fn secrets_that_are_gone_are_named_on_deletion() {
    let bench = Bench::new();
    waiting(&bench);
    let manifest = std::fs::read_to_string(bench.path("m.yaml")).unwrap();
    bench.run(&["run", "-f", "m.yaml", "--timeout", "1s"]);
    std::fs::remove_file(bench.path("m.yaml")).unwrap();
    bench
        .run(&["delete", "web"])
        .refused(2, &["m.yaml", "vmferry delete default/web -f PATH"]);
    bench.write("other.yaml", &manifest);
    bench.run(&["delete", "web", "-f", "other.yaml"]).succeeded();
}

#[test]
fn a_host_that_moved_is_corrected_on_deletion() {
    let bench = Bench::new();
    waiting(&bench);
    bench.run(&["run", "-f", "m.yaml", "--timeout", "1s"]);
    let manifest = std::fs::read_to_string(bench.path("m.yaml")).unwrap();
    bench.write(
        "moved.yaml",
        &manifest.replace("/nonexistent/a'", "/nonexistent/moved'"),
    );
    let endpoint = || std::fs::read_to_string(bench.path("state/providers/default/a.json")).unwrap();
    assert!(endpoint().contains("/nonexistent/a\""));
    bench.run(&["delete", "web", "-f", "moved.yaml"]).succeeded();
    assert!(endpoint().contains("/nonexistent/moved\""));
}

#[cfg(target_os = "linux")]
mod signals {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Starts a run in the background and waits until the retry is scheduled.
    fn started(bench: &Bench) -> (Child, BufReader<std::process::ChildStdout>) {
        waiting(bench);
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("vmferry"))
            .current_dir(bench.path(""))
            .env("VMFERRY_STATE", bench.path("state"))
            .args(["run", "-f", "m.yaml"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("retry") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended before its retry");
        }
        (child, out)
    }

    fn kill(child: &Child, signal: &str) {
        let killed = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
    }

    #[test]
    fn an_interrupt_ends_it_with_the_state_kept() {
        for signal in ["INT", "TERM"] {
            let bench = Bench::new();
            let (mut child, out) = started(&bench);
            bench
                .run(&["run", "-f", "m.yaml"])
                .refused(2, &["state directory", &format!("process {}", child.id())]);
            assert!(
                bench.run(&["get"]).succeeded().contains("Validating"),
                "looking goes on meanwhile"
            );
            kill(&child, signal);
            assert_eq!(child.wait().unwrap().code(), Some(130));
            let rest: Vec<_> = out.lines().map(Result::unwrap).collect();
            assert!(rest.last().unwrap().contains("the same command continues"), "{rest:?}");
        }
    }

    #[test]
    fn after_a_kill_the_same_command_goes_on() {
        let bench = Bench::new();
        let (mut child, _) = started(&bench);
        let uid = |bench: &Bench| {
            let json: Value = serde_json::from_str(bench.run(&["get", "web", "-o", "json"]).succeeded()).unwrap();
            (json["metadata"]["uid"].clone(), json["status"]["retryAttempts"].clone())
        };
        let before = uid(&bench);
        child.kill().unwrap();
        child.wait().unwrap();
        let ran = bench.run(&["run", "-f", "m.yaml", "--timeout", "1s"]);
        assert_eq!(ran.code, 1);
        assert_eq!(
            uid(&bench),
            before,
            "the same migration goes on, its retry still scheduled"
        );
    }
}
