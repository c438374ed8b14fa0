//! What a user may do, by the API server's word.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use super::error::{Error, Kind};
use super::references::Reference;

/// How long the API server may take for one answer. The webhook's own time is twice that or more.
const LIMIT: Duration = Duration::from_secs(2);

/// Whether `user` may do what it takes to declare `reference`.
pub(super) async fn allowed(client: &Client, user: &UserInfo, reference: &Reference) -> Result<bool, Error> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let review = question(user, reference);
    let answer = match timeout(LIMIT, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unknown(reference).source(error)),
        Err(_) => return Err(unknown(reference).detail(format!("no answer within {} s", LIMIT.as_secs()))),
    };
    let Some(status) = answer.status else {
        return Err(unknown(reference).detail("the answer has no status"));
    };
    match status.evaluation_error {
        // An error of one authorizer is none where another allows it.
        Some(error) if !status.allowed => Err(unknown(reference).detail(error)),
        _ => Ok(status.allowed),
    }
}

fn unknown(reference: &Reference) -> Error {
    let object = format!("who may {} {} {}", reference.verb, reference.target, reference.object);
    Error::new(Kind::Access, "find out", object).remedy("try again")
}

fn question(user: &UserInfo, reference: &Reference) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some(reference.target.group().to_owned()),
                resource: Some(reference.target.resource().to_owned()),
                verb: Some(reference.verb.to_owned()),
                namespace: Some(reference.object.namespace.clone()),
                name: Some(reference.object.name.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
