//! What only the embedded world can be told to do badly.

use std::time::Duration;

use isoform::domain::plan::{ChangeSetStatus as C, StackStatus as S};
use isoform::local::Faults;
use isoform::port::{Error, Proposal, StackEngine, StackRef};

use crate::harness::*;
use crate::local::{Local, fresh};

const QUEUE: &str = "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 1}}\n";
const CHANGED: &str = "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 2}}\n";

async fn with(faults: Faults) -> Local {
    let world = fresh().await;
    world.world().misbehave(&faults).await.unwrap();
    assert_eq!(world.world().faults().await.unwrap(), faults);
    world
}

#[tokio::test]
async fn stale_reads_show_what_was() {
    let world = with(Faults {
        stale_ms: 5_000,
        ..Faults::default()
    })
    .await;
    let engine = world.engine();
    let (proposed, _) = propose(&world, &proposal(&world, "orders", QUEUE).await).await;
    let by_name = StackRef::Name("orders".parse().unwrap());
    assert_eq!(
        engine.describe(&by_name).await.unwrap(),
        None,
        "not even the shell"
    );
    world.pass(Duration::from_secs(6)).await;
    assert_eq!(
        look(&world, &proposed.stack_id).await.status,
        S::ReviewInProgress
    );

    engine.execute(&proposed.change_set, "x").await.unwrap();

    world.pass(Duration::from_secs(4)).await;
    assert_eq!(
        look(&world, &proposed.stack_id).await.status,
        S::ReviewInProgress
    );
    let listed = engine.list(None).await.unwrap().items;
    assert_eq!(listed[0].status, S::ReviewInProgress);
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(
        look(&world, &proposed.stack_id).await.status,
        S::CreateComplete
    );
}

#[tokio::test]
async fn every_nth_call_is_throttled() {
    let world = with(Faults {
        throttle: [("Describe*".to_owned(), 3)].into(),
        ..Faults::default()
    })
    .await;
    let engine = world.engine();
    let by_name = StackRef::Name("orders".parse().unwrap());

    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(engine.describe(&by_name).await);
    }

    let throttled = |a: &Result<_, Error>| *a == Err(Error::Throttled);
    let hits: Vec<bool> = answers.iter().map(throttled).collect();
    assert_eq!(hits, [false, false, true, false, false, true]);
    assert!(engine.list(None).await.is_ok());
}

#[tokio::test]
async fn calls_and_change_sets_can_take_longer() {
    let world = with(Faults {
        making_ms: 60_000,
        ..Faults::default()
    })
    .await;
    let proposal = proposal(&world, "orders", QUEUE).await;
    let engine = world.local();
    let proposed = engine.propose(&proposal).await.unwrap();

    world.pass(Duration::from_secs(59)).await;
    assert_eq!(
        engine.review(&proposed.change_set).await.unwrap().status,
        C::Creating
    );
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(
        engine.review(&proposed.change_set).await.unwrap().status,
        C::Available
    );

    let slow = Faults {
        delay_ms: 500,
        ..Faults::default()
    };
    world.world().misbehave(&slow).await.unwrap();
    let call = tokio::spawn(async move { engine.list(None).await });
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(!call.is_finished());
    while !call.is_finished() {
        world.pass(Duration::from_millis(100)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(call.await.unwrap().unwrap().items.len(), 1);
}

#[tokio::test]
async fn withheld_values_are_told_and_the_change_is_still_listed() {
    let world = with(Faults {
        withhold: vec!["Q*".into()],
        ..Faults::default()
    })
    .await;
    apply(&world, "orders", QUEUE).await;

    let (_, read) = propose(&world, &proposal(&world, "orders", CHANGED).await).await;

    assert_eq!(read.status, C::Available);
    assert!(!read.complete);
    let property = &read.changes[0].properties[0];
    assert_eq!(
        (
            property.path.as_str(),
            &property.before,
            property.after_unknown
        ),
        ("DelaySeconds", &None, true)
    );
}

#[tokio::test]
async fn a_page_can_be_small() {
    let world = with(Faults {
        page: Some(2),
        ..Faults::default()
    })
    .await;
    for name in ["a", "b", "c"] {
        propose(&world, &proposal(&world, name, QUEUE).await).await;
    }
    let engine = world.engine();

    let first = engine.list(None).await.unwrap();
    let second = engine.list(first.next.as_deref()).await.unwrap();

    assert_eq!((first.items.len(), second.items.len()), (2, 1));
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn a_type_can_need_what_no_template_shows() {
    let world = with(Faults {
        needs: [("AWS::SQS::*".to_owned(), "CAPABILITY_IAM".to_owned())].into(),
        ..Faults::default()
    })
    .await;
    let mut plain = proposal(&world, "orders", QUEUE).await;
    plain.capabilities.clear();
    let engine = world.engine();

    let refused = engine.propose(&plain).await;
    let summary = engine.summary(&plain.template_url).await.unwrap();
    plain.capabilities = vec!["CAPABILITY_NAMED_IAM".into()];
    let (_, read) = propose(&world, &plain).await;

    assert!(matches!(refused, Err(Error::Incapable(_))), "{refused:?}");
    assert_eq!(summary.capabilities, ["CAPABILITY_IAM"]);
    assert!(summary.reason.unwrap().contains("AWS::SQS::Queue"));
    assert_eq!(read.capabilities, ["CAPABILITY_NAMED_IAM"]);
    // What was acknowledged when it was made has to be enough when it runs.
    let other = proposal(&world, "others", QUEUE).await;
    let less = Proposal {
        capabilities: Vec::new(),
        ..other
    };
    world.world().misbehave(&Faults::default()).await.unwrap();
    let (made, _) = propose(&world, &less).await;
    let more = Faults {
        needs: [("AWS::SQS::*".to_owned(), "CAPABILITY_IAM".to_owned())].into(),
        ..Faults::default()
    };
    world.world().misbehave(&more).await.unwrap();
    let refused = engine.execute(&made.change_set, "x").await;
    assert!(matches!(refused, Err(Error::Incapable(_))), "{refused:?}");
}
