//! What `isoform iam` allows is what the adapters call, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use isoform::aws::calls::CALLS;
use isoform::domain::cfn::parse_template;
use isoform::domain::iam::{Documents, Place, Queue, Setup, Store, Taken, documents, template};
use serde_json::Value;

fn taken(account: &str, name: &str) -> Taken {
    Taken {
        arn: format!("arn:aws:iam::{account}:role/{name}"),
        external_id: Some("an-external-id".into()),
    }
}

/// A hub account, a production account with every role, a test account without any, and a store of each kind.
fn setup() -> Setup {
    let prod = Place {
        account: "333333333333".parse().unwrap(),
        regions: [("us-east-1", "us"), ("eu-west-1", "eu")]
            .map(|(r, s)| (r.parse().unwrap(), s.to_owned()))
            .into(),
        preview: Some(taken("333333333333", "isoform/preview")),
        apply: Some(taken("333333333333", "isoform-apply")),
        cloudformation: Some("arn:aws:iam::333333333333:role/isoform-cfn".into()),
        acts: true,
        pins: true,
    };
    let beta = Place {
        account: "111111111111".parse().unwrap(),
        regions: [("eu-west-1".parse().unwrap(), "eu".to_owned())].into(),
        preview: None,
        apply: None,
        cloudformation: None,
        acts: true,
        pins: false,
    };
    let key = |region: &str| format!("arn:aws:kms:{region}:333333333333:key/k");
    let us = Store {
        bucket: "acme-us".into(),
        prefix: "x".into(),
        owner: "333333333333".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        key: Some(key("us-east-1")),
        former_keys: vec!["arn:aws:kms:us-east-1:333333333333:key/old".into()],
        seals: true,
        role: Some(taken("333333333333", "isoform-store")),
        locks: true,
    };
    let eu = Store {
        bucket: "acme-eu".into(),
        prefix: String::new(),
        region: "eu-west-1".parse().unwrap(),
        key: Some(key("eu-west-1")),
        former_keys: Vec::new(),
        seals: false,
        role: None,
        locks: false,
        ..us.clone()
    };
    let archives = Store {
        bucket: "acme-proton".into(),
        prefix: "templates".into(),
        owner: "555555555555".parse().unwrap(),
        key: Some("arn:aws:kms:us-east-1:555555555555:key/k".into()),
        former_keys: Vec::new(),
        seals: false,
        role: None,
        locks: false,
        ..us.clone()
    };
    Setup {
        shelves: [("proton".to_owned(), archives)].into(),
        daemon: None,
        chain: vec![taken("111111111111", "hub")],
        tags: [("team".to_owned(), "platform".to_owned())].into(),
        deployment_tags: true,
        source_identity: true,
        places: vec![prod, beta],
        stores: [("us".to_owned(), us), ("eu".to_owned(), eu)].into(),
        root: Some((
            "arn:aws:kms:us-east-1:111111111111:key/root".into(),
            Some(taken("111111111111", "isoform-root")),
        )),
        signing: Some((
            "arn:aws:kms:us-east-1:111111111111:key/signs".into(),
            Some(taken("111111111111", "isoform-signs")),
        )),
        queues: vec![Queue {
            arn: "arn:aws:sqs:eu-west-1:333333333333:hints".into(),
            region: "eu-west-1".parse().unwrap(),
            role: Some(taken("333333333333", "isoform/preview")),
        }],
        observe: false,
    }
}

/// Actions of statements that allow something to isoform.
fn allowed(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if fields.get("Effect").is_some_and(|e| e == "Allow") => {
            // The account's administrators, and EventBridge: neither is isoform.
            let others = |sid: &Value| sid == "Administer" || sid == "Hints";
            if fields.get("Sid").is_some_and(others) {
                return;
            }
            match &fields["Action"] {
                Value::String(one) => {
                    found.insert(one.clone());
                }
                Value::Array(all) => {
                    found.extend(all.iter().map(|a| a.as_str().unwrap().to_owned()));
                }
                other => panic!("{other}"),
            }
        }
        Value::Object(fields) => fields.values().for_each(|v| allowed(v, found)),
        Value::Array(items) => items.iter().for_each(|v| allowed(v, found)),
        _ => {}
    }
}

fn actions(documents: &Documents) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    allowed(&documents.as_json(), &mut found);
    found
}

/// The text of every source file below a folder, without white space, so that a chain of calls is one word.
fn sources(folder: &str) -> String {
    fn walk(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, text);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let read = std::fs::read_to_string(&path).unwrap();
                text.extend(read.chars().filter(|c| !c.is_whitespace()));
            }
        }
    }
    let mut text = String::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut text,
    );
    text
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[test]
fn the_table_has_every_call_of_the_adapters_and_no_other() {
    let text = sources("src/aws");
    let told: BTreeSet<&str> = text
        .split("error::of(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let known: BTreeSet<&str> = CALLS.iter().map(|c| c.name).collect();

    assert!(told.is_subset(&known), "{:?}", told.difference(&known));
    for call in known.iter().filter(|c| **c != "AssumeRole") {
        assert!(text.contains(&format!(".{}()", snake(call))), "{call}");
    }
    assert!(text.contains("AssumeRoleProvider::builder"));
}

#[test]
fn nothing_asks_for_what_nobody_is_allowed() {
    let text = sources("src/reconcile") + &sources("src/http") + &sources("src/daemon");
    for call in CALLS {
        if let Some(method) = call.spare {
            let of_keys = ["rewrap"].contains(&method);
            let callers = if of_keys {
                ["keys", "sealing"]
            } else {
                ["engine", "engine.as_ref()"]
            };
            for caller in callers {
                assert!(
                    !text.contains(&format!("{caller}.{method}(")),
                    "{} is in use: take `spare` from its row",
                    call.name
                );
            }
        }
    }
}

#[test]
fn what_is_allowed_is_what_is_called() {
    let used: BTreeSet<String> = CALLS
        .iter()
        .filter(|c| c.spare.is_none())
        .flat_map(|c| c.actions)
        .map(|a| (*a).to_owned())
        .collect();

    assert_eq!(actions(&documents(&setup())), used);
}

#[test]
fn looking_changes_nothing() {
    let observed = documents(&Setup {
        observe: true,
        ..setup()
    });

    let found = actions(&observed);
    for action in [
        "cloudformation:ExecuteChangeSet",
        "cloudformation:DeleteStack",
        "cloudformation:SetStackPolicy",
        "cloudformation:UpdateTerminationProtection",
    ] {
        assert!(!found.contains(action), "{action}");
    }
    assert!(found.contains("cloudformation:CreateChangeSet"));
    let apply = "arn:aws:iam::333333333333:role/isoform-apply";
    assert!(observed.roles.iter().all(|r| r.arn != apply));
    assert!(!observed.as_json().to_string().contains(apply));
}

#[test]
fn a_role_does_its_part_only() {
    let documents = documents(&setup());
    let of = |name: &str| {
        let mut found = BTreeSet::new();
        let role = documents.roles.iter().find(|r| r.arn.ends_with(name));
        allowed(role.unwrap().policy.as_ref().unwrap(), &mut found);
        found
    };

    assert!(of("/preview").contains("cloudformation:CreateChangeSet"));
    assert!(!of("/preview").contains("cloudformation:ExecuteChangeSet"));
    assert!(of("isoform-apply").contains("cloudformation:ExecuteChangeSet"));
    assert!(!of("isoform-apply").contains("s3:PutObject"));
    assert!(
        of("isoform-store")
            .iter()
            .all(|a| !a.starts_with("cloudformation:"))
    );
    let mut own = BTreeSet::new();
    allowed(&documents.daemon, &mut own);
    let take = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"].map(str::to_owned);
    assert_eq!(own, BTreeSet::from(take), "the daemon only takes its role");
}

/// Statements of a role's policy that allow an action.
fn allowing<'d>(documents: &'d Documents, role: &str, action: &str) -> Vec<&'d Value> {
    let found = documents.roles.iter().find(|r| r.arn.ends_with(role));
    let policy = found.unwrap().policy.as_ref().unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    let has = |s: &&Value| s["Action"].as_array().unwrap().iter().any(|a| a == action);
    statements.filter(has).collect()
}

#[test]
fn transforms_may_be_used_in_every_region() {
    let documents = documents(&setup());

    for role in ["/preview", "isoform-apply"] {
        let proposing = allowing(&documents, role, "cloudformation:CreateChangeSet");
        let [own, transforms] = proposing[..] else {
            panic!("{role}: {proposing:?}");
        };

        assert!(own["Condition"]["StringLike"]["cloudformation:TemplateUrl"].is_array());
        let all = ["us-east-1", "eu-west-1"]
            .map(|r| format!("arn:aws:cloudformation:{r}:aws:transform/*"));
        let named: BTreeSet<&str> = transforms["Resource"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(named, all.iter().map(String::as_str).collect());
        assert_eq!(
            transforms.get("Condition"),
            None,
            "a transform is asked for without a template"
        );
    }
}

#[test]
fn everything_that_a_rebuild_needs_may_be_locked() {
    let documents = documents(&setup());

    let locks = allowing(&documents, "isoform-store", "s3:PutObjectRetention");

    let log = ["checkpoints", "keys", "log", "root"]
        .map(|what| format!("arn:aws:s3:::acme-us/x/{what}/*"));
    assert_eq!(locks[0]["Resource"], serde_json::json!(log));
}

#[test]
fn a_role_is_made_after_the_one_that_it_trusts() {
    let setup = Setup {
        chain: vec![taken("333333333333", "hub")],
        ..setup()
    };
    let documents = documents(&setup);
    let made = template(&documents, "333333333333", "us-east-1");
    let name = |name: &str| {
        let mut roles = made["Resources"].as_object().unwrap().iter();
        let found = roles.find(|(_, r)| r["Properties"]["RoleName"] == name);
        found.unwrap().0.clone()
    };

    let apply = &made["Resources"][name("isoform-apply")];
    assert_eq!(apply["DependsOn"], serde_json::json!([name("hub")]));
    let hub = &made["Resources"][name("hub")];
    assert_eq!(hub.get("DependsOn"), None, "it trusts the daemon");
}

#[test]
fn the_documents_of_an_installation() {
    let text = serde_json::to_string_pretty(&documents(&setup()).as_json());
    insta::assert_snapshot!("iam", text.unwrap());
}

#[test]
fn templates_are_read_by_isoform_and_are_clean_to_cfn_lint() {
    let documents = documents(&setup());
    for account in documents.accounts() {
        let text = serde_json::to_string_pretty(&template(&documents, &account, "us-east-1"));
        let text = text.unwrap();
        let read = parse_template("iam.json", &text).unwrap();
        assert!(!read.resources.is_empty(), "{account}");
        insta::assert_snapshot!(format!("iam-template-{account}"), text);
        lints_clean(&text);
    }
}

fn lints_clean(text: &str) {
    let Ok(python) = std::env::var("ISOFORM_TEST_PYTHON") else {
        println!("SKIP iam_template_lint: ISOFORM_TEST_PYTHON is not set; run ./tests/run");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("template.json");
    std::fs::write(&path, text).unwrap();
    let run = Command::new(python)
        .args([
            "-c",
            "from cfnlint.runner import main; main()",
            "--regions",
            "us-east-1",
            "--",
        ])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    if String::from_utf8_lossy(&run.stderr).contains("No module named") {
        println!("SKIP iam_template_lint: this Python has no cfn-lint; run ./tests/run");
        return;
    }
    assert!(run.status.success() && said.trim().is_empty(), "{said}");
}
