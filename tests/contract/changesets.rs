//! The life of a change set.

use std::collections::BTreeMap;
use std::time::Duration;

use isoform::domain::plan::{
    Action, ChangeSetStatus as C, PolicyAction, Replacement, StackStatus as S,
};
use isoform::port::{Error, StackRef};

use crate::harness::*;

const TOPIC: &str = "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n";
const QUEUE: &str = "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 1}}\n";
const QUEUE_CHANGED: &str =
    "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 2}}\n";

pub async fn a_create_change_set_makes_a_shell(world: &dyn Harness) {
    let name = world.name("orders");
    let (proposed, read) = propose(world, &proposal(world, &name, TOPIC).await).await;

    assert_eq!(read.status, C::Available);
    assert_eq!(read.changes[0].action, Action::Add);
    let shell = look(world, &proposed.stack_id).await;
    assert_eq!(shell.status, S::ReviewInProgress);
    assert_eq!(shell.watermark(), None);
    // It takes the name and needs deleting by itself; deleting the change set does not remove it.
    let engine = world.engine();
    engine.discard(&proposed.change_set).await.unwrap();
    assert_eq!(
        look(world, &proposed.stack_id).await.status,
        S::ReviewInProgress
    );
    assert_eq!(
        delete(world, &proposed.stack_id, &[]).await.status,
        S::DeleteComplete
    );
}

pub async fn a_shell_is_used_by_the_next_create_change_set(world: &dyn Harness) {
    let name = world.name("orders");
    let (first, _) = propose(world, &proposal(world, &name, TOPIC).await).await;

    let (second, _) = propose(world, &proposal(world, &name, TOPIC).await).await;

    assert_eq!(first.stack_id, second.stack_id);
    assert_ne!(first.change_set, second.change_set);
}

pub async fn the_type_must_fit_the_stack(world: &dyn Harness) {
    let name = world.name("orders");
    let mut update = proposal(world, &name, TOPIC).await;
    update.create = false;
    assert!(matches!(
        world.engine().propose(&update).await,
        Err(Error::NotFound(_))
    ));
    apply(world, &name, TOPIC).await;

    let mut create = proposal(world, &name, QUEUE).await;
    create.create = true;

    assert!(matches!(
        world.engine().propose(&create).await,
        Err(Error::Exists(_))
    ));
}

pub async fn making_one_takes_time(world: &dyn Harness) {
    let proposal = proposal(world, &world.name("orders"), TOPIC).await;
    let engine = world.engine();

    let proposed = engine.propose(&proposal).await.unwrap();

    assert_eq!(
        engine.review(&proposed.change_set).await.unwrap().status,
        C::Creating
    );
    assert!(is_refused(engine.execute(&proposed.change_set, "x").await));
    assert_eq!(
        read_back(world, &proposed.change_set).await.status,
        C::Available
    );
}

pub async fn the_same_token_is_the_same_change_set(world: &dyn Harness) {
    let proposal = proposal(world, &world.name("orders"), TOPIC).await;
    let engine = world.engine();

    let first = engine.propose(&proposal).await.unwrap();
    let again = engine.propose(&proposal).await.unwrap();

    assert_eq!(first, again);
    let found = engine.find(&proposal.stack, &proposal.name).await.unwrap();
    assert_eq!(found, Some(first));
    assert_eq!(engine.find(&proposal.stack, "other").await.unwrap(), None);
}

pub async fn a_name_is_taken_also_while_its_change_set_is_deleted(world: &dyn Harness) {
    let mut one = proposal(world, &world.name("orders"), TOPIC).await;
    let (first, _) = propose(world, &one).await;
    let engine = world.engine();
    one.token = format!("{}-again", one.token);
    assert!(matches!(engine.propose(&one).await, Err(Error::Exists(_))));

    engine.discard(&first.change_set).await.unwrap();

    assert!(matches!(engine.propose(&one).await, Err(Error::Exists(_))));
    for _ in 0..10_000 {
        world.pass(Duration::from_millis(50)).await;
        if engine.propose(&one).await.is_ok() {
            return;
        }
    }
    panic!("the name is never free again");
}

pub async fn deleting_one_that_is_not_there_is_fine(world: &dyn Harness) {
    let (first, _) = propose(world, &proposal(world, &world.name("orders"), TOPIC).await).await;
    let engine = world.engine();

    engine.discard(&first.change_set).await.unwrap();
    world.pass(Duration::from_secs(60)).await;
    engine.discard(&first.change_set).await.unwrap();

    assert!(matches!(
        engine.review(&first.change_set).await,
        Err(Error::NotFound(_))
    ));
}

pub async fn nothing_to_change_is_a_failure_of_its_own(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;

    let (proposed, read) = propose(world, &proposal(world, &name, TOPIC).await).await;

    assert_eq!(read.status, C::NoChanges);
    let reason = read.reason.unwrap();
    assert!(reason.starts_with("The submitted information didn't contain changes."));
    assert!(is_refused(
        world.engine().execute(&proposed.change_set, "x").await
    ));
}

pub async fn a_transform_says_it_in_other_words(world: &dyn Harness) {
    let name = world.name("orders");
    let text = format!("Transform: AWS::LanguageExtensions\n{TOPIC}");
    apply(world, &name, &text).await;

    let (_, read) = propose(world, &proposal(world, &name, &text).await).await;

    assert_eq!(read.status, C::NoChanges);
    assert!(
        read.reason
            .unwrap()
            .starts_with("No updates are to be performed.")
    );
}

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

pub async fn executing_one_deletes_the_others(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, QUEUE).await;
    let engine = world.engine();
    let (first, _) = propose(world, &proposal(world, &name, QUEUE_CHANGED).await).await;
    let (second, _) = propose(world, &proposal(world, &name, QUEUE_CHANGED).await).await;

    engine.execute(&second.change_set, "x").await.unwrap();

    assert!(matches!(
        engine.review(&first.change_set).await,
        Err(Error::NotFound(_))
    ));
    assert_eq!(
        engine.review(&second.change_set).await.unwrap().status,
        C::Executing
    );
    settled(world, &second.stack_id).await;
    assert_eq!(
        engine.review(&second.change_set).await.unwrap().status,
        C::Executed
    );
    assert!(is_refused(engine.execute(&second.change_set, "y").await));
}

pub async fn another_operation_makes_one_obsolete(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, QUEUE).await.stack_id;
    let (first, _) = propose(world, &proposal(world, &name, QUEUE_CHANGED).await).await;
    needs!(world.meddle(&name).await, "operations of somebody else");
    settled(world, &id).await;

    let read = world.engine().review(&first.change_set).await.unwrap();

    assert_eq!(read.status, C::Obsolete);
    assert!(is_refused(
        world.engine().execute(&first.change_set, "x").await
    ));
}

pub async fn making_or_deleting_one_does_not_move_the_stack(world: &dyn Harness) {
    let name = world.name("orders");
    let before = apply(world, &name, QUEUE).await.watermark();

    let (first, _) = propose(world, &proposal(world, &name, QUEUE_CHANGED).await).await;
    let between = look(world, &first.stack_id).await.watermark();
    world.engine().discard(&first.change_set).await.unwrap();
    let after = look(world, &first.stack_id).await.watermark();

    assert_eq!(between, before);
    assert_eq!(after, before);
}

pub async fn what_was_executed_last_is_known_by_name(world: &dyn Harness) {
    let name = world.name("orders");
    let proposal = proposal(world, &name, QUEUE).await;

    let id = begin(world, &proposal).await;

    assert_eq!(
        look(world, &id).await.last_change_set.as_deref(),
        Some(proposal.name.as_str())
    );
    settled(world, &id).await;
    assert_eq!(
        look(world, &id).await.last_change_set.as_deref(),
        Some(proposal.name.as_str())
    );
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
    assert!(is_refused(engine.propose(&plain).await));
    plain.capabilities = vec!["CAPABILITY_NAMED_IAM".into()];
    assert!(engine.propose(&plain).await.is_ok());

    let summary = engine.summary(&plain.template_url).await.unwrap();
    assert_eq!(summary.capabilities, ["CAPABILITY_NAMED_IAM"]);
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

pub async fn a_stack_that_moves_takes_no_change_set(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, QUEUE).await;
    begin(world, &proposal(world, &name, QUEUE_CHANGED).await).await;

    let answer = world
        .engine()
        .propose(&proposal(world, &name, QUEUE).await)
        .await;

    assert!(matches!(answer, Err(Error::Busy(_))), "{answer:?}");
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

pub async fn a_thousand_are_the_most(world: &dyn Harness) {
    needs!(world.is_cheap(), "a thousand change sets");
    let name = world.name("orders");
    let mut one = proposal(world, &name, TOPIC).await;
    let engine = world.engine();
    for number in 0..1000 {
        one.name = format!("many-{number}");
        one.token = format!("many-token-{number}");
        engine.propose(&one).await.unwrap();
    }
    one.name = "one-more".into();
    one.token = "one-more".into();

    assert!(is_refused(engine.propose(&one).await));
}

pub async fn listings_come_in_pages(world: &dyn Harness) {
    needs!(world.is_cheap(), "many stacks");
    let mut made = Vec::new();
    for number in 0..130 {
        let name = world.name(&format!("s{number}"));
        let (proposed, _) = propose(world, &proposal(world, &name, TOPIC).await).await;
        made.push(proposed.stack_id);
    }

    let (mut seen, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = world.engine().list(token.as_deref()).await.unwrap();
        seen.extend(page.items.into_iter().map(|s| s.stack_id));
        pages += 1;
        token = page.next;
        if token.is_none() {
            break;
        }
    }

    assert!(pages > 1);
    made.sort();
    seen.sort();
    seen.retain(|s| made.contains(s));
    assert_eq!(seen, made);
}

pub async fn events_after_a_known_one_are_told(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, QUEUE).await.stack_id;
    let engine = world.engine();
    let before = engine.events(&id, None).await.unwrap();
    let known = before.last().unwrap().id.clone();
    assert!(engine.events(&id, Some(&known)).await.unwrap().is_empty());

    apply(world, &name, QUEUE_CHANGED).await;

    let after = engine.events(&id, Some(&known)).await.unwrap();
    assert_eq!(after[0].status, "UPDATE_IN_PROGRESS");
    let all = engine.events(&id, None).await.unwrap();
    assert_eq!(all.len(), before.len() + after.len());
    assert!(all.windows(2).all(|w| w[0].at <= w[1].at));
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
