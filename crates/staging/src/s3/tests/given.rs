//! On a server that is there already: any S3, as `VMFERRY_TEST_S3_ENDPOINT`, `_BUCKET` (an empty one), `_REGION`, `_ACCESS_KEY` and
//! `_SECRET_KEY` name it.
//!
//! ```text
//! VMFERRY_TEST_S3_ENDPOINT=http://127.0.0.1:3900 … cargo nextest run -p vmferry-staging --run-ignored only s3::tests::given
//! ```

use reqwest::Method;

use super::*;
use crate::s3::wire::Call;

struct Given {
    settings: Settings,
    few: bool,
}

impl Given {
    fn new() -> Self {
        let variable = |name: &str| {
            let name = format!("VMFERRY_TEST_S3_{name}");
            std::env::var(&name).unwrap_or_else(|_| panic!("set {name}"))
        };
        let (access, secret) = (variable("ACCESS_KEY"), variable("SECRET_KEY"));
        let mut settings = settings(&variable("ENDPOINT"), &variable("BUCKET"), (&access, &secret));
        settings.region = std::env::var("VMFERRY_TEST_S3_REGION").ok();
        let few = false;
        Self { settings, few }
    }
}

#[async_trait]
impl Subject for Given {
    fn open(&self) -> Arc<dyn StagingStore> {
        let store = Bucket::new(&self.settings).unwrap();
        Arc::new(if self.few {
            store.with_few_parts(4, 10 << 20)
        } else {
            store
        })
    }

    async fn leftovers(&self) -> Vec<String> {
        let wire = Bucket::new(&self.settings).unwrap().wire;
        let mut found = Vec::new();
        for (name, value) in [("list-type", "2"), ("uploads", "")] {
            let call = Call::new(Method::GET, "", "s3:ListBucket").query(name, value);
            let text = wire.call_text(&call, 1 << 20).await.unwrap();
            let keys = text.split("<Key>").skip(1);
            found.extend(keys.map(|rest| rest.split("</Key>").next().unwrap().to_owned()));
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server that is there already"]
async fn conforms() {
    let given = Given::new();
    given.open().check(0).await.unwrap();
    assert!(given.leftovers().await.is_empty());
    conformance::run(&given).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server that is there already"]
async fn conforms_with_segments() {
    let few = true;
    conformance::run(&Given { few, ..Given::new() }).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a server that is there already"]
async fn a_wrong_key_is_named() {
    let mut given = Given::new();
    given.settings.secret_key = "hunter2".to_owned().into();
    let error = given.open().check(0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert!(error.to_string().contains("secretKey"), "{error}");
}
