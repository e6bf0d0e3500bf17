//! Git servers on the loopback: the real one behind HTTP, and one that turns hostile when it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request, read whole.
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Tells whether somebody has said what is there and waits for a pack.
    pub fn is_fetch(&self) -> bool {
        self.method == "POST" && self.holds("0009done\n")
    }

    pub fn holds(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|w| w == text.as_bytes())
    }
}

type Answer = dyn Fn(&Request, &mut TcpStream) -> bool + Send + Sync;

/// What went over the wire to and from the real server, headers included.
#[derive(Default)]
pub struct Traffic {
    requests: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Returns requests, bytes received and bytes sent so far.
    pub fn so_far(&self) -> [u64; 3] {
        [&self.requests, &self.received, &self.sent].map(|n| n.load(Ordering::SeqCst))
    }
}

struct Counted(TcpStream, Arc<Traffic>);

impl Read for Counted {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(out)?;
        self.1.received.fetch_add(n as u64, Ordering::SeqCst);
        Ok(n)
    }
}

/// `git http-backend` behind a small HTTP server. A hostile answer, when one is set, comes first.
pub struct HttpServer {
    pub address: SocketAddr,
    pub traffic: Arc<Traffic>,
    hostile: Arc<Mutex<Option<Arc<Answer>>>>,
}

impl HttpServer {
    /// Serves the repositories of a folder until the test process ends.
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            traffic: Arc::default(),
            hostile: Arc::default(),
        };
        let (hostile, traffic, root) = (
            server.hostile.clone(),
            server.traffic.clone(),
            root.to_owned(),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (hostile, traffic, root) = (hostile.clone(), traffic.clone(), root.clone());
                std::thread::spawn(move || serve(stream, &hostile, &traffic, &root));
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Answers with this where it says true, and with the real server otherwise.
    pub fn turn(&self, answer: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static) {
        *self.hostile.lock().unwrap() = Some(Arc::new(answer));
    }

    pub fn behave(&self) {
        *self.hostile.lock().unwrap() = None;
    }
}

fn serve(
    mut stream: TcpStream,
    hostile: &Mutex<Option<Arc<Answer>>>,
    traffic: &Arc<Traffic>,
    root: &Path,
) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .ok()?;
    // Otherwise an answer in two parts waits for an acknowledgement that the client delays.
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(Counted(stream.try_clone().ok()?, traffic.clone()));
    while let Some(request) = read(&mut reader) {
        let answer = hostile.lock().ok()?.clone();
        if answer.is_some_and(|answer| answer(&request, &mut stream)) {
            return None;
        }
        traffic.requests.fetch_add(1, Ordering::SeqCst);
        backend(&request, &mut stream, traffic, root)?;
    }
    None
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
    };
    if request
        .header("Transfer-Encoding")
        .is_some_and(|t| t.eq_ignore_ascii_case("chunked"))
    {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            request.body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = request
        .header("Content-Length")
        .and_then(|l| l.parse().ok())
    {
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        request.body = body;
    }
    Some(request)
}

fn backend(
    request: &Request,
    stream: &mut TcpStream,
    traffic: &Traffic,
    root: &Path,
) -> Option<()> {
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", &request.path)
        .env("QUERY_STRING", &request.query)
        .env(
            "CONTENT_TYPE",
            request.header("Content-Type").unwrap_or_default(),
        )
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env(
            "GIT_PROTOCOL",
            request.header("Git-Protocol").unwrap_or_default(),
        )
        .env(
            "HTTP_CONTENT_ENCODING",
            request.header("Content-Encoding").unwrap_or_default(),
        )
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take()?;
    let body = request.body.clone();
    std::thread::spawn(move || input.write_all(&body));
    let output = child.wait_with_output().ok()?.stdout;
    let end = output.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head
        .lines()
        .find_map(|l| l.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let body = &output[end + 4..];
    let mut answer = format!(
        "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    // Counted first: whoever has the answer finds it counted.
    traffic
        .sent
        .fetch_add(answer.len() as u64, Ordering::SeqCst);
    stream.write_all(&answer).ok()
}

/// Begins an answer that comes in parts.
pub fn begin(stream: &mut TcpStream, kind: &str) {
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-{kind}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
}

/// Sends a part of an answer that was begun.
pub fn send(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut part = format!("{:x}\r\n", bytes.len()).into_bytes();
    part.extend_from_slice(bytes);
    part.extend_from_slice(b"\r\n");
    stream.write_all(&part)
}

/// Ends an answer that was begun.
pub fn end(stream: &mut TcpStream) {
    let _ = stream.write_all(b"0\r\n\r\n");
}

/// One packet of Git's framing.
pub fn packet(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:04x}", bytes.len() + 4).into_bytes();
    out.extend_from_slice(bytes);
    out
}

/// The answer to a fetch that carries these bytes as its pack, on the side band where one is spoken.
pub fn pack_answer(request: &Request, pack: &[u8]) -> Vec<u8> {
    let mut out = packet(b"NAK\n");
    if !request.holds("side-band") {
        out.extend_from_slice(pack);
        return out;
    }
    for part in pack.chunks(60_000) {
        out.extend(packet(&[&[1], part].concat()));
    }
    out.extend_from_slice(b"0000");
    out
}

/// A pack as an attacker writes it: any number for the count, and entries as given. The checksum at its end is right.
pub fn pack(count: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"PACK\0\0\0\x02".to_vec();
    out.extend_from_slice(&count.to_be_bytes());
    entries
        .iter()
        .for_each(|entry| out.extend_from_slice(entry));
    let sum = sha1(&out);
    out.extend_from_slice(&sum);
    out
}

/// SHA-1 by Git itself, so that no other library is needed for it.
fn sha1(bytes: &[u8]) -> [u8; 20] {
    // `git hash-object` puts a header in front; `sha1sum` of coreutils does not.
    let mut child = Command::new("sha1sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let copy = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&copy));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut sum = [0; 20];
    for (i, byte) in sum.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
    }
    sum
}

/// Kinds of entries in a pack.
pub const BLOB: u8 = 3;
pub const OFS_DELTA: u8 = 6;
pub const REF_DELTA: u8 = 7;

/// One entry: kind and claimed size, what stands between, and the compressed bytes.
pub fn entry(kind: u8, size: u64, between: &[u8], compressed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = size >> 4;
    let mut byte = kind << 4 | (size & 15) as u8;
    while rest > 0 {
        out.push(byte | 0x80);
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    out.push(byte);
    out.extend_from_slice(between);
    out.extend_from_slice(compressed);
    out
}

pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A zlib stream of zeros, written bit by bit: 258 of them take 13 bits, and no time.
pub fn zeros(runs: usize) -> (u64, Vec<u8>) {
    let mut out = vec![0x78, 0x01];
    let (mut bits, mut held) = (0u64, 0u32);
    let mut put = |value: u64, count: u32, out: &mut Vec<u8>| {
        bits |= value << held;
        held += count;
        while held >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            held -= 8;
        }
    };
    // A last block with the fixed codes: one zero, runs of 258 at distance 1, and the end.
    put(0b011, 3, &mut out);
    put(0b0000_1100, 8, &mut out);
    for _ in 0..runs {
        put(0b1010_0011, 8, &mut out);
        put(0, 5, &mut out);
    }
    put(0, 7, &mut out);
    put(0, 7, &mut out);
    let size = 1 + 258 * runs as u64;
    let sum = ((size % 65_521) as u32) << 16 | 1;
    out.extend_from_slice(&sum.to_be_bytes());
    (size, out)
}

/// A number as deltas write sizes.
pub fn delta_size(mut size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while size >= 0x80 {
        out.push(size as u8 | 0x80);
        size >>= 7;
    }
    out.push(size as u8);
    out
}

/// Returns the folder of a mirror's packs.
pub fn packs(mirror: &Path) -> PathBuf {
    mirror.join("objects/pack")
}

/// A real `sshd` on the loopback, with keys of its own.
pub struct Sshd {
    process: std::process::Child,
    pub port: u16,
}

impl Sshd {
    /// Starts it, and makes its keys `host` and `user` in a folder; nothing where it is not installed.
    pub fn start(folder: &Path) -> Option<Self> {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
            .into_iter()
            .find(|p| Path::new(p).exists())?;
        for (name, kind) in [("host", "ed25519"), ("user", "rsa")] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-m", "PEM", "-N", "", "-t", kind, "-f"])
                .arg(folder.join(name))
                .status()
                .ok()?;
            assert!(made.success());
        }
        // It wants this folder where it separates privileges; elsewhere it does not.
        let _ = std::fs::create_dir_all("/run/sshd");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\n",
            folder.display()
        );
        let config = folder.join("sshd.conf");
        std::fs::write(&config, text).unwrap();
        let process = Command::new(program)
            .args(["-D", "-e", "-f", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(folder.join("sshd.log")).unwrap())
            .spawn()
            .ok()?;
        Some(Self { process, port })
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
