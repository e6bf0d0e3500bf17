//! Versions of what templates refer to.

use std::collections::{BTreeMap, BTreeSet};

use isoform::domain::cfn::Reference;

use crate::harness::*;

async fn told(world: &dyn Harness, of: &[&Reference]) -> BTreeMap<Reference, String> {
    let of: BTreeSet<Reference> = of.iter().map(|r| (*r).clone()).collect();
    let told = world.versions().versions(&of).await.unwrap();
    told.into_iter().map(|(r, v)| (r, v.unwrap())).collect()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

pub async fn another_value_is_another_version(world: &dyn Harness) {
    for text in [
        "ssm:/orders/url",
        "ssm-secure:/orders/key",
        "secretsmanager:orders/db",
    ] {
        let asked = reference(text);
        world.rotate(&asked).await;
        let first = told(world, &[&asked]).await;
        assert_eq!(told(world, &[&asked]).await, first, "{text}");

        world.rotate(&asked).await;

        let second = told(world, &[&asked]).await;
        assert!(!second[&asked].is_empty(), "{text}");
        assert_ne!(second, first, "{text}");
    }
}

pub async fn what_is_not_there_has_no_version(world: &dyn Harness) {
    let there = reference("ssm:/there");
    world.rotate(&there).await;
    let (parameter, secret) = (
        reference("ssm:/nowhere"),
        reference("secretsmanager:nobody"),
    );

    let found = told(world, &[&parameter, &there, &secret]).await;

    assert_eq!(found.keys().collect::<Vec<_>>(), [&there]);
}

/// GetParameters takes ten at once.
pub async fn many_are_told_together(world: &dyn Harness) {
    let all: Vec<Reference> = (0..23)
        .map(|n| reference(&format!("ssm:/many/{n}")))
        .collect();
    for one in &all {
        world.rotate(one).await;
    }

    let found = told(world, &all.iter().collect::<Vec<_>>()).await;

    assert_eq!(found.len(), all.len());
}
