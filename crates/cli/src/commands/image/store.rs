//! Images in staging stores.

use std::sync::Arc;

use vmferry_block::ReadAt;
use vmferry_image::{Image, ImageFormat};
use vmferry_mover::Report;

use super::args::Access;
use super::place::Object;
use crate::exit::Failure;

/// An object as bytes to read.
pub async fn read(object: &Object, access: &Access) -> Result<Arc<dyn ReadAt>, Failure> {
    let _ = access;
    Err(Failure::bad_input(format!("{}: stores are not read yet", object.url)))
}

/// Writes a disk as a new object.
pub async fn write(
    _image: &Arc<Image>,
    object: &Object,
    _format: ImageFormat,
    _access: &Access,
    _verify: bool,
) -> Result<Report, Failure> {
    Err(Failure::bad_input(format!(
        "{}: stores are not written yet",
        object.url
    )))
}
