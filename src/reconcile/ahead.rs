//! Outputs before they are there: what is deployed, what a change will give, and names for what nobody knows yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::domain::cfn::Template;
use crate::domain::estate::placeholder;
use crate::domain::model::Address;
use crate::domain::plan::{Change, PropertyChange};

/// The outputs that targets are rendered with before anything is applied: what is deployed, and what will come.
pub(super) struct Ahead {
    values: BTreeMap<Address, BTreeMap<String, String>>,
    /// What stands for a value that is not known yet, with whose output it is.
    names: BTreeMap<String, String>,
}

impl Ahead {
    /// Begins with what is deployed.
    pub fn new(deployed: BTreeMap<Address, Arc<BTreeMap<String, String>>>) -> Self {
        let values = deployed.into_iter().map(|(a, o)| (a, (*o).clone()));
        Self {
            values: values.collect(),
            names: BTreeMap::new(),
        }
    }

    /// Returns the outputs of a target.
    pub fn of(&self, address: &Address) -> Option<BTreeMap<String, String>> {
        self.values.get(address).cloned()
    }

    /// Gives every output that is not deployed a name in its place.
    pub fn expect_new(&mut self, address: &Address, template: &Template) {
        for (name, output) in &template.outputs {
            let deployed = self
                .values
                .get(address)
                .is_some_and(|o| o.contains_key(name));
            if !deployed {
                let value = self.name(address, name, &output.value, template);
                let mine = self.values.entry(address.clone()).or_default();
                mine.insert(name.clone(), value);
            }
        }
    }

    /// Takes the outputs that a change gives another value.
    pub fn expect(
        &mut self,
        address: &Address,
        template: &Template,
        changed: &BTreeMap<String, Option<String>>,
    ) {
        for (name, value) in changed {
            let value = match (value, template.outputs.get(name)) {
                (Some(value), _) => value.clone(),
                (None, Some(output)) => self.name(address, name, &output.value, template),
                (None, None) => continue,
            };
            let mine = self.values.entry(address.clone()).or_default();
            mine.insert(name.clone(), value);
        }
    }

    /// Makes a name in place of a value. One that will be a policy's ARN has that form: Proton's filters tell them by it.
    fn name(
        &mut self,
        address: &Address,
        output: &str,
        value: &Value,
        template: &Template,
    ) -> String {
        let mut name = placeholder(address, output);
        if is_policy(value, template) {
            name = format!("arn:aws:iam::000000000000:policy/{name}");
        }
        let of = format!("{address}.{output}");
        self.names.insert(name.clone(), of);
        name
    }

    /// Writes a text for people; absent where every value in it is known.
    pub fn shown(&self, text: &str) -> Option<String> {
        if !text.contains(UNKNOWN) {
            return None;
        }
        let mut out = text.to_owned();
        // Longer names first: one can be the beginning or the end of another.
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, of) in names {
            let said = format!("({AFTER}{of})");
            out = out.replace(&format!("\"{name}\""), &said);
            out = out.replace(name, &said);
        }
        Some(out)
    }

    /// Shows values that are not known yet as what they are.
    pub fn show(&self, changes: &mut [Change]) {
        for property in changes.iter_mut().flat_map(|c| &mut c.properties) {
            if let Some(said) = property.after.as_deref().and_then(|a| self.shown(a)) {
                property.after = Some(said);
                property.after_unknown = true;
            }
        }
    }
}

/// What every name in place of a value holds.
const UNKNOWN: &str = "isoform-unknown-";
/// How a value is shown that another target's change gives.
const AFTER: &str = "known after apply: ";

/// Tells whether a value comes from another target that has not been applied.
pub(super) fn awaits_another(property: &PropertyChange) -> bool {
    let after = property.after.as_deref().unwrap_or_default();
    let mut others = after.split(AFTER).skip(1);
    property.after_unknown && others.any(|of| of.contains('/'))
}

/// Tells whether an output will be the ARN of an IAM policy.
fn is_policy(value: &Value, template: &Template) -> bool {
    let policy = |logical: &str| {
        let resource = template.resources.get(logical);
        resource.is_some_and(|r| r.kind == "AWS::IAM::ManagedPolicy")
    };
    if let Some(logical) = value.get("Ref").and_then(Value::as_str) {
        return policy(logical);
    }
    match value.get("Fn::GetAtt") {
        Some(Value::Array(parts)) => parts.first().and_then(Value::as_str).is_some_and(policy),
        Some(Value::String(text)) => text.split('.').next().is_some_and(policy),
        _ => value.to_string().contains(":policy/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cfn::parse_template;

    const TEMPLATE: &str = "Resources: {Bucket: {Type: 'AWS::S3::Bucket'}, Access: {Type: 'AWS::IAM::ManagedPolicy', Properties: {PolicyDocument: {}}}}\nOutputs: {Bucket: {Value: !Ref Bucket}, BucketArn: {Value: !GetAtt Bucket.Arn}, Access: {Value: !Ref Access}}\n";

    #[test]
    fn what_is_not_known_yet_is_named_and_shown_as_that() {
        let address: Address = "comp/a".parse().unwrap();
        let template = parse_template("t", TEMPLATE).unwrap();
        let deployed = BTreeMap::from([("Bucket".to_owned(), "b-1".to_owned())]);
        let mut ahead = Ahead::new(BTreeMap::from([(address.clone(), Arc::new(deployed))]));

        ahead.expect_new(&address, &template);
        let first = ahead.of(&address).unwrap();
        ahead.expect(
            &address,
            &template,
            &BTreeMap::from([("Bucket".to_owned(), None)]),
        );
        let second = ahead.of(&address).unwrap();

        assert_eq!(first["Bucket"], "b-1");
        // Proton's filter takes a policy by the form of its ARN.
        assert!(first["Access"].starts_with("arn:aws:iam::000000000000:policy/"));
        assert_eq!(second["Bucket"], "isoform-unknown-comp-a-Bucket");
        let text = format!("\"{}\" and {}", second["Bucket"], second["BucketArn"]);
        assert_eq!(
            ahead.shown(&text).unwrap(),
            "(known after apply: comp/a.Bucket) and (known after apply: comp/a.BucketArn)"
        );
        assert_eq!(ahead.shown("b-1"), None);
    }
}
