//! Values that templates refer to: the world knows that they are there and how often they were changed, and no value.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::world::{World, WorldError, get, put};
use crate::domain::cfn::Reference;
use crate::domain::model::{AccountId, Region};
use crate::port::{Error, Told, Versions};

/// What one account and region of a world keep.
pub struct LocalVersions {
    world: World,
    account: AccountId,
    region: Region,
}

impl LocalVersions {
    /// Looks into a world.
    pub fn new(world: World, account: AccountId, region: Region) -> Self {
        Self {
            world,
            account,
            region,
        }
    }

    fn id(&self, reference: &Reference) -> String {
        format!("{}|{}|{reference}", self.account, self.region)
    }

    /// Gives something that templates refer to a new version, the first where there is none, and returns it.
    pub async fn rotate(&self, reference: &Reference) -> Result<String, WorldError> {
        let mut tx = self.world.begin().await?;
        let id = self.id(reference);
        let version = get::<u64>(&mut tx, "value", &id).await?.unwrap_or_default() + 1;
        put(&mut tx, "value", &id, "", &version).await?;
        tx.commit().await?;
        Ok(version.to_string())
    }
}

#[async_trait]
impl Versions for LocalVersions {
    async fn versions(&self, of: &BTreeSet<Reference>) -> Result<Told, Error> {
        let mut tx = self.world.begin().await.map_err(Error::from)?;
        let mut found = Told::new();
        for reference in of {
            if let Some(version) = get::<u64>(&mut tx, "value", &self.id(reference)).await? {
                found.insert(reference.clone(), Ok(version.to_string()));
            }
        }
        tx.commit().await.map_err(WorldError::from)?;
        Ok(found)
    }
}
