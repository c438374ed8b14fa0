//! Watches that do not end.

use std::fmt::Debug;

use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::runtime::watcher::{self, Error, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Resource};

/// The status of an answer that says that what was listed is too old to watch on from.
const GONE: u16 = 410;

/// Watches for ever, whatever goes wrong, ever less often while it does.
///
/// Where the start of a watch is refused since it would begin too long ago, all is listed anew. kube's watcher does so by itself
/// where an event says it, as API servers do; where the status of an answer says it, it would ask for the same again for ever.
pub(crate) fn watching<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let begin = move || watch(api.clone(), config.clone()).boxed();
    let begun = begin();
    let events = stream::unfold((begun, begin), |(mut events, begin)| async move {
        let event = events.next().await?;
        if event.as_ref().is_err_and(is_too_old) {
            events = begin();
        }
        Some((event, (events, begin)))
    });
    events.default_backoff()
}

fn is_too_old(error: &Error) -> bool {
    matches!(error, Error::WatchStartFailed(kube::Error::Api(status)) if status.code == GONE)
}
