//! The queue of hints, against replayed answers and the emulators.

use isoform::aws::{Aws, Reach, Role, SqsQueue};
use isoform::domain::model::AccountId;
use isoform::port::{Error, HintQueue};

use crate::replayed::{ACCOUNT, Answer, Service};

fn account() -> AccountId {
    ACCOUNT.parse().unwrap()
}

fn json(body: &str) -> Answer {
    let headers = vec![("content-type", "application/x-amz-json-1.0".into())];
    (200, headers, body.to_owned())
}

#[tokio::test]
async fn what_is_taken_is_removed_and_what_is_not_removed_is_an_error() {
    let service = Service::with(|call, _| match call {
        "AmazonSQS.ReceiveMessage" => json(
            r#"{"Messages":[{"MessageId":"1","ReceiptHandle":"r1","Body":"one"},{"MessageId":"2","ReceiptHandle":"r2"},{"MessageId":"3","Body":"no receipt"}]}"#,
        ),
        "AmazonSQS.DeleteMessageBatch" => json(r#"{"Successful":[{"Id":"0"}],"Failed":[]}"#),
        other => panic!("{other}"),
    })
    .await;
    let queue = SqsQueue::new(&service.session().await, &account(), "hints");

    let taken = queue.take().await.unwrap();
    let receipts: Vec<String> = taken.iter().map(|m| m.receipt.clone()).collect();
    let removed = queue.remove(&receipts).await;

    let bodies: Vec<&str> = taken.iter().map(|m| m.body.as_str()).collect();
    assert_eq!(
        (receipts.join(" ").as_str(), bodies),
        ("r1 r2", vec!["one", ""])
    );
    assert_eq!(removed, Ok(()));
    assert_eq!(queue.remove(&[]).await, Ok(()));
    assert_eq!(service.count("AmazonSQS.DeleteMessageBatch"), 1);
    assert_eq!(queue.name(), "arn:aws:sqs:eu-west-1:111111111111:hints");
}

#[tokio::test]
async fn a_queue_that_may_not_be_read_is_denied() {
    let service = Service::with(|_, _| {
        let body = r#"{"__type":"com.amazonaws.sqs#AccessDenied","message":"no"}"#;
        (
            403,
            vec![("x-amzn-query-error", "AccessDenied;Sender".into())],
            body.into(),
        )
    })
    .await;
    let queue = SqsQueue::new(&service.session().await, &account(), "hints");

    let taken = queue.take().await;

    assert!(matches!(taken, Err(Error::Denied(_))), "{taken:?}");
}

/// Sends, takes and removes on a queue of an emulator.
async fn goes_round(emulator: &str) {
    let variable = format!("ISOFORM_{}", emulator.to_uppercase());
    let Some(endpoint) = std::env::var(&variable).ok().filter(|v| !v.is_empty()) else {
        println!(
            "SKIP contract_on_{emulator}: {variable} does not say where it is; ./tests/run starts it"
        );
        return;
    };
    let reach = Reach {
        endpoint: Some(endpoint),
        session: "isoform-tests".into(),
        ..Reach::default()
    };
    let role = Role {
        arn: format!("arn:aws:iam::{ACCOUNT}:role/isoform-preview"),
        external_id: None,
    };
    let region = "eu-west-1".parse().unwrap();
    let session = Aws::connect(reach).await.session(&region, &[role]).await;
    let client = aws_sdk_sqs::Client::new(session.config());
    let name = format!("isoform-hints-{}", std::process::id());
    let made = client
        .create_queue()
        .queue_name(&name)
        .send()
        .await
        .unwrap();
    let sent = client.send_message().queue_url(made.queue_url().unwrap());
    sent.message_body("a hint").send().await.unwrap();
    let queue = SqsQueue::new(&session, &account(), &name);

    let taken = queue.take().await.unwrap();
    queue.remove(&[taken[0].receipt.clone()]).await.unwrap();

    assert_eq!((taken.len(), taken[0].body.as_str()), (1, "a hint"));
    assert_eq!(queue.facts().await.unwrap().waiting, 0);
}

mod on_ministack {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_hint_goes_round() {
        super::goes_round("ministack").await;
    }
}

mod on_moto {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_hint_goes_round() {
        super::goes_round("moto").await;
    }
}

mod on_localemu {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_hint_goes_round() {
        super::goes_round("localemu").await;
    }
}
