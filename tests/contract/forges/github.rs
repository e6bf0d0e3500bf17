//! GitHub: as an App, with a token, and GitHub Enterprise Server; and what is only GitHub's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::forge::{Check, ForgeKind, Permission, Verdict};
use isoform::forge::{Auth, Forges, Settings};
use isoform::port::{Error, Forge};
use serde_json::json;

use super::fakes::github::{
    self, APP, GitHub, INSTALLATION, NAME, OWN_BOT, OWN_USER, OWNER, TOKEN,
};
use super::fakes::{BEGINNING, Driver, Fake, Fault, Reply, http_date};
use super::{ForgeWorld, MARKER, text};

pub struct World {
    pub fake: Fake,
    pub github: Arc<GitHub>,
    clock: Clock,
    pub settings: Settings,
    pub app: bool,
    pub folder: tempfile::TempDir,
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

pub fn secret(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
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

pub fn pull(world: &World) -> u64 {
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
