//! Commands at the other side of a session.

use std::time::Duration;

use russh::{Channel, ChannelMsg, client};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::session::{CHANNEL_LIMIT, Session, Target, channel_fault};
use crate::{Error, Kind};

/// How much a command may say. What is asked for is far shorter.
const LONGEST: usize = 4 << 20;

/// How much of what a failed command said is shown.
const SHOWN: usize = 600;

/// A command that goes on at the other side for as long as this lives: its standard input ends with it.
pub(crate) struct Running {
    /// Dropped, the channel is closed.
    _hold: oneshot::Sender<()>,
}

/// What a command said.
#[derive(Default)]
pub(super) struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Option<u32>,
}

impl Said {
    /// Takes a message in. Whether it was the last one.
    pub(super) fn take(&mut self, message: Option<ChannelMsg>) -> bool {
        match message {
            None | Some(ChannelMsg::Close) => return true,
            Some(ChannelMsg::Data { data }) => append(&mut self.stdout, &data),
            Some(ChannelMsg::ExtendedData { data, .. }) => append(&mut self.stderr, &data),
            Some(ChannelMsg::ExitStatus { exit_status }) => self.status = Some(exit_status),
            Some(_) => {}
        }
        false
    }

    /// Whether it has said `ready`.
    pub(super) fn is_ready(&self) -> bool {
        self.stdout.starts_with(b"ready")
    }

    /// What a command that ended said, where it succeeded.
    pub(super) fn outcome(
        &self,
        target: &Target,
        action: &'static str,
        object: &str,
        kind: fn(&str) -> Kind,
    ) -> Result<String, Error> {
        match self.status {
            Some(0) => Ok(String::from_utf8_lossy(&self.stdout).into_owned()),
            None if self.stderr.is_empty() => Err(Error::new(Kind::Unreachable, action, object)
                .detail(format!("{}: the connection ended", target.name()))),
            _ => {
                let why = self.error();
                Err(Error::new(kind(&why), action, object).detail(format!("{}: {why}", target.name())))
            }
        }
    }

    fn error(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = text.chars().take(SHOWN).collect();
        if shown.is_empty() {
            match self.status {
                Some(status) => format!("exit code {status}"),
                None => "it ended without saying how".to_owned(),
            }
        } else {
            shown
        }
    }
}

fn append(to: &mut Vec<u8>, data: &[u8]) {
    let room = LONGEST - to.len().min(LONGEST);
    to.extend_from_slice(&data[..data.len().min(room)]);
}

impl Session {
    /// What a command says. `kind` tells what a failure means by its words.
    pub async fn run(
        &self,
        command: &str,
        limit: Duration,
        action: &'static str,
        object: &str,
        kind: fn(&str) -> Kind,
    ) -> Result<String, Error> {
        let work = async {
            let mut channel = self.open_command(command, object).await?;
            let mut said = Said::default();
            // No input: what reads it ends at once.
            let _ = channel.eof().await;
            while !said.take(channel.wait().await) {}
            Ok::<_, Error>(said)
        };
        let Ok(said) = timeout(limit, work).await else {
            let detail = format!("no answer within {} s", limit.as_secs());
            return Err(Error::new(Kind::Unreachable, action, object).detail(detail));
        };
        said?.outcome(&self.target, action, object, kind)
    }

    /// Starts a command that says `ready` and goes on until its input ends.
    pub async fn start(
        &self,
        command: &str,
        limit: Duration,
        action: &'static str,
        object: &str,
        kind: fn(&str) -> Kind,
    ) -> Result<Running, Error> {
        let mut channel = self.open_command(command, object).await?;
        let mut said = Said::default();
        let ready = async {
            loop {
                let ended = said.take(channel.wait().await);
                if said.is_ready() {
                    return true;
                }
                if ended {
                    return false;
                }
            }
        };
        match timeout(limit, ready).await {
            Ok(true) => {}
            Ok(false) => {
                let why = said.error();
                return Err(Error::new(kind(&why), action, object).detail(format!("{}: {why}", self.target.name())));
            }
            Err(_) => {
                let _ = channel.close().await;
                let detail = format!("{}: not ready within {} s", self.target.name(), limit.as_secs());
                return Err(Error::new(Kind::Unreachable, action, object).detail(detail));
            }
        }
        let (hold, mut let_go) = oneshot::channel::<()>();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut let_go => break,
                    // What it says from now on is of no interest, but must be taken, or it would stand still.
                    message = channel.wait() => if message.is_none() { return },
                }
            }
            let _ = channel.eof().await;
            let _ = channel.close().await;
        });
        Ok(Running { _hold: hold })
    }

    pub(super) async fn open_command(&self, command: &str, object: &str) -> Result<Channel<client::Msg>, Error> {
        let open = async {
            let channel = self.handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            Ok::<_, russh::Error>(channel)
        };
        match timeout(CHANNEL_LIMIT, open).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(channel_fault(format!("{object} on {}", self.target.name()), error)),
            Err(_) => {
                let detail = format!("no answer within {} s", CHANNEL_LIMIT.as_secs());
                Err(Error::new(Kind::Unreachable, "run a command on", self.target.name()).detail(detail))
            }
        }
    }
}

/// A word that a shell takes as it is.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_takes_a_quoted_word_as_it_is() {
        for word in ["a", "", "a b", "it's", "$(reboot)", "`x`;|&<>\"\\\n*?", "--x", "ü'\"'"] {
            let said = Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", quote(word)))
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), word);
        }
    }
}
