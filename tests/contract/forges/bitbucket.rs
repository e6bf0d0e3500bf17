//! Bitbucket Cloud: with an access token of the repository and with somebody's API token; and what is only Bitbucket's.

use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::forge::{Check, ForgeKind, Permission, Person, Verdict};
use isoform::port::{Error, Forge};
use serde_json::json;

use super::fakes::bitbucket::{self, ACCESS_TOKEN, API_TOKEN, NAME, OWN, OWN_TOKEN, OWNER};
use super::fakes::{BEGINNING, Fake, Fault, Reply};
use super::plain::Plain;
use super::{ForgeWorld, MARKER, text};

pub struct World {
    plain: Plain,
    account: bool,
}

async fn with(token: &str, account: bool) -> World {
    let clock = Clock::standing(BEGINNING);
    let fake = bitbucket::serve(clock.clone()).await;
    let repository = format!("{OWNER}/{NAME}");
    let plain = Plain::new(ForgeKind::Bitbucket, fake, clock, &repository, token);
    World { plain, account }
}

/// With an access token, which is no account.
pub async fn token() -> World {
    with(ACCESS_TOKEN, false).await
}

/// With an API token of an account.
pub async fn account() -> World {
    with(API_TOKEN, true).await
}

impl ForgeWorld for World {
    fn fake(&self) -> &Fake {
        &self.plain.fake
    }

    fn clock(&self) -> &Clock {
        &self.plain.clock
    }

    fn opened(&self, patience: Duration) -> Arc<dyn Forge> {
        self.plain.opened(patience)
    }

    fn me(&self) -> u64 {
        if self.account { OWN } else { OWN_TOKEN }
    }

    fn roles(&self) -> Vec<(&'static str, Permission)> {
        vec![
            ("none", Permission::None),
            ("read", Permission::Read),
            ("write", Permission::Write),
            ("admin", Permission::Admin),
            ("a word of tomorrow", Permission::None),
        ]
    }

    fn limits(&self) -> Vec<(&'static str, Reply, Duration)> {
        let body = json!({ "type": "error", "error": { "message": "Rate limit for this resource has been exceeded" } });
        vec![
            ("a limit", Reply::json(429, &body), Duration::from_secs(60)),
            (
                "a limit that says how long",
                Reply::json(429, &body).with("retry-after", 90),
                Duration::from_secs(90),
            ),
        ]
    }

    fn secrets(&self) -> Vec<String> {
        if self.account {
            vec![API_TOKEN.to_owned(), bitbucket::basic()]
        } else {
            vec![ACCESS_TOKEN.to_owned()]
        }
    }

    fn neutral(&self) -> Verdict {
        Verdict::Success
    }

    fn annotates(&self) -> bool {
        false
    }

    fn redelivers(&self) -> bool {
        false
    }

    fn routes(&self) -> (&'static str, &'static str) {
        ("/pullrequests", "/comments")
    }

    fn labels(&self) -> bool {
        false
    }

    fn person_id(&self, account: u64) -> String {
        bitbucket::uuid(account)
    }

    fn written(&self, text: &str) -> String {
        bitbucket::written(text)
    }

    fn read(&self, raw: &str) -> String {
        bitbucket::read(raw)
    }
}

fn pull(world: &World) -> (u64, u64) {
    let mut state = world.fake().state();
    let ana = state.account("ana", false);
    (state.open(ana, "raise the count").number, ana)
}

#[tokio::test]
async fn sec_a_head_is_not_taken_for_another_with_the_same_first_digits() {
    let world = token().await;
    let (number, _) = pull(&world);
    let forge = world.open();
    let head = |tail: &str| format!("{}{tail}", "a".repeat(12)) + &"0".repeat(28 - tail.len());
    world.fake().state().pulls.get_mut(&number).unwrap().head = head("1");
    let first = forge.pull(number).await.unwrap();
    assert_eq!(forge.pull(number).await.unwrap().head, first.head);

    {
        let mut state = world.fake().state();
        let pull = state.pulls.get_mut(&number).unwrap();
        pull.head = head("2");
        pull.updated = pull.updated.plus(Duration::from_secs(1));
    }
    let second = forge.pull(number).await.unwrap();

    assert_eq!(first.head.as_str(), head("1"));
    assert_eq!(second.head.as_str(), head("2"));
}

#[tokio::test]
async fn a_head_that_did_not_change_is_looked_up_once() {
    let world = token().await;
    let (number, _) = pull(&world);
    let forge = world.open();
    forge.pull(number).await.unwrap();
    world.fake().asked();

    forge.pull(number).await.unwrap();
    forge.open_pulls("main").await.unwrap();

    assert_eq!(world.fake().asked().len(), 2);
}

#[tokio::test]
async fn nobody_sees_the_marker() {
    let world = account().await;
    let (number, _) = pull(&world);
    let forge = world.open();

    forge
        .write_comment(number, MARKER, None, &text("## Preview\n\ntext"))
        .await
        .unwrap();

    let raw = world.fake().state().said(number)[0].body.clone();
    assert!(raw.starts_with("[isoform]: # ("), "{raw}");
    assert!(raw.contains(")\n\n## Preview"), "{raw}");
    let read = forge.comments(number, 0).await.unwrap();
    assert_eq!(read[0].body, text("## Preview\n\ntext"));
}

#[tokio::test]
async fn who_an_access_token_is_shows_when_it_writes() {
    let world = token().await;
    let (number, _) = pull(&world);
    let other = {
        let mut state = world.fake().state();
        let other = state.account("another token", true);
        state.say(number, Some(other), &world.written(&text("theirs")))
    };
    let forge = world.open();
    let first = forge
        .write_comment(number, MARKER, None, &text("one"))
        .await
        .unwrap();
    world.fake().asked();

    let again = forge
        .write_comment(number, MARKER, None, &text("two"))
        .await
        .unwrap();

    assert_eq!(first, again);
    assert_ne!(first, other);
    let tried: Vec<String> = world.fake().asked().into_iter().map(|a| a.raw).collect();
    let theirs = format!("/{other}");
    assert!(!tried.iter().any(|raw| raw.ends_with(&theirs)), "{tried:?}");
}

#[tokio::test]
async fn whoever_may_not_ask_for_permissions_is_told() {
    let world = token().await;
    let (_, ana) = pull(&world);
    let person = Person {
        id: world.person_id(ana),
        login: "ana".into(),
        bot: false,
    };
    let body = json!({ "type": "error", "error": { "message": "You must be an admin of the repository" } });
    let reply = Fault::Instead(Reply::json(403, &body));
    world.fake().state().fault("/permissions/", 1, reply);

    let denied = world.open().permission(&person).await;

    assert!(
        matches!(&denied, Err(Error::Denied(why)) if why.contains("admin")),
        "{denied:?}"
    );
}

#[tokio::test]
async fn sec_an_id_that_is_none_is_never_part_of_a_query() {
    let world = token().await;
    for id in ["\" OR user.uuid!=\"", "{x}", "a b", ""] {
        let person = Person {
            id: id.into(),
            login: "ana".into(),
            bot: false,
        };
        let found = world.open().permission(&person).await;
        assert_eq!(found, Ok(Permission::None), "{id}");
    }
    assert!(world.fake().asked().is_empty());
}

#[tokio::test]
async fn names_of_any_length_are_verdicts_of_their_own() {
    let world = token().await;
    let forge = world.open();
    let long = "isoform/a-source-with-a-very-long-name-indeed";
    for name in [long.to_owned(), format!("{long}-2")] {
        let check = Check {
            head: "feed".repeat(10).parse().unwrap(),
            name,
            verdict: Verdict::Success,
            title: "fine".into(),
            summary: String::new(),
            annotations: Vec::new(),
        };
        forge.report(&check).await.unwrap();
    }

    let state = world.fake().state();
    assert_ne!(state.reported[0].name, state.reported[1].name);
}

#[tokio::test]
async fn pull_requests_that_are_being_looked_for_are_asked_for_again() {
    let world = token().await;
    let looking = Fault::Instead(Reply::json(202, &json!({ "type": "error" })));
    world.fake().state().fault("/commit/", 1, looking);

    let later = world
        .open()
        .pulls_of(&"feed".repeat(10).parse().unwrap())
        .await;

    assert!(matches!(later, Err(Error::Unavailable(_))), "{later:?}");
}

#[tokio::test]
async fn sec_the_token_behind_an_address_is_not_repeated_either() {
    let world = account().await;
    let (number, _) = pull(&world);
    let body = json!({ "type": "error", "error": { "message": format!("no {API_TOKEN} {}", bitbucket::basic()) } });
    let reply = Fault::Instead(Reply::json(400, &body));
    world.fake().state().fault("/pullrequests", 1, reply);

    let error = world.open().pull(number).await.unwrap_err().to_string();

    let token = API_TOKEN.split_once(':').unwrap().1;
    assert!(!error.contains(token), "{error}");
    assert!(!error.contains(&bitbucket::basic()), "{error}");
}

#[tokio::test]
async fn a_fork_that_took_its_commits_along_hides_no_other_pull_request() {
    let world = token().await;
    let (number, ana) = pull(&world);
    let gone = world.fake().state().open(ana, "gone").number;
    let body = json!({ "type": "error", "error": { "message": "Resource not found" } });
    let reply = Fault::Instead(Reply::json(404, &body));
    let route = format!("/pullrequests/{gone}/commits");
    world.fake().state().fault(&route, 1, reply);

    let all = world.open().open_pulls("main").await.unwrap();

    assert_eq!(all.iter().map(|p| p.number).collect::<Vec<_>>(), [number]);
}
