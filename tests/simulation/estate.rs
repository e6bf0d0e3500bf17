//! What the simulated repository holds: small templates, and numbers that tell which commit a stack is of.

use std::collections::BTreeMap;

/// What one commit asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Model {
    /// The number that all environments show.
    pub environment: u64,
    /// The number that all instances show.
    pub service: u64,
    /// The numbers of the plain stacks that are asked for.
    pub stacks: BTreeMap<String, u64>,
    /// Whether a file is broken.
    pub broken: bool,
}

impl Model {
    pub fn first() -> Self {
        let stacks = ["a", "b", "data"].map(|n| (n.to_owned(), 1));
        Self {
            environment: 1,
            service: 1,
            stacks: stacks.into(),
            broken: false,
        }
    }

    /// Returns the addresses that it asks for, each with the number that its output must show.
    pub fn targets(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for place in ["beta", "prod@us-east-1", "prod@eu-west-1"] {
            out.insert(format!("env/{place}"), self.environment.to_string());
            let both = format!("{}-{}", self.service, self.environment);
            out.insert(format!("svc/web/{place}"), both);
        }
        for (name, number) in &self.stacks {
            out.insert(format!("stack/{name}"), number.to_string());
        }
        out
    }

    /// Writes the files of the commit.
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut put = |path: &str, text: String| {
            files.insert(path.to_owned(), text);
        };
        let manifest = "infrastructure:\n  templates:\n    - file: cloudformation.yaml\n      rendering_engine: jinja\n      template_language: cloudformation\n";
        let alarm = "  Alarm: { Type: AWS::CloudWatch::Alarm, Properties: { ComparisonOperator: LessThanThreshold, EvaluationPeriods: 1, AlarmDescription: \"NUMBER\" } }\n";
        let part = |number: &str| {
            format!(
                "Resources:\n{}Outputs:\n  Number: {{ Value: \"{number}\" }}\n",
                alarm.replace("NUMBER", number)
            )
        };
        let root = "templates/environment/net/v1";
        put(&format!("{root}/schema/schema.yaml"), schema("environment"));
        put(
            &format!("{root}/infrastructure/manifest.yaml"),
            manifest.into(),
        );
        put(
            &format!("{root}/infrastructure/cloudformation.yaml"),
            part("{{ environment.inputs.number }}"),
        );
        let root = "templates/service/web/v1";
        put(&format!("{root}/schema/schema.yaml"), schema("service"));
        put(
            &format!("{root}/.template-registration.yaml"),
            "compatible_environments:\n  - net:1\n".into(),
        );
        put(
            &format!("{root}/instance_infrastructure/manifest.yaml"),
            manifest.into(),
        );
        put(
            &format!("{root}/instance_infrastructure/cloudformation.yaml"),
            part("{{ service_instance.inputs.number }}-{{ environment.outputs.Number }}"),
        );
        put(
            "env.yaml",
            format!(
                "proton: EnvironmentSpec\nspec: {{ number: \"{}\" }}\n",
                self.environment
            ),
        );
        put(
            "web.yaml",
            format!(
                "proton: ServiceSpec\ninstances:\n  - {{ name: beta, environment: beta, spec: {{ number: \"{0}\" }} }}\n  - {{ name: prod, environment: prod, spec: {{ number: \"{0}\" }} }}\n",
                self.service
            ),
        );
        let mut sync = String::from(
            "isoform: 1\nenvironments:\n  beta: { template: net@1, spec: env.yaml, placement: beta, rollout: r }\n  prod: { template: net@1, spec: env.yaml, placement: prod, rollout: r }\nrollouts:\n  r: [ { environments: [beta], bake: 10m }, { environments: [prod], regions: one-at-a-time, stop_after: 1 } ]\n  w: [ { environments: [beta], bake: 10m }, { environments: [prod], stop_after: 1 } ]\nservices:\n  web: { template: web@1, spec: web.yaml, rollout: w }\nstacks:\n",
        );
        for (name, number) in &self.stacks {
            let after = if name == "b" && self.stacks.contains_key("a") {
                ", after: [stack/a]"
            } else {
                ""
            };
            sync.push_str(&format!(
                "  {name}: {{ template: {name}.yaml, placement: beta{after} }}\n"
            ));
            let text = if name == "data" {
                // Another name is another table: what it held is lost, so a person is asked.
                format!(
                    "Resources:\n  Table: {{ Type: AWS::DynamoDB::Table, Properties: {{ TableName: \"t{number}\", BillingMode: PAY_PER_REQUEST, KeySchema: [ {{ AttributeName: id, KeyType: HASH }} ], AttributeDefinitions: [ {{ AttributeName: id, AttributeType: S }} ] }} }}\nOutputs:\n  Number: {{ Value: \"{number}\" }}\n"
                )
            } else {
                part(&number.to_string())
            };
            put(&format!("{name}.yaml"), text);
        }
        if self.stacks.is_empty() {
            sync = sync.replace("stacks:\n", "");
        }
        if self.broken {
            sync.push_str("  oops: [\n");
        }
        put("isoform.yaml", sync);
        files
    }
}

fn schema(kind: &str) -> String {
    format!(
        "schema:\n  format: {{ openapi: \"3.0.0\" }}\n  {kind}_input_type: Input\n  types:\n    Input: {{ type: object, properties: {{ number: {{ type: string }} }}, required: [number] }}\n"
    )
}

/// The operator's side.
pub const CONFIG: &str = "\
isoform: 1
accounts: { a: { id: \"000000000001\" }, b: { id: \"000000000002\" } }
placements:
  beta: { account: a, regions: [us-east-1], mode: auto, blast_radius: 50, prune: { policy: auto, targets: 1, percent: 100 } }
  prod: { account: b, regions: [us-east-1, eu-west-1], mode: auto, blast_radius: 50 }
sources:
  s: { url: ./origin.git, force_push: approve, may: { templates: ['*'], environments: ['*'], services: ['*'], stacks: ['*'], placements: ['*'], stack_names: ['*'] } }
bundle_stores: { main: { url: 'local://bundles' } }
state: { path: state, key: 'file:root.key' }
local: { path: cloud, pace: 100 }
poll: 30s
";
