//! Assumptions about stacks: guards, secrets, what is gone, and what is kept.

use std::collections::BTreeMap;

use serde_json::Value;

use super::bench::{Bench, Stack};
use super::{Seen, Told};
use crate::domain::plan::{ChangeSetStatus, StackStatus, StatusClass};
use crate::port::{Error, StackRef};

const CLOSED: &str = r#"{"Statement": [{"Effect": "Deny", "Action": "Update:*", "Principal": "*", "Resource": "*"}]}"#;
const OPEN: &str = r#"{"Statement": [{"Effect": "Allow", "Action": "Update:*", "Principal": "*", "Resource": "*"}]}"#;

pub(super) async fn a_policy_refuses(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    bench.engine.set_stack_policy(&life.id, CLOSED).await?;
    let read = bench.engine.stack_policy(&life.id).await?;
    let text = bench.fresh();

    let refused = bench.update(&life, &text).await;

    // Nothing that follows is to be refused.
    bench.engine.set_stack_policy(&life.id, OPEN).await?;
    let refused = refused?;
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    let same = read.as_deref().and_then(parsed) == parsed(CLOSED);
    let held = refused.stack.status == StackStatus::UpdateRollbackComplete;
    let reads = if same {
        "it reads back"
    } else {
        "it reads back otherwise"
    };
    let why = bench.why(&refused.stack).await;
    let seen = if held {
        format!("{reads}; {why}")
    } else {
        format!("{reads}; the update ended in {}", refused.stack.status)
    };
    Ok(Seen::of(same && held, seen))
}

/// The stack that has a secret, and is deleted before the others.
async fn guarded(bench: &mut Bench) -> Result<Stack, Error> {
    let text = format!(
        "{}Parameters:\n  Secret:\n    Type: String\n    NoEcho: true\n",
        bench.fresh()
    );
    let value = bench.prefix.clone();
    let parameters = BTreeMap::from([("Secret".to_owned(), value)]);
    bench.shared("guarded", &text, parameters).await
}

pub(super) async fn secrets_are_stars(bench: &mut Bench) -> Told {
    let stack = guarded(bench).await?;

    let found = bench.look(&stack.id).await?;

    Ok(match found.parameters.get("Secret").map(String::as_str) {
        Some("****") => Seen::of(true, "it reads so"),
        // The value is this run's own prefix: nothing that has to be hidden.
        Some(other) => Seen::of(false, format!("it reads as `{other}`")),
        None => Seen::of(false, "it is not told at all"),
    })
}

pub(super) async fn protection_holds(bench: &mut Bench) -> Told {
    let stack = guarded(bench).await?;
    bench.engine.set_protection(&stack.id, true).await?;
    let told = bench.look(&stack.id).await?.termination_protection;
    let token = format!("{}-p", bench.prefix);

    let answer = bench.engine.delete(&stack.id, &token, &[]).await;

    let status = bench.look(&stack.id).await?.status;
    Ok(match answer {
        Err(Error::Refused(why)) => {
            bench.engine.set_protection(&stack.id, false).await?;
            let held = told && status.class() == StatusClass::Ready;
            let told = if told { "" } else { "not " };
            Seen::of(
                held,
                format!("it is {told}described as protected, and is in {status}: {why}"),
            )
        }
        Ok(()) => Seen::of(false, format!("it is deleted: {status}")),
        Err(error) => Seen::nothing(error.to_string()),
    })
}

pub(super) async fn by_arn_the_gone_are_seen(bench: &mut Bench) -> Told {
    let stack = guarded(bench).await?;
    let before = bench.look(&stack.id).await?;
    let token = format!("{}-d", bench.prefix);
    bench.engine.delete(&stack.id, &token, &[]).await?;
    bench.rest(&stack.id, &before).await?;

    let by_name = StackRef::Name(stack.name.clone());
    let by_name = bench.engine.describe(&by_name).await?;
    let by_arn = bench.engine.describe(&StackRef::Id(stack.id)).await?;

    let word = |found: Option<StackStatus>| found.map_or("absent".to_owned(), |s| s.to_string());
    let (by_name, by_arn) = (by_name.map(|s| s.status), by_arn.map(|s| s.status));
    let held = by_name.is_none() && by_arn == Some(StackStatus::DeleteComplete);
    let seen = format!("by name: {}; by ARN: {}", word(by_name), word(by_arn));
    Ok(Seen::of(held, seen))
}

pub(super) async fn a_failed_creation_goes(bench: &mut Bench) -> Told {
    let (name, text) = (bench.name("fails")?, bench.failing());
    let asked = bench.proposal(&name, &text).await?;

    let done = bench.apply(&asked, &text).await?;

    let status = done.stack.status;
    if status.class() == StatusClass::Ready {
        return Ok(Seen::nothing("the creation that was to fail did not"));
    }
    let events = bench.engine.events(&done.stack.stack_id, None).await?;
    let failed = events.iter().find(|e| e.status == "CREATE_FAILED");
    let reason = failed.and_then(|e| e.reason.clone());
    let held = status == StackStatus::DeleteComplete && failed.is_some();
    let seen = match reason {
        Some(reason) => format!("it is in {status}; its events say: {reason}"),
        None => format!("it is in {status}; {} events, none says why", events.len()),
    };
    Ok(Seen::of(held, seen))
}

const TOPIC: &str = "Outputs:\n  Topic:\n    Value: !Ref Topic\n";

fn with_topic(bench: &mut Bench) -> String {
    let fresh = bench.fresh();
    format!("{fresh}  Topic:\n    Type: AWS::SNS::Topic\n{TOPIC}")
}

/// The stack that has a topic, which it is told of itself.
async fn announced(bench: &mut Bench) -> Result<(Stack, String), Error> {
    let text = with_topic(bench);
    let stack = bench.shared("announced", &text, BTreeMap::new()).await?;
    let topic = bench.look(&stack.id).await?.outputs.remove("Topic");
    let topic = topic.ok_or_else(|| Error::NotFound("the stack's topic".into()))?;
    Ok((stack, topic))
}

pub(super) async fn silence_keeps(bench: &mut Bench) -> Told {
    if bench.raw.is_none() {
        return Ok(Seen::nothing(
            "the embedded engine is never asked without them",
        ));
    }
    let (stack, topic) = announced(bench).await?;
    let text = with_topic(bench);
    let mut asked = bench.proposal(&stack.name, &text).await?;
    asked.tags.insert("isoform-probe".into(), "a".into());
    asked.notification_arns = vec![topic];
    // The least that is not the default; CloudFormation waits for so long after an update.
    asked.monitoring_minutes = 1;
    let done = bench.apply(&asked, &text).await?;
    let Some(raw) = &bench.raw else {
        return Ok(Seen::nothing("there is no way to AWS"));
    };
    let before = raw.session.stack_facts(&stack.id).await?;
    let role = raw.service_role.clone();

    let text = with_topic(bench);
    let silent = bench.proposal(&stack.name, &text).await?;
    let Some(raw) = &bench.raw else {
        return Ok(Seen::nothing("there is no way to AWS"));
    };
    let change_set = raw
        .session
        .propose_in_silence(&stack.name, &silent.name, &silent.template_url, role)
        .await?;
    let read = bench.read(&change_set).await?;
    if read.status != ChangeSetStatus::Available {
        let why = read.reason.unwrap_or_default();
        return Ok(Seen::nothing(format!("{:?}: {why}", read.status)));
    }
    let token = format!("{}-x", silent.token);
    bench.engine.execute(&change_set, &token).await?;
    bench.rest(&stack.id, &done.stack).await?;

    let Some(raw) = &bench.raw else {
        return Ok(Seen::nothing("there is no way to AWS"));
    };
    let after = raw.session.stack_facts(&stack.id).await?;
    let parts = [
        ("tags", before.tags.is_empty(), before.tags == after.tags),
        (
            "topics",
            before.topics.is_empty(),
            before.topics == after.topics,
        ),
        (
            "minutes of watching",
            before.watched_minutes == 0,
            before.watched_minutes == after.watched_minutes,
        ),
    ];
    let word = |(what, none, same): &(&str, bool, bool)| match (none, same) {
        (true, _) => format!("{what}: were never set"),
        (_, true) => format!("{what}: kept"),
        (_, false) => format!("{what}: lost"),
    };
    let seen = parts.iter().map(word).collect::<Vec<_>>().join("; ");
    Ok(if parts.iter().any(|(_, none, same)| !none && !same) {
        Seen::of(false, seen)
    } else if parts.iter().any(|(_, none, _)| *none) {
        Seen::nothing(seen)
    } else {
        Seen::of(true, seen)
    })
}

pub(super) async fn empty_topics_take_away(bench: &mut Bench) -> Told {
    let (stack, topic) = announced(bench).await?;
    if bench.look(&stack.id).await?.notification_arns.is_empty() {
        let text = with_topic(bench);
        let mut asked = bench.proposal(&stack.name, &text).await?;
        asked.notification_arns = vec![topic];
        let done = bench.apply(&asked, &text).await?;
        if done.stack.notification_arns.is_empty() {
            return Ok(Seen::nothing("the stack has no topic that could go"));
        }
    }
    let text = with_topic(bench);

    let done = bench.update(&stack, &text).await?;

    let left = done.stack.notification_arns;
    Ok(if left.is_empty() {
        Seen::of(true, "the topic has gone")
    } else {
        Seen::of(false, format!("the stack still tells {}", left.join(", ")))
    })
}
