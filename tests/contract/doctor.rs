//! `isoform doctor` against answers that are replayed: what it says of each fault, and that it writes nothing.

use std::path::Path;

use aws_credential_types::Credentials;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use isoform::aws::{Aws, Reach};
use isoform::clock::Clock;
use isoform::config::{Config, raw};
use isoform::daemon::doctor::{Check, Verdict, examine_aws};

use crate::replayed::*;

const PREVIEW: &str = "arn:aws:iam::111111111111:role/look";

const FILE: &str = r#"
isoform: 1
accounts: { prod: { id: "111111111111", external_id: xx, roles: { preview: look, cloudformation: cfn }, hints: { queue: "arn:aws:sqs:eu-west-1:111111111111:hints" } } }
placements: { prod: { account: prod, regions: [eu-west-1] } }
sources: { p: { url: /srv/p.git, may: { services: ["*"], placements: [prod] } } }
bundle_stores: { main: { url: "s3://bucket/x", owner: "111111111111", encryption: sse-kms, key: "arn:aws:kms:eu-west-1:111111111111:key/k" } }
state: { path: state, key: "file:root.key" }
signing: { key: "arn:aws:kms:eu-west-1:111111111111:key/signs" }
"#;

const POLICY: &str = r#"{"Statement":[
{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}},
{"Effect":"Deny","Principal":"*","Action":"s3:PutObject","Resource":"*","Condition":{"StringNotEquals":{"s3:x-amz-server-side-encryption":"aws:kms"}}}]}"#;

fn date(seconds: i64) -> (&'static str, String) {
    let at = DateTime::from_secs(Clock::system().now().0 / 1000 + seconds);
    ("date", at.fmt(Format::HttpDate).unwrap())
}

/// The role of CloudFormation, which a service may take.
fn role(service: &str) -> Answer {
    let trust = format!(
        "{{\"Statement\":{{\"Effect\":\"Allow\",\"Principal\":{{\"Service\":\"{service}\"}},\"Action\":\"sts:AssumeRole\"}}}}"
    );
    result(
        "GetRole",
        &format!(
            "<Role><Path>/</Path><RoleName>cfn</RoleName><RoleId>R</RoleId><Arn>arn:aws:iam::111111111111:role/cfn</Arn><CreateDate>2020-01-01T00:00:00Z</CreateDate><AssumeRolePolicyDocument>{trust}</AssumeRolePolicyDocument></Role>"
        ),
    )
}

/// An account in which everything is as it has to be.
fn healthy(call: &str) -> Answer {
    let word = call.split(['&', '?']).next().unwrap_or_default();
    let (_, query) = call.split_once('?').unwrap_or_default();
    match word {
        "GetCallerIdentity" => {
            let (status, mut headers, body) = caller(ACCOUNT);
            headers.push(date(0));
            (status, headers, body)
        }
        "AssumeRole" => result(
            word,
            "<Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>",
        ),
        "GetRole" => role("cloudformation.amazonaws.com"),
        "ListStacks" => result(word, "<StackSummaries/>"),
        "DescribeChangeSet" => refusal("ChangeSetNotFound"),
        "DescribeStacks" | "DescribeStackEvents" | "GetTemplate" | "GetStackPolicy"
        | "ListChangeSets" => {
            refusal("ValidationError")
        }
        "TrentService.DescribeKey" => (
            200,
            Vec::new(),
            r#"{"KeyMetadata":{"KeyId":"k","KeyState":"Enabled","KeySpec":"ECC_NIST_P256","KeyUsage":"SIGN_VERIFY"}}"#.into(),
        ),
        "TrentService.GetPublicKey" => (200, Vec::new(), r#"{"PublicKey":"AAAA"}"#.into()),
        "TrentService.GetKeyRotationStatus" => {
            (200, Vec::new(), r#"{"KeyRotationEnabled":true}"#.into())
        }
        "AmazonSQS.GetQueueAttributes" => {
            let policy = r#"{"Statement":[{"Effect":"Allow","Principal":{"Service":"events.amazonaws.com"},"Action":"sqs:SendMessage"},{"Effect":"Deny","Principal":"*","Action":"sqs:*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}"#;
            let attributes = serde_json::json!({ "Attributes": { "Policy": policy, "SqsManagedSseEnabled": "true", "ApproximateNumberOfMessages": "7" } });
            (200, Vec::new(), attributes.to_string())
        }
        _ if query.starts_with("versioning") => {
            xml("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
        }
        _ if query.starts_with("publicAccessBlock") => xml(
            "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>",
        ),
        _ if query.starts_with("encryption") => xml(
            "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
        ),
        _ if query.starts_with("policy") => (200, Vec::new(), POLICY.into()),
        _ if query.contains("list-type=2") => xml(
            "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>x/rendered/a</Key></Contents></ListBucketResult>",
        ),
        _ => (200, Vec::new(), "x".into()),
    }
}

fn s3_refusal(status: u16, code: &str) -> Answer {
    let text = format!("<Error><Code>{code}</Code><Message>said so</Message></Error>");
    (status, Vec::new(), text)
}

/// Examines an account in which the calls that contain a word are answered in another way.
async fn examined(word: &'static str, answer: Answer) -> (Vec<Check>, Service) {
    let service = Service::with(move |call, _| {
        if !word.is_empty() && call.contains(word) {
            return answer.clone();
        }
        healthy(call)
    })
    .await;
    let file: raw::File = serde_yaml::from_str(FILE).unwrap();
    let config = Config::resolve(&file, Path::new("/x")).unwrap();
    let aws = config.aws.clone().unwrap();
    let reached = service.aws(Reach::default()).await;
    let checks = examine_aws(&config, &aws, &reached, &Clock::system()).await;
    (checks, service)
}

/// Examines an account of which the network knows nothing.
async fn unreached(reach: Reach) -> Vec<Check> {
    let file: raw::File = serde_yaml::from_str(FILE).unwrap();
    let config = Config::resolve(&file, Path::new("/x")).unwrap();
    let aws = config.aws.clone().unwrap();
    let keys = Credentials::new("AKID", "secret", None, None, "test");
    let version = aws_config::BehaviorVersion::v2026_01_12();
    let loader = aws_config::defaults(version).credentials_provider(keys);
    let reached = Aws::by(loader, reach).await;
    examine_aws(&config, &aws, &reached, &Clock::system()).await
}

#[tokio::test]
async fn a_network_that_leads_nowhere_is_not_mended_by_a_profile() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    for endpoint in [refused.as_str(), "https://nowhere.invalid"] {
        let reach = Reach {
            endpoint: Some(endpoint.to_owned()),
            ..Reach::default()
        };

        let checks = unreached(reach).await;

        assert_eq!(checks.len(), 1, "{checks:#?}");
        let mend = checks[0].mend.clone().unwrap();
        assert_eq!(checks[0].verdict, Verdict::Bad);
        assert!(
            mend.contains("HTTPS_PROXY") && mend.contains("aws.endpoint"),
            "{checks:#?}"
        );
        assert!(!mend.contains("AWS_PROFILE"), "{checks:#?}");
    }
}

fn bad(checks: &[Check]) -> Vec<&Check> {
    let bad = checks.iter().filter(|c| c.verdict == Verdict::Bad);
    bad.collect()
}

#[tokio::test]
async fn what_is_as_it_has_to_be_is_good_and_nothing_is_written() {
    let (checks, service) = examined("", (0, Vec::new(), String::new())).await;

    assert!(bad(&checks).is_empty(), "{checks:#?}");
    let unsure = checks.iter().filter(|c| c.verdict == Verdict::Unsure);
    let unsure: Vec<&str> = unsure.map(|c| c.subject.as_str()).collect();
    assert_eq!(unsure, ["calls that write"]);
    assert_eq!(
        service.count("AssumeRole"),
        4,
        "for the region, for the role of CloudFormation, for reading, and for the queue"
    );
    for call in service.calls.lock().unwrap().iter() {
        let reads = [
            "GET ",
            "HEAD ",
            "Get",
            "List",
            "Describe",
            "AssumeRole",
            "AmazonSQS.Get",
            "TrentService.Describe",
            "TrentService.Get",
        ];
        assert!(reads.iter().any(|r| call.starts_with(r)), "{call}");
    }
}

#[tokio::test]
async fn every_fault_is_told_with_how_to_mend_it() {
    let denied = || {
        let (_, headers, body) = refusal("AccessDenied");
        (403, headers, body)
    };
    let late = || {
        let (status, mut headers, body) = caller(ACCOUNT);
        headers.push(date(400));
        (status, headers, body)
    };
    let json = |text: &str| (200, Vec::new(), text.to_owned());
    let disabled = r#"{"KeyMetadata":{"KeyId":"k","KeyState":"Disabled"}}"#;
    for (word, answer, subject, says, mend) in [
        (
            "GetCallerIdentity",
            denied(),
            "credentials",
            "AccessDenied",
            "AWS_PROFILE",
        ),
        (
            "GetCallerIdentity",
            caller("222222222222"),
            PREVIEW,
            "222222222222",
            "role of that account",
        ),
        ("GetCallerIdentity", late(), "the clock", "behind", "NTP"),
        (
            "AssumeRole",
            denied(),
            PREVIEW,
            "AssumeRole",
            "let arn:aws:iam::111111111111:user/u take it",
        ),
        (
            "GetTemplate",
            denied(),
            PREVIEW,
            "GetTemplate",
            "cloudformation:GetTemplate",
        ),
        (
            "HEAD /bucket",
            (404, Vec::new(), String::new()),
            "s3://bucket",
            "does not exist",
            "make it",
        ),
        (
            "HEAD /bucket",
            (403, Vec::new(), String::new()),
            "s3://bucket",
            "403",
            "correct `owner`",
        ),
        (
            "list-type",
            s3_refusal(403, "AccessDenied"),
            "s3://bucket",
            "ListObjectsV2",
            "s3:ListBucket",
        ),
        (
            "versioning",
            xml("<VersioningConfiguration/>"),
            "s3://bucket",
            "no versions",
            "put-bucket-versioning",
        ),
        (
            "publicAccessBlock",
            s3_refusal(404, "NoSuchPublicAccessBlockConfiguration"),
            "s3://bucket",
            "public",
            "put-public-access-block",
        ),
        (
            "?encryption",
            s3_refusal(404, "ServerSideEncryptionConfigurationNotFoundError"),
            "s3://bucket",
            "default",
            "put-bucket-encryption",
        ),
        (
            "?policy",
            s3_refusal(404, "NoSuchBucketPolicy"),
            "s3://bucket",
            "TLS",
            "isoform iam",
        ),
        (
            "?policy",
            json(&POLICY.replace("Deny", "Allow")),
            "s3://bucket",
            "encryption",
            "isoform iam",
        ),
        (
            "GetRole",
            refusal("NoSuchEntity"),
            "cloudformation",
            "does not exist",
            "isoform iam",
        ),
        (
            "GetRole",
            role("ec2.amazonaws.com"),
            "cloudformation",
            "may not take it in eu-west-1: no statement",
            "isoform iam",
        ),
        ("DescribeKey", json(disabled), KEY, "Disabled", "enable-key"),
        (
            "DescribeKey",
            json(&disabled.replace(
                "}}",
                r#","KeySpec":"ECC_NIST_P256","KeyUsage":"SIGN_VERIFY"}}"#,
            )),
            "signing key",
            "it is Disabled",
            "enable-key",
        ),
        (
            "DescribeKey",
            json(
                r#"{"KeyMetadata":{"KeyId":"k","KeyState":"Enabled","KeySpec":"RSA_2048","KeyUsage":"SIGN_VERIFY"}}"#,
            ),
            "signing key",
            "it is RSA_2048 for SIGN_VERIFY",
            "--key-spec ECC_NIST_P256",
        ),
        (
            "GetPublicKey",
            (
                400,
                Vec::new(),
                r#"{"__type":"AccessDeniedException","message":"no"}"#.into(),
            ),
            "signing key",
            "GetPublicKey",
            "kms:GetPublicKey",
        ),
        (
            "AmazonSQS",
            (
                403,
                vec![("x-amzn-query-error", "AccessDenied;Sender".into())],
                r#"{"__type":"com.amazonaws.sqs#AccessDenied"}"#.into(),
            ),
            ":hints",
            "GetQueueAttributes",
            "sqs:GetQueueAttributes",
        ),
        (
            "AmazonSQS",
            json(r#"{"Attributes":{"ApproximateNumberOfMessages":"0"}}"#),
            ":hints",
            "EventBridge",
            "isoform iam",
        ),
        (
            "x/rendered/a",
            s3_refusal(403, "AccessDenied"),
            "rendered/",
            PREVIEW,
            "kms:Decrypt",
        ),
    ] {
        let (checks, _) = examined(word, answer).await;

        let bad = bad(&checks);
        let told = bad.iter().any(|c| {
            c.subject.contains(subject)
                && c.says.contains(says)
                && c.mend
                    .as_deref()
                    .is_some_and(|m| m.replace(PREVIEW, "it").contains(mend))
        });
        assert!(told, "{word}: {bad:#?}");
    }
}

#[tokio::test]
async fn what_cannot_be_seen_is_not_held_against_anybody() {
    for word in ["versioning", "?policy", "?encryption", "publicAccessBlock"] {
        let (checks, _) = examined(word, s3_refusal(403, "AccessDenied")).await;

        assert!(bad(&checks).is_empty(), "{word}: {checks:#?}");
        let unsure = checks.iter().filter(|c| c.verdict == Verdict::Unsure);
        assert!(unsure.count() > 1, "{word}");
    }
}

#[tokio::test]
async fn a_role_that_may_not_be_seen_says_what_to_allow() {
    let (checks, _) = examined("GetRole", refusal("AccessDenied")).await;

    assert!(bad(&checks).is_empty(), "{checks:#?}");
    let told = checks.iter().find(|c| c.subject.contains("role/cfn"));
    let mend = told.unwrap().mend.as_deref().unwrap();
    assert_eq!(
        mend,
        "allow iam:GetRole on arn:aws:iam::111111111111:role/cfn"
    );
}
