//! Real Proton bundles: they validate, render as Jinja2 renders them, and deploy.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use isoform::domain::render::{Limits, render};
use isoform::domain::template::{
    Blob, Bundle, BundleKind, Files, find_bundles, find_components, load_bundle, load_component,
};
use serde_json::{Value, json};

use crate::support::{Bench, all_in_sync, copy, corpus, python};

fn files(folder: &Path, base: &Path, out: &mut Files) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, base, out);
        } else {
            let name = path.strip_prefix(base).unwrap().display().to_string();
            out.insert(name, Blob::new(std::fs::read(&path).unwrap()));
        }
    }
}

fn tree(folder: &Path) -> Files {
    let mut out = Files::new();
    files(folder, folder, &mut out);
    out
}

/// Renders with stock Jinja2.
fn oracle(python: &Path, cases: &Value) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/render.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(cases.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Values that a user could give: defaults, and for required inputs something that fits.
fn inputs(bundle: &Bundle, pipeline: bool) -> Value {
    let schema = &bundle.schema;
    let input = if pipeline {
        schema.pipeline.as_ref()
    } else {
        schema.environment.as_ref().or(schema.service.as_ref())
    };
    let Some(input) = input else { return json!({}) };
    let span = isoform::domain::model::Span::on_line(1, 1, 1);
    let (mut values, _) = input.effective("x", "", None, json!({}), span);
    let definition = input
        .schema
        .pointer(&format!("/definitions/{}", input.name))
        .cloned()
        .unwrap_or_default();
    for name in definition["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if values.get(name).is_none() {
            let property = &definition["properties"][name];
            values[name] = match (property["enum"].get(0), property["type"].as_str()) {
                (Some(first), _) => first.clone(),
                (_, Some("number" | "integer")) => json!(property["minimum"].as_i64().unwrap_or(1)),
                (_, Some("boolean")) => json!(true),
                (_, Some("array")) => json!(["a"]),
                _ => json!("value"),
            };
        }
    }
    values
}

/// Outputs under every name that a template asks for.
fn outputs(text: &str) -> Value {
    let mut out = serde_json::Map::new();
    for at in text
        .match_indices("outputs.")
        .map(|(i, _)| i + "outputs.".len())
    {
        let name: String = text[at..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        out.insert(
            name.clone(),
            json!(if name.contains("Runtime") {
                "ruby2.7".to_owned()
            } else {
                format!("value-of-{name}")
            }),
        );
    }
    Value::Object(out)
}

fn data(bundle: &Bundle, text: &str, pipeline: bool, component: &Value, count: usize) -> Value {
    let environment =
        json!({ "name": "env-1", "account_id": "000000000001", "outputs": outputs(text) });
    let service = json!({ "name": "front-end", "repository_id": "acme/app", "repository_connection_arn": "arn:aws:codestar-connections:x:1:connection/y", "branch_name": "main" });
    if bundle.kind == BundleKind::Environment {
        return json!({ "environment": { "name": "env-1", "account_id": "000000000001", "inputs": inputs(bundle, false) } });
    }
    let own = inputs(bundle, false);
    if pipeline {
        let instances: Vec<Value> = (0..count).map(|i| json!({ "name": format!("i{i}"), "inputs": own, "outputs": outputs(text), "environment": environment })).collect();
        return json!({ "service": service, "pipeline": { "inputs": inputs(bundle, true) }, "service_instances": instances });
    }
    json!({ "service": service, "environment": environment, "service_instance": { "name": "a-rather-long-instance-name", "inputs": own, "environment": environment, "components": { "default": { "name": "c", "outputs": component } } } })
}

#[test]
fn the_corpus_validates() {
    let Some(folder) = corpus("the_corpus_validates") else {
        return;
    };
    let output = Command::new(crate::support::ISOFORM)
        .args(["validate", folder.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", crate::support::text(&output));
}

#[test]
fn the_corpus_renders_byte_for_byte_as_jinja2() {
    let name = "the_corpus_renders_byte_for_byte_as_jinja2";
    let (Some(folder), Some(python)) = (corpus(name), python(name)) else {
        return;
    };
    let tree = tree(&folder);
    let mut cases = Vec::new();
    let components = [
        json!({}),
        json!({"BucketName": "b", "PolicyArn": "arn:aws:iam::000000000001:policy/p", "Flag": "yes"}),
    ];
    for path in find_bundles(&tree) {
        let (bundle, findings) = load_bundle(&tree, &path.root);
        let bundle = bundle.unwrap_or_else(|| panic!("{}: {findings:?}", path.root));
        for (part, pipeline) in [
            (&bundle.infrastructure, false),
            (&bundle.instance, false),
            (&bundle.pipeline, true),
        ] {
            let Some(part) = part else { continue };
            for component in &components {
                for count in [1, 3] {
                    cases.push(json!({ "name": format!("{}/{}", path.root, part.file), "template": part.text, "data": data(&bundle, &part.text, pipeline, component, count) }));
                }
            }
        }
    }
    for directory in find_components(&tree) {
        let (component, _) = load_component(&tree, &directory);
        cases.push(json!({ "name": directory, "template": component.unwrap().part.text, "data": { "component": { "name": "c" }, "environment": { "name": "e", "outputs": {} } } }));
    }
    let expected = oracle(&python, &json!(cases));
    let mut rendered = 0;
    for (case, expected) in cases.iter().zip(&expected) {
        let ours = render(
            "t",
            case["template"].as_str().unwrap(),
            &case["data"],
            &Limits::default(),
        );
        match (ours, expected["text"].as_str()) {
            (Ok(ours), Some(theirs)) => {
                assert_eq!(ours.text, theirs, "{}", case["name"]);
                rendered += 1;
            }
            (Err(_), None) => {}
            (ours, theirs) => panic!("{}: {ours:?} against {theirs:?}", case["name"]),
        }
    }
    assert!(rendered >= 40, "{rendered}");
}

#[test]
fn snippets_render_as_jinja2() {
    let Some(python) = python("snippets_render_as_jinja2") else {
        return;
    };
    let data = json!({ "a": { "b": { "c": 80, "f": 2.5, "s": "x,y;z", "l": [3, 1, 2], "t": true, "n": null, "d": {"k": "v", "yes": "no"}, "h": {"my-output": 1} } }, "name": "a-service-with-a-long-name" });
    let snippets = [
        "{{ a.b.c }}|{{ a['b']['f'] }}|{{ a.b.t }}|{{ a.b.n }}|{{ a.b.l }}|{{ a.b.d }}",
        "{% for i in a.b.l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}",
        "{%- for i in a.b.l -%}\n  {{ i }}\n{%- endfor -%}\n",
        "{% set x = a.b.s.split(',') %}{{ x[0] }}{{ x[1].split(';') }}{% set k, v = 'p=q'.split('=') %}{{ k }}{{ v }}",
        "{% if a.b.q is defined %}1{% else %}2{% endif %}{{ a.b.q | default('d') }}{{ a.b.q | default }}",
        "{{ (name ~ '--' ~ a.b.c) | truncate(29, true, 'zzz', 0) }}|{{ name | truncate(20, true, 'zzz') }}|{{ name | truncate(25) }}",
        "{{ {'ruby2.7': {'ruby': '2.7'}}['ruby2.7'] | tojson | safe }}",
        "{{ a.b.l | length > 2 }} {{ a.b.l | sort | join('-') }} {{ '  t ' | trim }} {{ 'Abc' | upper | lower }}",
        "{% raw %}{{resolve:ssm:x}}{% endraw %} {{ '{{resolve:x}}' }}",
        "{{ a.b.h['my-output'] }} {{ a.b.h.my-output }}",
        "{{ a.zz.y }}",
        "{% if a.b.c == 80 and a.b.s != 'x' %}y{% endif %}{{ 7 / 2 }} {{ 7 // 2 }} {{ 2 ** 8 }} {{ -7 % 3 }}",
        "{% macro m(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}{{ m(1, y=3) }}",
        "{{ 'a%sb' | format(1) }} {{ 'x' * 3 }} {{ [1, 2] + [3] }} {{ (1, 2) }}",
        "line\r\nline2\r\n",
        "{{ a.b.d | proton_cfn_ecs_task_definition_formatted_env_vars }}\nE:\n    {{ a.b.d | proton_cfn_lambda_function_formatted_env_vars }}",
        "{{ 1e17 }} {{ 0.00001 }} {{ 100000000000000000 }} {{ 1.0 }} {{ 3 | float }} {{ '4' | int }}",
        "{# comment #}x{{ '' if a.b.t else 'no' }}{{ 'y' if not a.b.t }}",
        "{{ range(3) | list }} {{ a.b.d.items() | list }} {{ dict(a=1) }}",
    ];
    let cases: Vec<Value> = snippets
        .iter()
        .map(|s| json!({ "template": s, "data": data }))
        .collect();
    for (snippet, expected) in snippets.iter().zip(oracle(&python, &json!(cases))) {
        let ours = render("t", snippet, &data, &Limits::default()).map(|r| r.text);
        match expected["text"].as_str() {
            Some(theirs) => assert_eq!(ours.as_deref().ok(), Some(theirs), "{snippet}: {ours:?}"),
            None => assert!(ours.is_err(), "{snippet}: {ours:?}"),
        }
    }
}

const ALL: &str = "\
accounts: { a: { id: \"000000000001\" } }
placements:
  p: { account: a, regions: [us-east-1], mode: auto, blast_radius: 100 }
";

#[test]
fn the_corpus_deploys_with_outputs_wired() {
    let Some(folder) = corpus("the_corpus_deploys_with_outputs_wired") else {
        return;
    };
    let samples = folder.join("aws-proton-cloudformation-sample-templates");
    let mut bench = Bench::empty(ALL);
    copy(&samples, &bench.work().join("samples"));
    let environment = |path: &str, name: &str| {
        format!(
            "  {name}: {{ template: {}, spec: {path}, placement: p }}\n",
            match name {
                "fargate" => "fargate-env@1",
                "vpc" => "vpc-env@1",
                "balanced" => "loadbalanced-fargate-env@1",
                _ => "lambda-env@1",
            }
        )
    };
    let mut sync = "isoform: 1\nenvironments:\n".to_owned();
    sync.push_str(&environment(
        "samples/environment-templates/fargate-env/spec/spec.yaml",
        "fargate",
    ));
    sync.push_str(&environment(
        "samples/environment-templates/vpc-env/spec/spec.yaml",
        "vpc",
    ));
    sync.push_str(&environment(
        "samples/loadbalanced-fargate-svc/specs/env-spec.yaml",
        "balanced",
    ));
    sync.push_str(&environment(
        "samples/lambda-multi-svc/specs/env-spec.yaml",
        "lambda",
    ));
    sync.push_str("defaults: { services: { pipeline: { placement: p }, repository: { id: acme/app, branch: main, connection_arn: 'arn:aws:codestar-connections:us-east-1:000000000001:connection/x' } } }\nservices:\n");
    let specs: BTreeMap<&str, (&str, &str, &str)> = BTreeMap::from([
        (
            "lb",
            (
                "load-balanced-fargate-svc@1",
                "proton: ServiceSpec\npipeline: {}\ninstances:\n  - { name: one, environment: fargate }\n  - { name: two, environment: fargate, spec: { loadbalancer_type: network } }\n",
                "specs/lb.yaml",
            ),
        ),
        (
            "balanced",
            (
                "loadbalanced-fargate-svc@1",
                "BALANCED",
                "specs/balanced.yaml",
            ),
        ),
        (
            "crud",
            (
                "service-crud@1",
                "proton: ServiceSpec\npipeline: {}\ninstances:\n  - { name: front, environment: lambda, spec: { resource_name: task } }\n",
                "specs/crud.yaml",
            ),
        ),
        (
            "processing",
            (
                "service-data-processing@1",
                "proton: ServiceSpec\npipeline: {}\ninstances:\n  - { name: back, environment: lambda, spec: {} }\n",
                "specs/processing.yaml",
            ),
        ),
    ]);
    for (name, (template, spec, path)) in &specs {
        let spec = if *spec == "BALANCED" {
            std::fs::read_to_string(samples.join("loadbalanced-fargate-svc/specs/svc-spec.yaml"))
                .unwrap()
        } else {
            (*spec).to_owned()
        };
        // The sample's own spec names environments of its own.
        let spec = if *name == "balanced" {
            rename_environments(&spec, "balanced")
        } else {
            spec
        };
        bench.write(path, &spec);
        sync.push_str(&format!(
            "  {name}: {{ template: {template}, spec: {path} }}\n"
        ));
    }
    sync.push_str("components:\n  bucket: { files: samples/component-templates/s3-bucket-component, environment: fargate, attach: lb/one }\n");
    bench.write("isoform.yaml", &sync);
    bench.push("samples");
    bench.start();
    let estate = bench.settle();
    let count = estate["targets"].as_array().unwrap().len();
    assert!(count >= 14, "{count}");
    all_in_sync(&estate, count);

    bench.edit(
        "specs/crud.yaml",
        "resource_name: task",
        "resource_name: task, code_uri: 's3://bucket/key.zip'",
    );
    bench.push("crud: code");
    all_in_sync(&bench.settle(), count);
    let logs = bench.cli(&["logs", "svc/crud/front"], 0);
    assert!(
        logs.contains("ListFunction") && logs.contains("AWS::Serverless::Function"),
        "{logs}"
    );
}

fn rename_environments(spec: &str, to: &str) -> String {
    spec.lines()
        .map(|line| match line.split_once("environment:") {
            Some((before, _)) => format!("{before}environment: {to}"),
            None => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
}
