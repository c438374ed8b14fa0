//! QEMU's monitor (QMP). Proxmox VE uses it too, and it serves one client at a time: connections are short.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use super::UnixChannel;
use crate::{Error, Kind};

/// How long it may take until the monitor is free and answers.
const ANSWER: Duration = Duration::from_secs(20);

/// The longest line that is read: a VM with many disks answers with some hundred KiB.
const LONGEST: u64 = 16 << 20;

/// A connection to a VM's monitor.
pub(in crate::proxmox) struct Qmp {
    stream: BufReader<UnixChannel>,
    object: String,
}

impl Qmp {
    pub(super) async fn connect(stream: UnixChannel, object: &str) -> Result<Self, Error> {
        let mut qmp = Self {
            stream: BufReader::new(stream),
            object: format!("the monitor of {object}"),
        };
        let greeting = qmp.line().await?;
        if greeting.get("QMP").is_none() {
            return Err(Error::new(Kind::Failed, "talk to", qmp.object).detail("it does not greet as QEMU does"));
        }
        qmp.call("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// What a command gives back.
    pub async fn call(&mut self, command: &'static str, arguments: Value) -> Result<Value, Error> {
        let mut text = json!({"execute": command, "arguments": arguments}).to_string();
        text.push('\n');
        let sent = timeout(ANSWER, self.stream.get_mut().write_all(text.as_bytes())).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.broken().source(error)),
            Err(_) => return Err(self.silent()),
        }
        loop {
            let mut answer = self.line().await?;
            if let Some(error) = answer.get("error") {
                let why = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(Error::new(kind(&why), "command", &self.object).detail(format!("{command}: {why}")));
            }
            // Between them come events.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    async fn line(&mut self) -> Result<Value, Error> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(LONGEST);
        let read = timeout(ANSWER, limited.read_until(b'\n', &mut line)).await;
        match read {
            Ok(Ok(0)) => Err(self.broken().detail("the VM was stopped, or the connection broke")),
            Ok(Ok(_)) => serde_json::from_slice(&line).map_err(|error| {
                Error::new(Kind::Failed, "talk to", &self.object).detail(format!("its answer is no JSON: {error}"))
            }),
            Ok(Err(error)) => Err(self.broken().source(error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn broken(&self) -> Error {
        Error::new(Kind::Unreachable, "talk to", &self.object)
    }

    fn silent(&self) -> Error {
        Error::new(Kind::Busy, "talk to", &self.object).detail(format!(
            "no answer within {} s: another client may hold it",
            ANSWER.as_secs()
        ))
    }
}

/// What a refusal means.
fn kind(why: &str) -> Kind {
    if why.contains("already running") || why.contains("is busy") || why.contains("in use") || why.contains("blocked") {
        Kind::Busy
    } else if why.contains("No space left") {
        Kind::NoSpace
    } else if why.contains("has not been found") {
        Kind::Unsupported
    } else {
        Kind::Failed
    }
}
