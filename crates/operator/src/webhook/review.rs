//! One admission review: which references are new, and whether their author may use what they name.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, State};
use axum::http::StatusCode;
use futures::future::try_join_all;
use kube::Client;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use serde_json::Value;
use tokio::time::timeout;

use super::access::allowed;
use super::error::{Error, Kind};
use super::references::{Reference, references};

type Review = AdmissionReview<DynamicObject>;
type Request = AdmissionRequest<DynamicObject>;

/// How long a review may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(5);

/// Answers a review. What is no review is answered with 400; what could not be found out, with 500.
pub(super) async fn validate(
    State(client): State<Client>,
    request: axum::extract::Request,
) -> Result<Json<Review>, (StatusCode, String)> {
    let refused = |status: StatusCode, error: &Error| {
        tracing::warn!(%error, "admission");
        (status, error.to_string())
    };
    let request = read(request)
        .await
        .map_err(|error| refused(StatusCode::BAD_REQUEST, &error))?;
    match verdict(&client, &request).await {
        Ok(response) => Ok(Json(response.into_review())),
        Err(error) => Err(refused(StatusCode::INTERNAL_SERVER_ERROR, &error)),
    }
}

async fn read(request: axum::extract::Request) -> Result<Request, Error> {
    let invalid = || Error::new(Kind::Request, "read", "the admission review");
    let review = timeout(ARRIVAL, Json::<Review>::from_request(request, &())).await;
    let slow = |_| invalid().detail(format!("it did not arrive within {} s", ARRIVAL.as_secs()));
    let Json(review) = review
        .map_err(slow)?
        .map_err(|error| invalid().detail(error.body_text()))?;
    review.try_into().map_err(|error| invalid().source(error))
}

/// Denies what names an object that the user may not use.
async fn verdict(client: &Client, request: &Request) -> Result<AdmissionResponse, Error> {
    let added = added(request);
    let answers = try_join_all(added.iter().map(|it| allowed(client, &request.user_info, it))).await?;
    let response = AdmissionResponse::from(request);
    let denied: Vec<_> = added
        .iter()
        .zip(answers)
        .filter(|(_, allowed)| !allowed)
        .map(|(it, _)| it)
        .collect();
    if denied.is_empty() {
        return Ok(response);
    }
    let user = request.user_info.username.as_deref().unwrap_or("who asks");
    let reasons: Vec<_> = denied.into_iter().map(|it| reason(user, it)).collect();
    tracing::info!(user, object = %request.name, "denied: {}", reasons.join("; "));
    Ok(response.deny(reasons.join("; ")))
}

fn reason(user: &str, reference: &Reference) -> String {
    let Reference {
        field,
        target,
        verb,
        object,
    } = reference;
    let group = target.group();
    let dot = if group.is_empty() { "" } else { "." };
    format!(
        "{field} names {target} {object} of another namespace, and {user} may not {verb} {resource}{dot}{group} there: \
         have a Role in {namespace} allow it, or name one of the own namespace",
        resource = target.resource(),
        namespace = object.namespace,
    )
}

/// The references that the request brings. Those that were there before are not its business: otherwise nobody could change
/// an object, or take its finalizer off, but who may use all that it names.
fn added(request: &Request) -> Vec<Reference> {
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let of = |object: &Option<DynamicObject>| {
        let data = object.as_ref().map_or(&Value::Null, |object| &object.data);
        references(&request.resource.resource, namespace, data)
    };
    let before = of(&request.old_object);
    let mut now = of(&request.object);
    now.retain(|reference| !before.contains(reference));
    now
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(old: &Value, new: &Value) -> Request {
        let review: Review = serde_json::from_value(json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "name": "web", "namespace": "team", "operation": "UPDATE", "userInfo": { "username": "alice" },
                "kind": { "group": "infra.virtrigaud.io", "version": "v1beta1", "kind": "VirtualMachine" },
                "resource": { "group": "infra.virtrigaud.io", "version": "v1beta1", "resource": "virtualmachines" },
                "oldObject": old, "object": new,
            },
        }))
        .unwrap();
        review.try_into().unwrap()
    }

    fn vm(provider: &Value, labels: &Value) -> Value {
        json!({
            "apiVersion": "infra.virtrigaud.io/v1beta1", "kind": "VirtualMachine",
            "metadata": { "name": "web", "namespace": "team", "labels": labels },
            "spec": { "providerRef": provider },
        })
    }

    #[test]
    fn only_what_an_update_brings_is_asked_for() {
        let (here, there) = (json!({ "name": "kvm" }), json!({ "name": "kvm", "namespace": "infra" }));
        let counts = |old: &Value, new: &Value| added(&asked(old, new)).len();
        assert_eq!(counts(&Value::Null, &vm(&there, &json!({}))), 1);
        assert_eq!(counts(&vm(&here, &json!({})), &vm(&there, &json!({}))), 1);
        assert_eq!(counts(&vm(&there, &json!({})), &vm(&there, &json!({ "a": "b" }))), 0);
        assert_eq!(counts(&vm(&there, &json!({})), &vm(&here, &json!({}))), 0);
    }

    #[test]
    fn a_denial_says_who_what_and_what_to_do() {
        let request = asked(
            &Value::Null,
            &vm(&json!({ "name": "kvm", "namespace": "infra" }), &json!({})),
        );
        let told = reason("alice", &added(&request)[0]);
        assert_eq!(
            told,
            "spec.providerRef names Provider infra/kvm of another namespace, and alice may not use providers.infra.virtrigaud.io \
             there: have a Role in infra allow it, or name one of the own namespace"
        );
    }
}
