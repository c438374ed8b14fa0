//! Asking the server's own control, on loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::command::Must;

/// How long an answer may take: filling a VM's disks is done meanwhile.
const LIMIT: Duration = Duration::from_mins(2);

/// Sends an order, and gives what it answers; ends the test where that is a refusal.
#[track_caller]
pub(super) fn ask(port: u16, method: &str, path: &str, order: Option<&Value>) -> Value {
    let body = order.map(ToString::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).must("reach the simulator's control");
    connection.set_read_timeout(Some(LIMIT)).must("set a limit");
    connection.write_all(request.as_bytes()).must("ask the simulator");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).must("hear the simulator");
    let (head, content) = answer.split_once("\r\n\r\n").must("read the simulator's answer");
    assert!(head.contains(" 200 "), "{method} {path} {body}: {content}");
    serde_json::from_str(content).must(format!("read what {path} answers"))
}
