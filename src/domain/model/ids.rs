//! Names and ids, each made only by parsing what the outside allows.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a name was refused for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {what}: {rule}")]
pub struct IdError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

/// A text that many hold. Two holders of one text are equal without a look at it: maps by name compare little else.
#[derive(Clone, Eq)]
struct Text(Arc<str>);

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        self.0.cmp(&other.0)
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $type(Text);

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0.0)
            }
        }

        impl $type {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(Text(text.into())))
                } else {
                    let value = text.chars().take(80).collect::<String>().escape_debug().to_string();
                    Err(IdError { what: $what, value, rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.0.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.0)
            }
        }
    };
}

/// Proton's pattern for every resource name: API model `proton-2020-07-20`, `ResourceName`.
fn is_resource_name(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

name!(
    /// The name of a source in the daemon's configuration.
    SourceName, "a source name", "letters, digits, - and _, at most 100", is_resource_name
);
name!(
    /// The name of a placement in the daemon's configuration.
    PlacementName, "a placement name", "letters, digits, - and _, at most 100", is_resource_name
);
name!(
    /// An AWS account id: twelve digits.
    AccountId, "an account id", "twelve digits", |t| t.len() == 12 && t.bytes().all(|b| b.is_ascii_digit())
);
name!(
    /// A region code such as `eu-west-1`.
    Region, "a region", "lower-case letters, digits and -, as in eu-west-1", |t| (4..=40).contains(&t.len())
        && t.contains('-')
        && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
);
name!(
    /// A stack name: CloudFormation API, CreateStack, `StackName`.
    StackName, "a stack name", "a letter, then letters, digits and -, at most 128", |t| (1..=128).contains(&t.len())
        && t.as_bytes()[0].is_ascii_alphabetic()
        && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
);
name!(
    /// A stack's ARN. Everything after the first call goes by it, because a name can be taken over.
    StackId, "a stack ARN", "arn:<partition>:cloudformation:<region>:<account>:stack/<name>/<uuid>", |t| t.len() <= 2048
        && t.starts_with("arn:")
        && t.contains(":cloudformation:")
        && t.contains(":stack/")
);

impl Region {
    /// Returns the partition that the region is in, and the end of its host names.
    pub fn partition(&self) -> (&'static str, &'static str) {
        let name = self.as_str();
        if name.starts_with("cn-") {
            ("aws-cn", "amazonaws.com.cn")
        } else if name.starts_with("us-gov-") {
            ("aws-us-gov", "amazonaws.com")
        } else if name.starts_with("eusc-") {
            ("aws-eusc", "amazonaws.eu")
        } else {
            ("aws", "amazonaws.com")
        }
    }
}

impl StackId {
    /// Returns the region that the ARN names; absent where that part is no region.
    pub fn region(&self) -> Option<Region> {
        self.as_str().split(':').nth(3)?.parse().ok()
    }

    /// Returns the account that the ARN names; absent where that part is no account.
    pub fn account(&self) -> Option<AccountId> {
        self.as_str().split(':').nth(4)?.parse().ok()
    }
}

name!(
    /// A commit id in full.
    Revision, "a commit id", "40 or 64 lower-case hexadecimal digits", |t| is_hex(t, 40) || is_hex(t, 64)
);
name!(
    /// A target's identity for life: random, minted once in the log.
    TargetUid, "a target uid", "32 lower-case hexadecimal digits", |t| is_hex(t, 32)
);
name!(
    /// A deployment's identity: a UUID, version 7.
    DeploymentId, "a deployment id", "a lower-case UUID", |t| t.len() == 36
        && t.bytes().enumerate().all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_digit() || (b'a'..=b'f').contains(&b) })
);
name!(
    /// The installation's identity: eight hexadecimal digits of it stand in every change-set name.
    InstallationId, "an installation id", "32 lower-case hexadecimal digits", |t| is_hex(t, 32)
);

impl Revision {
    /// Returns the first seven digits, as people write commits.
    pub fn short(&self) -> &str {
        &self.0.0[..7]
    }
}

impl TargetUid {
    /// Returns the eight digits that stand in a minted stack name.
    pub fn short(&self) -> &str {
        &self.0.0[..8]
    }
}

impl InstallationId {
    /// Returns the eight digits that stand in change-set names.
    pub fn short(&self) -> &str {
        &self.0.0[..8]
    }
}

/// How often a target has been begun: strictly increasing for the life of a target uid.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// The daemon's number for an accepted snapshot; newer is larger. Commit times never count.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct SnapshotId(pub u64);

/// Who did something, and through which door.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Actor {
    /// Who vouches for the subject: `local`, `git`, `daemon`.
    pub issuer: String,
    /// The subject as the issuer names it: a uid, a pusher, a rule.
    pub subject: String,
    /// The door: `socket`, `push`, `poll`, `timer`, `line`.
    pub via: String,
    /// The name shown to people.
    pub display: String,
}

impl Actor {
    /// Names a rule of the daemon as the actor.
    pub fn daemon(rule: &str) -> Self {
        Self {
            issuer: "daemon".into(),
            subject: rule.into(),
            via: "line".into(),
            display: format!("isoform ({rule})"),
        }
    }
}

/// The address of a target: one deployable unit, one stack.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    kind: Kind,
    region: Option<Region>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Environment(Text),
    Instance { service: Text, instance: Text },
    Pipeline(Text),
    Component(Text),
    Stack(Text),
}

/// What an address was refused for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a target address: write env/<name>, svc/<service>/<instance>, pipe/<service>, comp/<name> or stack/<name>, with @<region> where there are several"
)]
pub struct AddressError(String);

impl Address {
    /// Addresses an environment.
    pub fn environment(name: &str) -> Self {
        Self {
            kind: Kind::Environment(name.into()),
            region: None,
        }
    }

    /// Addresses a service instance.
    pub fn instance(service: &str, instance: &str) -> Self {
        Self {
            kind: Kind::Instance {
                service: service.into(),
                instance: instance.into(),
            },
            region: None,
        }
    }

    /// Addresses a service's pipeline.
    pub fn pipeline(service: &str) -> Self {
        Self {
            kind: Kind::Pipeline(service.into()),
            region: None,
        }
    }

    /// Addresses a component.
    pub fn component(name: &str) -> Self {
        Self {
            kind: Kind::Component(name.into()),
            region: None,
        }
    }

    /// Addresses a plain stack.
    pub fn stack(name: &str) -> Self {
        Self {
            kind: Kind::Stack(name.into()),
            region: None,
        }
    }

    /// Adds the region, for placements that have several.
    pub fn at(mut self, region: Option<Region>) -> Self {
        self.region = region;
        self
    }

    /// Returns the region, where the address has one.
    pub fn region(&self) -> Option<&Region> {
        self.region.as_ref()
    }

    /// Returns the address without its region.
    pub fn base(&self) -> Self {
        Self {
            kind: self.kind.clone(),
            region: None,
        }
    }

    /// Returns the kind's short word: `env`, `svc`, `pipe`, `comp` or `stack`.
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Environment(_) => "env",
            Kind::Instance { .. } => "svc",
            Kind::Pipeline(_) => "pipe",
            Kind::Component(_) => "comp",
            Kind::Stack(_) => "stack",
        }
    }

    /// Returns the service's name of an instance or pipeline.
    pub fn service(&self) -> Option<&str> {
        match &self.kind {
            Kind::Instance { service, .. } | Kind::Pipeline(service) => Some(&service.0),
            _ => None,
        }
    }

    /// Returns the last name: the environment, instance, component or stack, or a pipeline's service.
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::Environment(n) | Kind::Pipeline(n) | Kind::Component(n) | Kind::Stack(n) => &n.0,
            Kind::Instance { instance, .. } => &instance.0,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = || {
            AddressError(
                text.chars()
                    .take(120)
                    .collect::<String>()
                    .escape_debug()
                    .to_string(),
            )
        };
        let (path, region) = match text.split_once('@') {
            Some((path, region)) => (path, Some(region.parse::<Region>().map_err(|_| refuse())?)),
            None => (text, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        if !parts[1..].iter().all(|p| is_resource_name(p)) {
            return Err(refuse());
        }
        let kind = match parts.as_slice() {
            ["env", n] => Kind::Environment((*n).into()),
            ["svc", s, i] => Kind::Instance {
                service: (*s).into(),
                instance: (*i).into(),
            },
            ["pipe", s] => Kind::Pipeline((*s).into()),
            ["comp", n] => Kind::Component((*n).into()),
            ["stack", n] => Kind::Stack((*n).into()),
            _ => return Err(refuse()),
        };
        Ok(Self { kind, region })
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(value: Address) -> String {
        value.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Instance { service, instance } => write!(f, "svc/{}/{}", service.0, instance.0)?,
            _ => write!(f, "{}/{}", self.kind(), self.name())?,
        }
        match &self.region {
            Some(region) => write!(f, "@{region}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Address {
    /// Tells whether this address is another one, or is what that one is called in all regions.
    pub fn stands_for(&self, other: &Self) -> bool {
        self.kind == other.kind && (self.region.is_none() || self.region == other.region)
    }

    /// Tells whether people mean this target: by its address, by a glob, or by what it is called in all regions.
    pub fn is_meant_by(&self, glob: &str) -> bool {
        glob_matches(glob, &self.to_string())
            || (self.region.is_some() && glob_matches(glob, &self.base().to_string()))
    }
}

/// Tells whether a glob matches: `*` stands for any run of characters without `/`, `**` for any run at all.
pub fn glob_matches(glob: &str, text: &str) -> bool {
    // Iterative with one restart point per kind of star: linear in the product of the lengths, never exponential.
    fn step(glob: &[u8], text: &[u8]) -> bool {
        let mut reach = vec![false; text.len() + 1];
        reach[0] = true;
        let mut i = 0;
        while i < glob.len() {
            if glob[i] == b'*' {
                let double = glob.get(i + 1) == Some(&b'*');
                for j in 0..text.len() {
                    if reach[j] && (double || text[j] != b'/') {
                        reach[j + 1] = true;
                    }
                }
                i += if double { 2 } else { 1 };
            } else {
                for j in (0..text.len()).rev() {
                    reach[j + 1] = reach[j] && text[j] == glob[i];
                }
                reach[0] = false;
                i += 1;
            }
        }
        reach[text.len()]
    }
    step(glob.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_print() {
        for text in [
            "env/beta",
            "svc/orders/prod@eu-west-1",
            "pipe/orders",
            "comp/b",
            "stack/network",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for bad in [
            "", "env", "env/", "svc/a", "x/y", "env/a/b", "env/../a", "env/a@", "env/a b",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_target_is_meant_with_and_without_its_region() {
        let address: Address = "svc/orders/prod@eu-west-1".parse().unwrap();
        for glob in [
            "svc/orders/prod@eu-west-1",
            "svc/orders/prod",
            "svc/*/prod",
            "**",
        ] {
            assert!(address.is_meant_by(glob), "{glob}");
        }
        assert!(!address.is_meant_by("svc/orders/prod@us-east-1"));
        assert!(!address.is_meant_by("svc/orders"));
    }

    #[test]
    fn globs_match_within_one_segment() {
        assert!(glob_matches("svc/*/prod", "svc/orders/prod"));
        assert!(!glob_matches("svc/*", "svc/orders/prod"));
        assert!(glob_matches("svc/**", "svc/orders/prod"));
        assert!(glob_matches("*", "orders"));
        assert!(!glob_matches("AWSProton-orders-*", "AWSProton-order"));
    }
}
