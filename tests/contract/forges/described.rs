//! GitHub's own description as a judge: of what is asked, and of what is understood.

use isoform::domain::forge::{Check, Permission, Verdict};
use isoform::forge::Auth;
use isoform::port::Error;
use serde_json::{Value, json};

use super::fakes::github::{self, OWN_USER, TOKEN};
use super::fakes::{BEGINNING, Fault, Reply, openapi};
use super::github::{World, app, pull, secret, token};
use super::{ForgeWorld, MARKER, text};

/// Everything that the adapter can ask for, once, judged by GitHub's own description. The other cases are judged by it too,
/// wherever the package is installed.
#[tokio::test]
async fn every_request_is_in_githubs_own_description() {
    let Some(judge) = openapi::github() else {
        println!(
            "SKIP every_request_is_in_githubs_own_description: @octokit/openapi is not installed"
        );
        return;
    };
    for world in [app().await, token().await] {
        let number = pull(&world);
        let forge = world.open();
        let ana = forge.pull(number).await.unwrap().author;
        forge.open_pulls("main").await.unwrap();
        let id = forge
            .write_comment(number, MARKER, None, &text("one"))
            .await
            .unwrap();
        forge
            .write_comment(number, MARKER, Some(id), &text("two"))
            .await
            .unwrap();
        forge.comments(number, 0).await.unwrap();
        forge.permission(&ana).await.unwrap();
        forge
            .pulls_of(&"feed".repeat(10).parse().unwrap())
            .await
            .unwrap();
        let failed = super::fakes::Delivery {
            id: 1,
            guid: "a".into(),
            at: BEGINNING,
            status: 500,
            repository: Some(github::REPOSITORY),
        };
        world.fake.state().deliveries.push(failed);
        let redelivered = forge.redeliver(BEGINNING).await;
        assert_eq!(redelivered.is_ok(), world.app);
        for verdict in [
            Verdict::Pending,
            Verdict::Failure,
            Verdict::Neutral,
            Verdict::Success,
        ] {
            let check = Check {
                head: "feed".repeat(10).parse().unwrap(),
                name: "isoform/platform".into(),
                verdict,
                title: "3 stacks".into(),
                summary: "all of it".into(),
                annotations: Vec::new(),
            };
            forge.report(&check).await.unwrap();
        }
    }

    let seen: Vec<String> = judge.seen().into_iter().collect();
    for operation in [
        "GET /app",
        "GET /app/hook/deliveries",
        "GET /repos/{owner}/{repo}",
        "GET /repos/{owner}/{repo}/collaborators/{username}/permission",
        "GET /repos/{owner}/{repo}/commits/{commit_sha}/pulls",
        "GET /repos/{owner}/{repo}/commits/{ref}/check-runs",
        "GET /repos/{owner}/{repo}/installation",
        "GET /repos/{owner}/{repo}/issues/comments/{comment_id}",
        "GET /repos/{owner}/{repo}/issues/{issue_number}/comments",
        "GET /repos/{owner}/{repo}/pulls",
        "GET /repos/{owner}/{repo}/pulls/{pull_number}",
        "GET /user",
        "PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}",
        "PATCH /repos/{owner}/{repo}/issues/comments/{comment_id}",
        "POST /app/hook/deliveries/{delivery_id}/attempts",
        "POST /app/installations/{installation_id}/access_tokens",
        "POST /repos/{owner}/{repo}/check-runs",
        "POST /repos/{owner}/{repo}/issues/{issue_number}/comments",
        "POST /repos/{owner}/{repo}/statuses/{sha}",
    ] {
        assert!(
            seen.iter().any(|s| s == operation),
            "{operation} was never asked"
        );
    }
    // A judge that takes everything judges nothing.
    let asked = |method: &str, path: &str, query: &[(&str, &str)], body: Option<Value>| {
        super::fakes::Asked {
            method: method.into(),
            path: path.split('/').map(str::to_owned).collect(),
            raw: String::new(),
            query: query
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            headers: std::collections::BTreeMap::new(),
            body,
        }
    };
    for wrong in [
        asked("GET", "repos/a/b/nothing", &[], None),
        asked("DELETE", "repos/a/b/pulls", &[], None),
        asked("GET", "repos/a/b/pulls", &[("sorted", "updated")], None),
        asked("GET", "repos/a/b/pulls", &[("sort", "size")], None),
        asked("GET", "repos/a/b/pulls", &[], Some(json!({}))),
        asked("POST", "repos/a/b/check-runs", &[], None),
        asked(
            "POST",
            "repos/a/b/check-runs",
            &[],
            Some(json!({ "name": "x" })),
        ),
        asked(
            "POST",
            "repos/a/b/statuses/abc",
            &[],
            Some(json!({ "state": "neutral" })),
        ),
        asked(
            "POST",
            "repos/a/b/statuses/abc",
            &[],
            Some(json!({ "state": "success", "titel": "x" })),
        ),
    ] {
        assert!(judge.judge(&wrong).is_err(), "{wrong:?}");
    }
}

/// What GitHub's description gives as examples of answers, read by the adapter.
#[tokio::test]
async fn what_github_gives_as_examples_is_understood() {
    let Some(judge) = openapi::github() else {
        println!(
            "SKIP what_github_gives_as_examples_is_understood: @octokit/openapi is not installed"
        );
        return;
    };
    let commit = |text: &str| text.parse::<isoform::domain::model::Revision>().unwrap();
    let octocat = isoform::domain::forge::Person {
        id: "1".into(),
        login: "octocat".into(),
        bot: false,
    };
    let mut world = app().await;
    let answer = |world: &World, holds: &str, method: &str, template: &str| {
        let reply = judge.example(method, &template.replace('~', "/repos/{owner}/{repo}"));
        world.fake.state().fault(holds, 1, Fault::Instead(reply));
    };

    // The App: who it is, where it is installed, and its token.
    answer(&world, "GET /app", "get", "/app");
    answer(&world, "GET /installation", "get", "~/installation");
    answer(
        &world,
        "POST /access_tokens",
        "post",
        "/app/installations/{installation_id}/access_tokens",
    );
    answer(
        &world,
        "GET /check-runs",
        "get",
        "~/commits/{ref}/check-runs",
    );
    answer(&world, "POST /check-runs", "post", "~/check-runs");
    let check = Check {
        head: commit("ce587453ced02b1526dfb4cb910479d431683101"),
        name: "mighty_readme".into(),
        verdict: Verdict::Success,
        title: "fine".into(),
        summary: String::new(),
        annotations: Vec::new(),
    };
    let forge = world.open();
    forge.report(&check).await.unwrap();
    let asked = world.fake.asked();
    let bearer: Vec<&str> = asked.iter().map(|a| a.header("authorization")).collect();
    assert!(bearer.contains(&"Bearer ghs_16C7e42F292c6912E7710c838347Ae178B4a"));
    let token = "/app/installations/{installation_id}/access_tokens";
    answer(&world, "GET /installation", "get", "~/installation");
    answer(&world, "POST /access_tokens", "post", token);
    answer(&world, "GET /repos/acme/platform", "get", "~");
    let all = judge.example("get", "/app/hook/deliveries");
    world
        .fake
        .state()
        .fault("GET /deliveries", 1, Fault::Instead(all));
    let since = isoform::domain::model::Timestamp(0);
    let sent = world.open().redeliver(since).await;
    assert_eq!(sent, Ok(0), "the examples are of no repository");
    world.fake.state().forgive();

    // Everything else, with a token: nothing is asked before.
    world.settings.auth = Auth::Token(secret(&world.folder, "token", TOKEN));
    let forge = world.open();
    answer(&world, "GET /pulls/1347", "get", "~/pulls/{pull_number}");
    let pull = forge.pull(1347).await.unwrap();
    assert_eq!(
        (pull.number, pull.title.as_str()),
        (1347, "Amazing new feature")
    );
    assert_eq!(pull.author, octocat);
    assert_eq!(
        pull.head,
        commit("6dcb09b5b57875f334f61aebed695e2e4193db5e")
    );
    assert_eq!(
        (pull.branch.as_str(), pull.base.as_str()),
        ("new-topic", "master")
    );
    assert_eq!((pull.fork, pull.labels), (false, vec!["bug".to_owned()]));

    answer(&world, "GET /pulls", "get", "~/pulls");
    assert_eq!(forge.open_pulls("master").await.unwrap()[0].number, 1347);
    answer(
        &world,
        "GET /comments",
        "get",
        "~/issues/{issue_number}/comments",
    );
    let comments = forge.comments(1347, 0).await.unwrap();
    assert_eq!((comments[0].id, comments[0].body.as_str()), (1, "Me too"));
    assert_eq!((&comments[0].author, comments[0].edited), (&octocat, false));
    answer(
        &world,
        "GET /permission",
        "get",
        "~/collaborators/{username}/permission",
    );
    assert_eq!(forge.permission(&octocat).await, Ok(Permission::Admin));
    answer(
        &world,
        "GET /commits/",
        "get",
        "~/commits/{commit_sha}/pulls",
    );
    let of = forge.pulls_of(&commit(&"feed".repeat(10))).await.unwrap();
    assert_eq!(of, [1347]);
    answer(&world, "GET /user", "get", "/user");
    answer(
        &world,
        "GET /issues/comments/1",
        "get",
        "~/issues/comments/{comment_id}",
    );
    let id = forge.write_comment(1347, "Me too", Some(1), "Me too").await;
    assert_eq!(id, Ok(1));
    answer(
        &world,
        "GET /issues/1347/comments",
        "get",
        "~/issues/{issue_number}/comments",
    );
    answer(
        &world,
        "POST /issues/1347/comments",
        "post",
        "~/issues/{issue_number}/comments",
    );
    let id = forge.write_comment(1347, MARKER, None, &text("one")).await;
    assert_eq!(id, Ok(1));
    answer(&world, "POST /statuses/", "post", "~/statuses/{sha}");
    forge.report(&check).await.unwrap();
}

/// A node of a JSON tree, counted through it.
fn bend(value: &mut Value, at: &mut u64, into: &Value) {
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

fn nodes(value: &Value) -> u64 {
    1 + match value {
        Value::Array(all) => all.iter().map(nodes).sum(),
        Value::Object(all) => all.values().map(nodes).sum(),
        _ => 0,
    }
}

/// Whatever stands in an answer, it is read or refused; a field that nobody reads changes nothing.
#[tokio::test]
async fn sec_an_answer_of_any_shape_is_read_or_refused() {
    let world = token().await;
    let number = pull(&world);
    let forge = world.open();
    let head = "feed".repeat(10);
    let person = forge.pull(number).await.unwrap().author;
    world.fake.state().say(number, Some(OWN_USER), &text("one"));
    let mut merged = world.fake.state().pulls[&number].clone();
    (merged.open, merged.merged) = (false, Some(head.clone()));
    world.fake.state().pulls.insert(number, merged);
    let odd = [
        json!(null),
        json!(true),
        json!(""),
        json!("x\u{0}\r\ny"),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!("9999-99-99T99:99:99Z"),
        json!("-009999-01-01T00:00:00Z"),
        json!([]),
        json!([[[[[[[[]]]]]]]]),
        json!({}),
    ];
    let mut refused = 0;
    for call in 0..6 {
        let ask = async || match call {
            0 => forge.pull(number).await.err(),
            1 => forge.comments(number, 0).await.err(),
            2 => forge.permission(&person).await.err(),
            3 => forge.pulls_of(&head.parse().unwrap()).await.err(),
            4 => world
                .open()
                .write_comment(number, MARKER, None, &text("one"))
                .await
                .err(),
            _ => forge.open_pulls("main").await.err(),
        };
        let (holds, answer) = match call {
            0 => ("/pulls/1", github::pull_of(&world.fake.state(), number)),
            1 => (
                "/comments",
                json!([world.github.comment_of(&world.fake.state(), number)]),
            ),
            2 => (
                "/permission",
                json!({ "permission": "read", "role_name": "read", "user": { "id": 1, "login": "a", "type": "User" } }),
            ),
            4 => (
                "/user",
                json!({ "id": OWN_USER, "login": "deployer", "type": "User" }),
            ),
            _ => (
                "/pulls",
                json!([github::pull_of(&world.fake.state(), number)]),
            ),
        };
        for node in 0..nodes(&answer) {
            for into in &odd {
                let mut bent = answer.clone();
                bend(&mut bent, &mut node.clone(), into);
                world
                    .fake
                    .state()
                    .fault(holds, 1, Fault::Instead(Reply::json(200, &bent)));
                match ask().await {
                    None => {}
                    Some(Error::Untrusted(why)) => {
                        assert!(!why.contains(['\r', '\n', '\0']), "{why}");
                        refused += 1;
                    }
                    Some(error) => panic!("{error} to {bent}"),
                }
                world.fake.state().forgive();
            }
        }
    }
    assert!(refused > 500, "{refused}");
}
