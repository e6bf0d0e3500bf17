//! The daemon with an emulator of AWS behind the ports, and a proxy between the two.

mod accounts;
mod chains;
mod faults;
mod keys;
mod probe;
pub mod proxy;
mod rebuild;
mod swaps;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use isoform::aws::{Aws, Reach, Role, Session};
use proxy::Proxy;

use crate::support::Bench;

/// The region of whatever has only one.
pub const REGION: &str = "eu-west-1";

/// Returns where an emulator is, or says why its tests are skipped.
pub fn endpoint(emulator: &str) -> Option<String> {
    let variable = format!("ISOFORM_{}", emulator.to_uppercase());
    let found = std::env::var(&variable).ok().filter(|v| !v.is_empty());
    if found.is_none() {
        println!(
            "SKIP contract_on_{emulator}: {variable} does not say where it is; ./tests/run starts it"
        );
    }
    found
}

/// Tells whether everything is to be tried, or what fits into two minutes.
pub fn everything() -> bool {
    std::env::var("ISOFORM_EMULATED").is_ok_and(|v| v == "full")
}

/// An account number that no other test has.
pub fn account() -> String {
    static TURN: AtomicU64 = AtomicU64::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let own = u64::from(std::process::id()) * 1000 + turn;
    format!("{:012}", 400_000_000_000 + own)
}

/// An account of an emulator with a bucket and a key, as an operator makes them.
pub struct Ground {
    pub runtime: tokio::runtime::Runtime,
    pub endpoint: String,
    pub proxy: Arc<Proxy>,
    pub account: String,
    pub bucket: String,
    pub key: String,
}

impl Ground {
    /// Prepares an account; absent where the emulator does not run.
    pub fn on(emulator: &str) -> Option<Self> {
        let endpoint = endpoint(emulator)?;
        let (account, runtime) = (account(), tokio::runtime::Runtime::new().unwrap());
        let bucket = format!("isoform-{account}");
        let key = runtime.block_on(prepared(&endpoint, &account, REGION, &bucket));
        Some(Self {
            proxy: Proxy::before(&endpoint, emulator),
            runtime,
            endpoint,
            account,
            bucket,
            key,
        })
    }

    /// A bench whose daemon goes through the proxy, with one account and region as the placement `beta`.
    pub fn bench(&self, mode: &str) -> Bench {
        let bench = Bench::empty("");
        let (address, account, bucket) = (&self.proxy.address, &self.account, &self.bucket);
        let config = format!(
            "isoform: 1
aws: {{ endpoint: '{address}', session: isoform-tests }}
accounts: {{ beta: {{ id: '{account}', roles: {{ apply: isoform-apply }}, external_id: an-external-id }} }}
placements: {{ beta: {{ account: beta, regions: [{REGION}], mode: {mode}, blast_radius: 500 }} }}
sources: {{ example: {{ url: ./origin.git, may: {{ templates: ['*'], environments: ['*'], services: ['*'], components: ['*'], stacks: ['*'], placements: ['*'], stack_names: ['*'] }} }} }}
bundle_stores: {{ main: {{ url: 's3://{bucket}/home', owner: '{account}', encryption: client-kms, key: '{}', role: 'arn:aws:iam::{account}:role/isoform-store' }} }}
state: {{ path: state, key: 'file:root.key' }}
workers: 24
poll: 1s
sweep: 300s
",
            self.key
        );
        std::fs::write(bench.root.join("config.yaml"), config).unwrap();
        bench
    }

    /// The account's operator, who may do everything, past the proxy.
    pub fn operator(&self) -> Session {
        let session = operator(&self.endpoint, &self.account, REGION);
        self.runtime.block_on(session)
    }

    /// Returns change sets of stacks that could still be executed.
    pub fn change_sets(&self, stacks: &[String]) -> Vec<String> {
        let client = aws_sdk_cloudformation::Client::new(self.operator().config());
        self.runtime.block_on(async {
            let mut left = Vec::new();
            for stack in stacks {
                let listed = client.list_change_sets().stack_name(stack).send().await;
                for set in listed.unwrap().summaries() {
                    if set
                        .execution_status()
                        .is_some_and(|s| s.as_str() == "AVAILABLE")
                    {
                        left.push(set.change_set_name().unwrap_or_default().to_owned());
                    }
                }
            }
            left
        })
    }

    /// Returns the statuses of all live stacks by name.
    pub fn stacks(&self) -> Vec<(String, String)> {
        self.stacks_of(&self.account, REGION)
            .into_iter()
            .map(|(name, status, _)| (name, status))
            .collect()
    }

    /// Returns name, status and ARN of all live stacks of an account and region.
    pub fn stacks_of(&self, account: &str, region: &str) -> Vec<(String, String, String)> {
        let session = self
            .runtime
            .block_on(operator(&self.endpoint, account, region));
        let client = aws_sdk_cloudformation::Client::new(session.config());
        self.runtime.block_on(async {
            let mut pages = client.describe_stacks().into_paginator().items().send();
            let mut found = Vec::new();
            while let Some(stack) = pages.next().await {
                let stack = stack.unwrap();
                let status = stack.stack_status().unwrap().as_str().to_owned();
                let id = stack.stack_id().unwrap().to_owned();
                found.push((stack.stack_name().unwrap().to_owned(), status, id));
            }
            found.sort();
            found
        })
    }
}

/// Writes a template of an environment that holds a topic, and a spec for it.
pub fn environment(bench: &Bench, template: &str, spec: &str) {
    let root = format!("templates/environment/{template}/v1");
    bench.write(&format!("{root}/schema/schema.yaml"), "schema:\n  format: { openapi: \"3.0.0\" }\n  environment_input_type: Input\n  types:\n    Input: { type: object, properties: { name: { type: string } }, required: [name] }\n");
    bench.write(&format!("{root}/infrastructure/manifest.yaml"), "infrastructure:\n  templates:\n    - { file: cloudformation.yaml, rendering_engine: jinja, template_language: cloudformation }\n");
    bench.write(&format!("{root}/infrastructure/cloudformation.yaml"), &format!("Description: of {template}\nResources:\n  T: {{ Type: 'AWS::SNS::Topic', Properties: {{ DisplayName: \"{{{{ environment.inputs.name }}}}\" }} }}\nOutputs:\n  Topic: {{ Value: !Ref T }}\n"));
    bench.write(
        &format!("{spec}.yaml"),
        &format!("proton: EnvironmentSpec\nspec: {{ name: {spec} }}\n"),
    );
}

/// The operator of an account, who may do everything.
pub async fn operator(endpoint: &str, account: &str, region: &str) -> Session {
    let reach = Reach {
        endpoint: Some(endpoint.to_owned()),
        session: "operator".into(),
        ..Reach::default()
    };
    let role = Role {
        arn: format!("arn:aws:iam::{account}:role/operator"),
        external_id: None,
    };
    let region = region.parse().unwrap();
    Aws::connect(reach).await.session(&region, &[role]).await
}

/// A client of S3 that names buckets in the path.
pub fn buckets(session: &Session) -> aws_sdk_s3::Client {
    let s3 = aws_sdk_s3::config::Builder::from(session.config()).force_path_style(true);
    aws_sdk_s3::Client::from_conf(s3.build())
}

/// Makes a bucket and a key as an operator would; returns the key's ARN.
pub async fn prepared(endpoint: &str, account: &str, region: &str, bucket: &str) -> String {
    let session = operator(endpoint, account, region).await;
    let place = aws_sdk_s3::types::BucketLocationConstraint::from(region);
    let configuration = aws_sdk_s3::types::CreateBucketConfiguration::builder()
        .location_constraint(place)
        .build();
    let made = buckets(&session)
        .create_bucket()
        .bucket(bucket)
        .create_bucket_configuration(configuration)
        .send()
        .await;
    made.unwrap();
    let keys = aws_sdk_kms::Client::new(session.config());
    let made = keys.create_key().send().await.unwrap();
    made.key_metadata().unwrap().arn().unwrap().to_owned()
}
