//! The ports on AWS: one session for each placement and region, one for each bundle store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::errand::errand;
use crate::aws::{
    Aws, AwsVersions, Bucket, Budgets, IamRoles, KmsKeys, Place, Reach, Role, S3Objects, Session,
    SqsQueue, Stacks,
};
use crate::clock::Clock;
use crate::config::{self, Config, Root, ShelfPlace, Signing};
use crate::domain::estate::Placement;
use crate::domain::model::{PlacementName, Region, SourceName};
use crate::domain::pace::Urgency;
use crate::domain::policy::Mode;
use crate::port::{
    self, Error, Forge, HintQueue, KeyService, ObjectStore, Ports, Purpose, Roles, StackEngine,
    Traffic, Versions,
};

/// How many deployments have sessions at hand. One that is forgotten is taken anew.
const ERRANDS: usize = 256;

/// What the session of a deployment is taken from.
struct Hand {
    before: Session,
    role: Role,
    place: Place,
}

type Spot = (PlacementName, Region);

/// The ports of an installation on AWS. Opening them calls nothing.
pub struct AwsPorts {
    hands: BTreeMap<Spot, Hand>,
    errands: Mutex<VecDeque<(Spot, Purpose, Arc<Stacks>)>>,
    aws: config::Aws,
    clock: Clock,
    engines: BTreeMap<(PlacementName, Region, Urgency), Arc<Stacks>>,
    versions: BTreeMap<Spot, Arc<AwsVersions>>,
    roles: BTreeMap<Spot, Arc<IamRoles>>,
    budgets: Budgets,
    queues: Vec<Arc<SqsQueue>>,
    stores: BTreeMap<String, Arc<S3Objects>>,
    serves: BTreeMap<(PlacementName, Region), String>,
    home: Arc<S3Objects>,
    keys: Option<Arc<KmsKeys>>,
    shelves: BTreeMap<SourceName, Arc<S3Objects>>,
    root: Option<Arc<KmsKeys>>,
    signing: Option<(String, Arc<KmsKeys>)>,
    forges: BTreeMap<SourceName, Arc<dyn Forge>>,
}

impl AwsPorts {
    /// Opens what a configuration names.
    pub async fn open(
        aws: &config::Aws,
        config: &Config,
        clock: &Clock,
        forges: BTreeMap<SourceName, Arc<dyn Forge>>,
    ) -> Self {
        let reached = Aws::connect(reach(aws)).await;
        let mut engines = BTreeMap::new();
        let budgets = Budgets::new(clock.clone());
        let mut apart = BTreeMap::new();
        let mut versions = BTreeMap::new();
        let mut known_roles = BTreeMap::new();
        for placement in config.placements.values() {
            let hands = aws.hands.get(&placement.name).cloned().unwrap_or_default();
            let last = hand(placement.mode, &hands);
            let roles = chain(aws, last);
            for region in &placement.regions {
                let place = Place {
                    account: placement.account.clone(),
                    service_role: hands.cloudformation.clone(),
                };
                let session = reached.session(region, &roles).await;
                let key = (placement.name.clone(), region.clone());
                if let Some(role) = last.filter(|_| aws.deployments.are_apart()) {
                    let hand = Hand {
                        before: reached.session(region, &chain(aws, None)).await,
                        role: taken(role),
                        place: place.clone(),
                    };
                    apart.insert(key, hand);
                }
                if placement.pin_references {
                    let spot = (placement.name.clone(), region.clone());
                    versions.insert(
                        spot,
                        Arc::new(AwsVersions::new(&session, placement.account.clone())),
                    );
                }
                let iam = IamRoles::new(&session, hands.cloudformation.clone());
                let spot = (placement.name.clone(), region.clone());
                known_roles.insert(spot, Arc::new(iam));
                let budget = budgets.of(&placement.account, region);
                let stacks = Stacks::new(session, place, clock.clone()).within(budget);
                for urgency in [Urgency::Run, Urgency::Look, Urgency::Sweep] {
                    let key = (placement.name.clone(), region.clone(), urgency);
                    engines.insert(key, Arc::new(stacks.at(urgency)));
                }
            }
        }
        let mut stores = BTreeMap::new();
        for (name, store) in &aws.stores {
            stores.insert(name.clone(), Arc::new(opened(&reached, aws, store).await));
        }
        let home = &aws.stores[&aws.home];
        // Also where bundles are not sealed any more: those that were must still be opened.
        let mut known = home.key.iter().chain(&home.former_keys).cloned();
        let keys = match known.next() {
            Some(key) => {
                let roles = chain(aws, home.role.as_ref());
                let session = reached.session(&home.region, &roles).await;
                let former = known.collect();
                Some(Arc::new(KmsKeys::new(&session, key, former, None)))
            }
            None => None,
        };
        let mut shelves = BTreeMap::new();
        for (name, shelf) in &config.shelves {
            if let ShelfPlace::S3(store) = &shelf.place {
                let objects = opened(&reached, aws, store).await;
                shelves.insert(name.clone(), Arc::new(objects));
            }
        }
        let root = match &config.root {
            Root::Kms(root) => {
                let roles = chain(aws, root.role.as_ref());
                let session = reached.session(&root.region, &roles).await;
                let keys = KmsKeys::new(&session, root.key.clone(), Vec::new(), None);
                Some(Arc::new(keys))
            }
            Root::File(_) => None,
        };
        let signing = match &config.signing {
            Some(Signing::Kms(key)) => {
                let roles = chain(aws, key.role.as_ref());
                let session = reached.session(&key.region, &roles).await;
                let arn = key.key.clone();
                let signs = Some(arn.clone());
                let keys = KmsKeys::new(&session, arn.clone(), Vec::new(), signs);
                Some((arn, Arc::new(keys)))
            }
            Some(Signing::Local(_)) | None => None,
        };
        let mut queues = Vec::new();
        for queue in &aws.queues {
            queues.push(Arc::new(hint_queue(&reached, aws, queue).await));
        }
        Self {
            hands: apart,
            errands: Mutex::default(),
            aws: aws.clone(),
            clock: clock.clone(),
            root,
            signing,
            forges,
            shelves,
            engines,
            versions,
            roles: known_roles,
            budgets,
            queues,
            serves: aws.serves.clone(),
            home: stores[&aws.home].clone(),
            stores,
            keys,
        }
    }
}

pub(super) fn reach(aws: &config::Aws) -> Reach {
    Reach {
        endpoint: aws.endpoint.clone(),
        home: Some(aws.stores[&aws.home].region.clone()),
        fips: aws.fips,
        dual_stack: aws.dual_stack,
        session: aws.session.clone(),
        tags: aws.session_tags.clone(),
        patience: None,
    }
}

/// A placement that is only observed is worked in with the hands that cannot execute, where there are such.
fn hand(mode: Mode, hands: &config::Hands) -> Option<&config::Hop> {
    match mode {
        Mode::Observe => hands.preview.as_ref().or(hands.apply.as_ref()),
        Mode::Approve | Mode::Auto => hands.apply.as_ref(),
    }
}

pub(super) fn chain(aws: &config::Aws, last: Option<&config::Hop>) -> Vec<Role> {
    aws.chain.iter().chain(last).map(taken).collect()
}

fn taken(hop: &config::Hop) -> Role {
    Role {
        arn: hop.arn.clone(),
        external_id: hop.external_id.clone(),
    }
}

/// Opens a bucket that no configuration names, as the environment reaches AWS.
pub async fn open_bucket(store: &config::S3Store) -> Arc<dyn ObjectStore> {
    let reached = Aws::connect(Reach {
        home: Some(store.region.clone()),
        session: "isoform".into(),
        ..Reach::default()
    })
    .await;
    let roles: Vec<Role> = store.role.iter().map(taken).collect();
    let session = reached.session(&store.region, &roles).await;
    Arc::new(S3Objects::new(&session, bucket_of(store)))
}

pub(super) async fn opened(reached: &Aws, aws: &config::Aws, store: &config::S3Store) -> S3Objects {
    let session = reached
        .session(&store.region, &chain(aws, store.role.as_ref()))
        .await;
    S3Objects::new(&session, bucket_of(store))
}

fn bucket_of(store: &config::S3Store) -> Bucket {
    Bucket {
        name: store.bucket.clone(),
        prefix: store.prefix.clone(),
        owner: store.owner.clone(),
        region: store.region.clone(),
        at_rest: match &store.key {
            Some(key) => port::Encryption::Key(key.clone()),
            None => port::Encryption::Store,
        },
        former_keys: store.former_keys.clone(),
    }
}

pub(super) async fn hint_queue(
    reached: &Aws,
    aws: &config::Aws,
    queue: &config::HintQueue,
) -> SqsQueue {
    let roles = chain(aws, queue.role.as_ref());
    let session = reached.session(&queue.region, &roles).await;
    SqsQueue::new(&session, &queue.account, &queue.name)
}

impl Ports for AwsPorts {
    fn engine(
        &self,
        placement: &Placement,
        region: &Region,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        self.engine_for(placement, region, Urgency::Look)
    }

    fn engine_for(
        &self,
        placement: &Placement,
        region: &Region,
        urgency: Urgency,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        let key = (placement.name.clone(), region.clone(), urgency);
        match self.engines.get(&key) {
            Some(engine) => Ok(engine.clone()),
            None => Err(Error::Unsupported(
                "a region that the configuration gives the placement no more",
            )),
        }
    }

    fn versions(&self, placement: &Placement, region: &Region) -> Result<Arc<dyn Versions>, Error> {
        match self.versions.get(&(placement.name.clone(), region.clone())) {
            Some(versions) => Ok(versions.clone()),
            None => Err(Error::Unsupported(
                "a region that the configuration gives the placement no more",
            )),
        }
    }

    fn roles(&self, placement: &Placement, region: &Region) -> Option<Arc<dyn Roles>> {
        let spot = (placement.name.clone(), region.clone());
        let roles = self.roles.get(&spot)?;
        Some(roles.clone())
    }

    fn hints(&self) -> Vec<Arc<dyn HintQueue>> {
        let all = self.queues.iter().cloned();
        all.map(|q| q as Arc<dyn HintQueue>).collect()
    }

    fn traffic(&self) -> Vec<Traffic> {
        self.budgets.traffic()
    }

    fn deploying(
        &self,
        placement: &Placement,
        region: &Region,
        purpose: &Purpose,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        let spot = (placement.name.clone(), region.clone());
        let Some(hand) = self.hands.get(&spot) else {
            return self.engine_for(placement, region, Urgency::Run);
        };
        let mut errands = self.errands.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., known)) = errands.iter().find(|(s, p, _)| *s == spot && p == purpose) {
            return Ok(known.clone());
        }
        let by_service_role = hand.place.service_role.is_some();
        let account = &hand.place.account;
        let errand = errand(&self.aws, account, region, by_service_role, purpose);
        let session = hand.before.take(&hand.role, errand);
        let stacks = Stacks::new(session, hand.place.clone(), self.clock.clone());
        let budget = self.budgets.of(account, region);
        let stacks = Arc::new(stacks.within(budget).at(Urgency::Run));
        errands.push_back((spot, purpose.clone(), stacks.clone()));
        if errands.len() > ERRANDS {
            errands.pop_front();
        }
        Ok(stacks)
    }

    fn store(&self, placement: &Placement, region: &Region) -> Result<Arc<dyn ObjectStore>, Error> {
        let key = (placement.name.clone(), region.clone());
        let store = self.serves.get(&key).and_then(|n| self.stores.get(n));
        match store {
            Some(store) => Ok(store.clone()),
            None => Err(Error::Unsupported(
                "a region that the configuration gives the placement no more",
            )),
        }
    }

    fn forge(&self, source: &SourceName) -> Option<Arc<dyn Forge>> {
        self.forges.get(source).cloned()
    }

    fn shelf(&self, source: &SourceName) -> Option<Arc<dyn ObjectStore>> {
        let shelf = self.shelves.get(source)?;
        Some(shelf.clone())
    }

    fn home(&self) -> Arc<dyn ObjectStore> {
        self.home.clone()
    }

    fn root(&self) -> Option<Arc<dyn KeyService>> {
        self.root.clone().map(|k| k as Arc<dyn KeyService>)
    }

    fn sealing(&self) -> Option<Arc<dyn KeyService>> {
        self.keys.clone().map(|k| k as Arc<dyn KeyService>)
    }

    fn signing(&self) -> Option<(String, Arc<dyn KeyService>)> {
        let (name, keys) = self.signing.clone()?;
        Some((name, keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_sealed_before_can_be_opened_under_every_encryption() {
        const FILE: &str = r#"
isoform: 1
accounts: { prod: { id: "333333333333" } }
placements: { prod: { account: prod, regions: [us-east-1] } }
sources: { p: { url: /srv/p.git, may: { services: ["*"], placements: [prod] } } }
bundle_stores: { us: { url: "s3://acme-us", owner: "333333333333", region: us-east-1, ENCRYPTION } }
state: { path: state, key: "file:root.key" }
"#;
        let arn = "arn:aws:kms:us-east-1:333333333333:key/k";
        for (encryption, opens) in [
            (format!("encryption: client-kms, key: '{arn}'"), true),
            (format!("encryption: sse-kms, key: '{arn}'"), true),
            (format!("encryption: sse-s3, former_keys: ['{arn}']"), true),
            ("encryption: sse-s3".to_owned(), false),
        ] {
            let file = serde_yaml::from_str(&FILE.replace("ENCRYPTION", &encryption)).unwrap();
            let config = Config::resolve(&file, std::path::Path::new("/x")).unwrap();
            let aws = config.aws.clone().unwrap();

            let ports = AwsPorts::open(&aws, &config, &Clock::system(), BTreeMap::new()).await;

            assert_eq!(ports.sealing().is_some(), opens, "{encryption}");
        }
    }

    #[test]
    fn what_is_only_observed_is_worked_in_with_the_weaker_hands() {
        let hop = |name: &str| {
            Some(config::Hop {
                arn: name.into(),
                external_id: None,
            })
        };
        let both = config::Hands {
            preview: hop("look"),
            apply: hop("act"),
            cloudformation: None,
        };
        let one = config::Hands {
            preview: None,
            ..both.clone()
        };
        let arn = |mode, hands| hand(mode, hands).map(|h| h.arn.clone());
        assert_eq!(arn(Mode::Observe, &both).as_deref(), Some("look"));
        assert_eq!(arn(Mode::Observe, &one).as_deref(), Some("act"));
        assert_eq!(arn(Mode::Auto, &both).as_deref(), Some("act"));
    }
}
