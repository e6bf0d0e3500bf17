//! What a change set says of a template, and what becomes of it.

use std::collections::BTreeMap;

use isoform::domain::plan::{
    Action, ChangeSetStatus as C, PolicyAction, Replacement, StackStatus as S,
};
use isoform::port::{Error, StackRef};

use crate::harness::*;

const TOPIC: &str = "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n";
const QUEUE: &str = "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 1}}\n";
const QUEUE_CHANGED: &str =
    "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 2}}\n";

pub async fn comments_metadata_and_conditions_alone_change_nothing(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, TOPIC).await.stack_id;

    for text in [
        "# a comment\nResources:\n  A: {Type: 'AWS::SNS::Topic'}\n",
        "Metadata: {a: b}\nResources:\n  A: {Type: 'AWS::SNS::Topic'}\n",
        "Conditions: {No: !Equals [a, b]}\nResources:\n  A: {Type: 'AWS::SNS::Topic'}\n  B: {Type: 'AWS::SQS::Queue', Condition: No}\n",
        "Parameters: {P: {Type: String, Default: x}}\nResources:\n  A: {Type: 'AWS::SNS::Topic'}\n",
    ] {
        let (_, read) = propose(world, &proposal(world, &name, text).await).await;
        assert_eq!(read.status, C::NoChanges, "{text}");
    }
    let kept = world.engine().template(&StackRef::Id(id)).await.unwrap();
    assert_eq!(kept, TOPIC, "the stored template stays the old one");
}

pub async fn outputs_alone_make_an_executable_set_without_changes(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;
    let text = format!("{TOPIC}Outputs: {{O: {{Value: x}}}}\n");

    let (_, read) = propose(world, &proposal(world, &name, &text).await).await;

    assert_eq!((read.status, read.changes.len()), (C::Available, 0));
    assert_eq!(apply(world, &name, &text).await.outputs["O"], "x");
}

pub async fn property_values_are_shown_before_and_after(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, QUEUE).await;

    let (_, read) = propose(world, &proposal(world, &name, QUEUE_CHANGED).await).await;

    let change = &read.changes[0];
    assert_eq!(
        (change.action, change.replacement, change.logical.as_str()),
        (Action::Modify, Replacement::Never, "Q")
    );
    let property = &change.properties[0];
    assert_eq!(
        (
            property.path.as_str(),
            property.before.as_deref(),
            property.after.as_deref()
        ),
        ("DelaySeconds", Some("1"), Some("2"))
    );
    assert!(read.complete);
}

pub async fn a_replacement_is_told_with_its_policy(world: &dyn Harness) {
    let name = world.name("orders");
    let text = |bucket: &str, policy: &str| {
        format!(
            "Resources:\n  B: {{Type: 'AWS::S3::Bucket', UpdateReplacePolicy: {policy}, Properties: {{BucketName: {bucket}}}}}\n"
        )
    };
    let id = apply(world, &name, &text("one", "Delete")).await.stack_id;

    for (bucket, policy, action, last) in [
        (
            "two",
            "Delete",
            PolicyAction::ReplaceAndDelete,
            "DELETE_COMPLETE",
        ),
        (
            "three",
            "Retain",
            PolicyAction::ReplaceAndRetain,
            "DELETE_SKIPPED",
        ),
        (
            "four",
            "Snapshot",
            PolicyAction::ReplaceAndSnapshot,
            "DELETE_COMPLETE",
        ),
    ] {
        let (_, read) = propose(world, &proposal(world, &name, &text(bucket, policy)).await).await;
        assert_eq!(
            (read.changes[0].replacement, read.changes[0].policy),
            (Replacement::Always, Some(action))
        );

        assert_eq!(
            apply(world, &name, &text(bucket, policy)).await.status,
            S::UpdateComplete
        );

        let took = steps(world, &id, "B").await;
        assert_eq!(took.last().unwrap(), last, "{took:?}");
        assert!(took.contains(&"CREATE_COMPLETE".to_owned()));
    }
}

pub async fn a_removed_resource_goes_as_its_policy_says(world: &dyn Harness) {
    let name = world.name("orders");
    let text = format!(
        "{TOPIC}  Keep: {{Type: 'AWS::S3::Bucket', DeletionPolicy: Retain}}\n  Go: {{Type: 'AWS::SQS::Queue'}}\n"
    );
    let id = apply(world, &name, &text).await.stack_id;

    let (_, read) = propose(world, &proposal(world, &name, TOPIC).await).await;
    let policies: BTreeMap<&str, _> = read
        .changes
        .iter()
        .map(|c| (c.logical.as_str(), (c.action, c.policy)))
        .collect();
    assert_eq!(
        policies["Keep"],
        (Action::Remove, Some(PolicyAction::Retain))
    );
    assert_eq!(policies["Go"], (Action::Remove, Some(PolicyAction::Delete)));
    apply(world, &name, TOPIC).await;

    assert_eq!(
        steps(world, &id, "Keep").await.last().unwrap(),
        "DELETE_SKIPPED"
    );
    assert_eq!(
        steps(world, &id, "Go").await.last().unwrap(),
        "DELETE_COMPLETE"
    );
}

pub async fn a_type_cannot_change_under_its_logical_id(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;
    let text = "Resources:\n  A: {Type: 'AWS::SQS::Queue'}\n";

    let answer = world
        .engine()
        .propose(&proposal(world, &name, text).await)
        .await;

    assert!(is_refused(answer));
}

pub async fn capabilities_must_be_acknowledged(world: &dyn Harness) {
    let text = "Resources:\n  R: {Type: 'AWS::IAM::Role', Properties: {RoleName: r, AssumeRolePolicyDocument: {}}}\n";
    let mut plain = proposal(world, &world.name("orders"), text).await;
    let engine = world.engine();

    plain.capabilities = vec!["CAPABILITY_IAM".into()];
    let refused = engine.propose(&plain).await;
    assert!(matches!(refused, Err(Error::Incapable(_))), "{refused:?}");
    let summary = engine.summary(&plain.template_url).await.unwrap();
    assert_eq!(summary.capabilities, ["CAPABILITY_NAMED_IAM"]);
    plain.capabilities = summary.capabilities;
    let (_, read) = propose(world, &plain).await;

    assert_eq!(read.capabilities, ["CAPABILITY_NAMED_IAM"]);
}

pub async fn a_parameter_that_is_kept_has_the_value_that_the_stack_has(world: &dyn Harness) {
    let name = world.name("orders");
    let text = "Parameters: {Secret: {Type: String, NoEcho: true}, Plain: {Type: String}}\nResources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !Ref Secret}}\n  B: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !Ref Plain}}\n";
    let plain = |value: &str| ("Plain".to_owned(), value.to_owned());
    let mut first = proposal(world, &name, text).await;
    first.parameters = BTreeMap::from([("Secret".into(), "hunter2-hunter2".into()), plain("one")]);
    let id = begin(world, &first).await;
    settled(world, &id).await;

    let mut kept = proposal(world, &name, text).await;
    kept.parameters = BTreeMap::from([plain("two")]);
    kept.kept = ["Secret".to_owned()].into();
    let (_, read) = propose(world, &kept).await;

    assert_eq!(read.status, C::Available, "{read:?}");
    let touched: Vec<&str> = read.changes.iter().map(|c| c.logical.as_str()).collect();
    assert_eq!(touched, ["B"], "{read:?}");
}

pub async fn a_secret_parameter_reads_as_stars(world: &dyn Harness) {
    let name = world.name("orders");
    let text = "Parameters: {Secret: {Type: String, NoEcho: true}, Plain: {Type: String, Default: p}}\nResources:\n  Db: {Type: 'AWS::RDS::DBInstance', Properties: {MasterUserPassword: !Ref Secret}}\n";
    let with = |value: &str| BTreeMap::from([("Secret".to_owned(), value.to_owned())]);
    let mut first = proposal(world, &name, text).await;
    first.parameters = with("hunter2-hunter2");
    let id = begin(world, &first).await;

    let found = settled(world, &id).await;

    assert_eq!(found.parameters["Secret"], "****");
    assert_eq!(found.parameters["Plain"], "p");
    let mut same = proposal(world, &name, text).await;
    same.parameters = with("hunter2-hunter2");
    assert_eq!(propose(world, &same).await.1.status, C::NoChanges);
    // Sending back what was read sets that text.
    let mut stars = proposal(world, &name, text).await;
    stars.parameters = with("****");
    let (_, read) = propose(world, &stars).await;
    assert_eq!(read.status, C::Available);
    assert!(!format!("{read:?}").contains("hunter2"), "{read:?}");
    let summary = world.engine().summary(&first.template_url).await.unwrap();
    assert!(summary.parameters["Secret"] && !summary.parameters["Plain"]);
}

pub async fn a_parameter_that_is_not_named_falls_back_to_its_default(world: &dyn Harness) {
    let name = world.name("orders");
    let text = "Parameters: {P: {Type: String, Default: d}}\nResources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !Ref P}}\n";
    let mut first = proposal(world, &name, text).await;
    first.parameters = BTreeMap::from([("P".to_owned(), "given".to_owned())]);
    let id = begin(world, &first).await;
    assert_eq!(settled(world, &id).await.parameters["P"], "given");

    let found = apply(world, &name, text).await;

    assert_eq!(found.parameters["P"], "d");
}

pub async fn what_is_outside_ascii_reads_back_as_question_marks(world: &dyn Harness) {
    let name = world.name("orders");
    let text = "Resources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: 請交月報}}\nOutputs: {O: {Value: grün}}\n";
    let (proposed, _) = propose(world, &proposal(world, &name, text).await).await;
    let engine = world.engine();
    let read = engine
        .change_set_template(&proposed.change_set)
        .await
        .unwrap();
    assert!(read.contains("DisplayName: ????}"), "{read}");
    assert_eq!(read, isoform::domain::cfn::as_read_back(text));

    let found = apply(world, &name, text).await;

    assert_eq!(found.outputs["O"], "gr?n");
    let kept = engine
        .template(&StackRef::Id(found.stack_id))
        .await
        .unwrap();
    assert_eq!(kept, isoform::domain::cfn::as_read_back(text));
    // It is not lost to CloudFormation itself: the same text changes nothing.
    let (_, read) = propose(world, &proposal(world, &name, text).await).await;
    assert_eq!(read.status, C::NoChanges);
}

pub async fn an_import_that_nobody_exports_fails_the_change_set(world: &dyn Harness) {
    let text = "Resources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !ImportValue nothing}}\n";

    let (_, read) = propose(world, &proposal(world, &world.name("orders"), text).await).await;

    assert_eq!(read.status, C::Failed);
    assert!(read.reason.unwrap().contains("nothing"));
}

pub async fn a_broken_template_is_refused_at_once(world: &dyn Harness) {
    let text =
        "Resources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !Ref Missing}}\n";
    let proposal = proposal(world, &world.name("orders"), text).await;

    assert!(is_refused(world.engine().propose(&proposal).await));
}

pub async fn tags_and_topics_are_the_stacks(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;
    let mut tagged = proposal(world, &name, TOPIC).await;
    tagged.tags = BTreeMap::from([("team".to_owned(), "net".to_owned())]);
    tagged.notification_arns = vec!["arn:aws:sns:eu-west-1:111111111111:t".into()];

    let id = begin(world, &tagged).await;

    let found = settled(world, &id).await;
    assert_eq!(found.tags["team"], "net");
    assert_eq!(found.notification_arns, tagged.notification_arns);
}

const NAMED: &str = "Resources:\n  B: {Type: 'AWS::S3::Bucket', DeletionPolicy: Retain, Properties: {BucketName: taken}}\n";

pub async fn a_name_that_is_taken_fails_the_change_set(world: &dyn Harness) {
    let id = apply(world, &world.name("owner"), NAMED).await.stack_id;
    let second = world.name("second");

    let (first, read) = propose(world, &proposal(world, &second, NAMED).await).await;
    assert_eq!(read.status, C::Failed);
    assert!(read.reason.unwrap().contains("AWS::EarlyValidation"));
    delete(world, &first.stack_id, &[]).await;
    // Also what was retained is in the way of a new stack.
    delete(world, &id, &[]).await;
    let (_, read) = propose(world, &proposal(world, &second, NAMED).await).await;

    assert_eq!(read.status, C::Failed);
}

pub async fn a_named_resource_cannot_be_replaced_under_its_name(world: &dyn Harness) {
    let name = world.name("orders");
    let text = |path: &str| {
        format!(
            "Resources:\n  T: {{Type: 'AWS::IAM::Role', Properties: {{RoleName: r, Path: /{path}/, AssumeRolePolicyDocument: {{}}}}}}\n"
        )
    };
    let id = apply(world, &name, &text("a")).await.stack_id;

    let found = apply(world, &name, &text("b")).await;

    assert_eq!(found.status, S::UpdateRollbackComplete);
    let events = world.engine().events(&id, None).await.unwrap();
    assert!(events.iter().any(|e| {
        e.logical == "T"
            && e.reason
                .as_deref()
                .is_some_and(|r| r.contains("custom-named resource requires replacing"))
    }));
}

pub async fn a_policy_alone_is_a_change(world: &dyn Harness) {
    let name = world.name("orders");
    let text = |policy: &str| {
        format!("Resources:\n  A: {{Type: 'AWS::SNS::Topic', DeletionPolicy: {policy}}}\n")
    };
    let id = apply(world, &name, &text("Delete")).await.stack_id;

    let (_, read) = propose(world, &proposal(world, &name, &text("Retain")).await).await;
    assert_eq!(read.changes[0].replacement, Replacement::Never);
    assert_eq!(read.changes[0].properties[0].path, "DeletionPolicy");
    apply(world, &name, &text("Retain")).await;

    delete(world, &id, &[]).await;
    assert_eq!(
        steps(world, &id, "A").await.last().unwrap(),
        "DELETE_SKIPPED"
    );
    // What a resource waits for is not one.
    let name = world.name("waiting");
    let two = "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n  B: {Type: 'AWS::SQS::Queue'}\n";
    apply(world, &name, two).await;
    let waiting = two.replace("Queue'}", "Queue', DependsOn: A}");
    let (_, read) = propose(world, &proposal(world, &name, &waiting).await).await;
    assert_eq!(read.status, C::NoChanges);
}

pub async fn metadata_of_a_resource_is_a_change(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;
    let text = "Resources:\n  A: {Type: 'AWS::SNS::Topic', Metadata: {a: b}}\n";

    let (_, read) = propose(world, &proposal(world, &name, text).await).await;

    assert_eq!(read.status, C::Available);
    assert_eq!(read.changes[0].properties[0].path, "Metadata");
}

pub async fn parameters_stand_from_the_beginning_and_outputs_at_the_end(world: &dyn Harness) {
    let name = world.name("orders");
    let text = "Parameters: {P: {Type: String, Default: one}}\nResources:\n  A: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !Ref P}}\nOutputs: {O: {Value: !Ref P}}\n";
    apply(world, &name, text).await;
    let mut update = proposal(world, &name, text).await;
    update.parameters = BTreeMap::from([("P".to_owned(), "two".to_owned())]);

    let id = begin(world, &update).await;

    let during = look(world, &id).await;
    assert_eq!(
        (&during.parameters["P"][..], &during.outputs["O"][..]),
        ("two", "one")
    );
    assert_eq!(settled(world, &id).await.outputs["O"], "two");
}
