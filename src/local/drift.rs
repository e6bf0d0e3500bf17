//! Drift: what is really there against what a stack says.

use super::engine::LocalEngine;
use crate::domain::model::StackId;
use crate::port::{Drift, Error};

impl LocalEngine {
    pub(super) async fn detect_drift(&self, stack: &StackId) -> Result<Vec<Drift>, Error> {
        self.world.count("DetectStackDrift").await?;
        let mut tx = self.world.begin().await?;
        let found = self.stack(&mut tx, stack).await?;
        Ok(found
            .actual
            .keys()
            .filter_map(|l| {
                found.resources.get(l).map(|r| Drift {
                    logical: l.clone(),
                    kind: r.kind.clone(),
                    properties: vec![],
                })
            })
            .collect())
    }
}
