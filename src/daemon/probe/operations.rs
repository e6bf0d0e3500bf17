//! Assumptions about operations: what is told of them, and how one is known again.

use super::bench::{Bench, Stack};
use super::{Seen, Told};
use crate::domain::plan::{ChangeSetStatus, StackStatus};
use crate::port::StackEvent;

/// The events that the stack itself went through.
fn own<'a>(events: &'a [StackEvent], stack: &'a Stack) -> impl Iterator<Item = &'a StackEvent> {
    let of = |e: &&StackEvent| e.physical.as_deref() == Some(stack.id.as_str());
    events.iter().filter(of)
}

fn named(name: Option<&str>) -> String {
    name.map_or_else(|| "none".to_owned(), |n| format!("`{n}`"))
}

/// What CloudFormation lists of the operations of a stack, for people; nothing where only the port can be asked.
async fn kinds(bench: &Bench, stack: &Stack) -> String {
    let Some(raw) = &bench.raw else {
        return String::new();
    };
    let described = raw.session.stack_facts(&stack.id).await;
    let listed = raw.session.listed_operations(&stack.id).await;
    let written = |all: Vec<String>| match all.is_empty() {
        true => "nothing".to_owned(),
        false => all.join(", "),
    };
    let described = described.map_or_else(|e| e.to_string(), |f| written(f.operations));
    let listed = listed.map_or_else(
        |e| e.to_string(),
        |o| o.map_or_else(|| "not the stack".into(), written),
    );
    format!("; LastOperations of DescribeStacks: {described}; of ListStacks: {listed}")
}

pub(super) async fn the_change_set_is_named(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let text = bench.fresh();

    let done = bench.update(&life, &text).await?;

    let during = match &done.during {
        Some(during) => named(during.last_change_set.as_deref()),
        None => "not seen".into(),
    };
    let after = done.stack.last_change_set.as_deref();
    let seen = format!(
        "executed `{}`; named while it ran: {during}; afterwards: {}",
        done.change_set,
        named(after)
    );
    Ok(Seen::of(after == Some(done.change_set.as_str()), seen))
}

pub(super) async fn events_carry_the_token(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let text = bench.fresh();

    let done = bench.update(&life, &text).await?;

    let events = bench.engine.events(&life.id, None).await?;
    let begun = own(&events, &life)
        .filter(|e| e.status == "UPDATE_IN_PROGRESS")
        .last();
    Ok(match begun.map(|e| e.token.as_deref()) {
        Some(Some(token)) => {
            let seen = if token == done.token {
                "the beginning of the update has it"
            } else {
                "the beginning of the update has another one"
            };
            Seen::of(token == done.token, seen)
        }
        Some(None) => Seen::of(false, "the beginning of the update has none"),
        None => Seen::nothing("no event tells of the beginning of the update"),
    })
}

pub(super) async fn operations_are_told(bench: &mut Bench) -> Told {
    let life = bench.life().await?;

    let described = bench.look(&life.id).await?.operation;
    let line = bench.listed(&life.id).await?;

    let kinds = kinds(bench, &life).await;
    let Some(line) = line else {
        return Ok(Seen::nothing(format!("the stack is not listed{kinds}")));
    };
    let held = described.is_some() && described == line.operation;
    let seen = match (&described, &line.operation) {
        (Some(_), Some(_)) if held => "both tell the same",
        (Some(_), Some(_)) => "they tell two operations",
        (Some(_), None) => "only the description tells it",
        (None, Some(_)) => "only the listing tells it",
        (None, None) => "neither tells it, so that only its time marks a change",
    };
    Ok(Seen::of(held, format!("{seen}{kinds}")))
}

pub(super) async fn the_newest_stands_first(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let before = bench.look(&life.id).await?.operation;
    let text = bench.fresh();

    let after = bench.update(&life, &text).await?.stack.operation;

    let kinds = kinds(bench, &life).await;
    Ok(match (before, after) {
        (Some(before), Some(after)) if before != after => Seen::of(
            true,
            format!("after an update another operation stands first{kinds}"),
        ),
        (Some(_), Some(_)) => Seen::of(
            false,
            format!("after an update the operation from before it still stands first{kinds}"),
        ),
        _ => Seen::nothing(format!("no operations are told{kinds}")),
    })
}

pub(super) async fn a_change_set_moves_nothing(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let described = bench.look(&life.id).await?.watermark();
    let listed = bench.listed(&life.id).await?;
    let text = bench.fresh();

    let asked = bench.proposal(&life.name, &text).await?;
    let (proposed, _) = bench.propose(&asked).await?;
    let made = bench.look(&life.id).await?.watermark();
    let relisted = bench.listed(&life.id).await?;
    bench.engine.discard(&proposed.change_set).await?;
    let discarded = bench.look(&life.id).await?.watermark();

    let mut moved = Vec::new();
    for (what, is) in [
        ("making one moves the description", made != described),
        ("making one moves the listing", relisted != listed),
        (
            "discarding one moves the description",
            discarded != described,
        ),
    ] {
        moved.extend(is.then_some(what));
    }
    let kinds = kinds(bench, &life).await;
    Ok(if moved.is_empty() {
        Seen::of(true, format!("nothing has moved{kinds}"))
    } else {
        Seen::of(false, format!("{}{kinds}", moved.join(", ")))
    })
}

pub(super) async fn one_token_is_one_execution(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let before = bench.look(&life.id).await?;
    let known = bench.engine.events(&life.id, None).await?;
    let text = bench.fresh();
    let asked = bench.proposal(&life.name, &text).await?;
    let (proposed, read) = bench.propose(&asked).await?;
    if read.status != ChangeSetStatus::Available {
        return Ok(Seen::nothing("there is no change set to execute"));
    }
    let token = format!("{}-x", asked.token);
    bench.engine.execute(&proposed.change_set, &token).await?;

    let again = bench.engine.execute(&proposed.change_set, &token).await;

    bench.rest(&life.id, &before).await?;
    let last = known.last().map(|e| e.id.as_str());
    let events = bench.engine.events(&life.id, last).await?;
    let begun = own(&events, &life).filter(|e| e.status == "UPDATE_IN_PROGRESS");
    let answer = match again {
        Ok(()) => "it is taken".to_owned(),
        Err(error) => error.to_string(),
    };
    let times = begun.count();
    let seen = format!("the answer to the second call: {answer}; updates that began: {times}");
    Ok(match times {
        0 => Seen::nothing(seen),
        times => Seen::of(times == 1, seen),
    })
}

pub(super) async fn a_failed_update_is_named(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let text = bench.failing();

    let done = bench.update(&life, &text).await?;

    let why = bench.why(&done.stack).await;
    if done.stack.status == StackStatus::UpdateComplete {
        return Ok(Seen::nothing("the update that was to fail did not"));
    }
    let name = done.stack.last_change_set.as_deref();
    let held = done.stack.status == StackStatus::UpdateRollbackComplete
        && name == Some(done.change_set.as_str());
    let seen = format!(
        "executed `{}`; named afterwards: {}; {why}",
        done.change_set,
        named(name)
    );
    Ok(Seen::of(held, seen))
}

pub(super) async fn a_rollback_is_its_own(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let events = bench.engine.events(&life.id, None).await?;
    let last = |status: &str| events.iter().rfind(|e| e.status == status);
    let (Some(failed), Some(rolled)) = (
        last("UPDATE_ROLLBACK_IN_PROGRESS").and_then(|back| {
            let before = events.iter().take_while(|e| e.id != back.id);
            before.filter(|e| e.status.ends_with("_FAILED")).last()
        }),
        last("UPDATE_ROLLBACK_COMPLETE"),
    ) else {
        return Ok(Seen::nothing("no update has failed and was rolled back"));
    };
    Ok(match (&failed.operation, &rolled.operation) {
        (Some(one), Some(other)) if one != other => {
            Seen::of(true, "their events have two operation ids")
        }
        (Some(_), Some(_)) => Seen::of(false, "their events have one operation id"),
        _ => Seen::nothing("their events have no operation ids"),
    })
}
