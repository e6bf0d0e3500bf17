//! Hints from outside: somebody says that a stack has moved, and it is looked at.
//!
//! Nothing of a hint is believed but the ARN of a stack, and that only where the stack is one of ours. What became of it
//! is asked of CloudFormation. A hint that is lost is made up for by the next look, one that is forged costs a call.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::Line;
use super::sweep::spot;
use crate::domain::model::{StackId, SyncResult};
use crate::domain::pace::Urgency;
use crate::domain::plan::{Observed, StatusClass};
use crate::port::{self, HintQueue, StackRef};

/// What EventBridge says of a stack; the rest of it is not looked at.
#[derive(Deserialize)]
struct Event {
    detail: Detail,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "stack-id")]
    stack: String,
}

/// Finds the stack that a message names.
fn stack_of(body: &str) -> Option<StackId> {
    let event: Event = serde_json::from_str(body).ok()?;
    event.detail.stack.parse().ok()
}

impl Line {
    /// Takes what a queue holds, waiting a while for it, and looks at what is named. Returns how many messages there were.
    pub async fn hear(&self, queue: &dyn HintQueue) -> Result<usize, port::Error> {
        let messages = queue.take().await?;
        let mut stacks = BTreeSet::new();
        let mut malformed = 0;
        for message in &messages {
            match stack_of(&message.body) {
                Some(stack) => {
                    stacks.insert(stack);
                }
                None => malformed += 1,
            }
        }
        if malformed > 0 {
            tracing::warn!(
                queue = queue.name(),
                malformed,
                "{malformed} messages in {} name no stack: only the events of CloudFormation stacks belong there",
                queue.name()
            );
        }
        let mut ours = 0;
        for stack in &stacks {
            // Whoever watches it looks; anybody else's word is taken as a reason to look once.
            let heard = self.watching.hint(stack) || self.look_at(stack).await;
            ours += u64::from(heard);
        }
        self.counts
            .heard(ours, stacks.len() as u64 - ours, malformed);
        let receipts: Vec<String> = messages.into_iter().map(|m| m.receipt).collect();
        let count = receipts.len();
        queue.remove(&receipts).await?;
        Ok(count)
    }

    /// Looks at one stack as a sweep would. Returns whether it is one of ours.
    async fn look_at(&self, stack: &StackId) -> bool {
        let begun = self.clock.steady();
        let found = {
            let shared = self.shared();
            let mut targets = shared.targets.iter();
            targets
                .find(|(_, k)| k.history.owned.as_ref() == Some(stack))
                .and_then(|(uid, k)| Some((uid.clone(), k.history.address.clone()?)))
        };
        let (Some((uid, address)), Some(newest)) = (found, self.newest()) else {
            return false;
        };
        let Some(target) = self.asked_at(&uid, newest.id, &address) else {
            return false;
        };
        let place = (target.placement.account.clone(), target.region.clone());
        if spot(stack) != Some(place) {
            return false;
        }
        let engine = self
            .ports
            .engine_for(&target.placement, &target.region, Urgency::Sweep);
        let seen = match engine {
            Ok(engine) => engine.describe(&StackRef::Id(stack.clone())).await,
            Err(error) => Err(error),
        };
        let mark = match seen {
            Ok(seen) => seen
                .filter(|s| s.status.class() != StatusClass::Gone)
                .as_ref()
                .and_then(Observed::watermark),
            Err(error) => {
                // The next sweep sees it.
                tracing::info!(target.id = %uid, "a stack that was hinted at cannot be looked at: {error}");
                return true;
            }
        };
        let moved = {
            let mut shared = self.shared();
            let Some(known) = shared.targets.get(&uid) else {
                return true;
            };
            let executes = known
                .history
                .current
                .as_ref()
                .is_some_and(|d| d.is_executing());
            // What moved meanwhile is known better from its own end.
            if executes || known.ended.is_some_and(|at| at >= begun) {
                return true;
            }
            let applied = known.history.applied.as_ref();
            let differs = applied.is_some_and(|a| a.watermark != mark);
            let moved =
                applied.is_some() && differs != (known.condition.result == SyncResult::Drifted);
            match mark {
                Some(mark) => shared.swept.insert(stack.clone(), mark),
                None => shared.swept.remove(stack),
            };
            moved
        };
        if moved {
            self.enqueue(&uid, Duration::ZERO);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hint_only_the_stack_is_read() {
        let arn = "arn:aws:cloudformation:eu-west-1:333333333333:stack/orders/1";
        let event = format!(
            r#"{{"version":"0","source":"aws.cloudformation","account":"333333333333","detail-type":"CloudFormation Stack Status Change",
                "resources":["x"],"detail":{{"stack-id":"{arn}","status-details":{{"status":"UPDATE_COMPLETE","status-reason":""}},"client-request-token":""}}}}"#
        );
        assert_eq!(stack_of(&event).unwrap().as_str(), arn);
        for bad in [
            "",
            "not JSON",
            "{}",
            r#"{"detail":{}}"#,
            r#"{"detail":{"stack-id":7}}"#,
            r#"{"detail":{"stack-id":"orders"}}"#,
            r#"["arn:aws:cloudformation:eu-west-1:333333333333:stack/orders/1"]"#,
        ] {
            assert_eq!(stack_of(bad), None, "{bad}");
        }
    }
}
