//! A command that is given bytes: a file that flows to the other side.

use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelWriteHalf, client};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::command::Said;
use super::session::{Session, Target};
use crate::{Error, Kind};

/// How long the other side may take no byte.
const SILENCE: Duration = Duration::from_mins(2);
/// How long a command may take to say why it ended.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// Pieces on their way, beside the one that is being sent.
const PIECES: usize = 2;

/// A command whose input is written here. Dropped before [`finish`](Self::finish), its input ends early and the channel closes.
pub(crate) struct Feed {
    /// `None` is the end of the input.
    pieces: mpsc::Sender<Option<Bytes>>,
    said: Mutex<Option<JoinHandle<Said>>>,
    target: Target,
    action: &'static str,
    object: String,
    kind: fn(&str) -> Kind,
    _end: DropGuard,
}

impl Session {
    /// Starts a command that says `ready` and then reads its input to the end.
    pub async fn feed(
        &self,
        command: &str,
        limit: Duration,
        action: &'static str,
        object: &str,
        kind: fn(&str) -> Kind,
    ) -> Result<Feed, Error> {
        let channel = self.open_command(command, object).await?;
        let (mut reads, writes) = channel.split();
        let (tell, ready) = oneshot::channel();
        let (ended, dropped) = (CancellationToken::new(), CancellationToken::new());
        let end = ended.clone().drop_guard();
        let said = tokio::spawn(async move {
            let (mut said, mut tell) = (Said::default(), Some(tell));
            let _end = end;
            while !said.take(reads.wait().await) {
                if said.is_ready()
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(());
                }
            }
            said
        });
        let (pieces, receiver) = mpsc::channel(PIECES);
        let feed = Feed {
            pieces,
            said: Mutex::new(Some(said)),
            target: self.target.clone(),
            action,
            object: object.to_owned(),
            kind,
            _end: dropped.clone().drop_guard(),
        };
        tokio::spawn(send(writes, receiver, ended, dropped));
        match timeout(limit, ready).await {
            Ok(Ok(())) => Ok(feed),
            Ok(Err(_)) => Err(feed.fault().await),
            Err(_) => {
                let detail = format!("{}: not ready within {} s", feed.target.name(), limit.as_secs());
                Err(Error::new(Kind::Unreachable, action, object).detail(detail))
            }
        }
    }
}

/// Sends what comes, until the command ends or nobody wants it any more.
async fn send(
    writes: ChannelWriteHalf<client::Msg>,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
    ended: CancellationToken,
    dropped: CancellationToken,
) {
    let all = async {
        while let Some(piece) = pieces.recv().await {
            let Some(piece) = piece else {
                let _ = writes.eof().await;
                // The channel stays open until the command has said what became of it.
                return ended.cancelled().await;
            };
            if writes.data_bytes(piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = ended.cancelled() => {}
        () = dropped.cancelled() => {}
    }
    let _ = writes.close().await;
}

impl Feed {
    /// Gives the command more.
    pub async fn write(&self, piece: Bytes) -> Result<(), Error> {
        match timeout(SILENCE, self.pieces.send(Some(piece))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.fault().await),
            Err(_) => {
                let detail = format!("{}: nothing moved for {} s", self.target.name(), SILENCE.as_secs());
                Err(Error::new(Kind::Unreachable, self.action, &self.object).detail(detail))
            }
        }
    }

    /// Ends the command's input; what it said, where it succeeded within `limit`.
    pub async fn finish(&self, limit: Duration) -> Result<String, Error> {
        // Where that fails, the command has ended and says why.
        let _ = timeout(SILENCE, self.pieces.send(None)).await;
        self.outcome(limit).await
    }

    /// Why it ended.
    async fn fault(&self) -> Error {
        match self.outcome(LAST_WORDS).await {
            Err(error) => error,
            Ok(_) => Error::new(Kind::Failed, self.action, &self.object)
                .detail(format!("{}: it ended before it had everything", self.target.name())),
        }
    }

    async fn outcome(&self, limit: Duration) -> Result<String, Error> {
        let ended = |detail: String| Error::new(Kind::Unreachable, self.action, &self.object).detail(detail);
        let Some(mut said) = self.said.lock().await.take() else {
            return Err(ended(format!("{}: it has failed already", self.target.name())));
        };
        match timeout(limit, &mut said).await {
            Ok(Ok(said)) => said.outcome(&self.target, self.action, &self.object, self.kind),
            Ok(Err(panic)) => Err(Error::new(Kind::Bug, self.action, &self.object).source(panic)),
            Err(_) => {
                said.abort();
                let detail = format!("{}: no answer within {} s", self.target.name(), limit.as_secs());
                Err(ended(detail))
            }
        }
    }
}
