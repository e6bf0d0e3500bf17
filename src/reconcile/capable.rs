//! Capabilities that only CloudFormation knows of: asked for when it refuses a proposal, and not before.

use super::{Error, Line};
use crate::domain::estate::Target;
use crate::domain::model::{AccountId, Region};
use crate::domain::plan::covers;
use crate::port::StackEngine;

/// What a text needs in an account and region: a macro of one account is not that of another.
pub(super) type Needs = std::collections::BTreeMap<(AccountId, Region, String), Needed>;

/// What a text needs, and why, in CloudFormation's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Needed {
    pub capabilities: Vec<String>,
    pub reason: Option<String>,
}

/// Texts that a proposal is made of: their keys in the bundle store, each with its URL.
pub(super) type Texts = Vec<(String, String)>;

impl Line {
    /// Asks CloudFormation what texts need, each of them once.
    pub(super) async fn needs(
        &self,
        target: &Target,
        engine: &dyn StackEngine,
        texts: &Texts,
    ) -> Result<Needed, Error> {
        let mut all = Needed {
            capabilities: Vec::new(),
            reason: None,
        };
        for (key, url) in texts {
            let place = (target.placement.account.clone(), target.region.clone());
            let place = (place.0, place.1, key.clone());
            let known = self.shared().needs.get(&place).cloned();
            let needed = match known {
                Some(known) => known,
                None => {
                    let told = engine.summary(url).await?;
                    let needed = Needed {
                        capabilities: told.capabilities,
                        reason: told.reason,
                    };
                    self.shared().needs.insert(place, needed.clone());
                    needed
                }
            };
            for capability in needed.capabilities {
                if !covers(&all.capabilities, &capability) {
                    all.capabilities.push(capability);
                }
            }
            all.reason = all.reason.or(needed.reason);
        }
        Ok(all)
    }
}

/// Says that a target may not have what CloudFormation needs, and what to do.
pub(super) fn refusal(target: &Target, capability: &str, reason: Option<&str>) -> String {
    let why = reason.map(|r| format!(" ({r})")).unwrap_or_default();
    format!(
        "CloudFormation needs {capability}{why}, which `capabilities` of {address} does not allow: add it there if it may have it, push, then `isoform retry {address}`",
        address = target.address
    )
}

/// Says that CloudFormation refuses for want of capabilities that it does not name when it is asked.
pub(super) fn unnamed(target: &Target, said: &str) -> String {
    format!(
        "{said}: write what it needs under `capabilities` of {address} if it may have it, push, then `isoform retry {address}`",
        address = target.address
    )
}
