//! Notes beside objects: one `PUT`, which replaces a file as a whole on nginx, on Apache and on whatever writes to a
//! temporary file first.

use super::names::Names;
use super::server::Server;
use crate::ObjectKey;
use crate::web::Trouble;

/// The longest note that is read, in bytes. A longer one is not ours.
const LONGEST: usize = 4 << 20;

pub(super) async fn read(server: &Server, key: &ObjectKey) -> Result<Option<String>, Trouble> {
    server.settled_text(&Names::of(key).note(), LONGEST).await
}

pub(super) async fn write(server: &Server, key: &ObjectKey, text: &str) -> Result<(), Trouble> {
    server.put_text_below(&Names::of(key).note(), text).await.map(drop)
}

pub(super) async fn delete(server: &Server, key: &ObjectKey) -> Result<(), Trouble> {
    server.delete(&Names::of(key).note()).await.map(drop)
}
