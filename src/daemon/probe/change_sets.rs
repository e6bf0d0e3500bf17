//! Assumptions about the bundle store, templates and change sets.

use super::bench::Bench;
use super::{Seen, Told};
use crate::domain::cfn::as_read_back;
use crate::domain::plan::{ChangeSetStatus, StackStatus};
use crate::port::{ChangeSet, Error, Put};

/// The stack of which nothing is executed.
const SHELL: &str = "shell";

fn said(read: &ChangeSet) -> String {
    match &read.reason {
        Some(reason) => format!("{:?}: {reason}", read.status),
        None => format!("{:?}", read.status),
    }
}

pub(super) async fn one_put_wins(bench: &mut Bench) -> Told {
    let key = bench.key();
    bench.put(&key, "first", &Put::default()).await?;

    Ok(match bench.put(&key, "second", &Put::default()).await {
        Err(Error::Exists(_)) => Seen::of(true, "the second put was refused"),
        Ok(_) => Seen::of(false, "the second put replaced the first"),
        Err(error) => Seen::nothing(error.to_string()),
    })
}

pub(super) async fn the_named_version_is_read(bench: &mut Bench) -> Told {
    let (first, second, key) = (bench.fresh(), bench.fresh(), bench.key());
    let Some(version) = bench.put(&key, &first, &Put::default()).await? else {
        return Ok(Seen::nothing("the bundle store keeps no versions"));
    };
    let over = Put {
        if_absent: false,
        ..Put::default()
    };
    bench.put(&key, &second, &over).await?;
    let name = bench.name(SHELL)?;
    let mut asked = bench.proposal(&name, &first).await?;
    asked.template_url = bench.store.objects().url(&key, Some(&version));
    let (proposed, _) = bench.propose(&asked).await?;

    let read = bench
        .engine
        .change_set_template(&proposed.change_set)
        .await?;

    Ok(if read == first {
        Seen::of(true, "the older version was read, as it was asked for")
    } else if read == second {
        Seen::of(
            false,
            "the newest version was read, and an older one asked for",
        )
    } else {
        Seen::nothing("the template reads back as neither of two versions")
    })
}

/// Sends a template and reads it back from its change set.
async fn sent_and_read(bench: &mut Bench, text: &str) -> Result<String, Error> {
    let name = bench.name(SHELL)?;
    let asked = bench.proposal(&name, text).await?;
    let (proposed, _) = bench.propose(&asked).await?;
    bench.engine.change_set_template(&proposed.change_set).await
}

/// The first lines that differ, for people.
fn difference(sent: &str, read: &str) -> String {
    let mut lines = sent.lines().zip(read.lines());
    match lines.find(|(sent, read)| sent != read) {
        Some((sent, read)) => format!("`{}` reads back as `{}`", sent.trim(), read.trim()),
        None => format!("{} bytes read back as {}", sent.len(), read.len()),
    }
}

pub(super) async fn ascii_reads_back(bench: &mut Bench) -> Told {
    let text = format!(
        "# a comment  \n\n{}Metadata:\n  Odd: \"a 'quote', a \\\\ and a tab:\\t.\"\n",
        bench.fresh()
    );

    let read = sent_and_read(bench, &text).await?;

    Ok(if read == text {
        Seen::of(true, format!("{} bytes came back as they were", text.len()))
    } else {
        Seen::of(false, difference(&text, &read))
    })
}

pub(super) async fn the_rest_reads_back_as_marks(bench: &mut Bench) -> Told {
    let text = format!("# grün 請\n{}", bench.fresh());

    let read = sent_and_read(bench, &text).await?;

    let seen = difference(&text, &read);
    Ok(if read == as_read_back(&text) {
        Seen::of(true, seen)
    } else if read == text {
        Seen::of(false, "every character came back as it was sent")
    } else {
        Seen::of(false, seen)
    })
}

pub(super) async fn a_shell_comes_first(bench: &mut Bench) -> Told {
    let (name, text) = (bench.name(SHELL)?, bench.fresh());
    let asked = bench.proposal(&name, &text).await?;

    let (proposed, _) = bench.propose(&asked).await?;

    let found = bench.look(&proposed.stack_id).await?;
    let held = found.status == StackStatus::ReviewInProgress;
    Ok(Seen::of(held, format!("it is in {}", found.status)))
}

pub(super) async fn one_token_is_one_change_set(bench: &mut Bench) -> Told {
    let (name, text) = (bench.name(SHELL)?, bench.fresh());
    let asked = bench.proposal(&name, &text).await?;
    let (first, _) = bench.propose(&asked).await?;

    let again = bench.propose_only(&asked).await;

    Ok(match again {
        Ok(again) if again == first => Seen::of(true, "both answers name the same change set"),
        Ok(_) => Seen::of(false, "the answers name two change sets"),
        Err(error) => Seen::of(false, format!("the answer to the second call: {error}")),
    })
}

pub(super) async fn nothing_to_change_is_said(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let text = bench.text(&life)?;
    let asked = bench.proposal(&life.name, &text).await?;

    let (_, read) = bench.propose(&asked).await?;

    let held = read.status == ChangeSetStatus::NoChanges;
    Ok(Seen::of(held, said(&read)))
}

pub(super) async fn a_transform_has_its_text(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let text = format!("Transform: AWS::LanguageExtensions\n{}", bench.fresh());
    let done = bench.update(&life, &text).await?;
    if bench.text(&life)? != text {
        let why = bench.why(&done.stack).await;
        return Ok(Seen::nothing(format!("no stack with a transform: {why}")));
    }
    let asked = bench.proposal(&life.name, &text).await?;

    let (_, read) = bench.propose(&asked).await?;

    let held = read.status == ChangeSetStatus::NoChanges;
    Ok(Seen::of(held, said(&read)))
}

pub(super) async fn others_are_unusable(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let (one, two) = (bench.fresh(), bench.fresh());
    let asked = bench.proposal(&life.name, &one).await?;
    let (first, read) = bench.propose(&asked).await?;
    if read.status != ChangeSetStatus::Available {
        return Ok(Seen::nothing(said(&read)));
    }

    bench.update(&life, &two).await?;

    Ok(match bench.engine.review(&first.change_set).await {
        Err(Error::NotFound(_)) => Seen::of(true, "the other one is gone"),
        Ok(read) => {
            let unusable = matches!(
                read.status,
                ChangeSetStatus::Obsolete | ChangeSetStatus::Deleted
            );
            Seen::of(unusable, format!("the other one is {}", said(&read)))
        }
        Err(error) => Seen::nothing(error.to_string()),
    })
}

const TAG: &str = "isoform-probe";

pub(super) async fn tags_are_a_change(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    let text = bench.text(&life)?;
    let mut asked = bench.proposal(&life.name, &text).await?;
    asked.tags.insert(TAG.into(), "a".into());
    let (proposed, read) = bench.propose(&asked).await?;
    if read.status != ChangeSetStatus::Available {
        return Ok(Seen::of(false, said(&read)));
    }

    let done = bench.execute(&asked, &proposed, &text).await?;

    let held = done.stack.tags.get(TAG).is_some_and(|v| v == "a");
    let seen = if held {
        "the stack has the tag"
    } else {
        "the change set was executed, and the stack has no such tag"
    };
    Ok(Seen::of(held, seen))
}

pub(super) async fn empty_tags_take_away(bench: &mut Bench) -> Told {
    let life = bench.life().await?;
    if !bench.look(&life.id).await?.tags.contains_key(TAG) {
        return Ok(Seen::nothing("the stack has no tag that could go"));
    }
    let text = bench.fresh();

    let done = bench.update(&life, &text).await?;

    let left: Vec<&str> = done.stack.tags.keys().map(String::as_str).collect();
    Ok(if left.is_empty() {
        Seen::of(true, "the tag has gone")
    } else {
        Seen::of(false, format!("the stack still has {}", left.join(", ")))
    })
}
