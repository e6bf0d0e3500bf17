//! Where the daemon's own credentials come from.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

use aws_credential_types::Credentials;
use isoform::aws::{Aws, Bucket, Errand, Reach, Role, S3Objects};
use isoform::port::{Disposition, Encryption, Error, ObjectStore};

const CHILD: &str = "ISOFORM_TEST_REACH";
const NAME: &str = "reach::the_own_credentials_come_from_the_own_partition";

/// Asks who it is with the credentials of the environment, through a proxy that lets nothing pass.
async fn ask() {
    let reach = Reach {
        home: Some("us-gov-west-1".parse().unwrap()),
        session: "tests".into(),
        ..Reach::default()
    };
    let region = "cn-north-1".parse().unwrap();
    let session = Aws::connect(reach).await.session(&region, &[]).await;
    assert!(session.identity().await.is_err());
}

/// Returns the first host that a process asks a proxy for.
fn asked(environment: &[(&str, &str)]) -> String {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a.b.c").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", NAME])
        .env_clear()
        .env(CHILD, "1")
        .env("HTTPS_PROXY", &address)
        .env("AWS_ROLE_ARN", "arn:aws-cn:iam::111111111111:role/daemon")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied());
    let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
    proxy.set_nonblocking(true).unwrap();
    let mut stream = loop {
        match proxy.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => assert_eq!(child.try_wait().unwrap(), None, "it asked for nothing"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    stream.set_nonblocking(false).unwrap();
    let mut line = String::new();
    BufReader::new(stream.try_clone().unwrap())
        .read_line(&mut line)
        .unwrap();
    let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    let _ = child.kill();
    child.wait().unwrap();
    line
}

#[tokio::test]
async fn the_own_credentials_come_from_the_own_partition() {
    if std::env::var(CHILD).is_ok() {
        return ask().await;
    }
    for (environment, host) in [
        (
            vec![("AWS_REGION", "cn-north-1")],
            "sts.cn-north-1.amazonaws.com.cn",
        ),
        (vec![], "sts.us-gov-west-1.amazonaws.com"),
    ] {
        let line = asked(&environment);

        assert!(line.starts_with(&format!("CONNECT {host}:443 ")), "{line}");
    }
}

#[tokio::test]
async fn an_endpoint_that_there_is_not_is_a_fault_that_stays() {
    let keys = Credentials::new("AKID", "secret", None, None, "test");
    let version = aws_config::BehaviorVersion::v2026_01_12();
    let loader = aws_config::defaults(version).credentials_provider(keys);
    // China has no endpoints with validated cryptography.
    let reach = Reach {
        fips: true,
        ..Reach::default()
    };
    let region = "cn-north-1".parse().unwrap();
    let session = Aws::by(loader, reach).await.session(&region, &[]).await;
    let bucket = Bucket {
        name: "bucket".into(),
        prefix: String::new(),
        owner: "111111111111".parse().unwrap(),
        region,
        at_rest: Encryption::Store,
        former_keys: Vec::new(),
    };

    let answer = S3Objects::new(&session, bucket).list("", None).await;

    let error = answer.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(error.disposition(), Disposition::Stall);
    assert!(error.to_string().contains("FIPS"), "{error}");
}

#[tokio::test]
async fn a_role_is_taken_for_one_errand_and_everything_of_it_is_told() {
    use crate::replayed::{ACCOUNT, Service, caller, result};

    let service = Service::with(|call, _| {
        if call.starts_with("AssumeRole") {
            return result("AssumeRole", "<Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>");
        }
        caller(ACCOUNT)
    })
    .await;
    let role = Role {
        arn: "arn:aws:iam::111111111111:role/apply".into(),
        external_id: Some("e-id".into()),
    };
    let errand = Errand {
        session: "isoform.9f3c1e2.svc.orders.prod".into(),
        tags: [("isoform:commit".to_owned(), "9f3c1e2".to_owned())].into(),
        source_identity: Some("9f3c1e2.svc.orders.prod".into()),
        policy: Some("{\"Version\":\"2012-10-17\"}".into()),
    };

    let session = service.session().await.take(&role, errand);
    session.identity().await.unwrap();
    session.identity().await.unwrap();

    assert_eq!(service.count("AssumeRole"), 1, "once for an errand");
    let calls = service.calls.lock().unwrap();
    let taken = calls.iter().find(|c| c.starts_with("AssumeRole")).unwrap();
    for part in [
        "RoleSessionName=isoform.9f3c1e2.svc.orders.prod",
        "ExternalId=e-id",
        "SourceIdentity=9f3c1e2.svc.orders.prod",
        "Tags.member.1.Key=isoform%3Acommit",
        "Tags.member.1.Value=9f3c1e2",
        "Policy=%7B%22Version",
    ] {
        assert!(taken.contains(part), "{part}: {taken}");
    }
    let heads = service.heads.lock().unwrap();
    let asked = heads
        .iter()
        .filter(|h| h.contains("x-amz-security-token: t"));
    assert_eq!(asked.count(), 2, "with the credentials of the errand");
}

#[tokio::test]
async fn an_errand_whose_role_may_not_be_taken_is_denied() {
    use crate::replayed::{Service, refusal};

    let service = Service::with(|_, _| {
        let (_, headers, body) = refusal("AccessDenied");
        (403, headers, body)
    })
    .await;
    let role = Role {
        arn: "arn:aws:iam::111111111111:role/apply".into(),
        external_id: None,
    };
    let errand = Errand {
        session: "isoform".into(),
        ..Errand::default()
    };

    let session = service.session().await.take(&role, errand);

    let answer = session.identity().await.map(|_| ());
    assert!(
        matches!(&answer, Err(Error::Denied(text)) if text.contains("AssumeRole")),
        "{answer:?}"
    );
}
