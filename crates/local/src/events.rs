//! What happened: told to an observer and kept as lines.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use vmferry_api::manifest::key_of;
use vmferry_api::{Key, Time, VMMigration};
use vmferry_engine::port::{Clock, Event, Events};

use crate::{Error, StateDir, error, file};

/// Who watches what this process does. Called in the middle of things: must be quick, and must not fail.
pub trait Observer: Send + Sync {
    /// A migration was saved.
    fn saved(&self, migration: &VMMigration);
    /// Something happened to a migration.
    fn event(&self, migration: &VMMigration, event: &Event);
}

/// An event, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// When.
    pub time: Time,
    /// The migration's UID, so that the events of one that was deleted are not taken for those of the next.
    pub uid: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Events as lines of a file for each migration.
pub struct LocalEvents {
    dir: Arc<StateDir>,
    clock: Arc<dyn Clock>,
    observer: Option<Arc<dyn Observer>>,
    /// One line at a time.
    writing: Arc<Mutex<()>>,
}

impl LocalEvents {
    /// Events in this directory.
    pub fn new(dir: Arc<StateDir>, clock: Arc<dyn Clock>, observer: Option<Arc<dyn Observer>>) -> Self {
        Self {
            dir,
            clock,
            observer,
            writing: Arc::default(),
        }
    }

    /// The events of a migration with this UID, oldest first. A line that a crash tore is passed over.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn of(dir: &StateDir, key: &Key, uid: &str) -> Result<Vec<LoggedEvent>, Error> {
        let path = dir.path("events", key, "jsonl")?;
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error::io("read", &path, error)),
        };
        let lines: Vec<_> = BufReader::new(file)
            .split(b'\n')
            .collect::<Result<_, _>>()
            .map_err(|error| error::io("read", &path, error))?;
        Ok(lines
            .iter()
            .filter_map(|line| serde_json::from_slice::<LoggedEvent>(line).ok())
            .filter(|event| event.uid == uid)
            .collect())
    }
}

#[async_trait]
impl Events for LocalEvents {
    async fn publish(&self, migration: &VMMigration, event: Event) {
        if let Some(observer) = &self.observer {
            observer.event(migration, &event);
        }
        let key = key_of(migration);
        let line = LoggedEvent {
            time: self.clock.now(),
            uid: migration.metadata.uid.clone().unwrap_or_default(),
            event,
        };
        let Ok(path) = self.dir.path("events", &key, "jsonl") else {
            return;
        };
        let writing = Arc::clone(&self.writing);
        let appended = tokio::task::spawn_blocking(move || {
            let _turn = writing.lock().unwrap_or_else(PoisonError::into_inner);
            append(&path, &line)
        })
        .await;
        if let Ok(Err(error)) = appended {
            tracing::warn!(migration = %key, %error, "an event could not be kept");
        }
    }
}

/// Appends a line. Where the last one was torn by a crash, it is ended first.
fn append(path: &Path, line: &LoggedEvent) -> Result<(), Error> {
    let text = serde_json::to_string(line).unwrap_or_default();
    file::make_folder(path.parent().unwrap_or(path))?;
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| error::io("open", path, error))?;
    let torn = ends_torn(&mut file).map_err(|error| error::io("read", path, error))?;
    let text = format!("{}{text}\n", if torn { "\n" } else { "" });
    file.write_all(text.as_bytes())
        .map_err(|error| error::io("append to", path, error))
}

fn ends_torn(file: &mut std::fs::File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
