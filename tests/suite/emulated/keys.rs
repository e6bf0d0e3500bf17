//! Bundles that are sealed under a key of KMS before they are put.

use super::{Ground, buckets, environment};

impl Ground {
    /// Returns the names of all objects below a folder of the store, with their bytes.
    fn objects(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let client = buckets(&self.operator());
        self.runtime.block_on(async {
            let listed = client.list_objects_v2().bucket(&self.bucket);
            let listed = listed
                .prefix(format!("home/{folder}/"))
                .send()
                .await
                .unwrap();
            let mut found = Vec::new();
            for object in listed.contents() {
                let key = object.key().unwrap();
                let got = client
                    .get_object()
                    .bucket(&self.bucket)
                    .key(key)
                    .send()
                    .await;
                let bytes = got.unwrap().body.collect().await.unwrap().into_bytes();
                found.push((key.to_owned(), bytes.to_vec()));
            }
            found
        })
    }

    fn switch(&self, on: bool) {
        let keys = aws_sdk_kms::Client::new(self.operator().config());
        self.runtime.block_on(async {
            if on {
                keys.enable_key().key_id(&self.key).send().await.unwrap();
            } else {
                keys.disable_key().key_id(&self.key).send().await.unwrap();
            }
        });
    }
}

const SYNC: &str =
    "isoform: 1\nenvironments:\n  net: { template: net@1, spec: net.yaml, placement: beta }\n";
const TEMPLATE: &str = "templates/environment/net/v1/infrastructure/cloudformation.yaml";

fn sealed(emulator: &str) {
    let Some(ground) = Ground::on(emulator) else {
        return;
    };
    let mut bench = ground.bench("auto");
    environment(&bench, "net", "net");
    bench.write("isoform.yaml", SYNC);
    bench.push("an environment");
    bench.start();
    bench.in_sync(1);
    let bundles = ground.objects("bundles");
    let sealed = bundles.iter().filter(|(name, _)| !name.ends_with(".json"));
    let sealed: Vec<_> = sealed.collect();
    let [(name, bytes)] = sealed[..] else {
        panic!("{} bundles", sealed.len())
    };
    let reads_as = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
    assert_eq!(bytes[0], isoform::domain::seal::VERSION, "it is not sealed");
    assert!(
        reads_as(bytes, ground.key.as_bytes()),
        "it does not name its key"
    );
    assert!(
        !reads_as(bytes, b"\x1f\x8b\x08"),
        "the archive is in the clear"
    );

    // Whoever has the key opens it, from the bucket alone.
    let digest = name.rsplit('/').next().unwrap();
    let out = bench.root.join("opened");
    bench.cli(&["bundle", "verify", digest], 0);
    bench.cli(
        &["bundle", "open", digest, "--out", out.to_str().unwrap()],
        0,
    );
    let opened = std::fs::read_to_string(out.join("infrastructure/cloudformation.yaml")).unwrap();
    let committed = std::fs::read_to_string(bench.work().join(TEMPLATE)).unwrap();
    assert_eq!(opened, committed);
    bench.cli(&["audit", "prove", "env/net"], 0);
    assert!(
        ground
            .proxy
            .counts(&["GenerateDataKey", "Decrypt"])
            .iter()
            .all(|n| *n > 0)
    );

    // A key that is disabled seals nothing and opens nothing: nothing of the new bundle is put, and it is said which key it is.
    ground.switch(false);
    bench.cli(&["bundle", "verify", digest], 1);
    bench.edit(TEMPLATE, "\"{{", "\"another {{");
    bench.push("another template");
    let estate = bench.until(|e| {
        e["unlooked"]
            .as_str()
            .is_some_and(|t| t.contains(&ground.key))
    });
    assert_eq!(estate["settled"], false);
    let status = bench.cli(&["status"], 1);
    assert!(
        status.contains("the last look failed") && status.contains(&ground.key),
        "{status}"
    );
    assert_eq!(
        ground.objects("bundles").len(),
        bundles.len(),
        "something was put"
    );
    assert_eq!(
        bench.condition("env/net"),
        "InSync(Settled)",
        "what was there stands"
    );

    ground.switch(true);
    bench.in_sync(1);
    assert!(ground.objects("bundles").len() > bundles.len());
    bench.cli(&["audit", "verify"], 0);
    bench.stop();
}

mod on_ministack {
    #[test]
    fn what_is_sealed_opens_with_its_key_and_without_it_nothing_is_put() {
        super::sealed("ministack");
    }
}

mod on_localemu {
    #[test]
    fn what_is_sealed_opens_with_its_key_and_without_it_nothing_is_put() {
        super::sealed("localemu");
    }
}
