//! Synthetic estates: a bare repository of any size, the same bytes and commit ids everywhere.
//!
//! The standard repository is `R10k`: 20 environments, 50 templates, 1,000 services of 10 instances each. Its templates
//! are what real ones are like: about 300 lines, six kinds of resources, inputs with defaults, outputs of the environment.

use std::fmt::Write;
use std::path::Path;

use git2::{Oid, Repository, RepositoryInitOptions, Signature, Time};

/// How large an estate is, and its seed.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Shape {
    pub environments: usize,
    pub templates: usize,
    pub services: usize,
    pub instances: usize,
    /// Lines of a service template.
    pub lines: usize,
    /// Into how many waves a rollout sorts the environments; 0 for no rollout.
    pub waves: usize,
    pub seed: u64,
}

impl Shape {
    /// The standard repository: 10,000 instances.
    pub fn standard() -> Self {
        Self {
            environments: 20,
            templates: 50,
            services: 1000,
            instances: 10,
            lines: 300,
            waves: 0,
            seed: 1,
        }
    }

    /// A small one, for tests on counts.
    pub fn small(services: usize, instances: usize) -> Self {
        Self {
            environments: 2,
            templates: 2,
            services,
            instances,
            lines: 40,
            waves: 0,
            seed: 1,
        }
    }

    /// How many targets it has.
    pub fn targets(&self) -> usize {
        self.environments + self.services * self.instances
    }
}

/// An estate in a bare repository.
pub struct Estate {
    repository: Repository,
    shape: Shape,
    /// What the specs say: the round in which each was touched.
    touched: std::collections::BTreeMap<usize, u64>,
    /// What the templates say.
    revised: std::collections::BTreeMap<usize, u64>,
    round: u64,
}

/// A small generator of numbers, so that no crate's change of algorithm changes an estate.
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64, what: &str, index: usize) -> Self {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        for byte in what.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut numbers = Self(state ^ (index as u64).wrapping_mul(0xd6e8_feb8_6659_fd93) | 1);
        // The first numbers of neighbours are alike.
        for _ in 0..4 {
            numbers.next();
        }
        numbers
    }

    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[(self.next() >> 33) as usize % choices.len()]
    }
}

const WORDS: [&str; 24] = [
    "amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "harbor", "indigo", "jasper",
    "kelp", "linden", "maple", "north", "onyx", "pine", "quartz", "river", "slate", "timber",
    "umber", "violet", "willow", "yarrow",
];

/// What a service template is made of: `@N@` is the block's number, `@A@` a value of its own.
const BLOCKS: [&str; 6] = [
    "
  Queue@N@:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: '{{ service.name }}-{{ service_instance.name }}-q@N@'
      VisibilityTimeout: {{ service_instance.inputs.timeout_seconds }}
      MessageRetentionPeriod: @A@
      {% if service_instance.inputs.encrypted %}
      KmsMasterKeyId: alias/aws/sqs
      {% endif %}
      Tags:
        - {Key: team, Value: '{{ service_instance.inputs.team }}'}
        - {Key: block, Value: 'q@N@'}",
    "
  Topic@N@:
    Type: AWS::SNS::Topic
    Properties:
      TopicName: '{{ service.name }}-{{ service_instance.name }}-t@N@'
      DisplayName: 'Topic @N@ of {{ service.name | upper }}'
      {% for mail in service_instance.inputs.notify %}
      {% if loop.first %}
      Subscription:
      {% endif %}
        - Protocol: email
          Endpoint: '{{ mail }}'
      {% endfor %}",
    "
  Bucket@N@:
    Type: AWS::S3::Bucket
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties:
      BucketName: '{{ service.name }}-{{ service_instance.name }}-b@N@-{{ environment.name }}'
      VersioningConfiguration:
        Status: {{ 'Enabled' if service_instance.inputs.versioned else 'Suspended' }}
      LifecycleConfiguration:
        Rules:
          - Id: expire-@N@
            Status: Enabled
            ExpirationInDays: @A@",
    "
  Param@N@:
    Type: AWS::SSM::Parameter
    Properties:
      Name: '/{{ environment.name }}/{{ service.name }}/{{ service_instance.name }}/p@N@'
      Type: String
      Value: '{{ environment.outputs.VpcId }}:{{ service_instance.inputs.desired_count }}:@A@'",
    "
  LogGroup@N@:
    Type: AWS::Logs::LogGroup
    Properties:
      LogGroupName: '/proton/{{ service.name }}/{{ service_instance.name }}/@N@'
      RetentionInDays: {{ service_instance.inputs.retention_days | default(14) }}",
    "
  Role@N@:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: '2012-10-17'
        Statement:
          - Effect: Allow
            Principal: {Service: ecs-tasks.amazonaws.com}
            Action: sts:AssumeRole
      Policies:
        - PolicyName: read-@N@
          PolicyDocument:
            Version: '2012-10-17'
            Statement:
              - Effect: Allow
                Action: ['s3:GetObject', 's3:ListBucket']
                Resource: !Sub 'arn:${AWS::Partition}:s3:::{{ service.name }}-{{ service_instance.name }}-@A@/*'",
];

const SERVICE_SCHEMA: &str = "schema:
  format:
    openapi: \"3.0.0\"
  service_input_type: \"ServiceInput\"
  types:
    ServiceInput:
      type: object
      description: \"Inputs of a service\"
      properties:
        desired_count: {type: integer, default: 1, minimum: 0, maximum: 100000}
        timeout_seconds: {type: integer, default: 30, minimum: 1, maximum: 43200}
        retention_days: {type: integer, default: 14, enum: [1, 7, 14, 30, 90]}
        team: {type: string, minLength: 1, maxLength: 32, pattern: \"^[a-z][a-z0-9-]*$\"}
        encrypted: {type: boolean, default: true}
        versioned: {type: boolean, default: false}
        notify:
          type: array
          items: {type: string}
          maxItems: 5
      required: [team]
";

const ENVIRONMENT_SCHEMA: &str = "schema:
  format:
    openapi: \"3.0.0\"
  environment_input_type: \"EnvironmentInput\"
  types:
    EnvironmentInput:
      type: object
      properties:
        vpc_cidr: {type: string, default: \"10.0.0.0/16\"}
        subnet_count: {type: integer, default: 2, minimum: 1, maximum: 6}
        stage: {type: string, enum: [dev, test, prod], default: dev}
";

const ENVIRONMENT_TEMPLATE: &str = "AWSTemplateFormatVersion: '2010-09-09'
Description: 'Environment {{ environment.name }}'
Resources:
{% for i in range(environment.inputs.subnet_count) %}
  Subnet{{ i }}Param:
    Type: AWS::SSM::Parameter
    Properties:
      Name: '/env/{{ environment.name }}/subnet{{ i }}'
      Type: String
      Value: '{{ environment.inputs.vpc_cidr }}-{{ i }}'
{% endfor %}
  EnvTopic:
    Type: AWS::SNS::Topic
    Properties:
      TopicName: '{{ environment.name }}-events-{{ environment.inputs.stage }}'
Outputs:
  VpcId:
    Value: 'vpc-{{ environment.name }}'
  TopicArn:
    Value: !Ref EnvTopic
";

const MANIFEST: &str = "infrastructure:
  templates:
    - file: \"cloudformation.yaml\"
      rendering_engine: jinja
      template_language: cloudformation
";

const REGISTRATION: &str = "compatible_environments: [\"envt:1\"]\n";

impl Estate {
    /// Makes an estate in a new bare repository with one commit on `main`.
    pub fn make(path: &Path, shape: Shape) -> Result<Self, git2::Error> {
        let mut options = RepositoryInitOptions::new();
        options.bare(true).initial_head("main");
        let repository = Repository::init_opts(path, &options)?;
        let mut estate = Self {
            repository,
            shape,
            touched: std::collections::BTreeMap::new(),
            revised: std::collections::BTreeMap::new(),
            round: 0,
        };
        estate.commit("generated")?;
        Ok(estate)
    }

    /// Returns its shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Adds a commit that changes the first instance of so many specs; returns the names of the services.
    pub fn touch(&mut self, specs: usize) -> Result<Vec<String>, git2::Error> {
        self.round += 1;
        let step = (self.shape.services / specs.max(1)).max(1);
        let first = (self.round as usize * 7) % step;
        let chosen: Vec<usize> = (0..self.shape.services)
            .skip(first)
            .step_by(step)
            .take(specs)
            .collect();
        for service in &chosen {
            self.touched.insert(*service, self.round);
        }
        self.commit(&format!("touch {} specs", chosen.len()))?;
        Ok(chosen.into_iter().map(service_name).collect())
    }

    /// Adds a commit that changes every instance of so many services, by changing the input that all of them have.
    pub fn touch_every_instance(&mut self, specs: usize) -> Result<(), git2::Error> {
        self.round += 1;
        for service in 0..specs.min(self.shape.services) {
            self.touched.insert(service, self.round | EVERY);
        }
        self.commit(&format!("touch every instance of {specs} specs"))
    }

    /// Adds a commit that changes one service template; every instance of it changes.
    pub fn revise(&mut self, template: usize) -> Result<(), git2::Error> {
        self.round += 1;
        self.revised.insert(template, self.round);
        self.commit(&format!("revise template {template}"))
    }

    /// Adds a commit that changes no file that anybody uses.
    pub fn idle(&mut self) -> Result<(), git2::Error> {
        self.round += 1;
        self.commit("nothing")
    }

    fn commit(&mut self, message: &str) -> Result<(), git2::Error> {
        let tree = self.tree()?;
        let time = Time::new(1_577_836_800 + self.round as i64, 0);
        let who = Signature::new("gen", "gen@example.com", &time)?;
        let parent = match self.repository.find_reference("refs/heads/main") {
            Ok(reference) => Some(reference.peel_to_commit()?),
            Err(_) => None,
        };
        let tree = self.repository.find_tree(tree)?;
        self.repository.commit(
            Some("refs/heads/main"),
            &who,
            &who,
            message,
            &tree,
            &parent.iter().collect::<Vec<_>>(),
        )?;
        Ok(())
    }

    fn tree(&self) -> Result<Oid, git2::Error> {
        let shape = &self.shape;
        let bundle = |schema: &str, folder: &'static str, template: &str| {
            let schema = self.folder(&[("schema.yaml", self.file(schema)?, FILE)])?;
            let infrastructure = self.folder(&[
                ("manifest.yaml", self.file(MANIFEST)?, FILE),
                ("cloudformation.yaml", self.file(template)?, FILE),
            ])?;
            Ok::<_, git2::Error>(vec![
                ("schema", schema, FOLDER),
                (folder, infrastructure, FOLDER),
            ])
        };
        let mut services = Vec::new();
        let mut templates = Vec::new();
        let mut environments = Vec::new();
        for index in 0..shape.templates {
            let mut v1 = bundle(
                SERVICE_SCHEMA,
                "instance_infrastructure",
                &self.template(index),
            )?;
            v1.push((
                ".template-registration.yaml",
                self.file(REGISTRATION)?,
                FILE,
            ));
            let v1 = self.folder(&v1)?;
            templates.push((
                template_name(index),
                self.folder(&[("v1", v1, FOLDER)])?,
                FOLDER,
            ));
        }
        for index in 0..shape.environments {
            environments.push((
                format!("{}.yaml", environment_name(index)),
                self.file(&self.environment(index))?,
                FILE,
            ));
        }
        for index in 0..shape.services {
            services.push((
                format!("{}.yaml", service_name(index)),
                self.file(&self.spec(index))?,
                FILE,
            ));
        }
        let environment = bundle(ENVIRONMENT_SCHEMA, "infrastructure", ENVIRONMENT_TEMPLATE)?;
        let environment = self.folder(&[("v1", self.folder(&environment)?, FOLDER)])?;
        self.folder(&[
            (
                "environment-templates",
                self.folder(&[("envt", environment, FOLDER)])?,
                FOLDER,
            ),
            ("service-templates", self.folder(&templates)?, FOLDER),
            ("environments", self.folder(&environments)?, FOLDER),
            ("services", self.folder(&services)?, FOLDER),
            ("isoform.yaml", self.file(&self.sync())?, FILE),
            ("round.txt", self.file(&self.round.to_string())?, FILE),
        ])
    }

    fn file(&self, text: &str) -> Result<Oid, git2::Error> {
        self.repository.blob(text.as_bytes())
    }

    fn folder<N: AsRef<str>>(&self, entries: &[(N, Oid, i32)]) -> Result<Oid, git2::Error> {
        let mut builder = self.repository.treebuilder(None)?;
        for (name, id, mode) in entries {
            builder.insert(name.as_ref(), *id, *mode)?;
        }
        builder.write()
    }

    fn sync(&self) -> String {
        let mut out = String::from("isoform: 1\nenvironments:\n");
        for index in 0..self.shape.environments {
            let name = environment_name(index);
            let _ = writeln!(
                out,
                "  {name}: {{ template: envt@1, spec: environments/{name}.yaml, placement: place-{} }}",
                index % PLACEMENTS
            );
        }
        if self.shape.waves > 0 {
            out.push_str("rollouts:\n  train:\n");
        }
        for wave in 0..self.shape.waves {
            let of_it = (0..self.shape.environments).filter(|e| e % self.shape.waves == wave);
            let names: Vec<String> = of_it.map(environment_name).collect();
            let _ = writeln!(out, "    - environments: [{}]", names.join(", "));
        }
        out.push_str("services:\n");
        for index in 0..self.shape.services {
            let name = service_name(index);
            let template = template_name(index % self.shape.templates);
            let _ = writeln!(
                out,
                "  {name}: {{ template: {template}@1, spec: services/{name}.yaml }}"
            );
        }
        out
    }

    fn template(&self, index: usize) -> String {
        let mut numbers = Numbers::new(self.shape.seed, "template", index);
        let mut out = String::from(
            "AWSTemplateFormatVersion: '2010-09-09'\nDescription: '{{ service.name }}/{{ service_instance.name }} in {{ environment.name }}'\nResources:",
        );
        let mut lines = 3;
        let mut count = 0;
        while lines < self.shape.lines.saturating_sub(8) {
            let block = if count < BLOCKS.len() {
                BLOCKS[count]
            } else {
                numbers.of(&BLOCKS)
            };
            let value = numbers.of(&[60, 300, 3600, 86400]).to_string();
            let block = block
                .replace("@N@", &count.to_string())
                .replace("@A@", &value);
            lines += block.matches('\n').count();
            out.push_str(&block);
            count += 1;
        }
        let revision = self.revised.get(&index).copied().unwrap_or_default();
        let _ = write!(
            out,
            "\n  Revision:\n    Type: AWS::SSM::Parameter\n    Properties:\n      Type: String\n      Value: 'r{revision}'\nOutputs:\n  Queue0Url:\n    Value: !Ref Queue0\n  Count:\n    Value: '{{{{ service_instance.inputs.desired_count }}}}'\n"
        );
        out
    }

    fn environment(&self, index: usize) -> String {
        let mut numbers = Numbers::new(self.shape.seed, "environment", index);
        format!(
            "proton: EnvironmentSpec\n\nspec:\n  vpc_cidr: 10.{}.0.0/16\n  subnet_count: {}\n  stage: {}\n",
            index % 256,
            numbers.of(&[1, 2, 3, 4, 5, 6]),
            numbers.of(&["dev", "test", "prod"])
        )
    }

    fn spec(&self, index: usize) -> String {
        let mut numbers = Numbers::new(self.shape.seed, "service", index);
        let mut out = String::from("proton: ServiceSpec\n\ninstances:\n");
        for instance in 0..self.shape.instances {
            let environment =
                environment_name((numbers.next() >> 33) as usize % self.shape.environments);
            let team = *numbers.of(&WORDS);
            let round = self.touched.get(&index).copied().unwrap_or_default();
            let drawn = numbers.next() % 10;
            // The number of the round makes every touch another value.
            let touched = round != 0 && (instance == 0 || round & EVERY != 0);
            let count = if touched {
                10 + (round & !EVERY)
            } else {
                drawn
            };
            let _ = writeln!(
                out,
                "  - name: inst-{instance:03}\n    environment: {environment}\n    spec:\n      desired_count: {count}\n      timeout_seconds: {}\n      retention_days: {}\n      team: {team}\n      encrypted: {}\n      versioned: {}\n      notify: [{team}@example.com]",
                numbers.of(&[5, 30, 60, 900]),
                numbers.of(&[1, 7, 14, 30, 90]),
                numbers.of(&[true, false]),
                numbers.of(&[true, false]),
            );
        }
        out
    }
}

/// Over how many placements the environments are spread.
pub const PLACEMENTS: usize = 4;
const EVERY: u64 = 1 << 40;
const FILE: i32 = 0o100_644;
const FOLDER: i32 = 0o040_000;

fn environment_name(index: usize) -> String {
    format!("env-{index:04}")
}

fn service_name(index: usize) -> String {
    format!("svc-{index:05}")
}

fn template_name(index: usize) -> String {
    format!("svct-{index:03}")
}

/// Writes the configuration of a daemon that follows an estate and may do everything. Returns its path.
///
/// Polls and sweeps are far apart: who measures says when to look.
pub fn configure(
    folder: &Path,
    origin: &Path,
    workers: usize,
) -> std::io::Result<std::path::PathBuf> {
    let mut text = String::from("isoform: 1\naccounts:\n");
    for index in 0..PLACEMENTS {
        let _ = writeln!(text, "  account-{index}: {{ id: \"{:012}\" }}", index + 1);
    }
    text.push_str("placements:\n");
    for index in 0..PLACEMENTS {
        let _ = writeln!(
            text,
            "  place-{index}: {{ account: account-{index}, regions: [us-east-1], mode: auto, blast_radius: 1000000 }}"
        );
    }
    let _ = write!(
        text,
        "sources:\n  estate:\n    url: {}\n    may: {{ templates: [\"*\"], environments: [\"*\"], services: [\"*\"], placements: [\"*\"] }}\n\
bundle_stores:\n  main: {{ url: \"local://bundles\", encryption: sse-s3 }}\n\
state: {{ path: state, key: \"file:root.key\" }}\nlocal: {{ path: cloud, pace: 0.0 }}\npoll: 1h\nsweep: 1h\nworkers: {workers}\n",
        origin.display()
    );
    let path = folder.join("config.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::estate::validate;
    use crate::git::{Auth, Client, Mirror, Remote, tip};

    #[tokio::test]
    async fn an_estate_is_valid_and_the_same_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("origin.git");
        let mut estate = Estate::make(&path, Shape::small(3, 2)).unwrap();
        let remote = Remote::new(path.to_str().unwrap(), "main", Auth::default()).unwrap();
        let client = Client::new().unwrap();
        let first = tip(&remote, &client).await.unwrap().unwrap();
        let other = folder.path().join("other.git");
        Estate::make(&other, Shape::small(3, 2)).unwrap();
        let other = Remote::new(other.to_str().unwrap(), "main", Auth::default()).unwrap();
        assert_eq!(tip(&other, &client).await.unwrap().unwrap(), first);
        let mirror = Mirror::of(&path).unwrap();
        let before = mirror.read(&first).unwrap().files;
        let checked = validate(&before, None, "main");
        assert!(checked.findings.is_empty(), "{:?}", checked.findings);
        assert_eq!(checked.targets, estate.shape().targets());

        let touched = estate.touch(2).unwrap();
        let second = tip(&remote, &client).await.unwrap().unwrap();
        let after = mirror.read(&second).unwrap().files;
        let changed: Vec<&String> = after
            .iter()
            .filter(|(p, b)| before[*p].id != b.id)
            .map(|(p, _)| p)
            .collect();
        assert_eq!(touched.len(), 2);
        // The specs, and the file that counts the rounds.
        assert_eq!(changed.len(), 3, "{changed:?}");
    }
}
