//! Reading: listings, descriptions, templates and events.

use std::collections::BTreeSet;

use sqlx::Row;

use super::changesets::{KIND, needed};
use super::engine::LocalEngine;
use super::model::{Stack, StoredChangeSet};
use super::objects::LocalObjects;
use super::review::describe;
use super::world::WorldError;
use crate::domain::cfn::{as_read_back, parse_template};
use crate::domain::model::StackId;
use crate::domain::plan::{ChangeSetStatus, Observed, StatusClass};
use crate::port::{
    ChangeSetSummary, Error, Page, StackEvent, StackRef, StackSummary, TemplateSummary, read_all,
};

const TEMPLATE_LIMIT: u64 = 1 << 20;
/// Summaries on a page: the service promises up to 1 MB, and gives about this many.
const PAGE: usize = 100;

impl LocalEngine {
    pub(super) async fn list_stacks(
        &self,
        token: Option<&str>,
    ) -> Result<Page<StackSummary>, Error> {
        let faults = self.world.call("ListStacks").await?;
        let page = faults.page.unwrap_or(PAGE).max(1);
        let mut tx = self.world.begin().await?;
        let rows = sqlx::query("SELECT id, body FROM records WHERE kind = 'stack' AND parent = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(self.place())
            .bind(token.unwrap_or_default())
            .bind(page as i64)
            .fetch_all(&mut *tx)
            .await
            .map_err(WorldError::from)?;
        let mut items = Vec::new();
        let mut last = None;
        for row in &rows {
            last = Some(row.try_get::<String, _>(0).map_err(WorldError::from)?);
            let body: &str = row.try_get(1).map_err(WorldError::from)?;
            let mut stack: Stack = serde_json::from_str(body).map_err(WorldError::from)?;
            if stack.running.is_some() || stack.root.is_some() || faults.stale_ms > 0 {
                let id = StackRef::Id(stack.id.clone());
                match self.read(&mut tx, &id, &faults).await? {
                    Some(now) => stack = now,
                    None => continue,
                }
            }
            if stack.status.class() != StatusClass::Gone {
                let operation = stack.operation();
                items.push(StackSummary {
                    stack_id: stack.id,
                    name: stack.name,
                    status: stack.status,
                    updated: stack.updated,
                    operation,
                });
            }
        }
        tx.commit().await.map_err(WorldError::from)?;
        Ok(Page {
            items,
            next: last.filter(|_| rows.len() == page),
        })
    }

    pub(super) async fn list_change_sets(
        &self,
        stack: &StackId,
        token: Option<&str>,
    ) -> Result<Page<ChangeSetSummary>, Error> {
        let faults = self.world.call("ListChangeSets").await?;
        let page = faults.page.unwrap_or(PAGE).max(1);
        let mut tx = self.world.begin().await?;
        let found = self.load(&mut tx, &StackRef::Id(stack.clone())).await?;
        let stack = found.ok_or_else(|| Error::NotFound(stack.to_string()))?;
        let rows = sqlx::query("SELECT id, body FROM records WHERE kind = $1 AND parent = $2 AND id > $3 ORDER BY id LIMIT $4")
            .bind(KIND)
            .bind(stack.id.as_str())
            .bind(token.unwrap_or_default())
            .bind(page as i64)
            .fetch_all(&mut *tx)
            .await
            .map_err(WorldError::from)?;
        tx.commit().await.map_err(WorldError::from)?;
        let mut items = Vec::new();
        for row in &rows {
            let body: &str = row.try_get(1).map_err(WorldError::from)?;
            let set: StoredChangeSet = serde_json::from_str(body).map_err(WorldError::from)?;
            let now = self.world.clock.now();
            let said = describe(&set, Some(&stack), now, &faults, false);
            let status = ChangeSetStatus::of(said.status, said.execution, said.reason.as_deref());
            items.push(ChangeSetSummary {
                change_set: set.arn,
                name: set.name,
                status,
            });
        }
        let last = items.last().map(|s| s.change_set.clone());
        Ok(Page {
            items,
            next: last.filter(|_| rows.len() == page),
        })
    }

    pub(super) async fn describe_stack(&self, stack: &StackRef) -> Result<Option<Observed>, Error> {
        let faults = self.world.call("DescribeStacks").await?;
        let mut tx = self.world.begin().await?;
        let found = self.read(&mut tx, stack, &faults).await?;
        tx.commit().await.map_err(WorldError::from)?;
        Ok(found.map(|s| s.observed()))
    }

    pub(super) async fn stack_template(&self, stack: &StackRef) -> Result<String, Error> {
        self.world.call("GetTemplate").await?;
        let mut tx = self.world.begin().await?;
        let found = self.load(&mut tx, stack).await?;
        tx.commit().await.map_err(WorldError::from)?;
        found
            .map(|s| as_read_back(&s.form.template))
            .ok_or_else(|| Error::NotFound("Stack".into()))
    }

    pub(super) async fn template_summary(
        &self,
        template_url: &str,
    ) -> Result<TemplateSummary, Error> {
        let faults = self.world.call("GetTemplateSummary").await?;
        let template =
            parse_template("template", &self.body_of(template_url).await?).map_err(|f| {
                Error::Refused(f.first().map(|f| f.message.clone()).unwrap_or_default())
            })?;
        let capabilities = needed(&template, &faults);
        let kinds: BTreeSet<&str> = template.resources.values().map(|r| &*r.kind).collect();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        Ok(TemplateSummary {
            reason: (!capabilities.is_empty()).then(|| {
                format!(
                    "The following resource(s) require capabilities: [{}]",
                    kinds.join(", ")
                )
            }),
            capabilities,
            parameters: template
                .parameters
                .iter()
                .map(|(n, p)| (n.clone(), p.no_echo))
                .collect(),
        })
    }

    pub(super) async fn events_since(
        &self,
        stack: &StackId,
        after: Option<&str>,
    ) -> Result<Vec<StackEvent>, Error> {
        self.world.call("DescribeStackEvents").await?;
        let mut tx = self.world.begin().await?;
        self.load(&mut tx, &StackRef::Id(stack.clone())).await?;
        let rows = sqlx::query("SELECT body FROM events WHERE stack = $1 ORDER BY number")
            .bind(stack.as_str())
            .fetch_all(&mut *tx)
            .await
            .map_err(WorldError::from)?;
        tx.commit().await.map_err(WorldError::from)?;
        let mut events = Vec::new();
        for row in rows {
            let body: &str = row.try_get(0).map_err(WorldError::from)?;
            events.push(serde_json::from_str::<StackEvent>(body).map_err(WorldError::from)?);
        }
        if let Some(known) = after.and_then(|id| events.iter().position(|e| e.id == id)) {
            events.drain(..=known);
        }
        Ok(events)
    }

    /// Reads a template as CloudFormation reads a `TemplateURL`.
    pub(super) async fn body_of(&self, url: &str) -> Result<String, Error> {
        let bad = || {
            Error::Refused(format!(
                "TemplateURL must name an object of this world: {url}"
            ))
        };
        let rest = url.strip_prefix("local://").ok_or_else(bad)?;
        let (store, key) = rest.split_once('/').ok_or_else(bad)?;
        let (key, version) = match key.split_once("?versionId=") {
            Some((key, version)) => (key, Some(version)),
            None => (key, None),
        };
        let bytes = read_all(
            &LocalObjects::new(self.world.clone(), store),
            key,
            version,
            TEMPLATE_LIMIT,
        )
        .await?;
        String::from_utf8(bytes).map_err(|_| Error::Refused("the template is not UTF-8".into()))
    }
}
