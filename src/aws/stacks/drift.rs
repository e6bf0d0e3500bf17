//! Drift: started, waited for, and read.

use std::time::Duration;

use aws_sdk_cloudformation::types::{
    StackDriftDetectionStatus, StackResourceDrift, StackResourceDriftStatus,
};

use super::Stacks;
use crate::aws::error;
use crate::domain::model::StackId;
use crate::port::{Drift, DriftState, Error};

/// A detection reads every resource through its own service: minutes. Beyond this it is asked for again later.
const PATIENCE: Duration = Duration::from_secs(900);
const LONGEST: Duration = Duration::from_secs(10);
const PAGES: usize = 100;

impl Stacks {
    pub(super) async fn detect_drift(&self, stack: &StackId) -> Result<Vec<Drift>, Error> {
        let client = self.client().await?;
        let started = self
            .write(
                "DetectStackDrift",
                client.detect_stack_drift().stack_name(stack.as_str()),
                |c| c.send(),
            )
            .await?
            .map_err(|e| error::of("DetectStackDrift", stack.as_str(), e))?;
        let id = started.stack_drift_detection_id().unwrap_or_default();
        let deadline = self.clock.steady().plus(PATIENCE);
        let mut wait = Duration::from_secs(1);
        loop {
            let sent = self
                .read(
                    "DescribeStackDriftDetectionStatus",
                    client
                        .describe_stack_drift_detection_status()
                        .stack_drift_detection_id(id),
                    |c| c.send(),
                )
                .await?;
            let answer = sent.map_err(|e| error::of("DescribeStackDriftDetectionStatus", id, e))?;
            match answer.detection_status() {
                Some(StackDriftDetectionStatus::DetectionComplete) => break,
                // A resource that could not be looked at is not in the list that follows: it would pass for unchanged.
                Some(StackDriftDetectionStatus::DetectionFailed) => {
                    return Err(Error::Refused(format!(
                        "the detection of drift failed: {}",
                        answer.detection_status_reason().unwrap_or("no reason")
                    )));
                }
                _ if self.clock.steady() >= deadline => {
                    return Err(Error::Unavailable(
                        "the detection of drift takes too long".into(),
                    ));
                }
                _ => {}
            }
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(LONGEST);
        }
        let mut found = Vec::new();
        let mut token = None;
        for _ in 0..PAGES {
            let answer = self
                .read(
                    "DescribeStackResourceDrifts",
                    client
                        .describe_stack_resource_drifts()
                        .stack_name(stack.as_str())
                        .set_next_token(token),
                    |c| c.send(),
                )
                .await?
                .map_err(|e| error::of("DescribeStackResourceDrifts", stack.as_str(), e))?;
            found.extend(answer.stack_resource_drifts().iter().filter_map(told));
            token = answer.next_token().map(str::to_owned);
            if token.is_none() {
                return Ok(found);
            }
        }
        Err(Error::Untrusted("the list of drifts does not end".into()))
    }
}

/// A status that is not known counts as not looked at.
fn told(drift: &StackResourceDrift) -> Option<Drift> {
    let state = match drift.stack_resource_drift_status() {
        Some(StackResourceDriftStatus::InSync) => return None,
        Some(StackResourceDriftStatus::Modified) => DriftState::Modified,
        Some(StackResourceDriftStatus::Deleted) => DriftState::Deleted,
        _ => DriftState::NotChecked,
    };
    Some(Drift {
        logical: drift.logical_resource_id().unwrap_or_default().to_owned(),
        kind: drift.resource_type().unwrap_or_default().to_owned(),
        state,
        properties: drift
            .property_differences()
            .iter()
            .filter_map(|d| d.property_path().map(super::review::path))
            .collect(),
    })
}
