//! Webhooks, judged by what forges publish for their clients: every example of GitHub's payloads, its HMAC, and the package of the
//! specification that GitLab signs by.

use std::path::PathBuf;

use isoform::domain::forge::{ForgeKind, News, Refusal, admit};
use serde_json::{Value, json};

use crate::oracle::{Oracle, python};

const SECRET: &str = "It's a Secret to Everybody";

/// Returns the folder of the packages that `tests/run` prepared, or says why a test is skipped.
fn judges(test: &str) -> Option<PathBuf> {
    let folder = std::env::var("ISOFORM_TEST_NODE").ok().map(PathBuf::from);
    let folder = folder.filter(|f| f.join("node_modules").is_dir());
    if folder.is_none() {
        println!("SKIP {test}: ISOFORM_TEST_NODE names no folder of packages; run ./tests/run");
    }
    folder
}

/// An example: the event, and its body.
struct Example {
    event: String,
    payload: Value,
    body: String,
}

fn examples(judges: &std::path::Path) -> Vec<Example> {
    let folder = judges.join("node_modules/@octokit/webhooks-examples");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let Ok(text) = std::fs::read_to_string(entry.unwrap().path().join("index.json")) else {
            continue;
        };
        let events: Vec<Value> = serde_json::from_str(&text).unwrap();
        for event in events {
            for payload in event["examples"].as_array().unwrap() {
                all.push(Example {
                    event: event["name"].as_str().unwrap().to_owned(),
                    payload: payload.clone(),
                    body: payload.to_string(),
                });
            }
        }
    }
    all
}

/// What an example must be taken for, read from its whole payload.
fn expected(example: &Example) -> News {
    let payload = &example.payload;
    let action = payload["action"].as_str();
    match example.event.as_str() {
        "ping" => News::Ping,
        "push" => match payload["ref"].as_str().unwrap().strip_prefix("refs/heads/") {
            Some(branch) => News::Push {
                branches: vec![branch.into()],
            },
            None => News::Other,
        },
        "pull_request" => News::Pull(payload["number"].as_u64().unwrap()),
        "issue_comment"
            if action == Some("created") && payload["issue"]["pull_request"].is_object() =>
        {
            News::Comment {
                pull: payload["issue"]["number"].as_u64().unwrap(),
            }
        }
        _ => News::Other,
    }
}

fn deliver(
    example: &Example,
    signature: &str,
) -> Result<isoform::domain::forge::Delivery, Refusal> {
    let headers: [(&str, &[u8]); 3] = [
        ("X-GitHub-Event", example.event.as_bytes()),
        ("X-GitHub-Delivery", b"72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("X-Hub-Signature-256", signature.as_bytes()),
    ];
    let body = example.body.as_bytes();
    admit(ForgeKind::GitHub, &headers, body, &[SECRET.as_bytes()])
}

#[test]
fn every_example_of_github_is_taken_under_its_signature_only() {
    let Some(judges) = judges("every_example_of_github_is_taken_under_its_signature_only") else {
        return;
    };
    let examples = examples(&judges);
    assert!(examples.len() > 300, "{} examples", examples.len());
    let mut oracle = Oracle::start(&judges.join("node"), "webhooks.mjs");
    let sign = |secret: &str| -> Vec<Value> {
        let cases = examples.iter();
        cases
            .map(|e| json!({ "secret": secret, "body": e.body }))
            .collect()
    };
    let right = oracle.ask(&sign(SECRET));
    let wrong = oracle.ask(&sign("another secret"));

    for ((example, right), wrong) in examples.iter().zip(&right).zip(&wrong) {
        let said = |value: &Value| value.as_str().unwrap().to_owned();

        let taken = deliver(example, &said(right));
        let refused = deliver(example, &said(wrong));

        let taken = taken.unwrap_or_else(|e| panic!("{}: {e}", example.event));
        assert_eq!(taken.news, expected(example), "{}", example.event);
        let repository = example.payload["repository"]["full_name"].as_str();
        assert_eq!(taken.repository.as_deref(), repository, "{}", example.event);
        assert_eq!(refused, Err(Refusal::BadSignature), "{}", example.event);
    }
    let taken = examples.iter().filter(|e| expected(e) != News::Other);
    println!(
        "{} examples, {} of them news",
        examples.len(),
        taken.count()
    );
}

#[test]
fn signatures_are_judged_as_githubs_own_package_judges_them() {
    let Some(judges) = judges("signatures_are_judged_as_githubs_own_package_judges_them") else {
        return;
    };
    let mut oracle = Oracle::start(&judges.join("node"), "webhooks.mjs");
    let bodies = [
        r#"{"zen":"Keep it logically awesome."}"#,
        "{\"zen\":\"é ünïcødé \u{1f980}\"}",
        " {\"zen\" : 1}\n",
        r#"{"zen":"\u0000\\"}"#,
    ];
    let cases = bodies.map(|body| json!({ "secret": SECRET, "body": body }));
    let signatures = oracle.ask(&cases);
    let mut asked = Vec::new();
    for body in bodies {
        for signature in &signatures {
            let signature = signature.as_str().unwrap();
            let flipped = format!("{}0", &signature[..signature.len() - 1]);
            for signature in [
                signature,
                &flipped,
                &signature[..signature.len() - 2],
                "sha256=",
            ] {
                asked.push((body, signature.to_owned()));
            }
        }
    }
    let cases: Vec<Value> = asked
        .iter()
        // An empty one is an error of theirs, and not an answer.
        .map(|(body, signature)| json!({ "secret": SECRET, "body": body, "signature": signature }))
        .collect();

    let theirs = oracle.ask(&cases);

    let mut agreed = 0;
    for ((body, signature), theirs) in asked.iter().zip(theirs) {
        let example = Example {
            event: "ping".into(),
            payload: Value::Null,
            body: (*body).to_owned(),
        };
        let ours = deliver(&example, signature);
        assert_eq!(ours.is_ok(), theirs == true, "{body} under {signature}");
        agreed += usize::from(ours.is_ok());
    }
    assert!(agreed >= bodies.len(), "the right ones are among them");
}

#[test]
fn a_delivery_signed_by_the_standard_is_taken_from_gitlab() {
    let Some(python) = python("a_delivery_signed_by_the_standard_is_taken_from_gitlab") else {
        return;
    };
    let mut oracle = Oracle::start(&python, "standard_webhooks.py");
    let tokens = [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=",
    ];
    let bodies = [
        r#"{"object_kind":"push","ref":"refs/heads/main","project":{"path_with_namespace":"a/b"}}"#,
        "{ \"object_kind\": \"é \u{1f980}\" }\n",
    ];
    let mut cases = Vec::new();
    for token in tokens {
        for body in bodies {
            cases.push(json!({ "token": token, "id": "f5e5f430-f57b", "time": 1_795_000_000, "body": body }));
        }
    }

    let signatures = oracle.ask(&cases);

    for (case, signature) in cases.iter().zip(&signatures) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (token, body, signature) = (text(&case["token"]), text(&case["body"]), text(signature));
        let deliver = |secret: &str| {
            let headers: [(&str, &[u8]); 4] = [
                ("X-Gitlab-Event", b"Push Hook"),
                ("webhook-id", b"f5e5f430-f57b"),
                ("webhook-timestamp", b"1795000000"),
                ("webhook-signature", signature.as_bytes()),
            ];
            let body = body.as_bytes();
            admit(ForgeKind::GitLab, &headers, body, &[secret.as_bytes()])
        };
        assert!(deliver(&token).is_ok(), "{case} {signature}");
        for other in tokens.iter().filter(|t| **t != token) {
            assert_eq!(deliver(other), Err(Refusal::BadSignature), "{case}");
        }
    }
}
