//! `isoform doctor --probe`: tries in an account what isoform assumes of CloudFormation and of the bundle store.
//!
//! Throw-away stacks with nothing in them that costs or lasts; all of them are deleted at the end, whatever came before. `bench` makes
//! and deletes, `change_sets`, `operations` and `lives` have the assumptions, one function each. Nothing here judges a configuration: that
//! is the doctor's.

mod bench;
mod change_sets;
mod lives;
mod operations;

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::bench::{Bench, Raw, Shelf};
use super::build::open_ports;
use super::cloud::{chain, opened, reach};
use crate::aws::{Aws, Place, Stacks};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::estate::Placement;
use crate::domain::model::{PlacementName, Region};
use crate::domain::pace::Urgency;
use crate::port::{Error, Ports};

/// What came of an assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Answer {
    /// It is so.
    #[serde(rename = "held")]
    Held,
    /// It is not so.
    #[serde(rename = "not held")]
    NotHeld,
    /// Something stood in the way, and `seen` says what.
    #[serde(rename = "could not be told")]
    Unknown,
}

/// An assumption, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What isoform assumes.
    pub assumption: &'static str,
    /// What came of it.
    pub answer: Answer,
    /// What was seen.
    pub seen: String,
}

/// What came of a whole probe.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The findings, in the order in which they were made.
    pub findings: Vec<Finding>,
    /// Stacks and objects that could not be deleted, each with why.
    pub left: Vec<String>,
    /// Whether somebody stopped it.
    pub stopped: bool,
}

/// What a function saw of its assumption.
struct Seen(Answer, String);

impl Seen {
    fn of(held: bool, text: impl Into<String>) -> Self {
        let answer = if held { Answer::Held } else { Answer::NotHeld };
        Self(answer, text.into())
    }

    fn nothing(text: impl Into<String>) -> Self {
        Self(Answer::Unknown, text.into())
    }
}

/// What a function tells; an error means that nothing could be seen.
type Told = Result<Seen, Error>;
type Telling<'a> = Pin<Box<dyn Future<Output = Told> + Send + 'a>>;

struct Assumption {
    says: &'static str,
    tell: for<'a> fn(&'a mut Bench) -> Telling<'a>,
}

macro_rules! assumptions {
    ($($says:literal: $room:ident::$tell:ident;)*) => {
        /// In an order in which each finds what it needs: they share stacks, as making one takes a while.
        const ASSUMPTIONS: &[Assumption] = &[$(Assumption {
            says: $says,
            tell: |bench| Box::pin($room::$tell(bench)),
        }),*];
    };
}

assumptions! {
    "a put that asks for no object of its key is refused where there is one": change_sets::one_put_wins;
    "CloudFormation reads the version of a template that its URL names": change_sets::the_named_version_is_read;
    "the template of a change set reads back as it was sent": change_sets::ascii_reads_back;
    "what is not ASCII in a template reads back as question marks": change_sets::the_rest_reads_back_as_marks;
    "a stack that has nothing but a change set is in REVIEW_IN_PROGRESS": change_sets::a_shell_comes_first;
    "the same call twice, by its token, is one change set": change_sets::one_token_is_one_change_set;
    "a stack names the change set that was executed last": operations::the_change_set_is_named;
    "events of an execution carry its token": operations::events_carry_the_token;
    "stacks are described and listed with their newest operation": operations::operations_are_told;
    "the newest operation stands first": operations::the_newest_stands_first;
    "making or discarding a change set does not move a stack's watermark": operations::a_change_set_moves_nothing;
    "a change set without changes fails with one of two texts": change_sets::nothing_to_change_is_said;
    "an execution that is asked for twice with one token happens once": operations::one_token_is_one_execution;
    "executing a change set makes the others of its stack unusable": change_sets::others_are_unusable;
    "other tags alone are a change": change_sets::tags_are_a_change;
    "an empty list of tags takes away what was there": change_sets::empty_tags_take_away;
    "with a transform too, a change set without changes fails with one of two texts": change_sets::a_transform_has_its_text;
    "an update that fails is rolled back, and its change set stays named": operations::a_failed_update_is_named;
    "an update that fails and its rollback are two operations": operations::a_rollback_is_its_own;
    "a stack policy reads back as it was set, and refuses an update": lives::a_policy_refuses;
    "a parameter with NoEcho reads as four stars": lives::secrets_are_stars;
    "a protected stack is not deleted": lives::protection_holds;
    "a deleted stack is absent by name and DELETE_COMPLETE by ARN": lives::by_arn_the_gone_are_seen;
    "a first creation that fails leaves no stack, and its events are read by ARN": lives::a_failed_creation_goes;
    "a change set that says nothing of tags, topics and alarms keeps them": lives::silence_keeps;
    "an empty list of topics takes away what was there": lives::empty_topics_take_away;
}

/// The account and region of a probe.
#[derive(Clone, Debug)]
pub struct Spot {
    placement: Placement,
    region: Region,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Placement { name, account, .. } = &self.placement;
        write!(
            f,
            "the account {account} in {}, by the placement {name}",
            self.region
        )
    }
}

/// Finds what `<placement>[@region]` names. The error says what to write.
pub fn spot(config: &Config, text: &str) -> Result<Spot, String> {
    let (name, region) = match text.split_once('@') {
        Some((name, region)) => (name, Some(region)),
        None => (text, None),
    };
    let known: Vec<&str> = config
        .placements
        .keys()
        .map(PlacementName::as_str)
        .collect();
    let found = config.placements.values().find(|p| p.name.as_str() == name);
    let Some(placement) = found else {
        return Err(format!(
            "the configuration has no placement `{name}`; it has {}",
            known.join(", ")
        ));
    };
    let regions: Vec<&str> = placement.regions.iter().map(Region::as_str).collect();
    let region = match (region, placement.regions.as_slice()) {
        (Some(region), all) => all.iter().find(|r| r.as_str() == region),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    match region {
        Some(region) => Ok(Spot {
            placement: placement.clone(),
            region: region.clone(),
        }),
        None => Err(format!(
            "the placement {name} is in {}: write `--probe {name}@<region>` with one of them",
            regions.join(", ")
        )),
    }
}

/// A probe that has made nothing yet.
pub struct Probe {
    bench: Bench,
    stop: CancellationToken,
}

impl Probe {
    /// Opens what the probe works with. On AWS that is the role `apply` of the placement, whatever its mode: nothing else may execute.
    pub async fn open(
        config: &Config,
        spot: &Spot,
        clock: &Clock,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let Spot { placement, region } = spot;
        let bench = match &config.aws {
            None => {
                let (_, ports) = open_ports(config, clock).await?;
                let engine = ports.engine(placement, region)?;
                let store = Shelf::Any(ports.store(placement, region)?);
                Bench::new(engine, store, None, clock, stop.clone())
            }
            Some(aws) => {
                let reached = Aws::connect(reach(aws)).await;
                let hands = aws.hands.get(&placement.name).cloned().unwrap_or_default();
                let roles = chain(aws, hands.apply.as_ref());
                let session = reached.session(region, &roles).await;
                let place = Place {
                    account: placement.account.clone(),
                    service_role: hands.cloudformation.clone(),
                };
                let stacks = Stacks::new(session.clone(), place, clock.clone());
                let store = aws
                    .serves
                    .get(&(placement.name.clone(), region.clone()))
                    .with_context(|| format!("no bundle store serves {}", placement.name))?;
                let store = Shelf::S3(Arc::new(opened(&reached, aws, &aws.stores[store]).await));
                let raw = Raw {
                    session,
                    service_role: hands.cloudformation,
                };
                let engine = Arc::new(stacks.at(Urgency::Run));
                Bench::new(engine, store, Some(raw), clock, stop.clone())
            }
        };
        Ok(Self { bench, stop })
    }

    /// Returns how the names of everything that it makes begin.
    pub fn prefix(&self) -> &str {
        &self.bench.prefix
    }

    /// Tries every assumption and deletes what it made. Stopping it skips what was not tried, never the deleting.
    pub async fn run(mut self, tell: &mut (dyn FnMut(&Finding) + Send)) -> Outcome {
        let mut findings = Vec::new();
        for Assumption { says, tell: ask } in ASSUMPTIONS {
            if self.stop.is_cancelled() {
                break;
            }
            let Seen(answer, seen) = match ask(&mut self.bench).await {
                Ok(seen) => seen,
                Err(error) => Seen::nothing(error.to_string()),
            };
            let finding = Finding {
                assumption: says,
                answer,
                seen,
            };
            tell(&finding);
            findings.push(finding);
        }
        let stopped = self.stop.is_cancelled();
        Outcome {
            findings,
            left: self.bench.clear().await,
            stopped,
        }
    }
}
