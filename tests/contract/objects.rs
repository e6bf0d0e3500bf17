//! Objects by key.

use std::collections::BTreeMap;

use isoform::port::{Encryption, Error, ObjectStore, Put, body, read_all};

use crate::harness::*;

async fn put(
    store: &dyn ObjectStore,
    key: &str,
    text: &str,
) -> Result<isoform::port::ObjectMeta, Error> {
    store.put(key, body(text.as_bytes()), &Put::default()).await
}

fn over() -> Put {
    Put {
        if_absent: false,
        ..Put::default()
    }
}

pub async fn a_second_put_keeps_the_first_object(world: &dyn Harness) {
    let store = world.store();
    put(store.as_ref(), "a/b", "one").await.unwrap();

    let second = put(store.as_ref(), "a/b", "two").await;

    assert!(matches!(second, Err(Error::Exists(_))), "{second:?}");
    let kept = read_all(store.as_ref(), "a/b", None, 100).await.unwrap();
    assert_eq!(kept, b"one");
}

pub async fn of_two_puts_at_once_one_wins(world: &dyn Harness) {
    let store = world.store();

    let (one, two) = tokio::join!(
        put(store.as_ref(), "owner", "one"),
        put(store.as_ref(), "owner", "two")
    );

    assert_ne!(one.is_ok(), two.is_ok());
}

pub async fn a_put_over_a_tag_needs_that_tag(world: &dyn Harness) {
    let store = world.store();
    let first = put(store.as_ref(), "a", "one").await.unwrap();
    let mut options = over();
    options.if_match = Some(first.etag.clone());

    let second = store.put("a", body("two"), &options).await.unwrap();
    let third = store.put("a", body("three"), &options).await;

    assert_ne!(first.etag, second.etag);
    assert!(matches!(third, Err(Error::Exists(_))), "{third:?}");
    options.if_match = Some(second.etag);
    assert!(
        store.put("b", body("x"), &options).await.is_err(),
        "there is nothing to match"
    );
}

pub async fn versions_are_kept(world: &dyn Harness) {
    let store = world.store();
    let first = store.put("a", body("one"), &over()).await.unwrap();
    let second = store.put("a", body("two"), &over()).await.unwrap();
    needs!(first.version.is_some(), "versions");
    assert_ne!(first.version, second.version);

    store.delete("a").await.unwrap();

    let old = read_all(store.as_ref(), "a", first.version.as_deref(), 100).await;
    assert_eq!(old.unwrap(), b"one");
}

pub async fn a_wrong_checksum_is_refused(world: &dyn Harness) {
    let store = world.store();
    let options = Put {
        sha256: Some("0".repeat(64)),
        ..Put::default()
    };

    let answer = store.put("a", body("x"), &options).await;

    assert!(matches!(answer, Err(Error::Refused(_))), "{answer:?}");
    assert_eq!(store.head("a").await.unwrap(), None);
}

pub async fn what_is_put_is_described(world: &dyn Harness) {
    let store = world.store();
    let options = Put {
        metadata: BTreeMap::from([("isoform-kind".to_owned(), "bundle".to_owned())]),
        ..Put::default()
    };

    let meta = store.put("a", body("hello"), &options).await.unwrap();

    assert_eq!((meta.key.as_str(), meta.size), ("a", 5));
    assert_eq!(meta.metadata["isoform-kind"], "bundle");
    assert_eq!(
        meta.encryption,
        Some(Encryption::Store),
        "encrypted at rest, and it says so"
    );
    assert_eq!(store.head("a").await.unwrap(), Some(meta));
}

pub async fn a_key_of_ours_is_asserted(world: &dyn Harness) {
    let store = world.store();
    let options = Put {
        encryption: Encryption::Key("arn:aws:kms:eu-west-1:111111111111:key/k".into()),
        ..Put::default()
    };

    let meta = store.put("a", body("x"), &options).await.unwrap();

    assert_eq!(meta.encryption, Some(options.encryption));
}

pub async fn what_is_not_there_is_said_so(world: &dyn Harness) {
    let store = world.store();

    assert_eq!(store.head("a").await.unwrap(), None);
    assert!(matches!(
        store.get("a", None).await.map(|_| ()),
        Err(Error::NotFound(_))
    ));
    store.delete("a").await.unwrap();
}

pub async fn keys_are_listed_in_order_and_in_pages(world: &dyn Harness) {
    let store = world.store();
    needs!(world.is_cheap(), "a thousand objects");
    for number in 0..1_005 {
        put(store.as_ref(), &format!("p/{number:05}"), "x")
            .await
            .unwrap();
    }
    put(store.as_ref(), "q", "x").await.unwrap();
    store.delete("p/00003").await.unwrap();

    let (mut keys, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = store.list("p/", token.as_deref()).await.unwrap();
        keys.extend(page.items.into_iter().map(|o| o.key));
        pages += 1;
        token = page.next;
        if token.is_none() {
            break;
        }
    }

    assert!(pages > 1);
    assert_eq!(keys.len(), 1_004);
    assert!(keys.is_sorted() && !keys.contains(&"p/00003".to_owned()));
}

pub async fn a_retained_object_is_not_deleted(world: &dyn Harness) {
    let store = world.store();
    let options = Put {
        retain_until: Some(world.later()),
        ..Put::default()
    };
    let meta = store.put("a", body("x"), &options).await.unwrap();

    let answer = store.delete("a").await;

    // Where versions are kept a deletion may hide the object; its version stays readable.
    if answer.is_ok() {
        let kept = meta.version.expect("only a version outlives a deletion");
        let back = read_all(store.as_ref(), "a", Some(&kept), 100).await;
        assert_eq!(back.unwrap(), b"x");
    } else {
        assert!(matches!(answer, Err(Error::Denied(_))), "{answer:?}");
    }
}

pub async fn a_body_is_read_up_to_a_limit(world: &dyn Harness) {
    let store = world.store();
    put(store.as_ref(), "a", "12345").await.unwrap();

    assert!(read_all(store.as_ref(), "a", None, 5).await.is_ok());
    let answer = read_all(store.as_ref(), "a", None, 4).await;

    assert!(matches!(answer, Err(Error::Untrusted(_))));
}

pub async fn bytes_come_back_as_they_went(world: &dyn Harness) {
    let store = world.store();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();

    store
        .put("big", body(bytes.clone()), &Put::default())
        .await
        .unwrap();
    put(store.as_ref(), "empty", "").await.unwrap();

    let back = read_all(store.as_ref(), "big", None, 1 << 20)
        .await
        .unwrap();
    assert_eq!(back, bytes);
    assert_eq!(
        read_all(store.as_ref(), "empty", None, 1).await.unwrap(),
        b""
    );
}

pub async fn cloudformation_reads_a_template_by_its_url(world: &dyn Harness) {
    let url = world
        .put("Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n")
        .await;

    assert!(world.engine().summary(&url).await.is_ok());
    let wrong = url.replace("templates/", "templates/not-there-");
    assert!(world.engine().summary(&wrong).await.is_err());
}
