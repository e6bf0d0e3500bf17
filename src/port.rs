//! The ports: where somebody else's servers stand.
//!
//! A trait is allowed here because the far side costs money, rights or a network. They speak words of the domain
//! only. They are cut for everything that is planned; an adapter implements each call or answers
//! [`Error::Unsupported`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::domain::cfn::Reference;
use crate::domain::estate::Placement;
use crate::domain::forge::{Check, ForgeKind, Permission, Person, PullComment, PullRequest};
use crate::domain::model::{
    AccountId, Address, Region, Revision, SourceName, StackId, StackName, Timestamp,
};
use crate::domain::pace::Urgency;
use crate::domain::plan::{Change, ChangeSetStatus, Observed, StackStatus};
use crate::domain::seal::{DataKey, EncryptedDataKey, EncryptionContext};

/// Why a call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The thing is not there.
    #[error("{0} does not exist")]
    NotFound(String),
    /// A condition of a put does not hold: somebody else was there first.
    #[error("{0} exists already")]
    Exists(String),
    /// The service refused the content of the call.
    #[error("refused: {0}")]
    Refused(String),
    /// What is asked for needs capabilities that were not acknowledged.
    #[error("capabilities are missing: {0}")]
    Incapable(String),
    /// The service refused one more of what there is too much of already.
    #[error("too many: {0}")]
    TooMany(String),
    /// The service refused the caller.
    #[error("access denied: {0}")]
    Denied(String),
    /// A key that is needed cannot be used: disabled, deleted, or not for this caller.
    #[error("key unavailable: {0}")]
    KeyUnavailable(String),
    /// The service is busy with the same thing.
    #[error("busy: {0}")]
    Busy(String),
    /// Too many calls.
    #[error("throttled")]
    Throttled,
    /// Too many calls, and the service says how long to wait.
    #[error("to be asked again in {} s", .0.as_secs())]
    Limited(Duration),
    /// No answer, or a fault of the service. The effect may or may not have happened.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// A call with this token was taken before: the effect has happened or is under way.
    #[error("already accepted")]
    AlreadyAccepted,
    /// The adapter cannot do this.
    #[error("{0} is not supported here")]
    Unsupported(&'static str),
    /// What came back cannot be right.
    #[error("the answer is not trusted: {0}")]
    Untrusted(String),
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Try again after a while; the wait grows.
    Retry,
    /// Try again after this long.
    WaitFor(Duration),
    /// A person must act.
    Stall,
}

impl Error {
    /// Tells what to do. The only place that decides about retries of ports.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Throttled => Disposition::WaitFor(Duration::from_secs(2)),
            Self::Limited(wait) => Disposition::WaitFor(*wait),
            Self::Busy(_) => Disposition::WaitFor(Duration::from_secs(1)),
            Self::Unavailable(_) | Self::NotFound(_) | Self::Exists(_) | Self::AlreadyAccepted => {
                Disposition::Retry
            }
            // Nobody is told when somebody enables it again.
            Self::KeyUnavailable(_) => Disposition::WaitFor(Duration::from_secs(60)),
            Self::Refused(_)
            | Self::Incapable(_)
            | Self::TooMany(_)
            | Self::Denied(_)
            | Self::Unsupported(_)
            | Self::Untrusted(_) => Disposition::Stall,
        }
    }
}

/// A stream of bytes.
pub type Body = Box<dyn AsyncRead + Send + Unpin>;

/// Encryption at rest that the store applies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// The store's own key.
    Store,
    /// A key of ours.
    Key(String),
}

/// How an object is put.
#[derive(Clone, Debug)]
pub struct Put {
    /// Only if there is none.
    pub if_absent: bool,
    /// Only over this tag.
    pub if_match: Option<String>,
    /// SHA-256 of the body, hexadecimal: checked by the store.
    pub sha256: Option<String>,
    /// Encryption at rest.
    pub encryption: Encryption,
    /// Not deletable before.
    pub retain_until: Option<Timestamp>,
    /// Whether whoever has a right of its own may end that early.
    pub governed: bool,
    /// Not deletable until somebody takes this away.
    pub legal_hold: bool,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
}

impl Default for Put {
    fn default() -> Self {
        Self {
            if_absent: true,
            if_match: None,
            sha256: None,
            encryption: Encryption::Store,
            retain_until: None,
            governed: false,
            legal_hold: false,
            metadata: BTreeMap::new(),
        }
    }
}

/// What is known of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectMeta {
    /// Its key.
    pub key: String,
    /// Its version, where the store keeps versions.
    pub version: Option<String>,
    /// Its tag.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256, hexadecimal.
    pub sha256: Option<String>,
    /// Encryption at rest, as the store asserts it; absent where it says nothing, as in a listing.
    pub encryption: Option<Encryption>,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
}

/// A page of a listing. No next token means that this was the last.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The token for the next page.
    pub next: Option<String>,
}

/// Where one is in a listing. A token that comes again would be followed for ever.
#[derive(Debug, Default)]
pub struct Pages {
    token: Option<String>,
    seen: BTreeSet<String>,
    at_end: bool,
}

impl Pages {
    /// Tells whether there is another page.
    pub fn go_on(&self) -> bool {
        !self.at_end
    }

    /// Returns the token of the page that is next.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Turns to the page that the last one named; refuses one that was read before.
    pub fn turn(&mut self, next: Option<String>) -> Result<(), Error> {
        let Some(next) = next else {
            self.at_end = true;
            return Ok(());
        };
        if !self.seen.insert(next.clone()) {
            return Err(Error::Untrusted(
                "a listing leads back to a page that it had before".into(),
            ));
        }
        self.token = Some(next);
        Ok(())
    }
}

/// Objects by key.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Puts an object and returns what the store says of it.
    async fn put(&self, key: &str, body: Body, options: &Put) -> Result<ObjectMeta, Error>;
    /// Opens an object, the newest version or a given one.
    async fn get(&self, key: &str, version: Option<&str>) -> Result<(ObjectMeta, Body), Error>;
    /// Describes an object.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, Error>;
    /// Lists keys with a prefix, in order. A line tells key, tag and size; the rest only where the store lists it.
    async fn list(&self, prefix: &str, token: Option<&str>) -> Result<Page<ObjectMeta>, Error>;
    /// Deletes an object.
    async fn delete(&self, key: &str) -> Result<(), Error>;
    /// Returns the URL under which CloudFormation reads an object.
    fn url(&self, key: &str, version: Option<&str>) -> String;
}

/// Reads an object whole, up to a limit.
pub async fn read_all(
    store: &dyn ObjectStore,
    key: &str,
    version: Option<&str>,
    limit: u64,
) -> Result<Vec<u8>, Error> {
    Ok(read_whole(store, key, version, limit).await?.1)
}

/// Reads an object whole, up to a limit, with what the store says of it.
pub async fn read_whole(
    store: &dyn ObjectStore,
    key: &str,
    version: Option<&str>,
    limit: u64,
) -> Result<(ObjectMeta, Vec<u8>), Error> {
    let (meta, body) = store.get(key, version).await?;
    if meta.size > limit {
        return Err(Error::Untrusted(format!(
            "{key} has {} bytes, at most {limit} are read",
            meta.size
        )));
    }
    let mut bytes = Vec::new();
    body.take(limit + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|e| Error::Unavailable(e.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Untrusted(format!(
            "{key} has more than {limit} bytes"
        )));
    }
    Ok((meta, bytes))
}

/// Makes a body of bytes.
pub fn body(bytes: impl Into<Vec<u8>>) -> Body {
    Box::new(std::io::Cursor::new(bytes.into()))
}

/// Keys that never leave their service.
#[async_trait]
pub trait KeyService: Send + Sync {
    /// Makes a data key: in the clear, and wrapped under the context.
    async fn data_key(
        &self,
        context: &EncryptionContext,
    ) -> Result<(DataKey, EncryptedDataKey), Error>;
    /// Unwraps the one of several wrapped keys that is this service's.
    async fn unwrap(
        &self,
        keys: &[EncryptedDataKey],
        context: &EncryptionContext,
    ) -> Result<DataKey, Error>;
    /// Wraps a key anew under the newest version of the service's key.
    async fn rewrap(
        &self,
        key: &EncryptedDataKey,
        context: &EncryptionContext,
    ) -> Result<EncryptedDataKey, Error>;
    /// Describes the key: its id and version.
    async fn describe(&self) -> Result<String, Error>;
    /// Returns the public half of the key that signs, on P-256: SubjectPublicKeyInfo in DER.
    async fn public_key(&self) -> Result<Vec<u8>, Error>;
    /// Signs bytes: ECDSA on P-256 with SHA-256, ASN.1 in DER.
    async fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Error>;
}

/// Names a stack. By name a deleted stack is absent, by ARN it can still be described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StackRef {
    /// By name: only before there is an ARN.
    Name(StackName),
    /// By ARN.
    Id(StackId),
}

/// A line of a listing of stacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StackSummary {
    /// Its ARN.
    pub stack_id: StackId,
    /// Its name.
    pub name: StackName,
    /// Its status.
    pub status: StackStatus,
    /// When it was last updated.
    pub updated: Option<Timestamp>,
    /// The newest operation that is not `CREATE_CHANGESET`.
    pub operation: Option<String>,
}

/// What becomes of a stack whose operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum OnFailure {
    /// A creation is rolled back and the stack deleted; an update is rolled back.
    #[default]
    Delete,
    /// It is rolled back; after a creation an empty stack stays.
    Rollback,
    /// Everything stays as the failure left it.
    Keep,
}

/// What a change set is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// The stack's name.
    pub stack: StackName,
    /// The change set's name: never used twice.
    pub name: String,
    /// The token that makes a repeat the same call.
    pub token: String,
    /// Whether the stack is made.
    pub create: bool,
    /// Resources to take in, by logical id: type and identifier.
    pub import: BTreeMap<String, (String, BTreeMap<String, String>)>,
    /// Where CloudFormation reads the template.
    pub template_url: String,
    /// Parameters.
    pub parameters: BTreeMap<String, String>,
    /// Names of parameters that keep the values which the stack has: nothing is sent for them.
    pub kept: BTreeSet<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Acknowledged capabilities.
    pub capabilities: Vec<String>,
    /// Notification topics.
    pub notification_arns: Vec<String>,
    /// Alarms that roll back.
    pub rollback_triggers: Vec<String>,
    /// Minutes the alarms are watched.
    pub monitoring_minutes: u64,
    /// What becomes of the stack when the execution fails.
    pub on_failure: OnFailure,
}

/// What a proposal came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposed {
    /// The change set's ARN.
    pub change_set: String,
    /// The stack's ARN.
    pub stack_id: StackId,
}

/// A change set as read back, all pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeSet {
    /// Its joined status.
    pub status: ChangeSetStatus,
    /// The status's reason.
    pub reason: Option<String>,
    /// What would change.
    pub changes: Vec<Change>,
    /// Whether every property value was shown.
    pub complete: bool,
    /// The capabilities that it acknowledges.
    pub capabilities: Vec<String>,
}

/// A line of a listing of change sets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeSetSummary {
    /// Its ARN.
    pub change_set: String,
    /// Its name.
    pub name: String,
    /// Its joined status.
    pub status: ChangeSetStatus,
}

/// An event of a stack.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct StackEvent {
    /// Its id.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// The operation that it belongs to.
    pub operation: Option<String>,
    /// The token of the call that began the operation.
    pub token: Option<String>,
    /// The logical id; the stack's name for the stack itself.
    pub logical: String,
    /// The type.
    pub kind: String,
    /// The physical id.
    pub physical: Option<String>,
    /// The status, in the API's words.
    pub status: String,
    /// The reason.
    pub reason: Option<String>,
}

/// What a template asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemplateSummary {
    /// Capabilities to acknowledge.
    pub capabilities: Vec<String>,
    /// Why these, in the service's words.
    pub reason: Option<String>,
    /// Names of parameters with whether they are secret.
    pub parameters: BTreeMap<String, bool>,
}

/// How a resource differs from what its stack says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriftState {
    /// Properties that the template sets are otherwise.
    Modified,
    /// It is gone.
    Deleted,
    /// Nobody looked: its type cannot be read back.
    NotChecked,
}

/// A resource that is not, or may not be, what its stack says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drift {
    /// The logical id.
    pub logical: String,
    /// The type.
    pub kind: String,
    /// How it differs.
    pub state: DriftState,
    /// Paths of properties that differ.
    pub properties: Vec<String>,
}

/// CloudFormation in one account and region.
#[async_trait]
pub trait StackEngine: Send + Sync {
    /// Lists live stacks.
    async fn list(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error>;
    /// Lists stacks in motion: those that CloudFormation will move on by itself. Like every listing it may lag behind.
    async fn list_moving(&self, token: Option<&str>) -> Result<Page<StackSummary>, Error> {
        let mut page = self.list(token).await?;
        page.items.retain(|s| !s.status.is_settled());
        Ok(page)
    }
    /// Describes a stack; absent where there is none.
    async fn describe(&self, stack: &StackRef) -> Result<Option<Observed>, Error>;
    /// Returns the original template of a stack.
    async fn template(&self, stack: &StackRef) -> Result<String, Error>;
    /// Returns the original template of a change set.
    async fn change_set_template(&self, change_set: &str) -> Result<String, Error>;
    /// Tells what a template asks for.
    async fn summary(&self, template_url: &str) -> Result<TemplateSummary, Error>;
    /// Makes a change set.
    async fn propose(&self, proposal: &Proposal) -> Result<Proposed, Error>;
    /// Finds a change set by stack and name, to recover a lost answer.
    async fn find(&self, stack: &StackName, name: &str) -> Result<Option<Proposed>, Error>;
    /// Lists the change sets of a stack, whoever made them. Like every listing it may lag behind.
    async fn change_sets(
        &self,
        stack: &StackId,
        token: Option<&str>,
    ) -> Result<Page<ChangeSetSummary>, Error>;
    /// Reads a change set back, all pages.
    async fn review(&self, change_set: &str) -> Result<ChangeSet, Error>;
    /// Runs a change set.
    async fn execute(&self, change_set: &str, token: &str) -> Result<(), Error>;
    /// Stops an update in motion.
    async fn cancel(&self, stack: &StackId, token: &str) -> Result<(), Error>;
    /// Goes on with a rollback that failed, skipping the named resources.
    async fn continue_rollback(
        &self,
        stack: &StackId,
        token: &str,
        skip: &[String],
    ) -> Result<(), Error>;
    /// Rolls a failed stack back.
    async fn rollback(&self, stack: &StackId, token: &str) -> Result<(), Error>;
    /// Deletes a stack, keeping the named resources.
    ///
    /// Resources can be named only where an earlier deletion failed. A deletion that is refused because an export is
    /// in use lets the stack fall back to the status that it had.
    async fn delete(&self, stack: &StackId, token: &str, retain: &[String]) -> Result<(), Error>;
    /// Sets the stack policy.
    async fn set_stack_policy(&self, stack: &StackId, policy: &str) -> Result<(), Error>;
    /// Returns the stack policy.
    async fn stack_policy(&self, stack: &StackId) -> Result<Option<String>, Error>;
    /// Sets the protection against deletion.
    async fn set_protection(&self, stack: &StackId, on: bool) -> Result<(), Error>;
    /// Returns events newer than a known one, oldest first.
    async fn events(&self, stack: &StackId, after: Option<&str>) -> Result<Vec<StackEvent>, Error>;
    /// Compares the resources of a stack with what is really there.
    async fn drift(&self, stack: &StackId) -> Result<Vec<Drift>, Error>;
    /// Deletes a change set that was not executed.
    async fn discard(&self, change_set: &str) -> Result<(), Error>;
    /// The least time between two reads of something in motion: a service that counts calls asks for some.
    fn least_wait(&self) -> Duration {
        Duration::ZERO
    }
}

/// The roles of one account: who may take them.
#[async_trait]
pub trait Roles: Send + Sync {
    /// Returns the role that CloudFormation is given with every change here; absent where a stack keeps the one that it has.
    fn given(&self) -> Option<&str>;
    /// Returns the trust policy of a role, JSON; absent where there is no such role.
    async fn trust(&self, role: &str) -> Result<Option<String>, Error>;
}

/// A forge: where pull requests of one repository live.
///
/// Whoever calls it may be told to wait ([`Error::Limited`]); nothing that is deployed waits for it.
#[async_trait]
pub trait Forge: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> ForgeKind;
    /// Most characters of a comment that it takes.
    fn comment_limit(&self) -> usize;
    /// Returns the open pull requests into a branch, those changed last first. All pages, within bounds.
    async fn open_pulls(&self, base: &str) -> Result<Vec<PullRequest>, Error>;
    /// Returns one pull request; [`Error::NotFound`] where there is none.
    async fn pull(&self, number: u64) -> Result<PullRequest, Error>;
    /// Returns the comments under a pull request whose ids are greater than one that is known, oldest first.
    async fn comments(&self, number: u64, after: u64) -> Result<Vec<PullComment>, Error>;
    /// Writes a comment, or writes it anew in its place: one comment for each marker.
    ///
    /// The marker is a line of its own that nobody sees and that the text begins with. `known` is the id that an earlier
    /// call returned; without it, or where that comment is gone, the comment of this credential that begins with the marker
    /// is looked for. A comment that somebody else wrote is never touched. Returns the id.
    async fn write_comment(
        &self,
        number: u64,
        marker: &str,
        known: Option<u64>,
        text: &str,
    ) -> Result<u64, Error>;
    /// Shows a verdict beside a commit; the same name on the same commit replaces what was there.
    async fn report(&self, check: &Check) -> Result<(), Error>;
    /// Returns what somebody may do in the repository now.
    async fn permission(&self, person: &Person) -> Result<Permission, Error>;
    /// Returns the pull requests by which a commit came in, as far as the forge knows.
    async fn pulls_of(&self, commit: &Revision) -> Result<Vec<u64>, Error>;
    /// Lets deliveries that failed since then be sent again; returns how many. [`Error::Unsupported`] where the forge
    /// keeps none for this credential: then the next poll finds the same.
    async fn redeliver(&self, since: Timestamp) -> Result<usize, Error>;
}

/// A message of a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it is removed by.
    pub receipt: String,
    /// What it says. Anybody may have written it.
    pub body: String,
}

/// A queue that says which stacks have moved.
#[async_trait]
pub trait HintQueue: Send + Sync {
    /// Returns its name, for people.
    fn name(&self) -> &str;
    /// Takes some messages; waits a while where there are none.
    async fn take(&self) -> Result<Vec<Message>, Error>;
    /// Removes messages that were taken. One that is not removed comes again.
    async fn remove(&self, receipts: &[String]) -> Result<(), Error>;
}

/// What is told of references: a version, or why it cannot be told. What does not exist is left out.
pub type Told = BTreeMap<Reference, Result<String, Error>>;

/// Which versions values have that templates refer to, in one account and region. Values themselves are never returned.
#[async_trait]
pub trait Versions: Send + Sync {
    /// Returns the version that each reference names now, of those that there are. One that may not be read is an error of
    /// its own and hides no other.
    async fn versions(&self, of: &BTreeSet<Reference>) -> Result<Told, Error>;
}

/// How often a service was called, by account, region and call, and what it refuses.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// The account.
    pub account: AccountId,
    /// The region.
    pub region: Region,
    /// The call.
    pub call: String,
    /// How often it was made since the daemon began.
    pub made: u64,
    /// How many of those were refused because there were too many.
    pub throttled: u64,
    /// How many wait to be made.
    pub waiting: usize,
    /// At most so many are made in a second now; absent while nothing is held back.
    pub rate: Option<f64>,
    /// When one was last refused, if that was lately.
    pub throttled_at: Option<Timestamp>,
}

/// What somebody works in a placement for: one deployment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Purpose {
    /// The target.
    pub target: Address,
    /// Its stack.
    pub stack: StackName,
    /// The commit that is deployed.
    pub revision: Revision,
}

/// Every port, by where it stands.
pub trait Ports: Send + Sync {
    /// CloudFormation of a placement's account in a region, for whoever looks.
    fn engine(&self, placement: &Placement, region: &Region)
    -> Result<Arc<dyn StackEngine>, Error>;
    /// The same for calls that are more or less urgent, where calls are counted.
    fn engine_for(
        &self,
        placement: &Placement,
        region: &Region,
        _urgency: Urgency,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        self.engine(placement, region)
    }
    /// The same for one deployment: with names, tags and rights of its own, where the adapter has such.
    fn deploying(
        &self,
        placement: &Placement,
        region: &Region,
        _purpose: &Purpose,
    ) -> Result<Arc<dyn StackEngine>, Error> {
        self.engine_for(placement, region, Urgency::Run)
    }
    /// Versions of what templates refer to, in a placement's account in a region.
    fn versions(
        &self,
        _placement: &Placement,
        _region: &Region,
    ) -> Result<Arc<dyn Versions>, Error> {
        Err(Error::Unsupported("looking up versions of references"))
    }
    /// The roles of a placement's account; absent where there are none.
    fn roles(&self, _placement: &Placement, _region: &Region) -> Option<Arc<dyn Roles>> {
        None
    }
    /// Queues that say which stacks have moved.
    fn hints(&self) -> Vec<Arc<dyn HintQueue>> {
        Vec::new()
    }
    /// Tells how often services were called, where calls are counted.
    fn traffic(&self) -> Vec<Traffic> {
        Vec::new()
    }
    /// The bundle store that serves a placement's region.
    fn store(&self, placement: &Placement, region: &Region) -> Result<Arc<dyn ObjectStore>, Error>;
    /// The forge that a source's repository lives on; absent where it has none.
    fn forge(&self, _source: &SourceName) -> Option<Arc<dyn Forge>> {
        None
    }
    /// The archives of a source that is no repository; absent where it is one.
    fn shelf(&self, _source: &SourceName) -> Option<Arc<dyn ObjectStore>> {
        None
    }
    /// The installation's own bundle store: catalogue, owners, log.
    fn home(&self) -> Arc<dyn ObjectStore>;
    /// The key service that bundles are sealed under; absent where they are only encrypted by the store.
    fn sealing(&self) -> Option<Arc<dyn KeyService>>;
    /// The key service that wraps the root key of the daemon's own data; absent where that is a file.
    fn root(&self) -> Option<Arc<dyn KeyService>> {
        None
    }
    /// The key that signs checkpoints of the log beside the log's own, by its name; absent where none is configured.
    fn signing(&self) -> Option<(String, Arc<dyn KeyService>)> {
        None
    }
    /// Accounts that have an engine, for sweeps.
    fn account(&self, placement: &Placement) -> AccountId {
        placement.account.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_leads_back_is_not_followed() {
        let mut pages = Pages::default();
        assert_eq!((pages.go_on(), pages.token()), (true, None));

        pages.turn(Some("a".into())).unwrap();
        assert_eq!(pages.token(), Some("a"));
        pages.turn(Some("b".into())).unwrap();
        let back = pages.turn(Some("a".into()));

        assert!(matches!(back, Err(Error::Untrusted(_))), "{back:?}");
        pages.turn(None).unwrap();
        assert!(!pages.go_on());
    }
}
