//! Disks behind NBD.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::UnixStream;
use vmferry_block::{Buf, ReadAt};
use vmferry_image::Image;
use vmferry_nbd::Client;

use super::place::Export;
use crate::exit::Failure;

/// An export as bytes to read.
pub struct Bytes(pub Client);

#[async_trait]
impl ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.0.size()
    }

    async fn read_at(&self, offset: u64, buf: Buf) -> io::Result<Buf> {
        self.0.read(offset, buf).await.map_err(io::Error::other)
    }
}

/// Connects to an export.
pub async fn connect(export: &Export) -> Result<Client, Failure> {
    let cannot = |detail: String, remedy: &str| {
        let (name, socket) = (&export.name, export.socket.display());
        Failure::failed(format!(
            "cannot open the NBD export {name:?} on {socket}: {detail}; {remedy}"
        ))
    };
    let stream = UnixStream::connect(&export.socket)
        .await
        .map_err(|error| cannot(error.to_string(), "start its server, or correct the path of the socket"))?;
    let client = Client::connect(stream, &export.name).await;
    client.map_err(|error| cannot(error.to_string(), "look at its server"))
}

/// The disk that an export is.
pub async fn image(client: Client, name: &str) -> Result<Image, Failure> {
    let map = client.allocation().await;
    let map = map.map_err(|error| Failure::failed(format!("cannot ask {name} which parts hold data: {error}")))?;
    Ok(Image::raw(name, Arc::new(Bytes(client)), map))
}
