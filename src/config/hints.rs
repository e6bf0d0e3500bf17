//! Queues of hints: where EventBridge leaves word that a stack has moved.

use super::aws::{Hop, role};
use super::raw;
use crate::domain::estate::Placement;
use crate::domain::model::{AccountId, Region};

/// A queue of one account and region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintQueue {
    /// The account whose stacks it tells of, and that it belongs to.
    pub account: AccountId,
    /// Its region.
    pub region: Region,
    /// Its name.
    pub name: String,
    /// The role that reads it.
    pub role: Option<Hop>,
}

impl HintQueue {
    /// Returns its ARN.
    pub fn arn(&self) -> String {
        let (partition, _) = self.region.partition();
        format!(
            "arn:{partition}:sqs:{}:{}:{}",
            self.region, self.account, self.name
        )
    }
}

/// Reads the queues of an account.
pub(super) fn queues(
    name: &str,
    account: &raw::Account,
    placements: &[&Placement],
    faults: &mut Vec<String>,
) -> Vec<HintQueue> {
    let Some(hints) = &account.hints else {
        return Vec::new();
    };
    let at = format!("accounts.{name}.hints.queue");
    let mut queues = Vec::new();
    for given in hints.queue.all() {
        let Some((region, owner, queue)) = parts(given) else {
            faults.push(format!(
                "{at}: `{given}` is not arn:<partition>:sqs:<region>:<account>:<name> or https://sqs.<region>.amazonaws.com/<account>/<name>"
            ));
            continue;
        };
        if owner != account.id {
            faults.push(format!(
                "{at}: {given} is a queue of another account: a rule beside the stacks fills a queue beside the stacks"
            ));
            continue;
        }
        // Taken as where the account's placements are, which is where its stacks are.
        let here = placements
            .iter()
            .find(|p| p.regions.iter().any(|r| r.as_str() == region));
        let Some(here) = here else {
            faults.push(format!(
                "{at}: {given} is in {region}, where no placement of this account is"
            ));
            continue;
        };
        let hand = account
            .roles
            .preview
            .as_ref()
            .or(account.roles.apply.as_ref());
        // What is wrong with the role is said where it stands.
        let arn = hand.and_then(|hand| role(hand, Some(here), "", &mut Vec::new()));
        let found = here.regions.iter().find(|r| r.as_str() == region);
        let Some(region) = found.cloned() else {
            continue;
        };
        queues.push(HintQueue {
            account: here.account.clone(),
            region,
            name: queue.to_owned(),
            role: arn.map(|arn| Hop {
                arn,
                external_id: account.external_id.clone(),
            }),
        });
    }
    queues
}

/// Takes region, account and name out of an ARN or a URL.
fn parts(given: &str) -> Option<(&str, &str, &str)> {
    let (region, account, name) = if given.starts_with("arn:") {
        let parts: Vec<&str> = given.split(':').collect();
        let [_, _, "sqs", region, account, name] = parts.as_slice() else {
            return None;
        };
        (*region, *account, *name)
    } else {
        let rest = given.strip_prefix("https://sqs.")?;
        let (host, path) = rest.split_once('/')?;
        let (region, _) = host.split_once(".amazonaws.")?;
        let (account, name) = path.split_once('/')?;
        (region, account, name)
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    // A queue that keeps an order is filled by EventBridge only with a group, and order means nothing here.
    let named = (1..=80).contains(&name.len()) && name.chars().all(fits);
    let numbered = account.len() == 12 && account.chars().all(|c| c.is_ascii_digit());
    (named && numbered).then_some((region, account, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_named_by_its_arn_or_its_url() {
        let expected = Some(("eu-west-1", "333333333333", "isoform-hints"));
        for given in [
            "arn:aws:sqs:eu-west-1:333333333333:isoform-hints",
            "https://sqs.eu-west-1.amazonaws.com/333333333333/isoform-hints",
        ] {
            assert_eq!(parts(given), expected, "{given}");
        }
        for bad in [
            "isoform-hints",
            "arn:aws:sns:eu-west-1:333333333333:isoform-hints",
            "arn:aws:sqs:eu-west-1:3333:isoform-hints",
            "arn:aws:sqs:eu-west-1:333333333333:isoform-hints.fifo",
            "http://sqs.eu-west-1.amazonaws.com/333333333333/isoform-hints",
            "https://evil.example/333333333333/isoform-hints",
            "https://sqs.eu-west-1.amazonaws.com/333333333333/a/b",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
