//! The documents of one account as a CloudFormation template.

use serde_json::{Map, Value, json};

use super::{DAEMON, Documents, RoleDocument, account_of};

/// Writes the template of one account: its roles, made in the region `home`, and in each region the policies of its buckets.
///
/// Policies of keys are not in it: CloudFormation sets a key's policy only where it has made the key.
pub fn template(documents: &Documents, account: &str, home: &str) -> Value {
    let mut resources = Map::new();
    let mut conditions = Map::new();
    let mut at = |region: &str| {
        let name = format!("In{}", word(region));
        let here = json!({ "Fn::Equals": [{ "Ref": "AWS::Region" }, region] });
        conditions.insert(name.clone(), here);
        name
    };
    let here = |r: &&RoleDocument| account_of(&r.arn) == account;
    let roles: Vec<&RoleDocument> = documents.roles.iter().filter(here).collect();
    for (index, document) in roles.iter().enumerate() {
        let mut role = role(document);
        role["Condition"] = json!(at(home));
        // IAM refuses a trust in a role that is not there yet.
        let trust = document.trust.to_string();
        let first: Vec<String> = roles
            .iter()
            .enumerate()
            .filter(|(_, other)| trust.contains(&format!("\"{}\"", other.arn)))
            .map(|(index, _)| format!("Role{index}"))
            .collect();
        if !first.is_empty() {
            role["DependsOn"] = json!(first);
        }
        resources.insert(format!("Role{index}"), role);
    }
    let buckets = documents.buckets.iter().filter(|b| b.owner == account);
    for (index, bucket) in buckets.enumerate() {
        let properties = json!({ "Bucket": bucket.name, "PolicyDocument": bucket.policy });
        let condition = at(bucket.region.as_str());
        resources.insert(
            format!("BucketPolicy{index}"),
            json!({ "Type": "AWS::S3::BucketPolicy", "Condition": condition, "Properties": properties }),
        );
    }
    let mut resources = Value::Object(resources);
    let asked = point(&mut resources);
    let mut template = json!({
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": format!("What isoform may do in {account}. Deploy it in {home}, and in each region of a bucket, with CAPABILITY_NAMED_IAM."),
    });
    if asked {
        let description = "The ARN of the role or user that isoform runs as.";
        template["Parameters"] =
            json!({ "DaemonPrincipal": { "Type": "String", "Description": description } });
    }
    template["Conditions"] = Value::Object(conditions);
    template["Resources"] = resources;
    template
}

fn word(region: &str) -> String {
    region
        .split('-')
        .map(|part| {
            let mut letters = part.chars();
            let first = letters.next().map(|c| c.to_ascii_uppercase());
            first.into_iter().chain(letters).collect::<String>()
        })
        .collect()
}

fn role(document: &RoleDocument) -> Value {
    let path = document.arn.split_once(":role/").map_or("", |(_, p)| p);
    let (path, name) = match path.rsplit_once('/') {
        Some((path, name)) => (format!("/{path}/"), name),
        None => ("/".to_owned(), path),
    };
    let mut properties = json!({
        "RoleName": name,
        "Path": path,
        "AssumeRolePolicyDocument": document.trust,
    });
    match &document.policy {
        Some(policy) => {
            properties["Policies"] = json!([{ "PolicyName": "isoform", "PolicyDocument": policy }]);
        }
        None => {
            properties["Description"] =
                json!("CloudFormation works as this: attach what the templates need.");
        }
    }
    json!({ "Type": "AWS::IAM::Role", "Properties": properties })
}

/// Lets every place that names the daemon's principal point at the parameter; tells whether there was one.
fn point(value: &mut Value) -> bool {
    match value {
        Value::String(text) if text == DAEMON => {
            *value = json!({ "Ref": "DaemonPrincipal" });
            true
        }
        Value::Array(items) => items.iter_mut().fold(false, |any, item| point(item) | any),
        Value::Object(fields) => fields
            .values_mut()
            .fold(false, |any, field| point(field) | any),
        _ => false,
    }
}
