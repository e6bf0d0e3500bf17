//! Stack policies: which updates of which resources are allowed.
//!
//! "Prevent updates to stack resources", user guide: once a stack has a policy, everything is denied that no
//! statement allows, and a statement that denies wins.

use serde_json::{Value, json};

use crate::domain::plan::{Action, Change, Replacement};

/// A stack policy that was read.
pub struct StackPolicy {
    statements: Vec<Value>,
}

impl StackPolicy {
    /// Reads a policy; absent where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let body: Value = serde_json::from_str(text).ok()?;
        let statements = match body.get("Statement")? {
            Value::Array(all) => all.clone(),
            one @ Value::Object(_) => vec![one.clone()],
            _ => return None,
        };
        let whole = statements.iter().all(|s| {
            matches!(
                s.get("Effect").and_then(Value::as_str),
                Some("Allow" | "Deny")
            ) && (s.get("Action").is_some() || s.get("NotAction").is_some())
                && (s.get("Resource").is_some() || s.get("NotResource").is_some())
        });
        whole.then_some(Self { statements })
    }

    /// Says of each change that is not allowed why it is not. One that may be a replacement counts as one.
    pub fn denied(&self, changes: &[Change]) -> Vec<String> {
        let refused = |change: &Change| {
            let action = match (change.action, change.replacement) {
                (Action::Remove, _) => "Update:Delete",
                (Action::Modify, Replacement::Never) => "Update:Modify",
                (Action::Modify, _) => "Update:Replace",
                _ => return None,
            };
            self.refusal(action, &change.logical, &change.kind)
        };
        changes.iter().filter_map(refused).collect()
    }

    /// Says why an action on a resource is not allowed.
    pub fn refusal(&self, action: &str, logical: &str, kind: &str) -> Option<String> {
        let applies = |s: &&(usize, &Value)| holds(s.1, action, logical, kind);
        let numbered: Vec<(usize, &Value)> = self.statements.iter().enumerate().collect();
        let denies = |s: &Value| s.get("Effect").and_then(Value::as_str) == Some("Deny");
        let denied = numbered.iter().filter(applies).find(|(_, s)| denies(s));
        let allowed = numbered.iter().filter(applies).any(|(_, s)| !denies(s));
        match denied {
            Some((number, _)) => Some(format!(
                "Action denied by stack policy: Statement [#{}] does not allow [{action}] for resource [{logical}]",
                number + 1
            )),
            None if allowed => None,
            None => Some(format!(
                "Action denied by stack policy: no statement allows [{action}] for resource [{logical}]"
            )),
        }
    }
}

/// Largest policy that CloudFormation takes, in bytes.
const LONGEST: usize = 16_384;

/// Returns a policy that allows every update of what changes, and of nothing else; of everything where that many do not fit.
pub fn opened_for(changes: &[Change]) -> String {
    let policy = |resources: Value| {
        let statement = json!({ "Effect": "Allow", "Principal": "*", "Action": "Update:*", "Resource": resources });
        json!({ "Statement": [statement] }).to_string()
    };
    let changed = changes.iter().filter(|c| c.action != Action::Add);
    let names: Vec<String> = changed
        .map(|c| format!("LogicalResourceId/{}", c.logical))
        .collect();
    let narrow = policy(json!(names));
    if names.is_empty() || narrow.len() > LONGEST {
        return policy(json!("*"));
    }
    narrow
}

fn holds(statement: &Value, action: &str, logical: &str, kind: &str) -> bool {
    let resource = format!("LogicalResourceId/{logical}");
    let any = |name: &str, subject: &str| {
        statement
            .get(name)
            .map(|v| words(v).iter().any(|w| matches(w, subject)))
    };
    let action = match any("Action", action) {
        Some(hit) => hit,
        None => !any("NotAction", action).unwrap_or(false),
    };
    let resource = match any("Resource", &resource) {
        Some(hit) => hit,
        None => !any("NotResource", &resource).unwrap_or(false),
    };
    let condition = statement
        .get("Condition")
        .and_then(Value::as_object)
        .is_none_or(|operators| {
            operators.values().all(|keys| {
                keys.get("ResourceType")
                    .is_none_or(|v| words(v).iter().any(|w| matches(w, kind)))
            })
        });
    action && resource && condition
}

/// A star is any text here, slashes and colons too.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| subject.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(logical: &str, action: Action, replacement: Replacement) -> Change {
        Change {
            logical: logical.into(),
            kind: "AWS::RDS::DBInstance".into(),
            physical: None,
            action,
            replacement,
            policy: None,
            properties: Vec::new(),
        }
    }

    #[test]
    fn what_is_opened_allows_exactly_what_was_denied() {
        let policy = StackPolicy::parse(
            r#"{"Statement": [
                {"Effect": "Allow", "Principal": "*", "Action": "Update:Modify", "Resource": "*"}
            ]}"#,
        )
        .unwrap();
        let changes = [
            change("Same", Action::Modify, Replacement::Never),
            change("New", Action::Add, Replacement::Never),
            change("Perhaps", Action::Modify, Replacement::Conditional),
            change("Old", Action::Remove, Replacement::Never),
        ];

        let denied = policy.denied(&changes);

        assert_eq!(denied.len(), 2, "{denied:?}");
        assert!(denied[0].contains("Perhaps") && denied[1].contains("Old"));
        let opened = StackPolicy::parse(&opened_for(&changes)).unwrap();
        assert!(opened.denied(&changes).is_empty());
        let other = [change("Other", Action::Modify, Replacement::Never)];
        assert_eq!(opened.denied(&other).len(), 1);
        let many: Vec<Change> = (0..600)
            .map(|n| {
                change(
                    &format!("Resource{n:04}"),
                    Action::Remove,
                    Replacement::Never,
                )
            })
            .collect();
        let wide = opened_for(&many);
        assert!(
            wide.len() < LONGEST && StackPolicy::parse(&wide).unwrap().denied(&many).is_empty()
        );
    }

    #[test]
    fn what_no_statement_allows_is_denied_and_a_denial_wins() {
        let policy = StackPolicy::parse(
            r#"{"Statement": [
                {"Effect": "Allow", "Principal": "*", "Action": "Update:*", "Resource": "*"},
                {"Effect": "Deny", "Principal": "*", "Action": ["Update:Replace", "Update:Delete"], "Resource": "LogicalResourceId/Db*"},
                {"Effect": "Deny", "Principal": "*", "Action": "Update:Delete", "Resource": "*",
                 "Condition": {"StringLike": {"ResourceType": ["AWS::KMS::*"]}}}
            ]}"#,
        )
        .unwrap();

        for (action, logical, kind, refused) in [
            ("Update:Modify", "Db", "AWS::RDS::DBInstance", false),
            ("Update:Replace", "Db1", "AWS::RDS::DBInstance", true),
            ("Update:Replace", "Topic", "AWS::SNS::Topic", false),
            ("Update:Delete", "Key", "AWS::KMS::Key", true),
            ("Update:Delete", "Topic", "AWS::SNS::Topic", false),
        ] {
            let refusal = policy.refusal(action, logical, kind);
            assert_eq!(
                refusal.is_some(),
                refused,
                "{action} {logical}: {refusal:?}"
            );
        }
        let empty = StackPolicy::parse(r#"{"Statement": []}"#).unwrap();
        assert!(empty.refusal("Update:Modify", "T", "X").is_some());
        assert!(StackPolicy::parse(r#"{"Statement": [{"Effect": "Perhaps"}]}"#).is_none());
    }
}
