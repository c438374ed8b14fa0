//! One call.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::http::{Answer, Http, ask};
use super::session::Ticket;
use super::{Client, Endpoint, Trouble};
use crate::Kind;
use crate::vsphere::soap::{Arg, Body, Element, Moref, body, envelope};

/// How long an answer may take; a wait for updates is answered well before it.
const LIMIT: Duration = Duration::from_secs(90);
/// How long the answer to a sign of life may take: a connection that is dead must be noticed long before a lease is.
const LIFE_LIMIT: Duration = Duration::from_secs(15);
/// Pauses before a call that changes nothing is tried again when the connection broke.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];
/// The version of the API that is spoken; newer servers answer in it. Without it they may answer as of version 4.0.
const VERSION: HeaderValue = HeaderValue::from_static("urn:vim25/6.7");
const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

/// A method of a managed object, with its arguments.
pub(super) struct Request<'a> {
    pub(super) this: &'a Moref,
    pub(super) method: &'static str,
    pub(super) args: &'a [Arg],
}

/// The answer to a call.
pub(super) struct Called {
    pub(super) headers: HeaderMap,
    pub(super) response: Element,
}

impl Request<'_> {
    /// Sends it once.
    pub(super) async fn post(
        &self,
        http: &reqwest::Client,
        endpoint: &Endpoint,
        ticket: &Ticket,
    ) -> Result<Called, Trouble> {
        let text = envelope(self.this, self.method, self.args)
            .map_err(|illegal| Trouble::new(Kind::Invalid, illegal.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=utf-8"));
        headers.insert(SOAP_ACTION, VERSION);
        ticket.sign(&mut headers);
        let request = http.post(endpoint.url().clone()).headers(headers).body(text);
        let answer = ask(request, self.limit()).await?;
        tracing::trace!(method = self.method, this = %self.this, status = answer.status.as_u16(), "called");
        read(answer, endpoint)
    }

    fn limit(&self) -> Duration {
        match self.method {
            "HttpNfcLeaseProgress" => LIFE_LIMIT,
            _ => LIMIT,
        }
    }

    /// Whether it may be sent again when nobody knows whether it arrived.
    fn is_repeatable(&self) -> bool {
        const READS: [&str; 3] = ["Retrieve", "Find", "Query"];
        const OTHERS: [&str; 4] = [
            "Login",
            "HttpNfcLeaseProgress",
            "HttpNfcLeaseGetManifest",
            "CurrentTime",
        ];
        READS.iter().any(|read| self.method.starts_with(read)) || OTHERS.contains(&self.method)
    }
}

/// Sends a request; again when the connection broke and that does no harm.
pub(super) async fn send(
    http: &Http,
    endpoint: &Endpoint,
    request: &Request<'_>,
    ticket: &Ticket,
) -> Result<Called, Trouble> {
    let mut pauses = PAUSES.iter();
    loop {
        match request.post(http.main(), endpoint, ticket).await {
            Err(trouble) if trouble.kind == Kind::Unreachable && request.is_repeatable() => match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(trouble),
            },
            answer => return answer,
        }
    }
}

fn read(answer: Answer, endpoint: &Endpoint) -> Result<Called, Trouble> {
    let status = answer.status;
    match body(&answer.text) {
        Ok(Body::Response(response)) if status.is_success() => Ok(Called {
            headers: answer.headers,
            response,
        }),
        Ok(Body::Fault(fault)) => Err(fault.into()),
        // A proxy before a server that is starting answers with a page of its own.
        _ if status.is_server_error() => Err(Trouble::new(
            Kind::Unreachable,
            format!("{} answered {status}", endpoint.authority()),
        )
        .remedy("wait until its services run")),
        // So does one that has too much to do.
        _ if matches!(status.as_u16(), 408 | 429) => Err(Trouble::new(
            Kind::Unreachable,
            format!("{} answered {status}", endpoint.authority()),
        )),
        _ if matches!(status.as_u16(), 401 | 403 | 407) => Err(Trouble::new(
            Kind::Denied,
            format!("{} answered {status}", endpoint.authority()),
        )),
        Err(error) if status.is_success() => {
            Err(Trouble::new(Kind::Failed, format!("the answer is not SOAP: {error}"))
                .remedy("check that the endpoint is a vCenter or an ESXi host"))
        }
        _ => Err(
            Trouble::new(Kind::Invalid, format!("{endpoint} answered {status}, and no SOAP"))
                .remedy("check that the endpoint is a vCenter or an ESXi host"),
        ),
    }
}

impl Client {
    /// Calls a method. Gives its response element, whose `returnval` is the value.
    pub(crate) async fn call(&self, this: &Moref, method: &'static str, args: &[Arg]) -> Result<Element, Trouble> {
        let request = Request { this, method, args };
        let ticket = self.0.session.ticket();
        let first = send(&self.0.http, &self.0.endpoint, &request, &ticket).await;
        match first {
            Err(trouble) if trouble.is("NotAuthenticated") => {
                self.log_in(ticket.generation).await?;
                let ticket = self.0.session.ticket();
                let second = send(&self.0.http, &self.0.endpoint, &request, &ticket).await;
                // Ended twice at once: an administrator, or a restart. It may pass.
                second.map(|called| called.response).map_err(|trouble| {
                    if trouble.is("NotAuthenticated") {
                        trouble.meaning(Kind::Failed)
                    } else {
                        trouble
                    }
                })
            }
            answer => answer.map(|called| called.response),
        }
    }

    /// Calls a method whose value is a managed object.
    pub(crate) async fn call_for_moref(
        &self,
        this: &Moref,
        method: &'static str,
        args: &[Arg],
    ) -> Result<Moref, Trouble> {
        let response = self.call(this, method, args).await?;
        response
            .moref_at("returnval")
            .ok_or_else(|| Trouble::new(Kind::Failed, format!("the answer to {method} names no object")))
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn what_a_proxy_says_of_itself_may_pass_or_not() {
        let endpoint = Endpoint::parse("vc").unwrap();
        for (status, kind) in [
            (401, Kind::Denied),
            (404, Kind::Invalid),
            (408, Kind::Unreachable),
            (429, Kind::Unreachable),
            (503, Kind::Unreachable),
            (200, Kind::Failed),
        ] {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                text: "<html>".to_owned(),
            };
            let trouble = read(answer, &endpoint).err().unwrap();
            assert_eq!(trouble.kind, kind, "{status}: {}", trouble.detail);
        }
    }
}
