//! What Proxmox VE does in the background: a task, by its UPID.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::clip;
use super::{Call, Client, kind_of_text};
use crate::{Error, Kind};

/// The pause before the second look; it grows to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How long a task's node may not answer while it is waited for.
const SILENCE: Duration = Duration::from_mins(2);
/// How long a task that was called off may take to end.
const STOPPING: Duration = Duration::from_secs(30);
/// How many of a log's last lines are told.
const LINES: u64 = 6;

/// The id of a task: `UPID:node:pid:pstart:starttime:type:id:user:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Upid {
    text: String,
    node: String,
}

impl Upid {
    /// Reads one.
    ///
    /// # Errors
    /// [`Kind::Failed`] for what is none.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let fields: Vec<_> = text.split(':').collect();
        match fields.as_slice() {
            ["UPID", node, _, _, _, _, _, _, ..] if !node.is_empty() => Ok(Self {
                text: text.to_owned(),
                node: (*node).to_owned(),
            }),
            _ => Err(Error::new(Kind::Failed, "follow", format!("the task {:?}", clip(text)))
                .detail("Proxmox VE's answer is not the id of a task")),
        }
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// It is at work.
    Running,
    /// It did what it should. What it warned of, where it did.
    Done(Option<String>),
    /// It failed, with this as its last word.
    Failed(String),
}

#[derive(Deserialize)]
struct StatusAnswer {
    status: String,
    exitstatus: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    t: Option<String>,
}

/// An entry of a node's task list.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TaskEntry {
    /// Its id.
    pub(crate) upid: String,
    /// What it does: `qmcreate`, `qmconfig`, `download`, `imgcopy`, …
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What it does it to: a VM's id, a file's name.
    pub(crate) id: Option<String>,
    /// Who had it done: `user@realm`, or `user@realm!token`.
    pub(crate) user: Option<String>,
    /// When it began, in seconds since 1970 by the node's clock.
    #[serde(default, deserialize_with = "super::number::maybe_number")]
    pub(crate) starttime: Option<u64>,
    /// How it ended; absent, or `RUNNING`, where it has not.
    pub(crate) status: Option<String>,
    /// When it ended.
    #[serde(default, deserialize_with = "super::number::maybe_number")]
    pub(crate) endtime: Option<u64>,
}

impl TaskEntry {
    /// Whether it is at work.
    pub(crate) fn is_running(&self) -> bool {
        self.endtime.is_none()
            && self
                .status
                .as_deref()
                .is_none_or(|status| status.eq_ignore_ascii_case("running"))
    }

    /// Its last word, where it failed.
    pub(crate) fn failure(&self) -> Option<&str> {
        let status = self.status.as_deref().filter(|_| !self.is_running())?;
        (!is_success(status)).then_some(status)
    }
}

fn is_success(exit: &str) -> bool {
    exit == "OK" || exit.starts_with("WARNINGS")
}

impl Client {
    /// How a task is.
    pub(crate) async fn task_state(&self, task: &Upid) -> Result<TaskState, Error> {
        let call = Call::get(
            &["nodes", &task.node, "tasks", &task.text, "status"],
            "follow",
            object(task),
        );
        let answer: StatusAnswer = self.send(&call).await?;
        if answer.status == "running" {
            return Ok(TaskState::Running);
        }
        Ok(match answer.exitstatus {
            Some(exit) if exit == "OK" => TaskState::Done(None),
            Some(exit) if is_success(&exit) => TaskState::Done(Some(exit)),
            Some(exit) => TaskState::Failed(exit),
            // It was written down that it began, and no more: its node went down.
            None => TaskState::Failed("the task ended without saying how".to_owned()),
        })
    }

    /// The last lines of a task's log.
    pub(crate) async fn task_log(&self, task: &Upid) -> Result<Vec<String>, Error> {
        let ask = |start: u64, limit: u64| {
            Call::get(
                &["nodes", &task.node, "tasks", &task.text, "log"],
                "read the log of",
                object(task),
            )
            .with("start", start)
            .with("limit", limit)
        };
        let (first, total): (Vec<Line>, _) = self.send_counted(&ask(0, LINES)).await?;
        let lines = match total {
            Some(total) if total > LINES => self.send::<Vec<Line>>(&ask(total - LINES, LINES)).await?,
            _ => first,
        };
        let lines = lines.into_iter().filter_map(|line| line.t);
        Ok(lines
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect())
    }

    /// Waits until a task has done what it should; gives its warnings.
    ///
    /// # Errors
    /// What its last words mean, with the log's last lines; [`Kind::Failed`] when it takes longer than `limit`; it goes on then.
    /// [`Kind::Unreachable`] when its node does not answer for two minutes.
    pub(crate) async fn wait(
        &self,
        task: &Upid,
        limit: Duration,
        action: &'static str,
        what: &str,
    ) -> Result<Option<String>, Error> {
        let never = CancellationToken::new();
        match self.wait_or_cancel(task, limit, action, what, &never).await? {
            Some(warnings) => Ok(warnings),
            None => Err(Error::new(Kind::Bug, action, what)),
        }
    }

    /// [`wait`](Self::wait), or `None` after `cancel`: then the task was stopped, and has ended.
    pub(crate) async fn wait_or_cancel(
        &self,
        task: &Upid,
        limit: Duration,
        action: &'static str,
        what: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<Option<String>>, Error> {
        let deadline = Instant::now() + limit;
        let mut pause = FIRST_PAUSE;
        let mut heard = Instant::now();
        loop {
            match self.task_state(task).await {
                Ok(TaskState::Done(warnings)) => {
                    if let Some(warnings) = &warnings {
                        tracing::warn!(task = %task, "{what}: {warnings}; see the task's log");
                    }
                    return Ok(Some(warnings));
                }
                Ok(TaskState::Failed(why)) => return Err(self.failed(task, &why, action, what).await),
                Ok(TaskState::Running) => heard = Instant::now(),
                Err(error) if error.kind() == Kind::Unreachable && heard.elapsed() < SILENCE => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                return Err(Error::new(Kind::Failed, action, what)
                    .detail(format!("{task} is still at it after {} s", limit.as_secs())));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => {
                    self.stop_task(task).await?;
                    return Ok(None);
                }
            }
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// Stops a task and waits until it has ended. One that has ended, or is not known any more, is success.
    pub(crate) async fn stop_task(&self, task: &Upid) -> Result<(), Error> {
        let call = Call::delete(&["nodes", &task.node, "tasks", &task.text], "stop", object(task));
        let stopped: Result<serde_json::Value, _> = self.send(&call).await;
        if let Err(error) = stopped
            && error.kind() != Kind::NotFound
            && self
                .task_state(task)
                .await
                .is_ok_and(|state| state == TaskState::Running)
        {
            return Err(error);
        }
        let deadline = Instant::now() + STOPPING;
        loop {
            match self.task_state(task).await {
                Ok(TaskState::Running) => {}
                Err(error) if error.kind() == Kind::NotFound => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
            if Instant::now() >= deadline {
                return Err(Error::new(Kind::Busy, "stop", object(task))
                    .detail(format!("it still runs {} s after it was stopped", STOPPING.as_secs())));
            }
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    /// The error of a task that failed.
    pub(crate) async fn failed(&self, task: &Upid, why: &str, action: &'static str, what: &str) -> Error {
        let log = self.task_log(task).await.unwrap_or_default();
        let log: Vec<_> = log
            .iter()
            .filter(|line| !line.contains(why.trim()))
            .map(|line| clip(line))
            .collect();
        let mut detail = format!("{}: {}", task, clip(why));
        if !log.is_empty() {
            detail.push_str(" (log: ");
            detail.push_str(&redact(&log.join(" | ")));
            detail.push(')');
        }
        Error::new(kind_of_text(why), action, what).detail(detail)
    }

    /// The tasks of a node that have to do with `id`, a VM's: those at work and those that have ended.
    pub(crate) async fn tasks(&self, node: &str, vmid: u64) -> Result<Vec<TaskEntry>, Error> {
        let call = Call::get(&["nodes", node, "tasks"], "list the tasks of", format!("node {node}"))
            .with("vmid", vmid)
            .with("source", "all")
            .with("limit", 50);
        self.send(&call).await
    }

    /// Whether a task is one of the user's who is let in here. A token is told apart from its user in some versions, and not in
    /// others.
    pub(crate) fn is_ours(&self, task: &TaskEntry) -> bool {
        let person = |user: &str| user.split('!').next().unwrap_or_default().to_owned();
        task.user
            .as_deref()
            .is_none_or(|user| person(user) == person(self.user()))
    }

    /// The tasks of a node that are at work.
    pub(crate) async fn running_tasks(&self, node: &str) -> Result<Vec<TaskEntry>, Error> {
        let call = Call::get(&["nodes", node, "tasks"], "list the tasks of", format!("node {node}"))
            .with("source", "active")
            .with("limit", 500);
        let tasks: Vec<TaskEntry> = self.send(&call).await?;
        Ok(tasks.into_iter().filter(TaskEntry::is_running).collect())
    }
}

fn object(task: &Upid) -> String {
    format!("task {task}")
}

/// A log shows the URL that was fetched, and a presigned one is a secret: all behind its path goes.
fn redact(log: &str) -> String {
    let words = log.split(' ').map(|word| match word.split_once('?') {
        Some((url, _)) if url.contains("://") => format!("{url}?…"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_upid_says_its_node() {
        let text = "UPID:pve1:000A1B2C:0123ABCD:66AA55CC:qmcreate:100:vmferry@pve!t:";
        let upid = Upid::parse(text).unwrap();
        assert_eq!((upid.node.as_str(), upid.to_string().as_str()), ("pve1", text));
        for text in ["", "UPID", "UPID:::::::", "OK", "upid:pve:1:2:3:4:5:6:"] {
            assert_eq!(Upid::parse(text).unwrap_err().kind(), Kind::Failed, "{text}");
        }
    }

    #[test]
    fn a_presigned_url_loses_its_signature() {
        let text = redact("downloading https://s3/b/k?X-Amz-Signature=abc to x | why? no");
        assert_eq!(text, "downloading https://s3/b/k?… to x | why? no");
    }

    #[test]
    fn an_entry_says_whether_it_runs_and_how_it_failed() {
        let entry = |text: &str| -> TaskEntry { serde_json::from_str(text).unwrap() };
        let running = entry(r#"{"upid": "U", "type": "qmconfig", "id": "100", "starttime": "1"}"#);
        assert!(running.is_running() && running.failure().is_none());
        let ok = entry(r#"{"upid": "U", "type": "qmconfig", "status": "OK", "endtime": 5}"#);
        assert!(!ok.is_running() && ok.failure().is_none());
        let warned = entry(r#"{"upid": "U", "type": "qmconfig", "status": "WARNINGS: 1", "endtime": 5}"#);
        assert!(warned.failure().is_none());
        let failed = entry(r#"{"upid": "U", "type": "qmconfig", "status": "no space", "endtime": 5}"#);
        assert_eq!(failed.failure(), Some("no space"));
    }
}
