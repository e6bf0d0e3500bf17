//! Versions of what templates refer to: asked for once, looked at again with every sweep.
//!
//! Only where a placement says `pin_references`. Nothing of it is kept beside the text that was deployed: after a start every
//! version is asked for anew, and one that is the same changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::sweep::Spot;
use super::{Error, Line, Shared, Snapshot};
use crate::domain::cfn::Reference;
use crate::domain::estate::{Rendering, Target};
use crate::domain::model::{Digest, Finding, Place, Span, TargetUid, canonical_json};
use crate::port::Told;

/// What is known of references.
#[derive(Debug, Default)]
pub(super) struct References {
    /// The version that each names, by account and region.
    versions: BTreeMap<Spot, BTreeMap<Reference, String>>,
    /// Who refers to what, as it was last rendered.
    of: BTreeMap<TargetUid, BTreeSet<Reference>>,
}

/// What is asked for in one place.
struct Asked {
    /// With whose hands.
    by: Arc<Target>,
    who: BTreeSet<TargetUid>,
    what: BTreeSet<Reference>,
}

impl Asked {
    fn by(by: Arc<Target>) -> Self {
        Self {
            by,
            who: BTreeSet::new(),
            what: BTreeSet::new(),
        }
    }
}

fn spot_of(target: &Target) -> Spot {
    (target.placement.account.clone(), target.region.clone())
}

impl References {
    fn known(&self, spot: &Spot, all: &BTreeSet<Reference>) -> BTreeMap<Reference, String> {
        let known = self.versions.get(spot);
        let one = |r: &Reference| Some((r.clone(), known?.get(r)?.clone()));
        all.iter().filter_map(one).collect()
    }

    fn unknown(&self, spot: &Spot, all: &BTreeSet<Reference>) -> BTreeSet<Reference> {
        let known = self.known(spot, all);
        let unknown = all.iter().filter(|r| !known.contains_key(*r));
        unknown.cloned().collect()
    }
}

impl Shared {
    /// Returns the digest of the versions that a target was last rendered with, where it is pinned to any.
    pub(super) fn versions_of(&self, snapshot: &Snapshot, target: &Target) -> Option<Digest> {
        let uid = snapshot.uids.get(&target.address)?;
        let all = self.references.of.get(uid)?;
        let known = self.references.known(&spot_of(target), all);
        let known: BTreeMap<String, String> =
            known.into_iter().map(|(r, v)| (r.to_string(), v)).collect();
        Some(Digest::of("v1", &canonical_json(&json!(known))))
    }

    /// Notes what a target refers to, and pins what is known. Returns what is not.
    pub(super) fn pin_known(
        &mut self,
        uid: &TargetUid,
        target: &Target,
        rendering: &mut Rendering,
    ) -> BTreeSet<Reference> {
        if !target.placement.pin_references || rendering.references.is_empty() {
            self.references.of.remove(uid);
            return BTreeSet::new();
        }
        let all = &rendering.references;
        self.references.of.insert(uid.clone(), all.clone());
        let unknown = self.references.unknown(&spot_of(target), all);
        self.pin_as_known(target, rendering);
        unknown
    }

    /// Pins what is known, for a rendering that is only looked at.
    pub(super) fn pin_as_known(&self, target: &Target, rendering: &mut Rendering) {
        let known = self
            .references
            .known(&spot_of(target), &rendering.references);
        rendering.pin(&known);
    }

    /// Takes in what a place has now, and returns whose versions are other ones. Of what cannot be told, what was known stays.
    fn reread(&mut self, spot: &Spot, told: Told, who: &BTreeSet<TargetUid>) -> Vec<TargetUid> {
        let before = self.references.versions.get(spot);
        let mut found = BTreeMap::new();
        for (reference, version) in told {
            let version = version.inspect_err(|error| {
                tracing::warn!(
                    "{reference} cannot be looked at: {error}; whoever refers to it stays as it is"
                );
            });
            let known = || before.and_then(|b| b.get(&reference)).cloned();
            if let Some(version) = version.ok().or_else(known) {
                found.insert(reference, version);
            }
        }
        let changed = |r: &&Reference| before.and_then(|b| b.get(*r)) != found.get(*r);
        let concerns = |uid: &&TargetUid| {
            let all = self.references.of.get(*uid);
            all.is_some_and(|all| all.iter().any(|r| changed(&r)))
        };
        let concerned = who.iter().filter(concerns).cloned().collect();
        self.references.versions.insert(spot.clone(), found);
        concerned
    }
}

impl Line {
    /// Pins the references of a rendering; what is not known is asked for. Fails where there is no such value.
    pub(super) async fn pin_references(
        &self,
        uid: &TargetUid,
        target: &Target,
        rendering: &mut Rendering,
    ) -> Result<Result<(), Vec<Finding>>, Error> {
        let unknown = self.shared().pin_known(uid, target, rendering);
        if unknown.is_empty() {
            return Ok(Ok(()));
        }
        let versions = self.ports.versions(&target.placement, &target.region)?;
        let mut found = BTreeMap::new();
        for (reference, version) in versions.versions(&unknown).await? {
            found.insert(reference, version?);
        }
        let missing = {
            let mut shared = self.shared();
            let known = shared.references.versions.entry(spot_of(target));
            known.or_default().extend(found);
            shared.pin_known(uid, target, rendering)
        };
        let faults: Vec<Finding> = missing
            .iter()
            .map(|r| is_missing(target, rendering, r))
            .collect();
        Ok(if faults.is_empty() {
            Ok(())
        } else {
            Err(faults)
        })
    }

    /// Looks again at every version that somebody is pinned to, and wakes those for whom it is another one. A place that does
    /// not answer leaves what was known of it.
    pub(super) async fn reread_references(&self) {
        let Some(newest) = self.newest() else {
            return;
        };
        let mut places: BTreeMap<Spot, Asked> = BTreeMap::new();
        {
            let mut shared = self.shared();
            let asked: BTreeMap<&TargetUid, &Arc<Target>> = newest
                .uids
                .iter()
                .filter_map(|(address, uid)| Some((uid, newest.compiled.targets.get(address)?)))
                .collect();
            shared
                .references
                .of
                .retain(|uid, _| asked.contains_key(uid));
            for (uid, all) in &shared.references.of {
                let target = asked[uid];
                let place = places
                    .entry(spot_of(target))
                    .or_insert_with(|| Asked::by(target.clone()));
                place.who.insert(uid.clone());
                place.what.extend(all.iter().cloned());
            }
        }
        for (spot, Asked { by, who, what }) in places {
            let found = match self.ports.versions(&by.placement, &by.region) {
                Ok(versions) => versions.versions(&what).await,
                Err(error) => Err(error),
            };
            let (account, region) = &spot;
            let concerned = match found {
                Ok(told) => self.shared().reread(&spot, told, &who),
                Err(error) => {
                    tracing::warn!(
                        "the versions of what templates refer to in {account}, {region} cannot be read: {error}"
                    );
                    continue;
                }
            };
            for uid in concerned {
                tracing::info!(target.id = %uid, "something that its template refers to has another version");
                self.shared().stir(&uid);
                self.enqueue(&uid, Duration::ZERO);
            }
        }
    }
}

/// Says that a value is not there, at the line that asks for it where that can be told.
fn is_missing(target: &Target, rendering: &Rendering, reference: &Reference) -> Finding {
    let (file, text) = &rendering.file;
    let line = text.lines().position(|l| l.contains(&reference.name));
    let place = match line {
        Some(at) => {
            let line = text.lines().nth(at).unwrap_or_default();
            let column = line.find(&reference.name).unwrap_or_default();
            let column = line[..column].chars().count() as u32 + 1;
            let width = reference.name.chars().count() as u32;
            Place::at(
                file.clone(),
                Span::on_line(at as u32 + 1, column, width),
                text,
            )
        }
        None => target.made_by.clone(),
    };
    let mut fault = Finding::error(
        "cfn.reference",
        place,
        format!(
            "there is no {reference} in {} of the account {}",
            target.region, target.placement.account
        ),
    );
    fault.help = Some(
        "make it there, or leave out `pin_references` of the placement; the next look or sweep finds it"
            .into(),
    );
    fault
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port;

    #[test]
    fn who_refers_to_what_is_another_version_is_concerned() {
        let uid = |n: char| -> TargetUid { n.to_string().repeat(32).parse().unwrap() };
        let reference = |text: &str| -> Reference { text.parse().unwrap() };
        let spot: Spot = (
            "000000000001".parse().unwrap(),
            "us-east-1".parse().unwrap(),
        );
        let found = |all: &[(&str, &str)]| -> Told {
            let one = |(r, v): &(&str, &str)| {
                let denied = || Err(port::Error::Denied("no".into()));
                let version = match *v {
                    "denied" => denied(),
                    version => Ok(version.to_owned()),
                };
                (reference(r), version)
            };
            all.iter().map(one).collect()
        };
        let mut shared = Shared::default();
        let of = &mut shared.references.of;
        of.insert(uid('a'), [reference("ssm:x")].into());
        of.insert(uid('b'), [reference("ssm:x"), reference("ssm:y")].into());
        of.insert(uid('c'), [reference("ssm:z")].into());
        let who: BTreeSet<TargetUid> = ['a', 'b', 'c'].map(uid).into();

        let mut reread = |all: &[(&str, &str)]| shared.reread(&spot, found(all), &who);

        assert_eq!(
            reread(&[("ssm:x", "1"), ("ssm:y", "1")]),
            [uid('a'), uid('b')]
        );
        assert!(reread(&[("ssm:x", "1"), ("ssm:y", "1")]).is_empty());
        assert_eq!(reread(&[("ssm:x", "1"), ("ssm:y", "2")]), [uid('b')]);
        // One that may not be read stays as it was, and hides no other.
        assert!(reread(&[("ssm:x", "denied"), ("ssm:y", "2")]).is_empty());
        assert_eq!(reread(&[("ssm:x", "denied"), ("ssm:y", "3")]), [uid('b')]);
        assert_eq!(reread(&[("ssm:x", "1"), ("ssm:y", "2")]), [uid('b')]);
        // Gone is another one too.
        assert_eq!(reread(&[("ssm:y", "2")]), [uid('a'), uid('b')]);
        assert_eq!(
            reread(&[("ssm:y", "2"), ("ssm:z", "1")]),
            [uid('c')],
            "made at last"
        );
    }
}
