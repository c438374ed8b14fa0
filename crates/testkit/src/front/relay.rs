//! One request on its way through a front.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, DATE, HOST};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::rule::{Action, Reply};
use super::{Seen, Shared, lock};

type Fault = Box<dyn StdError + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Fault>;

/// How long bytes get to leave before their connection is cut.
const LEAVING: Duration = Duration::from_millis(50);

/// Answers a request by the rules. An error closes the connection without an answer.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Fault> {
    let (actions, came) = note(&shared, &request);
    for action in &actions {
        match action {
            Action::Delay(time) => tokio::time::sleep(*time).await,
            Action::Answer(reply) => {
                drain(request.into_body(), &came).await?;
                return reply_with(reply);
            }
            _ => {}
        }
    }
    let asked = disturb_request(request, &actions, came);
    let answered = pass(&shared, asked).await?;
    disturb_answer(answered, &actions)
}

/// Writes a request down and gives what happens to it.
fn note(shared: &Shared, request: &Request<Incoming>) -> (Vec<Action>, Arc<AtomicU64>) {
    let came = Arc::new(AtomicU64::new(0));
    let seen = Seen {
        method: request.method().to_string(),
        target: request
            .uri()
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: Arc::clone(&came),
    };
    let actions = lock(&shared.rules)
        .iter_mut()
        .filter_map(|rule| rule.apply(&seen.method, &seen.target))
        .collect();
    lock(&shared.seen).push(seen);
    (actions, came)
}

async fn drain(mut body: Incoming, came: &AtomicU64) -> Result<(), Fault> {
    while let Some(frame) = body.frame().await {
        let len = frame?.data_ref().map_or(0, Bytes::len);
        came.fetch_add(len as u64, Ordering::SeqCst);
    }
    Ok(())
}

fn reply_with(reply: &Reply) -> Result<Response<Body>, Fault> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(whole(Full::from(reply.body.clone())))?)
}

fn whole(body: impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// The request that the server gets.
fn disturb_request(request: Request<Incoming>, actions: &[Action], came: Arc<AtomicU64>) -> Request<Body> {
    let (mut head, incoming) = request.into_parts();
    let (mut cut, mut stall) = (None, None);
    for action in actions {
        match action {
            Action::DropRequestHeader(name) => drop(head.headers.remove(*name)),
            Action::CutRequest(at) => cut = Some(*at),
            Action::StallRequest(at) => stall = Some(*at),
            _ => {}
        }
    }
    if incoming.is_end_stream() && cut.is_none() && stall.is_none() {
        return Request::from_parts(head, whole(Empty::new()));
    }
    let bytes = data(incoming).inspect(move |bytes| {
        let len = bytes.as_ref().map_or(0, Bytes::len);
        came.fetch_add(len as u64, Ordering::SeqCst);
    });
    Request::from_parts(head, ended(bytes, cut, stall))
}

fn data(body: Incoming) -> impl Stream<Item = Result<Bytes, Fault>> + Send + Unpin + 'static {
    body.into_data_stream().map(|bytes| bytes.map_err(Into::into))
}

/// A body that breaks off, or stops for ever, after so many bytes.
fn ended(
    bytes: impl Stream<Item = Result<Bytes, Fault>> + Send + Unpin + 'static,
    cut: Option<u64>,
    stall: Option<u64>,
) -> Body {
    let limit = cut.or(stall);
    let state = (bytes, limit.unwrap_or(u64::MAX));
    let stream = stream::try_unfold(state, move |(mut bytes, left)| async move {
        if left == 0 {
            // What went before leaves first: hyper drops what it has not written when a body fails.
            tokio::time::sleep(LEAVING).await;
            if cut.is_some() {
                return Err("cut by a rule".into());
            }
            future::pending::<()>().await;
        }
        let Some(piece) = bytes.next().await.transpose()? else {
            // Where more was claimed, the connection is closed next.
            tokio::time::sleep(LEAVING).await;
            return Ok(None);
        };
        let keep = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let piece = piece.slice(..keep);
        let left = left - keep as u64;
        Ok(Some((Frame::data(piece), (bytes, left))))
    });
    StreamBody::new(stream).boxed_unsync()
}

/// Asks the server, on a connection of its own.
async fn pass(shared: &Shared, mut request: Request<Body>) -> Result<Response<Incoming>, Fault> {
    if shared.rewrite_host {
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_str(&shared.target)?);
    }
    let stream = TcpStream::connect(&shared.target).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &shared.onwards else {
        return ask(stream, request).await;
    };
    let name = ServerName::from(stream.peer_addr()?.ip());
    let tls = TlsConnector::from(Arc::clone(tls));
    ask(tls.connect(name, stream).await?, request).await
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<Response<Incoming>, Fault> {
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(send.send_request(request).await?)
}

/// The answer that the client gets.
fn disturb_answer(response: Response<Incoming>, actions: &[Action]) -> Result<Response<Body>, Fault> {
    let (mut head, incoming) = response.into_parts();
    let (mut cut, mut stall, mut wrong, mut is_touched) = (None, None, None, false);
    for action in actions {
        match action {
            Action::LoseAnswer => return Err("lost by a rule".into()),
            Action::AnswerInstead(reply) => return reply_with(reply),
            Action::DropAnswerHeader(name) => drop(head.headers.remove(*name)),
            Action::SetAnswerHeader(name, value) => drop(head.headers.insert(*name, value.parse()?)),
            Action::ShiftDate(seconds) => shift_date(&mut head.headers, *seconds)?,
            Action::CutAnswer(at) => cut = Some(*at),
            Action::StallAnswer(at) => stall = Some(*at),
            Action::Corrupt(at) => wrong = Some(*at),
            Action::ClaimLength(len) => {
                head.headers.insert(CONTENT_LENGTH, (*len).into());
                is_touched = true;
            }
            _ => {}
        }
    }
    is_touched |= cut.is_some() || stall.is_some() || wrong.is_some();
    let body = if is_touched {
        let mut at = 0;
        let bytes = data(incoming).map(move |piece| {
            let piece = piece?;
            let start = at;
            at += piece.len() as u64;
            Ok(match wrong {
                Some(wrong) if (start..at).contains(&wrong) => flip(&piece, (wrong - start) as usize),
                _ => piece,
            })
        });
        ended(bytes, cut, stall)
    } else {
        incoming.map_err(Into::into).boxed_unsync()
    };
    Ok(Response::from_parts(head, body))
}

fn flip(bytes: &[u8], at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x55;
    bytes.into()
}

fn shift_date(headers: &mut HeaderMap, seconds: i64) -> Result<(), Fault> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().cast_signed();
    headers.insert(DATE, date(now + seconds).parse()?);
    Ok(())
}

/// A time as HTTP writes it (RFC 9110, section 5.6.7); the calendar after Howard Hinnant, `chrono`-Compatible Low-Level Date
/// Algorithms, `civil_from_days`.
fn date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb",
    ];
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = year_of_era + era * 400 + i64::from(month >= 10);
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[days.rem_euclid(7).cast_unsigned() as usize],
        MONTHS[month.cast_unsigned() as usize],
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_wants_them() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
