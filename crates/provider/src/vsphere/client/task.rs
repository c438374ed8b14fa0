//! Methods that take their time.

use std::time::Duration;

use super::{Client, Props, Trouble};
use crate::Kind;
use crate::vsphere::soap::{Arg, Element, Moref, VimFault};

/// Pauses before a task is begun again that another operation was in the way of.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

const PATHS: [&str; 3] = ["info.state", "info.error", "info.result"];

impl Client {
    /// Calls a `…_Task` method and waits for its end: gives its result, where it has one. After `limit` it is
    /// [`Busy`](Kind::Busy), and goes on at the server.
    pub(crate) async fn task(
        &self,
        this: &Moref,
        method: &'static str,
        args: &[Arg],
        limit: Duration,
    ) -> Result<Option<Element>, Trouble> {
        let task = self.call_for_moref(this, method, args).await?;
        self.finished(&task, limit).await
    }

    /// Like [`task`](Self::task), and begins again where another operation on the object was in its way: then nothing was done. Backups,
    /// DRS and people get there at any time, for a moment.
    pub(crate) async fn insist(
        &self,
        this: &Moref,
        method: &'static str,
        args: &[Arg],
        limit: Duration,
    ) -> Result<Option<Element>, Trouble> {
        for pause in PAUSES {
            match self.task(this, method, args, limit).await {
                Err(trouble) if is_in_the_way(&trouble) => {
                    tracing::debug!(%this, method, detail = trouble.detail, "another operation is in the way");
                    tokio::time::sleep(pause).await;
                }
                ended => return ended,
            }
        }
        self.task(this, method, args, limit).await
    }

    /// Waits for the end of a task. One that is gone says nothing of what it was for: that is [`Failed`](Kind::Failed).
    pub(crate) async fn finished(&self, task: &Moref, limit: Duration) -> Result<Option<Element>, Trouble> {
        match self.wait(task, &PATHS, limit, ended).await {
            Ok(Some(end)) => end,
            Ok(None) => Err(still_runs(task, limit)),
            Err(trouble) if trouble.kind == Kind::NotFound => Err(Trouble::new(
                Kind::Failed,
                format!("the server has forgotten the task {}, as after a restart", task.value),
            )),
            Err(trouble) => Err(trouble),
        }
    }

    /// Waits for the end, good or bad, of the tasks of a sort that are under way on an object, whoever began them: what they make is
    /// found nowhere before. `what` is a part of their description's id in lower case. Gives whether there was one.
    pub(crate) async fn settled(&self, object: &Moref, what: &str, limit: Duration) -> Result<bool, Trouble> {
        let under_way = self.under_way(object, what).await?;
        for task in &under_way {
            let is_over = |props: &Props| (!is_under_way(props)).then_some(());
            match self.wait(task, &["info.state"], limit, is_over).await {
                Ok(Some(())) => {}
                Ok(None) => return Err(still_runs(task, limit)),
                Err(trouble) if trouble.kind == Kind::NotFound => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(!under_way.is_empty())
    }

    /// The tasks of a sort that are under way on an object.
    async fn under_way(&self, object: &Moref, what: &str) -> Result<Vec<Moref>, Trouble> {
        let recent = self.properties(object, &["recentTask"]).await?.morefs("recentTask");
        let tasks = self
            .properties_of(&recent, &["info.state", "info.descriptionId"])
            .await?;
        let is_it = |task: &Props| {
            let id = task.text("info.descriptionId").unwrap_or_default().to_lowercase();
            id.contains(what) && is_under_way(task)
        };
        let found = tasks.into_iter().filter(|task| is_it(&task.props));
        Ok(found.map(|task| task.moref).collect())
    }
}

impl Client {
    /// Cancels the import that holds a VM, and with it the lease: it may be another session's, which ended without a word. Gives whether
    /// there was one. For a VM of ours only.
    pub(crate) async fn cancel_import(&self, vm: &Moref) -> Result<bool, Trouble> {
        // `ResourcePool.ImportVAppLRO`.
        let imports = self.under_way(vm, "importvapp").await?;
        for task in &imports {
            self.call(task, "CancelTask", &[]).await?;
        }
        Ok(!imports.is_empty())
    }
}

fn is_under_way(task: &Props) -> bool {
    matches!(task.text("info.state"), Some("running" | "queued"))
}

fn still_runs(task: &Moref, limit: Duration) -> Trouble {
    let detail = format!("the task {} still runs after {} s", task.value, limit.as_secs());
    Trouble::new(Kind::Busy, detail)
}

fn is_in_the_way(trouble: &Trouble) -> bool {
    let faults = ["TaskInProgress", "ConcurrentAccess", "ResourceInUse", "MethodDisabled"];
    faults.iter().any(|fault| trouble.is(fault))
}

fn ended(props: &Props) -> Option<Result<Option<Element>, Trouble>> {
    match props.text("info.state")? {
        "success" => Some(Ok(props.get("info.result").cloned())),
        "error" => Some(Err(match props.get("info.error") {
            Some(error) => VimFault::of_localized(error).into(),
            None => Trouble::new(Kind::Failed, "the task failed without saying why"),
        })),
        _ => None,
    }
}
