//! Who stands in which wave: found by name, so that whoever waits for a wave does not walk the estate.

use std::collections::BTreeMap;

use super::{RolloutKey, StagePosition, Target};
use crate::domain::model::Address;

/// What makes targets of one wave belong together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Bond {
    /// A service, or what a target without one is named by.
    Owner(String),
    /// The name of a template, whatever its version.
    Template(String),
}

/// Targets of one kind that stand in one wave and belong together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WaveKey {
    rollout: RolloutKey,
    stage: usize,
    kind: &'static str,
    bond: Bond,
}

impl WaveKey {
    /// Tells whether they are the instances of one service, and not those of a template that services share.
    pub fn is_of_one_owner(&self) -> bool {
        matches!(self.bond, Bond::Owner(_))
    }
}

/// The waves of an estate.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Waves {
    members: BTreeMap<WaveKey, Vec<Address>>,
    /// Targets that stand in no wave, by kind and owner.
    outside: BTreeMap<(&'static str, String), Vec<Address>>,
}

impl Waves {
    /// Sorts targets into waves. They come in the order of their addresses.
    pub(super) fn of<'a>(targets: impl Iterator<Item = &'a Target>) -> Self {
        let mut waves = Self::default();
        for target in targets {
            let address = || target.address.clone();
            match &target.stage {
                Some(position) => {
                    for key in keys(target, position, position.stage) {
                        waves.members.entry(key).or_default().push(address());
                    }
                }
                None => {
                    let key = (target.address.kind(), owner(&target.address));
                    waves.outside.entry(key).or_default().push(address());
                }
            }
        }
        waves
    }

    /// Returns those of a wave of a target's rollout that share its service, and those that share its template.
    ///
    /// Both hold the target itself, where it stands in that wave, and whoever shares both is in both.
    pub fn peers(
        &self,
        target: &Target,
        stage: usize,
    ) -> impl Iterator<Item = (&WaveKey, &[Address])> {
        let keys = target
            .stage
            .iter()
            .flat_map(move |position| keys(target, position, stage));
        keys.filter_map(|key| self.members.get_key_value(&key))
            .map(|(key, members)| (key, &**members))
    }

    /// Returns those of the same kind and owner that stand in no wave.
    pub fn outside(&self, target: &Target) -> &[Address] {
        let key = (target.address.kind(), owner(&target.address));
        self.outside.get(&key).map_or(&[], |all| all)
    }
}

fn keys(
    target: &Target,
    position: &StagePosition,
    stage: usize,
) -> impl Iterator<Item = WaveKey> + use<> {
    let template = target.template().map(|t| {
        let name = t.version.split('@').next().unwrap_or_default();
        Bond::Template(name.to_owned())
    });
    let (rollout, kind) = (position.rollout.clone(), target.address.kind());
    let bonds = [Some(Bond::Owner(owner(&target.address))), template];
    bonds.into_iter().flatten().map(move |bond| WaveKey {
        rollout: rollout.clone(),
        stage,
        kind,
        bond,
    })
}

fn owner(address: &Address) -> String {
    address
        .service()
        .map_or_else(|| address.base().to_string(), str::to_owned)
}
