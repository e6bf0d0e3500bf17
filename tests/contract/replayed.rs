//! Answers of AWS that no emulator gives, replayed over a real connection to the real adapters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_credential_types::Credentials;
use isoform::aws::{
    Aws, AwsVersions, Bucket, KmsKeys, Place, Reach, Role, S3Objects, Session, Stacks,
};
use isoform::clock::Clock;
use isoform::domain::cfn::Reference;
use isoform::domain::plan::ChangeSetStatus;
use isoform::domain::seal::{EncryptedDataKey, EncryptionContext};
use isoform::port::{
    Encryption, Error, KeyService, ObjectStore, OnFailure, Proposal, Put, StackEngine, Versions,
    body,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const ACCOUNT: &str = "111111111111";
pub const STACK: &str = "arn:aws:cloudformation:eu-west-1:111111111111:stack/orders/1";
pub const SET: &str = "arn:aws:cloudformation:eu-west-1:111111111111:changeSet/cs/1";
pub const KEY: &str = "arn:aws:kms:eu-west-1:111111111111:key/k";

/// An answer: status, headers, body. A status of 0 breaks the connection instead; a length that is given and longer than the
/// body breaks it after the body. With `transfer-encoding: chunked` no length is told.
pub type Answer = (u16, Vec<(&'static str, String)>, String);
type Script = Box<dyn Fn(&str, usize) -> Answer + Send + Sync>;

/// A service that answers by a script, which is told the call and how often it came before.
pub struct Service {
    pub address: String,
    pub calls: Arc<Mutex<Vec<String>>>,
    /// The first line and the headers of every request.
    pub heads: Arc<Mutex<Vec<String>>>,
}

impl Service {
    pub async fn with(script: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, tops) = (calls.clone(), heads.clone());
        let script: Arc<Script> = Arc::new(Box::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, kept.clone(), tops.clone(), script.clone()));
            }
        });
        Self {
            address,
            calls,
            heads,
        }
    }

    pub async fn session(&self) -> Session {
        self.session_as(&[], Reach::default()).await
    }

    pub async fn session_as(&self, roles: &[Role], reach: Reach) -> Session {
        let aws = self.aws(reach).await;
        aws.session(&"eu-west-1".parse().unwrap(), roles).await
    }

    pub async fn aws(&self, reach: Reach) -> Aws {
        let keys = Credentials::new("AKID", "secret", None, None, "test");
        let version = aws_config::BehaviorVersion::v2026_01_12();
        let loader = aws_config::defaults(version).credentials_provider(keys);
        let reach = Reach {
            endpoint: Some(self.address.clone()),
            session: "tests".into(),
            ..reach
        };
        Aws::by(loader, reach).await
    }

    pub async fn stacks(&self) -> Stacks {
        Self::stacks_of(self.session().await)
    }

    pub fn stacks_of(session: Session) -> Stacks {
        let place = Place {
            account: ACCOUNT.parse().unwrap(),
            service_role: Some("arn:aws:iam::111111111111:role/cfn".into()),
        };
        Stacks::new(session, place, Clock::system())
    }

    pub async fn store(&self, at_rest: Encryption) -> S3Objects {
        Self::store_of(&self.session().await, at_rest)
    }

    pub fn store_of(session: &Session, at_rest: Encryption) -> S3Objects {
        let bucket = Bucket {
            name: "bucket".into(),
            prefix: "x".into(),
            owner: ACCOUNT.parse().unwrap(),
            region: "eu-west-1".parse().unwrap(),
            at_rest,
            former_keys: Vec::new(),
        };
        S3Objects::new(session, bucket)
    }

    pub fn count(&self, call: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|c| c.starts_with(call)).count()
    }
}

/// Reads requests one after the other; a call is an action of a query, a target, or a method with its path.
async fn serve(
    mut stream: TcpStream,
    calls: Arc<Mutex<Vec<String>>>,
    heads: Arc<Mutex<Vec<String>>>,
    script: Arc<Script>,
) {
    let mut kept = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = kept.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            let mut more = [0; 4096];
            match stream.read(&mut more).await {
                Ok(read @ 1..) => kept.extend_from_slice(&more[..read]),
                _ => return,
            }
        };
        let text = String::from_utf8_lossy(&kept[..head]).into_owned();
        let header = |name: &str| {
            text.lines()
                .find_map(|l| {
                    l.split_once(':')
                        .filter(|(n, _)| n.eq_ignore_ascii_case(name))
                })
                .map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = header("content-length").map_or(0, |l| l.parse().unwrap());
        while kept.len() < head + length {
            let mut more = [0; 4096];
            match stream.read(&mut more).await {
                Ok(read @ 1..) => kept.extend_from_slice(&more[..read]),
                _ => return,
            }
        }
        let sent = String::from_utf8_lossy(&kept[head..head + length]).into_owned();
        kept.drain(..head + length);
        let line = text.lines().next().unwrap_or_default();
        heads.lock().unwrap().push(text.to_lowercase());
        let call = match (header("x-amz-target"), sent.strip_prefix("Action=")) {
            (Some(target), _) => target,
            (None, Some(query)) => query.to_owned(),
            _ => line.trim_end_matches(" HTTP/1.1").to_owned(),
        };
        let name = call.split(['&', '?']).next().unwrap_or_default().to_owned();
        let before = {
            let mut calls = calls.lock().unwrap();
            let before = calls.iter().filter(|c| c.starts_with(&name)).count();
            calls.push(call.clone());
            before
        };
        let (status, headers, body) = script(&call, before);
        if status == 0 {
            return;
        }
        let mut out = format!("HTTP/1.1 {status} X\r\n");
        let given = |name: &str| headers.iter().find(|(n, _)| *n == name);
        let chunked = given("transfer-encoding").is_some();
        let announced = given("content-length").map(|(_, l)| l.parse::<usize>().unwrap());
        if !chunked && announced.is_none() {
            out += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in &headers {
            out += &format!("{name}: {value}\r\n");
        }
        out += "\r\n";
        if chunked {
            out += &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        } else if !line.starts_with("HEAD ") {
            out += &body;
        }
        let cut = announced.is_some_and(|length| length > body.len());
        if stream.write_all(out.as_bytes()).await.is_err() || cut {
            return;
        }
    }
}

pub fn xml(body: &str) -> Answer {
    (200, vec![("content-type", "text/xml".into())], body.into())
}

pub fn refusal(code: &str) -> Answer {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>said so</Message></Error><RequestId>r</RequestId></ErrorResponse>"
    );
    (400, Vec::new(), body)
}

pub fn result(call: &str, body: &str) -> Answer {
    xml(&format!(
        "<{call}Response><{call}Result>{body}</{call}Result></{call}Response>"
    ))
}

pub fn caller(account: &str) -> Answer {
    result(
        "GetCallerIdentity",
        &format!("<Account>{account}</Account><Arn>arn:aws:iam::{account}:user/u</Arn>"),
    )
}

/// A service that knows its caller and says the same to everything else.
pub async fn saying(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Service {
    Service::with(move |call, before| {
        if call.starts_with("GetCallerIdentity") {
            caller(ACCOUNT)
        } else {
            answer(call, before)
        }
    })
    .await
}

pub fn proposal(create: bool) -> Proposal {
    Proposal {
        stack: "orders".parse().unwrap(),
        name: "cs".into(),
        token: "t".into(),
        create,
        import: BTreeMap::new(),
        template_url: "https://s3.eu-west-1.amazonaws.com/b/t".into(),
        parameters: BTreeMap::new(),
        kept: std::collections::BTreeSet::new(),
        tags: BTreeMap::new(),
        capabilities: Vec::new(),
        notification_arns: Vec::new(),
        rollback_triggers: Vec::new(),
        monitoring_minutes: 0,
        on_failure: OnFailure::Delete,
    }
}

#[tokio::test]
async fn credentials_of_another_account_are_refused_before_any_call() {
    let service = Service::with(|_, _| caller("222222222222")).await;

    let answer = service.stacks().await.propose(&proposal(true)).await;

    assert!(matches!(answer, Err(Error::Denied(_))), "{answer:?}");
    assert_eq!(service.count("CreateChangeSet"), 0);
}

#[tokio::test]
async fn a_lost_answer_to_an_execution_is_unavailable_and_nothing_is_sent_again() {
    let service = saying(|_, _| (0, Vec::new(), String::new())).await;

    let answer = service.stacks().await.execute(SET, "t").await;

    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    assert_eq!(service.count("ExecuteChangeSet"), 1);
}

#[tokio::test]
async fn a_token_that_was_used_before_is_an_accepted_call() {
    let service = saying(|_, _| refusal("TokenAlreadyExistsException")).await;

    let answer = service.stacks().await.execute(SET, "t").await;

    assert_eq!(answer, Err(Error::AlreadyAccepted));
}

#[tokio::test]
async fn what_reads_is_tried_again_and_what_writes_is_not() {
    let service = saying(|call, before| {
        if call.starts_with("ListStacks") && before == 2 {
            return result("ListStacks", "<StackSummaries/>");
        }
        (503, Vec::new(), String::new())
    })
    .await;
    let stacks = service.stacks().await;

    assert!(stacks.list(None).await.unwrap().items.is_empty());
    let executed = stacks.execute(SET, "t").await;

    assert!(
        matches!(executed, Err(Error::Unavailable(_))),
        "{executed:?}"
    );
    assert_eq!(service.count("ListStacks"), 3);
    assert_eq!(service.count("ExecuteChangeSet"), 1);
}

#[tokio::test]
async fn missing_capabilities_have_an_error_of_their_own() {
    let service = saying(|call, _| match call.split('&').next().unwrap_or_default() {
        "GetTemplateSummary" => result("GetTemplateSummary", "<Capabilities><member>CAPABILITY_IAM</member></Capabilities><CapabilitiesReason>because</CapabilitiesReason>"),
        "DescribeChangeSet" => result("DescribeChangeSet", "<Status>CREATE_COMPLETE</Status><ExecutionStatus>AVAILABLE</ExecutionStatus><Capabilities><member>CAPABILITY_IAM</member></Capabilities>"),
        _ => refusal("InsufficientCapabilitiesException"),
    })
    .await;
    let stacks = service.stacks().await;

    let answer = stacks.propose(&proposal(true)).await;
    let summary = stacks
        .summary("https://s3.eu-west-1.amazonaws.com/b/t")
        .await;
    let read = stacks.review(SET).await;

    assert!(matches!(answer, Err(Error::Incapable(_))), "{answer:?}");
    let summary = summary.unwrap();
    assert_eq!(summary.capabilities, ["CAPABILITY_IAM"]);
    assert_eq!(summary.reason.as_deref(), Some("because"));
    assert_eq!(read.unwrap().capabilities, ["CAPABILITY_IAM"]);
}

#[tokio::test]
async fn a_refused_proposal_is_explained_by_the_stack_and_not_by_a_text() {
    for (status, create, expected) in [
        ("CREATE_COMPLETE", true, "exists"),
        ("REVIEW_IN_PROGRESS", false, "not found"),
        ("UPDATE_IN_PROGRESS", false, "busy"),
        ("UPDATE_COMPLETE", false, "refused"),
    ] {
        let service = saying(move |call, _| {
            if call.starts_with("DescribeStacks") {
                return result("DescribeStacks", &format!("<Stacks><member><StackId>{STACK}</StackId><StackName>orders</StackName><StackStatus>{status}</StackStatus></member></Stacks>"));
            }
            refusal("ValidationError")
        })
        .await;

        let answer = service.stacks().await.propose(&proposal(create)).await;

        let word = match answer {
            Err(Error::Exists(_)) => "exists",
            Err(Error::NotFound(_)) => "not found",
            Err(Error::Busy(_)) => "busy",
            Err(Error::Refused(_)) => "refused",
            other => panic!("{other:?}"),
        };
        assert_eq!(word, expected, "{status}");
    }
}

#[tokio::test]
async fn what_a_template_names_and_is_not_there_is_not_the_stack() {
    let service = saying(|call, _| {
        if call.starts_with("DescribeStacks") {
            return result("DescribeStacks", &format!("<Stacks><member><StackId>{STACK}</StackId><StackName>orders</StackName><StackStatus>UPDATE_COMPLETE</StackStatus></member></Stacks>"));
        }
        let (status, headers, body) = refusal("ValidationError");
        let text = "Parameter of the SSM parameter store /orders/size does not exist";
        (status, headers, body.replace("said so", text))
    })
    .await;

    let answer = service.stacks().await.propose(&proposal(false)).await;

    assert!(matches!(answer, Err(Error::Refused(_))), "{answer:?}");
}

#[tokio::test]
async fn a_proposal_says_what_becomes_of_a_failure_and_who_works() {
    let service = saying(|_, _| {
        result(
            "CreateChangeSet",
            &format!("<Id>{SET}</Id><StackId>{STACK}</StackId>"),
        )
    })
    .await;

    service
        .stacks()
        .await
        .propose(&proposal(true))
        .await
        .unwrap();

    assert_eq!(service.count("CreateChangeSet"), 1);
    let calls = service.calls.lock().unwrap();
    let sent = calls
        .iter()
        .find(|c| c.starts_with("CreateChangeSet"))
        .unwrap();
    for part in [
        "OnStackFailure=DELETE",
        "ClientToken=t",
        "RoleARN=arn",
        "TemplateURL=https",
        "ChangeSetType=CREATE",
    ] {
        assert!(sent.contains(part), "{part} is not in {sent}");
    }
    assert!(!sent.contains("TemplateBody"));
}

#[tokio::test]
async fn an_answer_about_another_account_is_not_trusted() {
    let service = saying(|_, _| {
        let stack = STACK.replace(ACCOUNT, "222222222222");
        result(
            "CreateChangeSet",
            &format!("<Id>{SET}</Id><StackId>{stack}</StackId>"),
        )
    })
    .await;

    let answer = service.stacks().await.propose(&proposal(true)).await;

    assert!(matches!(answer, Err(Error::Untrusted(_))), "{answer:?}");
}

#[tokio::test]
async fn a_failed_change_set_is_read_without_values_too_because_they_hide_the_reason() {
    let service = saying(|call, _| {
        let reason = if call.contains("IncludePropertyValues=true") {
            String::new()
        } else {
            "<StatusReason>No updates are to be performed. More.</StatusReason>".into()
        };
        result(
            "DescribeChangeSet",
            &format!(
                "<Status>FAILED</Status><ExecutionStatus>UNAVAILABLE</ExecutionStatus>{reason}"
            ),
        )
    })
    .await;

    let read = service.stacks().await.review(SET).await.unwrap();

    assert_eq!(read.status, ChangeSetStatus::NoChanges);
    assert_eq!(service.count("DescribeChangeSet"), 2);
}

/// What validation before the deployment found, as the API model names it: DescribeEvents, `OperationEvent`.
#[tokio::test]
async fn what_early_validation_found_is_told_resource_by_resource() {
    let early = "<Status>FAILED</Status><ExecutionStatus>UNAVAILABLE</ExecutionStatus><StatusReason>The following hook(s)/validation failed: [AWS::EarlyValidation::PropertyValidation].</StatusReason>";
    let event = |logical: &str, path: &str| {
        format!(
            "<member><EventType>VALIDATION_ERROR</EventType><LogicalResourceId>{logical}</LogicalResourceId><ValidationName>PROPERTY</ValidationName><ValidationStatus>FAILED</ValidationStatus><ValidationStatusReason>not a number</ValidationStatusReason><ValidationPath>{path}</ValidationPath></member>"
        )
    };
    let answers = move |call: &str| {
        if call.starts_with("DescribeChangeSet") {
            return result("DescribeChangeSet", early);
        }
        assert!(call.contains("Filters.FailedEvents=true"), "{call}");
        let (events, next) = match call.contains("NextToken=two") {
            true => (
                event("Queue", "/Resources/Queue/Properties/DelaySeconds"),
                "",
            ),
            false => (
                event("Db", "/Resources/Db/Properties/Port"),
                "<NextToken>two</NextToken>",
            ),
        };
        result(
            "DescribeEvents",
            &format!("{next}<OperationEvents>{events}</OperationEvents>"),
        )
    };
    let service = saying(move |call, _| answers(call)).await;

    let read = service.stacks().await.review(SET).await.unwrap();

    assert_eq!(read.status, ChangeSetStatus::Failed);
    let reason = read.reason.unwrap();
    assert!(
        reason
            .starts_with("Db: not a number at /Resources/Db/Properties/Port; Queue: not a number"),
        "{reason}"
    );
    assert_eq!(service.count("DescribeEvents"), 2);
}

#[tokio::test]
async fn who_may_not_read_what_early_validation_found_is_told_that_it_failed() {
    let service = saying(|call, _| {
        if call.starts_with("DescribeChangeSet") {
            let early = "<Status>FAILED</Status><ExecutionStatus>UNAVAILABLE</ExecutionStatus><StatusReason>[AWS::EarlyValidation::NameConflict]</StatusReason>";
            return result("DescribeChangeSet", early);
        }
        refusal("AccessDenied")
    })
    .await;

    let read = service.stacks().await.review(SET).await.unwrap();

    assert_eq!(read.status, ChangeSetStatus::Failed);
    let reason = read.reason.unwrap();
    assert!(
        reason.contains("NameConflict") && reason.contains("cannot be read: access denied"),
        "{reason}"
    );
}

#[tokio::test]
async fn every_page_of_a_change_set_is_read() {
    let service = saying(|call, _| {
        let page = if call.contains("NextToken=two") { "B" } else { "A" };
        let next = if page == "A" { "<NextToken>two</NextToken>" } else { "" };
        result("DescribeChangeSet", &format!("<Status>CREATE_COMPLETE</Status><ExecutionStatus>AVAILABLE</ExecutionStatus>{next}<Changes><member><Type>Resource</Type><ResourceChange><Action>Add</Action><LogicalResourceId>{page}</LogicalResourceId><ResourceType>AWS::SNS::Topic</ResourceType></ResourceChange></member></Changes>"))
    })
    .await;

    let read = service.stacks().await.review(SET).await.unwrap();

    let names: Vec<&str> = read.changes.iter().map(|c| c.logical.as_str()).collect();
    assert_eq!(names, ["A", "B"]);
    assert_eq!(read.status, ChangeSetStatus::Available);
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off() {
    let service = saying(|_, _| {
        let endless = "x".repeat((32 << 20) + 1);
        let (status, mut headers, body) = result(
            "GetTemplate",
            &format!("<TemplateBody>{endless}</TemplateBody>"),
        );
        headers.push(("transfer-encoding", "chunked".into()));
        (status, headers, body)
    })
    .await;

    let answer = service
        .stacks()
        .await
        .template(&isoform::port::StackRef::Id(STACK.parse().unwrap()))
        .await;

    assert!(
        matches!(&answer, Err(Error::Untrusted(text)) if text.contains("more than 33554432 bytes")),
        "{:?}",
        answer.map(|text| text.len())
    );
}

#[tokio::test]
async fn a_page_of_a_proxy_is_no_answer_of_the_service() {
    let service = saying(|_, _| (502, Vec::new(), "<html>bad gateway</html>".into())).await;

    let answer = service.stacks().await.execute(SET, "t").await;

    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn an_object_that_is_not_encrypted_as_asked_goes_again_and_the_put_fails() {
    let service = Service::with(|_, _| (200, vec![("etag", "\"e\"".into())], String::new())).await;
    let store = service.store(Encryption::Key(KEY.into())).await;

    let answer = store.put("a", body("x"), &Put::default()).await;

    assert!(matches!(answer, Err(Error::Untrusted(_))), "{answer:?}");
    assert_eq!(service.count("DELETE /bucket/x/a"), 1);
}

#[tokio::test]
async fn what_is_read_under_another_key_is_not_read() {
    let service = Service::with(|_, _| {
        let headers = vec![
            ("x-amz-server-side-encryption", "aws:kms".into()),
            (
                "x-amz-server-side-encryption-aws-kms-key-id",
                format!("{KEY}-of-somebody"),
            ),
        ];
        (200, headers, "x".into())
    })
    .await;
    let store = service.store(Encryption::Key(KEY.into())).await;

    let read = store.get("a", None).await.map(|_| ());
    let seen = store.head("a").await;

    assert!(matches!(read, Err(Error::Untrusted(_))), "{read:?}");
    assert!(matches!(seen, Err(Error::Untrusted(_))), "{seen:?}");
}

#[tokio::test]
async fn a_bucket_that_is_gone_holds_no_missing_object() {
    let service = Service::with(|_, _| (404, Vec::new(), String::new())).await;

    let seen = service.store(Encryption::Store).await.head("a").await;

    assert!(matches!(seen, Err(Error::Refused(_))), "{seen:?}");
    assert_eq!(service.count("HEAD /bucket/x/a"), 1);
}

#[tokio::test]
async fn a_key_that_is_disabled_is_a_refusal_that_names_it() {
    let service = Service::with(|_, _| {
        (
            400,
            Vec::new(),
            "{\"__type\":\"DisabledException\",\"message\":\"key k is disabled\"}".into(),
        )
    })
    .await;
    let keys = KmsKeys::new(&service.session().await, KEY.into(), Vec::new(), None);
    let wrapped = EncryptedDataKey::kms(KEY, vec![1, 2, 3]);

    let made = keys.data_key(&EncryptionContext::new()).await.map(|_| ());
    let opened = keys
        .unwrap(&[wrapped], &EncryptionContext::new())
        .await
        .map(|_| ());

    for answer in [made, opened] {
        assert!(
            matches!(&answer, Err(Error::KeyUnavailable(text)) if text.contains("key k is disabled") && text.contains(KEY)),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_key_that_a_message_names_is_not_asked_for() {
    let service = Service::with(|_, _| (500, Vec::new(), String::new())).await;
    let keys = KmsKeys::new(&service.session().await, KEY.into(), Vec::new(), None);
    let foreign = EncryptedDataKey::kms("arn:aws:kms:eu-west-1:999999999999:key/theirs", vec![1]);

    let opened = keys
        .unwrap(&[foreign], &EncryptionContext::new())
        .await
        .map(|_| ());

    assert!(matches!(opened, Err(Error::Denied(_))), "{opened:?}");
    assert!(service.calls.lock().unwrap().is_empty());
}

fn references(names: &[&str]) -> std::collections::BTreeSet<Reference> {
    names.iter().map(|n| n.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_reference_that_may_not_be_read_hides_no_other() {
    let denied = || {
        let body = "{\"__type\":\"AccessDeniedException\",\"message\":\"no\"}";
        (400, Vec::new(), body.to_owned())
    };
    // The call for both is refused as a whole.
    let service = saying(
        move |call, before| match (call.contains("DescribeSecret"), before) {
            (false, 1) => (
                200,
                Vec::new(),
                "{\"Parameters\":[{\"Name\":\"/a\",\"Version\":7}],\"InvalidParameters\":[]}"
                    .into(),
            ),
            _ => denied(),
        },
    )
    .await;
    let versions = AwsVersions::new(&service.session().await, ACCOUNT.parse().unwrap());
    let asked = references(&["ssm:/a", "ssm:/b", "secretsmanager:c"]);

    let told = versions.versions(&asked).await.unwrap();

    assert_eq!(told[&"ssm:/a".parse().unwrap()], Ok("7".to_owned()));
    for name in ["ssm:/b", "secretsmanager:c"] {
        let told = &told[&name.parse().unwrap()];
        assert!(matches!(told, Err(Error::Denied(_))), "{name}: {told:?}");
    }
}

#[tokio::test]
async fn versions_are_not_asked_for_with_credentials_of_another_account() {
    let service = Service::with(|_, _| caller("222222222222")).await;
    let versions = AwsVersions::new(&service.session().await, ACCOUNT.parse().unwrap());

    let told = versions.versions(&references(&["ssm:/a"])).await;

    assert!(matches!(told, Err(Error::Denied(_))), "{told:?}");
    assert_eq!(service.calls.lock().unwrap().len(), 1);
}
