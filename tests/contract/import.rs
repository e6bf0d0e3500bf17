//! Taking resources into a stack.

use std::collections::BTreeMap;

use isoform::domain::plan::{Action, ChangeSetStatus as C, StackStatus as S};
use isoform::port::Proposal;

use crate::harness::*;

const TOPIC: &str = "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n";
const BOTH: &str = "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n  B: {Type: 'AWS::S3::Bucket', DeletionPolicy: Retain, Properties: {BucketName: old}}\n";

/// Leaves a bucket behind that no stack has.
async fn leave_bucket(world: &dyn Harness, bucket: &str) {
    let text = format!(
        "Resources:\n  B: {{Type: 'AWS::S3::Bucket', DeletionPolicy: Retain, Properties: {{BucketName: {bucket}}}}}\n"
    );
    let id = apply(world, &world.name(&format!("left-{bucket}")), &text)
        .await
        .stack_id;
    delete(world, &id, &[]).await;
}

async fn importing(world: &dyn Harness, stack: &str, text: &str) -> Proposal {
    let mut proposal = proposal(world, stack, text).await;
    let identifier = BTreeMap::from([("BucketName".to_owned(), "old".to_owned())]);
    proposal
        .import
        .insert("B".into(), ("AWS::S3::Bucket".into(), identifier));
    proposal
}

pub async fn a_resource_is_taken_in(world: &dyn Harness) {
    leave_bucket(world, "old").await;
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;
    let proposal = importing(world, &name, BOTH).await;

    let (_, read) = propose(world, &proposal).await;
    assert_eq!((read.status, read.changes.len()), (C::Available, 1));
    assert_eq!(read.changes[0].action, Action::Import);
    assert_eq!(read.changes[0].physical.as_deref(), Some("old"));
    let again = importing(world, &name, BOTH).await;
    let id = begin(world, &again).await;

    assert_eq!(settled(world, &id).await.status, S::ImportComplete);
    assert_eq!(
        states(world, &id).await[2..],
        ["IMPORT_IN_PROGRESS", "IMPORT_COMPLETE"]
    );
    assert_eq!(
        steps(world, &id, "B").await,
        ["IMPORT_IN_PROGRESS", "IMPORT_COMPLETE"]
    );
    let (_, read) = propose(world, &crate::harness::proposal(world, &name, BOTH).await).await;
    assert_eq!(read.status, C::NoChanges);
}

pub async fn a_new_stack_can_begin_with_what_exists(world: &dyn Harness) {
    leave_bucket(world, "old").await;
    let name = world.name("orders");
    let text = "Resources:\n  B: {Type: 'AWS::S3::Bucket', DeletionPolicy: Retain, Properties: {BucketName: old}}\n";
    let proposal = importing(world, &name, text).await;

    let id = begin(world, &proposal).await;

    assert_eq!(settled(world, &id).await.status, S::ImportComplete);
}

pub async fn an_import_is_the_only_change(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;
    let engine = world.engine();

    for text in [
        // Another resource changes.
        BOTH.replace("Topic'}", "Topic', Properties: {DisplayName: x}}"),
        // An output comes.
        format!("{BOTH}Outputs: {{O: {{Value: x}}}}\n"),
        // Without a deletion policy.
        BOTH.replace("DeletionPolicy: Retain, ", ""),
        // Not in the template.
        TOPIC.to_owned(),
    ] {
        let proposal = importing(world, &name, &text).await;
        assert!(is_refused(engine.propose(&proposal).await), "{text}");
    }
    let mut unnamed = importing(world, &name, BOTH).await;
    unnamed.import.get_mut("B").unwrap().1.clear();
    assert!(is_refused(engine.propose(&unnamed).await));
}

pub async fn a_failed_import_lets_go_again(world: &dyn Harness) {
    leave_bucket(world, "old").await;
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;
    needs!(world.fail(&name, "B", During::Make, true).await, "failures");

    let id = begin(world, &importing(world, &name, BOTH).await).await;

    assert_eq!(settled(world, &id).await.status, S::ImportRollbackComplete);
    world.fail(&name, "B", During::Make, false).await;
    let id = begin(world, &importing(world, &name, BOTH).await).await;
    assert_eq!(settled(world, &id).await.status, S::ImportComplete);
}

pub async fn what_does_not_exist_cannot_be_taken_in(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;

    let id = begin(world, &importing(world, &name, BOTH).await).await;

    assert_eq!(settled(world, &id).await.status, S::ImportRollbackComplete);
}

pub async fn letting_go_can_fail_too(world: &dyn Harness) {
    leave_bucket(world, "old").await;
    leave_bucket(world, "other").await;
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;
    let text = format!(
        "{BOTH}  C: {{Type: 'AWS::S3::Bucket', DeletionPolicy: Retain, DependsOn: B, Properties: {{BucketName: other}}}}\n"
    );
    let mut proposal = importing(world, &name, &text).await;
    let identifier = BTreeMap::from([("BucketName".to_owned(), "other".to_owned())]);
    proposal
        .import
        .insert("C".into(), ("AWS::S3::Bucket".into(), identifier));
    needs!(world.fail(&name, "C", During::Make, true).await, "failures");
    world.fail(&name, "B", During::Rollback, true).await;

    let id = begin(world, &proposal).await;

    assert_eq!(settled(world, &id).await.status, S::ImportRollbackFailed);
}
