//! Being let in.

use secrecy::SecretString;
use vmferry_provider::credentials::Credentials;
use vmferry_provider::proxmox::Proxmox as Host;
use vmferry_provider::{ImageFormat, Kind, TargetHost};
use vmferry_testkit::proxmox::{Proxmox, Version};

use crate::site::{Site, owner, plan, volume};

#[tokio::test]
async fn certificates_are_trusted_by_authority_or_fingerprint_only() {
    let site = Site::new(Version::V9);
    let connect = async |change: &dyn Fn(&mut Credentials), insecure| {
        let mut config = site.config.clone();
        config.credentials.fingerprint = None;
        config.insecure = insecure;
        change(&mut config.credentials);
        Host::connect(config).await.map(|_| ()).map_err(|error| error.kind())
    };
    let (ca, pin) = (site.cluster.ca().to_owned(), site.cluster.fingerprint().to_owned());
    assert_eq!(connect(&|_| {}, false).await, Err(Kind::Untrusted));
    assert_eq!(connect(&|_| {}, true).await, Ok(()));
    assert_eq!(connect(&|with| with.ca = Some(ca.clone()), false).await, Ok(()));
    assert_eq!(
        connect(&|with| with.ca = Some("PEM".into()), false).await,
        Err(Kind::Invalid)
    );
    assert_eq!(
        connect(&|with| with.fingerprint = Some(pin.clone()), false).await,
        Ok(())
    );
    // One that is named is enforced, whatever else is said.
    assert_eq!(
        connect(&|with| with.fingerprint = Some("00".repeat(32)), true).await,
        Err(Kind::Untrusted)
    );
}

#[tokio::test]
async fn a_certificate_that_is_another_now_is_not_trusted() {
    let (site, other) = (Site::new(Version::V9), Site::new(Version::V8_4));
    let mut config = site.config.clone();
    Host::connect(config.clone()).await.unwrap();
    // The same name, answered with another key and by another authority.
    config.endpoint = other.cluster.url();
    let error = Host::connect(config.clone()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Untrusted, "{error}");
    config.credentials.fingerprint = None;
    config.credentials.ca = Some(site.cluster.ca().to_owned());
    let error = Host::connect(config).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Untrusted, "{error}");
    assert_eq!(other.cluster.calls_of("GET", "").len(), 0, "no token was sent");
}

#[tokio::test]
async fn wrong_credentials_are_denied_and_not_shown() {
    let site = Site::new(Version::V9);
    for is_token in [true, false] {
        let mut config = site.config.clone();
        let wrong = Some(SecretString::from("wrong-secret"));
        if is_token {
            config.credentials.token_secret = wrong;
        } else {
            config.credentials.token_id = None;
            config.credentials.token_secret = None;
            config.credentials.username = Some(Proxmox::USER.0.to_owned());
            config.credentials.password = wrong;
        }
        let error = Host::connect(config).await.err().unwrap();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(!error.to_string().contains("wrong-secret"), "{error}");
    }
}

#[tokio::test]
async fn a_ticket_that_is_void_is_renewed_once_for_all() {
    let mut site = Site::new(Version::V9);
    site.config.credentials = Credentials {
        username: Some(Proxmox::USER.0.to_owned()),
        password: Some(SecretString::from(Proxmox::USER.1)),
        fingerprint: site.config.credentials.fingerprint.clone(),
        ..Credentials::default()
    };
    let host = site.host().await;
    site.cluster.expire_tickets();
    site.cluster.forget_calls();
    let (plan, owner) = (plan(vec![volume(0, ImageFormat::Qcow2)]), owner());
    let checks = (0..8).map(|_| host.check_target(&plan, &owner));
    for checked in futures::future::join_all(checks).await {
        checked.unwrap();
    }
    assert_eq!(site.cluster.calls_of("POST", "/access/ticket").len(), 1);
    site.assert_sound();
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let mut site = Site::new(Version::V9);
    site.config.endpoint = "https://127.0.0.1:9".to_owned();
    assert_eq!(
        Host::connect(site.config).await.err().unwrap().kind(),
        Kind::Unreachable
    );
}
