//! Versions of parameters of Systems Manager and of secrets. Values that come along are dropped unread.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::error;
use super::session::Session;
use crate::domain::cfn::{Keeper, Reference};
use crate::domain::model::AccountId;
use crate::port::{Disposition, Error, Told, Versions};

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

    /// Encrypted ones are not opened: their version is told all the same. A name that may not be read, or is none, refuses the
    /// whole call: then each is asked for by itself.
    async fn of_parameters(
        &self,
        names: &[&str],
    ) -> Result<BTreeMap<String, Result<String, Error>>, Error> {
        let mut found = BTreeMap::new();
        for some in names.chunks(NAMES) {
            match self.get_parameters(some).await {
                Ok(versions) => found.extend(versions.into_iter().map(|(n, v)| (n, Ok(v)))),
                Err(refused) if refused.disposition() == Disposition::Stall => {
                    for name in some {
                        match self.get_parameters(std::slice::from_ref(name)).await {
                            Ok(one) => found.extend(one.into_iter().map(|(n, v)| (n, Ok(v)))),
                            Err(error) if error.disposition() == Disposition::Stall => {
                                found.insert((*name).to_owned(), Err(error));
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn get_parameters(&self, names: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let asked = names.iter().map(|n| (*n).to_owned()).collect();
        let answer = self
            .parameters
            .get_parameters()
            .set_names(Some(asked))
            .with_decryption(false)
            .send()
            .await
            .map_err(|e| error::of("GetParameters", &names.join(", "), e))?;
        let mut found = BTreeMap::new();
        for parameter in answer.parameters() {
            // Asked for by name or by ARN: it is one of the two.
            for name in [parameter.name(), parameter.arn()].into_iter().flatten() {
                if names.contains(&name) && parameter.version() > 0 {
                    found.insert(name.to_owned(), parameter.version().to_string());
                }
            }
        }
        Ok(found)
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
    async fn versions(&self, of: &BTreeSet<Reference>) -> Result<Told, Error> {
        let check = self.session.is_of(&self.account);
        self.checked.get_or_try_init(|| check).await?;
        let is_secret = |r: &&Reference| r.keeper == Keeper::Secret;
        let names: BTreeSet<&str> = of
            .iter()
            .filter(|r| !is_secret(r))
            .map(|r| r.name.as_str())
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        let parameters = self.of_parameters(&names).await?;
        let mut found = Told::new();
        for reference in of {
            let version = if is_secret(&reference) {
                let stage = reference.stage.as_deref().unwrap_or(CURRENT);
                match self.of_secret(&reference.name, stage).await {
                    Err(error) if error.disposition() != Disposition::Stall => return Err(error),
                    told => told.transpose(),
                }
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
