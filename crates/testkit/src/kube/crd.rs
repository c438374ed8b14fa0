//! Custom resources.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use crate::command::Must;

/// How long a kind may take to be served.
const LIMIT: Duration = Duration::from_secs(30);

/// Creates CustomResourceDefinitions and waits until they are served. (An old server refuses to apply what it does not know,
/// and leaves it out of what is created.)
pub(super) async fn install(client: &Client, crds: &[Value]) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds {
        let crd: CustomResourceDefinition = serde_json::from_value(crd.clone()).must("read a CRD");
        let name = crd.name_any();
        let created = api.create(&PostParams::default(), &crd).await;
        created.must(format!("create the CRD {name}"));
        let established = await_condition(api.clone(), &name, is_crd_established());
        let waited = tokio::time::timeout(LIMIT, established).await;
        waited.must(format!("wait for the CRD {name}")).must("watch a CRD");
    }
}
