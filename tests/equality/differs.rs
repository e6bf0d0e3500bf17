//! What changes between two templates, beside `@aws-cdk/cloudformation-diff`: every kind of disagreement has a row in
//! `docs/diff-quality.md`, and one that has none fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use isoform::domain::cfn::{Pseudo, parse_template};
use isoform::domain::model::KeyedHasher;
use isoform::domain::plan::{Action, Change, Deployed, Replacement, Worry, concerns, preview};
use serde_json::{Map, Value, json};

use crate::oracle::Oracle;

/// How many pairs are made.
const PAIRS: u64 = 100;

fn judges(test: &str) -> Option<PathBuf> {
    let folder = std::env::var("ISOFORM_TEST_NODE").ok().map(PathBuf::from);
    let folder = folder.filter(|f| f.join("node_modules/@aws-cdk/cloudformation-diff").is_dir());
    if folder.is_none() {
        println!("SKIP {test}: ISOFORM_TEST_NODE names no folder of packages; run ./tests/run");
    }
    folder
}

/// A generator of its own, so that a seed means the same pair for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % most
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn word(&mut self) -> String {
        format!("w{}", self.below(1_000))
    }
}

fn policy(random: &mut Random, effect: &str) -> Value {
    let action = ["s3:GetObject", "sqs:SendMessage", "dynamodb:Query"][random.below(3)];
    json!({ "Effect": effect, "Action": action, "Resource": format!("arn:aws:s3:::b{}/*", random.below(50)) })
}

fn document(statements: Vec<Value>) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

fn trust(service: &str) -> Value {
    let statement = json!({ "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": { "Service": service } });
    document(vec![statement])
}

fn rule(random: &mut Random) -> Value {
    let cidr = format!("10.{}.0.0/16", random.below(200));
    let port = 80 + random.below(9_000);
    json!({ "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": cidr })
}

const KINDS: usize = 12;

/// A resource of one of the kinds; `others` may be referred to.
fn resource(random: &mut Random, others: &[(String, &'static str)]) -> (&'static str, Value) {
    let any = |random: &mut Random, kind: &str, attribute: Option<&str>| -> Value {
        let all: Vec<&String> = others
            .iter()
            .filter(|o| o.1 == kind)
            .map(|o| &o.0)
            .collect();
        match (all.is_empty(), attribute) {
            (true, _) => json!(random.word()),
            (false, None) => json!({ "Ref": all[random.below(all.len())] }),
            (false, Some(name)) => json!({ "Fn::GetAtt": [all[random.below(all.len())], name] }),
        }
    };
    let (kind, properties) = match random.below(KINDS) {
        0 => (
            "AWS::SNS::Topic",
            json!({ "TopicName": random.word(), "DisplayName": random.word() }),
        ),
        1 => (
            "AWS::SQS::Queue",
            json!({ "QueueName": random.word(), "VisibilityTimeout": random.below(600) }),
        ),
        2 => (
            "AWS::S3::Bucket",
            json!({ "BucketName": format!("b-{}", random.word()), "Tags": [{ "Key": "k", "Value": random.word() }] }),
        ),
        3 => (
            "AWS::DynamoDB::Table",
            json!({
                "TableName": random.word(), "BillingMode": "PAY_PER_REQUEST",
                "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
                "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
            }),
        ),
        4 => (
            "AWS::RDS::DBInstance",
            json!({
                "DBInstanceClass": "db.t3.micro", "Engine": "postgres", "DBName": random.word(),
                "AllocatedStorage": (20 + random.below(80)).to_string(), "EngineVersion": "15.3",
                "MasterUsername": "admin", "ManageMasterUserPassword": true,
            }),
        ),
        5 => (
            "AWS::Lambda::Function",
            json!({
                "FunctionName": random.word(), "Runtime": "python3.12", "Handler": "a.b", "Timeout": random.below(60) + 1,
                "Code": { "S3Bucket": any(random, "AWS::S3::Bucket", None), "S3Key": random.word() },
                "Role": any(random, "AWS::IAM::Role", Some("Arn")),
                "Environment": { "Variables": { "TOPIC": any(random, "AWS::SNS::Topic", None) } },
            }),
        ),
        6 => (
            "AWS::EC2::Instance",
            json!({ "ImageId": format!("ami-{}", random.below(99)), "InstanceType": "t3.micro", "Tags": [{ "Key": "Name", "Value": random.word() }] }),
        ),
        7 => (
            "AWS::IAM::Role",
            json!({
                "RoleName": random.word(), "AssumeRolePolicyDocument": trust("lambda.amazonaws.com"),
                "Policies": [{ "PolicyName": "p", "PolicyDocument": document(vec![policy(random, "Allow")]) }],
            }),
        ),
        8 => (
            "AWS::IAM::ManagedPolicy",
            json!({ "Description": "d", "Roles": ["r"], "PolicyDocument": document(vec![policy(random, "Allow")]) }),
        ),
        9 => (
            "AWS::EC2::SecurityGroup",
            json!({ "GroupDescription": random.word(), "VpcId": "vpc-1", "SecurityGroupIngress": [rule(random)] }),
        ),
        10 => (
            "AWS::SSM::Parameter",
            json!({ "Name": random.word(), "Type": "String", "Value": any(random, "AWS::SQS::Queue", None) }),
        ),
        _ => {
            let mut properties = rule(random);
            properties["GroupId"] = json!("sg-1");
            ("AWS::EC2::SecurityGroupIngress", properties)
        }
    };
    (kind, json!({ "Type": kind, "Properties": properties }))
}

/// What is done to a resource; returns nothing where it has no such thing.
fn change(random: &mut Random, resource: &mut Value) {
    let kind = resource["Type"].as_str().unwrap_or_default().to_owned();
    match random.below(12) {
        0 => {
            resource["Metadata"] = json!({ "note": random.word() });
            return;
        }
        1 => {
            resource["DeletionPolicy"] = json!("Retain");
            return;
        }
        _ => {}
    }
    let word = random.word();
    let properties = &mut resource["Properties"];
    let which = random.below(4);
    let set = |properties: &mut Value, name: &str, value: Value| properties[name] = value;
    match (kind.as_str(), which) {
        ("AWS::SNS::Topic", 0) => set(properties, "TopicName", json!(word)),
        ("AWS::SNS::Topic", 1) => drop(properties.as_object_mut().unwrap().remove("DisplayName")),
        ("AWS::SNS::Topic", _) => set(properties, "DisplayName", json!(word)),
        ("AWS::SQS::Queue", 0) => set(properties, "QueueName", json!(word)),
        ("AWS::SQS::Queue", 1) => set(properties, "FifoQueue", json!(true)),
        ("AWS::SQS::Queue", _) => set(
            properties,
            "VisibilityTimeout",
            json!(700 + random.below(90)),
        ),
        ("AWS::S3::Bucket", 0) => set(properties, "BucketName", json!(format!("c-{word}"))),
        ("AWS::S3::Bucket", 1) => set(
            properties,
            "VersioningConfiguration",
            json!({ "Status": "Enabled" }),
        ),
        ("AWS::S3::Bucket", _) => set(properties, "Tags", json!([{ "Key": "k", "Value": word }])),
        ("AWS::DynamoDB::Table", 0) => set(properties, "TableName", json!(word)),
        ("AWS::DynamoDB::Table", 1) => {
            set(
                properties,
                "KeySchema",
                json!([{ "AttributeName": "other", "KeyType": "HASH" }]),
            );
            set(
                properties,
                "AttributeDefinitions",
                json!([{ "AttributeName": "other", "AttributeType": "S" }]),
            );
        }
        ("AWS::DynamoDB::Table", _) => set(
            properties,
            "PointInTimeRecoverySpecification",
            json!({ "PointInTimeRecoveryEnabled": true }),
        ),
        ("AWS::RDS::DBInstance", 0) => set(properties, "DBName", json!(word)),
        ("AWS::RDS::DBInstance", 1) => set(properties, "Engine", json!("mysql")),
        ("AWS::RDS::DBInstance", 2) => set(properties, "EngineVersion", json!("16.1")),
        ("AWS::RDS::DBInstance", _) => set(properties, "DBInstanceClass", json!("db.t3.large")),
        ("AWS::Lambda::Function", 0) => set(properties, "FunctionName", json!(word)),
        ("AWS::Lambda::Function", 1) => set(properties, "PackageType", json!("Zip")),
        ("AWS::Lambda::Function", _) => set(properties, "Timeout", json!(100 + random.below(90))),
        ("AWS::EC2::Instance", 0) => set(properties, "ImageId", json!("ami-new")),
        ("AWS::EC2::Instance", 1) => set(properties, "InstanceType", json!("m5.large")),
        ("AWS::EC2::Instance", 2) => set(properties, "EbsOptimized", json!(true)),
        ("AWS::EC2::Instance", _) => set(
            properties,
            "Tags",
            json!([{ "Key": "Name", "Value": word }]),
        ),
        ("AWS::IAM::Role", 0) => set(
            properties,
            "ManagedPolicyArns",
            json!(["arn:aws:iam::aws:policy/AdministratorAccess"]),
        ),
        ("AWS::IAM::Role", 1) => set(
            properties,
            "AssumeRolePolicyDocument",
            trust("ec2.amazonaws.com"),
        ),
        ("AWS::IAM::Role", 2) => drop(properties.as_object_mut().unwrap().remove("Policies")),
        ("AWS::IAM::Role", _) => {
            let effect = ["Allow", "Deny"][random.below(2)];
            let more = policy(random, effect);
            let statements = properties.pointer_mut("/Policies/0/PolicyDocument/Statement");
            statements.unwrap().as_array_mut().unwrap().push(more);
        }
        ("AWS::IAM::ManagedPolicy", 0) => set(properties, "Description", json!(word)),
        ("AWS::IAM::ManagedPolicy", 1) => {
            let statement = json!({ "Effect": "Allow", "Action": "*", "Resource": "*" });
            set(properties, "PolicyDocument", document(vec![statement]));
        }
        ("AWS::IAM::ManagedPolicy", 2) => {
            let deny = policy(random, "Deny");
            set(properties, "PolicyDocument", document(vec![deny]));
        }
        ("AWS::IAM::ManagedPolicy", _) => {
            let other = policy(random, "Allow");
            set(properties, "PolicyDocument", document(vec![other]));
        }
        ("AWS::EC2::SecurityGroup", 0) => set(properties, "GroupDescription", json!(word)),
        ("AWS::EC2::SecurityGroup", 1) => drop(
            properties
                .as_object_mut()
                .unwrap()
                .remove("SecurityGroupIngress"),
        ),
        ("AWS::EC2::SecurityGroup", _) => {
            let mut more = rule(random);
            if which == 2 {
                more["CidrIp"] = json!("0.0.0.0/0");
            }
            properties["SecurityGroupIngress"]
                .as_array_mut()
                .unwrap()
                .push(more);
        }
        ("AWS::SSM::Parameter", 0) => set(properties, "Name", json!(word)),
        ("AWS::SSM::Parameter", _) => set(properties, "Value", json!(word)),
        (_, 0) => set(properties, "CidrIp", json!("0.0.0.0/0")),
        (_, 1) => set(properties, "Description", json!(word)),
        _ => set(
            properties,
            "CidrIp",
            json!(format!("172.16.{}.0/24", random.below(90))),
        ),
    }
}

/// Makes a pair of templates.
fn pair(seed: u64) -> [Value; 2] {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    // From 10 to 500, most of them small.
    let size = 10
        + random.below(50)
        + if seed.is_multiple_of(10) {
            random.below(441)
        } else {
            0
        };
    let mut before = Map::new();
    let mut known: Vec<(String, &'static str)> = Vec::new();
    for n in 0..size {
        let (kind, made) = resource(&mut random, &known);
        let id = format!("R{n}");
        let mut made = made;
        // Some stay when they are removed.
        if n % 10 == 7 {
            made["DeletionPolicy"] = json!("Retain");
        }
        before.insert(id.clone(), made);
        known.push((id, kind));
    }
    let named = Value::Object(before.clone()).to_string();
    let mut after = Map::new();
    for (id, made) in &before {
        let mut made = made.clone();
        if random.one_in(6) {
            change(&mut random, &mut made);
        }
        let is_named =
            named.contains(&format!("\"{id}\"}}")) || named.contains(&format!("[\"{id}\""));
        if random.one_in(25) && !is_named {
            continue;
        }
        after.insert(id.clone(), made);
    }
    for n in 0..random.below(4) {
        let (_, made) = resource(&mut random, &[]);
        after.insert(format!("New{n}"), made);
    }
    [before, after].map(|resources| json!({ "Resources": resources }))
}

/// What isoform says of a pair.
fn changes(pair: &[Value; 2]) -> Vec<Change> {
    let (before, after) = (pair[0].to_string(), pair[1].to_string());
    let none = BTreeMap::new();
    let deployed = Deployed {
        template: &before,
        parameters: &none,
    };
    let pseudo = Pseudo {
        account: "123456789012".into(),
        region: "us-east-1".into(),
        stack_name: "s".into(),
        stack_id: None,
        notification_arns: Vec::new(),
    };
    let read = parse_template("t", &after).unwrap();
    let found = preview(
        Some(&deployed),
        (&read, &none),
        &pseudo,
        &KeyedHasher::new(b"k"),
    );
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    found.changes
}

fn verdict(change: &Change) -> &'static str {
    match (change.action, change.replacement) {
        (Action::Add, _) => "create",
        (Action::Remove, _)
            if change.policy == Some(isoform::domain::plan::PolicyAction::Retain) =>
        {
            "orphan"
        }
        (Action::Remove, _) => "destroy",
        (_, Replacement::Always) => "replace",
        (_, Replacement::Conditional) => "may replace",
        _ => "update",
    }
}

fn theirs(impact: &str) -> &'static str {
    match impact {
        "WILL_CREATE" => "create",
        "WILL_DESTROY" => "destroy",
        "WILL_ORPHAN" => "orphan",
        "WILL_REPLACE" => "replace",
        "MAY_REPLACE" => "may replace",
        "WILL_UPDATE" => "update",
        "NO_CHANGE" => "nothing",
        other => panic!("an impact that is not known: {other}"),
    }
}

/// Returns the properties of a resource that differ, as they are written.
fn moved(pair: &[Value; 2], id: &str) -> Vec<String> {
    let of = |at: usize| pair[at]["Resources"][id].clone();
    let (before, after) = (of(0), of(1));
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (one, other, prefix) in [
        (&before, &after, ""),
        (&before["Properties"], &after["Properties"], "Properties."),
    ] {
        let keys = [one, other]
            .into_iter()
            .filter_map(Value::as_object)
            .flat_map(Map::keys);
        for key in keys.filter(|k| *k != "Properties") {
            if one.get(key) != other.get(key) {
                names.insert(format!("{prefix}{key}"));
            }
        }
    }
    names.into_iter().collect()
}

/// Which question the two answer differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    /// What becomes of a resource.
    Verdict,
    /// Whether somebody may do more.
    Rights,
    /// Whether a door of a security group opens.
    Rules,
}

/// One disagreement, with what explains it.
struct Case<'a> {
    question: Question,
    kind: &'a str,
    /// Whether the resource is new.
    new: bool,
    /// Properties that differ as written.
    moved: Vec<String>,
    mine: &'a str,
    other: &'a str,
    after: &'a Value,
    /// Logical ids that isoform says are replaced, or may be.
    replaced: &'a BTreeSet<&'a str>,
}

impl Case<'_> {
    /// Returns the row of `docs/diff-quality.md` that explains it.
    fn row(&self) -> Option<&'static str> {
        let text = self.after.to_string();
        let refers = |id: &&str| {
            text.contains(&format!("{{\"Ref\":\"{id}\"}}")) || text.contains(&format!("[\"{id}\","))
        };
        match (self.question, self.mine, self.other) {
            (Question::Verdict, "update", "nothing")
                if self.moved.is_empty() && self.replaced.iter().any(refers) =>
            {
                Some("follows-a-replacement")
            }
            (Question::Verdict, "may replace", "replace")
                if self.kind == "AWS::DynamoDB::Table"
                    && self.moved.contains(&"Properties.KeySchema".to_owned()) =>
            {
                Some("key-schema")
            }
            (Question::Rights, "no", "yes") if self.new && !text.contains("\"*\"") => {
                Some("new-with-narrow-rights")
            }
            (Question::Rules, "no", "yes")
                if !text.contains("0.0.0.0/0") && !text.contains("::/0") =>
            {
                Some("door-to-a-network")
            }
            _ => None,
        }
    }
}

/// The rows of the table in `docs/diff-quality.md`.
fn rows() -> BTreeSet<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/diff-quality.md");
    let text = std::fs::read_to_string(path).unwrap();
    let ids = text
        .lines()
        .filter_map(|l| l.strip_prefix("| `")?.split_once('`'));
    ids.map(|(id, _)| id.to_owned()).collect()
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// A pair with one resource only; a template has at least one.
fn alone(pair: &[Value; 2], id: &str) -> [Value; 2] {
    [0, 1].map(|at: usize| {
        let mut only = Map::new();
        if let Some(resource) = pair[at]["Resources"].get(id) {
            only.insert(id.to_owned(), resource.clone());
        }
        only.insert("Z".into(), json!({ "Type": "AWS::SNS::Topic" }));
        json!({ "Resources": only })
    })
}

#[test]
fn every_disagreement_with_cloudformation_diff_is_of_a_kind_that_is_explained() {
    let name = "every_disagreement_with_cloudformation_diff_is_of_a_kind_that_is_explained";
    let Some(folder) = judges(name) else {
        return;
    };
    let mut oracle = Oracle::start(&folder.join("node"), "differs.mjs");
    let (mut seen, mut agreed) = (
        BTreeMap::<&str, usize>::new(),
        BTreeMap::<&str, usize>::new(),
    );
    let mut unexplained = Vec::new();
    for seed in 0..PAIRS {
        let pair = pair(seed);
        let answer = oracle.ask(&[json!(pair)]).remove(0);
        let found = changes(&pair);
        let mine: BTreeMap<&str, &str> = found
            .iter()
            .map(|c| (c.logical.as_str(), verdict(c)))
            .collect();
        let verdicts = answer["verdicts"].as_object().unwrap().iter();
        let other: BTreeMap<&str, &str> = verdicts
            .map(|(id, v)| (id.as_str(), theirs(v.as_str().unwrap())))
            .collect();
        let replaced: BTreeSet<&str> = mine
            .iter()
            .filter(|(_, v)| v.contains("replace"))
            .map(|(id, _)| *id)
            .collect();
        let ids: BTreeSet<&str> = mine.keys().chain(other.keys()).copied().collect();
        for id in ids {
            let [before, after] = [0, 1].map(|at: usize| &pair[at]["Resources"][id]);
            let kind = after["Type"].as_str().or(before["Type"].as_str()).unwrap();
            let (a, b) = (
                mine.get(id).unwrap_or(&"nothing"),
                other.get(id).unwrap_or(&"nothing"),
            );
            let mut asked = vec![(Question::Verdict, *a, *b)];
            if kind.contains("IAM") || kind.contains("SecurityGroup") {
                // Alone, so that it is known whose rights and doors they are.
                let one = alone(&pair, id);
                let answer = oracle.ask(&[json!(one)]).remove(0);
                let worries: Vec<Worry> = changes(&one)
                    .iter()
                    .flat_map(concerns)
                    .map(|c| c.worry)
                    .collect();
                let (access, network) = (
                    worries.contains(&Worry::Access),
                    worries.contains(&Worry::Network),
                );
                asked.push((Question::Rights, yes(access), yes(answer["rights"] == true)));
                asked.push((Question::Rules, yes(network), yes(answer["rules"] == true)));
            }
            for (question, mine, other) in asked {
                if mine == other {
                    *agreed.entry(mine).or_default() += 1;
                    continue;
                }
                let case = Case {
                    question,
                    kind,
                    new: before.is_null(),
                    moved: moved(&pair, id),
                    mine,
                    other,
                    after,
                    replaced: &replaced,
                };
                match case.row() {
                    Some(row) => *seen.entry(row).or_default() += 1,
                    None => unexplained.push(format!(
                        "seed {seed}, {id} ({kind}) {question:?} {:?}: isoform says {mine}, cloudformation-diff {other}",
                        case.moved
                    )),
                }
            }
        }
    }
    println!("agreed {agreed:?}; explained {seen:?}");

    assert!(unexplained.is_empty(), "{unexplained:#?}");
    let told: BTreeSet<String> = seen.keys().map(|row| (*row).to_owned()).collect();
    assert_eq!(
        told,
        rows(),
        "the table has the kinds that there are, and no other"
    );
    // What is compared is worth it: each verdict that both can give was given by both.
    for verdict in [
        "create",
        "destroy",
        "orphan",
        "update",
        "replace",
        "may replace",
        "yes",
        "no",
    ] {
        assert!(agreed.contains_key(verdict), "{verdict}: {agreed:?}");
    }
}
