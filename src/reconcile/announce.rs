//! Announcing: no effect without an entry before it.

use super::{Error, Line};
use crate::domain::deployment::{Deployment, EventKind, Step};
use crate::domain::model::{Actor, Digest, TargetUid};
use crate::testing::crash_point;
use crate::workqueue::TargetGuard;

/// A step whose intent is in the log. Only [`Line::announce`] makes one, and `perform` takes nothing else.
pub(super) struct Announced {
    pub(super) step: Step,
    pub(super) uid: TargetUid,
    pub(super) deployment: Deployment,
    _proof: (),
}

impl Line {
    /// Writes the intent of a step, and where it binds the future brings it away from this machine.
    ///
    /// Asks for the guard of the target, so that one target has one writer.
    pub(super) async fn announce(
        &self,
        guard: &TargetGuard<TargetUid>,
        step: Step,
        payloads: Vec<(Digest, Vec<u8>)>,
    ) -> Result<Announced, Error> {
        let uid = guard.key().clone();
        crash_point(&format!("{}.before-intent", step.word()));
        let entry = self
            .record(
                &uid,
                Actor::daemon("line"),
                EventKind::Announced(step.clone()),
                payloads,
            )
            .await?;
        if entry.binds_the_future() {
            self.ship_to(entry.seq).await?;
        }
        let deployment = self
            .history(&uid)
            .and_then(|h| h.current.clone())
            .ok_or_else(|| {
                Error::Broken("a step was announced and no deployment is there".into())
            })?;
        crash_point(&format!("{}.before-effect", step.word()));
        Ok(Announced {
            step,
            uid,
            deployment,
            _proof: (),
        })
    }
}
