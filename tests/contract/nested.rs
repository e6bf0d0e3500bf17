//! Nested stacks: a resource that is a stack.

use isoform::domain::model::StackId;
use isoform::domain::plan::{ChangeSetStatus as C, StackStatus as S};
use isoform::port::StackRef;

use crate::harness::*;

const INNER: &str = "Parameters: {Word: {Type: String}}\nResources:\n  T: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !Ref Word}}\nOutputs: {Said: {Value: !Sub '${Word}!'}}\n";

fn outer(url: &str, word: &str) -> String {
    format!(
        "Resources:\n  N:\n    Type: AWS::CloudFormation::Stack\n    Properties: {{TemplateURL: '{url}', Parameters: {{Word: {word}}}}}\n  Q: {{Type: 'AWS::SNS::Topic', Properties: {{DisplayName: !GetAtt N.Outputs.Said}}}}\nOutputs: {{O: {{Value: !GetAtt N.Outputs.Said}}}}\n"
    )
}

async fn child(world: &dyn Harness, parent: &StackId) -> StackId {
    let events = world.engine().events(parent, None).await.unwrap();
    let found = events.iter().find(|e| e.logical == "N").unwrap();
    found.physical.clone().unwrap().parse().unwrap()
}

pub async fn a_nested_stack_lives_with_its_parent(world: &dyn Harness) {
    let (name, url) = (world.name("orders"), world.put(INNER).await);

    let made = apply(world, &name, &outer(&url, "hello")).await;

    assert_eq!(made.status, S::CreateComplete);
    assert_eq!(made.outputs["O"], "hello!");
    let inner = child(world, &made.stack_id).await;
    let found = look(world, &inner).await;
    assert_eq!(
        (found.status, &found.outputs["Said"][..]),
        (S::CreateComplete, "hello!")
    );
    assert!(found.name.as_str().starts_with(&format!("{name}-N-")));
    // Its events are in its own stream.
    assert!(steps(world, &made.stack_id, "T").await.is_empty());
    assert_eq!(
        steps(world, &inner, "T").await,
        ["CREATE_IN_PROGRESS", "CREATE_COMPLETE"]
    );

    let updated = apply(world, &name, &outer(&url, "bye")).await;
    assert_eq!(updated.outputs["O"], "bye!");
    assert_eq!(look(world, &inner).await.status, S::UpdateComplete);
    delete(world, &made.stack_id, &[]).await;
    assert_eq!(look(world, &inner).await.status, S::DeleteComplete);
}

pub async fn another_nested_template_is_a_change(world: &dyn Harness) {
    let (name, url) = (world.name("orders"), world.put(INNER).await);
    apply(world, &name, &outer(&url, "hello")).await;
    let (_, read) = propose(world, &proposal(world, &name, &outer(&url, "hello")).await).await;
    assert_eq!(
        read.status,
        C::NoChanges,
        "the same URL and the same content"
    );

    let other = world.put(&INNER.replace("}!", "}?")).await;
    let (_, read) = propose(
        world,
        &proposal(world, &name, &outer(&other, "hello")).await,
    )
    .await;

    assert_eq!(read.status, C::Available);
    assert!(read.changes.iter().any(|c| c.logical == "N"));
}

pub async fn a_nested_failure_takes_the_parent_back(world: &dyn Harness) {
    let (name, url) = (world.name("orders"), world.put(INNER).await);
    let id = apply(world, &name, &outer(&url, "hello")).await.stack_id;
    let inner = child(world, &id).await;
    let glob = format!("{name}-N-*");
    needs!(world.fail(&glob, "T", During::Make, true).await, "failures");

    let found = apply(world, &name, &outer(&url, "bye")).await;

    assert_eq!(found.status, S::UpdateRollbackComplete);
    assert_eq!(found.outputs["O"], "hello!");
    let nested = look(world, &inner).await;
    assert_eq!(nested.status, S::UpdateRollbackComplete);
    assert_eq!(nested.parameters["Word"], "hello");
    let events = world.engine().events(&id, None).await.unwrap();
    assert!(events.iter().any(|e| {
        e.status == "UPDATE_FAILED"
            && e.reason
                .as_deref()
                .is_some_and(|r| r.contains("Embedded stack"))
    }));
}

pub async fn a_failure_beside_it_takes_a_nested_update_back(world: &dyn Harness) {
    let (name, url) = (world.name("orders"), world.put(INNER).await);
    let id = apply(world, &name, &outer(&url, "hello")).await.stack_id;
    let inner = child(world, &id).await;
    needs!(world.fail(&name, "Q", During::Make, true).await, "failures");

    let found = apply(world, &name, &outer(&url, "bye")).await;

    assert_eq!(found.status, S::UpdateRollbackComplete);
    let nested = look(world, &inner).await;
    assert_eq!(
        (nested.status, &nested.parameters["Word"][..]),
        (S::UpdateRollbackComplete, "hello")
    );
}

pub async fn a_failed_nested_creation_leaves_nothing(world: &dyn Harness) {
    let (name, url) = (world.name("orders"), world.put(INNER).await);
    let glob = format!("{name}-N-*");
    needs!(world.fail(&glob, "T", During::Make, true).await, "failures");

    let found = apply(world, &name, &outer(&url, "hello")).await;

    assert_eq!(found.status, S::RollbackComplete);
    let inner = child(world, &found.stack_id).await;
    assert_eq!(look(world, &inner).await.status, S::DeleteComplete);
}

pub async fn only_the_top_is_cancelled_or_continued(world: &dyn Harness) {
    let (name, url) = (world.name("orders"), world.put(INNER).await);
    let id = apply(world, &name, &outer(&url, "hello")).await.stack_id;
    let inner = child(world, &id).await;
    begin(world, &proposal(world, &name, &outer(&url, "bye")).await).await;

    assert!(is_refused(world.engine().cancel(&inner, "c1").await));
    world.engine().cancel(&id, "c2").await.unwrap();

    assert_eq!(settled(world, &id).await.status, S::UpdateRollbackComplete);
    assert_eq!(look(world, &inner).await.outputs["Said"], "hello!");
    let text = world.engine().template(&StackRef::Id(id)).await.unwrap();
    assert!(text.contains("hello"));
}

pub async fn a_nested_stack_is_protected_by_its_root(world: &dyn Harness) {
    let (name, url) = (world.name("orders"), world.put(INNER).await);
    let id = apply(world, &name, &outer(&url, "hello")).await.stack_id;
    let inner = child(world, &id).await;

    assert!(is_refused(
        world.engine().set_protection(&inner, true).await
    ));
}
