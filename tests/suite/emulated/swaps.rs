//! Objects in a bucket that somebody replaces between the put and the execution.

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;

use super::proxy::Proxy;
use super::{Ground, buckets, environment};
use crate::support::Bench;

impl Ground {
    /// Writes over an object as whoever may write to the bucket can, encrypted as everything there is.
    fn replace(&self, path: &str, bytes: Vec<u8>) {
        let key = path
            .trim_start_matches(&format!("/{}/", self.bucket))
            .to_owned();
        let client = buckets(&self.operator());
        let put = client.put_object().bucket(&self.bucket).key(key);
        let put = put.server_side_encryption(ServerSideEncryption::AwsKms);
        let put = put.ssekms_key_id(&self.key).body(ByteStream::from(bytes));
        self.runtime.block_on(put.send()).unwrap();
    }

    fn object(&self, path: &str) -> Vec<u8> {
        let key = path
            .trim_start_matches(&format!("/{}/", self.bucket))
            .to_owned();
        let client = buckets(&self.operator());
        let get = client.get_object().bucket(&self.bucket).key(key);
        self.runtime.block_on(async {
            let body = get.send().await.unwrap().body;
            body.collect().await.unwrap().into_bytes().to_vec()
        })
    }

    fn remove(&self, path: &str) {
        let key = path
            .trim_start_matches(&format!("/{}/", self.bucket))
            .to_owned();
        let client = buckets(&self.operator());
        let gone = client.delete_object().bucket(&self.bucket).key(key);
        self.runtime.block_on(gone.send()).unwrap();
    }
}

/// Paths of what was put into a folder of the store, in order.
fn put(proxy: &Arc<Proxy>, folder: &str) -> Vec<String> {
    let folder = format!("/home/{folder}/");
    let calls = proxy.calls().into_iter();
    let ours = calls.filter(|c| c.name == "PutObject" && c.path.contains(&folder));
    ours.map(|c| c.path)
        .filter(|p| !p.ends_with(".json"))
        .collect()
}

const TOPIC: &str = "Resources:\n  T: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: one}}\n";

/// A held deployment whose object is replaced runs nothing, says so, and runs once the object is gone and was put anew.
fn held(ground: &Ground, bench: &Bench, target: &str, path: &str, bytes: Vec<u8>) {
    ground.replace(path, bytes);
    bench.cli(&["approve", target], 0);
    bench.becomes(target, "Stuck(StackStuck)");
    let why = bench.cli(&["why", target], 1);
    let name = path.rsplit('/').next().unwrap();
    assert!(
        why.contains(name) && why.contains("is not what was put there"),
        "{why}"
    );
    assert_eq!(ground.proxy.counts(&["ExecuteChangeSet"]), [0]);

    ground.remove(path);
    bench.cli(&["retry", target], 0);
    bench.becomes(target, "Pending(Approval)");
    bench.cli(&["approve", target], 0);
    bench.becomes(target, "InSync(Settled)");
    assert_eq!(ground.proxy.counts(&["ExecuteChangeSet"]), [1]);
}

fn a_held_text(emulator: &str) {
    let Some(ground) = Ground::on(emulator) else {
        return;
    };
    let mut bench = ground.bench("approve");
    bench.write("topic.yaml", TOPIC);
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta }\n",
    );
    bench.push("a topic");
    bench.start();
    bench.becomes("stack/topic", "Pending(Approval)");
    let path = put(&ground.proxy, "rendered").remove(0);
    let other = TOPIC.replace("one", "two").into_bytes();
    held(&ground, &bench, "stack/topic", &path, other);
    bench.stop();
}

/// The text is replaced when it has just been put, and nothing has read it: the change set is made of another one.
fn a_text_at_once(emulator: &str) {
    let Some(ground) = Ground::on(emulator) else {
        return;
    };
    let ground = Arc::new(ground);
    let mut bench = ground.bench("auto");
    bench.write("topic.yaml", TOPIC);
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta }\n",
    );
    bench.push("a topic");
    let (thief, done) = (ground.clone(), std::sync::atomic::AtomicBool::new(false));
    ground.proxy.hook(move |call| {
        use std::sync::atomic::Ordering;
        let text = call.name == "PutObject" && call.path.contains("/rendered/");
        if text && !done.swap(true, Ordering::SeqCst) {
            thief.replace(&call.path, TOPIC.replace("one", "two").into_bytes());
        }
    });
    bench.start();
    bench.becomes("stack/topic", "Stuck(StackStuck)");
    let why = bench.cli(&["why", "stack/topic"], 1);
    assert!(why.contains("another template than was sent"), "{why}");
    assert_eq!(ground.proxy.counts(&["ExecuteChangeSet"]), [0]);

    // Nobody takes it for ours either when it is tried again.
    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "Failed(ChangeSetFailed)");
    assert_eq!(ground.proxy.counts(&["ExecuteChangeSet"]), [0]);
    ground.remove(&put(&ground.proxy, "rendered")[0]);
    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    bench.stop();
    ground.proxy.unhook();
}

/// SEC-45: another bundle that was sealed with the same keys stands where ours stood.
fn a_held_bundle(emulator: &str) {
    let Some(ground) = Ground::on(emulator) else {
        return;
    };
    let mut bench = ground.bench("approve");
    environment(&bench, "ours", "beta");
    environment(&bench, "other", "none");
    bench.write(
        "isoform.yaml",
        "isoform: 1\nenvironments:\n  beta: { template: ours@1, spec: beta.yaml, placement: beta }\n",
    );
    bench.push("an environment");
    bench.start();
    bench.becomes("env/beta", "Pending(Approval)");
    let bundles = put(&ground.proxy, "bundles");
    assert!(bundles.len() > 1, "{bundles:?}");
    let folder = bench.work().join("templates/environment/ours/v1");
    let (folder, out) = (folder.to_str().unwrap(), bench.root.join("ours.tar.gz"));
    let built = bench.cli(
        &["bundle", "build", folder, "--out", out.to_str().unwrap()],
        0,
    );
    let is_ours = |path: &&String| built.contains(path.rsplit('/').next().unwrap());
    let ours = bundles.iter().find(is_ours);
    let ours = ours.unwrap_or_else(|| panic!("{bundles:?}: {built}"));
    let other = bundles.iter().find(|b| *b != ours).unwrap();
    held(&ground, &bench, "env/beta", ours, ground.object(other));
    bench.stop();
}

macro_rules! on {
    ($($module:ident $name:literal),*) => {
        $(mod $module {
            #[test]
            fn sec_44_a_text_that_was_replaced_while_it_waited_runs_nothing() {
                super::a_held_text($name);
            }

            #[test]
            fn sec_44_a_text_that_was_replaced_at_once_runs_nothing() {
                super::a_text_at_once($name);
            }

            #[test]
            fn sec_45_another_bundle_in_the_place_of_one_runs_nothing() {
                super::a_held_bundle($name);
            }
        })*
    };
}
on!(on_ministack "ministack", on_localemu "localemu", on_moto "moto");
