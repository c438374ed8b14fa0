//! Who is let in, and whom we trust.

use secrecy::SecretString;
use vmferry_testkit::vsphere::{Fault, Options, VmSeed, Vsphere};

use super::{config, connect, named};
use crate::vsphere::VSphere;
use crate::{Hypervisor, Kind};

#[tokio::test]
async fn one_logs_in_and_out() {
    let server = Vsphere::start();
    let before = server.state().sessions;
    let vsphere = connect(&server).await;
    vsphere.check().await.unwrap();
    assert!(
        vsphere.describe().starts_with("vCenter 127.0.0.1:"),
        "{}",
        vsphere.describe()
    );
    assert_eq!(server.state().sessions, before + 1);
    drop(vsphere);
    let is_out = || (server.state().sessions == before).then_some(());
    tokio::task::yield_now().await;
    for _ in 0..100 {
        if is_out().is_some() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the session is still there");
}

#[tokio::test]
async fn wrong_credentials_are_denied_without_being_shown() {
    let server = Vsphere::start();
    let mut wrong = config(&server);
    wrong.credentials.password = Some(SecretString::from("hunter2"));
    let error = VSphere::connect(wrong.clone()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("Secret"), "{error}");
    assert!(!format!("{error:?} {wrong:?}").contains("hunter2"));
    wrong.credentials.password = None;
    assert_eq!(VSphere::connect(wrong).await.err().unwrap().kind(), Kind::Denied);
}

#[tokio::test]
async fn a_password_that_cannot_be_sent_is_not_shown() {
    let server = Vsphere::start();
    let mut wrong = config(&server);
    // UTF-16 without a mark, as some editors save it.
    wrong.credentials.password = Some(SecretString::from("h\0unter2\0"));
    let error = VSphere::connect(wrong).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    assert!(error.to_string().contains("password holds a control"), "{error}");
    assert!(!format!("{error:?} {error}").contains("unter2"), "{error}");
}

#[tokio::test]
async fn only_a_certificate_that_somebody_vouches_for_is_trusted() {
    let server = Vsphere::start();
    let mut unknown = config(&server);
    unknown.credentials.ca = None;
    let error = VSphere::connect(unknown.clone()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Untrusted, "{error}");
    assert!(error.to_string().contains("ca.crt"), "{error}");

    let mut said = unknown.clone();
    said.insecure = true;
    VSphere::connect(said).await.unwrap();

    let mut others = unknown.clone();
    others.credentials.ca = Some(Vsphere::start().ca().to_owned());
    // So are authorities.
    others.insecure = true;
    let error = VSphere::connect(others).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Untrusted, "{error}");

    let mut pinned = unknown.clone();
    pinned.credentials.fingerprint = Some(server.thumbprint());
    VSphere::connect(pinned).await.unwrap();

    let mut other = unknown;
    other.credentials.fingerprint = Some("00".repeat(32));
    // A fingerprint is more than the word of somebody who trusts anyone.
    other.insecure = true;
    let error = VSphere::connect(other).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Untrusted, "{error}");
    assert!(error.to_string().contains(&server.thumbprint()), "{error}");
}

#[tokio::test]
async fn a_server_that_is_none_or_too_old_is_told() {
    let mut nobody = config(&Vsphere::start());
    nobody.endpoint = "https://127.0.0.1:1/sdk".to_owned();
    assert_eq!(VSphere::connect(nobody).await.err().unwrap().kind(), Kind::Unreachable);
    let old = Vsphere::with(&Options {
        api_version: Some("6.0".to_owned()),
        ..Options::default()
    });
    let error = VSphere::connect(config(&old)).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

#[tokio::test]
async fn a_session_that_was_ended_is_made_anew_once() {
    let server = Vsphere::start();
    server.seed(&VmSeed::new("web"));
    let vsphere = connect(&server).await;
    let before = server.count("Login");
    server.kill_sessions();
    let looks = (0..8).map(|_| {
        let vsphere = vsphere.clone();
        tokio::spawn(async move { vsphere.find_vm(&named("web")).await })
    });
    for look in looks.collect::<Vec<_>>() {
        look.await.unwrap().unwrap();
    }
    assert_eq!(server.count("Login"), before + 1);
}

#[tokio::test]
async fn a_broken_connection_is_made_again_for_what_only_reads() {
    let server = Vsphere::start();
    let vsphere = connect(&server).await;
    server.inject(&Fault::hang_up("RetrievePropertiesEx").times(2));
    vsphere.check().await.unwrap();
    server.inject(&Fault::hang_up("RetrievePropertiesEx").times(9));
    let error = vsphere.check().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    server.clear();
    vsphere.check().await.unwrap();
}

#[tokio::test]
async fn a_missing_privilege_is_named() {
    let server = Vsphere::start();
    let vsphere = connect(&server).await;
    let fields = serde_json::json!({ "privilegeId": "System.Read" });
    server.inject(&Fault::of("RetrievePropertiesEx", "NoPermission").with(fields));
    let error = vsphere.check().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("System.Read"), "{error}");
}
