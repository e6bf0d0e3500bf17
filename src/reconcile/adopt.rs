//! Taking over a stack that somebody else made: nothing is renamed, tagged or replaced.
//!
//! The proof is CloudFormation's own: a change set of exactly what the first deployment would give finds nothing to
//! change. It is read and discarded; beside the texts and the claim in the bundle store nothing is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::preview::beyond;
use super::{Error, Line, OperatorError, Snapshot};
use crate::domain::cfn::{Pseudo, as_read_back, parse_template_with};
use crate::domain::deployment::{EventKind, History};
use crate::domain::estate::{Rendering, Target, TargetKind};
use crate::domain::model::{Actor, Address, Digest, Finding, StackId, TargetUid};
use crate::domain::plan::{
    Change, ChangeSetStatus, Deployed, OWNER_TAGS, Observed, StatusClass, preview,
};
use crate::domain::template::Engine;
use crate::port::{ChangeSet, Drift, DriftState, StackRef};

/// What looking at a stack that is to be taken over came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Adoption {
    /// The version of this shape.
    pub v: u32,
    /// The target.
    pub target: Address,
    /// The stack.
    pub stack: StackId,
    /// Its status.
    pub status: String,
    /// The role that CloudFormation works with on it.
    pub role: Option<String>,
    /// Whether isoform owns it now.
    pub adopted: bool,
    /// What would change, as CloudFormation says; empty where it finds nothing to change.
    pub changes: Vec<Change>,
    /// How what is deployed differs from what Git asks for, in words.
    pub differences: Vec<String>,
    /// How the resources differ from what the stack says, in words, where that was asked for; empty where they do not.
    #[serde(default)]
    pub drift: Option<Vec<String>>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// The payload with everything that was compared, where it was taken over.
    pub evidence: Option<Digest>,
}

impl Line {
    /// Takes over a stack for a target that Git asks for and that has none, if that changes nothing in it.
    ///
    /// Without a stack it is the one that the target is named after. With `check` everything is compared and nothing
    /// taken over. A stack in which something would change is not taken over: the answer says what. With `drift` CloudFormation
    /// is asked to look at every resource: what somebody changed by hand stops nothing, and is told and kept.
    pub async fn adopt_stack(
        &self,
        target: &str,
        stack: Option<&str>,
        check: bool,
        drift: bool,
        actor: &Actor,
    ) -> Result<Adoption, OperatorError> {
        let (uid, address) = self.one(target)?;
        let newest = self
            .newest()
            .ok_or_else(|| OperatorError::NotNow("nothing was looked at yet".into()))?;
        let (history, target) = self.adoptable(&uid, &address, &newest)?;
        self.check_allowed(&uid, &address, actor)?;
        let engine = self
            .ports
            .engine(&target.placement, &target.region)
            .map_err(Error::from)?;
        let named = stack.map_or_else(
            || history.stack_name.as_ref().map(ToString::to_string),
            |s| Some(s.to_owned()),
        );
        let named = named.unwrap_or_default();
        let observed = engine
            .describe(&stack_ref(&named, &target)?)
            .await
            .map_err(Error::from)?
            .filter(|o| o.status.class() != StatusClass::Gone);
        let Some(observed) = observed else {
            return Err(OperatorError::NoSuch(format!(
                "there is no stack `{}` in {} of the account {}",
                named.escape_debug(),
                target.region,
                target.placement.account
            )));
        };
        self.may_be_adopted(&uid, &target, &observed).await?;

        // As it will be rendered when it bears the stack's name.
        let mut named_so = (*history).clone();
        named_so.stack_name = Some(observed.name.clone());
        // A tag is a change of every resource: it keeps those of an earlier owner, and gets none of ours.
        let kept = observed.tags.iter();
        let kept = kept.filter(|(name, _)| OWNER_TAGS.contains(&name.as_str()));
        named_so.kept_tags = Some(kept.map(|(k, v)| (k.clone(), v.clone())).collect());
        let rendering = self
            .render_target(&named_so, &newest, &target)
            .await?
            .map_err(|findings| OperatorError::NotNow(super::first_fault(&findings)))?;
        let stack = StackRef::Id(observed.stack_id.clone());
        let template = engine.template(&stack).await.map_err(Error::from)?;
        let policy = engine
            .stack_policy(&observed.stack_id)
            .await
            .map_err(Error::from)?;
        let roles = self.roles_of(&target, &observed).await?;
        let differences =
            self.differences(&target, &rendering, &observed, &template, policy.as_deref());
        let read = self
            .previewed(
                &uid,
                &history,
                &target,
                &rendering.desired,
                &observed.stack_id,
                actor,
            )
            .await?;
        let mut report = Adoption {
            v: 1,
            target: address,
            stack: observed.stack_id.clone(),
            status: observed.status.to_string(),
            role: observed.role.clone(),
            adopted: false,
            changes: Vec::new(),
            differences,
            drift: None,
            notes: roles.into_iter().chain(notes(&template)).collect(),
            evidence: None,
        };
        report
            .notes
            .extend(beyond(&rendering.desired, &read.capabilities));
        match read.status {
            ChangeSetStatus::NoChanges => {}
            ChangeSetStatus::Failed => {
                return Err(OperatorError::NotNow(format!(
                    "CloudFormation refuses the change set that would prove it: {}",
                    read.reason.unwrap_or_default()
                )));
            }
            _ => {
                report.changes = read.changes;
                if report.changes.is_empty() {
                    report.notes.push(
                        "CloudFormation would change something that it does not name: outputs, tags or options".into(),
                    );
                }
                return Ok(report);
            }
        }
        if drift {
            match engine.drift(&observed.stack_id).await {
                Ok(found) => report.drift = Some(drifts(&found)),
                Err(error) => report.notes.push(format!(
                    "whether its resources are what the stack says could not be told: {error}"
                )),
            }
        }
        // Options that no change set carries would be the first change.
        let desired = &rendering.desired;
        let by_option = desired.stack_policy.is_some() && desired.stack_policy != policy
            || desired
                .termination_protection
                .is_some_and(|on| on != observed.termination_protection);
        if check || by_option {
            return Ok(report);
        }
        let evidence = Evidence {
            observed: &observed,
            template: &template,
            policy: policy.as_deref(),
            rendered: &desired.template,
            proof: &read,
            differences: &report.differences,
            drift: report.drift.as_deref(),
        };
        let digest = self
            .take_over(
                &uid, &named_so, &newest, &target, &rendering, &evidence, actor,
            )
            .await?;
        report.adopted = true;
        report.evidence = Some(digest);
        Ok(report)
    }

    /// Returns a target that could take over a stack, or says why it cannot.
    fn adoptable(
        &self,
        uid: &TargetUid,
        address: &Address,
        newest: &Snapshot,
    ) -> Result<(std::sync::Arc<History>, std::sync::Arc<Target>), OperatorError> {
        let refuse = |why: String| Err(OperatorError::NotNow(why));
        let history = self.history(uid);
        let asked = newest.uids.get(address) == Some(uid);
        let target = newest.compiled.targets.get(address).filter(|_| asked);
        let (Some(history), Some(target)) = (history, target.cloned()) else {
            return refuse(format!("Git does not ask for {address}"));
        };
        if let Some(stack) = &history.owned {
            return refuse(format!("{address} has a stack already: {stack}"));
        }
        if history.current.is_some() {
            return refuse(format!(
                "{address} is in motion: see `isoform why {address}`"
            ));
        }
        if newest.compiled.contested.contains(address) {
            return refuse(format!("two sources ask for {address}"));
        }
        let fits = !matches!(
            target.kind,
            TargetKind::Broken | TargetKind::CustomerManaged { .. }
        ) && target.engine() == Engine::Jinja;
        if !fits || target.faults.iter().any(Finding::is_error) {
            let faults = &target.faults;
            return refuse(if faults.is_empty() {
                format!("{address} is nothing that isoform deploys")
            } else {
                super::first_fault(faults)
            });
        }
        Ok((history, target))
    }

    /// Says why a stack may not be taken over: its state, or somebody who has it.
    async fn may_be_adopted(
        &self,
        uid: &TargetUid,
        target: &Target,
        observed: &Observed,
    ) -> Result<(), OperatorError> {
        let refuse = |why: String| Err(OperatorError::NotNow(why));
        let stack = &observed.stack_id;
        if !matches!(
            observed.status.class(),
            StatusClass::Ready | StatusClass::RolledBack
        ) {
            return refuse(format!(
                "the stack is {}: only one at rest can be taken over",
                observed.status
            ));
        }
        if let Some(parent) = &observed.parent {
            return refuse(format!("it is nested in {parent}: take that one over"));
        }
        if let Some(given) = &target.options.stack_name
            && *given != observed.name
        {
            return refuse(format!(
                "the sync file names the stack `{given}`, and this one is `{}`",
                observed.name
            ));
        }
        let here = format!(":{}:{}:stack/", target.region, target.placement.account);
        if !stack.as_str().contains(&here) {
            return refuse(format!(
                "the stack is {stack}, and the placement `{}` is elsewhere",
                target.placement.name
            ));
        }
        let other = {
            let shared = self.shared();
            let has = |(other, known): &(&TargetUid, &super::Known)| {
                *other != uid && known.history.owned.as_ref() == Some(stack)
            };
            let found = shared.targets.iter().find(has);
            found.and_then(|(_, known)| known.history.address.clone())
        };
        if let Some(other) = other {
            return refuse(format!(
                "the stack belongs to {other}: say so with `moved:` in the sync file"
            ));
        }
        match self.owner(stack).await? {
            Some(owner) if owner != adopting(uid) => refuse(format!(
                "the stack is claimed by the target {} in the bundle store",
                owner.escape_debug()
            )),
            _ => Ok(()),
        }
    }

    /// Compares what is deployed with what Git asks for, by what they mean.
    fn differences(
        &self,
        target: &Target,
        rendering: &Rendering,
        observed: &Observed,
        template: &str,
        policy: Option<&str>,
    ) -> Vec<String> {
        let desired = &rendering.desired;
        let mut out = Vec::new();
        let mut deployed = observed.parameters.clone();
        for (name, value) in &desired.parameters {
            match deployed.get(name) {
                // Nobody can read it: the change set tells whether it is another one.
                Some(_) if desired.secrets.contains(name) => {
                    deployed.insert(name.clone(), value.clone());
                }
                Some(there) if there != value => {
                    out.push(format!(
                        "the parameter {name} is `{there}`, Git gives `{value}`"
                    ));
                }
                _ => {}
            }
        }
        // What is read back has lost every character outside ASCII.
        let ours = as_read_back(&desired.template);
        match parse_template_with("desired", &ours, &desired.parameters) {
            Ok(after) => {
                let pseudo = Pseudo {
                    account: target.placement.account.to_string(),
                    region: target.region.to_string(),
                    stack_name: observed.name.to_string(),
                    stack_id: Some(observed.stack_id.to_string()),
                    notification_arns: desired.notification_arns.clone(),
                };
                let before = Deployed {
                    template,
                    parameters: &deployed,
                };
                let keyed = self.store.keyring().hasher();
                let found = preview(Some(&before), (&after, &desired.parameters), &pseudo, keyed);
                out.extend(found.changes.iter().map(in_words));
                out.extend(found.problems);
                out.extend(
                    found
                        .outputs
                        .keys()
                        .map(|name| format!("the output {name} is another one")),
                );
            }
            Err(findings) => out.push(super::first_fault(&findings)),
        }
        // AWS' own tags are nobody's to give.
        let own = |tags: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            let given = |k: &str| !k.starts_with("aws:") && !OWNER_TAGS.contains(&k);
            let own = tags.iter().filter(|(k, _)| given(k));
            own.map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        if own(&observed.tags) != own(&desired.tags) {
            out.push(format!(
                "the stack has the tags {}; write them under `tags:` of the target",
                json!(own(&observed.tags))
            ));
        }
        if observed.notification_arns != desired.notification_arns {
            out.push(format!(
                "the stack notifies {}; Git says {}",
                json!(observed.notification_arns),
                json!(desired.notification_arns)
            ));
        }
        if desired
            .termination_protection
            .is_some_and(|on| on != observed.termination_protection)
        {
            out.push(format!(
                "the protection against deletion is {}",
                if observed.termination_protection {
                    "on"
                } else {
                    "off"
                }
            ));
        }
        if desired.stack_policy.is_some() && desired.stack_policy.as_deref() != policy {
            out.push("the stack has another stack policy, or none".into());
        }
        out
    }

    /// Writes down that a stack is ours: first the claim in the bundle store, then the log.
    #[expect(
        clippy::too_many_arguments,
        reason = "everything is pinned here, so everything is here"
    )]
    async fn take_over(
        &self,
        uid: &TargetUid,
        history: &History,
        newest: &Snapshot,
        target: &Target,
        rendering: &Rendering,
        evidence: &Evidence<'_>,
        actor: &Actor,
    ) -> Result<Digest, OperatorError> {
        let observed = evidence.observed;
        let hasher = self.store.keyring().hasher();
        let write = |value: &serde_json::Value| serde_json::to_vec(value).map_err(broken);
        let proof = write(&evidence.json())?;
        let proved = hasher.digest("payload", &proof);
        let outputs = write(&json!(observed.outputs))?;
        let outputs_digest = hasher.digest("payload", &outputs);
        let digest = rendering.desired.digest(hasher);
        let (pinned, payload) =
            self.pin(history, newest, target, rendering, &digest, Some(observed))?;
        if let Err(owner) = self.claim(&adopting(uid), &observed.stack_id).await? {
            return Err(OperatorError::NotNow(format!(
                "the stack is claimed by the target {} in the bundle store",
                owner.escape_debug()
            )));
        }
        let payloads = vec![
            (pinned.payload.clone(), payload),
            (outputs_digest.clone(), outputs),
            (proved.clone(), proof),
        ];
        let event = EventKind::Adopted {
            pinned: Box::new(pinned),
            stack: observed.stack_id.clone(),
            outputs: Some(outputs_digest),
            output_names: observed.outputs.keys().cloned().collect(),
            evidence: proved.clone(),
            kept_tags: history.kept_tags.clone().unwrap_or_default(),
        };
        self.record(uid, actor.clone(), event, payloads).await?;
        self.ship().await?;
        {
            let mut shared = self.shared();
            // Rendered under the name that it had before.
            shared.fresh.remove(uid);
            if let Some(known) = shared.targets.get_mut(uid) {
                known.memo = None;
            }
            if let Some(watermark) = observed.watermark() {
                shared.swept.insert(watermark.stack_id.clone(), watermark);
            }
        }
        self.look_again(uid);
        self.enqueue_waiting(uid);
        Ok(proved)
    }
}

/// The claim of a stack that is taken over. Not the one of a stack that isoform makes: where only the claim is left of it, it
/// was not proved, and has to be again.
fn adopting(uid: &TargetUid) -> String {
    format!("{uid} adopted")
}

/// Everything that was compared, as it is kept.
struct Evidence<'a> {
    observed: &'a Observed,
    template: &'a str,
    policy: Option<&'a str>,
    rendered: &'a str,
    proof: &'a ChangeSet,
    differences: &'a [String],
    drift: Option<&'a [String]>,
}

impl Evidence<'_> {
    fn json(&self) -> serde_json::Value {
        json!({
            "stack": self.observed,
            "template": self.template,
            "stack_policy": self.policy,
            "rendered": self.rendered,
            "change_set": { "status": self.proof.status, "reason": self.proof.reason },
            "differences": self.differences,
            "drift": self.drift,
        })
    }
}

fn broken(error: serde_json::Error) -> OperatorError {
    Error::Broken(format!("writing evidence: {error}")).into()
}

fn stack_ref(text: &str, target: &Target) -> Result<StackRef, OperatorError> {
    if text.starts_with("arn:") {
        let id: StackId = text
            .parse()
            .map_err(|e| OperatorError::NoSuch(format!("{e}")))?;
        let here = id.account().as_ref() == Some(&target.placement.account)
            && id.region().as_ref() == Some(&target.region);
        if !here {
            return Err(OperatorError::NotNow(format!(
                "{id} is not in {} of the account {}",
                target.region, target.placement.account
            )));
        }
        return Ok(StackRef::Id(id));
    }
    let name = text
        .parse()
        .map_err(|e| OperatorError::NoSuch(format!("{e}")))?;
    Ok(StackRef::Name(name))
}

fn drifts(found: &[Drift]) -> Vec<String> {
    let one = |d: &Drift| {
        let what = match d.state {
            DriftState::Modified => format!(
                "was changed by hand: {}; a change of that property overwrites it",
                d.properties.join(", ")
            ),
            DriftState::Deleted => "is gone: a change of it fails".to_owned(),
            DriftState::NotChecked => "cannot be looked at".to_owned(),
        };
        format!("{} ({}) {what}", d.logical, d.kind)
    };
    match found.is_empty() {
        true => vec!["every resource is what the stack says".into()],
        false => found.iter().map(one).collect(),
    }
}

fn in_words(change: &Change) -> String {
    let properties: Vec<&str> = change.properties.iter().map(|p| p.path.as_str()).collect();
    let of = if properties.is_empty() {
        String::new()
    } else {
        format!(": {}", properties.join(", "))
    };
    format!(
        "{:?} {} ({}){of}",
        change.action, change.logical, change.kind
    )
}

fn notes(template: &str) -> Vec<String> {
    let mut notes = Vec::new();
    if template.contains('?') {
        notes.push("a `?` in the deployed template may stand for a character that reading it back has lost".into());
    }
    notes
}
