//! The roles of IAM behind their port: on emulators, and by answers that are replayed.

use isoform::aws::{Aws, IamRoles, Reach};
use isoform::port::{Error, Roles};

use crate::replayed::*;

const TRUST: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "cloudformation.amazonaws.com"}, "Action": "sts:AssumeRole", "Condition": {"StringLike": {"aws:SourceArn": "arn:aws:cloudformation:*:*:stack/%/*"}}}]}"#;

const ROLE: &str = "arn:aws:iam::111111111111:role/team/cfn";

fn told(document: &str) -> Answer {
    result(
        "GetRole",
        &format!(
            "<Role><Path>/team/</Path><RoleName>cfn</RoleName><RoleId>R</RoleId><Arn>{ROLE}</Arn><CreateDate>2020-01-01T00:00:00Z</CreateDate><AssumeRolePolicyDocument>{document}</AssumeRolePolicyDocument></Role>"
        ),
    )
}

async fn asked(answer: Answer, role: &str) -> Result<Option<String>, Error> {
    let service = Service::with(move |_, _| answer.clone()).await;
    let roles = IamRoles::new(&service.session().await, None);
    roles.trust(role).await
}

#[tokio::test]
async fn what_iam_says_of_a_role_is_read() {
    let encoded = "%7B%22Statement%22%3A%5B%5D%7D";

    assert_eq!(
        asked(told(encoded), ROLE).await.unwrap().unwrap(),
        r#"{"Statement":[]}"#
    );
    let elsewhere = "arn:aws:iam::111111111111:role/cfn";
    assert_eq!(
        asked(told(encoded), elsewhere).await,
        Ok(None),
        "one of that name elsewhere"
    );
    assert_eq!(asked(refusal("NoSuchEntity"), ROLE).await, Ok(None));
    let denied = asked(refusal("AccessDenied"), ROLE).await;
    assert!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");
}

/// Makes a role in an account of an emulator and reads its trust back.
async fn a_role_is_read_back(emulator: &str) {
    let variable = format!("ISOFORM_{}", emulator.to_uppercase());
    let Some(endpoint) = std::env::var(&variable).ok().filter(|v| !v.is_empty()) else {
        println!(
            "SKIP contract_on_{emulator}: {variable} does not say where it is; ./tests/run starts it"
        );
        return;
    };
    let keys = aws_credential_types::Credentials::new("777777777777", "secret", None, None, "test");
    let version = aws_config::BehaviorVersion::v2026_01_12();
    let loader = aws_config::defaults(version).credentials_provider(keys);
    let reach = Reach {
        endpoint: Some(endpoint),
        session: "tests".into(),
        ..Reach::default()
    };
    let region = "eu-west-1".parse().unwrap();
    let session = Aws::by(loader, reach).await.session(&region, &[]).await;
    let client = aws_sdk_iam::Client::new(session.config());
    let name = format!("cfn-{}", std::process::id());
    let made = client
        .create_role()
        .role_name(&name)
        .path("/team/")
        .assume_role_policy_document(TRUST)
        .send()
        .await
        .unwrap();
    let arn = made.role().unwrap().arn().to_owned();
    let roles = IamRoles::new(&session, None);

    let trust = roles.trust(&arn).await.unwrap().unwrap();
    let gone = roles.trust(&arn.replace("cfn-", "other-")).await;

    let read: serde_json::Value = serde_json::from_str(&trust).unwrap();
    let wrote: serde_json::Value = serde_json::from_str(TRUST).unwrap();
    assert_eq!(read, wrote);
    assert_eq!(gone, Ok(None));
    client.delete_role().role_name(&name).send().await.unwrap();
}

mod on_moto {
    #[tokio::test]
    async fn a_role_is_read_back() {
        super::a_role_is_read_back("moto").await;
    }
}

mod on_ministack {
    #[tokio::test]
    async fn a_role_is_read_back() {
        super::a_role_is_read_back("ministack").await;
    }
}

mod on_localemu {
    #[tokio::test]
    async fn a_role_is_read_back() {
        super::a_role_is_read_back("localemu").await;
    }
}
