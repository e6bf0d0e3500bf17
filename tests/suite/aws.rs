//! The story of a push with AWS behind the ports: the real binary, and an emulator that `./tests/run` started.
//!
//! Between the two stands a pipe that keeps what the daemon sent, so that calls can be counted. Only MiniStack is here: moto
//! and LocalEmu cannot give the original template of a change set back, which is read before every execution.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isoform::aws::{Aws, Reach, Role};

use crate::support::{Bench, all_in_sync};

const ACCOUNT: &str = "333333333333";
const REGION: &str = "eu-west-1";

/// A pipe to an emulator that keeps what is sent.
struct Pipe {
    address: String,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Pipe {
    fn to(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let sent: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (kept, target) = (sent.clone(), endpoint.replace("http://", ""));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let kept = kept.clone();
                std::thread::spawn(move || copy(from, to, Some(&kept)));
                std::thread::spawn(move || copy(server, client, None));
            }
        });
        Self { address, sent }
    }

    /// How often the daemon sent this.
    fn count(&self, what: &str) -> usize {
        let sent = self.sent.lock().unwrap();
        sent.windows(what.len())
            .filter(|w| *w == what.as_bytes())
            .count()
    }

    fn calls(&self, names: &[&str]) -> Vec<usize> {
        let action = |name: &&str| self.count(&format!("Action={name}&"));
        names.iter().map(action).collect()
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, keep: Option<&Mutex<Vec<u8>>>) {
    let mut buffer = [0; 16384];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if let Some(keep) = keep {
            keep.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// Makes a bucket and a key as an operator would; returns the key's ARN.
async fn prepared(endpoint: &str, bucket: &str) -> String {
    let reach = Reach {
        endpoint: Some(endpoint.to_owned()),
        session: "operator".into(),
        ..Reach::default()
    };
    let role = Role {
        arn: format!("arn:aws:iam::{ACCOUNT}:role/operator"),
        external_id: None,
    };
    let region = REGION.parse().unwrap();
    let session = Aws::connect(reach).await.session(&region, &[role]).await;
    let place = aws_sdk_s3::types::BucketLocationConstraint::from(REGION);
    let configuration = aws_sdk_s3::types::CreateBucketConfiguration::builder()
        .location_constraint(place)
        .build();
    let s3 = aws_sdk_s3::config::Builder::from(session.config()).force_path_style(true);
    let made = aws_sdk_s3::Client::from_conf(s3.build())
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

fn story(emulator: &str) {
    let variable = format!("ISOFORM_{}", emulator.to_uppercase());
    let Some(endpoint) = std::env::var(&variable).ok().filter(|v| !v.is_empty()) else {
        println!(
            "SKIP contract_on_{emulator}: {variable} does not say where it is; ./tests/run starts it"
        );
        return;
    };
    let bucket = format!("isoform-story-{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let key = runtime.block_on(prepared(&endpoint, &bucket));
    let pipe = Pipe::to(&endpoint);
    let mut bench = Bench::empty("");
    let config = format!(
        "isoform: 1
aws: {{ endpoint: '{}', session: isoform-story }}
accounts: {{ beta: {{ id: '{ACCOUNT}', roles: {{ apply: isoform-apply }}, external_id: an-external-id }} }}
placements: {{ beta: {{ account: beta, regions: [{REGION}], mode: auto, blast_radius: 50, bundle_store: {{ {REGION}: near }} }} }}
sources: {{ example: {{ url: ./origin.git, may: {{ stacks: ['*'], placements: ['*'] }} }} }}
bundle_stores:
  main:
    url: 's3://{bucket}/isoform'
    owner: '{ACCOUNT}'
    encryption: client-kms
    key: '{key}'
    role: 'arn:aws:iam::{ACCOUNT}:role/isoform-store'
  near:
    url: 's3://{bucket}/near'
    owner: '{ACCOUNT}'
    region: {REGION}
    encryption: sse-s3
    role: 'arn:aws:iam::{ACCOUNT}:role/isoform-store'
home: main
state: {{ path: state, key: 'file:root.key' }}
poll: 1s
sweep: 300s
",
        pipe.address
    );
    std::fs::write(bench.root.join("config.yaml"), config).unwrap();
    bench.write("isoform.yaml", "isoform: 1\nstacks:\n  topic: { template: stacks/topic.yaml, placement: beta }\n  queue: { template: stacks/queue.yaml, placement: beta, after: [stack/topic] }\n");
    bench.write(
        "stacks/topic.yaml",
        "Resources:\n  T: {Type: 'AWS::SNS::Topic'}\nOutputs:\n  Topic: {Value: !Ref T}\n",
    );
    bench.write(
        "stacks/queue.yaml",
        "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 1}}\n",
    );
    const WRITES: [&str; 4] = [
        "CreateChangeSet",
        "ExecuteChangeSet",
        "DeleteStack",
        "DescribeStacks",
    ];

    bench.push("Two stacks");
    bench.start();
    all_in_sync(&bench.settle(), 2);

    let first = pipe.calls(&WRITES);
    assert_eq!(
        first[..3],
        [2, 2, 0],
        "one change set and one execution each"
    );
    bench.cli(&["audit", "verify"], 0);
    bench.cli(&["audit", "prove", "stack/topic"], 0);

    bench.write("README.md", "nothing that is deployed");
    bench.push("docs: a word");
    all_in_sync(&bench.settle(), 2);
    assert_eq!(
        pipe.calls(&WRITES),
        first,
        "nothing is asked and nothing is written"
    );

    bench.edit("stacks/queue.yaml", "DelaySeconds: 1", "DelaySeconds: 2");
    bench.push("queue: wait longer");
    all_in_sync(&bench.settle(), 2);
    let second = pipe.calls(&WRITES);
    assert_eq!(second[..3], [3, 3, 0], "one stack differs");

    let quiet = pipe.count("Action=");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        pipe.count("Action="),
        quiet,
        "polls of unchanged heads ask nothing"
    );
    // Every object is asked for by its owner, and those of one store are encrypted under the key.
    let puts = pipe.count("\r\nx-amz-server-side-encryption: aws:kms\r\n");
    assert!(puts > 0, "no put asked for encryption");
    assert_eq!(
        pipe.count("\r\nx-amz-expected-bucket-owner: "),
        pipe.count(&format!(" /{bucket}")),
        "of every request to the bucket"
    );
    bench.stop();
}

mod on_ministack {
    #[test]
    fn a_push_is_deployed_and_what_is_unchanged_costs_no_call() {
        super::story("ministack");
    }
}
