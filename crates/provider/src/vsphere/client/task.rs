//! Methods that take their time.

use std::time::Duration;

use super::{Client, Props, Trouble};
use crate::Kind;
use crate::vsphere::soap::{Arg, Element, Moref, VimFault};

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

    /// Waits for the end of a task.
    pub(crate) async fn finished(&self, task: &Moref, limit: Duration) -> Result<Option<Element>, Trouble> {
        match self.wait(task, &PATHS, limit, ended).await? {
            Some(end) => end,
            None => Err(Trouble::new(
                Kind::Busy,
                format!("the task {} still runs after {} s", task.value, limit.as_secs()),
            )),
        }
    }
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
