//! Nested templates that lie beside their parent in the repository or in a bundle.

use crate::support::{Bench, PLACEMENTS};

const PARENT: &str = "Resources:\n  Net:\n    Type: AWS::CloudFormation::Stack\n    Properties:\n      TemplateURL: ./parts/net.yaml # beside this file\n      Parameters: { Name: one }\nOutputs: { Topic: { Value: !GetAtt Net.Outputs.Topic } }\n";
const NET: &str = "Parameters: { Name: { Type: String } }\nResources:\n  Deep: { Type: AWS::CloudFormation::Stack, Properties: { TemplateURL: deep.yaml } }\n  T: { Type: AWS::SNS::Topic, Properties: { DisplayName: !Ref Name } }\nOutputs: { Topic: { Value: !Ref T } }\n";
const DEEP: &str =
    "Resources: { Deep: { Type: AWS::SNS::Topic, Properties: { DisplayName: deep-1 } } }\n";
const TABLE: &str = "  Db: { Type: AWS::DynamoDB::Table, Properties: { KeySchema: [ { AttributeName: a, KeyType: HASH } ], AttributeDefinitions: [ { AttributeName: a, AttributeType: S } ], BillingMode: PAY_PER_REQUEST } }\n";

fn deployed(net: &str) -> Bench {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("stacks/parent.yaml", PARENT);
    bench.write("stacks/parts/net.yaml", net);
    bench.write("stacks/parts/deep.yaml", DEEP);
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  whole: { template: stacks/parent.yaml, placement: beta }\n",
    );
    bench.cli(&["validate"], 0);
    bench.push("nested");
    bench.start();
    bench.settle();
    bench
}

#[test]
fn nested_templates_go_with_their_parent_and_their_changes_are_seen() {
    let bench = deployed(NET);
    assert_eq!(bench.condition("stack/whole"), "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 1);
    bench.cli(&["audit", "prove", "stack/whole"], 0);
    bench.push("nothing");
    bench.settle();
    assert_eq!(bench.calls("CreateChangeSet"), 1);

    // Two levels down, and nothing else.
    bench.edit("stacks/parts/deep.yaml", "deep-1", "deep-2");
    let shown = bench.cli(&["diff"], 2);
    assert!(shown.contains("~ Net"), "{shown}");
    bench.push("deeper");
    bench.settle();
    assert_eq!(bench.condition("stack/whole"), "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 2);
    bench.cli(&["rollback", "stack/whole", "--reason", "back"], 0);
    bench.becomes("stack/whole", "Held(Pinned)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 3);
    bench.cli(&["audit", "prove", "stack/whole"], 0);
    bench.cli(&["audit", "verify"], 0);
}

#[test]
fn state_in_a_nested_stack_is_not_lost_without_a_person() {
    let with = NET.replace("Outputs:", &format!("{TABLE}Outputs:"));
    let bench = deployed(&with);
    assert_eq!(bench.condition("stack/whole"), "InSync(Settled)");
    bench.write("stacks/parts/net.yaml", NET);
    bench.push("without the table");
    bench.becomes("stack/whole", "Pending(Approval)");
    let why = bench.cli(&["why", "stack/whole"], 3);
    assert!(
        why.contains("what becomes of Db (AWS::DynamoDB::Table) in it"),
        "{why}"
    );
    bench.cli(&["approve", "stack/whole"], 0);
    bench.becomes("stack/whole", "InSync(Settled)");
    // Nothing is left in it that could be lost.
    bench.edit(
        "stacks/parts/net.yaml",
        "Name: { Type: String }",
        "Name: { Type: String, MaxLength: 9 }",
    );
    bench.edit("stacks/parts/deep.yaml", "deep-1", "deep-3");
    bench.push("deeper");
    bench.settle();
    assert_eq!(bench.condition("stack/whole"), "InSync(Settled)");
}

#[test]
fn a_nested_template_that_is_missing_is_told_where_its_path_stands() {
    let bench = deployed(NET);
    std::fs::remove_file(bench.work().join("stacks/parts/deep.yaml")).unwrap();
    let said = bench.cli(&["validate"], 1);
    assert!(
        said.contains("there is no file `stacks/parts/deep.yaml`") && said.contains("net.yaml:3"),
        "{said}"
    );
    bench.push("gone");
    bench.becomes("stack/whole", "Failed(Invalid)");
    // It comes back, and that alone is enough.
    bench.write("stacks/parts/deep.yaml", DEEP);
    bench.push("back");
    bench.becomes("stack/whole", "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 1);
}

#[test]
fn a_bundle_brings_its_nested_templates() {
    let mut bench = Bench::empty(PLACEMENTS);
    let root = "templates/net/v1";
    bench.write(&format!("{root}/schema/schema.yaml"), "schema:\n  format: { openapi: \"3.0.0\" }\n  environment_input_type: Input\n  types:\n    Input: { type: object, properties: { name: { type: string } }, required: [name] }\n");
    bench.write(&format!("{root}/infrastructure/manifest.yaml"), "infrastructure:\n  templates:\n    - { file: cloudformation.yaml, rendering_engine: jinja, template_language: cloudformation }\n");
    bench.write(
        &format!("{root}/infrastructure/cloudformation.yaml"),
        &PARENT
            .replace("Name: one", "Name: \"{{ environment.inputs.name }}\"")
            .replace("./parts/net.yaml", "net.yaml"),
    );
    bench.write(&format!("{root}/infrastructure/net.yaml"), NET);
    bench.write(&format!("{root}/infrastructure/deep.yaml"), DEEP);
    bench.write(
        "beta.yaml",
        "proton: EnvironmentSpec\nspec: { name: beta }\n",
    );
    bench.write("isoform.yaml", "isoform: 1\nenvironments:\n  beta: { template: net@1, spec: beta.yaml, placement: beta }\n");
    bench.push("an environment");
    bench.start();
    bench.settle();
    assert_eq!(bench.condition("env/beta"), "InSync(Settled)");
    bench.cli(&["audit", "prove", "env/beta"], 0);
}
