//! A sweep where one of several accounts does not answer.

use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::model::{AccountId, Actor, PlacementName, SyncResult};

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
async fn too_many_calls_change_nothing_of_what_is_shown_of_what_runs() {
    let mut all = settled(2, 2).await;
    let (line, stub) = (all.running.line.clone(), all.running.stub.clone());
    stub.slow(Clock::system(), Duration::from_millis(20), |_| {
        Duration::from_secs(3)
    });
    all.estate.touch(1).unwrap();
    let push = tokio::spawn({
        let line = line.clone();
        async move { line.look("push", &Actor::daemon("test")).await.map(drop) }
    });
    let runs = async || {
        let report = line.estate().await.unwrap();
        let all = report.targets.iter().map(|t| t.condition.result);
        all.filter(|r| *r != SyncResult::InSync).collect::<Vec<_>>()
    };
    while runs().await != [SyncResult::Applying] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while !stub.take_calls().contains_key("ExecuteChangeSet") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    stub.throttle(true);
    let mut refused = 0;
    while refused < 3 {
        refused += stub
            .take_calls()
            .get("DescribeStacks")
            .copied()
            .unwrap_or_default();
        assert_eq!(runs().await, [SyncResult::Applying]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stub.throttle(false);

    for _ in 0..3000 {
        if runs().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(runs().await, []);
    push.await.unwrap().unwrap();
    all.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_found_again_after_nobody_could_see_it() {
    let mut all = settled(2, 2).await;
    let (line, stub) = (all.running.line.clone(), all.running.stub.clone());
    stub.slow(Clock::system(), Duration::from_millis(20), |_| {
        Duration::from_secs(2)
    });
    all.estate.touch(1).unwrap();
    let push = tokio::spawn({
        let line = line.clone();
        async move { line.look("push", &Actor::daemon("test")).await.map(drop) }
    });
    let moving = async || {
        let report = line.estate().await.unwrap();
        let all = report.targets.iter().map(|t| t.condition.result);
        all.filter(|r| *r != SyncResult::InSync).collect::<Vec<_>>()
    };
    while !stub.take_calls().contains_key("ExecuteChangeSet") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    stub.deny_descriptions(true);
    while moving().await != [SyncResult::Unknown] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stub.deny_descriptions(false);

    // Nobody pushes, syncs or retries.
    for _ in 0..3000 {
        if moving().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(moving().await, []);
    push.await.unwrap().unwrap();
    all.running.stop().await;
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
