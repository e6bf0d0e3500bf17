//! What a pull request would change: two templates of 500 resources, and one template of 1,000 instances.

use std::collections::BTreeMap;
use std::fmt::Write;

use isoform::domain::cfn::{Pseudo, parse_template};
use isoform::domain::model::KeyedHasher;
use isoform::domain::plan::{Deployed, preview, preview_read};
use serde_json::Value;

use crate::Options;
use crate::measure::{Started, print, ratio};

const KINDS: [&str; 5] = [
    "AWS::SQS::Queue",
    "AWS::SNS::Topic",
    "AWS::S3::Bucket",
    "AWS::SSM::Parameter",
    "AWS::IAM::Role",
];

/// Two templates of 500 resources: 25 differ in a tag, three are gone and three are new.
pub fn pair() -> [String; 2] {
    [false, true].map(|new| {
        let mut out = String::from("AWSTemplateFormatVersion: '2010-09-09'\nResources:\n");
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for i in 0..500usize {
            let kind = KINDS[random(5) as usize];
            let mut block = format!(
                "  R{i}:\n    Type: {kind}\n    Properties:\n      Name: r{i}\n      Tags:\n"
            );
            for k in 0..4 {
                let value = random(100);
                let value = if new && k == 1 && i % 20 == 3 {
                    "changed".to_owned()
                } else {
                    value.to_string()
                };
                let _ = write!(block, "      - Key: k{k}\n        Value: '{value}'\n");
            }
            let before = i.saturating_sub(1);
            // A resource that is gone is named by nobody.
            let named = if before % 170 == 101 {
                before - 1
            } else {
                before
            };
            let _ = write!(
                block,
                "      Nested:\n        A:\n          Ref: R{named}\n        B:\n"
            );
            for _ in 0..6 {
                let _ = writeln!(block, "        - {}", random(10));
            }
            if !(new && i % 170 == 101) {
                out.push_str(&block);
            }
        }
        if new {
            for (i, kind) in KINDS.iter().take(3).enumerate() {
                let _ = write!(
                    out,
                    "  New{i}:\n    Type: {kind}\n    Properties:\n      Name: new{i}\n"
                );
            }
        }
        out
    })
}

/// A plain recursive walk over two values: the peer, without anything that CloudFormation knows.
fn walk(a: &Value, b: &Value, found: &mut usize) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                match b.get(key) {
                    Some(other) => walk(value, other, found),
                    None => *found += 1,
                }
            }
            *found += b.keys().filter(|key| !a.contains_key(*key)).count();
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| walk(a, b, found));
        }
        _ if a != b => *found += 1,
        _ => {}
    }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let [old, new] = pair();
    let read = |text: &str| {
        parse_template("t", text)
            .map_err(|f| anyhow::anyhow!("{:?}", f.first().map(|f| f.message.clone())))
    };
    let yaml = |text: &str| anyhow::Ok(serde_yaml::from_str::<Value>(text)?);
    let (plain_old, plain_new) = (yaml(&old)?, yaml(&new)?);
    let json = [
        serde_json::to_vec(&plain_old)?,
        serde_json::to_vec(&plain_new)?,
    ];
    let none = BTreeMap::new();
    let deployed = Deployed {
        template: &old,
        parameters: &none,
    };
    let pseudo = Pseudo {
        account: "123456789012".into(),
        region: "us-east-1".into(),
        stack_name: "s".into(),
        stack_id: None,
        notification_arns: vec![],
    };
    let keyed = KeyedHasher::new(b"k");
    let (before, after) = (read(&old)?, read(&new)?);
    let mut costs: BTreeMap<&str, Vec<crate::measure::Cost>> = BTreeMap::new();
    let (mut changes, mut differences) = (0, 0);
    for _ in 0..options.repeat * 3 {
        let mut measure = |name, what: &mut dyn FnMut() -> anyhow::Result<()>| {
            let started = Started::now();
            what()?;
            costs.entry(name).or_default().push(started.cost());
            anyhow::Ok(())
        };
        measure("json", &mut || {
            for text in &json {
                std::hint::black_box(serde_json::from_slice::<Value>(text)?);
            }
            Ok(())
        })?;
        measure("yaml", &mut || {
            std::hint::black_box((yaml(&old)?, yaml(&new)?));
            Ok(())
        })?;
        measure("walk", &mut || {
            differences = 0;
            walk(&plain_old, &plain_new, &mut differences);
            Ok(())
        })?;
        measure("read", &mut || {
            std::hint::black_box((read(&old)?, read(&new)?));
            Ok(())
        })?;
        measure("diff", &mut || {
            let preview = preview_read(Some((&before, &none)), (&after, &none), &pseudo, &keyed);
            anyhow::ensure!(preview.problems.is_empty(), "{:?}", preview.problems);
            changes = preview.changes.len();
            Ok(())
        })?;
        measure("whole", &mut || {
            let after = read(&new)?;
            std::hint::black_box(preview(Some(&deployed), (&after, &none), &pseudo, &keyed));
            Ok(())
        })?;
    }
    let bytes = old.len() + new.len();
    print(
        "floor: serde_json, the same as JSON",
        &costs["json"],
        "two texts",
    );
    print(
        "floor: serde_yaml to values",
        &costs["yaml"],
        &format!("{bytes} bytes in two texts"),
    );
    print(
        "peer: a plain walk over values",
        &costs["walk"],
        &format!("{differences} differences"),
    );
    print("isoform: read both", &costs["read"], "");
    print(
        "isoform: compare what was read",
        &costs["diff"],
        &format!("{changes} changes"),
    );
    print("isoform: from bytes to changes", &costs["whole"], "");
    ratio(
        "isoform from bytes to serde_yaml",
        &costs["whole"],
        &costs["yaml"],
    );
    ratio(
        "isoform's comparison to the walk",
        &costs["diff"],
        &costs["walk"],
    );
    if std::env::var_os("ISOFORM_TEST_PYTHON").is_none() {
        println!("deepdiff: not run, ISOFORM_TEST_PYTHON names no Python");
    } else {
        deepdiff(&json)?;
    }
    instances(options)
}

/// DeepDiff in Python, where it is installed.
fn deepdiff(json: &[Vec<u8>; 2]) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, text) in ["old.json", "new.json"].iter().zip(json) {
        std::fs::write(folder.path().join(name), text)?;
    }
    let program = "import json, time\nfrom deepdiff import DeepDiff\na, b = (json.load(open(n)) for n in ('old.json', 'new.json'))\nt = []\nfor _ in range(5):\n    s = time.process_time(); n = sum(len(v) for v in DeepDiff(a, b).values()); t.append(time.process_time() - s)\nprint(f'peer: deepdiff                               cpu {sorted(t)[2] * 1e3:.0f} ms  n=5 {n} differences')";
    let python = std::env::var_os("ISOFORM_TEST_PYTHON").unwrap_or_default();
    let ran = std::process::Command::new(python)
        .args(["-c", program])
        .current_dir(folder.path())
        .output()?;
    if ran.status.success() {
        print!("{}", String::from_utf8_lossy(&ran.stdout));
    } else {
        println!("deepdiff: not run, it is not installed there");
    }
    Ok(())
}

/// A changed template of 1,000 instances, previewed by a daemon from files that are not pushed.
fn instances(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let folder = tempfile::tempdir()?;
        let shape = isoform::testing::estate::Shape {
            templates: 1,
            services: 100,
            ..isoform::testing::estate::Shape::standard()
        };
        let daemon = crate::daemon::Running::of(folder.path(), shape.clone()).await?;
        // The same estate once more, with a change that nobody pushed.
        let other = folder.path().join("other.git");
        isoform::testing::estate::Estate::make(&other, shape)?.revise(0)?;
        let head = std::fs::read_to_string(other.join("refs/heads/main"))?;
        let files = isoform::git::Mirror::of(&other)?
            .read(&head.trim().parse()?)?
            .files;
        let mut costs = Vec::new();
        daemon.stub.take_calls();
        let mut differ = 0;
        for _ in 0..options.repeat {
            let started = Started::now();
            differ = daemon
                .line
                .diff(&"estate".parse()?, files.clone())
                .await?
                .targets
                .len();
            costs.push(started.cost());
        }
        let calls = daemon.stub.take_calls();
        print(
            "preview of a template's change",
            &costs,
            &format!("{differ} targets differ, calls {calls:?}"),
        );
        daemon.stop().await
    })
}
