//! A stand-in for CloudFormation, S3, SQS and STS that costs next to nothing, over HTTP: what is measured before it is isoform's
//! own, with the SDK and the network of this machine. A process of its own, so that its time is nobody's.
//!
//! It validates nothing. A change set is ready at once and holds one change; an operation takes as long as it was told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

/// Summaries on a page.
const PAGE: usize = 100;

#[derive(Clone, Default)]
struct Far(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    stacks: BTreeMap<String, Stack>,
    sets: HashMap<String, (String, String, bool)>,
    objects: BTreeMap<String, Bytes>,
    calls: BTreeMap<String, u64>,
    messages: VecDeque<String>,
    /// Shortest and longest operation, in milliseconds.
    takes: (u64, u64),
    serial: u64,
}

struct Stack {
    name: String,
    created: bool,
    operation: u64,
    last: String,
    /// When the last operation ends, and whether that was told.
    ends: u64,
    told: bool,
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// An equally spread number from a name.
fn drawn(name: &str, turn: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ turn;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ (hash >> 32)
}

impl Stack {
    fn status(&self) -> &'static str {
        match (self.operation, self.ends > now(), self.created) {
            (0, ..) => "REVIEW_IN_PROGRESS",
            (_, true, false) => "CREATE_IN_PROGRESS",
            (_, true, true) => "UPDATE_IN_PROGRESS",
            (1, false, _) => "CREATE_COMPLETE",
            (_, false, _) => "UPDATE_COMPLETE",
        }
    }

    fn xml(&self, id: &str, whole: bool) -> String {
        let mut out = format!(
            "<member><StackId>{id}</StackId><StackName>{}</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>{}</StackStatus>",
            self.name,
            self.status()
        );
        if self.operation > 0 {
            let _ = write!(
                out,
                "<LastUpdatedTime>2026-01-01T{:02}:{:02}:{:02}Z</LastUpdatedTime><LastOperations><member><OperationType>UPDATE_STACK</OperationType><OperationId>op-{}</OperationId></member></LastOperations>",
                self.operation / 3600 % 24,
                self.operation / 60 % 60,
                self.operation % 60,
                self.operation
            );
        }
        if whole {
            let _ = write!(
                out,
                "<ChangeSetId>arn:aws:cloudformation:us-east-1:000000000001:changeSet/{}/1</ChangeSetId><Outputs><member><OutputKey>VpcId</OutputKey><OutputValue>vpc-{n}</OutputValue></member><member><OutputKey>TopicArn</OutputKey><OutputValue>arn:aws:sns:us-east-1:000000000001:{n}</OutputValue></member><member><OutputKey>Queue0Url</OutputKey><OutputValue>https://sqs.example/{n}</OutputValue></member></Outputs>",
                self.last,
                n = self.name
            );
        }
        out + "</member>"
    }
}

impl Far {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the process is ended; prints its address first.
pub fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}", listener.local_addr()?);
        let far = Far::default();
        let router = Router::new()
            .fallback(answer)
            .layer(DefaultBodyLimit::disable())
            .with_state(far);
        axum::serve(listener, router).await?;
        Ok(())
    })
}

fn plain(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|b| b.unwrap_or(b'0') as char);
                let text: String = digits.iter().collect();
                out.push(u8::from_str_radix(&text, 16).unwrap_or(b'?'));
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn fields(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter_map(|p| p.split_once('='));
    pairs.map(|(k, v)| (plain(k), plain(v))).collect()
}

/// Account and region, from the credentials of a request.
fn place(headers: &HeaderMap) -> (String, String) {
    let text = headers.get("authorization");
    let text = text.and_then(|v| v.to_str().ok()).unwrap_or_default();
    let scope = text.split_once("Credential=").map_or("", |(_, rest)| rest);
    let parts: Vec<&str> = scope.split('/').collect();
    let account = parts.first().and_then(|k| k.strip_prefix("ASIA"));
    let region = parts.get(2).copied().unwrap_or("us-east-1");
    (
        account.unwrap_or("000000000001").to_owned(),
        region.to_owned(),
    )
}

async fn answer(
    State(far): State<Far>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(word) = uri.path().strip_prefix("/-/") {
        return operated(&far, word, &fields(uri.query().unwrap_or_default()));
    }
    if let Some(target) = headers.get("x-amz-target") {
        let call = target.to_str().unwrap_or_default().to_owned();
        return queue(&far, &call).await;
    }
    if method == Method::POST && uri.path() == "/" {
        let asked = fields(&String::from_utf8_lossy(&body));
        let call = asked.get("Action").cloned().unwrap_or_default();
        *far.world().calls.entry(call.clone()).or_default() += 1;
        let inner = called(&mut far.world(), &call, &asked, &place(&headers));
        return match inner {
            Ok(inner) => (
                [("content-type", "text/xml")],
                format!("<{call}Response xmlns=\"http://cloudformation.amazonaws.com/doc/2010-05-15/\"><{call}Result>{inner}</{call}Result></{call}Response>"),
            )
                .into_response(),
            Err(why) => (
                StatusCode::BAD_REQUEST,
                format!("<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>{why} does not exist</Message></Error></ErrorResponse>"),
            )
                .into_response(),
        };
    }
    objects(&far, &method, &uri, &headers, body)
}

/// What whoever measures asks for.
fn operated(far: &Far, word: &str, asked: &HashMap<String, String>) -> Response {
    let number = |name: &str| -> u64 { asked.get(name).and_then(|n| n.parse().ok()).unwrap_or(0) };
    let mut world = far.world();
    let told = match word {
        "takes" => {
            world.takes = (number("least"), number("most"));
            serde_json::json!({})
        }
        "calls" => {
            let calls = world.calls.clone();
            if !asked.contains_key("keep") {
                world.calls.clear();
            }
            serde_json::json!(calls)
        }
        "ends" => {
            let ends: BTreeMap<&String, u64> =
                world.stacks.values().map(|s| (&s.name, s.ends)).collect();
            serde_json::json!(ends)
        }
        "seed" => {
            for index in 0..number("stacks") {
                let name = format!("bench-{index:05}");
                let id = format!(
                    "arn:aws:cloudformation:us-east-1:000000000009:stack/{name}/{index:012}"
                );
                let stack = Stack {
                    name,
                    created: true,
                    operation: 1,
                    last: String::new(),
                    ends: 0,
                    told: true,
                };
                world.stacks.insert(id, stack);
            }
            serde_json::json!({})
        }
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    told.to_string().into_response()
}

fn called(
    world: &mut World,
    call: &str,
    asked: &HashMap<String, String>,
    (account, region): &(String, String),
) -> Result<String, String> {
    let get = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
    match call {
        "AssumeRole" => {
            let account = get("RoleArn").split(':').nth(4).unwrap_or_default();
            Ok(format!(
                "<Credentials><AccessKeyId>ASIA{account}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
            ))
        }
        "GetCallerIdentity" => Ok(format!(
            "<Account>{account}</Account><Arn>arn:aws:iam::{account}:role/r</Arn>"
        )),
        "ListStacks" => {
            let mut wanted = asked
                .iter()
                .filter(|(k, _)| k.starts_with("StackStatusFilter"));
            let live =
                wanted.clone().next().is_none() || wanted.any(|(_, v)| v == "UPDATE_COMPLETE");
            let head = format!("arn:aws:cloudformation:{region}:{account}:");
            let from = match get("NextToken") {
                "" => head.clone(),
                token => token.to_owned(),
            };
            let (mut out, mut count) = (String::from("<StackSummaries>"), 0);
            let mut next = String::new();
            for (id, stack) in world.stacks.range(from..) {
                if !id.starts_with(&head) {
                    break;
                }
                let moves = stack.operation > 0 && stack.ends > now();
                if !live && !moves {
                    continue;
                }
                if count == PAGE {
                    next = format!("<NextToken>{id}</NextToken>");
                    break;
                }
                out += &stack.xml(id, false);
                count += 1;
            }
            Ok(out + "</StackSummaries>" + &next)
        }
        "DescribeStacks" => {
            let wanted = get("StackName");
            let found = match wanted.starts_with("arn:") {
                true => world.stacks.get_key_value(wanted),
                false => {
                    let id = id_of(account, region, wanted);
                    world.stacks.get_key_value(id.as_str())
                }
            };
            let (id, stack) = found.ok_or_else(|| format!("Stack with id {wanted}"))?;
            Ok(format!("<Stacks>{}</Stacks>", stack.xml(id, true)))
        }
        "CreateChangeSet" => {
            let (name, set) = (get("StackName").to_owned(), get("ChangeSetName").to_owned());
            let id = match name.starts_with("arn:") {
                true => name.clone(),
                false => id_of(account, region, &name),
            };
            world.serial += 1;
            let arn = format!(
                "arn:aws:cloudformation:{region}:{account}:changeSet/{set}/{}",
                world.serial
            );
            world.stacks.entry(id.clone()).or_insert_with(|| Stack {
                name,
                created: false,
                operation: 0,
                last: String::new(),
                ends: 0,
                told: true,
            });
            let url = get("TemplateURL").split('?').next().unwrap_or_default();
            let key = url.splitn(4, '/').nth(3).unwrap_or_default().to_owned();
            world.sets.insert(arn.clone(), (id.clone(), key, false));
            Ok(format!("<Id>{arn}</Id><StackId>{id}</StackId>"))
        }
        "DescribeChangeSet" => {
            let arn = get("ChangeSetName");
            let (id, _, executed) = world.sets.get(arn).ok_or("ChangeSet")?;
            let execution = if *executed {
                "EXECUTE_COMPLETE"
            } else {
                "AVAILABLE"
            };
            Ok(format!(
                "<ChangeSetName>c</ChangeSetName><ChangeSetId>{arn}</ChangeSetId><StackId>{id}</StackId><Status>CREATE_COMPLETE</Status><ExecutionStatus>{execution}</ExecutionStatus><Changes><member><Type>Resource</Type><ResourceChange><Action>Modify</Action><LogicalResourceId>Param3</LogicalResourceId><ResourceType>AWS::SSM::Parameter</ResourceType><Replacement>False</Replacement></ResourceChange></member></Changes>"
            ))
        }
        "GetTemplate" => {
            let (_, key, _) = world.sets.get(get("ChangeSetName")).ok_or("ChangeSet")?;
            let text = world.objects.get(key).cloned().unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            Ok(format!("<TemplateBody>{text}</TemplateBody>"))
        }
        "ExecuteChangeSet" => {
            let arn = get("ChangeSetName").to_owned();
            let (least, most) = world.takes;
            let set = world.sets.get_mut(&arn).ok_or("ChangeSet")?;
            set.2 = true;
            let id = set.0.clone();
            let stack = world.stacks.get_mut(&id).ok_or("Stack")?;
            stack.created = stack.operation > 0;
            stack.operation += 1;
            stack.last = arn.split('/').nth(1).unwrap_or_default().to_owned();
            let takes = least + drawn(&stack.name, stack.operation) % (most - least + 1);
            stack.ends = if most == 0 { 0 } else { now() + takes };
            stack.told = most == 0;
            Ok(String::new())
        }
        "DescribeStackEvents" => Ok("<StackEvents/>".into()),
        _ => Ok(String::new()),
    }
}

fn id_of(account: &str, region: &str, name: &str) -> String {
    format!("arn:aws:cloudformation:{region}:{account}:stack/{name}/7f1b2c3d")
}

/// The queue: a long poll tells what has ended.
async fn queue(far: &Far, call: &str) -> Response {
    let until = now() + 20_000;
    loop {
        let told: Vec<String> = {
            let mut world = far.world();
            let at = now();
            let mut ended = Vec::new();
            for (id, stack) in &mut world.stacks {
                if !stack.told && stack.ends <= at {
                    stack.told = true;
                    ended.push(id.clone());
                }
            }
            world.messages.extend(ended);
            if call.ends_with("ReceiveMessage") {
                let most = world.messages.len().min(10);
                world.messages.drain(..most).collect()
            } else {
                Vec::new()
            }
        };
        if !told.is_empty() || now() > until || !call.ends_with("ReceiveMessage") {
            let word = call.rsplit('.').next().unwrap_or_default().to_owned();
            *far.world().calls.entry(word).or_default() += 1;
            let all: Vec<_> = told
                .iter()
                .map(|id| {
                    let body = serde_json::json!({ "detail": { "stack-id": id } }).to_string();
                    serde_json::json!({ "MessageId": "m", "ReceiptHandle": id, "Body": body })
                })
                .collect();
            let body = serde_json::json!({ "Messages": all, "Successful": [], "Failed": [] });
            return (
                [("content-type", "application/x-amz-json-1.0")],
                body.to_string(),
            )
                .into_response();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn objects(far: &Far, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
    let path = plain(uri.path().trim_start_matches('/'));
    let asked = fields(uri.query().unwrap_or_default());
    let mut world = far.world();
    let sealed = ("x-amz-server-side-encryption", "AES256");
    let word = match (method.as_str(), asked.contains_key("list-type")) {
        ("GET", true) => "ListObjectsV2",
        ("GET", false) => "GetObject",
        ("PUT", _) => "PutObject",
        ("HEAD", _) => "HeadObject",
        _ => "DeleteObject",
    };
    *world.calls.entry(word.to_owned()).or_default() += 1;
    match word {
        "PutObject" => {
            if headers.contains_key("if-none-match") && world.objects.contains_key(&path) {
                let said = "<Error><Code>PreconditionFailed</Code><Message>there</Message></Error>";
                return (StatusCode::PRECONDITION_FAILED, said).into_response();
            }
            world.objects.insert(path, body);
            ([sealed, ("etag", "\"e\"")], "").into_response()
        }
        "GetObject" | "HeadObject" => match world.objects.get(&path) {
            Some(bytes) => ([sealed, ("etag", "\"e\"")], bytes.clone()).into_response(),
            None if !path.trim_end_matches('/').contains('/') => StatusCode::OK.into_response(),
            None => {
                let said = "<Error><Code>NoSuchKey</Code><Message>no</Message></Error>";
                (StatusCode::NOT_FOUND, said).into_response()
            }
        },
        "ListObjectsV2" => {
            let bucket = path.trim_end_matches('/');
            let prefix = asked.get("prefix").cloned().unwrap_or_default();
            let whole = format!("{bucket}/{prefix}");
            let found = world.objects.range(whole.clone()..);
            let mut out = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
            for (key, bytes) in found.take_while(|(k, _)| k.starts_with(&whole)) {
                let key = &key[bucket.len() + 1..];
                let _ = write!(
                    out,
                    "<Contents><Key>{key}</Key><Size>{}</Size><ETag>\"e\"</ETag></Contents>",
                    bytes.len()
                );
            }
            (out + "</ListBucketResult>").into_response()
        }
        _ => {
            world.objects.remove(&path);
            StatusCode::NO_CONTENT.into_response()
        }
    }
}
