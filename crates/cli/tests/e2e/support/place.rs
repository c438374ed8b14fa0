//! Staging storage of each kind, at a real server and by a way that can be cut.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use vmferry_testkit::front::Front;
use vmferry_testkit::stores::{Apache, ApacheSpec, Export, Ganesha, Nginx, NginxSpec, SeaweedFs, everything_below};
use vmferry_testkit::{Proxy, files_below, run};

/// What the HTTP servers let in.
const TOKEN: &str = "t0ken-of-the-test";
const USER: &str = "ferry";
const PASSWORD: &str = "passw0rd-of-the-test";

/// A staging storage.
#[derive(Debug)]
pub struct Place {
    server: Server,
    /// Between HTTP servers and the proxy: it counts requests.
    front: Option<Front>,
    proxy: Proxy,
}

#[derive(Debug)]
enum Server {
    S3(SeaweedFs),
    Apache(Apache),
    Nginx(Nginx),
    Nfs(Ganesha, &'static str),
}

impl Place {
    /// A bucket at SeaweedFS.
    pub fn s3() -> Self {
        Self::at(Server::S3(SeaweedFs::start()))
    }

    /// A folder at an Apache that wants a token and takes ranges.
    pub fn apache() -> Self {
        let token = Some(TOKEN.to_owned());
        Self::at(Server::Apache(Apache::with(&ApacheSpec {
            token,
            ..ApacheSpec::default()
        })))
    }

    /// A folder at an nginx that wants a password and takes no ranges.
    pub fn nginx() -> Self {
        let user = Some((USER.to_owned(), PASSWORD.to_owned()));
        Self::at(Server::Nginx(Nginx::with(&NginxSpec {
            user,
            ..NginxSpec::default()
        })))
    }

    /// An export over NFSv3.
    pub fn nfs3() -> Self {
        Self::at(Server::Nfs(Ganesha::start(Export::default()), "3"))
    }

    /// An export over NFSv4.
    pub fn nfs4() -> Self {
        Self::at(Server::Nfs(Ganesha::start(Export::default()), "4"))
    }

    /// An export over NFSv4 that nobody can write.
    pub fn read_only() -> Self {
        let export = Export {
            read_only: true,
            ..Export::default()
        };
        Self::at(Server::Nfs(Ganesha::start(export), "4"))
    }

    fn at(server: Server) -> Self {
        let address = match &server {
            Server::S3(server) => server.address(),
            Server::Apache(server) => server.address(),
            Server::Nginx(server) => server.address(),
            Server::Nfs(server, _) => format!("127.0.0.1:{}", server.port()),
        };
        let front = (!matches!(server, Server::Nfs(..))).then(|| Front::to(&address));
        let near = front
            .as_ref()
            .map_or(address, |front| format!("127.0.0.1:{}", front.port()));
        Self {
            server,
            front,
            proxy: Proxy::to(&near, true),
        }
    }

    /// `spec.storage` of a migration; the Secret's name is `staging`.
    pub fn storage(&self) -> Value {
        let here = format!("127.0.0.1:{}", self.proxy.port());
        let secret = json!({ "name": "staging" });
        match &self.server {
            Server::S3(_) => json!({
                "type": "s3", "bucket": SeaweedFs::BUCKET, "region": "us-east-1", "endpoint": format!("http://{here}"),
                "credentialsSecretRef": secret,
            }),
            Server::Apache(_) | Server::Nginx(_) => {
                json!({ "type": "http", "endpoint": format!("http://{here}/staged"), "credentialsSecretRef": secret })
            }
            Server::Nfs(server, version) => {
                let path = match *version {
                    "3" => server.path().display().to_string(),
                    _ => Ganesha::PSEUDO.to_owned(),
                };
                json!({ "type": "nfs", "endpoint": here, "path": path, "credentialsSecretRef": secret })
            }
        }
    }

    /// `stringData` of the Secret.
    pub fn secret(&self) -> Value {
        match &self.server {
            Server::S3(_) => json!({ "accessKey": SeaweedFs::KEY.0, "secretKey": SeaweedFs::KEY.1 }),
            Server::Apache(_) => json!({ "token": format!("Bearer_{TOKEN}") }),
            Server::Nginx(_) => json!({ "username": USER, "password": PASSWORD }),
            Server::Nfs(server, version) => {
                json!({ "mountOptions": format!("vers={version},rw,sync,mountport={}", server.mount_port()) })
            }
        }
    }

    /// What nobody may see of the Secret.
    pub fn hidden(&self) -> Option<String> {
        match &self.server {
            Server::S3(_) => Some(SeaweedFs::KEY.1.to_owned()),
            Server::Apache(_) => Some(TOKEN.to_owned()),
            Server::Nginx(_) => Some(PASSWORD.to_owned()),
            Server::Nfs(..) => None,
        }
    }

    /// How the URL of what is staged begins.
    pub fn url(&self) -> String {
        let storage = self.storage();
        let text = |field: &str| storage[field].as_str().unwrap_or_default().to_owned();
        match &self.server {
            Server::S3(_) => format!("s3://{}/default/m-", SeaweedFs::BUCKET),
            Server::Apache(_) | Server::Nginx(_) => format!("{}/default/m-", text("endpoint")),
            // The port is a mount option, not a part of the name.
            Server::Nfs(..) => format!("nfs://127.0.0.1{}/default/m-", text("path")),
        }
    }

    /// The way to it.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Everything in it: none where it is as new.
    pub fn everything(&self) -> Vec<String> {
        match &self.server {
            Server::S3(server) => server.everything(SeaweedFs::BUCKET),
            Server::Apache(server) => without_root(server.files()),
            // Folders that are empty stay on a server that cannot say whether they are.
            Server::Nginx(server) => files_below(server.root())
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            Server::Nfs(server, _) => everything_below(&server.folder()),
        }
    }

    /// Gets the object at a URL of the status with a client that is not ours.
    pub fn fetch(&self, url: &str, to: &Path) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--output"]).arg(to);
        match &self.server {
            Server::S3(server) => {
                let key = url.strip_prefix("s3://").unwrap();
                let user = format!("{}:{}", SeaweedFs::KEY.0, SeaweedFs::KEY.1);
                curl.args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user]);
                curl.arg(format!("{}/{key}", server.url()));
            }
            Server::Apache(_) => {
                curl.args(["--header", &format!("Authorization: Bearer {TOKEN}"), url]);
            }
            Server::Nginx(server) => {
                // It is in segments, and this is how they are put together.
                let key = url.split_once("/staged/").unwrap().1;
                let object = server.root().join("staged").join(key);
                run(Command::new("sh")
                    .args(["-c", "cat \"$1\".parts/*/* > \"$2\"", "sh"])
                    .arg(object)
                    .arg(to));
                return;
            }
            Server::Nfs(server, _) => {
                let key = url.strip_prefix("nfs://127.0.0.1").unwrap();
                let path = self.storage()["path"].as_str().unwrap().to_owned();
                let key = key.strip_prefix(&path).unwrap().trim_start_matches('/');
                fs::copy(server.folder().join(key), to).unwrap();
                return;
            }
        }
        run(&mut curl);
    }

    /// Changes a byte in the middle of the largest object: on the server's disk, or by putting another object in its place.
    #[track_caller]
    pub fn rot(&self) {
        let folder: PathBuf = match &self.server {
            Server::Apache(server) => server.root().to_owned(),
            Server::Nginx(server) => server.root().to_owned(),
            Server::Nfs(server, _) => server.folder(),
            Server::S3(server) => return self.replace(server),
        };
        let files = files_below(&folder);
        let object = files
            .iter()
            .max_by_key(|path| fs::metadata(path).map_or(0, |file| file.len()));
        flip(object.unwrap());
    }

    fn replace(&self, server: &SeaweedFs) {
        let everything = server.everything(SeaweedFs::BUCKET);
        let is_object =
            |name: &&String| Path::new(name).extension().is_some_and(|end| end == "qcow2") && !name.contains("/.");
        let key = everything.iter().find(is_object).unwrap();
        let key = key.strip_prefix("/buckets/").unwrap();
        let copy = tempfile::NamedTempFile::new().unwrap();
        self.fetch(&format!("s3://{key}"), copy.path());
        flip(copy.path());
        let user = format!("{}:{}", SeaweedFs::KEY.0, SeaweedFs::KEY.1);
        run(Command::new("curl")
            .args(["--silent", "--show-error", "--fail"])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user, "--upload-file"])
            .arg(copy.path())
            .arg(format!("{}/{key}", server.url())));
    }

    /// Kills the server and starts it again.
    pub fn restart(&mut self) {
        match &mut self.server {
            Server::Nfs(server, _) => server.restart(),
            Server::S3(_) | Server::Apache(_) | Server::Nginx(_) => panic!("this one is not started again"),
        }
    }

    /// The reads of staged images in a bucket: whether each was vmferry's own, which signs requests; whoever was given a URL does not.
    #[allow(
        dead_code,
        reason = "of the tests that share this, some have no target that reads by itself"
    )]
    pub fn reads(&self) -> Vec<bool> {
        let seen = self.front.iter().flat_map(Front::seen);
        let of_image = |target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            Path::new(path).extension().is_some_and(|end| end == "qcow2") && !query.contains("uploadId=")
        };
        let reads = seen.filter(|request| request.method == "GET" && of_image(&request.target));
        reads.map(|request| request.header("authorization").is_some()).collect()
    }

    /// How many parts were sent again after they had been sent before; none where requests are not counted.
    pub fn sent_again(&self) -> Option<usize> {
        let seen = self.front.as_ref()?.seen();
        let part = |target: &str, range: Option<&str>| match &self.server {
            Server::S3(_) => target.contains("partNumber=").then(|| target.to_owned()),
            _ => range.map(|range| format!("{target} {range}")),
        };
        let puts = seen.iter().filter(|request| request.method == "PUT");
        let mut parts: Vec<_> = puts
            .filter_map(|request| part(&request.target, request.header("content-range")))
            .collect();
        let all = parts.len();
        parts.sort();
        parts.dedup();
        Some(all - parts.len())
    }
}

/// Without the folder that the endpoint itself is.
fn without_root(mut files: Vec<String>) -> Vec<String> {
    files.retain(|name| name != "staged");
    files
}

/// Changes the byte in the middle of a file.
fn flip(path: &Path) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let (mut byte, middle) = ([0], file.metadata().unwrap().len() / 2);
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[!byte[0]], middle).unwrap();
}
