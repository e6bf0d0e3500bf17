//! Drift: what is really there against what a stack says.

use isoform::domain::plan::StackStatus as S;
use isoform::port::DriftState;
use serde_json::json;

use crate::harness::*;

const TEXT: &str = "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 1, Tags: [{Key: a, Value: b}]}}\n  T: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: x}}\n";

pub async fn a_stack_that_nobody_touched_has_not_drifted(world: &dyn Harness) {
    let id = apply(world, &world.name("orders"), TEXT).await.stack_id;

    assert_eq!(world.engine().drift(&id).await.unwrap(), vec![]);
}

pub async fn a_property_changed_by_hand_is_found(world: &dyn Harness) {
    let name = world.name("orders");
    let before = apply(world, &name, TEXT).await;
    let id = before.stack_id.clone();
    let set = json!({ "DelaySeconds": 9 });
    needs!(world.change(&name, "Q", Some(set)).await, "changes by hand");

    let found = world.engine().drift(&id).await.unwrap();

    assert_eq!(found.len(), 1);
    assert_eq!(
        (
            found[0].logical.as_str(),
            found[0].state,
            &found[0].properties[..]
        ),
        ("Q", DriftState::Modified, &["DelaySeconds".to_owned()][..])
    );
    assert_eq!(
        look(world, &id).await.watermark(),
        before.watermark(),
        "the stack itself has not moved"
    );
}

pub async fn a_property_that_the_template_does_not_set_is_not_compared(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TEXT).await.stack_id;
    let set = json!({ "VisibilityTimeout": 9 });
    needs!(world.change(&name, "Q", Some(set)).await, "changes by hand");

    assert_eq!(world.engine().drift(&id).await.unwrap(), vec![]);
}

pub async fn a_resource_deleted_by_hand_is_found_and_cannot_be_updated(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TEXT).await.stack_id;
    needs!(world.change(&name, "Q", None).await, "changes by hand");

    let found = world.engine().drift(&id).await.unwrap();

    assert_eq!(
        (found[0].logical.as_str(), found[0].state),
        ("Q", DriftState::Deleted)
    );
    let changed = TEXT.replace("DelaySeconds: 1", "DelaySeconds: 2");
    assert_eq!(
        apply(world, &name, &changed).await.status,
        S::UpdateRollbackComplete
    );
    assert_eq!(
        delete(world, &id, &[]).await.status,
        S::DeleteComplete,
        "what is gone already does not hold its stack up"
    );
}

pub async fn an_update_overwrites_only_what_it_changes(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TEXT).await.stack_id;
    let set = json!({ "DelaySeconds": 9, "Tags": [] });
    needs!(world.change(&name, "Q", Some(set)).await, "changes by hand");

    apply(
        world,
        &name,
        &TEXT.replace("DelaySeconds: 1", "DelaySeconds: 2"),
    )
    .await;

    let found = world.engine().drift(&id).await.unwrap();
    assert_eq!(found[0].properties, ["Tags"]);
}

pub async fn what_cannot_be_read_is_said_not_to_be_checked(world: &dyn Harness) {
    let text = format!("{TEXT}  C: {{Type: 'Custom::Thing', Properties: {{ServiceToken: arn}}}}\n");
    let id = apply(world, &world.name("orders"), &text).await.stack_id;

    let found = world.engine().drift(&id).await.unwrap();

    assert_eq!(
        (found[0].logical.as_str(), found[0].state),
        ("C", DriftState::NotChecked)
    );
}

pub async fn a_stack_that_moves_is_not_looked_at(world: &dyn Harness) {
    let proposal = proposal(world, &world.name("orders"), TEXT).await;
    let id = begin(world, &proposal).await;

    assert!(is_refused(world.engine().drift(&id).await));
}

pub async fn a_skipped_resource_has_drifted(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TEXT).await.stack_id;
    needs!(world.fail(&name, "T", During::Make, true).await, "failures");
    world.fail(&name, "Q", During::Rollback, true).await;
    let changed = TEXT
        .replace("DelaySeconds: 1", "DelaySeconds: 2")
        .replace("DisplayName: x", "DisplayName: y");
    assert_eq!(
        apply(world, &name, &changed).await.status,
        S::UpdateRollbackFailed
    );

    let skip = ["Q".to_owned()];
    world
        .engine()
        .continue_rollback(&id, "c", &skip)
        .await
        .unwrap();
    assert_eq!(settled(world, &id).await.status, S::UpdateRollbackComplete);

    let found = world.engine().drift(&id).await.unwrap();
    assert_eq!(found[0].properties, ["DelaySeconds"]);
}
