//! Gitea and Forgejo, and what is only theirs.

use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::forge::{ForgeKind, Permission, Verdict};
use isoform::port::{Error, Forge};
use serde_json::json;

use super::fakes::gitea::{self, NAME, OWN, OWNER, TOKEN};
use super::fakes::{BEGINNING, Fake, Fault, Reply};
use super::plain::Plain;
use super::{ForgeWorld, MARKER, text};

pub struct World(Plain);

pub async fn world() -> World {
    let clock = Clock::standing(BEGINNING);
    let fake = gitea::serve(clock.clone()).await;
    let repository = format!("{OWNER}/{NAME}");
    World(Plain::new(
        ForgeKind::Gitea,
        fake,
        clock,
        &repository,
        TOKEN,
    ))
}

impl ForgeWorld for World {
    fn fake(&self) -> &Fake {
        &self.0.fake
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn opened(&self, patience: Duration) -> Arc<dyn Forge> {
        self.0.opened(patience)
    }

    fn me(&self) -> u64 {
        OWN
    }

    fn roles(&self) -> Vec<(&'static str, Permission)> {
        vec![
            ("none", Permission::None),
            ("read", Permission::Read),
            ("write", Permission::Write),
            ("admin", Permission::Admin),
            ("owner", Permission::Admin),
            ("a word of tomorrow", Permission::None),
        ]
    }

    fn limits(&self) -> Vec<(&'static str, Reply, Duration)> {
        // It has none: whoever stands before it may.
        let page = Reply {
            status: 429,
            headers: vec![("content-type".into(), "text/html".into())],
            body: b"<html>Too Many Requests</html>".to_vec(),
        };
        vec![
            ("a proxy's limit", page.clone(), Duration::from_secs(60)),
            (
                "a proxy's limit that says how long",
                page.with("retry-after", 20),
                Duration::from_secs(20),
            ),
        ]
    }

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.to_owned()]
    }

    fn neutral(&self) -> Verdict {
        Verdict::Neutral
    }

    fn annotates(&self) -> bool {
        false
    }

    fn redelivers(&self) -> bool {
        false
    }

    fn routes(&self) -> (&'static str, &'static str) {
        ("/pulls", "/comments")
    }

    fn tells_bots(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn what_the_server_itself_writes_is_nobodys() {
    let world = world().await;
    let number = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        state.open(ana, "raise the count").number
    };
    let actions = json!([{
        "id": 500, "user": { "id": -2, "login": "gitea-actions" }, "body": "isoform approve",
        "created_at": "2026-11-18T11:06:40Z", "updated_at": "2026-11-18T11:06:40Z", "pull_request_url": "x/1", "issue_url": "",
    }]);
    let reply = Fault::Instead(Reply::json(200, &actions));
    world.fake().state().fault("/comments", 1, reply);
    let forge = world.open();

    let all = forge.comments(number, 0).await.unwrap();

    assert!(all[0].author.bot);
    let may = forge.permission(&all[0].author).await.unwrap();
    assert_eq!(may, Permission::None);
}

#[tokio::test]
async fn an_entry_that_is_no_comment_is_not_taken_for_one() {
    let world = world().await;
    let number = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        state.open(ana, "raise the count").number
    };
    let nothing = Reply {
        status: 204,
        headers: Vec::new(),
        body: Vec::new(),
    };
    world
        .fake()
        .state()
        .fault("/issues/comments/", 1, Fault::Instead(nothing));

    let id = world
        .open()
        .write_comment(number, MARKER, Some(4), &text("one"))
        .await
        .unwrap();

    assert_eq!(world.fake().state().said(number)[0].id, id);
}

#[tokio::test]
async fn whoever_may_not_ask_for_permissions_is_told() {
    let world = world().await;
    let ana = world.fake().state().account("ana", false);
    let person = isoform::domain::forge::Person {
        id: ana.to_string(),
        login: "ana".into(),
        bot: false,
    };
    let message = "Only admins can query all permissions, repo admins can query all repo permissions, collaborators can query only their own";
    let reply = Fault::Instead(Reply::json(403, &json!({ "message": message })));
    world.fake().state().fault("/permission", 1, reply);

    let denied = world.open().permission(&person).await;

    assert!(
        matches!(&denied, Err(Error::Denied(why)) if why.contains("repo admins")),
        "{denied:?}"
    );
}

#[tokio::test]
async fn a_fork_that_took_its_commits_along_hides_no_other_pull_request() {
    let world = world().await;
    {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        state.open(ana, "fine");
        state.open(ana, "gone").head = String::new();
    }

    let all = world.open().open_pulls("main").await.unwrap();

    assert_eq!(all.len(), 1);
    assert_eq!(all[0].title, "fine");
}
