//! What a stack should be, and the names under which a change of it is proposed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::domain::cfn::NestedTemplates;
use crate::domain::model::{
    Digest, Generation, InstallationId, KeyedHasher, Prune, StackName, TargetUid, canonical_json,
    sha256_hex,
};

/// Everything that a snapshot asks of one stack.
#[derive(Clone, PartialEq, Debug)]
pub struct Desired {
    /// The stack's name.
    pub stack_name: StackName,
    /// The rendered template, byte for byte as it is sent.
    pub template: Arc<str>,
    /// Parameters.
    pub parameters: BTreeMap<String, String>,
    /// Names of parameters whose values must not be shown.
    pub secrets: Vec<String>,
    /// Tags, isoform's own among them.
    pub tags: BTreeMap<String, String>,
    /// Notification topics.
    pub notification_arns: Vec<String>,
    /// Alarms that roll back.
    pub rollback_triggers: Vec<String>,
    /// Minutes the alarms are watched.
    pub monitoring_minutes: u64,
    /// The stack policy's text.
    pub stack_policy: Option<String>,
    /// Protection against deletion.
    pub termination_protection: Option<bool>,
    /// What becomes of it when it is not asked for any more.
    pub prune: Option<Prune>,
    /// Capabilities to acknowledge.
    pub capabilities: Vec<String>,
    /// The most that may be acknowledged, where the options say: a limit and nothing of the stack, so that no digest has it.
    pub allowed: Option<Vec<String>>,
    /// Templates that lie below it, by the hash that stands for each in the text.
    pub nested: NestedTemplates,
    /// Outputs of other targets that the template really read, by `<address>.<output>`.
    pub consumed: BTreeMap<String, String>,
    /// The versions that dynamic references were pinned to, by reference: also those that stand in no text, because a
    /// parameter's type names them.
    pub versions: BTreeMap<String, String>,
}

/// The tags that say whose a stack is.
pub const OWNER_TAGS: [&str; 2] = ["isoform:owner", "isoform:target"];

/// Returns the tags that a stack of a target gets when isoform makes it.
pub fn owner_tags(installation: &InstallationId, uid: &TargetUid) -> BTreeMap<String, String> {
    let [owner, target] = OWNER_TAGS.map(str::to_owned);
    BTreeMap::from([(owner, installation.to_string()), (target, uid.to_string())])
}

impl Desired {
    /// Sets the tags that say whose the stack is: those of [`owner_tags`], or what a stack that was taken over had.
    pub fn own(&mut self, owner: &BTreeMap<String, String>) {
        for name in OWNER_TAGS {
            self.tags.remove(name);
        }
        self.tags.extend(owner.clone());
    }

    /// Returns the digest of what was given: everything but what follows from the template's text.
    ///
    /// It tells, without the text being read, that nothing can have changed. Values of parameters enter as keyed
    /// digests, for what is secret among them is not known here.
    pub fn given(&self, keyed: &KeyedHasher) -> Digest {
        let parameters: BTreeMap<&String, Digest> = self
            .parameters
            .iter()
            .map(|(name, value)| (name, keyed.digest("parameter", value.as_bytes())))
            .collect();
        let mut body = json!([
            sha256_hex(self.template.as_bytes()),
            parameters,
            self.tags,
            self.notification_arns,
            self.rollback_triggers,
            self.monitoring_minutes,
            self.stack_policy,
            self.termination_protection,
            self.prune,
            self.consumed,
        ]);
        if let (Some(all), false) = (body.as_array_mut(), self.versions.is_empty()) {
            all.push(json!(self.versions));
        }
        keyed.digest("given", body.to_string().as_bytes())
    }

    /// Returns the digest of everything that was asked for.
    ///
    /// Secret values enter as keyed digests; revision and template version stay outside, so that a commit which
    /// changes nothing of this stack changes nothing here.
    pub fn digest(&self, keyed: &KeyedHasher) -> Digest {
        let parameters: BTreeMap<&String, String> = self
            .parameters
            .iter()
            .map(|(name, value)| {
                (
                    name,
                    if self.secrets.contains(name) {
                        keyed.digest("parameter", value.as_bytes()).to_string()
                    } else {
                        value.clone()
                    },
                )
            })
            .collect();
        let mut body = json!({
            "capabilities": self.capabilities,
            "consumed": self.consumed,
            "dynamic_references": dynamic_references(&self.template),
            "monitoring_minutes": self.monitoring_minutes,
            "notification_arns": self.notification_arns,
            "parameters": parameters,
            "rollback_triggers": self.rollback_triggers,
            "stack_policy": self.stack_policy.as_deref().map(|p| sha256_hex(p.as_bytes())),
            "tags": self.tags,
            "template": sha256_hex(self.template.as_bytes()),
            "termination_protection": self.termination_protection,
        });
        // Younger than the prefix: where it is not set, the digest is what it was before there was such an option.
        if let Some(prune) = self.prune {
            body["prune"] = json!(prune);
        }
        if !self.versions.is_empty() {
            body["versions"] = json!(self.versions);
        }
        Digest::of("d1", &canonical_json(&body))
    }
}

/// Returns the dynamic references of a text: what CloudFormation resolves when it deploys.
///
/// They are named with the version that stands in them; without an account nothing else can be known.
fn dynamic_references(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = text
        .match_indices("{{resolve:")
        .filter_map(|(at, _)| text[at..].find("}}").map(|end| &text[at..at + end + 2]))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Names a change set: `if-<install8>-g<generation>-<digest12>-a<attempt>`.
///
/// The name is the fence: what a stack executed last tells the generation, without clocks and without tags.
pub fn change_set_name(
    installation: &InstallationId,
    generation: Generation,
    digest: &Digest,
    attempt: u32,
) -> String {
    format!(
        "if-{}-g{}-{}-a{attempt}",
        installation.short(),
        generation.0,
        digest.short(12)
    )
}

/// Names the change set of a preview, which is never executed.
pub fn preview_name(installation: &InstallationId, digest: &Digest, unique: &str) -> String {
    format!(
        "if-{}-p-{}-{unique}",
        installation.short(),
        digest.short(12)
    )
}

/// Reads the generation from the name of an executed change set; absent where it is not this installation's.
pub fn generation_of(installation: &InstallationId, name: &str) -> Option<Generation> {
    let rest = name.strip_prefix(&format!("if-{}-g", installation.short()))?;
    let (number, rest) = rest.split_once('-')?;
    let (digest, attempt) = rest.split_once("-a")?;
    let fine = digest.len() == 12 && attempt.parse::<u32>().is_ok();
    if fine {
        number.parse().ok().map(Generation)
    } else {
        None
    }
}

/// What a change set of this installation was made for, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MadeFor {
    /// A deployment of this generation.
    Deployment(Generation),
    /// A preview.
    Preview,
}

/// Tells what a change set was made for; absent where its name is not exactly one that this installation gives.
pub fn made_for(installation: &InstallationId, name: &str) -> Option<MadeFor> {
    if let Some(generation) = generation_of(installation, name) {
        return Some(MadeFor::Deployment(generation));
    }
    let rest = name.strip_prefix(&format!("if-{}-p-", installation.short()))?;
    let (digest, unique) = rest.split_once('-')?;
    let fine = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    (digest.len() == 12 && fine(digest) && fine(unique)).then_some(MadeFor::Preview)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired() -> Desired {
        Desired {
            stack_name: "s".parse().unwrap(),
            template: "Resources: {}".into(),
            parameters: BTreeMap::from([("P".into(), "v".into())]),
            secrets: vec![],
            tags: BTreeMap::new(),
            notification_arns: vec![],
            rollback_triggers: vec![],
            monitoring_minutes: 0,
            stack_policy: None,
            termination_protection: None,
            prune: None,
            capabilities: vec![],
            allowed: None,
            nested: BTreeMap::new(),
            consumed: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    #[test]
    fn every_option_moves_the_digest() {
        let keyed = KeyedHasher::new(b"k");
        let base = desired().digest(&keyed);
        let changes: Vec<fn(&mut Desired)> = vec![
            |d| d.template = "Resources: {} ".into(),
            |d| d.parameters = BTreeMap::from([("P".into(), "w".into())]),
            |d| d.tags = BTreeMap::from([("a".into(), "b".into())]),
            |d| d.notification_arns = vec!["x".into()],
            |d| d.rollback_triggers = vec!["x".into()],
            |d| d.monitoring_minutes = 1,
            |d| d.stack_policy = Some("{}".into()),
            |d| d.termination_protection = Some(false),
            |d| d.prune = Some(Prune::Never),
            |d| d.capabilities = vec!["CAPABILITY_IAM".into()],
            |d| d.consumed = BTreeMap::from([("env/a.X".into(), "y".into())]),
            |d| d.secrets = vec!["P".into()],
            |d| d.versions = BTreeMap::from([("ssm:/a".into(), "2".into())]),
        ];
        for change in changes {
            let mut other = desired();
            change(&mut other);
            assert_ne!(other.digest(&keyed), base, "{other:?}");
        }
    }

    #[test]
    fn a_change_set_name_tells_its_generation() {
        let ours: InstallationId = "3fa9c1d0000000000000000000000000".parse().unwrap();
        let theirs: InstallationId = "00000000000000000000000000000000".parse().unwrap();
        let name = change_set_name(&ours, Generation(7), &Digest::of("d1", b"x"), 1);
        assert_eq!(generation_of(&ours, &name), Some(Generation(7)));
        assert_eq!(generation_of(&theirs, &name), None);
        for other in [
            "",
            "awscli-cloudformation-package-deploy-1",
            "if-3fa9c1d0-p-0123456789ab-1",
            "if-3fa9c1d0-gx-0123456789ab-a1",
        ] {
            assert_eq!(generation_of(&ours, other), None, "{other}");
        }
    }

    #[test]
    fn only_a_name_that_this_installation_gives_is_ours() {
        let ours: InstallationId = "3fa9c1d0000000000000000000000000".parse().unwrap();
        let theirs: InstallationId = "3fa9c1d1000000000000000000000000".parse().unwrap();
        let digest = Digest::of("d1", b"x");
        let deployment = change_set_name(&ours, Generation(7), &digest, 1);
        let preview = preview_name(&ours, &digest, "0198c0de");

        let made = |name: &str| made_for(&ours, name);
        assert_eq!(made(&deployment), Some(MadeFor::Deployment(Generation(7))));
        assert_eq!(made(&preview), Some(MadeFor::Preview));
        for name in [&deployment, &preview] {
            assert_eq!(made_for(&theirs, name), None, "{name}");
            assert_eq!(made(&format!("x{name}")), None);
        }
        for other in [
            "",
            "release-42",
            "if-3fa9c1d0-",
            "if-3fa9c1d0-mine",
            "if-3fa9c1d0-p-mine",
            "if-3fa9c1d0-p-0123456789ab-",
            "if-3fa9c1d0-p-0123456789ab-x-y",
            "if-3fa9c1d0-g7-mine",
        ] {
            assert_eq!(made(other), None, "{other}");
        }
    }
}
