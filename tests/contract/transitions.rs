//! The states of a stack as a graph: random walks stay on its edges, and together they reach every state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use isoform::domain::plan::StackStatus;
use isoform::port::{OnFailure, StackEngine};

use crate::harness::*;
use crate::local::{Local, fresh};

/// From a state to those that can follow it. `docs/reference-model.md` has the same table.
pub const EDGES: &[(&str, &[&str])] = &[
    (
        "REVIEW_IN_PROGRESS",
        &[
            "CREATE_IN_PROGRESS",
            "IMPORT_IN_PROGRESS",
            "DELETE_IN_PROGRESS",
        ],
    ),
    (
        "CREATE_IN_PROGRESS",
        &[
            "CREATE_COMPLETE",
            "CREATE_FAILED",
            "ROLLBACK_IN_PROGRESS",
            "DELETE_IN_PROGRESS",
        ],
    ),
    (
        "CREATE_FAILED",
        &["UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"],
    ),
    (
        "CREATE_COMPLETE",
        &[
            "UPDATE_IN_PROGRESS",
            "IMPORT_IN_PROGRESS",
            "DELETE_IN_PROGRESS",
        ],
    ),
    (
        "ROLLBACK_IN_PROGRESS",
        &["ROLLBACK_COMPLETE", "ROLLBACK_FAILED"],
    ),
    ("ROLLBACK_FAILED", &["DELETE_IN_PROGRESS"]),
    ("ROLLBACK_COMPLETE", &["DELETE_IN_PROGRESS"]),
    // An export in use lets it fall back to where it was.
    (
        "DELETE_IN_PROGRESS",
        &[
            "DELETE_COMPLETE",
            "DELETE_FAILED",
            "CREATE_COMPLETE",
            "UPDATE_COMPLETE",
            "UPDATE_ROLLBACK_COMPLETE",
            "IMPORT_COMPLETE",
            "IMPORT_ROLLBACK_COMPLETE",
        ],
    ),
    ("DELETE_FAILED", &["DELETE_IN_PROGRESS"]),
    (
        "UPDATE_IN_PROGRESS",
        &[
            "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
            "UPDATE_FAILED",
            "UPDATE_ROLLBACK_IN_PROGRESS",
        ],
    ),
    ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", &["UPDATE_COMPLETE"]),
    (
        "UPDATE_COMPLETE",
        &[
            "UPDATE_IN_PROGRESS",
            "IMPORT_IN_PROGRESS",
            "DELETE_IN_PROGRESS",
        ],
    ),
    (
        "UPDATE_FAILED",
        &[
            "UPDATE_IN_PROGRESS",
            "UPDATE_ROLLBACK_IN_PROGRESS",
            "DELETE_IN_PROGRESS",
        ],
    ),
    (
        "UPDATE_ROLLBACK_IN_PROGRESS",
        &[
            "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
            "UPDATE_ROLLBACK_FAILED",
        ],
    ),
    (
        "UPDATE_ROLLBACK_FAILED",
        &["UPDATE_ROLLBACK_IN_PROGRESS", "DELETE_IN_PROGRESS"],
    ),
    (
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        &["UPDATE_ROLLBACK_COMPLETE"],
    ),
    (
        "UPDATE_ROLLBACK_COMPLETE",
        &[
            "UPDATE_IN_PROGRESS",
            "IMPORT_IN_PROGRESS",
            "DELETE_IN_PROGRESS",
        ],
    ),
    (
        "IMPORT_IN_PROGRESS",
        &["IMPORT_COMPLETE", "IMPORT_ROLLBACK_IN_PROGRESS"],
    ),
    (
        "IMPORT_COMPLETE",
        &[
            "UPDATE_IN_PROGRESS",
            "IMPORT_IN_PROGRESS",
            "DELETE_IN_PROGRESS",
        ],
    ),
    (
        "IMPORT_ROLLBACK_IN_PROGRESS",
        &["IMPORT_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_FAILED"],
    ),
    ("IMPORT_ROLLBACK_FAILED", &["DELETE_IN_PROGRESS"]),
    (
        "IMPORT_ROLLBACK_COMPLETE",
        &[
            "UPDATE_IN_PROGRESS",
            "IMPORT_IN_PROGRESS",
            "DELETE_IN_PROGRESS",
        ],
    ),
    ("DELETE_COMPLETE", &[]),
];

const IMPORTED: &str = "  I: {Type: 'AWS::S3::Bucket', DeletionPolicy: Retain, Properties: {BucketName: left}}\n  J: {Type: 'AWS::S3::Bucket', DependsOn: I, DeletionPolicy: Retain, Properties: {BucketName: right}}\n";

/// A small generator: the walks must be the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64, Vigna.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn template(dice: &mut Dice, import: bool) -> String {
    let (a, b) = (dice.roll(4), dice.roll(3));
    let mut text = format!(
        "Resources:\n  A: {{Type: 'AWS::SNS::Topic', Properties: {{DisplayName: 'd{a}'}}}}\n"
    );
    if b > 0 {
        text += &format!(
            "  B: {{Type: 'AWS::SQS::Queue', DependsOn: A, Properties: {{DelaySeconds: {b}}}}}\n"
        );
    }
    if import {
        text += IMPORTED;
    }
    text
}

async fn walk(seed: u64) -> Vec<Vec<String>> {
    let world = fresh().await;
    let dice = &mut Dice(seed);
    let engine = world.engine();
    let left = format!("Resources:\n{IMPORTED}");
    let id = apply(&world, "left", &left).await.stack_id;
    delete(&world, &id, &[]).await;
    let mut walks = Vec::new();
    let mut at = None;
    for turn in 0..40 {
        for logical in ["A", "B", "I", "J"] {
            for during in [During::Make, During::Delete, During::Rollback] {
                world.fail("walk", logical, during, dice.roll(4) == 0).await;
            }
        }
        step(&world, dice, turn, &mut at).await;
        world.pass(Duration::from_millis(dice.roll(3) * 30)).await;
        if dice.roll(3) > 0
            && let Some(id) = &at
        {
            settled(&world, id).await;
        }
        if let Some(id) = &at
            && look(&world, id).await.status == StackStatus::DeleteComplete
        {
            let mut states = vec!["REVIEW_IN_PROGRESS".to_owned()];
            states.extend(crate::harness::states(&world, id).await);
            walks.push(states);
            at = None;
        }
    }
    if let Some(id) = &at {
        settled(&world, id).await;
        let mut states = vec!["REVIEW_IN_PROGRESS".to_owned()];
        states.extend(crate::harness::states(&world, id).await);
        walks.push(states);
    }
    drop(engine);
    walks
}

/// One call of many. What is refused is refused; only the states count.
async fn step(
    world: &Local,
    dice: &mut Dice,
    turn: u64,
    at: &mut Option<isoform::domain::model::StackId>,
) {
    let engine = world.local();
    let token = format!("t{turn}");
    match (dice.roll(10), &at) {
        (0, Some(id)) => drop(engine.delete(id, &token, &[]).await),
        (1, Some(id)) => drop(engine.cancel(id, &token).await),
        (2, Some(id)) => drop(engine.rollback(id, &token).await),
        (3, Some(id)) => drop(engine.continue_rollback(id, &token, &[]).await),
        (choice, _) => {
            let import = choice < 6;
            let mut proposal = proposal(world, "walk", &template(dice, import)).await;
            proposal.on_failure =
                [OnFailure::Delete, OnFailure::Rollback, OnFailure::Keep][dice.roll(3) as usize];
            if import {
                // An import changes nothing else, so it is made of what is there.
                if let Some(id) = &at {
                    let text = engine
                        .template(&isoform::port::StackRef::Id(id.clone()))
                        .await
                        .unwrap_or_default();
                    proposal.template_url = world.put(&format!("{text}{IMPORTED}")).await;
                }
                for (logical, bucket) in [("I", "left"), ("J", "right")] {
                    let name = BTreeMap::from([("BucketName".to_owned(), bucket.to_owned())]);
                    let of = ("AWS::S3::Bucket".to_owned(), name);
                    proposal.import.insert(logical.into(), of);
                }
            }
            let Ok(proposed) = engine.propose(&proposal).await else {
                return;
            };
            *at = Some(proposed.stack_id);
            read_back(world, &proposed.change_set).await;
            drop(engine.execute(&proposed.change_set, &token).await);
        }
    }
}

#[tokio::test]
async fn random_walks_stay_on_the_edges_and_reach_every_state() {
    let edges: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    assert_eq!(edges.len(), StackStatus::ALL.len());
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut walked: BTreeSet<(String, String)> = BTreeSet::new();

    for seed in 0..14 {
        for walk in walk(seed).await {
            seen.extend(walk.iter().cloned());
            for pair in walk.windows(2) {
                assert!(
                    edges[pair[0].as_str()].contains(&pair[1].as_str()),
                    "seed {seed}: {} → {} in {walk:?}",
                    pair[0],
                    pair[1]
                );
                walked.insert((pair[0].clone(), pair[1].clone()));
            }
        }
    }

    let all: BTreeSet<String> = StackStatus::ALL.iter().map(ToString::to_string).collect();
    let missing: Vec<&String> = all.difference(&seen).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
    println!(
        "{} of {} edges walked",
        walked.len(),
        EDGES.iter().map(|e| e.1.len()).sum::<usize>()
    );
}
