//! Bad input: exit status 2, a message that names what is wrong, and nothing started.

use crate::support::{Bench, GOOD};

/// Both `run` and `validate` refuse `text` with these words, and leave no state.
#[track_caller]
fn refused(text: &str, words: &[&str]) {
    let bench = Bench::new();
    bench.write("m.yaml", text);
    for command in ["run", "validate"] {
        bench.run(&[command, "-f", "m.yaml"]).refused(2, words);
        assert!(!bench.has_state());
    }
}

#[test]
fn a_misspelt_field() {
    refused(
        &GOOD.replace("targetName", "targetNme"),
        &[
            "m.yaml, document 1",
            "VMMigration default/web",
            "spec.targetNme",
            "did you mean targetName?",
        ],
    );
}

#[test]
fn a_value_that_makes_no_sense() {
    refused(
        &GOOD.replace("maxAttempts: 0", "backoffDuration: 5 minutes"),
        &["spec.retryPolicy.backoffDuration", "5 minutes", "1h30m", "line 11"],
    );
    refused(
        &GOOD.replace("path: /nonexistent/staging", "path: staging"),
        &["spec.storage.path is \"staging\"", "absolute"],
    );
    refused(
        &GOOD.replace(", path: /nonexistent/staging", ""),
        &["spec.storage.path", "needs a path"],
    );
    refused(
        &GOOD.replace("web-2", "../../etc"),
        &["spec.targetName is \"../../etc\"", "letters, digits"],
    );
}

#[test]
fn a_limit_that_is_no_rate() {
    let annotated = |rate: &str| {
        let annotations =
            format!("  name: web\n  annotations: {{migration.virtrigaud.io/bandwidth-limit: '{rate}'}}\n");
        GOOD.replacen("  name: web\n", &annotations, 1)
    };
    let words = [
        "metadata.annotations[migration.virtrigaud.io/bandwidth-limit]",
        "\"50 Mbit\"",
        "50MiB",
    ];
    refused(&annotated("50 Mbit"), &words);
    refused(&annotated("10"), &["\"10\" is not a rate", "64KiB or more"]);
    let bench = Bench::new();
    bench.write("m.yaml", &annotated("50MiB"));
    bench.run(&["validate", "-f", "m.yaml"]).succeeded();
    let run = bench.run(&["run", "-f", "m.yaml", "--bandwidth-limit", "fast"]);
    run.refused(2, &["--bandwidth-limit", "\"fast\" is not a rate"]);
    assert!(!bench.has_state());
}

#[test]
fn an_allowed_host_that_is_none() {
    let bench = Bench::new();
    bench.write("m.yaml", GOOD);
    for command in ["run", "validate"] {
        let hosts = ["--allowed-storage-hosts", "s3.example.com,10.0.0.0/99"];
        let ran = bench.run(&[&[command, "-f", "m.yaml"][..], &hosts].concat());
        ran.refused(
            2,
            &["--allowed-storage-hosts", "\"10.0.0.0/99\" is not a host", "10.0.0.0/8"],
        );
        assert!(!bench.has_state());
    }
}

#[test]
fn a_kind_that_is_not_known() {
    refused(
        &format!("{GOOD}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\n"),
        &["m.yaml, document 6", "apps/v1 Deployment"],
    );
}

#[test]
fn two_documents_of_one_name() {
    let provider = "---\napiVersion: infra.virtrigaud.io/v1beta1\nkind: Provider\nmetadata: {name: b}\nspec: {type: libvirt, endpoint: x}\n";
    refused(
        &format!("{GOOD}{provider}"),
        &["m.yaml, document 6", "Provider default/b", "document 3"],
    );
}

#[test]
fn what_is_named_and_not_there() {
    refused(
        &GOOD.replace("kind: Secret\nmetadata: {name: b}", "kind: Secret\nmetadata: {name: c}"),
        &[
            "VMMigration default/web",
            "credentialSecretRef of Provider default/b",
            "Secret default/b",
        ],
    );
    refused(
        &GOOD.replace("{name: a}\n", "{name: z}\n"),
        &["spec.providerRef of VirtualMachine default/web", "Provider default/a"],
    );
    refused(
        &GOOD.replace("sourceName: web", "sourceName: wob"),
        &["spec.sourceName", "VirtualMachine default/wob"],
    );
    refused(
        &GOOD.replace("targetProviderRef: {name: b}", "targetProviderRef: {name: c}"),
        &["spec.targetProviderRef", "Provider default/c"],
    );
}

#[test]
fn a_secret_in_a_bad_form_is_not_shown() {
    refused(
        &GOOD.replace("stringData: {password: hunter2}", "data: {password: hunter2!}"),
        &["Secret default/b", "data.password is not base64"],
    );
}

#[test]
fn nothing_to_do() {
    let bench = Bench::new();
    bench.write("m.yaml", "# nothing\n");
    bench.run(&["run", "-f", "m.yaml"]).refused(2, &["no VMMigration"]);
    bench
        .run(&["validate", "-f", "m.yaml"])
        .refused(2, &["declare nothing"]);
    assert!(!bench.has_state());
}

#[test]
fn files_that_cannot_be_read() {
    let bench = Bench::new();
    bench
        .run(&["run", "-f", "nowhere.yaml"])
        .refused(2, &["nowhere.yaml", "No such file"]);
    std::fs::create_dir(bench.path("empty")).unwrap();
    bench
        .run(&["run", "-f", "empty"])
        .refused(2, &["empty", "no .yaml, .yml or .json file"]);
    std::fs::write(bench.path("bytes.yaml"), b"\xff\xfe\x00").unwrap();
    bench
        .run(&["run", "-f", "bytes.yaml"])
        .refused(2, &["bytes.yaml", "UTF-8"]);
    bench.run(&["run"]).refused(2, &["--filename"]);
    assert!(!bench.has_state());
}

#[test]
fn all_files_are_told_of_at_once() {
    let bench = Bench::new();
    bench.write("d/1.yaml", &GOOD.replace("targetName", "targetNme"));
    bench.write("d/2.yml", "kind: [");
    bench.write("d/ignored.txt", "kind: [");
    bench.write("d/.hidden.yaml", "kind: [");
    let ran = bench.run(&["run", "-f", "d"]);
    ran.refused(2, &["1.yaml, document 1", "2.yml, document 1"]);
    assert!(!ran.err.contains("ignored") && !ran.err.contains("hidden"));
}

#[test]
fn standard_input_is_named() {
    let bench = Bench::new();
    let output = bench
        .command(&["run", "-f", "-"])
        .write_stdin("kind: X\n")
        .output()
        .unwrap();
    crate::support::Ran::from(output).refused(2, &["stdin, document 1", "apiVersion is missing"]);
}

#[test]
fn a_timeout_that_is_no_duration() {
    let bench = Bench::new();
    bench
        .run(&["run", "-f", "x", "--timeout", "soon"])
        .refused(2, &["--timeout", "soon", "1h30m"]);
}

#[test]
fn a_state_directory_that_is_something_else() {
    let bench = Bench::new();
    bench.write("m.yaml", GOOD);
    bench.write("home/thesis.txt", "dear");
    bench
        .run(&["run", "-f", "m.yaml", "--state", "home"])
        .refused(2, &["home", "thesis.txt", "--state"]);
    assert_eq!(std::fs::read_dir(bench.path("home")).unwrap().count(), 1);
}
