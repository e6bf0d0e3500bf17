//! What a world can be told to do badly: answer late, answer with what was, refuse for too many calls, withhold values,
//! need capabilities that no template shows.
//!
//! Everything is off until an operator says otherwise (`isoform local faults`). The settings are a row of the world, so
//! they hold for every process that uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::world::{World, WorldError, get, put, remove};
use crate::domain::model::glob_matches;
use crate::port::Error;

/// How a world misbehaves.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// For how long after an operation began a stack reads as it was before, in milliseconds.
    pub stale_ms: u64,
    /// Glob of a call's name → every how many calls one is throttled.
    pub throttle: BTreeMap<String, u64>,
    /// Globs of calls that nobody may make.
    pub deny: Vec<String>,
    /// How long each call takes, in milliseconds.
    pub delay_ms: u64,
    /// How much longer a change set takes to be made, in milliseconds.
    pub making_ms: u64,
    /// Globs of logical ids whose property values change sets do not show.
    pub withhold: Vec<String>,
    /// What this world knows and no template shows: glob of a type → the capability that it needs.
    pub needs: BTreeMap<String, String>,
    /// Items on a page; absent for the service's own number.
    pub page: Option<usize>,
}

impl Faults {
    /// Tells whether the property values of a resource are withheld.
    pub(super) fn withholds(&self, logical: &str) -> bool {
        self.withhold.iter().any(|g| glob_matches(g, logical))
    }

    /// Returns the capability that a type needs beyond what a template shows.
    pub(super) fn need_of(&self, kind: &str) -> Option<String> {
        let found = self.needs.iter().find(|(glob, _)| glob_matches(glob, kind));
        found.map(|(_, capability)| capability.clone())
    }
}

impl World {
    /// Says how the world misbehaves.
    pub async fn faults(&self) -> Result<Faults, WorldError> {
        let mut tx = self.begin().await?;
        let found = get(&mut tx, "setting", "faults").await?;
        tx.commit().await?;
        Ok(found.unwrap_or_default())
    }

    /// Lets the world misbehave; the default lets it work well again.
    pub async fn misbehave(&self, faults: &Faults) -> Result<(), WorldError> {
        let mut tx = self.begin().await?;
        if *faults == Faults::default() {
            remove(&mut tx, "setting", "faults").await?;
        } else {
            put(&mut tx, "setting", "faults", "", faults).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Counts a call, and lets it be late or throttled as the settings say.
    pub(super) async fn call(&self, operation: &'static str) -> Result<Faults, Error> {
        let (count, faults) = self.count(operation).await?;
        let throttled = faults
            .throttle
            .iter()
            .any(|(glob, every)| glob_matches(glob, operation) && *every > 0 && count % every == 0);
        if faults.delay_ms > 0 {
            self.clock
                .sleep(Duration::from_millis(faults.delay_ms))
                .await;
        }
        if throttled {
            return Err(Error::Throttled);
        }
        if faults.deny.iter().any(|glob| glob_matches(glob, operation)) {
            return Err(Error::Denied(format!("{operation} is not allowed")));
        }
        Ok(faults)
    }
}
