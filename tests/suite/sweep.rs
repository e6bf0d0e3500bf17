//! A sweep where one of several accounts does not answer.

use std::time::Duration;

use isoform::domain::model::{AccountId, PlacementName, SyncResult};

use crate::growth::{Running, settled};

fn placement(name: &str) -> PlacementName {
    name.parse().unwrap()
}

/// Waits until the targets of a placement are as expected, and those of the other one are in sync.
async fn drifted(running: &Running, wanted: &str) {
    let mut seen = Vec::new();
    for _ in 0..3000 {
        let report = running.line.estate().await.unwrap();
        seen = report
            .targets
            .iter()
            .map(|t| (t.placement.clone().unwrap_or_default(), t.condition.result))
            .collect();
        let expected = |(place, result): &(String, SyncResult)| {
            let due = if place == wanted {
                SyncResult::Drifted
            } else {
                SyncResult::InSync
            };
            *result == due
        };
        if seen.iter().all(expected) {
            assert!(seen.iter().any(|(place, _)| place == wanted));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_that_does_not_answer_hides_no_other() {
    let all = settled(2, 2).await;
    let (stub, config) = (all.running.stub.clone(), all.config.clone());
    let other: AccountId = "000000000002".parse().unwrap();
    all.running.line.sweep().await.unwrap();

    stub.meddle(&other);
    stub.deny_lists([placement("place-0")]);
    assert!(all.running.line.sweep().await.is_err());
    drifted(&all.running, "place-1").await;

    // Nothing was ever seen of it by a daemon that has just begun: that is no reason to take its stacks for gone.
    all.running.stop().await;
    let again = Running::start(&config, &stub).await;
    assert!(again.line.sweep().await.is_err());
    drifted(&again, "place-1").await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_list_a_place_does() {
    let all = settled(2, 2).await;
    let (stub, config) = (all.running.stub.clone(), all.config.clone());
    all.running.stop().await;
    let text = std::fs::read_to_string(&config).unwrap();
    let spare = "  spare: { account: account-0, regions: [us-east-1], mode: auto }\nsources:";
    std::fs::write(&config, text.replace("sources:", spare)).unwrap();
    stub.deny_lists([placement("place-0")]);

    let again = Running::start(&config, &stub).await;
    again.line.sweep().await.unwrap();

    stub.deny_lists([placement("place-0"), placement("spare")]);
    assert!(again.line.sweep().await.is_err());
    again.stop().await;
}
