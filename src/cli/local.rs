//! `isoform local`: hands for the embedded engine's world.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::config_path;
use super::show;
use super::{DONE, Global, Output, usage};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::model::parse_duration;
use crate::local::{ByHand, Failure, Faults, LocalEngine, Phase, World};

#[derive(Subcommand)]
pub(crate) enum LocalCommand {
    /// Let the next operations on a resource fail.
    Fail {
        /// Glob of the stack's name.
        stack: String,
        /// The resource's logical id.
        resource: String,
        /// The reason that its event will show.
        #[arg(
            long,
            default_value = "Resource handler returned message: \"insufficient capacity\""
        )]
        reason: String,
        /// How many times; absent means until `local heal`.
        #[arg(long)]
        times: Option<u32>,
        /// During what: make, delete or rollback.
        #[arg(long, default_value = "make")]
        on: Phase,
    },
    /// Let a resource work again.
    Heal {
        /// Glob of the stack's name, as it was given.
        stack: String,
        /// The resource's logical id.
        resource: String,
        /// During what: make, delete or rollback.
        #[arg(long, default_value = "make")]
        on: Phase,
    },
    /// Update a stack behind isoform's back.
    Meddle {
        /// The stack's name.
        stack: String,
    },
    /// Change a resource by hand, so that it drifts from what its stack says.
    Change {
        /// The stack's name.
        stack: String,
        /// The resource's logical id.
        resource: String,
        /// A property and its value, as JSON or text; `null` takes it away.
        #[arg(long, value_name = "NAME=VALUE", required_unless_present_any = ["delete", "restore"])]
        set: Vec<String>,
        /// Delete it.
        #[arg(long, conflicts_with = "set")]
        delete: bool,
        /// Put it back as its stack says.
        #[arg(long, conflicts_with_all = ["set", "delete"])]
        restore: bool,
    },
    /// Show how the world misbehaves, and let it.
    Faults(FaultArgs),
    /// Print how often each call was made.
    Calls,
}

/// Arguments of `local faults`. What is not named stays as it is.
#[derive(Args)]
pub(crate) struct FaultArgs {
    /// For how long after an operation began its stack reads as before, such as `2s`.
    #[arg(long)]
    stale: Option<String>,
    /// Throttle every n-th call of a kind; 0 takes it back.
    #[arg(long, value_name = "CALL=N")]
    throttle: Vec<String>,
    /// How long each call takes.
    #[arg(long)]
    delay: Option<String>,
    /// How much longer a change set takes to be made.
    #[arg(long)]
    making: Option<String>,
    /// Glob of logical ids whose property values change sets do not show.
    #[arg(long, value_name = "GLOB")]
    withhold: Vec<String>,
    /// Items on a page of a listing.
    #[arg(long)]
    page: Option<usize>,
    /// Let the world work well again.
    #[arg(long)]
    off: bool,
}

fn assignments(all: &[String]) -> anyhow::Result<serde_json::Map<String, Value>> {
    all.iter()
        .map(|one| {
            let (name, value) = one
                .split_once('=')
                .with_context(|| format!("`{one}` is not NAME=VALUE"))?;
            let value =
                serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((name.to_owned(), value))
        })
        .collect()
}

fn misbehaviour(before: Faults, arguments: FaultArgs) -> anyhow::Result<Faults> {
    let mut faults = if arguments.off {
        Faults::default()
    } else {
        before
    };
    let ms = |text: &str| -> anyhow::Result<u64> {
        let time = parse_duration(text).map_err(anyhow::Error::msg)?;
        Ok(u64::try_from(time.as_millis())?)
    };
    if let Some(text) = &arguments.stale {
        faults.stale_ms = ms(text)?;
    }
    if let Some(text) = &arguments.delay {
        faults.delay_ms = ms(text)?;
    }
    if let Some(text) = &arguments.making {
        faults.making_ms = ms(text)?;
    }
    for one in &arguments.throttle {
        let (call, every) = one
            .split_once('=')
            .and_then(|(call, n)| Some((call, n.parse::<u64>().ok()?)))
            .with_context(|| format!("`{one}` is not CALL=N, such as DescribeStacks=5"))?;
        match every {
            0 => faults.throttle.remove(call),
            n => faults.throttle.insert(call.to_owned(), n),
        };
    }
    if !arguments.withhold.is_empty() {
        faults.withhold = arguments.withhold;
    }
    if let Some(page) = arguments.page {
        if page == 0 {
            return Err(usage("a page has at least one item"));
        }
        faults.page = Some(page);
    }
    Ok(faults)
}

/// `isoform local`
pub(crate) async fn local(global: &Global, command: LocalCommand) -> anyhow::Result<u8> {
    let config = match &global.config {
        Some(path) => Config::load(path)?,
        None => {
            let socket = super::client::socket_path(global)?;
            let near = socket
                .parent()
                .and_then(Path::parent)
                .map(|f| f.join("config.yaml"))
                .filter(|p| p.exists());
            Config::load(&near.unwrap_or_else(|| config_path(global)))?
        }
    };
    let world = World::open(&config.cloud, Clock::system(), config.pace).await?;
    match command {
        LocalCommand::Fail {
            stack,
            resource,
            reason,
            times,
            on,
        } => {
            world
                .script(&Failure {
                    stack,
                    logical: resource,
                    reason,
                    times,
                    phase: on,
                })
                .await?;
            anstream::println!("the next operation on it fails");
        }
        LocalCommand::Heal {
            stack,
            resource,
            on,
        } => {
            world
                .script(&Failure {
                    stack,
                    logical: resource,
                    reason: String::new(),
                    times: None,
                    phase: on,
                })
                .await?;
            anstream::println!("it works again");
        }
        LocalCommand::Meddle { stack } => {
            let name = stack.parse()?;
            for placement in config.placements.values() {
                for region in &placement.regions {
                    let engine =
                        LocalEngine::new(world.clone(), placement.account.clone(), region.clone());
                    if engine.meddle(&name).await.is_ok() {
                        anstream::println!("changed {stack} by hand in {region}");
                        return Ok(DONE);
                    }
                }
            }
            return Err(usage(format!("there is no stack `{stack}`")));
        }
        LocalCommand::Change {
            stack,
            resource,
            set,
            delete,
            restore,
        } => {
            let change = match (delete, restore) {
                (true, _) => ByHand::Delete,
                (_, true) => ByHand::Restore,
                _ => ByHand::Set(assignments(&set)?),
            };
            let name = stack.parse()?;
            for placement in config.placements.values() {
                for region in &placement.regions {
                    let engine =
                        LocalEngine::new(world.clone(), placement.account.clone(), region.clone());
                    if engine.by_hand(&name, &resource, &change).await.is_ok() {
                        anstream::println!("changed {resource} of {stack} by hand in {region}");
                        return Ok(DONE);
                    }
                }
            }
            return Err(usage(format!(
                "there is no stack `{stack}` with a resource `{resource}`"
            )));
        }
        LocalCommand::Faults(arguments) => {
            let faults = misbehaviour(world.faults().await?, arguments)?;
            world.misbehave(&faults).await?;
            show::json(&faults)?;
        }
        LocalCommand::Calls => {
            let calls: BTreeMap<String, i64> = world.calls().await?.into_iter().collect();
            if global.output == Output::Json {
                show::json(&serde_json::json!({ "calls": calls }))?;
            } else {
                for (operation, count) in calls {
                    anstream::println!("{count:>8}  {operation}");
                }
            }
        }
    }
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        faults: FaultArgs,
    }

    fn after(before: Faults, words: &[&str]) -> anyhow::Result<Faults> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(words)).unwrap();
        misbehaviour(before, line.faults)
    }

    #[test]
    fn faults_are_added_changed_and_taken_back() {
        let one = after(
            Faults::default(),
            &[
                "--stale",
                "2s",
                "--throttle",
                "Describe*=5",
                "--withhold",
                "Fn*",
            ],
        )
        .unwrap();
        assert_eq!((one.stale_ms, one.throttle["Describe*"]), (2_000, 5));
        let two = after(one, &["--delay", "50ms", "--throttle", "Describe*=0"]).unwrap();
        assert_eq!(
            (two.stale_ms, two.delay_ms, two.throttle.len()),
            (2_000, 50, 0)
        );
        assert_eq!(two.withhold, ["Fn*"]);

        assert_eq!(after(two, &["--off"]).unwrap(), Faults::default());
        for bad in [["--throttle", "x"], ["--stale", "soon"], ["--page", "0"]] {
            assert!(after(Faults::default(), &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_is_json_or_text() {
        let all = [
            "A=1".to_owned(),
            "B=x=y".into(),
            "C=null".into(),
            "D={\"e\":[2]}".into(),
        ];

        let read = Value::Object(assignments(&all).unwrap());

        assert_eq!(
            read,
            json!({ "A": 1, "B": "x=y", "C": null, "D": { "e": [2] } })
        );
        assert!(assignments(&["A".into()]).is_err());
    }
}
