//! The front before real servers, with curl as the client.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use vmferry_testkit::Must;
use vmferry_testkit::front::{Action, Front, Reply, Rule};
use vmferry_testkit::stores::{Apache, Nginx};

fn curl(arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20"]).args(arguments);
    command.output().must("run curl")
}

/// The head of the answer, and its body.
fn ask(arguments: &[&str]) -> String {
    let output = curl(&[&["-i"], arguments].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_no_rule_touches_passes_and_is_counted() {
    let (nginx, apache) = (Nginx::start(), Apache::start());
    for address in [nginx.address(), apache.address()] {
        let front = Front::to(&address);
        let url = format!("{}/file", front.url());
        assert!(ask(&["-T", "Cargo.toml", &url]).contains(" 201 "));
        assert!(ask(&["-r", "2-9", &url]).contains(" 206 "));
        assert!(ask(&["-I", &format!("{url}?x=1")]).contains(" 200 "));
        assert_eq!(
            (
                front.count("PUT", "/file"),
                front.count("", "/file"),
                front.count("", "x=1")
            ),
            (1, 3, 1)
        );
        let seen = front.seen();
        assert_eq!(seen[0].body_len(), fs::metadata("Cargo.toml").unwrap().len());
        assert_eq!(seen[1].header("range"), Some("bytes=2-9"));
        assert!(ask(&["-X", "DELETE", &url]).contains(" 204 "));
    }
    assert_eq!((nginx.files(), apache.files()), (Vec::new(), Vec::new()));
}

#[test]
fn rules_disturb_requests_and_answers() {
    let nginx = Nginx::start();
    let front = Front::to(&nginx.address());
    let url = format!("{}/file", front.url());
    fs::write(nginx.root().join("file"), "0123456789").unwrap();

    front.on(Rule::new(Action::Answer(
        Reply::status(503).header("Retry-After", "7").body("busy"),
    ))
    .once());
    let answer = ask(&[&url]);
    assert!(
        answer.contains(" 503 ") && answer.contains("retry-after: 7") && answer.ends_with("busy"),
        "{answer}"
    );
    assert!(ask(&[&url]).ends_with("0123456789"), "once");

    front.on(Rule::new(Action::DropRequestHeader("range")).once());
    assert!(ask(&["-r", "2-3", &url]).contains(" 200 "));
    front.on(Rule::new(Action::Corrupt(3)).once());
    assert!(ask(&[&url]).ends_with("012f456789"));
    front.on(Rule::new(Action::SetAnswerHeader("etag", "other".to_owned())).once());
    assert!(ask(&[&url]).contains("etag: other"));
    front.on(Rule::new(Action::ShiftDate(-86_400 * 365)).once());
    assert!(ask(&[&url]).contains("date: "));

    front.on(Rule::new(Action::CutAnswer(4)).once());
    let cut = curl(&[&url]);
    assert_eq!((cut.status.code(), &cut.stdout[..]), (Some(18), &b"0123"[..]));
    front.on(Rule::new(Action::ClaimLength(20)).once());
    assert_eq!(curl(&[&url]).status.code(), Some(18));
    front.on(Rule::new(Action::ClaimLength(5)).once());
    assert_eq!(curl(&[&url]).stdout, b"01234");
    front.on(Rule::new(Action::StallAnswer(4)).once());
    let stalled = curl(&["--max-time", "1", &url]);
    assert_eq!((stalled.status.code(), &stalled.stdout[..]), (Some(28), &b"0123"[..]));

    let start = Instant::now();
    front.on(Rule::new(Action::Delay(Duration::from_millis(300))).once());
    assert!(curl(&[&url]).status.success() && start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn an_upload_is_cut_or_stalled_and_an_effect_happens_without_its_answer() {
    let nginx = Nginx::start();
    let front = Front::to(&nginx.address());
    let source = nginx.root().join("source");
    fs::write(&source, vec![7; 8 << 20]).unwrap();
    let (source, url) = (source.display().to_string(), format!("{}/file", front.url()));

    front.on(Rule::new(Action::CutRequest(1 << 20)).method("PUT").once());
    assert!(!curl(&["-T", &source, &url]).status.success());
    assert!(front.seen()[0].body_len() < 8 << 20);
    assert!(!nginx.root().join("file").exists());
    front.on(Rule::new(Action::StallRequest(1 << 20)).method("PUT").once());
    assert_eq!(curl(&["--max-time", "1", "-T", &source, &url]).status.code(), Some(28));
    assert!(!nginx.root().join("file").exists());

    front.on(Rule::new(Action::LoseAnswer).method("PUT").once());
    assert!(!curl(&["-T", &source, &url]).status.success());
    assert_eq!(fs::metadata(nginx.root().join("file")).unwrap().len(), 8 << 20);
    front.on(Rule::new(Action::AnswerInstead(Reply::status(500))).method("DELETE"));
    assert!(ask(&["-X", "DELETE", &url]).contains(" 500 "));
    assert!(!nginx.root().join("file").exists());
}

#[test]
fn tls_is_by_an_authority_of_its_own() {
    let nginx = Nginx::start();
    fs::write(nginx.root().join("file"), "content").unwrap();
    let front = Front::builder(&nginx.address()).tls().rewrite_host().start();
    let url = format!("{}/file", front.url());
    let ca = nginx.root().join("ca.crt");
    fs::write(&ca, front.ca().unwrap()).unwrap();
    assert!(ask(&["--cacert", &ca.display().to_string(), &url]).ends_with("content"));
    assert_eq!(curl(&[&url]).status.code(), Some(60));
    assert_eq!(front.count("", ""), 1);
}
