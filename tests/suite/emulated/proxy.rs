//! What stands between the daemon and an emulator: it keeps every call, breaks those that it is told to, and answers in place
//! of an emulator what that one cannot.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A call as it was sent.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// `CreateChangeSet`, `PutObject`, `Decrypt`, …
    pub name: String,
    /// `cloudformation`, `s3`, `kms`, `sts`.
    pub service: String,
    pub region: String,
    /// Whose role signed it; empty where it was the daemon's own credentials.
    pub account: String,
    /// The stack, also where an object is of one; otherwise the path of the object, the role, or nothing.
    pub what: String,
    /// The path of the request.
    pub path: String,
    /// The HTTP status of the emulator's answer; 0 where it was not asked, or has not answered yet.
    pub status: u16,
    /// What was done to it.
    pub fault: Option<Fault>,
}

/// How a call is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The service's own refusal of too many calls.
    Throttled,
    /// 500 of the service, before it has done anything.
    Internal,
    /// 503 of something in between, with a page in HTML.
    Gateway,
    /// The answer takes a while.
    Slow,
    /// The connection breaks before the service has the call.
    Reset,
    /// The service takes the call and the connection breaks before its answer.
    Lost,
    /// Half of the answer comes, and then the connection breaks.
    Truncated,
    /// The answer comes with other bytes in it.
    Corrupted,
    /// The credentials are not good any more.
    Expired,
    /// The credentials do not suffice.
    Denied,
}

impl Fault {
    /// Every kind that passes by itself.
    pub const PASSING: [Self; 9] = [
        Self::Throttled,
        Self::Internal,
        Self::Gateway,
        Self::Slow,
        Self::Reset,
        Self::Lost,
        Self::Truncated,
        Self::Corrupted,
        Self::Expired,
    ];
}

/// Says how a call is broken, from what it is and how many there were before of this name about the same stack or object.
type Judge = Box<dyn Fn(&Call, usize) -> Option<Fault> + Send>;
/// Runs while a call waits for its answer, after the emulator has given it.
type Hook = Arc<dyn Fn(&Call) + Send + Sync>;

struct Rule {
    /// How often; each call counts, a repeat of it too.
    left: usize,
    judge: Judge,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    rules: Vec<Rule>,
    hook: Option<Hook>,
    seen: BTreeMap<(String, String), usize>,
    /// Texts of change sets by ARN, and the tokens that stacks were executed with: what not every emulator gives back.
    texts: BTreeMap<String, String>,
    stacks: BTreeMap<String, String>,
    /// By account, region and stack, with how often.
    tokens: BTreeMap<(String, String, String), (String, usize)>,
    /// Stacks whose name stands in the text of an object, by the object.
    objects: BTreeMap<String, String>,
    /// Accounts by the keys that their roles gave.
    keys: BTreeMap<String, String>,
    /// Everything that was sent, for who counts headers.
    sent: Vec<u8>,
}

/// The proxy, on loopback. It ends with the tests.
pub struct Proxy {
    pub address: String,
    target: String,
    /// Whether the emulator gives back no text of a change set: LocalEmu gives nothing or the stack's own, moto nothing or an error.
    stands_in: bool,
    state: Mutex<State>,
}

struct Message {
    first: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    /// Reads one; `head` says that no body follows whatever the headers say.
    fn read(from: &mut impl BufRead, kept: &mut Vec<u8>, head: bool) -> Option<Self> {
        let mut first = String::new();
        if from.read_line(&mut first).ok()? == 0 {
            return None;
        }
        kept.extend_from_slice(first.as_bytes());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line).ok()? == 0 {
                return None;
            }
            kept.extend_from_slice(line.as_bytes());
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut message = Self {
            first: first.trim_end().to_owned(),
            headers,
            body: Vec::new(),
        };
        let none = head || [" 204", " 304"].iter().any(|s| message.first.contains(s));
        if message.header("expect").is_some() {
            return None;
        }
        if none {
        } else if message
            .header("transfer-encoding")
            .is_some_and(|v| v.contains("chunked"))
        {
            loop {
                let mut size = String::new();
                from.read_line(&mut size).ok()?;
                let size = usize::from_str_radix(size.trim().split(';').next()?, 16).ok()?;
                let mut chunk = vec![0; size + 2];
                from.read_exact(&mut chunk).ok()?;
                if size == 0 {
                    break;
                }
                message.body.extend_from_slice(&chunk[..size]);
            }
        } else if let Some(length) = message.header("content-length") {
            message.body = vec![0; length.parse().ok()?];
            from.read_exact(&mut message.body).ok()?;
        } else if message.first.starts_with("HTTP/") {
            from.read_to_end(&mut message.body).ok()?;
        }
        kept.extend_from_slice(&message.body);
        Some(message)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str())
    }

    fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1);
        word.and_then(|w| w.parse().ok()).unwrap_or_default()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn written(&self, length: Option<usize>) -> Vec<u8> {
        let mut out = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
                out.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if let Some(length) = length {
            out.push_str(&format!("content-length: {length}\r\n"));
        }
        out.push_str("connection: close\r\n\r\n");
        [out.as_bytes(), &self.body].concat()
    }
}

/// Reads a field of a form.
fn field(body: &str, name: &str) -> Option<String> {
    let found = body.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    })?;
    Some(unescaped(found))
}

fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3);
        match (bytes[at], code.and_then(|c| u8::from_str_radix(c, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads the text between two tags.
fn between<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(t, _)| t)
}

/// Reads what a request asks for.
fn asked(request: &Message, state: &State) -> Call {
    let mut words = request.first.split(' ');
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let scope = request
        .header("authorization")
        .and_then(|a| a.split_once("Credential="));
    let mut scope = scope
        .map_or("", |(_, s)| s)
        .split(',')
        .next()
        .unwrap_or_default()
        .split('/');
    let mut next = || scope.next().unwrap_or_default().to_owned();
    let (key, _, region, service) = (next(), next(), next(), next());
    let (bare, query) = path.split_once('?').unwrap_or((path, ""));
    let text = request.text();
    let (name, what) = match service.as_str() {
        "s3" => {
            let in_bucket = bare.trim_matches('/').contains('/');
            let name = match (method, in_bucket) {
                ("PUT", true) => "PutObject",
                ("PUT", false) => "CreateBucket",
                ("HEAD", true) => "HeadObject",
                ("HEAD", false) => "HeadBucket",
                ("GET", true) => "GetObject",
                ("DELETE", _) => "DeleteObject",
                _ if query.contains("list-type") => "ListObjectsV2",
                _ => "GetBucket",
            };
            // The claim of a stack has the stack's ARN in its name.
            let claim = bare.split("_stack_").nth(1);
            let stack = claim.and_then(|s| s.rsplit_once('_')).map(|(s, _)| s);
            (name.to_owned(), stack.unwrap_or(bare).to_owned())
        }
        "kms" => {
            let target = request.header("x-amz-target").unwrap_or_default();
            let name = target.rsplit('.').next().unwrap_or_default();
            (name.to_owned(), String::new())
        }
        "sts" => {
            let role = field(&text, "RoleArn").unwrap_or_default();
            (field(&text, "Action").unwrap_or_default(), role)
        }
        _ => {
            let stack = field(&text, "StackName").filter(|s| !s.is_empty());
            let set = field(&text, "ChangeSetName").unwrap_or_default();
            let stack = stack.or_else(|| state.stacks.get(&set).cloned());
            // By name or by ARN, it is the same stack.
            let stack = stack.unwrap_or_default();
            let bare = stack
                .split(":stack/")
                .nth(1)
                .and_then(|s| s.split('/').next());
            let what = bare.map_or(stack.clone(), str::to_owned);
            (field(&text, "Action").unwrap_or_default(), what)
        }
    };
    Call {
        name,
        service,
        region,
        account: state.keys.get(&key).cloned().unwrap_or_default(),
        what,
        path: bare.to_owned(),
        ..Call::default()
    }
}

/// The service's own words for an error.
fn error(call: &Call, status: u16, code: &str) -> Vec<u8> {
    let said = format!("{code}, as the tests asked for");
    let (kind, body) = match call.service.as_str() {
        "s3" => (
            "application/xml",
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{said}</Message><RequestId>1</RequestId></Error>"
            ),
        ),
        "kms" => (
            "application/x-amz-json-1.1",
            format!("{{\"__type\":\"{code}\",\"message\":\"{said}\"}}"),
        ),
        _ => (
            "text/xml",
            format!(
                "<ErrorResponse xmlns=\"http://{}.amazonaws.com/doc/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{said}</Message></Error><RequestId>1</RequestId></ErrorResponse>",
                call.service
            ),
        ),
    };
    let body = if call.name.starts_with("Head") {
        String::new()
    } else {
        body
    };
    let message = Message {
        first: format!("HTTP/1.1 {status} Refused"),
        headers: vec![("content-type".into(), kind.into())],
        body: body.into_bytes(),
    };
    message.written(Some(message.body.len()))
}

/// How the services say a thing, each in its own way.
fn refusal(call: &Call, fault: Fault) -> Option<Vec<u8>> {
    let service = call.service.as_str();
    Some(match fault {
        Fault::Throttled => match service {
            "s3" => error(call, 503, "SlowDown"),
            "kms" => error(call, 400, "ThrottlingException"),
            _ => error(call, 400, "Throttling"),
        },
        Fault::Internal => match service {
            "s3" => error(call, 500, "InternalError"),
            "kms" => error(call, 500, "KMSInternalException"),
            _ => error(call, 500, "InternalFailure"),
        },
        Fault::Gateway => b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/html\r\ncontent-length: 32\r\nconnection: close\r\n\r\n<html><body>no.</body></html>\n\n\n".to_vec(),
        Fault::Expired => match service {
            "s3" => error(call, 400, "ExpiredToken"),
            "kms" => error(call, 400, "ExpiredTokenException"),
            _ => error(call, 403, "ExpiredToken"),
        },
        Fault::Denied => match service {
            "kms" => error(call, 400, "AccessDeniedException"),
            _ => error(call, 403, "AccessDenied"),
        },
        _ => return None,
    })
}

impl Proxy {
    /// Stands before an emulator.
    pub fn before(endpoint: &str, emulator: &str) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Arc::new(Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            target: endpoint.replace("http://", ""),
            stands_in: emulator != "ministack",
            state: Mutex::default(),
        });
        let shared = Arc::downgrade(&proxy);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Some(proxy) = shared.upgrade() else { break };
                std::thread::spawn(move || proxy.serve(client));
            }
        });
        proxy
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, client: TcpStream) {
        let Ok(from) = client.try_clone() else { return };
        let mut from = BufReader::new(from);
        let mut kept = Vec::new();
        let request = Message::read(&mut from, &mut kept, false);
        self.state().sent.extend_from_slice(&kept);
        if let Some(request) = request {
            self.answer(client, &request);
        }
    }

    fn answer(&self, mut client: TcpStream, request: &Message) {
        let (index, call, fault) = self.taken(request);
        if let Some(Fault::Reset) = fault {
            return;
        }
        if let Some(said) = fault.and_then(|f| refusal(&call, f)) {
            let _ = client.write_all(&said);
            return;
        }
        let Some(mut answer) = self.forwarded(request) else {
            return;
        };
        self.learnt(index, request, &call, &mut answer);
        if fault == Some(Fault::Slow) {
            std::thread::sleep(Duration::from_secs(3));
        }
        let whole = match request.first.starts_with("HEAD ") {
            true => answer.header("content-length").and_then(|l| l.parse().ok()),
            false => Some(answer.body.len()),
        };
        let told = match fault {
            Some(Fault::Lost) => Vec::new(),
            Some(Fault::Truncated) if answer.body.is_empty() => Vec::new(),
            Some(Fault::Truncated) => {
                let all = answer.written(whole);
                all[..all.len() - answer.body.len().div_ceil(2)].to_vec()
            }
            Some(Fault::Corrupted) => {
                // Answers without a body have nothing that could be wrong but their first line.
                if answer.body.is_empty() {
                    answer.first = "HTTP/1.1 502 Bad Gateway".into();
                }
                let middle = answer.body.len() / 2;
                for byte in answer.body.iter_mut().skip(middle).take(24) {
                    *byte = b'\x07';
                }
                answer.written(whole)
            }
            _ => answer.written(whole),
        };
        let _ = client.write_all(&told);
    }

    /// Writes a call down and tells what is to become of it.
    fn taken(&self, request: &Message) -> (usize, Call, Option<Fault>) {
        let mut state = self.state();
        let mut call = asked(request, &state);
        if call.name == "PutObject" && call.what.contains("/rendered/") {
            let text = request.text();
            if let Some((_, rest)) = text.split_once("stack-of-the-tests: ") {
                let stack = rest.split(['\n', '"', ' ']).next().unwrap_or_default();
                let path = call.what.clone();
                state.objects.insert(path, stack.to_owned());
            }
        }
        if let Some(stack) = state.objects.get(&call.what) {
            call.what = stack.clone();
        }
        let like = (call.name.clone(), call.what.clone());
        let before = state.seen.entry(like).or_default();
        let earlier = *before;
        *before += 1;
        let judged = call.clone();
        for rule in state.rules.iter_mut().filter(|r| r.left > 0) {
            call.fault = (rule.judge)(&judged, earlier);
            if call.fault.is_some() {
                rule.left -= 1;
                break;
            }
        }
        state.calls.push(call.clone());
        (state.calls.len() - 1, call.clone(), call.fault)
    }

    fn forwarded(&self, request: &Message) -> Option<Message> {
        let mut server = TcpStream::connect(&self.target).ok()?;
        server
            .write_all(&request.written(Some(request.body.len())))
            .ok()?;
        let head = request.first.starts_with("HEAD ");
        Message::read(&mut BufReader::new(server), &mut Vec::new(), head)
    }

    /// Keeps what the emulator said, and puts into its answer what it left out.
    fn learnt(&self, index: usize, request: &Message, call: &Call, answer: &mut Message) {
        let status = answer.status();
        let form = request.text();
        let said = answer.text();
        let mut fetched = None;
        if call.name == "CreateChangeSet" && status == 200 {
            let url = field(&form, "TemplateURL").unwrap_or_default();
            fetched = self.object(request, &url);
        }
        let hook = {
            let mut state = self.state();
            state.calls[index].status = status;
            if status == 200 && call.name == "CreateChangeSet" {
                let id = between(&said, "Id").unwrap_or_default().to_owned();
                state.stacks.insert(id.clone(), call.what.clone());
                if let Some(text) = fetched {
                    state.texts.insert(id, text);
                }
            }
            if status == 200
                && call.name == "AssumeRole"
                && let Some(key) = between(&said, "AccessKeyId")
            {
                let account = call.what.split(':').nth(4).unwrap_or_default();
                state.keys.insert(key.to_owned(), account.to_owned());
            }
            if status == 200 && matches!(call.name.as_str(), "ExecuteChangeSet" | "DeleteStack") {
                let token = field(&form, "ClientRequestToken").unwrap_or_default();
                let ran = state.tokens.entry(place(call, &call.what)).or_default();
                *ran = (token, ran.1 + 1);
            }
            let set = field(&form, "ChangeSetName").unwrap_or_default();
            let text = state.texts.get(&set).cloned();
            let token = state.tokens.get(&place(call, &call.what));
            let token = token.map(|(token, _)| token.clone());
            if status == 200 && call.name == "DeleteChangeSet" {
                state.texts.remove(&set);
            }
            if call.name == "GetTemplate"
                && self.stands_in
                && let Some(text) = text
            {
                let text = text
                    .replace('&', "&amp;")
                    .replace('<', "&lt;")
                    .replace('\r', "&#13;");
                answer.first = "HTTP/1.1 200 OK".into();
                answer.body = format!("<GetTemplateResponse xmlns=\"http://cloudformation.amazonaws.com/doc/2010-05-15/\"><GetTemplateResult><TemplateBody>{text}</TemplateBody></GetTemplateResult></GetTemplateResponse>").into_bytes();
            }
            if call.name == "DescribeStackEvents"
                && !said.contains("<ClientRequestToken>")
                && let Some(token) = token
            {
                let told = format!("<ClientRequestToken>{token}</ClientRequestToken></member>");
                answer.body = said.replace("</member>", &told).into_bytes();
            }
            let lists = matches!(call.name.as_str(), "DescribeStacks" | "ListStacks");
            if lists && self.stands_in {
                answer.body = dated(&said, call, &state).into_bytes();
            }
            state.hook.clone()
        };
        if let Some(hook) = hook {
            hook(call);
        }
    }

    /// Reads the object that a URL of a template names, with the credentials of who names it.
    fn object(&self, request: &Message, url: &str) -> Option<String> {
        let (_, path) = url.split_once("://")?.1.split_once('/')?;
        let sent = request.header("authorization")?.to_owned();
        let fetch = Message {
            first: format!("GET /{path} HTTP/1.1"),
            headers: vec![
                ("host".into(), self.target.clone()),
                (
                    "authorization".into(),
                    sent.replace("/cloudformation/", "/s3/"),
                ),
            ],
            body: Vec::new(),
        };
        let answer = self.forwarded(&fetch)?;
        if answer.status() != 200 {
            println!("{url} cannot be read: {} {}", answer.first, answer.text());
        }
        (answer.status() == 200).then(|| answer.text())
    }

    /// Breaks calls from now on.
    pub fn rule(
        &self,
        fault: Fault,
        times: usize,
        of: impl Fn(&Call, usize) -> bool + Send + 'static,
    ) {
        self.judge(times, move |call, before| of(call, before).then_some(fault));
    }

    /// Breaks calls from now on as it is told for each.
    pub fn judge(
        &self,
        left: usize,
        judge: impl Fn(&Call, usize) -> Option<Fault> + Send + 'static,
    ) {
        let judge = Box::new(judge);
        self.state().rules.push(Rule { left, judge });
    }

    /// Breaks nothing any more.
    pub fn calm(&self) {
        self.state().rules.clear();
    }

    /// Does something whenever the emulator has answered, before its answer goes on.
    pub fn hook(&self, hook: impl Fn(&Call) + Send + Sync + 'static) {
        self.state().hook = Some(Arc::new(hook));
    }

    /// Does nothing any more.
    pub fn unhook(&self) {
        self.state().hook = None;
    }

    /// Returns every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Returns how often calls of these names were sent.
    pub fn counts(&self, names: &[&str]) -> Vec<usize> {
        let state = self.state();
        let count = |name: &&str| state.calls.iter().filter(|c| c.name == *name).count();
        names.iter().map(count).collect()
    }

    /// Returns how often the emulator took a call of this name about a stack.
    pub fn accepted(&self, name: &str, what: &str) -> usize {
        let state = self.state();
        let of = |c: &&Call| c.name == name && c.what == what && c.status == 200;
        state.calls.iter().filter(of).count()
    }

    /// Returns how often a text was sent.
    pub fn sent(&self, what: &str) -> usize {
        let sent = &self.state().sent;
        sent.windows(what.len())
            .filter(|w| *w == what.as_bytes())
            .count()
    }
}

fn place(call: &Call, stack: &str) -> (String, String, String) {
    let (account, region) = (call.account.clone(), call.region.clone());
    (account, region, stack.to_owned())
}

/// Says of stacks when they were updated: moto and LocalEmu say it never, or always the same.
fn dated(text: &str, call: &Call, state: &State) -> String {
    let mut bare = text.to_owned();
    while let (Some(from), Some(to)) = (
        bare.find("<LastUpdatedTime>"),
        bare.find("</LastUpdatedTime>"),
    ) {
        bare.replace_range(from..to + "</LastUpdatedTime>".len(), "");
    }
    let mut parts = bare.split("</StackName>");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = out.rsplit("<StackName>").next().unwrap_or_default();
        let ran = state.tokens.get(&place(call, name)).map_or(0, |(_, n)| *n);
        out.push_str("</StackName>");
        if ran > 1 {
            let time = format!("2030-01-01T00:{:02}:{:02}Z", ran / 60, ran % 60);
            out.push_str(&format!("<LastUpdatedTime>{time}</LastUpdatedTime>"));
        }
        out.push_str(part);
    }
    out
}
