//! `isoform local`: hands for the embedded engine's world.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::config_path;
use super::show;
use super::{DONE, Global, Output, usage};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::cfn::Reference;
use crate::domain::model::parse_duration;
use crate::domain::plan::{Observed, StatusClass};
use crate::local::{ByHand, Failure, Faults, LocalEngine, LocalVersions, Phase, World};
use crate::port::{Error, StackEngine, StackRef};

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
    /// Continue a rollback that failed.
    Continue {
        /// The stack's name or ARN.
        stack: String,
        /// The logical id of a resource that the rollback leaves as it is; can be given several times.
        #[arg(long, value_name = "LOGICAL ID")]
        skip: Vec<String>,
    },
    /// Take back an update that runs.
    Cancel {
        /// The stack's name or ARN.
        stack: String,
    },
    /// Delete a stack by hand.
    Delete {
        /// The stack's name or ARN.
        stack: String,
        /// The logical id of a resource that stays; only after a deletion has failed, and can be given several times.
        #[arg(long, value_name = "LOGICAL ID")]
        retain: Vec<String>,
    },
    /// Protect a stack against deletion.
    Protect {
        /// The stack's name or ARN.
        stack: String,
    },
    /// Take the protection against deletion off a stack.
    Unprotect {
        /// The stack's name or ARN.
        stack: String,
    },
    /// Give a value that templates refer to another version, the first where there is none.
    Rotate {
        /// The placement in whose account and regions it lies.
        placement: String,
        /// What it is: `ssm:…`, `ssm-secure:…` or `secretsmanager:…`, with its name.
        reference: Reference,
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
    /// Glob of calls that nobody may make.
    #[arg(long, value_name = "CALL")]
    deny: Vec<String>,
    /// How long each call takes.
    #[arg(long)]
    delay: Option<String>,
    /// How much longer a change set takes to be made.
    #[arg(long)]
    making: Option<String>,
    /// Glob of logical ids whose property values change sets do not show.
    #[arg(long, value_name = "GLOB")]
    withhold: Vec<String>,
    /// Let types need a capability that no template shows.
    #[arg(long, value_name = "TYPE=CAPABILITY")]
    needs: Vec<String>,
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
    if !arguments.deny.is_empty() {
        faults.deny = arguments.deny;
    }
    for one in &arguments.needs {
        let (kind, capability) = one.split_once('=').with_context(|| {
            format!("`{one}` is not TYPE=CAPABILITY, such as AWS::SNS::*=CAPABILITY_IAM")
        })?;
        faults.needs.insert(kind.to_owned(), capability.to_owned());
    }
    if let Some(page) = arguments.page {
        if page == 0 {
            return Err(usage("a page has at least one item"));
        }
        faults.page = Some(page);
    }
    Ok(faults)
}

/// What somebody does who has moved a stuck stack.
const AFTER: &str =
    "next  isoform retry <target>, which asks whether what you did by hand shall stand";

/// Says what was done, once.
fn said(global: &Global, text: &str) -> anyhow::Result<()> {
    if global.output == Output::Json {
        let first = text.lines().next().unwrap_or_default();
        return show::json(&serde_json::json!({ "said": first }));
    }
    anstream::println!("{text}");
    Ok(())
}

fn place(stack: &Observed) -> String {
    match stack.stack_id.region() {
        Some(region) => format!("{} in {region}", stack.name),
        None => stack.name.to_string(),
    }
}

/// Each operation by hand is one of its own: none is a repeat of another.
fn token() -> String {
    format!("by-hand-{}", uuid::Uuid::now_v7())
}

/// Finds the one stack of a name, or of an ARN, among the accounts and regions of all placements.
async fn find(
    world: &World,
    config: &Config,
    stack: &str,
) -> anyhow::Result<(LocalEngine, Observed)> {
    let asked = match stack.parse() {
        Ok(id) => StackRef::Id(id),
        Err(_) => StackRef::Name(stack.parse().map_err(|e| usage(format!("{e}")))?),
    };
    let places: BTreeSet<_> = config
        .placements
        .values()
        .flat_map(|p| p.regions.iter().map(|r| (p.account.clone(), r.clone())))
        .collect();
    let mut found = Vec::new();
    for (account, region) in places {
        let engine = LocalEngine::new(world.clone(), account.clone(), region.clone());
        let there = engine.describe(&asked).await?.filter(|s| {
            s.status.class() != StatusClass::Gone
                && s.stack_id.account().as_ref() == Some(&account)
                && s.stack_id.region().as_ref() == Some(&region)
        });
        found.extend(there.map(|s| (engine, s)));
    }
    if found.len() > 1 {
        let all: Vec<String> = found.iter().map(|(_, s)| s.stack_id.to_string()).collect();
        return Err(usage(format!(
            "`{stack}` means several stacks: name one by its ARN, {}",
            all.join(" or ")
        )));
    }
    found.pop().ok_or_else(|| {
        usage(format!(
            "there is no stack `{stack}`: `isoform targets` lists their names"
        ))
    })
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
    if config.aws.is_some() {
        anyhow::bail!("this installation is on AWS; `isoform local` is about the embedded engine");
    }
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
            said(global, "the next operation on it fails")?;
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
            said(global, "it works again")?;
        }
        LocalCommand::Meddle { stack } => {
            let (engine, found) = find(&world, &config, &stack).await?;
            engine.meddle(&found.name).await?;
            said(global, &format!("updated {} by hand", place(&found)))?;
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
            let (engine, found) = find(&world, &config, &stack).await?;
            match engine.by_hand(&found.name, &resource, &change).await {
                Err(Error::NotFound(_)) => {
                    return Err(usage(format!("`{stack}` has no resource `{resource}`")));
                }
                done => done?,
            }
            said(
                global,
                &format!("changed {resource} of {} by hand", place(&found)),
            )?;
        }
        LocalCommand::Continue { stack, skip } => {
            let (engine, found) = find(&world, &config, &stack).await?;
            engine
                .continue_rollback(&found.stack_id, &token(), &skip)
                .await?;
            said(
                global,
                &format!("the rollback of {} goes on\n{AFTER}", place(&found)),
            )?;
        }
        LocalCommand::Cancel { stack } => {
            let (engine, found) = find(&world, &config, &stack).await?;
            engine.cancel(&found.stack_id, &token()).await?;
            said(
                global,
                &format!("the update of {} is taken back", place(&found)),
            )?;
        }
        LocalCommand::Delete { stack, retain } => {
            let (engine, found) = find(&world, &config, &stack).await?;
            if found.termination_protection {
                bail!(
                    "{stack} is protected against deletion; to take that off: isoform local unprotect {stack}"
                );
            }
            engine.delete(&found.stack_id, &token(), &retain).await?;
            said(
                global,
                &format!("{} is being deleted\n{AFTER}", place(&found)),
            )?;
        }
        LocalCommand::Protect { stack } => {
            let (engine, found) = find(&world, &config, &stack).await?;
            engine.set_protection(&found.stack_id, true).await?;
            said(
                global,
                &format!("{} is protected against deletion", place(&found)),
            )?;
        }
        LocalCommand::Unprotect { stack } => {
            let (engine, found) = find(&world, &config, &stack).await?;
            engine.set_protection(&found.stack_id, false).await?;
            said(global, &format!("{} can be deleted", place(&found)))?;
        }
        LocalCommand::Rotate {
            placement,
            reference,
        } => {
            let named = config.placements.values();
            let mut named = named.filter(|p| p.name.as_str() == placement);
            let Some(placement) = named.next() else {
                return Err(usage(format!("there is no placement `{placement}`")));
            };
            for region in &placement.regions {
                let values =
                    LocalVersions::new(world.clone(), placement.account.clone(), region.clone());
                let version = values.rotate(&reference).await?;
                said(
                    global,
                    &format!(
                        "{reference} in {region} of {} has version {version}",
                        placement.account
                    ),
                )?;
            }
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
