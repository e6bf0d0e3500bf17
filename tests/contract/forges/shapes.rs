//! Answers of any shape: each is read or refused, and nothing of it reaches a line of a log.

use isoform::domain::forge::Person;
use isoform::port::Error;
use serde_json::{Value, json};

use super::fakes::{Api, Asked, Fault, Reply, bitbucket, gitea, gitlab};
use super::{ForgeWorld, MARKER, text};

/// Puts something else in the place of one node of a tree.
fn bend(value: &mut Value, at: &mut usize, into: &Value) {
    if *at == 0 {
        *value = into.clone();
    }
    *at = at.wrapping_sub(1);
    match value {
        Value::Array(all) => all.iter_mut().for_each(|v| bend(v, at, into)),
        Value::Object(all) => all.values_mut().for_each(|v| bend(v, at, into)),
        _ => {}
    }
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(all) => all.iter().map(nodes).sum(),
        Value::Object(all) => all.values().map(nodes).sum(),
        _ => 0,
    }
}

async fn ask(world: &dyn ForgeWorld, call: usize, person: &Person) -> Option<Error> {
    // Another process each time, so that nothing is remembered.
    let forge = world.open();
    let merge = "feed".repeat(10).parse().unwrap();
    match call {
        0 => forge.pull(1).await.err(),
        1 => forge.open_pulls("main").await.err(),
        2 => forge.comments(1, 0).await.err(),
        3 => forge.permission(person).await.err(),
        4 => forge.pulls_of(&merge).await.err(),
        5 => forge.pull(2).await.err(),
        _ => forge
            .write_comment(1, MARKER, Some(9), &text("one"))
            .await
            .err(),
    }
}

async fn any_shape(world: &dyn ForgeWorld, api: &dyn Api) {
    let person = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        let role = world.roles().last().unwrap().0;
        state.roles.insert(ana, role.to_owned());
        state.open(ana, "raise the count");
        let merged = state.open(ana, "merged");
        merged.open = false;
        merged.merged = Some("feed".repeat(10));
        state.say(1, Some(ana), "isoform approve");
        Person {
            id: world.person_id(ana),
            login: "ana".into(),
            bot: false,
        }
    };
    let odd = [
        json!(null),
        json!("x\u{0}\r\ny"),
        json!(-1),
        json!(u64::MAX),
        json!("-009999-01-01T00:00:00Z"),
        json!([]),
        json!({}),
    ];
    let (mut tried, mut refused) = (0, 0);
    for call in 0..7 {
        world.fake().asked();
        assert_eq!(ask(world, call, &person).await, None, "call {call}");
        let asked = world.fake().asked();
        let reads: Vec<Asked> = asked.into_iter().filter(|a| !a.writes()).collect();
        for read in reads {
            let answer = api.answer(&mut world.fake().state(), &read).body;
            let Ok(answer) = serde_json::from_slice::<Value>(&answer) else {
                continue;
            };
            // Two of them for each node, others for the next: every pair would take a minute.
            for at in 0..2 * nodes(&answer) {
                let (node, into) = (at / 2, &odd[(at / 2 + at % 2 * 3) % odd.len()]);
                let mut bent = answer.clone();
                bend(&mut bent, &mut node.clone(), into);
                let reply = Fault::Instead(Reply::json(200, &bent));
                world
                    .fake()
                    .state()
                    .fault(&format!("GET {}", read.raw), 1, reply);

                let error = ask(world, call, &person).await;

                let mut state = world.fake().state();
                state.forgive();
                // What was written on the way is not part of the next call.
                let hers = |id| world.person_id(id) == person.id;
                state.comments.retain(|_, c| c.author.is_some_and(hers));
                drop(state);
                tried += 1;
                if let Some(error) = error {
                    let told = error.to_string();
                    assert!(!told.contains(['\r', '\n', '\0']), "{told}");
                    assert!(told.len() < 700, "{told}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 50 && refused < tried, "{refused} of {tried}");
}

#[tokio::test]
async fn sec_an_answer_of_any_shape_from_gitlab_is_read_or_refused() {
    any_shape(&super::gitlab::world().await, &gitlab::GitLab).await;
}

#[tokio::test]
async fn sec_an_answer_of_any_shape_from_gitea_is_read_or_refused() {
    any_shape(&super::gitea::world().await, &gitea::Gitea).await;
}

#[tokio::test]
async fn sec_an_answer_of_any_shape_from_bitbucket_is_read_or_refused() {
    any_shape(&super::bitbucket::token().await, &bitbucket::Bitbucket).await;
}
