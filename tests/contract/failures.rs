//! What a failure leaves, and the ways out of it.

use isoform::domain::plan::StackStatus as S;
use isoform::port::{Error, OnFailure, StackRef};

use crate::harness::*;

const TOPIC: &str = "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n";
const TWO: &str =
    "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n  B: {Type: 'AWS::SQS::Queue', DependsOn: A}\n";
/// As [`TWO`], each resource with a property, one of them replaced.
const TWO_CHANGED: &str = "Resources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: x}}\n  B: {Type: 'AWS::SQS::Queue', DependsOn: A, Properties: {DelaySeconds: 5}}\n";

pub async fn a_failed_creation_deletes_the_stack(world: &dyn Harness) {
    let name = world.name("orders");
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");

    let found = apply_or(world, &name, TWO, OnFailure::Delete).await;

    assert_eq!(found.status, S::DeleteComplete);
    let id = found.stack_id;
    assert_eq!(
        steps(world, &id, "B").await,
        ["CREATE_IN_PROGRESS", "CREATE_FAILED"]
    );
    assert_eq!(
        steps(world, &id, "A").await.last().unwrap(),
        "DELETE_COMPLETE"
    );
}

pub async fn a_failed_creation_is_rolled_back(world: &dyn Harness) {
    let name = world.name("orders");
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");

    let found = apply(world, &name, TWO).await;

    assert_eq!(found.status, S::RollbackComplete);
    let id = found.stack_id;
    assert_eq!(
        states(world, &id).await,
        [
            "CREATE_IN_PROGRESS",
            "ROLLBACK_IN_PROGRESS",
            "ROLLBACK_COMPLETE"
        ]
    );
    // Only deleting is possible then.
    let mut update = proposal(world, &name, TWO).await;
    update.create = false;
    assert!(is_refused(world.engine().propose(&update).await));
    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteComplete);
}

pub async fn a_rollback_that_fails_leaves_the_creation_stuck(world: &dyn Harness) {
    let name = world.name("orders");
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");
    world.fail(&name, "A", During::Rollback, true).await;

    let found = apply(world, &name, TWO).await;

    assert_eq!(found.status, S::RollbackFailed);
    let id = found.stack_id;
    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteComplete);
}

pub async fn a_failed_creation_can_be_kept_and_rolled_back_later(world: &dyn Harness) {
    let name = world.name("orders");
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");

    let found = apply_or(world, &name, TWO, OnFailure::Keep).await;

    assert_eq!(found.status, S::CreateFailed);
    assert!(
        found
            .status_reason
            .unwrap()
            .contains("failed to create: [B]")
    );
    let id = found.stack_id;
    assert_eq!(
        steps(world, &id, "A").await.last().unwrap(),
        "CREATE_COMPLETE",
        "it holds resources"
    );
    // There is no earlier stable state: the stack goes.
    world.engine().rollback(&id, "r1").await.unwrap();
    assert_eq!(settled(world, &id).await.status, S::DeleteComplete);
}

pub async fn a_kept_creation_can_be_updated(world: &dyn Harness) {
    let name = world.name("orders");
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");
    apply_or(world, &name, TWO, OnFailure::Keep).await;
    world.fail(&name, "B", During::Make, false).await;

    let mut again = proposal(world, &name, TWO).await;
    again.create = false;
    let id = begin(world, &again).await;

    assert_eq!(settled(world, &id).await.status, S::UpdateComplete);
    assert_eq!(
        steps(world, &id, "B").await.last().unwrap(),
        "CREATE_COMPLETE"
    );
}

pub async fn a_failed_update_is_rolled_back(world: &dyn Harness) {
    let name = world.name("orders");
    let before = apply(world, &name, TWO).await;
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");

    let found = apply(world, &name, TWO_CHANGED).await;

    assert_eq!(found.status, S::UpdateRollbackComplete);
    assert_eq!(
        states(world, &before.stack_id).await[2..],
        [
            "UPDATE_IN_PROGRESS",
            "UPDATE_ROLLBACK_IN_PROGRESS",
            "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
            "UPDATE_ROLLBACK_COMPLETE"
        ]
    );
    assert_eq!(
        steps(world, &before.stack_id, "A").await[2..],
        [
            "UPDATE_IN_PROGRESS",
            "UPDATE_COMPLETE",
            "UPDATE_IN_PROGRESS",
            "UPDATE_COMPLETE"
        ]
    );
    let text = world
        .engine()
        .template(&StackRef::Id(before.stack_id))
        .await;
    assert_eq!(text.unwrap(), TWO, "the template is the old one again");
}

pub async fn a_failed_update_can_be_kept_and_rolled_back_later(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TWO).await;
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");

    let found = apply_or(world, &name, TWO_CHANGED, OnFailure::Keep).await;

    assert_eq!(found.status, S::UpdateFailed);
    let id = found.stack_id;
    world.engine().rollback(&id, "r1").await.unwrap();
    assert_eq!(settled(world, &id).await.status, S::UpdateRollbackComplete);
    let text = world.engine().template(&StackRef::Id(id)).await;
    assert_eq!(text.unwrap(), TWO);
}

pub async fn a_kept_update_can_be_tried_again(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TWO).await;
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");
    apply_or(world, &name, TWO_CHANGED, OnFailure::Keep).await;
    world.fail(&name, "B", During::Make, false).await;

    let found = apply(world, &name, TWO_CHANGED).await;

    assert_eq!(found.status, S::UpdateComplete);
}

async fn can_be_stuck(world: &dyn Harness, name: &str) -> bool {
    world.fail(name, "B", During::Make, true).await
        && world.fail(name, "A", During::Rollback, true).await
}

/// Applies an update whose rollback fails, in a world where that was scripted.
async fn stuck(world: &dyn Harness, name: &str) -> isoform::domain::model::StackId {
    for (logical, during) in [("B", During::Make), ("A", During::Rollback)] {
        world.fail(name, logical, during, false).await;
    }
    let id = apply(world, name, TWO).await.stack_id;
    assert!(can_be_stuck(world, name).await);
    let found = apply(world, name, TWO_CHANGED).await;
    assert_eq!(found.status, S::UpdateRollbackFailed);
    assert!(found.status_reason.unwrap().contains("[A]"));
    id
}

pub async fn a_rollback_that_fails_can_be_continued(world: &dyn Harness) {
    let name = world.name("orders");
    needs!(can_be_stuck(world, &name).await, "failures");
    let id = stuck(world, &name).await;
    let mut update = proposal(world, &name, TWO).await;
    update.create = false;
    assert!(is_refused(world.engine().propose(&update).await));

    world
        .engine()
        .continue_rollback(&id, "c1", &[])
        .await
        .unwrap();
    assert_eq!(settled(world, &id).await.status, S::UpdateRollbackFailed);
    world.fail(&name, "A", During::Rollback, false).await;
    world
        .engine()
        .continue_rollback(&id, "c2", &[])
        .await
        .unwrap();

    assert_eq!(settled(world, &id).await.status, S::UpdateRollbackComplete);
}

pub async fn continuing_can_skip_resources(world: &dyn Harness) {
    let name = world.name("orders");
    needs!(can_be_stuck(world, &name).await, "failures");
    let id = stuck(world, &name).await;
    // B never changed, so there is nothing to skip.
    let wrong = ["B".to_owned()];
    assert!(is_refused(
        world.engine().continue_rollback(&id, "c1", &wrong).await
    ));

    let skip = ["A".to_owned()];
    world
        .engine()
        .continue_rollback(&id, "c2", &skip)
        .await
        .unwrap();

    assert_eq!(settled(world, &id).await.status, S::UpdateRollbackComplete);
    assert_eq!(
        steps(world, &id, "A").await.last().unwrap(),
        "UPDATE_COMPLETE"
    );
}

pub async fn only_a_failed_rollback_is_continued(world: &dyn Harness) {
    let id = apply(world, &world.name("orders"), TOPIC).await.stack_id;

    assert!(is_refused(
        world.engine().continue_rollback(&id, "c", &[]).await
    ));
}

pub async fn only_a_failed_stack_is_rolled_back(world: &dyn Harness) {
    let id = apply(world, &world.name("orders"), TOPIC).await.stack_id;

    assert!(is_refused(world.engine().rollback(&id, "r").await));
}

pub async fn an_update_can_be_cancelled(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TWO).await;
    let id = begin(world, &proposal(world, &name, TWO_CHANGED).await).await;

    world.engine().cancel(&id, "c1").await.unwrap();

    assert_eq!(settled(world, &id).await.status, S::UpdateRollbackComplete);
    let text = world.engine().template(&StackRef::Id(id.clone())).await;
    assert_eq!(text.unwrap(), TWO);
    assert!(
        !steps(world, &id, "B")
            .await
            .contains(&"UPDATE_COMPLETE".to_owned())
    );
}

pub async fn only_an_update_is_cancelled(world: &dyn Harness) {
    let name = world.name("orders");
    let id = begin(world, &proposal(world, &name, TWO).await).await;

    assert!(is_refused(world.engine().cancel(&id, "c1").await));
    settled(world, &id).await;
    assert!(is_refused(world.engine().cancel(&id, "c2").await));
}

pub async fn a_repeated_token_is_the_same_call(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TWO).await;
    let (proposed, _) = propose(world, &proposal(world, &name, TWO_CHANGED).await).await;
    let engine = world.engine();
    engine.execute(&proposed.change_set, "x1").await.unwrap();

    let again = engine.execute(&proposed.change_set, "x1").await;

    assert_eq!(again, Err(Error::AlreadyAccepted));
    engine.cancel(&proposed.stack_id, "c1").await.unwrap();
    assert_eq!(
        engine.cancel(&proposed.stack_id, "c1").await,
        Err(Error::AlreadyAccepted)
    );
    let events = engine.events(&proposed.stack_id, None).await.unwrap();
    let begun = events.iter().find(|e| e.status == "UPDATE_IN_PROGRESS");
    assert_eq!(begun.unwrap().token.as_deref(), Some("x1"));
}

pub async fn a_failed_update_and_its_rollback_are_two_operations(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TWO).await.stack_id;
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");

    apply(world, &name, TWO_CHANGED).await;

    let events = world.engine().events(&id, None).await.unwrap();
    let of = |status: &str| {
        let found = events.iter().find(|e| e.status == status);
        found.and_then(|e| e.operation.clone()).unwrap()
    };
    assert_ne!(of("UPDATE_FAILED"), of("UPDATE_ROLLBACK_COMPLETE"));
    assert_eq!(
        Some(of("UPDATE_ROLLBACK_COMPLETE")),
        look(world, &id).await.operation
    );
}

pub async fn a_stack_policy_refuses_updates(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TWO).await.stack_id;
    let engine = world.engine();
    let policy = r#"{"Statement": [{"Effect": "Allow", "Action": "Update:*", "Principal": "*", "Resource": "*"}, {"Effect": "Deny", "Action": "Update:*", "Principal": "*", "Resource": "LogicalResourceId/B"}]}"#;
    assert!(is_refused(engine.set_stack_policy(&id, "{}").await));

    engine.set_stack_policy(&id, policy).await.unwrap();

    assert_eq!(
        engine.stack_policy(&id).await.unwrap().as_deref(),
        Some(policy)
    );
    assert_eq!(
        apply(world, &name, TWO_CHANGED).await.status,
        S::UpdateRollbackComplete
    );
    let events = engine.events(&id, None).await.unwrap();
    assert!(events.iter().any(|e| {
        e.logical == "B"
            && e.reason
                .as_deref()
                .is_some_and(|r| r.contains("Action denied by stack policy"))
    }));
    assert_eq!(
        apply(world, &name, TOPIC).await.status,
        S::UpdateRollbackComplete,
        "nor may it be removed"
    );
}

pub async fn what_cannot_be_cleaned_up_is_left_behind(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TWO).await.stack_id;
    needs!(
        world.fail(&name, "B", During::Delete, true).await,
        "failures"
    );

    let found = apply(world, &name, TOPIC).await;

    assert_eq!(found.status, S::UpdateComplete);
    assert!(
        found
            .status_reason
            .unwrap()
            .contains("could not be deleted")
    );
    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteComplete);
}

pub async fn an_alarm_takes_an_update_back(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TWO).await;
    let alarm = "arn:aws:cloudwatch:eu-west-1:111111111111:alarm:errors";
    needs!(world.fail(&name, alarm, During::Make, true).await, "alarms");
    let mut update = proposal(world, &name, TWO_CHANGED).await;
    update.rollback_triggers = vec![alarm.into()];
    update.monitoring_minutes = 5;

    let id = begin(world, &update).await;

    assert_eq!(settled(world, &id).await.status, S::UpdateRollbackComplete);
    let completed = steps(world, &id, "B").await;
    assert!(
        completed.contains(&"UPDATE_COMPLETE".to_owned()),
        "{completed:?}"
    );
}
