//! Apache with mod_dav: WebDAV class 2, and a `PUT` with `Content-Range`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::{Server, free_port, listens, program};
use crate::command::{Must, run};

/// How an Apache is set up, beyond what every one of ours is.
#[derive(Debug, Clone, Default)]
pub struct ApacheSpec {
    /// A Bearer token that is let in.
    pub token: Option<String>,
    /// A user that is let in, and the password. Everybody is where this and `token` are `None`.
    pub user: Option<(String, String)>,
    /// Methods that are refused with 403.
    pub denied: String,
    /// `LimitRequestBody`; none where 0.
    pub max_body: u64,
    /// Bytes of the disk that its files are on; the disk of the test where `None`.
    pub disk: Option<u64>,
}

/// A running Apache.
#[derive(Debug)]
pub struct Apache {
    server: Server,
    root: PathBuf,
    port: u16,
}

/// Where Debian keeps the modules.
const MODULES: &str = "/usr/lib/apache2/modules";

/// Who Apache runs as where the test runs as root: it refuses to be root.
const USER: &str = "www-data";

impl Apache {
    /// One that lets everybody do everything.
    pub fn start() -> Self {
        Self::with(&ApacheSpec::default())
    }

    /// One that is set up in this way.
    pub fn with(spec: &ApacheSpec) -> Self {
        let mut server = Server::new("apache");
        let root = server.folder().join("root");
        let locks = server.folder().join("locks");
        for folder in [&root, &locks] {
            fs::create_dir_all(folder).must("make Apache's folders");
        }
        if rustix::process::getuid().is_root() {
            let user = format!("{USER}:{USER}");
            run(Command::new("chown").arg(user).args([&root, &locks]));
            run(Command::new("chmod").arg("755").arg(server.folder()));
        }
        if let Some((user, password)) = &spec.user {
            let hash = run(Command::new("openssl").args(["passwd", "-apr1", password]));
            fs::write(server.folder().join("users"), format!("{user}:{hash}")).must("write Apache's users");
        }
        let port = free_port();
        let config = server.folder().join("apache.conf");
        fs::write(&config, text(spec, server.folder(), &root, port)).must("write Apache's configuration");
        let mut command = Command::new(program("apache2"));
        command.arg("-DFOREGROUND").arg("-f").arg(&config);
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
        // mod_dav's own: what it writes down of properties, by folder.
        files.retain(|name| !name.split('/').any(|part| part == ".DAV" || part == ".tmp"));
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

fn text(spec: &ApacheSpec, folder: &Path, root: &Path, port: u16) -> String {
    let (folder, root) = (folder.display(), root.display());
    let modules: String = [
        "mpm_event",
        "authn_core",
        "authn_file",
        "authz_core",
        "authz_user",
        "auth_basic",
        "setenvif",
        "dav",
        "dav_fs",
    ]
    .map(|name| format!("LoadModule {name}_module {MODULES}/mod_{name}.so\n"))
    .concat();
    let is_open = spec.token.is_none() && spec.user.is_none();
    let token = match &spec.token {
        Some(token) => format!("SetEnvIf Authorization \"^Bearer {token}$\" KNOWN"),
        None => String::new(),
    };
    let mut who = Vec::new();
    if is_open {
        who.push("Require all granted");
    }
    if spec.token.is_some() {
        who.push("Require env KNOWN");
    }
    if spec.user.is_some() {
        who.push("Require valid-user");
    }
    let who = who.join("\n");
    let denied = match &*spec.denied {
        "" => String::new(),
        methods => format!("SetEnvIf Request_Method \"^({})$\" DENIED", methods.replace(' ', "|")),
    };
    let max_body = spec.max_body;
    format!(
        "{modules}
ServerRoot {folder}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/errors
User {USER}
Group {USER}
StartServers 1
ThreadsPerChild 25
DocumentRoot {root}
DavLockDB {folder}/locks/db
LimitRequestBody {max_body}
LimitXMLRequestBody 1048576
{token}
{denied}
<Directory {root}>
    Dav On
    AuthType Basic
    AuthName staging
    AuthUserFile {folder}/users
    <RequireAll>
        <RequireAny>
            {who}
        </RequireAny>
        <RequireNone>
            Require env DENIED
        </RequireNone>
    </RequireAll>
</Directory>
"
    )
}
