//! What an answer that is not the hoped-for one means.

use reqwest::header::LOCATION;
use reqwest::{Method, StatusCode, Url};

use crate::Kind;
use crate::web::{Answer, Trouble};

/// The trouble with an answer to `method` at `url`.
pub(super) fn refusal(method: &Method, url: &Url, answer: &Answer) -> Trouble {
    let status = answer.status();
    if status.is_redirection() {
        return redirect(method, url, answer);
    }
    let (kind, remedy) = match status.as_u16() {
        401 => (
            Kind::Denied,
            Some("check the token, or the username and password, in the credentials Secret".to_owned()),
        ),
        403 => (
            Kind::Denied,
            Some(format!("let this account {} below spec.storage.endpoint", permission(method))),
        ),
        405 | 501 => (
            Kind::Unfit,
            Some(format!(
                "let the server take {method}: staging needs GET, HEAD, PUT, DELETE and MOVE (WebDAV), and MKCOL where PUT makes no folders"
            )),
        ),
        404 | 409 | 410 => (Kind::NotFound, None),
        413 => (
            Kind::Denied,
            Some(
                "raise the largest body that the server takes (nginx: client_max_body_size 0; Apache: LimitRequestBody 0)"
                    .to_owned(),
            ),
        ),
        // 207 to anything but PROPFIND: a part of it failed, as with a folder that is locked. RFC 4918, section 9.
        207 | 423 | 424 => (Kind::Busy, None),
        500 => (
            Kind::Failed,
            Some("look into the server's error log: its disk may be full or its folder not writable".to_owned()),
        ),
        507 => (
            Kind::NoSpace,
            Some("free some space there or use another storage server".to_owned()),
        ),
        _ => {
            let general = Trouble::of_status(status, answer.headers());
            (general.map_or(Kind::Unfit, |trouble| trouble.kind), None)
        }
    };
    let wait = Trouble::of_status(status, answer.headers()).and_then(|trouble| trouble.wait);
    let trouble = Trouble::new(kind, format!("the server answered {status} to {method}")).wait(wait);
    match remedy {
        Some(remedy) => trouble.remedy(remedy),
        None => trouble,
    }
}

fn permission(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" | "PROPFIND" => "read",
        "DELETE" => "delete",
        _ => "write",
    }
}

/// A redirect that was not followed: those of uploads never are, since nothing says that the body may go elsewhere.
fn redirect(method: &Method, url: &Url, answer: &Answer) -> Trouble {
    let target = answer.header(LOCATION).and_then(|location| url.join(location).ok());
    let place = |url: &Url| url.origin().ascii_serialization();
    let Some(target) = target else {
        return Trouble::new(
            Kind::Unfit,
            format!("the server answered {} to {method} and names no place", answer.status()),
        );
    };
    if place(&target) == place(url) {
        return Trouble::new(
            Kind::Unfit,
            format!("the server redirects {method} from {} to {}", url.path(), target.path()),
        )
        .remedy("set spec.storage.endpoint to where the objects are");
    }
    Trouble::new(
        Kind::Denied,
        format!(
            "{} redirects {method} to {}, another server, which is not followed",
            place(url),
            place(&target)
        ),
    )
    .remedy("set spec.storage.endpoint to the server that holds the objects")
}

/// Whether an answer says that the server does not know how.
pub(super) fn is_unable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 405 | 411 | 412 | 415 | 416 | 422 | 501)
}
