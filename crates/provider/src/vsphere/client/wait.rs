//! Waiting until a property has the value that is waited for.

use std::time::Duration;

use tokio::time::Instant;

use super::property::filter_spec;
use super::{Client, Props, Trouble};
use crate::Kind;
use crate::vsphere::soap::{Arg, Element, Moref};

/// How long the server may keep one question for updates.
const ASK: Duration = Duration::from_secs(20);
/// Pauses between looks where the server tells no updates: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// The most parts that an update comes in.
const PARTS: usize = 100;
/// How long the server may be away.
const OUTAGE: Duration = Duration::from_mins(1);

/// A subscription to an object's properties: a collector of its own, since updates of one are told to one caller.
struct Watch {
    collector: Moref,
    version: String,
}

impl Client {
    /// Waits until `look` finds in the object's properties what it looks for, for `limit` at most: then `None`. The server is
    /// asked to tell of changes; where it does not, or when that fails in between, it is asked for the values now and then.
    pub(crate) async fn wait<T>(
        &self,
        object: &Moref,
        paths: &[&'static str],
        limit: Duration,
        mut look: impl FnMut(&Props) -> Option<T> + Send,
    ) -> Result<Option<T>, Trouble> {
        let deadline = Instant::now() + limit;
        let mut props = Props::default();
        let mut watch = self.watch(object, paths).await.ok();
        while let Some(watching) = &mut watch {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.updates(watching, object, ASK.min(left), &mut props).await {
                Ok(()) => {}
                Err(trouble) => {
                    tracing::debug!(%object, detail = trouble.detail, "no updates, looking instead");
                    break;
                }
            }
            let found = look(&props);
            if found.is_some() || left.is_zero() {
                self.unwatch(watching).await;
                return Ok(found);
            }
        }
        self.poll(object, paths, deadline, look).await
    }

    async fn poll<T>(
        &self,
        object: &Moref,
        paths: &[&'static str],
        deadline: Instant,
        mut look: impl FnMut(&Props) -> Option<T> + Send,
    ) -> Result<Option<T>, Trouble> {
        let (mut pause, longest) = PAUSE;
        let mut away: Option<Instant> = None;
        loop {
            match self.properties(object, paths).await {
                Ok(props) => {
                    away = None;
                    if let Some(found) = look(&props) {
                        return Ok(Some(found));
                    }
                }
                Err(trouble) if trouble.kind == Kind::Unreachable => {
                    if away.get_or_insert_with(Instant::now).elapsed() > OUTAGE {
                        return Err(trouble);
                    }
                }
                Err(trouble) => return Err(trouble),
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(longest);
        }
    }

    async fn watch(&self, object: &Moref, paths: &[&'static str]) -> Result<Watch, Trouble> {
        let parent = &self.content().property_collector;
        let collector = self.call_for_moref(parent, "CreatePropertyCollector", &[]).await?;
        let watch = Watch {
            collector,
            version: String::new(),
        };
        let set = Arg::object("objectSet", [Arg::moref("obj", object)]);
        let args = [
            filter_spec("spec", &object.kind, paths, [set]),
            Arg::text("partialUpdates", false),
        ];
        if let Err(trouble) = self.call(&watch.collector, "CreateFilter", &args).await {
            self.unwatch(&watch).await;
            return Err(trouble);
        }
        Ok(watch)
    }

    async fn unwatch(&self, watch: &Watch) {
        if let Err(trouble) = self.call(&watch.collector, "DestroyPropertyCollector", &[]).await {
            tracing::debug!(detail = trouble.detail, "could not destroy a property collector");
        }
    }

    /// Takes in what changed since the last time, the first time all of it: none of it before all of it is there.
    async fn updates(
        &self,
        watch: &mut Watch,
        object: &Moref,
        limit: Duration,
        props: &mut Props,
    ) -> Result<(), Trouble> {
        for _ in 0..PARTS {
            if self.update(watch, object, limit, props).await? {
                return Ok(());
            }
        }
        Err(Trouble::new(
            Kind::Failed,
            "the server gives updates in parts without end",
        ))
    }

    /// Asks once; `false` where more has changed than was told.
    async fn update(
        &self,
        watch: &mut Watch,
        object: &Moref,
        limit: Duration,
        props: &mut Props,
    ) -> Result<bool, Trouble> {
        let seconds = limit.as_secs().max(1);
        let args = [
            Arg::text("version", &watch.version),
            Arg::object("options", [Arg::text("maxWaitSeconds", seconds)]),
        ];
        let answer = self.call(&watch.collector, "WaitForUpdatesEx", &args).await?;
        // Nothing changed in that time.
        let Some(updates) = answer.child("returnval") else {
            return Ok(true);
        };
        if let Some(version) = updates.text_at("version") {
            version.clone_into(&mut watch.version);
        }
        for set in updates.all("filterSet").flat_map(|filter| filter.all("objectSet")) {
            if set.moref_at("obj").as_ref() != Some(object) {
                continue;
            }
            if set.text_at("kind") == Some("leave") {
                return Err(Trouble::new(Kind::NotFound, format!("{object} is gone")));
            }
            for change in set.all("changeSet") {
                take(change, props);
            }
        }
        Ok(updates.flag_at("truncated") != Some(true))
    }
}

fn take(change: &Element, props: &mut Props) {
    let Some(name) = change.text_at("name") else { return };
    let is_set = matches!(change.text_at("op"), Some("assign" | "add") | None);
    props.set(name, change.child("val").cloned().filter(|_| is_set));
}
