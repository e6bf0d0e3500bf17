//! Drift: what is really there against what a stack says.

use serde_json::{Map, Value};

use super::engine::LocalEngine;
use super::world::WorldError;
use crate::domain::cfn::resource_type;
use crate::domain::model::{StackId, StackName};
use crate::domain::plan::{ResourceState, StackStatus as S};
use crate::port::{Drift, DriftState, Error, StackRef};

/// What somebody does to a resource behind CloudFormation's back.
#[derive(Clone, PartialEq, Debug)]
pub enum ByHand {
    /// Properties are set; `null` takes one away.
    Set(Map<String, Value>),
    /// It is deleted.
    Delete,
    /// It is put back as the stack says.
    Restore,
}

impl LocalEngine {
    pub(super) async fn detect_drift(&self, stack: &StackId) -> Result<Vec<Drift>, Error> {
        self.world.call("DetectStackDrift").await?;
        let mut tx = self.world.begin().await?;
        let found = self.stack(&mut tx, stack).await?;
        tx.commit().await.map_err(WorldError::from)?;
        if !matches!(
            found.status,
            S::CreateComplete
                | S::UpdateComplete
                | S::UpdateRollbackComplete
                | S::UpdateRollbackFailed
        ) {
            return Err(Error::Refused(format!(
                "Drift detection cannot be run on stack [{}] in state {}",
                found.id, found.status
            )));
        }
        Ok(found
            .resources
            .iter()
            .filter_map(|(logical, state)| {
                let (drift, properties) = compared(state, found.actual.get(logical))?;
                Some(Drift {
                    logical: logical.clone(),
                    kind: state.kind.clone(),
                    state: drift,
                    properties,
                })
            })
            .collect())
    }

    /// Changes a resource behind CloudFormation's back: for trying out drift.
    pub async fn by_hand(
        &self,
        stack: &StackName,
        logical: &str,
        change: &ByHand,
    ) -> Result<(), Error> {
        let mut tx = self.world.begin().await?;
        let mut found = self
            .load(&mut tx, &StackRef::Name(stack.clone()))
            .await?
            .ok_or_else(|| Error::NotFound(format!("Stack [{stack}]")))?;
        let said = found
            .resources
            .get(logical)
            .map(|r| r.properties.clone())
            .ok_or_else(|| Error::NotFound(format!("the resource {logical} of {stack}")))?;
        match change {
            ByHand::Restore => {
                found.actual.remove(logical);
            }
            ByHand::Delete => {
                found.actual.insert(logical.to_owned(), None);
            }
            ByHand::Set(properties) => {
                let now = found.actual.get(logical).cloned().flatten().unwrap_or(said);
                let mut now = now.as_object().cloned().unwrap_or_default();
                for (name, value) in properties {
                    match value {
                        Value::Null => now.remove(name),
                        value => now.insert(name.clone(), value.clone()),
                    };
                }
                found
                    .actual
                    .insert(logical.to_owned(), Some(Value::Object(now)));
            }
        }
        self.save(&mut tx, &found).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(())
    }
}

/// Compares one resource; absent where it is as the stack says.
fn compared(
    state: &ResourceState,
    actual: Option<&Option<Value>>,
) -> Option<(DriftState, Vec<String>)> {
    // A type without a published schema cannot be read back; nested stacks are asked about by themselves.
    if resource_type(&state.kind).is_none() || state.kind == super::schedule::NESTED {
        return Some((DriftState::NotChecked, Vec::new()));
    }
    match actual? {
        None => Some((DriftState::Deleted, Vec::new())),
        Some(actual) => {
            let mut paths = Vec::new();
            differing("", &state.properties, Some(actual), &mut paths);
            (!paths.is_empty()).then_some((DriftState::Modified, paths))
        }
    }
}

/// Collects the paths that the template sets and that are otherwise; what it does not set is not compared.
fn differing(path: &str, said: &Value, actual: Option<&Value>, out: &mut Vec<String>) {
    match (said, actual) {
        (Value::Object(said), Some(Value::Object(actual))) => {
            for (key, value) in said {
                let below = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                differing(&below, value, actual.get(key), out);
            }
        }
        (said, Some(actual)) if text(said) == text(actual) => {}
        _ => out.push(path.to_owned()),
    }
}

/// Scalars are compared by their text, as CloudFormation does.
fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
