//! GitHub: as an App, with a token, and GitHub Enterprise Server; and what is only GitHub's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::forge::{Check, ForgeKind, Permission, Verdict};
use isoform::forge::{Auth, Forges, Settings};
use isoform::port::{Error, Forge};
use serde_json::{Value, json};

use super::fakes::github::{
    self, APP, GitHub, INSTALLATION, NAME, OWN_BOT, OWN_USER, OWNER, TOKEN,
};
use super::fakes::{BEGINNING, Driver, Fake, Fault, Reply, http_date, openapi};
use super::{ForgeWorld, MARKER, text};

pub struct World {
    fake: Fake,
    github: Arc<GitHub>,
    clock: Clock,
    settings: Settings,
    app: bool,
    folder: tempfile::TempDir,
    _driver: Driver,
}

async fn world(base: &str, app: bool) -> World {
    let clock = Clock::standing(BEGINNING);
    let (fake, github) = github::serve(clock.clone(), base).await;
    let folder = tempfile::tempdir().unwrap();
    let auth = if app {
        Auth::App {
            id: APP.to_string(),
            key: secret(&folder, "app.pem", &github::pem(true)),
            installation: None,
        }
    } else {
        Auth::Token(secret(&folder, "token", &format!("{TOKEN}\n")))
    };
    let settings = Settings {
        kind: ForgeKind::GitHub,
        api: fake.api.clone(),
        repository: format!("{OWNER}/{NAME}"),
        auth,
        ca: None,
    };
    World {
        fake,
        github,
        _driver: Driver::of(clock.clone()),
        clock,
        settings,
        app,
        folder,
    }
}

fn secret(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    isoform::secret_file::write(&path, text.as_bytes()).unwrap();
    path
}

/// An App on github.com.
pub async fn app() -> World {
    world("", true).await
}

/// A personal token on github.com.
pub async fn token() -> World {
    world("", false).await
}

/// An App on a server of one's own.
pub async fn server() -> World {
    world("/api/v3", true).await
}

impl ForgeWorld for World {
    fn fake(&self) -> &Fake {
        &self.fake
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn opened(&self, patience: Duration) -> Arc<dyn Forge> {
        let forges = Forges::new(self.clock.clone()).patient(patience);
        forges.open(&self.settings).unwrap()
    }

    fn me(&self) -> u64 {
        if self.app { OWN_BOT } else { OWN_USER }
    }

    fn roles(&self) -> Vec<(&'static str, Permission)> {
        vec![
            ("none", Permission::None),
            ("read", Permission::Read),
            ("triage", Permission::Read),
            ("write", Permission::Write),
            ("maintain", Permission::Maintain),
            ("admin", Permission::Admin),
            ("security-champion:read", Permission::Read),
            ("deployer:write", Permission::Write),
            ("owner-of-all:admin", Permission::Admin),
            ("misleading-admin:none", Permission::None),
        ]
    }

    fn limits(&self) -> Vec<(&'static str, Reply, Duration)> {
        let no = |status, message: &str| Reply::json(status, &json!({ "message": message }));
        let secondary = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
        // Each waits out the one before: what the header says is counted from now on.
        let reset = |wait: i64| (self.clock.now().0 / 1000 + wait).to_string();
        vec![
            (
                "the primary limit",
                no(403, "API rate limit exceeded for installation ID 991.")
                    .with("x-ratelimit-remaining", 0)
                    .with("x-ratelimit-reset", reset(1200))
                    .with("date", http_date(self.clock.now())),
                Duration::from_secs(1201),
            ),
            (
                "a secondary limit",
                no(403, secondary),
                Duration::from_secs(60),
            ),
            (
                "a secondary limit, as 429",
                no(429, secondary),
                Duration::from_secs(60),
            ),
            (
                "a secondary limit that says how long",
                no(403, secondary).with("retry-after", 30),
                Duration::from_secs(30),
            ),
        ]
    }

    fn secrets(&self) -> Vec<String> {
        let mut all = vec![github::pem(true), TOKEN.to_owned()];
        all.extend(self.github.tokens());
        all
    }

    fn neutral(&self) -> Verdict {
        if self.app {
            Verdict::Neutral
        } else {
            Verdict::Success
        }
    }

    fn annotates(&self) -> bool {
        self.app
    }

    fn redelivers(&self) -> bool {
        self.app
    }

    fn routes(&self) -> (&'static str, &'static str) {
        ("/pulls", "/comments")
    }
}

fn pull(world: &World) -> u64 {
    let mut state = world.fake.state();
    let ana = state.account("ana", false);
    state.open(ana, "raise the count").number
}

#[tokio::test]
async fn a_token_of_an_installation_is_used_until_five_minutes_before_its_end() {
    let world = app().await;
    let number = pull(&world);
    let forge = world.open();

    forge.pull(number).await.unwrap();
    world.clock.advance(Duration::from_secs(54 * 60));
    forge.pull(number).await.unwrap();
    assert_eq!(world.github.granted(), 1);
    world.clock.advance(Duration::from_secs(60));
    forge.pull(number).await.unwrap();

    assert_eq!(world.github.granted(), 2);
}

#[tokio::test]
async fn a_token_lives_by_the_forges_clock_and_not_by_ours() {
    let world = app().await;
    // Half a minute is what the key's own token allows for.
    world.fake.state().ahead = 30_000;
    let number = pull(&world);
    let forge = world.open();

    forge.pull(number).await.unwrap();
    world.clock.advance(Duration::from_secs(55 * 60 - 1));
    forge.pull(number).await.unwrap();

    assert_eq!(world.github.granted(), 1);
}

#[tokio::test]
async fn a_token_that_was_revoked_is_asked_for_anew_once() {
    let world = app().await;
    let number = pull(&world);
    let forge = world.open();
    forge.pull(number).await.unwrap();

    world.github.revoke();
    forge.pull(number).await.unwrap();
    assert_eq!(world.github.granted(), 2);

    let bad = Reply::json(401, &json!({ "message": "Bad credentials" }));
    world.fake.state().fault("/pulls", 2, Fault::Instead(bad));
    let denied = forge.pull(number).await;
    assert!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");
    assert_eq!(world.github.granted(), 3);
}

#[tokio::test]
async fn an_app_that_was_installed_anew_is_found_again() {
    let world = app().await;
    let number = pull(&world);
    let forge = world.open();
    forge.pull(number).await.unwrap();

    world.github.reinstall();

    forge.pull(number).await.unwrap();
}

#[tokio::test]
async fn many_calls_at_once_ask_for_one_token() {
    let world = app().await;
    let number = pull(&world);
    let forge = world.open();

    let calls: Vec<_> = (0..8)
        .map(|_| {
            let forge = forge.clone();
            tokio::spawn(async move { forge.pull(number).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }

    assert_eq!(world.github.granted(), 1);
}

#[tokio::test]
async fn an_app_that_is_not_installed_says_so() {
    let mut world = app().await;
    world.settings.repository = format!("{OWNER}/other");

    let denied = world.open().pull(1).await;

    assert!(
        matches!(&denied, Err(Error::Denied(why)) if why.contains("not installed on acme/other")),
        "{denied:?}"
    );
}

#[tokio::test]
async fn keys_are_taken_as_github_and_as_other_tools_write_them_and_no_others() {
    let mut world = app().await;
    let number = pull(&world);
    let public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    for (text, good) in [
        (github::pem(true), true),
        (github::pem(false), true),
        (
            github::pem(true).replace("RSA PRIVATE", "EC PRIVATE"),
            false,
        ),
        (github::pem(true)[..600].to_owned(), false),
        (public.to_owned(), false),
        (String::new(), false),
        ("hunter2".to_owned(), false),
    ] {
        world.settings.auth = Auth::App {
            id: "Iv1.abc".into(),
            key: secret(&world.folder, "other.pem", &text),
            installation: Some(INSTALLATION),
        };

        let found = world.open().pull(number).await;

        match found {
            Ok(_) => assert!(good, "{text}"),
            Err(error) => {
                assert!(!good && matches!(error, Error::Denied(_)), "{error}");
                assert!(!error.to_string().contains("hunter2"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_new_secret_in_the_file_is_used_without_a_restart() {
    let world = token().await;
    let number = pull(&world);
    secret(&world.folder, "token", "ghp_old\n");
    let forge = world.open();
    let denied = forge.pull(number).await;
    assert!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");

    secret(&world.folder, "token", TOKEN);

    forge.pull(number).await.unwrap();
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let world = app().await;
    let number = pull(&world);
    let ana = world.fake.state().account("bo", false);
    for at in 0..150 {
        world
            .fake
            .state()
            .say(number, Some(ana), &format!("remark {at}"));
    }
    let forge = world.open();
    let first = (
        forge.open_pulls("main").await,
        forge.comments(number, 0).await,
    );
    world.fake.asked();

    let second = (
        forge.open_pulls("main").await,
        forge.comments(number, 0).await,
    );

    assert_eq!(first, second);
    let asked = world.fake.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|a| !a.header("if-none-match").is_empty()));
    world.fake.state().say(number, Some(ana), "one more");
    assert_eq!(forge.comments(number, 0).await.unwrap().len(), 151);
}

#[tokio::test]
async fn a_text_that_stands_there_already_is_not_written_again() {
    let world = app().await;
    let number = pull(&world);
    let forge = world.open();
    let id = forge
        .write_comment(number, MARKER, None, &text("one"))
        .await
        .unwrap();
    world.fake.asked();

    forge
        .write_comment(number, MARKER, Some(id), &text("one"))
        .await
        .unwrap();

    assert!(world.fake.asked().iter().all(|a| !a.writes()));
}

#[tokio::test]
async fn writes_are_a_second_apart_for_everything_that_shares_a_credential() {
    let mut world = token().await;
    let number = pull(&world);
    let forges = Forges::new(world.clock.clone());
    let (one, two) = (
        forges.open(&world.settings).unwrap(),
        forges.open(&world.settings).unwrap(),
    );
    world.settings.ca = None;
    let began = world.clock.now();

    for at in 0..3 {
        one.write_comment(number, MARKER, None, &text(&at.to_string()))
            .await
            .unwrap();
        let other = "<!-- other -->";
        two.write_comment(number, other, None, &format!("{other}{at}"))
            .await
            .unwrap();
    }

    assert_eq!(world.clock.now().since(began), Duration::from_secs(5));
}

#[tokio::test]
async fn a_limit_that_one_repository_meets_holds_another_of_the_same_credential() {
    let world = app().await;
    let number = pull(&world);
    let forges = Forges::new(world.clock.clone());
    let (one, two) = (
        forges.open(&world.settings).unwrap(),
        forges.open(&world.settings).unwrap(),
    );
    let limited = Reply::json(429, &json!({ "message": "slow down" })).with("retry-after", 40);
    world
        .fake
        .state()
        .fault("/pulls", 1, Fault::Instead(limited));

    let wait = Duration::from_secs(40);
    assert_eq!(one.pull(number).await, Err(Error::Limited(wait)));
    assert_eq!(two.pull(number).await, Err(Error::Limited(wait)));
}

#[tokio::test]
async fn a_check_run_is_changed_in_its_place_where_it_can_be() {
    let world = app().await;
    let forge = world.open();
    let check = |verdict| Check {
        head: "feed".repeat(10).parse().unwrap(),
        name: "isoform/platform".into(),
        verdict,
        title: "3 stacks".into(),
        summary: String::new(),
        annotations: Vec::new(),
    };

    // What has ended stays as it ended, and is not begun again: a new run takes its place.
    for (verdict, runs) in [
        (Verdict::Pending, 1),
        (Verdict::Pending, 1),
        (Verdict::Success, 1),
        (Verdict::Failure, 2),
        (Verdict::Pending, 3),
        (Verdict::Neutral, 3),
    ] {
        forge.report(&check(verdict)).await.unwrap();
        assert_eq!(world.github.runs(), runs, "{verdict:?}");
        // The same once more says nothing new.
        world.fake.asked();
        forge.report(&check(verdict)).await.unwrap();
        assert!(
            world.fake.asked().iter().all(|a| !a.writes()),
            "{verdict:?}"
        );
    }
}

#[tokio::test]
async fn a_run_ends_with_its_last_remarks() {
    let world = app().await;
    let mut check = Check {
        head: "feed".repeat(10).parse().unwrap(),
        name: "isoform/platform".into(),
        verdict: Verdict::Failure,
        title: "wrong".into(),
        summary: String::new(),
        annotations: Vec::new(),
    };
    check.annotations = (1..=51)
        .map(|line| isoform::domain::forge::Annotation {
            path: "a.yaml".into(),
            line,
            level: isoform::domain::forge::Level::Failure,
            title: "wrong".into(),
            message: "why".into(),
        })
        .collect();
    let down = Reply::json(500, &json!({}));
    world
        .fake
        .state()
        .fault("PATCH /check-runs", 1, Fault::Instead(down));

    let half = world.open().report(&check).await;
    assert!(matches!(half, Err(Error::Unavailable(_))), "{half:?}");
    let shown = |world: &World| {
        let state = world.fake.state();
        let shown = state.shown(&"feed".repeat(10), "isoform/platform").unwrap();
        (shown.verdict, shown.annotations.len())
    };
    assert_eq!(shown(&world), (Verdict::Pending, 50));

    world.open().report(&check).await.unwrap();
    assert_eq!(shown(&world), (Verdict::Failure, 51));
}

#[tokio::test]
async fn more_remarks_than_anybody_reads_are_left_out_and_counted() {
    let world = app().await;
    let remark = |line| isoform::domain::forge::Annotation {
        path: "a.yaml".into(),
        line,
        level: isoform::domain::forge::Level::Warning,
        title: "é".repeat(300),
        message: "é".repeat(40_000),
    };
    let check = Check {
        head: "feed".repeat(10).parse().unwrap(),
        name: "isoform/platform".into(),
        verdict: Verdict::Failure,
        title: "é".repeat(300),
        summary: "é".repeat(70_000),
        annotations: (0..510).map(remark).collect(),
    };

    world.open().report(&check).await.unwrap();

    let state = world.fake.state();
    let shown = state.shown(&"feed".repeat(10), "isoform/platform").unwrap();
    assert_eq!(shown.annotations.len(), 500);
    let summaries = state
        .asked
        .iter()
        .filter_map(|a| a.body.as_ref()?["output"]["summary"].as_str());
    assert!(
        summaries
            .into_iter()
            .all(|s| s.starts_with("10 more remarks"))
    );
}

#[tokio::test]
async fn the_commit_that_github_does_not_have_is_not_found() {
    let world = app().await;

    let none = world
        .open()
        .pulls_of(&"0".repeat(40).parse().unwrap())
        .await;

    assert!(matches!(none, Err(Error::NotFound(_))), "{none:?}");
}

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

#[tokio::test]
async fn a_pull_request_that_cannot_be_read_hides_no_other() {
    let world = app().await;
    let number = pull(&world);
    let odd = pull(&world);
    world.fake.state().pulls.get_mut(&odd).unwrap().head = "none".into();
    let forge = world.open();

    let all = forge.open_pulls("main").await.unwrap();

    assert_eq!(all.iter().map(|p| p.number).collect::<Vec<_>>(), [number]);
    let told = forge.pull(odd).await;
    assert!(matches!(told, Err(Error::Untrusted(_))), "{told:?}");
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
