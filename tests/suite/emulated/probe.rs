//! `isoform doctor --probe` where not everything is as AWS is: it tells what is not so, ends, and leaves nothing.

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};

use super::{Ground, REGION, buckets};
use crate::probe::{probed, with};

fn ends_and_leaves_nothing(emulator: &str) {
    let Some(ground) = Ground::on(emulator) else {
        return;
    };
    let bench = ground.bench("observe");
    let before = ground.stacks();
    // As the doctor asks for it: what is deleted is to go with its versions.
    ground.runtime.block_on(async {
        let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled);
        let operator = super::operator(&ground.endpoint, &ground.account, REGION).await;
        let asked = buckets(&operator).put_bucket_versioning();
        let asked = asked.bucket(&ground.bucket);
        asked
            .versioning_configuration(on.build())
            .send()
            .await
            .unwrap();
    });

    let (code, told) = probed(&bench, &format!("beta@{REGION}"));

    let not_held = with(&told, "not held");
    assert_eq!(code, i32::from(!not_held.is_empty()), "{told}");
    // Of what AWS does and the emulator does too.
    for held in [
        "a put that asks for no object of its key is refused where there is one",
        "the template of a change set reads back as it was sent",
        "a protected stack is not deleted",
        "a deleted stack is absent by name and DELETE_COMPLETE by ARN",
    ] {
        assert!(with(&told, "held").contains(&held), "{told:#}");
    }
    // Of what it is known not to do.
    let marks = "what is not ASCII in a template reads back as question marks";
    assert!(not_held.contains(&marks), "{told:#}");
    assert_eq!(told["left"], serde_json::json!([]));
    assert_eq!(ground.stacks(), before);
    let listed = ground.runtime.block_on(async {
        let client = buckets(&super::operator(&ground.endpoint, &ground.account, REGION).await);
        let versions = client.list_object_versions().bucket(&ground.bucket);
        versions.send().await.unwrap()
    });
    let objects = listed.versions().iter().map(|v| v.key());
    let markers = listed.delete_markers().iter().map(|m| m.key());
    let all: Vec<_> = objects.chain(markers).flatten().collect();
    assert!(!all.iter().any(|key| key.contains("probe")), "{all:?}");
}

mod on_ministack {
    #[test]
    fn a_probe_ends_and_leaves_nothing() {
        super::ends_and_leaves_nothing("ministack");
    }
}
