//! The story of a push with AWS behind the ports: the real binary, and an emulator that `./tests/run` started.
//!
//! Between the two stands a proxy that keeps what the daemon sent, so that calls can be counted. Only MiniStack is here: moto
//! and LocalEmu cannot give the original template of a change set back, which is read before every execution.

use std::time::Duration;

use crate::emulated::proxy::Proxy;
use crate::emulated::{REGION, buckets, endpoint, operator, prepared};
use crate::support::{Bench, all_in_sync};

const ACCOUNT: &str = "333333333333";

fn story(emulator: &str) {
    let Some(endpoint) = endpoint(emulator) else {
        return;
    };
    let bucket = format!("isoform-story-{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let key = runtime.block_on(prepared(&endpoint, ACCOUNT, REGION, &bucket));
    let proxy = Proxy::before(&endpoint, emulator);
    let mut bench = Bench::empty("");
    let config = format!(
        "isoform: 1
aws: {{ endpoint: '{}', session: isoform-story, deployments: {{ tags: true, source_identity: true, narrow: true }} }}
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
        proxy.address
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

    let first = proxy.counts(&WRITES);
    assert_eq!(
        first[..3],
        [2, 2, 0],
        "one change set and one execution each"
    );
    bench.cli(&["audit", "verify"], 0);
    bench.cli(&["audit", "prove", "stack/topic"], 0);
    // Each deployment is worked with a session of its own, which carries target and commit and reaches its stack.
    let commit = &bench.head()[..7];
    for name in ["topic", "queue"] {
        for part in [
            format!("SourceIdentity={commit}.stack.{name}"),
            format!("RoleSessionName=isoform-story.{commit}.stack.{name}"),
            format!("Value=stack%2F{name}"),
        ] {
            assert_eq!(proxy.sent(&part), 1, "{part}");
        }
    }
    assert!(
        proxy.sent("stack%2Fisoform-stack-topic-") > 0,
        "a policy names it"
    );

    bench.write("README.md", "nothing that is deployed");
    bench.push("docs: a word");
    all_in_sync(&bench.settle(), 2);
    assert_eq!(
        proxy.counts(&WRITES),
        first,
        "nothing is asked and nothing is written"
    );

    bench.edit("stacks/queue.yaml", "DelaySeconds: 1", "DelaySeconds: 2");
    bench.push("queue: wait longer");
    if emulator == "moto" {
        // It does not say whether a change replaces: that is for a person.
        bench.becomes("stack/queue", "Pending(Approval)");
        bench.cli(&["approve", "stack/queue"], 0);
    }
    bench.in_sync(2);
    let second = proxy.counts(&WRITES);
    assert_eq!(second[..3], [3, 3, 0], "one stack differs");

    let quiet = proxy.sent("Action=");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        proxy.sent("Action="),
        quiet,
        "polls of unchanged heads ask nothing"
    );
    // Every object is asked for by its owner, and those of one store are encrypted under the key.
    let puts = proxy.sent("\r\nx-amz-server-side-encryption: aws:kms\r\n");
    assert!(puts > 0, "no put asked for encryption");
    assert_eq!(
        proxy.sent("\r\nx-amz-expected-bucket-owner: "),
        proxy.sent(&format!(" /{bucket}")),
        "of every request to the bucket"
    );
    bench.stop();
}

/// Does to a bucket what the doctor says, with the policy that `isoform iam` prints.
async fn mended(endpoint: &str, bucket: &str, key: &str, policy: &str) {
    use aws_sdk_s3::types::{
        BucketVersioningStatus, PublicAccessBlockConfiguration, ServerSideEncryption,
        ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
        VersioningConfiguration,
    };
    let session = operator(endpoint, ACCOUNT, REGION).await;
    let s3 = buckets(&session);
    let versions = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled);
    s3.put_bucket_versioning()
        .bucket(bucket)
        .versioning_configuration(versions.build())
        .send()
        .await
        .unwrap();
    let block = PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true);
    s3.put_public_access_block()
        .bucket(bucket)
        .public_access_block_configuration(block.build())
        .send()
        .await
        .unwrap();
    let default =
        ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::Aes256);
    let rule = ServerSideEncryptionRule::builder()
        .apply_server_side_encryption_by_default(default.build().unwrap());
    let rules = ServerSideEncryptionConfiguration::builder().rules(rule.build());
    s3.put_bucket_encryption()
        .bucket(bucket)
        .server_side_encryption_configuration(rules.build().unwrap())
        .send()
        .await
        .unwrap();
    s3.put_bucket_policy()
        .bucket(bucket)
        .policy(policy)
        .send()
        .await
        .unwrap();
    let keys = aws_sdk_kms::Client::new(session.config());
    keys.enable_key_rotation().key_id(key).send().await.unwrap();
}

fn examination(emulator: &str) {
    let Some(endpoint) = endpoint(emulator) else {
        return;
    };
    let bucket = format!("isoform-doctor-{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let key = runtime.block_on(prepared(&endpoint, ACCOUNT, REGION, &bucket));
    let bench = Bench::empty("");
    let config = format!(
        "isoform: 1
aws: {{ endpoint: '{endpoint}' }}
accounts: {{ beta: {{ id: '{ACCOUNT}', roles: {{ preview: look, apply: act }}, external_id: an-external-id }} }}
placements: {{ beta: {{ account: beta, regions: [{REGION}] }} }}
sources: {{ example: {{ url: ./origin.git, may: {{ stacks: ['*'], placements: ['*'] }} }} }}
bundle_stores: {{ main: {{ url: 's3://{bucket}/x', owner: '{ACCOUNT}', key: '{key}', role: 'arn:aws:iam::{ACCOUNT}:role/store' }} }}
state: {{ path: state, key: 'file:root.key' }}
"
    );
    std::fs::write(bench.root.join("config.yaml"), config).unwrap();

    let text = bench.cli(&["doctor"], 1);
    for command in [
        "put-bucket-versioning",
        "put-public-access-block",
        "isoform iam",
        "enable-key-rotation",
    ] {
        assert!(text.contains(command), "{command}: {text}");
    }
    let printed = bench.run(&["iam", "--mode", "observe"]);
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    let policy = printed["buckets"][0]["policy"].to_string();
    runtime.block_on(mended(&endpoint, &bucket, &key, &policy));

    let text = bench.cli(&["doctor"], 0);
    assert!(text.contains("nothing is wrong"), "{text}");
    assert!(
        text.contains("role/act") && text.contains("role/look"),
        "{text}"
    );
}

/// Templates from a bucket, under a key: they register, and a bucket that does not move is listed and not read.
fn archives(emulator: &str) {
    let Some(endpoint) = endpoint(emulator) else {
        return;
    };
    let bucket = format!("isoform-archives-{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let key = runtime.block_on(prepared(&endpoint, ACCOUNT, REGION, &bucket));
    let put = |name: &str, bytes: Vec<u8>| {
        use aws_sdk_s3::types::ServerSideEncryption::AwsKms;
        runtime.block_on(async {
            let sent = buckets(&operator(&endpoint, ACCOUNT, REGION).await)
                .put_object()
                .bucket(&bucket)
                .key(name)
                .server_side_encryption(AwsKms)
                .ssekms_key_id(&key)
                .body(bytes.into())
                .send()
                .await;
            sent.unwrap();
        });
    };
    put(
        "proton/net/v1.tar.gz",
        crate::shelf::template("dist/", "one"),
    );
    let proxy = Proxy::before(&endpoint, emulator);
    let mut bench = Bench::empty("");
    let config = format!(
        "isoform: 1
aws: {{ endpoint: '{}' }}
accounts: {{ beta: {{ id: '{ACCOUNT}', roles: {{ apply: isoform-apply }} }} }}
placements: {{ beta: {{ account: beta, regions: [{REGION}], mode: auto, blast_radius: 50 }} }}
sources:
  example: {{ url: ./origin.git, may: {{ environments: ['*'], placements: ['*'] }} }}
  proton: {{ url: 's3://{bucket}/proton', owner: '{ACCOUNT}', key: '{key}', role: 'arn:aws:iam::{ACCOUNT}:role/isoform-read', may: {{ templates: ['*'] }} }}
bundle_stores: {{ main: {{ url: 's3://{bucket}/isoform', owner: '{ACCOUNT}', encryption: client-kms, key: '{key}', role: 'arn:aws:iam::{ACCOUNT}:role/isoform-store' }} }}
state: {{ path: state, key: 'file:root.key' }}
poll: 1s
",
        proxy.address
    );
    std::fs::write(bench.root.join("config.yaml"), config).unwrap();
    bench.write("isoform.yaml", "isoform: 1\nenvironments:\n  beta: { template: net@1, spec: beta.yaml, placement: beta }\n");
    bench.write("beta.yaml", "proton: EnvironmentSpec\nspec: { word: a }\n");
    bench.push("an environment");
    bench.start();
    all_in_sync(&bench.settle(), 1);
    assert_eq!(crate::shelf::version(&bench), "\"net@1.0\"");

    let read = format!("GET /{bucket}/proton/net/v1.tar.gz");
    let listed = || proxy.sent("prefix=proton%2F");
    assert_eq!(proxy.sent(&read), 1);
    let before = listed();
    bench.until(|_| listed() >= before + 2);
    assert_eq!(proxy.sent(&read), 1, "it was not read again");

    put("proton/net/v1.tar.gz", crate::shelf::template("", "two"));
    bench.until(|_| crate::shelf::version(&bench) == "\"net@1.1\"");
    assert_eq!(proxy.sent(&read), 2);
    let text = bench.cli(&["doctor"], 1);
    assert!(
        text.contains("role/isoform-read lists and reads it"),
        "{text}"
    );
    bench.stop();
    sealed_both_ways(&endpoint, &bucket, &key, &bench.root);
}

/// AWS's own client opens with KMS what isoform has sealed, and isoform what that client has.
fn sealed_both_ways(endpoint: &str, bucket: &str, key: &str, folder: &std::path::Path) {
    use aws_credential_types::provider::ProvideCredentials;
    use isoform::aws::KmsKeys;
    use isoform::domain::seal::{EncryptionContext, Limits, Sealed};
    use isoform::port::KeyService;

    let Some(python) = crate::support::python("aws::sealed_both_ways") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let session = runtime.block_on(operator(endpoint, ACCOUNT, REGION));
    let hands = session.config().credentials_provider().unwrap();
    let hands = runtime.block_on(hands.provide_credentials()).unwrap();
    let script =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/kms_sealed.py");
    let client = |task: &str, path: &std::path::Path| {
        let output = std::process::Command::new(&python)
            .arg(&script)
            .args([task, endpoint, key, path.to_str().unwrap()])
            .env("AWS_ACCESS_KEY_ID", hands.access_key_id())
            .env("AWS_SECRET_ACCESS_KEY", hands.secret_access_key())
            .env(
                "AWS_SESSION_TOKEN",
                hands.session_token().unwrap_or_default(),
            )
            .output()
            .unwrap();
        let said = crate::support::text(&output);
        assert!(output.status.success(), "{said}");
        said
    };
    let ours = runtime.block_on(async {
        let s3 = buckets(&session);
        let listed = s3
            .list_objects_v2()
            .bucket(bucket)
            .prefix("isoform/bundles/");
        let listed = listed.send().await.unwrap();
        let names = listed.contents().iter().filter_map(|o| o.key());
        let name = names.into_iter().find(|n| !n.ends_with(".json")).unwrap();
        let object = s3
            .get_object()
            .bucket(bucket)
            .key(name)
            .send()
            .await
            .unwrap();
        object.body.collect().await.unwrap().to_vec()
    });
    let path = folder.join("ours.esdk");
    std::fs::write(&path, ours).unwrap();

    let said = client("open", &path);

    assert!(
        said.contains("infrastructure/c.yaml") && said.contains("isoform:bundle"),
        "{said}"
    );
    let path = folder.join("theirs.esdk");
    client("seal", &path);
    let theirs = std::fs::read(&path).unwrap();
    let sealed = Sealed::parse(&theirs[..], &Limits::default()).unwrap();
    let header = sealed.header().clone();
    let context = EncryptionContext::from([("isoform:bundle".into(), "b1:0".into())]);
    header.require_context(&context).unwrap();
    let keys = KmsKeys::new(&session, key.to_owned(), Vec::new(), None);
    let opened = runtime.block_on(keys.unwrap(&header.encrypted_data_keys, &header.context));
    let mut plain = Vec::new();
    let open = sealed.open(opened.unwrap()).unwrap();
    open.copy_to(&mut plain).unwrap();
    assert_eq!(plain, b"sealed by the client of AWS");
    let mut other = header.context.clone();
    other.insert("isoform:bundle".into(), "b1:1".into());
    let refused = runtime.block_on(keys.unwrap(&header.encrypted_data_keys, &other));
    assert!(refused.is_err(), "under another context");
}

/// The root key with KMS: the state is opened with it, and again without a state.
fn root_key(emulator: &str) {
    let Some(endpoint) = endpoint(emulator) else {
        return;
    };
    let bucket = format!("isoform-root-{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let key = runtime.block_on(prepared(&endpoint, ACCOUNT, REGION, &bucket));
    let switch = |on: bool| {
        runtime.block_on(async {
            let keys =
                aws_sdk_kms::Client::new(operator(&endpoint, ACCOUNT, REGION).await.config());
            if on {
                keys.enable_key().key_id(&key).send().await.unwrap();
            } else {
                keys.disable_key().key_id(&key).send().await.unwrap();
            }
        });
    };
    let mut bench = Bench::empty("");
    let config = format!(
        "isoform: 1
aws: {{ endpoint: '{endpoint}' }}
accounts: {{ beta: {{ id: '{ACCOUNT}', roles: {{ apply: isoform-apply }} }} }}
placements: {{ beta: {{ account: beta, regions: [{REGION}], mode: auto, blast_radius: 50 }} }}
sources: {{ example: {{ url: ./origin.git, may: {{ stacks: ['*'], placements: ['*'] }} }} }}
bundle_stores: {{ main: {{ url: 's3://{bucket}/isoform', owner: '{ACCOUNT}', region: {REGION}, encryption: sse-s3, role: 'arn:aws:iam::{ACCOUNT}:role/isoform-store' }} }}
state: {{ path: state, key: 'kms:{key}', role: 'arn:aws:iam::{ACCOUNT}:role/isoform-root' }}
poll: 1s
"
    );
    std::fs::write(bench.root.join("config.yaml"), config).unwrap();
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta }\n",
    );
    bench.write("topic.yaml", "Resources:\n  T: {Type: 'AWS::SNS::Topic'}\n");
    bench.push("a stack");
    bench.start();
    all_in_sync(&bench.settle(), 1);
    bench.stop();
    let text = bench.cli(&["audit", "verify"], 0);
    assert!(
        text.contains("payloads open") && text.contains("the same in the bundle store"),
        "{text}"
    );

    switch(false);
    let refused = bench.run(&["run"]);
    let said = crate::support::text(&refused);
    assert!(!refused.status.success() && said.contains(&key), "{said}");
    assert!(said.contains("key unavailable"), "{said}");

    switch(true);
    std::fs::remove_dir_all(bench.root.join("state")).unwrap();
    bench.start();
    all_in_sync(&bench.settle(), 1);
    bench.stop();
}

/// The log is kept by Object Lock where the bucket has it, refused where it has none, and verified from the bucket alone.
fn kept_log(emulator: &str) {
    let Some(endpoint) = endpoint(emulator) else {
        return;
    };
    let (plain, locked) = (
        format!("isoform-plain-{}", std::process::id()),
        format!("isoform-locked-{}", std::process::id()),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(prepared(&endpoint, ACCOUNT, REGION, &plain));
    runtime.block_on(async {
        let place = aws_sdk_s3::types::BucketLocationConstraint::from(REGION);
        let configuration = aws_sdk_s3::types::CreateBucketConfiguration::builder()
            .location_constraint(place)
            .build();
        let made = buckets(&operator(&endpoint, ACCOUNT, REGION).await)
            .create_bucket()
            .bucket(&locked)
            .object_lock_enabled_for_bucket(true)
            .create_bucket_configuration(configuration)
            .send()
            .await;
        made.unwrap();
    });
    // The key of whoever audits: the daemon may sign with it, and its public half is all that verifying needs.
    let (signs, public) = runtime.block_on(async {
        use aws_sdk_kms::types::{KeySpec, KeyUsageType};
        let keys = aws_sdk_kms::Client::new(operator(&endpoint, ACCOUNT, REGION).await.config());
        let made = keys.create_key().key_spec(KeySpec::EccNistP256);
        let made = made.key_usage(KeyUsageType::SignVerify).send().await;
        let arn = made
            .unwrap()
            .key_metadata()
            .unwrap()
            .arn()
            .unwrap()
            .to_owned();
        let public = keys.get_public_key().key_id(&arn).send().await.unwrap();
        (arn, public.public_key().unwrap().as_ref().to_vec())
    });
    let mut bench = Bench::empty("");
    let configure = |bench: &Bench, bucket: &str| {
        let config = format!(
            "isoform: 1
aws: {{ endpoint: '{endpoint}' }}
accounts: {{ beta: {{ id: '{ACCOUNT}', roles: {{ apply: isoform-apply }} }} }}
placements: {{ beta: {{ account: beta, regions: [{REGION}], mode: auto, blast_radius: 50 }} }}
sources: {{ example: {{ url: ./origin.git, may: {{ stacks: ['*'], placements: ['*'] }} }} }}
bundle_stores: {{ main: {{ url: 's3://{bucket}/isoform', owner: '{ACCOUNT}', region: {REGION}, encryption: sse-s3, role: 'arn:aws:iam::{ACCOUNT}:role/isoform-store', object_lock: {{ mode: governance, days: 1, legal_hold: true }} }} }}
state: {{ path: state, key: 'file:root.key' }}
signing: {{ key: '{signs}', role: 'arn:aws:iam::{ACCOUNT}:role/isoform-root' }}
poll: 1s
"
        );
        std::fs::write(bench.root.join("config.yaml"), config).unwrap();
    };
    bench.write("isoform.yaml", "isoform: 1\nstacks: {}\n");
    bench.push("nothing yet");

    configure(&bench, &plain);
    let refused = crate::support::text(&bench.run(&["run"]));
    assert!(refused.contains("must have Object Lock"), "{refused}");
    let text = bench.cli(&["doctor"], 1);
    assert!(text.contains("it has no Object Lock"), "{text}");
    std::fs::remove_dir_all(bench.root.join("state")).unwrap();

    configure(&bench, &locked);
    let text = bench.cli(&["doctor"], 1);
    assert!(
        text.contains("the log is kept for 1 days in mode governance, and under a legal hold"),
        "{text}"
    );
    bench.start();
    bench.settle();
    bench.stop();
    runtime.block_on(async {
        let s3 = buckets(&operator(&endpoint, ACCOUNT, REGION).await);
        let listed = s3.list_objects_v2().bucket(&locked).prefix("isoform/log/");
        let listed = listed.send().await.unwrap();
        assert!(!listed.contents().is_empty());
        for object in listed.contents() {
            let head = s3.head_object().bucket(&locked).key(object.key().unwrap());
            let head = head.send().await.unwrap();
            assert_eq!(head.object_lock_mode().unwrap().as_str(), "GOVERNANCE");
            assert!(head.object_lock_retain_until_date().is_some());
            assert_eq!(head.object_lock_legal_hold_status().unwrap().as_str(), "ON");
        }
    });

    // Somebody who has neither the state nor the configuration.
    std::fs::remove_dir_all(bench.root.join("state")).unwrap();
    let text = bench.cli(&["audit", "verify", "--shipped"], 0);
    assert!(text.contains("from the bundle store alone"), "{text}");
    let auditor = bench.root.join("auditor.der");
    std::fs::write(&auditor, &public).unwrap();
    let auditor = auditor.to_str().unwrap();
    let trusting = ["audit", "verify", "--shipped", "--signing-key", auditor];
    let text = bench.cli(&trusting, 0);
    assert!(
        text.contains("countersigned to ") && text.contains(&format!("by {signs}")),
        "{text}"
    );
    let verified = std::process::Command::new(crate::support::ISOFORM)
        .args([
            "audit",
            "verify",
            "--shipped",
            &format!("s3://{locked}/isoform"),
        ])
        .args(["--owner", ACCOUNT, "--region", REGION])
        .args(["--role", &format!("arn:aws:iam::{ACCOUNT}:role/auditor")])
        .env("AWS_ENDPOINT_URL", &endpoint)
        .output()
        .unwrap();
    let text = crate::support::text(&verified);
    assert!(
        verified.status.success() && text.contains("chain verified"),
        "{text}"
    );
}

mod on_ministack {
    #[test]
    fn the_log_is_kept_and_verified_from_the_bucket_alone() {
        super::kept_log("ministack");
    }

    #[test]
    fn the_root_key_is_with_kms() {
        super::root_key("ministack");
    }

    #[test]
    fn templates_come_from_a_bucket_under_a_key() {
        super::archives("ministack");
    }

    #[test]
    fn what_the_doctor_says_mends_what_it_found() {
        super::examination("ministack");
    }

    #[test]
    fn a_push_is_deployed_and_what_is_unchanged_costs_no_call() {
        super::story("ministack");
    }
}

mod on_localemu {
    #[test]
    fn a_push_is_deployed_and_what_is_unchanged_costs_no_call() {
        super::story("localemu");
    }
}

mod on_moto {
    #[test]
    fn a_push_is_deployed_and_what_is_unchanged_costs_no_call() {
        super::story("moto");
    }
}
