//! A server that answers each method with what lies in its folder.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use secrecy::SecretString;
use vmferry_testkit::front::Front;

use crate::credentials::Credentials;
use crate::vsphere::{Config, Placement};

const COOKIE: &str = "vmware_soap_session=\"9f0b1c\"; Path=/; HttpOnly; Secure; ";

/// The file that every device has.
pub(super) fn bytes() -> Vec<u8> {
    (0..300_000_u32).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// A running server, behind TLS. Its thread ends with the test's process.
pub(super) struct Server {
    front: Front,
    script: Arc<Script>,
}

struct Script {
    folder: PathBuf,
    calls: Mutex<HashMap<String, usize>>,
    replacements: Mutex<Vec<(&'static str, String)>>,
    next: Mutex<Vec<(&'static str, String)>>,
}

impl Server {
    /// A server of this kind. `thumbprint` is what it says of other hosts.
    pub(super) fn start(kind: &str, thumbprint: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let front = Front::builder(&listener.local_addr().unwrap().to_string())
            .tls()
            .start();
        let script = Arc::new(Script {
            folder: PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("tests/transcripts")
                .join(kind),
            calls: Mutex::default(),
            replacements: Mutex::new(vec![
                // Another name than the one by which it is connected to.
                ("@HOST@", format!("127.0.0.1:{}", front.port())),
                ("@THUMBPRINT@", thumbprint.trim_end_matches(':').to_owned()),
            ]),
            next: Mutex::default(),
        });
        let shared = Arc::clone(&script);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let script = Arc::clone(&shared);
                thread::spawn(move || script.serve(&connection.unwrap()));
            }
        });
        Self { front, script }
    }

    pub(super) fn config(&self) -> Config {
        Config {
            endpoint: self.front.url(),
            credentials: Credentials {
                username: Some("u".to_owned()),
                password: Some(SecretString::from("p")),
                ca: self.front.ca().map(str::to_owned),
                ..Credentials::default()
            },
            insecure: false,
            placement: Placement::default(),
        }
    }

    /// Has answers say something else from now on.
    pub(super) fn say(&self, instead: &'static str, text: &str) {
        self.script
            .replacements
            .lock()
            .unwrap()
            .push((instead, text.to_owned()));
    }

    /// Has the next call of a method that has none of these yet answered with this body.
    pub(super) fn answer_next(&self, name: &'static str, body: &str) {
        let text = format!(
            "<soapenv:Envelope xmlns:soapenv='s' xmlns:xsi='i'><soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
        );
        self.script.next.lock().unwrap().push((name, text));
    }

    /// How often a method was called.
    pub(super) fn count(&self, method: &str) -> usize {
        self.script.calls.lock().unwrap().get(method).copied().unwrap_or(0)
    }

    /// What was fetched beside the API.
    pub(super) fn fetched(&self) -> Vec<String> {
        let seen = self.front.seen().into_iter().filter(|seen| seen.method == "GET");
        seen.map(|seen| seen.target).collect()
    }

    /// Whether the cookie went with it.
    pub(super) fn fetched_with_cookie(&self) -> bool {
        let seen = self.front.seen();
        seen.iter()
            .any(|seen| seen.method == "GET" && seen.header("cookie").is_some())
    }
}

impl Script {
    /// One request; the connection ends with its answer.
    fn serve(&self, connection: &TcpStream) {
        let mut reader = BufReader::new(connection);
        let (mut first, mut length, mut cookie) = (String::new(), 0, false);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
                break;
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            cookie |= lower.starts_with("cookie:") && line.contains("vmware_soap_session=\"9f0b1c\"");
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut out = connection;
        if first.starts_with("GET") {
            // In pieces, without a length.
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
            out.write_all(head.as_bytes()).unwrap();
            for piece in bytes().chunks(70_000) {
                let _ = write!(out, "{:x}\r\n", piece.len());
                let _ = out.write_all(piece).and_then(|()| out.write_all(b"\r\n"));
            }
            let _ = out.write_all(b"0\r\n\r\n");
            return;
        }
        let answer = self.answer(&String::from_utf8(body).unwrap(), cookie);
        let status = if answer.contains("Fault>") {
            "500 Internal Server Error"
        } else {
            "200 OK"
        };
        let set = if answer.contains("<LoginResponse") {
            format!("Set-Cookie: {COOKIE}\r\n")
        } else {
            String::new()
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/xml; charset=utf-8\r\n{set}Content-Length: {}\r\nConnection: close\r\n\r\n",
            answer.len()
        );
        let _ = out
            .write_all(head.as_bytes())
            .and_then(|()| out.write_all(answer.as_bytes()));
    }

    /// The answer to this call of a method: `NAME.3.xml` to the third, `NAME.xml` to all that have none of their own.
    fn answer(&self, request: &str, cookie: bool) -> String {
        let method = between(request, "<soapenv:Body><", " ");
        let name = match method {
            "RetrievePropertiesEx" if request.contains("TraversalSpec") => format!("{method}-view"),
            "RetrievePropertiesEx" => format!("{method}-{}", between(request, "<type>", "<")),
            _ => method.to_owned(),
        };
        if !cookie && !matches!(method, "RetrieveServiceContent" | "Login") {
            return "<Envelope><Body><Fault><faultstring>no cookie</faultstring></Fault></Body></Envelope>".to_owned();
        }
        let nth = {
            let mut calls = self.calls.lock().unwrap();
            let nth = calls.entry(name.clone()).or_default();
            *nth += 1;
            *nth
        };
        let mut next = self.next.lock().unwrap();
        if let Some(at) = next.iter().position(|(known, _)| *known == name) {
            return next.remove(at).1;
        }
        let own = fs::read_to_string(self.folder.join(format!("{name}.{nth}.xml")));
        let answer = own.or_else(|_| fs::read_to_string(self.folder.join(format!("{name}.xml"))));
        let answer = answer.unwrap_or_else(|_| {
            format!("<Envelope><Body><Fault><faultstring>nobody wrote {name}</faultstring></Fault></Body></Envelope>")
        });
        let replacements = self.replacements.lock().unwrap();
        replacements
            .iter()
            .fold(answer, |answer, (mark, value)| answer.replace(mark, value))
    }
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let rest = text.split_once(before).unwrap().1;
    rest.split(after).next().unwrap()
}
