//! `kubectl vmferry status`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::pin::pin;

use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kube::Api;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use vmferry_api::manifest::key_of;
use vmferry_api::{Key, Phase, VMMigration};

use super::args::Status;
use super::client::{Cluster, call, checked};
use super::view;
use crate::commands::get::table;
use crate::exit::{Code, Failure};
use crate::output;

/// No more lists in one answer than this.
const PAGE: u32 = 500;

/// Shows how far migrations are.
pub async fn status(cluster: &Cluster, args: &Status) -> Result<Code, Failure> {
    if args.watch {
        return watch(cluster, args).await;
    }
    let shown = match &args.name {
        Some(name) => vec![cluster.migration(name).await?],
        None => all(&api(cluster, args)).await?,
    };
    if shown.is_empty() {
        output::line("no migrations found; -A looks into all namespaces");
        return Ok(Code::Success);
    }
    for line in table(&view::table(&shown, args.all_namespaces)) {
        output::line(&line);
    }
    Ok(Code::Success)
}

fn api(cluster: &Cluster, args: &Status) -> Api<VMMigration> {
    if args.all_namespaces {
        cluster.all_migrations()
    } else {
        cluster.migrations()
    }
}

/// All migrations, a page at a time.
async fn all(api: &Api<VMMigration>) -> Result<Vec<VMMigration>, Failure> {
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = call("list", "VMMigrations", api.list(&page)).await?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Shows what changes, until the one that is named has ended.
async fn watch(cluster: &Cluster, args: &Status) -> Result<Code, Failure> {
    let mut config = watcher::Config::default().page_size(PAGE);
    if let Some(name) = &args.name {
        // That it is there is worth knowing before it is waited for.
        cluster.migration(name).await?;
        config = config.fields(&format!("metadata.name={}", checked(name)?));
    }
    let mut screen = Screen::new(args.all_namespaces);
    let mut events = pin!(watcher(api(cluster, args), config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init | Event::InitDone) => {}
            Ok(Event::InitApply(migration) | Event::Apply(migration)) => {
                let ended = ending(&migration);
                screen.changed(migration);
                if let (Some(code), true) = (ended, args.name.is_some()) {
                    return Ok(code);
                }
            }
            Ok(Event::Delete(migration)) => {
                screen.gone(&key_of(&migration));
                if args.name.is_some() {
                    return Ok(Code::Failed);
                }
            }
            Err(error) => output::aside(|| tracing::warn!(%error, "the watch was cut off and is begun anew")),
        }
    }
    Ok(Code::Failed)
}

/// How a migration ended, if it has.
fn ending(migration: &VMMigration) -> Option<Code> {
    let status = migration.status.as_ref()?;
    status.completion_time.as_ref()?;
    Some(match status.phase {
        Phase::Ready => Code::Success,
        _ => Code::Failed,
    })
}

/// What is shown: a table that is drawn over on a terminal, a line for each change elsewhere.
struct Screen {
    namespaces: bool,
    shown: BTreeMap<Key, VMMigration>,
    drawn: Option<ProgressBar>,
}

impl Screen {
    fn new(namespaces: bool) -> Self {
        let drawn = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            bar.set_style(style);
            bar
        });
        Self {
            namespaces,
            shown: BTreeMap::new(),
            drawn,
        }
    }

    fn changed(&mut self, migration: VMMigration) {
        let line = view::line(&migration);
        let old = self.shown.insert(key_of(&migration), migration);
        self.show(|| line, old.as_ref().map(view::line).as_deref());
    }

    fn gone(&mut self, key: &Key) {
        self.shown.remove(key);
        self.show(|| format!("{key} deleted"), None);
    }

    fn show(&self, line: impl FnOnce() -> String, before: Option<&str>) {
        let Some(bar) = &self.drawn else {
            let line = line();
            if before != Some(line.as_str()) {
                output::line(&line);
            }
            return;
        };
        bar.set_message(table(&view::table(self.shown.values(), self.namespaces)).join("\n"));
        bar.tick();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = &self.drawn {
            // What was drawn last stays.
            bar.abandon();
        }
    }
}
