//! What `isoform doctor --probe` asks past the port, against answers that are replayed.

use isoform::aws::StackFacts;
use isoform::domain::model::StackId;
use isoform::port::Error;

use crate::replayed::*;

const STACK: &str = "arn:aws:cloudformation:eu-west-1:111111111111:stack/s/1";
const OPERATIONS: &str = "<LastOperations><member><OperationType>CREATE_CHANGESET</OperationType><OperationId>2</OperationId></member><member><OperationType>UPDATE_STACK</OperationType><OperationId>1</OperationId></member></LastOperations>";

fn id() -> StackId {
    STACK.parse().unwrap()
}

#[tokio::test]
async fn a_silent_change_set_says_nothing_of_tags_topics_and_alarms() {
    let service = saying(|_, _| result("CreateChangeSet", "<Id>set</Id>")).await;
    let session = service.session().await;
    let name = "s".parse().unwrap();

    let made = session
        .propose_in_silence(&name, "if-probe-1", "https://t", Some("role".into()))
        .await;

    assert_eq!(made.as_deref(), Ok("set"));
    let calls = service.calls.lock().unwrap();
    let [call] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    for part in [
        "ChangeSetName=if-probe-1",
        "ClientToken=if-probe-1",
        "RoleARN=role",
    ] {
        assert!(call.contains(part), "{call}");
    }
    for part in ["Tags", "NotificationARNs", "RollbackConfiguration"] {
        assert!(!call.contains(part), "{call}");
    }
}

#[tokio::test]
async fn the_operations_of_a_stack_are_told_as_they_come() {
    let facts = format!(
        "<Stacks><member><StackId>{STACK}</StackId><StackName>s</StackName>{OPERATIONS}<Tags><member><Key>k</Key><Value>v</Value></member></Tags><NotificationARNs><member>t</member></NotificationARNs><RollbackConfiguration><MonitoringTimeInMinutes>1</MonitoringTimeInMinutes></RollbackConfiguration></member></Stacks>"
    );
    let page = |stack: &str, more: &str| {
        format!(
            "<StackSummaries><member><StackId>{stack}</StackId>{OPERATIONS}</member></StackSummaries>{more}"
        )
    };
    let service = saying(
        move |call, before| match (call.starts_with("ListStacks"), before) {
            (true, 0) => result("ListStacks", &page("other", "<NextToken>n</NextToken>")),
            (true, _) => result("ListStacks", &page(STACK, "")),
            _ => result("DescribeStacks", &facts),
        },
    )
    .await;
    let session = service.session().await;
    let types = ["CREATE_CHANGESET", "UPDATE_STACK"].map(str::to_owned);

    let described = session.stack_facts(&id()).await;
    let listed = session.listed_operations(&id()).await;

    let expected = StackFacts {
        operations: types.to_vec(),
        tags: [("k".to_owned(), "v".to_owned())].into(),
        topics: vec!["t".into()],
        watched_minutes: 1,
    };
    assert_eq!(described, Ok(expected));
    assert_eq!(listed, Ok(Some(types.to_vec())), "on the second page");
}

#[tokio::test]
async fn a_stack_that_is_not_told_has_no_operations() {
    let service = saying(|call, _| match call.starts_with("ListStacks") {
        true => result("ListStacks", "<StackSummaries/>"),
        false => result("DescribeStacks", "<Stacks/>"),
    })
    .await;
    let session = service.session().await;

    assert_eq!(session.listed_operations(&id()).await, Ok(None));
    let described = session.stack_facts(&id()).await;
    assert!(
        matches!(described, Err(Error::NotFound(_))),
        "{described:?}"
    );
}

#[tokio::test]
async fn a_version_is_deleted_and_leaves_no_marker() {
    let service = saying(|_, _| (204, Vec::new(), String::new())).await;
    let store = service.store(isoform::port::Encryption::Store).await;

    store.delete_version("rendered/a", "v 1").await.unwrap();

    let calls = service.calls.lock().unwrap();
    assert!(
        calls[0].starts_with("DELETE /bucket/x/rendered/a") && calls[0].contains("versionId=v%201"),
        "{calls:?}"
    );
}
