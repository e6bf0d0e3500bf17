//! What of a change a person must look at: data that is lost, rights that grow, doors that open.
//!
//! By the values before and after, property by property, as far as they are known. Policies are not evaluated: a change that
//! grows something for certain is told apart from one that only touches it.

use std::cmp::Reverse;

use serde_json::Value;

use super::{Action, Change, PropertyChange};
use crate::domain::model::glob_matches;

/// Why a change must be looked at, the gravest last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Worry {
    /// A policy is another one.
    Policy,
    /// Somebody from anywhere can reach it.
    Network,
    /// Somebody may do more than before.
    Access,
    /// State is lost.
    Loss,
}

/// One thing to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Concern {
    /// Why.
    pub worry: Worry,
    /// In words, values included.
    pub says: String,
    /// The property that causes it, where one does.
    pub path: Option<String>,
}

/// Returns what must be looked at, the gravest first.
pub fn concerns(change: &Change) -> Vec<Concern> {
    let mut found = Vec::new();
    if change.loses_state() {
        let cause = change.properties.iter().max_by_key(|p| p.replaces);
        found.push(Concern {
            worry: Worry::Loss,
            says: change.loss(),
            path: cause.map(|p| p.path.clone()),
        });
    }
    if change.action == Action::Remove {
        // What guards something guards it no more.
        let guards = change.kind.ends_with("Policy") && change.kind.starts_with("AWS::S3::");
        if guards {
            found.push(Concern {
                worry: Worry::Policy,
                says: format!(
                    "{} ({}) goes: what it denied is denied no more",
                    change.logical, change.kind
                ),
                path: None,
            });
        }
        return found;
    }
    // Where each value of a statement is told by itself, what it allows is told by another one.
    let denied: Vec<&str> = change
        .properties
        .iter()
        .filter(|p| read(&p.after).is_some_and(|v| v == "Deny"))
        .filter_map(|p| p.path.strip_suffix("Effect"))
        .collect();
    for property in &change.properties {
        let (before, after) = (read(&property.before), read(&property.after));
        let mut leaves = Vec::new();
        each_leaf(&property.path, before.as_ref(), after.as_ref(), &mut leaves);
        for leaf in leaves {
            let in_denied = denied.iter().any(|prefix| leaf.path.starts_with(prefix));
            if let Some((worry, says)) = of_leaf(change, &leaf) {
                let worry = match worry {
                    Worry::Access if in_denied => Worry::Policy,
                    other => other,
                };
                found.push(Concern {
                    worry,
                    says,
                    path: Some(property.path.clone()),
                });
            }
        }
    }
    found.sort_by_key(|concern| Reverse(concern.worry));
    found.dedup();
    found
}

/// A single value that differs.
struct Leaf<'a> {
    path: String,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
}

/// What is shown is JSON, unless it was cut or is masked: then it is a text like any other.
fn read(shown: &Option<String>) -> Option<Value> {
    let text = shown.as_ref()?;
    Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())))
}

fn each_leaf<'a>(
    path: &str,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
    into: &mut Vec<Leaf<'a>>,
) {
    if before == after {
        return;
    }
    let is_whole = |v: Option<&Value>| v.is_none_or(|v| v.is_object() || v.is_array());
    // A statement is judged as one: what it allows depends on all of it.
    let is_statement = after.or(before).is_some_and(|v| v.get("Effect").is_some());
    if is_statement || !is_whole(before) || !is_whole(after) {
        into.push(Leaf {
            path: path.to_owned(),
            before,
            after,
        });
        return;
    }
    let members = |v: Option<&'a Value>| -> Vec<(String, &'a Value)> {
        match v {
            Some(Value::Object(map)) => map.iter().map(|(k, v)| (format!(".{k}"), v)).collect(),
            Some(Value::Array(items)) => {
                let one = |(n, v)| (format!("[{n}]"), v);
                items.iter().enumerate().map(one).collect()
            }
            _ => Vec::new(),
        }
    };
    let (old, new) = (members(before), members(after));
    let of = |all: &[(String, &'a Value)], name: &str| {
        all.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    };
    let gone = old.iter().filter(|(name, _)| of(&new, name).is_none());
    for (name, _) in new.iter().chain(gone) {
        each_leaf(
            &format!("{path}{name}"),
            of(&old, name),
            of(&new, name),
            into,
        );
    }
}

fn of_leaf(change: &Change, leaf: &Leaf<'_>) -> Option<(Worry, String)> {
    network(change, leaf).or_else(|| access(change, leaf))
}

fn last(path: &str) -> &str {
    let name = path.rsplit('.').next().unwrap_or(path);
    name.split('[').next().unwrap_or(name)
}

fn text(value: Option<&Value>) -> String {
    match value {
        None => "(not set)".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn network(change: &Change, leaf: &Leaf<'_>) -> Option<(Worry, String)> {
    let (name, after) = (last(&leaf.path), leaf.after);
    let is = |wanted: &str| after.is_some_and(|v| text(Some(v)) == wanted);
    let says = match name {
        "CidrIp" | "CidrIpv6" | "CidrBlock" | "SourceCidr" | "DestinationCidrBlock"
            if (is("0.0.0.0/0") || is("::/0"))
                && (change.kind.contains("SecurityGroup")
                    || change.kind.contains("NetworkAcl")) =>
        {
            // What leaves is everybody's business: only what comes in is a door.
            if leaf.path.contains("Egress") || change.kind.ends_with("Egress") {
                return None;
            }
            format!("{} is open to {}", change.logical, text(after))
        }
        "PubliclyAccessible" | "MapPublicIpOnLaunch" if is("true") => {
            format!("{} can be reached from outside ({name})", change.logical)
        }
        "Scheme" if is("internet-facing") => {
            format!("{} faces the internet", change.logical)
        }
        "AccessControl" if is("PublicRead") || is("PublicReadWrite") => {
            format!("{} is {} for everybody", change.logical, text(after))
        }
        "BlockPublicAcls" | "BlockPublicPolicy" | "IgnorePublicAcls" | "RestrictPublicBuckets"
            if !is("true") && leaf.before.is_some_and(|b| text(Some(b)) == "true") =>
        {
            format!("{} blocks public access no more ({name})", change.logical)
        }
        _ => return None,
    };
    Some((Worry::Network, says))
}

/// Parts of paths under which a policy stands.
const POLICIES: [&str; 8] = [
    "AssumeRolePolicyDocument",
    "KeyPolicy",
    "ManagedPolicyArns",
    "PermissionsBoundary",
    "PolicyDocument",
    "PolicyText",
    "RepositoryPolicyText",
    "ResourcePolicy",
];

fn access(change: &Change, leaf: &Leaf<'_>) -> Option<(Worry, String)> {
    let about_rights =
        POLICIES.iter().any(|p| leaf.path.contains(p)) || change.kind == "AWS::Lambda::Permission";
    if !about_rights {
        return None;
    }
    let (name, logical) = (last(&leaf.path), &change.logical);
    let (before, after) = (leaf.before, leaf.after);
    let allows = |v: Option<&Value>| {
        v.and_then(|v| v.get("Effect"))
            .is_some_and(|e| e == "Allow")
    };
    let denies = |v: Option<&Value>| v.and_then(|v| v.get("Effect")).is_some_and(|e| e == "Deny");
    let stars = |v: Option<&Value>| v.map_or(0, |v| v.to_string().matches('*').count());
    let was = || format!("(was {})", text(before));
    let made = change.action == Action::Add;
    let grown = if made && !is_wide(leaf) {
        // Something new has rights of its own: only what reaches far is worth a look.
        None
    } else if denies(after) && !denies(before) {
        // Whatever stars it has: it takes away.
        None
    } else if denies(before) && denies(after) {
        Some(format!(
            "{logical} denies something else: {} (was {})",
            statement(after),
            statement(before)
        ))
    } else if allows(after) && before.is_none() {
        Some(format!("{logical} + {}", statement(after)))
    } else if denies(before) && !denies(after) {
        Some(format!("{logical} denies no more: {}", statement(before)))
    } else if name == "Effect" && after.is_some_and(|v| v == "Allow") {
        Some(format!("{logical} allows what it denied ({})", leaf.path))
    } else if leaf.path.contains("Condition") && after.is_none() {
        Some(format!(
            "{logical} has a condition less: {} {}",
            leaf.path,
            was()
        ))
    } else if leaf.path.contains("ManagedPolicyArns") && after.is_some() {
        Some(format!("{logical} + the policy {}", text(after)))
    } else if leaf.path.contains("PermissionsBoundary") {
        Some(format!(
            "{logical} has another boundary: {} {}",
            text(after),
            was()
        ))
    } else if matches!(name, "NotAction" | "NotResource" | "NotPrincipal") && after.is_some()
        || stars(after) > stars(before)
    {
        Some(format!("{logical} {name} {} {}", text(after), was()))
    } else if matches!(
        name,
        "Action" | "Resource" | "Principal" | "AWS" | "Service"
    ) && before.is_none()
        && after.is_some()
    {
        Some(format!("{logical} + {name} {}", text(after)))
    } else if is_other(name, leaf) {
        Some(format!("{logical} + {name} {} {}", text(after), was()))
    } else {
        None
    };
    match grown {
        Some(says) => Some((Worry::Access, says)),
        None if made => None,
        None => Some((
            Worry::Policy,
            format!(
                "{logical} {}: {} → {}",
                leaf.path,
                text(before),
                text(after)
            ),
        )),
    }
}

/// Tells whether one action, resource or principal stands where another one stood, and the old one did not cover it.
///
/// Of a list nobody can tell by one item: what is behind a removed one moves up.
fn is_other(name: &str, leaf: &Leaf<'_>) -> bool {
    let names = [
        "Action",
        "Resource",
        "Principal",
        "AWS",
        "Service",
        "Federated",
    ];
    let (Some(Value::String(before)), Some(Value::String(after))) = (leaf.before, leaf.after)
    else {
        return false;
    };
    names.contains(&name)
        && !leaf.path.ends_with(']')
        && !glob_matches(&before.replace('*', "**"), after)
}

/// Tells whether what is new reaches beyond single actions for single principals.
fn is_wide(leaf: &Leaf<'_>) -> bool {
    let starred = |v: &Value| {
        let all = match v {
            Value::Array(items) => items.iter().collect(),
            one => vec![one],
        };
        all.iter()
            .filter_map(|v| v.as_str())
            .any(|t| t == "*" || t.ends_with(":*"))
    };
    let Some(after) = leaf.after else {
        return false;
    };
    if leaf.path.contains("ManagedPolicyArns") {
        let name = text(Some(after));
        return ["AdministratorAccess", "FullAccess", "PowerUserAccess"]
            .iter()
            .any(|wide| name.contains(wide));
    }
    match after.get("Effect") {
        Some(_) => {
            let principal = after.get("Principal");
            let anybody =
                principal.is_some_and(|p| starred(p) || p.get("AWS").is_some_and(starred));
            let not = ["NotAction", "NotPrincipal", "NotResource"];
            anybody
                || after.get("Action").is_some_and(starred)
                || not.iter().any(|name| after.get(*name).is_some())
        }
        None => starred(after),
    }
}

fn statement(value: Option<&Value>) -> String {
    let part = |name: &str| {
        let found = value.and_then(|v| v.get(name));
        found.map(|v| format!(" {name} {}", text(Some(v))))
    };
    let effect = value.and_then(|v| v.get("Effect"));
    let parts = [
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Principal",
    ];
    let parts: String = parts.into_iter().filter_map(part).collect();
    format!("{}{parts}", text(effect))
}

/// Returns the property that causes the gravest replacement.
pub fn cause(change: &Change) -> Option<&PropertyChange> {
    let forced = change.properties.iter();
    forced
        .filter(|p| p.replaces != super::Replacement::Never)
        .max_by_key(|p| p.replaces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::Replacement;
    use serde_json::json;

    fn change(kind: &str, path: &str, before: Option<Value>, after: Option<Value>) -> Change {
        Change {
            logical: "It".into(),
            kind: kind.into(),
            physical: None,
            action: if before.is_none() && path.is_empty() {
                Action::Add
            } else {
                Action::Modify
            },
            replacement: Replacement::Never,
            policy: None,
            properties: vec![PropertyChange {
                path: path.into(),
                before: before.map(|v| v.to_string()),
                after: after.map(|v| v.to_string()),
                after_unknown: false,
                replaces: Replacement::Never,
            }],
        }
    }

    #[test]
    fn what_is_denied_is_no_right_and_another_right_is_one() {
        use Worry::{Access, Policy};
        let statement = |effect: &str, action: &str| json!({ "Effect": effect, "Action": action, "Resource": "arn:x/*" });
        let document = |s: Value| json!({ "Statement": [s] });
        let inside = "PolicyDocument.Statement[0]";
        for (path, before, after, expected) in [
            (inside, None, Some(statement("Deny", "s3:*")), Policy),
            (
                inside,
                Some(statement("Allow", "a:b")),
                Some(statement("Deny", "s3:*")),
                Policy,
            ),
            (
                inside,
                Some(statement("Deny", "s3:*")),
                Some(statement("Deny", "s3:Get")),
                Access,
            ),
            (inside, Some(statement("Deny", "s3:*")), None, Access),
            (
                "PolicyDocument",
                Some(document(statement("Allow", "a:b"))),
                Some(document(statement("Deny", "c:d"))),
                Policy,
            ),
            (
                "PolicyDocument.Statement[0].Action",
                Some(json!("s3:Get")),
                Some(json!("sqs:Send")),
                Access,
            ),
            (
                "PolicyDocument.Statement[0].Action",
                Some(json!("s3:*")),
                Some(json!("s3:Get")),
                Policy,
            ),
            (
                "PolicyDocument.Statement[0].Resource",
                Some(json!("arn:x/*")),
                Some(json!("arn:x/y/z")),
                Policy,
            ),
            (
                "PolicyDocument.Statement[0].Action[1]",
                Some(json!("s3:Get")),
                Some(json!("sqs:Send")),
                Policy,
            ),
            (
                "AssumeRolePolicyDocument.Statement[0].Principal.Service",
                Some(json!("lambda")),
                Some(json!("ec2")),
                Access,
            ),
        ] {
            let found = concerns(&change(
                "AWS::IAM::ManagedPolicy",
                path,
                before.clone(),
                after.clone(),
            ));
            let worst = found.iter().map(|c| c.worry).max();
            assert_eq!(
                worst,
                Some(expected),
                "{path} {before:?} {after:?}: {found:?}"
            );
        }
        // The preview tells each value of a statement by itself.
        let mut parts = change("AWS::IAM::ManagedPolicy", "", Some(json!(1)), None);
        parts.properties = [("Effect", "Allow", "Deny"), ("Action", "a:b", "c:d")]
            .into_iter()
            .flat_map(|(name, before, after)| {
                let path = format!("{inside}.{name}");
                change("", &path, Some(json!(before)), Some(json!(after))).properties
            })
            .collect();
        assert!(concerns(&parts).iter().all(|c| c.worry == Policy));
    }

    #[test]
    fn what_opens_or_grows_is_named_and_nothing_else() {
        use Worry::{Access, Network, Policy};
        let role = "AWS::IAM::Role";
        let group = "AWS::EC2::SecurityGroup";
        let inside = "Policies[0].PolicyDocument.Statement[0]";
        let allow = json!({ "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:x" });
        for (kind, path, before, after, expected) in [
            (
                group,
                "SecurityGroupIngress[0].CidrIp",
                Some(json!("10.0.0.0/8")),
                Some(json!("0.0.0.0/0")),
                Some(Network),
            ),
            (
                group,
                "SecurityGroupIngress",
                None,
                Some(json!([{ "CidrIpv6": "::/0", "FromPort": 22 }])),
                Some(Network),
            ),
            (
                group,
                "SecurityGroupIngress[0].CidrIp",
                Some(json!("0.0.0.0/0")),
                Some(json!("10.0.0.0/8")),
                None,
            ),
            (
                group,
                "SecurityGroupEgress[0].CidrIp",
                None,
                Some(json!("0.0.0.0/0")),
                None,
            ),
            (
                "AWS::EC2::Route",
                "DestinationCidrBlock",
                None,
                Some(json!("0.0.0.0/0")),
                None,
            ),
            (
                "AWS::RDS::DBInstance",
                "PubliclyAccessible",
                Some(json!(false)),
                Some(json!(true)),
                Some(Network),
            ),
            (
                "AWS::RDS::DBInstance",
                "PubliclyAccessible",
                Some(json!(true)),
                Some(json!(false)),
                None,
            ),
            (
                "AWS::S3::Bucket",
                "PublicAccessBlockConfiguration",
                Some(json!({ "BlockPublicAcls": true })),
                None,
                Some(Network),
            ),
            (
                "AWS::S3::Bucket",
                "PublicAccessBlockConfiguration.BlockPublicPolicy",
                Some(json!("true")),
                Some(json!("false")),
                Some(Network),
            ),
            (
                role,
                &*format!("{inside}.Action"),
                Some(json!("s3:GetObject")),
                Some(json!("s3:*")),
                Some(Access),
            ),
            (
                role,
                &*format!("{inside}.Action"),
                Some(json!("s3:*")),
                Some(json!("s3:GetObject")),
                Some(Policy),
            ),
            (
                role,
                &*format!("{inside}.Action[1]"),
                None,
                Some(json!("s3:PutObject")),
                Some(Access),
            ),
            (role, inside, None, Some(allow.clone()), Some(Access)),
            (role, inside, Some(allow.clone()), None, Some(Policy)),
            (
                role,
                inside,
                Some(json!({ "Effect": "Deny", "Action": "*" })),
                None,
                Some(Access),
            ),
            (
                role,
                &*format!("{inside}.Condition.StringEquals"),
                Some(json!({ "a": "b" })),
                None,
                Some(Access),
            ),
            (
                role,
                "ManagedPolicyArns[1]",
                None,
                Some(json!("arn:aws:iam::aws:policy/AdministratorAccess")),
                Some(Access),
            ),
            (
                role,
                "AssumeRolePolicyDocument.Statement[0].Principal.AWS",
                Some(json!("111111111111")),
                Some(json!("*")),
                Some(Access),
            ),
            (
                role,
                "Description",
                Some(json!("a")),
                Some(json!("*")),
                None,
            ),
            (
                "AWS::Lambda::Permission",
                "Principal",
                Some(json!("events.amazonaws.com")),
                Some(json!("*")),
                Some(Access),
            ),
            (
                "AWS::SNS::Topic",
                "DisplayName",
                Some(json!("a")),
                Some(json!("0.0.0.0/0")),
                None,
            ),
        ] {
            let found = concerns(&change(kind, path, before.clone(), after.clone()));
            let worry = found.first().map(|c| c.worry);
            assert_eq!(
                worry, expected,
                "{kind} {path} {before:?} {after:?}: {found:?}"
            );
        }
    }

    #[test]
    fn of_what_is_new_only_what_reaches_far_is_named() {
        let policy = |action: &str, principal: Value| json!({ "Statement": [{ "Effect": "Allow", "Action": action, "Resource": "*", "Principal": principal }] });
        for (path, after, named) in [
            (
                "PolicyDocument",
                policy("logs:PutLogEvents", json!({ "Service": "ecs" })),
                false,
            ),
            (
                "PolicyDocument",
                policy("s3:*", json!({ "Service": "ecs" })),
                true,
            ),
            (
                "PolicyDocument",
                policy("*", json!({ "Service": "ecs" })),
                true,
            ),
            (
                "PolicyDocument",
                policy("sts:AssumeRole", json!({ "AWS": "*" })),
                true,
            ),
            (
                "ManagedPolicyArns",
                json!(["arn:aws:iam::aws:policy/AdministratorAccess"]),
                true,
            ),
            (
                "ManagedPolicyArns",
                json!(["arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"]),
                false,
            ),
        ] {
            let mut new = change("AWS::IAM::Role", path, None, Some(after.clone()));
            new.action = Action::Add;
            let found = concerns(&new);
            assert_eq!(!found.is_empty(), named, "{after}: {found:?}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_a_text() {
        let mut cut = change("AWS::IAM::Role", "PolicyDocument", None, None);
        cut.properties[0].before = Some("{\"Statement\":[{\"Effect\":…".into());
        cut.properties[0].after = Some("{\"Statement\":[{\"Effe…".into());
        let found = concerns(&cut);
        assert_eq!(found[0].worry, Worry::Policy);
    }

    #[test]
    fn what_is_lost_stands_first_with_its_cause() {
        let mut lost = change(
            "AWS::DynamoDB::Table",
            "TableName",
            Some(json!("a")),
            Some(json!("b")),
        );
        lost.replacement = Replacement::Always;
        lost.properties[0].replaces = Replacement::Always;
        let found = concerns(&lost);
        assert_eq!(found[0].worry, Worry::Loss);
        assert_eq!(found[0].path.as_deref(), Some("TableName"));
    }
}
