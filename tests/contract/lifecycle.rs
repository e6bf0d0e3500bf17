//! The states of a stack, and the calls that move it without a change set.

use isoform::domain::plan::StackStatus as S;
use isoform::port::StackRef;

use crate::harness::*;

const TOPIC: &str = "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n";
const TWO: &str =
    "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n  B: {Type: 'AWS::SQS::Queue', DependsOn: A}\n";
/// As [`TWO`], each resource with a property, one of them replaced.
const TWO_CHANGED: &str = "Resources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: x}}\n  B: {Type: 'AWS::SQS::Queue', DependsOn: A, Properties: {DelaySeconds: 5}}\n";

fn exporting(value: &str) -> String {
    format!(
        "Resources:\n  A: {{Type: 'AWS::SNS::Topic'}}\nOutputs:\n  O: {{Value: '{value}', Export: {{Name: shared}}}}\n"
    )
}

const IMPORTING: &str =
    "Resources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !ImportValue shared}}\n";

pub async fn a_stack_is_created_updated_and_deleted(world: &dyn Harness) {
    let name = world.name("orders");
    let created = apply(world, &name, TWO).await;
    let id = created.stack_id.clone();
    assert_eq!(created.status, S::CreateComplete);

    assert_eq!(
        apply(world, &name, TWO_CHANGED).await.status,
        S::UpdateComplete
    );
    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteComplete);

    assert_eq!(
        states(world, &id).await,
        [
            "CREATE_IN_PROGRESS",
            "CREATE_COMPLETE",
            "UPDATE_IN_PROGRESS",
            "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
            "UPDATE_COMPLETE",
            "DELETE_IN_PROGRESS",
            "DELETE_COMPLETE"
        ]
    );
    // What needs another goes before it.
    let events = world.engine().events(&id, None).await.unwrap();
    let gone: Vec<&str> = events
        .iter()
        .filter(|e| e.status == "DELETE_COMPLETE" && e.logical.len() == 1)
        .map(|e| e.logical.as_str())
        .collect();
    assert_eq!(gone, ["B", "A"]);
}

pub async fn by_name_a_deleted_stack_is_absent_and_by_id_it_is_described(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TOPIC).await.stack_id;

    delete(world, &id, &[]).await;

    let by_name = StackRef::Name(name.parse().unwrap());
    assert_eq!(world.engine().describe(&by_name).await.unwrap(), None);
    assert_eq!(look(world, &id).await.status, S::DeleteComplete);
    let again = apply(world, &name, TOPIC).await;
    assert_ne!(again.stack_id, id, "a stack made anew has another id");
}

pub async fn a_protected_stack_is_not_deleted(world: &dyn Harness) {
    let id = apply(world, &world.name("orders"), TOPIC).await.stack_id;
    let engine = world.engine();

    engine.set_protection(&id, true).await.unwrap();

    assert!(is_refused(engine.delete(&id, "d1", &[]).await));
    assert_eq!(look(world, &id).await.status, S::CreateComplete);
    assert!(look(world, &id).await.termination_protection);
    engine.set_protection(&id, false).await.unwrap();
    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteComplete);
}

pub async fn deleting_twice_or_what_is_not_there_is_fine(world: &dyn Harness) {
    let id = apply(world, &world.name("orders"), TOPIC).await.stack_id;
    let engine = world.engine();

    engine.delete(&id, "d1", &[]).await.unwrap();
    engine.delete(&id, "d1", &[]).await.unwrap();
    settled(world, &id).await;
    engine.delete(&id, "d2", &[]).await.unwrap();

    assert_eq!(
        states(world, &id).await[2..],
        ["DELETE_IN_PROGRESS", "DELETE_COMPLETE"]
    );
}

pub async fn a_stack_that_updates_is_not_deleted(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TWO).await;
    let id = begin(world, &proposal(world, &name, TWO_CHANGED).await).await;

    let answer = world.engine().delete(&id, "d1", &[]).await;

    assert!(is_refused(answer));
    assert_eq!(settled(world, &id).await.status, S::UpdateComplete);
}

pub async fn a_creation_in_motion_can_be_deleted(world: &dyn Harness) {
    let id = begin(world, &proposal(world, &world.name("orders"), TWO).await).await;
    assert_eq!(look(world, &id).await.status, S::CreateInProgress);

    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteComplete);
}

pub async fn what_is_retained_stays_when_its_stack_goes(world: &dyn Harness) {
    let text = "Resources:\n  Keep: {Type: 'AWS::S3::Bucket', DeletionPolicy: Retain}\n  Later: {Type: 'AWS::S3::Bucket', DeletionPolicy: RetainExceptOnCreate}\n  Snap: {Type: 'AWS::RDS::DBInstance', DeletionPolicy: Snapshot}\n  Go: {Type: 'AWS::SNS::Topic'}\n";
    let id = apply(world, &world.name("orders"), text).await.stack_id;

    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteComplete);

    assert_eq!(
        steps(world, &id, "Keep").await.last().unwrap(),
        "DELETE_SKIPPED"
    );
    assert_eq!(
        steps(world, &id, "Later").await.last().unwrap(),
        "DELETE_SKIPPED"
    );
    assert_eq!(
        steps(world, &id, "Snap").await.last().unwrap(),
        "DELETE_COMPLETE"
    );
    assert_eq!(
        steps(world, &id, "Go").await.last().unwrap(),
        "DELETE_COMPLETE"
    );
}

pub async fn a_resource_that_does_not_go_leaves_the_deletion_failed(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TWO).await.stack_id;
    needs!(
        world.fail(&name, "B", During::Delete, true).await,
        "deletions"
    );

    let found = delete(world, &id, &[]).await;

    assert_eq!(found.status, S::DeleteFailed);
    assert!(found.status_reason.unwrap().contains("[B]"));
    // The others go nevertheless.
    assert_eq!(
        steps(world, &id, "A").await.last().unwrap(),
        "DELETE_COMPLETE"
    );
    world.fail(&name, "B", During::Delete, false).await;
    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteComplete);
}

pub async fn only_after_a_failed_deletion_can_resources_be_kept(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TWO).await.stack_id;
    let retain = ["B".to_owned()];
    assert!(is_refused(world.engine().delete(&id, "d", &retain).await));
    needs!(
        world.fail(&name, "B", During::Delete, true).await,
        "deletions"
    );
    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteFailed);

    // A is gone already.
    let gone = ["A".to_owned()];
    assert!(is_refused(world.engine().delete(&id, "d2", &gone).await));
    assert_eq!(delete(world, &id, &["B"]).await.status, S::DeleteComplete);

    assert_eq!(
        steps(world, &id, "B").await.last().unwrap(),
        "DELETE_SKIPPED"
    );
}

pub async fn an_export_in_use_lets_the_deletion_fall_back(world: &dyn Harness) {
    let (owner, reader) = (world.name("owner"), world.name("reader"));
    let id = apply(world, &owner, &exporting("v")).await.stack_id;
    let other = apply(world, &reader, IMPORTING).await.stack_id;

    let found = delete(world, &id, &[]).await;

    assert_eq!(found.status, S::CreateComplete, "there is no DELETE_FAILED");
    let reason = found.status_reason.unwrap();
    assert!(
        reason.contains("shared cannot be deleted as it is in use by") && reason.contains(&reader),
        "{reason}"
    );
    delete(world, &other, &[]).await;
    assert_eq!(delete(world, &id, &[]).await.status, S::DeleteComplete);
}

pub async fn an_export_in_use_cannot_be_dropped_or_changed_by_an_update(world: &dyn Harness) {
    let owner = world.name("owner");
    let id = apply(world, &owner, &exporting("v")).await.stack_id;
    apply(world, &world.name("reader"), IMPORTING).await;

    for (template, verb) in [(TOPIC.to_owned(), "deleted"), (exporting("w"), "updated")] {
        let found = apply(world, &owner, &template).await;

        assert_eq!(found.status, S::UpdateRollbackComplete);
        assert_eq!(found.outputs["O"], "v");
        let events = world.engine().events(&id, None).await.unwrap();
        let why = events.iter().rev().filter_map(|e| e.reason.clone());
        assert!(
            why.clone()
                .any(|r| r.contains(&format!("cannot be {verb}")))
        );
    }
}

pub async fn an_export_has_one_owner(world: &dyn Harness) {
    apply(world, &world.name("owner"), &exporting("v")).await;

    let second = apply(world, &world.name("second"), &exporting("w")).await;

    assert_eq!(second.status, S::RollbackComplete);
}
