//! Admission, where it is asked for. Every replica answers, the leader or not.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use kube::Client;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vmferry_operator::webhook::{Options, Webhook};

use crate::exit::Failure;

/// Where admission is answered.
#[derive(Debug, ClapArgs)]
pub struct Admission {
    /// Answers admission reviews at this address, over TLS: references into other namespaces take rights there. Default:
    /// nowhere.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "VMFERRY_WEBHOOK_ADDR",
        requires = "webhook_cert_dir"
    )]
    pub webhook_addr: Option<SocketAddr>,
    /// The folder with the certificate for it, tls.crt and tls.key. It is read again when it changes.
    #[arg(long, value_name = "DIR", env = "VMFERRY_WEBHOOK_CERT_DIR")]
    pub webhook_cert_dir: Option<PathBuf>,
}

/// Starts to answer, until `stop`.
pub async fn start(
    args: &Admission,
    client: &Client,
    stop: &CancellationToken,
) -> Result<Option<JoinHandle<()>>, Failure> {
    let (Some(address), Some(certificates)) = (args.webhook_addr, args.webhook_cert_dir.clone()) else {
        return Ok(None);
    };
    let options = Options { address, certificates };
    let webhook = Webhook::bind(&options).await.map_err(Failure::bad_input)?;
    tracing::info!(address = %webhook.address(), "admission is answered");
    Ok(Some(tokio::spawn(webhook.run(client.clone(), stop.clone()))))
}
