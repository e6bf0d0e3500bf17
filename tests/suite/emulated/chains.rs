//! Real Proton bundles from a push to an emulator: environments, services that use their outputs, and pipelines that no emulator
//! can create.

use serde_json::Value;

use super::Ground;
use crate::support::{Bench, condition, copy, corpus};

const SKIPPED: &str = "real_bundles_on_an_emulator";

const WRITES: [&str; 6] = [
    "CreateChangeSet",
    "ExecuteChangeSet",
    "DeleteChangeSet",
    "DeleteStack",
    "SetStackPolicy",
    "UpdateTerminationProtection",
];

const CRUD: &str = "proton: ServiceSpec\npipeline: { unit_test_command: make test, packaging_commands: make publish }\ninstances:\n  - { name: front, environment: lambda, spec: { resource_name: task, resource_handler: src/api, lambda_runtime: ruby2.7 } }\n";
const PROCESSING: &str =
    "proton: ServiceSpec\ninstances:\n  - { name: back, environment: lambda, spec: {} }\n";
const BALANCED: &str = "proton: ServiceSpec\ninstances:\n  - { name: dev, environment: balanced, spec: { desired_count: 2, port: 80, task_size: medium } }\n";

/// Deploys a sample. No emulator can create its pipelines.
fn deploys(emulator: &str, sample: &str, sync: &str, specs: &[(&str, &str)]) {
    let Some(ground) = Ground::on(emulator) else {
        return;
    };
    let Some(samples) = corpus(SKIPPED) else {
        return;
    };
    let mut bench = ground.bench("auto");
    let samples = samples.join("aws-proton-cloudformation-sample-templates");
    copy(&samples.join(sample), &bench.work().join("sample"));
    for (path, spec) in specs {
        bench.write(path, spec);
    }
    bench.write("isoform.yaml", sync);
    bench.push("the sample");
    bench.start();
    let rests = |estate: &Value| {
        let head = estate["commits"]["example"]["revision"] == bench.head().as_str();
        let all = estate["targets"].as_array().is_some_and(|a| !a.is_empty());
        head && all && estate["settled"] == true
    };
    let estate = bench.until(rests);
    let all = estate["targets"].as_array().unwrap();
    let how = |t: &Value| format!("{} {}", t["address"], t["condition"]);
    let how: Vec<String> = all.iter().map(how).collect();
    for target in all {
        let address = target["address"].as_str().unwrap();
        let wanted = if address.starts_with("pipe/") {
            "Failed("
        } else {
            "InSync("
        };
        let found = condition(&estate, address);
        assert!(found.starts_with(wanted), "{address}: {how:#?}");
        if address.starts_with("pipe/") {
            fails_in_words(&ground, &bench, address);
        }
    }
    let wanted = estate["targets"].as_array().unwrap().len();
    assert!(wanted >= 2, "{estate:#}");

    // A second look at the same content writes nothing.
    let before = ground.proxy.counts(&WRITES);
    bench.write("README.md", "nothing that is deployed");
    bench.push("docs: a word");
    bench.until(rests);
    assert_eq!(ground.proxy.counts(&WRITES), before);
    bench.cli(&["audit", "verify"], 0);
    bench.stop();
}

/// It says which resource and why, and nothing of it is left.
fn fails_in_words(ground: &Ground, bench: &Bench, address: &str) {
    let why = bench.cli(&["why", address], 1);
    // moto knows no serverless templates and gives no outputs of them: what uses one cannot be rendered, and says where.
    let words = [
        "Pipeline",
        "Build",
        "Deploy",
        "Publish",
        "Function",
        "pipeline_infrastructure",
    ];
    assert!(words.iter().any(|r| why.contains(r)), "{why}");
    let left = ground.stacks();
    let left = left
        .iter()
        .find(|(n, s)| n.contains("pipe") && s.ends_with("_COMPLETE"));
    assert!(left.is_none_or(|(_, s)| s.contains("ROLLBACK")), "{left:?}");
}

fn lambda(emulator: &str) {
    deploys(
        emulator,
        "lambda-multi-svc",
        "isoform: 1
environments:
  lambda: { template: lambda-env@1, spec: sample/specs/env-spec.yaml, placement: beta }
defaults: { services: { pipeline: { placement: beta }, repository: { id: acme/app, branch: main, connection_arn: 'arn:aws:codestar-connections:eu-west-1:000000000001:connection/x' } } }
services:
  crud: { template: service-crud@1, spec: crud.yaml }
  processing: { template: service-data-processing@1, spec: processing.yaml }
",
        &[("crud.yaml", CRUD), ("processing.yaml", PROCESSING)],
    );
}

fn balanced(emulator: &str) {
    deploys(
        emulator,
        "loadbalanced-fargate-svc",
        "isoform: 1
environments:
  balanced: { template: loadbalanced-fargate-env@1, spec: sample/specs/env-spec.yaml, placement: beta }
services:
  web: { template: loadbalanced-fargate-svc@1, spec: web.yaml }
",
        &[("web.yaml", BALANCED)],
    );
}

macro_rules! on {
    ($($module:ident $name:literal $($test:ident $run:ident),*;)*) => {
        $(mod $module {
            $(#[test]
            fn $test() {
                super::$run($name);
            })*
        })*
    };
}
on! {
    on_ministack "ministack" two_services_share_an_environment lambda;
    on_localemu "localemu" two_services_share_an_environment lambda, a_service_behind_a_load_balancer balanced;
    on_moto "moto" two_services_share_an_environment lambda;
}
