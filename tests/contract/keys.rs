//! Keys that never leave their service.

use isoform::domain::audit::{Countersignature, p256_point};
use isoform::domain::seal::EncryptionContext;
use isoform::port::Error;

use crate::harness::*;

fn context(digest: &str) -> EncryptionContext {
    EncryptionContext::from([
        ("isoform:kind".to_owned(), "bundle".to_owned()),
        ("isoform:digest".to_owned(), digest.to_owned()),
    ])
}

pub async fn a_wrapped_key_opens_under_its_context_only(world: &dyn Harness) {
    let keys = world.keys();

    let (key, wrapped) = keys.data_key(&context("a")).await.unwrap();

    let opened = keys
        .unwrap(std::slice::from_ref(&wrapped), &context("a"))
        .await;
    assert_eq!(opened.unwrap().expose(), key.expose());
    let other = keys
        .unwrap(std::slice::from_ref(&wrapped), &context("b"))
        .await;
    assert!(matches!(other, Err(Error::Denied(_))));
}

pub async fn every_data_key_is_new(world: &dyn Harness) {
    let keys = world.keys();

    let (one, first) = keys.data_key(&context("a")).await.unwrap();
    let (two, second) = keys.data_key(&context("a")).await.unwrap();

    assert_ne!(one.expose(), two.expose());
    assert_ne!(first.ciphertext, second.ciphertext);
}

pub async fn a_rewrapped_key_is_the_same_key(world: &dyn Harness) {
    let keys = world.keys();
    let (key, wrapped) = keys.data_key(&context("a")).await.unwrap();

    let again = keys.rewrap(&wrapped, &context("a")).await.unwrap();

    let opened = keys.unwrap(&[again], &context("a")).await.unwrap();
    assert_eq!(opened.expose(), key.expose());
    assert!(keys.rewrap(&wrapped, &context("b")).await.is_err());
}

pub async fn a_changed_wrapped_key_does_not_open(world: &dyn Harness) {
    let keys = world.keys();
    let (_, mut wrapped) = keys.data_key(&context("a")).await.unwrap();
    if let Some(last) = wrapped.ciphertext.last_mut() {
        *last ^= 1;
    }

    assert!(keys.unwrap(&[wrapped], &context("a")).await.is_err());
}

pub async fn the_key_of_another_service_is_passed_over(world: &dyn Harness) {
    let keys = world.keys();
    let (key, wrapped) = keys.data_key(&context("a")).await.unwrap();
    let mut foreign = wrapped.clone();
    foreign.provider_id = "somebody-else".into();

    let opened = keys
        .unwrap(&[foreign.clone(), wrapped], &context("a"))
        .await;

    assert_eq!(opened.unwrap().expose(), key.expose());
    assert!(keys.unwrap(&[foreign], &context("a")).await.is_err());
}

pub async fn a_key_is_described_and_signs(world: &dyn Harness) {
    let keys = world.keys();

    let (one, again) = (
        keys.sign(b"x").await.unwrap(),
        keys.sign(b"x").await.unwrap(),
    );

    assert!(!keys.describe().await.unwrap().is_empty());
    let public = keys.public_key().await.unwrap();
    let holds = |bytes: &[u8], signature: &[u8]| {
        Countersignature::new("k", &public, signature).holds(bytes)
    };
    assert!(p256_point(&public).is_some());
    assert!(holds(b"x", &one) && holds(b"x", &again));
    assert!(!holds(b"y", &one));
    assert_eq!(keys.public_key().await.unwrap(), public, "it never changes");
}
