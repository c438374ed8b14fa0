mod faults;

use std::sync::Arc;

use vmferry_testkit::front::{Action, Front, Rule};
use vmferry_testkit::stores::{Apache, ApacheSpec, Nginx, NginxSpec};

use super::*;
use crate::conformance::{self, Subject};

/// A store on a server that listens at an address.
fn store_at(address: &str, credentials: Credentials) -> HttpStore {
    HttpStore::new(&HttpConfig {
        endpoint: format!("http://{address}/staging"),
        credentials,
        ..HttpConfig::default()
    })
    .unwrap()
}

fn token(text: &str) -> Credentials {
    Credentials::from_keys(Some(&text.into()), None, None).unwrap()
}

fn password(user: &str, password: &str) -> Credentials {
    Credentials::from_keys(None, Some(user), Some(&password.into())).unwrap()
}

struct OnApache(Apache, Credentials);

#[async_trait]
impl Subject for OnApache {
    fn open(&self) -> Arc<dyn StagingStore> {
        Arc::new(store_at(&self.0.address(), self.1.clone()))
    }

    async fn leftovers(&self) -> Vec<String> {
        left(self.0.files())
    }
}

struct OnNginx(Nginx, Credentials);

#[async_trait]
impl Subject for OnNginx {
    fn open(&self) -> Arc<dyn StagingStore> {
        Arc::new(store_at(&self.0.address(), self.1.clone()))
    }

    async fn leftovers(&self) -> Vec<String> {
        files_of(&self.0)
    }
}

/// What is left besides the endpoint's folder, which stays.
fn left(mut files: Vec<String>) -> Vec<String> {
    files.retain(|file| file != "staging");
    files
}

/// What is left besides folders that are empty: nginx cannot tell that they are, and they stay.
fn files_of(nginx: &Nginx) -> Vec<String> {
    let mut files = left(nginx.files());
    files.retain(|file| !nginx.root().join(file).is_dir());
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_apache() {
    let spec = ApacheSpec {
        token: Some("t0ken".to_owned()),
        user: Some(("mover".to_owned(), "secret".to_owned())),
        ..ApacheSpec::default()
    };
    for credentials in [token("Bearer_t0ken"), password("mover", "secret")] {
        conformance::run(&OnApache(Apache::with(&spec), credentials))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_nginx() {
    let with_token = NginxSpec {
        token: Some("t0ken".to_owned()),
        ..NginxSpec::default()
    };
    let with_user = NginxSpec {
        user: Some(("mover".to_owned(), "secret".to_owned())),
        ..NginxSpec::default()
    };
    for (spec, credentials) in [
        (with_token, token("Bearer t0ken")),
        (with_user, password("mover", "secret")),
    ] {
        conformance::run(&OnNginx(Nginx::with(&spec), credentials))
            .await
            .unwrap();
    }
}

/// Segments on a server that makes no folders by itself: Apache, behind something that takes no `Content-Range`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_with_segments_on_apache() {
    struct Behind(Apache, Front);
    #[async_trait]
    impl Subject for Behind {
        fn open(&self) -> Arc<dyn StagingStore> {
            Arc::new(store_at(&format!("127.0.0.1:{}", self.1.port()), Credentials::None))
        }

        async fn leftovers(&self) -> Vec<String> {
            left(self.0.files())
        }
    }
    let apache = Apache::start();
    let front = Front::to(&apache.address());
    front.on(Rule::new(Action::DropRequestHeader("content-range")).method("PUT"));
    let subject = Behind(apache, front);
    let notes = subject.open().check(0).await.unwrap();
    assert!(notes[0].contains("segments"), "{notes:?}");
    conformance::run(&subject).await.unwrap();
}
