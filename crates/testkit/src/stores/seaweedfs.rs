//! SeaweedFS: one process that serves S3.
//!
//! Each has an address of its own in 127/8, and ports from below those that the system hands out: it asks for eight of them, and
//! takes seconds to bind the last.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::server::{Server, program};
use crate::command::Must;

/// An S3 server on a loopback address, with one bucket and the key of [`SeaweedFs::KEY`].
#[derive(Debug)]
pub struct SeaweedFs {
    server: Server,
    address: Ipv4Addr,
    /// The first of its ports, in the order of [`PORT_NAMES`].
    first: u16,
}

/// Ports that the system gives to nobody by itself.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// What the ports are for, as SeaweedFS calls them.
const PORT_NAMES: [&str; 8] = [
    "s3.port",
    "filer.port",
    "s3.port.grpc",
    "filer.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
];

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        self.server.kill();
        // It puts sockets there, named after its ports, and leaves them. Most of these names do not exist.
        for (name, port) in PORT_NAMES.iter().zip(self.first..) {
            let role = name.split('.').next().unwrap_or_default();
            let _ = fs::remove_file(format!("/tmp/seaweedfs-{role}-{port}.sock"));
            let _ = fs::remove_file(format!("/tmp/seaweedfs-{role}-grpc-{port}.sock"));
        }
    }
}

/// Somebody who may use the server.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Access key.
    pub access_key: &'a str,
    /// Secret key.
    pub secret_key: &'a str,
    /// What SeaweedFS calls actions: `Admin`, `Read`, `List`, `Tagging`, `Write`, each alone or for `:bucket`.
    pub actions: &'a [&'a str],
}

impl SeaweedFs {
    /// Access key and secret key of the one who may do everything.
    pub const KEY: (&'static str, &'static str) = ("AKIAVMFERRYTEST", "test/secret+key");
    /// The bucket.
    pub const BUCKET: &'static str = "vm-migrations";

    /// Starts it.
    pub fn start() -> Self {
        Self::start_for(&[])
    }

    /// Starts it with more identities.
    pub fn start_for(others: &[Identity<'_>]) -> Self {
        let all = Identity {
            access_key: Self::KEY.0,
            secret_key: Self::KEY.1,
            actions: &["Admin", "Read", "List", "Tagging", "Write"],
        };
        let mut server = Server::new("weed");
        let identities: Vec<_> = [all].iter().chain(others).map(identity).collect();
        let config = server.folder().join("s3.json");
        let text = format!("{{\"identities\":[{}]}}", identities.join(","));
        fs::write(&config, text).must("write SeaweedFS's identities");
        let data = server.folder().join("data");
        fs::create_dir(&data).must("make SeaweedFS's folder");
        let [_, b, c, d] = rand::random::<[u8; 4]>();
        let address = Ipv4Addr::new(127, b, c, d.clamp(2, 250));
        let first = rand::random_range(PORTS);
        let (s3, filer) = (first, first + 1);
        let mut command = Command::new(program("weed"));
        command
            .arg("server")
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-ip={address}"))
            .arg(format!("-ip.bind={address}"))
            .args(["-volume.max=0", "-master.volumeSizeLimitMB=1024"])
            .args([
                "-s3",
                "-s3.iam=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-master.telemetry=false",
            ])
            .arg(format!("-s3.config={}", config.display()))
            // A Go program takes what it gets. Near its limit it does nothing but collect: what it needs by itself is 120 MiB.
            .env("GOMEMLIMIT", "600MiB")
            .env("GOGC", "100");
        for (name, port) in PORT_NAMES.iter().zip(first..) {
            command.arg(format!("-{name}={port}"));
        }
        let listens = |port| TcpStream::connect((address, port)).is_ok();
        server.start(&mut command, || listens(s3) && listens(filer));
        let server = Self { server, address, first };
        server.make_bucket(Self::BUCKET);
        server
    }

    /// The endpoint: `http://address:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `address:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.address, self.first)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) {
        let (status, body) = self.filer("POST", &format!("/buckets/{name}/"));
        assert!(
            (200..300).contains(&status),
            "SeaweedFS makes no bucket {name}: {status} {body}"
        );
    }

    /// The files below a bucket, and the uploads under way with their parts. The folders of prefixes are SeaweedFS's own affair: it removes
    /// empty ones when it finds the time.
    pub fn everything(&self, bucket: &str) -> Vec<String> {
        let mut folders = vec![format!("/buckets/{bucket}")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            let (status, body) = self.filer("GET", &format!("{folder}/?limit=100000"));
            assert!(status == 200, "SeaweedFS does not list {folder}: {status} {body}");
            for entry in body.split("\"FullPath\":\"").skip(1) {
                let path = entry.split('"').next().unwrap_or_default().to_owned();
                // The mode of a folder has Go's highest bit.
                let mode = entry
                    .split("\"Mode\":")
                    .nth(1)
                    .and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
                let is_folder = mode.is_some_and(|mode| mode & (1 << 31) != 0);
                if !is_folder || path.contains("/.uploads/") {
                    found.push(path.clone());
                }
                if is_folder {
                    folders.push(path);
                }
            }
        }
        found
    }

    /// A request to the filer, which has no keys: status and body.
    fn filer(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect((self.address, self.first + 1)).must("reach SeaweedFS's filer");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .must("set a limit");
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).must("ask SeaweedFS's filer");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).must("read the filer's answer");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.must("read the filer's status"), body.to_owned())
    }
}

fn identity(identity: &Identity<'_>) -> String {
    let mut actions = String::new();
    for action in identity.actions {
        let comma = if actions.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(actions, "{comma}\"{action}\"");
    }
    let Identity {
        access_key, secret_key, ..
    } = identity;
    format!(
        "{{\"name\":\"{access_key}\",\"credentials\":[{{\"accessKey\":\"{access_key}\",\"secretKey\":\"{secret_key}\"}}],\"actions\":[{actions}]}}"
    )
}
