//! Versions of parameters of Systems Manager and of secrets. Values that come along are dropped unread.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::error;
use super::session::Session;
use crate::domain::cfn::{Keeper, Reference};
use crate::domain::model::AccountId;
use crate::port::{Error, Versions};

/// The most names that GetParameters takes at once:
/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html>
const NAMES: usize = 10;
/// The stage that is meant where none is named.
const CURRENT: &str = "AWSCURRENT";

/// What one account and region keep.
pub struct AwsVersions {
    session: Session,
    account: AccountId,
    checked: OnceCell<()>,
    parameters: aws_sdk_ssm::Client,
    secrets: aws_sdk_secretsmanager::Client,
}

impl AwsVersions {
    /// Looks with the rights of a session, which have to be of this account.
    pub fn new(session: &Session, account: AccountId) -> Self {
        Self {
            session: session.clone(),
            account,
            checked: OnceCell::new(),
            parameters: session.parameters(),
            secrets: session.secrets(),
        }
    }

    /// Encrypted ones are not opened: their version is told all the same.
    async fn of_parameters(
        &self,
        names: &[&str],
        found: &mut BTreeMap<String, String>,
    ) -> Result<(), Error> {
        for some in names.chunks(NAMES) {
            let asked = some.iter().map(|n| (*n).to_owned()).collect();
            let answer = self
                .parameters
                .get_parameters()
                .set_names(Some(asked))
                .with_decryption(false)
                .send()
                .await
                .map_err(|e| error::of("GetParameters", &some.join(", "), e))?;
            for parameter in answer.parameters() {
                // Asked for by name or by ARN: it is one of the two.
                for name in [parameter.name(), parameter.arn()].into_iter().flatten() {
                    if some.contains(&name) && parameter.version() > 0 {
                        found.insert(name.to_owned(), parameter.version().to_string());
                    }
                }
            }
        }
        Ok(())
    }

    async fn of_secret(&self, name: &str, stage: &str) -> Result<Option<String>, Error> {
        let answer = match self.secrets.describe_secret().secret_id(name).send().await {
            Ok(answer) => answer,
            Err(failed)
                if failed
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_not_found_exception()) =>
            {
                return Ok(None);
            }
            Err(failed) => return Err(error::of("DescribeSecret", name, failed)),
        };
        // One that is to be deleted can be read by nobody.
        if answer.deleted_date().is_some() {
            return Ok(None);
        }
        let versions = answer.version_ids_to_stages().into_iter().flatten();
        let mut staged = versions.filter(|(_, stages)| stages.iter().any(|s| s == stage));
        Ok(staged.next().map(|(id, _)| id.clone()))
    }
}

#[async_trait]
impl Versions for AwsVersions {
    async fn versions(
        &self,
        of: &BTreeSet<Reference>,
    ) -> Result<BTreeMap<Reference, String>, Error> {
        let check = self.session.is_of(&self.account);
        self.checked.get_or_try_init(|| check).await?;
        let is_secret = |r: &&Reference| r.keeper == Keeper::Secret;
        let names: BTreeSet<&str> = of
            .iter()
            .filter(|r| !is_secret(r))
            .map(|r| r.name.as_str())
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        let mut parameters = BTreeMap::new();
        self.of_parameters(&names, &mut parameters).await?;
        let mut found = BTreeMap::new();
        for reference in of {
            let version = if is_secret(&reference) {
                let stage = reference.stage.as_deref().unwrap_or(CURRENT);
                self.of_secret(&reference.name, stage).await?
            } else {
                parameters.get(&reference.name).cloned()
            };
            if let Some(version) = version {
                found.insert(reference.clone(), version);
            }
        }
        Ok(found)
    }
}
