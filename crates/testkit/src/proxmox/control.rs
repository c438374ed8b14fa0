//! The way to the double: JSON over HTTP at a unix socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::command::Must;

#[derive(Debug)]
pub(super) struct Control {
    socket: PathBuf,
}

impl Control {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks the double to do something, and gives its answer.
    #[track_caller]
    pub(super) fn ask(&self, verb: &str, arguments: &Value) -> Value {
        let body = arguments.to_string();
        let mut stream = UnixStream::connect(&self.socket).must("reach the double");
        stream
            .set_read_timeout(Some(Duration::from_mins(2)))
            .must("set a limit");
        let head = format!(
            "POST /{verb} HTTP/1.0\r\nHost: double\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).must("ask the double");
        stream.write_all(body.as_bytes()).must("ask the double");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).must("read the double's answer");
        let (head, body) = answer.split_once("\r\n\r\n").must("read the double's answer");
        assert!(
            head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"),
            "the double: {verb}: {body}"
        );
        serde_json::from_str(body).must(format!("read {body}"))
    }
}
