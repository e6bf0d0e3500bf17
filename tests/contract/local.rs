//! The embedded engine as a world for the suite: time stands still until a case lets it pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use isoform::clock::Clock;
use isoform::domain::cfn::Reference;
use isoform::domain::model::Timestamp;
use isoform::local::{
    ByHand, Failure, LocalEngine, LocalKeys, LocalObjects, LocalVersions, Phase, World,
};
use isoform::port::{KeyService, ObjectStore, Put, StackEngine, Versions, body};
use serde_json::Value;

use crate::harness::{During, Harness};

pub struct Local {
    _folder: tempfile::TempDir,
    clock: Clock,
    world: World,
    turn: AtomicU64,
}

/// Makes a world.
pub async fn fresh() -> Local {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::standing(Timestamp(1_000_000));
    let world = World::open(folder.path(), clock.clone(), 1.0)
        .await
        .unwrap();
    Local {
        _folder: folder,
        clock,
        world,
        turn: AtomicU64::new(0),
    }
}

impl Local {
    /// The engine itself, for what only it can do.
    pub fn local(&self) -> LocalEngine {
        LocalEngine::new(
            self.world.clone(),
            "111111111111".parse().unwrap(),
            "eu-west-1".parse().unwrap(),
        )
    }

    fn values(&self) -> LocalVersions {
        LocalVersions::new(
            self.world.clone(),
            "111111111111".parse().unwrap(),
            "eu-west-1".parse().unwrap(),
        )
    }

    pub fn world(&self) -> &World {
        &self.world
    }
}

#[async_trait]
impl Harness for Local {
    fn engine(&self) -> Arc<dyn StackEngine> {
        Arc::new(self.local())
    }

    fn name(&self, word: &str) -> String {
        word.to_owned()
    }

    async fn put(&self, text: &str) -> String {
        let store = LocalObjects::new(self.world.clone(), "templates");
        let key = format!("t{}", self.turn.fetch_add(1, Ordering::Relaxed));
        let options = Put::default();
        let put = store.put(&key, body(text.as_bytes()), &options);
        let meta = put.await.unwrap();
        store.url(&key, meta.version.as_deref())
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    async fn fail(&self, stack: &str, logical: &str, during: During, on: bool) -> bool {
        let failure = Failure {
            stack: stack.into(),
            logical: logical.into(),
            reason: if on { "scripted".into() } else { String::new() },
            times: None,
            phase: match during {
                During::Make => Phase::Make,
                During::Delete => Phase::Delete,
                During::Rollback => Phase::Rollback,
            },
        };
        self.world.script(&failure).await.unwrap();
        true
    }

    async fn meddle(&self, stack: &str) -> bool {
        self.local().meddle(&stack.parse().unwrap()).await.unwrap();
        true
    }

    async fn change(&self, stack: &str, logical: &str, set: Option<Value>) -> bool {
        let change = match set {
            Some(Value::Object(set)) => ByHand::Set(set),
            _ => ByHand::Delete,
        };
        let name = stack.parse().unwrap();
        self.local().by_hand(&name, logical, &change).await.unwrap();
        true
    }

    fn versions(&self) -> Arc<dyn Versions> {
        Arc::new(self.values())
    }

    async fn rotate(&self, reference: &Reference) {
        self.values().rotate(reference).await.unwrap();
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(LocalObjects::new(self.world.clone(), "bundles"))
    }

    fn keys(&self) -> Arc<dyn KeyService> {
        Arc::new(LocalKeys::open(&self.world, "bundles").unwrap())
    }

    fn later(&self) -> Timestamp {
        self.clock.now().plus(Duration::from_secs(3600))
    }

    fn is_cheap(&self) -> bool {
        true
    }
}
