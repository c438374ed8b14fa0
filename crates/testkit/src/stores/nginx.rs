//! nginx with its DAV module: `PUT`, `DELETE`, `MKCOL`, `COPY` and `MOVE`, no `PROPFIND`, and no `Content-Range` in a `PUT`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::{Server, free_port, listens, program};
use crate::command::{Must, run};

/// How an nginx is set up, beyond what every one of ours is.
#[derive(Debug, Clone)]
pub struct NginxSpec {
    /// The only Bearer token that is let in; everybody is where this and `user` are `None`.
    pub token: Option<String>,
    /// The only user that is let in, and the password.
    pub user: Option<(String, String)>,
    /// The methods that the DAV module takes.
    pub methods: String,
    /// `client_max_body_size`.
    pub max_body: String,
    /// Methods besides GET and HEAD that are answered with 403.
    pub denied: String,
    /// Bytes of the disk that its files are on; the disk of the test where `None`.
    pub disk: Option<u64>,
}

impl Default for NginxSpec {
    fn default() -> Self {
        Self {
            token: None,
            user: None,
            methods: "PUT DELETE MKCOL COPY MOVE".to_owned(),
            max_body: "0".to_owned(),
            denied: String::new(),
            disk: None,
        }
    }
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    server: Server,
    root: PathBuf,
    port: u16,
}

impl Nginx {
    /// One that lets everybody do everything.
    pub fn start() -> Self {
        Self::with(&NginxSpec::default())
    }

    /// One that is set up in this way.
    pub fn with(spec: &NginxSpec) -> Self {
        let mut server = Server::new("nginx");
        let root = server.folder().join("root");
        // Beside the files, so that what was sent is renamed into its place, not copied.
        let temporary = root.join(".tmp");
        fs::create_dir_all(&temporary).must("make nginx's folders");
        let port = free_port();
        let config = server.folder().join("nginx.conf");
        fs::write(&config, text(spec, server.folder(), &root, port)).must("write nginx's configuration");
        if let Some((user, password)) = &spec.user {
            let hash = run(Command::new("openssl").args(["passwd", "-apr1", password]));
            let line = format!("{user}:{hash}");
            fs::write(server.folder().join("users"), line).must("write nginx's users");
        }
        let mut command = Command::new(program("nginx"));
        command
            .arg("-c")
            .arg(&config)
            .arg("-e")
            .arg(server.folder().join("errors"));
        if let Some(bytes) = spec.disk {
            command = super::on_small_disk(&command, &root, bytes);
        }
        server.start(&mut command, || listens(port));
        // A disk that only the server sees is seen through it.
        let root = match spec.disk {
            Some(_) => Path::new("/proc")
                .join(server.pid().to_string())
                .join("root")
                .join(root.strip_prefix("/").must("read a path")),
            None => root,
        };
        Self { server, root, port }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The folder of its files.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything in it, below its folder: none where it is as new.
    pub fn files(&self) -> Vec<String> {
        let mut files = super::everything_below(&self.root);
        files.retain(|name| name != ".tmp");
        files
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// What it complained about.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.server.folder().join("errors")).unwrap_or_default()
    }
}

fn text(spec: &NginxSpec, folder: &Path, root: &Path, port: u16) -> String {
    let (folder, root) = (folder.display(), root.display());
    let NginxSpec { methods, max_body, .. } = spec;
    let (map, token) = spec.token.as_ref().map_or_else(Default::default, |token| {
        (
            format!("map $http_authorization $known {{ default 0; \"Bearer {token}\" 1; }}"),
            "if ($known = 0) { return 401; }",
        )
    });
    let user = match spec.user {
        Some(_) => format!("auth_basic staging; auth_basic_user_file {folder}/users;"),
        None => String::new(),
    };
    let denied = match &*spec.denied {
        "" => String::new(),
        methods => format!(
            "if ($request_method ~ ^({})$) {{ return 403; }}",
            methods.replace(' ', "|")
        ),
    };
    let paths: String = ["proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|module| format!("{module}_temp_path {folder}/{module};\n"))
        .concat();
    format!(
        "daemon off;
master_process off;
pid {folder}/pid;
events {{ }}
http {{
access_log off;
{paths}
client_body_temp_path {root}/.tmp;
client_max_body_size {max_body};
sendfile on;
{map}
server {{
    listen 127.0.0.1:{port};
    root {root};
    {user}
    location / {{
        {token}
        {denied}
        dav_methods {methods};
        create_full_put_path on;
        autoindex on;
    }}
}}
}}
"
    )
}
