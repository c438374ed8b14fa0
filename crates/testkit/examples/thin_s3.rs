//! An S3 server that costs next to nothing, for measuring clients: `thin_s3 FOLDER PORT`.
//!
//! A thread for each connection; parts go to files of their own past the page cache, and an object is the folder of its parts, so that
//! nothing is ever copied. It knows one client that means well: signatures are not looked at, and nothing is durable. What
//! is measured against it is the client; how clients get on with servers that people run is measured and tested with those.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;

/// Bytes that are read and written at once.
const CHUNK: usize = 1 << 20;
/// What direct I/O asks for.
const ALIGN: usize = 4096;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(port)) = (arguments.next(), arguments.next().and_then(|port| port.parse().ok())) else {
        eprintln!("usage: thin_s3 FOLDER PORT");
        std::process::exit(2);
    };
    let store = Arc::new(Store {
        folder: folder.into(),
        last: AtomicU64::new(0),
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    for stream in listener.incoming().flatten() {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            // A client that hangs up is no failure.
            let _ = serve(&store, stream);
        });
    }
    Ok(())
}

struct Store {
    folder: PathBuf,
    last: AtomicU64,
}

impl Store {
    /// The folder of an object; `None` for the bucket itself.
    fn object(&self, path: &str) -> Option<PathBuf> {
        let name = path.trim_start_matches('/').replace('/', "%");
        name.contains('%').then(|| self.folder.join("objects").join(name))
    }

    fn upload(&self, id: &str) -> PathBuf {
        self.folder.join("uploads").join(id)
    }

    fn new_id(&self) -> String {
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos());
        format!("{nanos:x}-{}", self.last.fetch_add(1, Ordering::Relaxed))
    }
}

/// The part files of a folder in order, with their lengths.
fn parts(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            found.push((entry.path(), entry.metadata()?.len()));
        }
    }
    // All of one folder and of names of one length: comparing them byte by byte is enough.
    found.sort_unstable_by(|(one, _), (other, _)| one.as_os_str().cmp(other.as_os_str()));
    Ok(found)
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Self {
            method,
            path,
            query,
            headers,
        }))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A query parameter; empty where it is there without a value.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The headers that an object keeps, as lines of a head.
    fn metadata(&self) -> String {
        let kept = self.headers.iter().filter(|(name, _)| name.starts_with("x-amz-meta-"));
        kept.fold(String::new(), |text, (name, value)| {
            format!("{text}{name}: {value}\r\n")
        })
    }

    fn len(&self) -> u64 {
        self.header("content-length")
            .and_then(|len| len.parse().ok())
            .unwrap_or(0)
    }
}

fn serve(store: &Store, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut memory = vec![0; CHUNK + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let chunk = &mut memory[start..start + CHUNK];
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    while let Some(request) = Request::read(&mut stream)? {
        if request.header("expect").is_some() {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        answer(store, &request, &mut stream, chunk)?;
    }
    Ok(())
}

fn answer(store: &Store, request: &Request, stream: &mut BufReader<TcpStream>, chunk: &mut [u8]) -> io::Result<()> {
    let upload = request.parameter("uploadId").map(|id| store.upload(id));
    let Some(object) = store.object(&request.path) else {
        let empty = if request.parameter("uploads").is_some() {
            "<ListMultipartUploadsResult/>"
        } else {
            "<ListBucketResult/>"
        };
        return say(stream, "200 OK", "", empty);
    };
    match (request.method.as_str(), upload) {
        ("PUT", Some(upload)) => {
            let number: u32 = request
                .parameter("partNumber")
                .and_then(|n| n.parse().ok())
                .unwrap_or(1);
            // Under another name until it is whole.
            let (part, half) = (
                upload.join(format!("{number:05}")),
                upload.join(format!("half-{number}")),
            );
            store_body(stream, &half, request.len(), chunk)?;
            fs::rename(half, part)?;
            say(stream, "200 OK", &format!("ETag: \"{number}\"\r\n"), "")
        }
        ("PUT", None) => {
            let id = store.new_id();
            let folder = store.upload(&id);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("metadata"), request.metadata())?;
            store_body(stream, &folder.join("00001"), request.len(), chunk)?;
            publish(store, &folder, &object, &id)?;
            say(stream, "200 OK", &format!("ETag: \"{id}\"\r\n"), "")
        }
        ("POST", None) => {
            skip(stream, request.len())?;
            let id = store.new_id();
            fs::create_dir_all(store.upload(&id))?;
            fs::write(store.upload(&id).join("metadata"), request.metadata())?;
            let bucket = request.path.split('/').nth(1).unwrap_or_default();
            let body = format!(
                "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>k</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            say(stream, "200 OK", "", &body)
        }
        ("POST", Some(upload)) => {
            skip(stream, request.len())?;
            if request.header("if-none-match").is_some() && object.exists() {
                return refuse(stream, "412 Precondition Failed", "PreconditionFailed");
            }
            let id = store.new_id();
            publish(store, &upload, &object, &id)?;
            let body = format!("<CompleteMultipartUploadResult><ETag>\"{id}\"</ETag></CompleteMultipartUploadResult>");
            say(stream, "200 OK", "", &body)
        }
        ("GET", Some(upload)) => list_parts(stream, &upload),
        ("DELETE", upload) => {
            // Deleting what is gone is no failure.
            let _ = fs::remove_dir_all(upload.unwrap_or(object));
            say(stream, "204 No Content", "", "")
        }
        ("HEAD" | "GET", None) => read(stream, request, &object, chunk),
        _ => refuse(stream, "400 Bad Request", "InvalidRequest"),
    }
}

/// Gives a finished upload its name.
fn publish(store: &Store, upload: &Path, object: &Path, etag: &str) -> io::Result<()> {
    fs::write(upload.join("etag"), etag)?;
    fs::create_dir_all(store.folder.join("objects"))?;
    // An object of that name may be there.
    let _ = fs::remove_dir_all(object);
    fs::rename(upload, object)
}

fn list_parts(stream: &mut BufReader<TcpStream>, upload: &Path) -> io::Result<()> {
    let Ok(parts) = parts(upload) else {
        return refuse(stream, "404 Not Found", "NoSuchUpload");
    };
    let mut body = String::from("<ListPartsResult><IsTruncated>false</IsTruncated>");
    for (path, len) in parts {
        let number = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
        let Some(number) = number else { continue };
        let _ = write!(
            body,
            "<Part><PartNumber>{number}</PartNumber><ETag>\"{number}\"</ETag><Size>{len}</Size></Part>"
        );
    }
    body.push_str("</ListPartsResult>");
    say(stream, "200 OK", "", &body)
}

fn read(stream: &mut BufReader<TcpStream>, request: &Request, object: &Path, chunk: &mut [u8]) -> io::Result<()> {
    let (Ok(parts), Ok(etag)) = (parts(object), fs::read_to_string(object.join("etag"))) else {
        return refuse(stream, "404 Not Found", "NoSuchKey");
    };
    let etag = format!("\"{etag}\"");
    let metadata = fs::read_to_string(object.join("metadata")).unwrap_or_default();
    if request.header("if-match").is_some_and(|wanted| wanted != etag) {
        return refuse(stream, "412 Precondition Failed", "PreconditionFailed");
    }
    let len: u64 = parts.iter().map(|(_, len)| len).sum();
    let range = request.header("range").and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((
            from.parse::<u64>().ok()?,
            to.parse().unwrap_or(u64::MAX).min(len.saturating_sub(1)),
        ))
    });
    let (from, to, status) = match range {
        Some((from, to)) => (from, to + 1, "206 Partial Content"),
        None => (0, len, "200 OK"),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{len}\r\nETag: {etag}\r\n\
         Accept-Ranges: bytes\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n{metadata}\r\n",
        to.saturating_sub(from),
        to.saturating_sub(1)
    );
    stream.get_mut().write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let mut start = 0;
    for (path, len) in parts {
        let (first, last) = (from.max(start), to.min(start + len));
        if first < last {
            send(stream.get_mut(), &path, first - start, last - start, chunk)?;
        }
        start += len;
    }
    Ok(())
}

/// Sends bytes of a file, read past the page cache.
fn send(stream: &mut TcpStream, path: &Path, mut from: u64, to: u64, chunk: &mut [u8]) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(path)?;
    while from < to {
        let aligned = from / ALIGN as u64 * ALIGN as u64;
        let n = file.read_at(chunk, aligned)?;
        let skip = usize::try_from(from - aligned).unwrap_or(0);
        let end = n.min(usize::try_from(to - aligned).unwrap_or(usize::MAX));
        if end <= skip {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        stream.write_all(&chunk[skip..end])?;
        from += (end - skip) as u64;
    }
    Ok(())
}

/// Writes a body to a file past the page cache; what is not a whole block at its end, through it.
fn store_body(stream: &mut BufReader<TcpStream>, path: &Path, len: u64, chunk: &mut [u8]) -> io::Result<()> {
    let file = File::create(path)?;
    let direct = OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(path)?;
    let mut at = 0;
    while at < len {
        let n = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        stream.read_exact(&mut chunk[..n])?;
        let whole = n / ALIGN * ALIGN;
        direct.write_all_at(&chunk[..whole], at)?;
        file.write_all_at(&chunk[whole..n], at + whole as u64)?;
        at += n as u64;
    }
    Ok(())
}

fn skip(stream: &mut BufReader<TcpStream>, len: u64) -> io::Result<()> {
    io::copy(&mut stream.take(len), &mut io::sink()).map(drop)
}

fn refuse(stream: &mut BufReader<TcpStream>, status: &str, code: &str) -> io::Result<()> {
    say(
        stream,
        status,
        "",
        &format!("<Error><Code>{code}</Code><Message>no</Message></Error>"),
    )
}

fn say(stream: &mut BufReader<TcpStream>, status: &str, headers: &str, body: &str) -> io::Result<()> {
    let len = body.len();
    let text =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Type: application/xml\r\nContent-Length: {len}\r\n\r\n{body}");
    stream.get_mut().write_all(text.as_bytes())
}
