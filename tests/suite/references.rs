//! Values that templates refer to, pinned to the version that there is: another version is a change like every other.

use crate::support::{Bench, PLACEMENTS};

const TEMPLATE: &str = "\
Parameters:
  Image: { Type: 'AWS::SSM::Parameter::Value<String>', Default: /image }
Resources:
  Topic:
    Type: AWS::SNS::Topic
    Properties:
      DisplayName: '{{resolve:ssm:/orders/name}}'
  Other:
    Type: AWS::SNS::Topic
    Properties:
      DisplayName: '{{resolve:secretsmanager:orders:SecretString:name}}'
";
const SYNC: &str =
    "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: topic }\n";

fn pinning(on: bool) -> Bench {
    let placements = match on {
        true => PLACEMENTS.replacen("mode: auto,", "mode: auto, pin_references: true,", 1),
        false => PLACEMENTS.to_owned(),
    };
    let bench = Bench::empty(&placements);
    bench.write("topic.yaml", TEMPLATE);
    bench.write("isoform.yaml", SYNC);
    bench.push("a topic that refers to values");
    bench
}

fn rotate(bench: &Bench, reference: &str) {
    bench.cli(&["local", "rotate", "beta", reference], 0);
}

#[test]
fn a_value_that_changes_is_deployed_and_one_that_is_missing_is_named() {
    let mut bench = pinning(true);
    rotate(&bench, "ssm:/image");
    rotate(&bench, "secretsmanager:orders");
    bench.start();
    bench.becomes("stack/topic", "Failed(Invalid)");
    let why = bench.cli(&["why", "stack/topic"], 1);
    assert!(
        why.contains("there is no ssm:/orders/name in us-east-1 of the account 000000000001")
            && why.contains("topic.yaml:7"),
        "{why}"
    );

    rotate(&bench, "ssm:/orders/name");
    bench.cli(&["sync"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 1);
    // Nothing has changed: nothing is done, by a look, by a sweep, or by a start.
    bench.cli(&["sync"], 0);
    bench.settle();
    bench.stop();
    bench.start();
    bench.becomes("stack/topic", "InSync(Settled)");
    assert_eq!(bench.calls("CreateChangeSet"), 1);

    let mut done = 1;
    for reference in ["ssm:/orders/name", "secretsmanager:orders", "ssm:/image"] {
        rotate(&bench, reference);
        bench.cli(&["sync"], 0);
        bench.settle();
        done += 1;
        assert_eq!(bench.calls("CreateChangeSet"), done, "{reference}");
    }
    assert_eq!(bench.condition("stack/topic"), "NoEffect(NoChanges)");
    bench.cli(&["audit", "prove", "stack/topic"], 0);
    bench.cli(&["audit", "verify"], 0);
}

#[test]
fn what_would_change_is_shown_before_it_is_done() {
    let mut bench = pinning(true);
    let config = bench.root.join("config.yaml");
    let auto = std::fs::read_to_string(&config).unwrap();
    for reference in ["ssm:/image", "secretsmanager:orders", "ssm:/orders/name"] {
        rotate(&bench, reference);
    }
    bench.start();
    bench.becomes("stack/topic", "InSync(Settled)");
    bench.stop();
    std::fs::write(&config, auto.replacen("mode: auto", "mode: observe", 1)).unwrap();
    rotate(&bench, "ssm:/orders/name");
    bench.start();
    bench.becomes("stack/topic", "Pending(Observe)");

    let diff = bench.cli(&["diff"], 2);

    assert!(
        diff.contains("{{resolve:ssm:/orders/name:1}}")
            && diff.contains("{{resolve:ssm:/orders/name:2}}"),
        "{diff}"
    );
    assert_eq!(bench.calls("ExecuteChangeSet"), 1);
}

#[test]
fn a_stack_that_was_deployed_before_is_pinned_when_it_is_switched_on() {
    let mut bench = pinning(false);
    for reference in ["ssm:/image", "secretsmanager:orders", "ssm:/orders/name"] {
        rotate(&bench, reference);
    }
    bench.start();
    bench.becomes("stack/topic", "InSync(Settled)");
    bench.stop();
    let config = bench.root.join("config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let on = text.replacen("mode: auto,", "mode: auto, pin_references: true,", 1);
    std::fs::write(&config, on).unwrap();

    bench.start();
    bench.settle();

    assert_eq!(bench.calls("ExecuteChangeSet"), 2);
    let diff = bench.cli(&["diff"], 0);
    assert!(diff.contains("0 targets change"), "{diff}");
}

#[test]
fn without_it_a_template_is_deployed_as_it_is_written() {
    let mut bench = pinning(false);
    bench.start();
    bench.becomes("stack/topic", "InSync(Settled)");
    rotate(&bench, "ssm:/orders/name");
    bench.cli(&["sync"], 0);
    bench.settle();
    assert_eq!(bench.calls("CreateChangeSet"), 1);
    bench.edit("topic.yaml", "/orders/name", "/orders/other");
    let diff = bench.cli(&["diff"], 2);
    assert!(diff.contains("{{resolve:ssm:/orders/name}}"), "{diff}");
}

#[test]
fn what_was_pinned_is_proved_from_the_bundle() {
    let placements = PLACEMENTS.replace("mode: auto,", "mode: auto, pin_references: true,");
    let mut bench = Bench::example_with(&placements);
    let cluster = "  Cluster:\n    Type: AWS::ECS::Cluster\n";
    let named = format!(
        "  Note:\n    Type: AWS::SNS::Topic\n    Properties:\n      DisplayName: '{{{{resolve:ssm:/name}}}}'\n{cluster}"
    );
    let file = "templates/environment/fargate-env/v1/infrastructure/cloudformation.yaml";
    bench.edit(file, cluster, &named);
    bench.push("an environment that refers to a value");
    rotate(&bench, "ssm:/name");
    bench.start();
    bench.becomes("env/beta", "InSync(Settled)");

    let proof = bench.cli(&["audit", "prove", "env/beta"], 0);

    assert!(proof.contains("byte for byte"), "{proof}");
}
