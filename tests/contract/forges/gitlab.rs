//! GitLab, and what is only GitLab's.

use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::domain::forge::{Check, ForgeKind, Permission, Verdict};
use isoform::port::Forge;
use serde_json::json;

use super::fakes::gitlab::{self, OWN, PROJECT, TOKEN};
use super::fakes::{BEGINNING, Fake, Reply, http_date};
use super::plain::Plain;
use super::{ForgeWorld, MARKER, text};

pub struct World(Plain);

pub async fn world() -> World {
    let clock = Clock::standing(BEGINNING);
    let fake = gitlab::serve(clock.clone()).await;
    World(Plain::new(ForgeKind::GitLab, fake, clock, PROJECT, TOKEN))
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
            ("0", Permission::None),
            ("5", Permission::None),
            ("10", Permission::Read),
            ("15", Permission::Read),
            ("20", Permission::Read),
            ("30", Permission::Write),
            ("40", Permission::Maintain),
            ("50", Permission::Admin),
            ("60", Permission::Admin),
            // The world begins on the 18th.
            ("50 until 2026-11-19", Permission::Admin),
            ("50 until 2026-11-18", Permission::None),
            ("50 until 2019-01-01", Permission::None),
            ("50 until soon", Permission::None),
            ("50 blocked", Permission::None),
            ("50 awaiting", Permission::None),
        ]
    }

    fn limits(&self) -> Vec<(&'static str, Reply, Duration)> {
        let now = self.0.clock.now();
        let no = Reply {
            status: 429,
            headers: vec![("content-type".into(), "text/plain".into())],
            body: b"Retry later\n".to_vec(),
        };
        vec![
            (
                "a limit that says when it ends",
                no.clone()
                    .with("ratelimit-remaining", 0)
                    .with("ratelimit-reset", now.0 / 1000 + 600)
                    .with("date", http_date(now)),
                Duration::from_secs(601),
            ),
            (
                "a limit that says how long",
                no.with("retry-after", 30),
                Duration::from_secs(30),
            ),
        ]
    }

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.to_owned()]
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
        ("/merge_requests", "/notes")
    }
}

#[tokio::test]
async fn sec_what_a_repository_says_is_not_run_as_a_command_of_ours() {
    let world = world().await;
    let number = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        state.open(ana, "raise the count").number
    };

    // The fake refuses what GitLab would run.
    let forge = world.open();
    let hostile = text("value:\n/merge\n  /approve\n/label ~trusted");
    let id = forge
        .write_comment(number, MARKER, None, &hostile)
        .await
        .unwrap();
    let again = forge.write_comment(number, MARKER, Some(id), &hostile);

    assert_eq!(again.await.unwrap(), id);
    let state = world.fake().state();
    assert!(state.said(number)[0].body.contains("\n\\/merge\n"));
    let edits = state.asked.iter().filter(|a| a.method == "PUT").count();
    assert_eq!(edits, 0, "the same text is not written twice");
}

#[tokio::test]
async fn what_is_shown_already_is_no_error() {
    let world = world().await;
    let check = Check {
        head: "feed".repeat(10).parse().unwrap(),
        name: "isoform/platform".into(),
        verdict: Verdict::Pending,
        title: "looking".into(),
        summary: String::new(),
        annotations: Vec::new(),
    };

    let forge = world.open();
    forge.report(&check).await.unwrap();
    let again = Check {
        title: "looking again".into(),
        ..check.clone()
    };
    forge.report(&again).await.unwrap();

    let state = world.fake().state();
    let shown = state.shown(check.head.as_str(), &check.name).unwrap();
    assert_eq!(shown.title, "looking again");
}

#[tokio::test]
async fn another_transition_that_is_refused_is_an_error() {
    let world = world().await;
    let check = Check {
        head: "feed".repeat(10).parse().unwrap(),
        name: "isoform/platform".into(),
        verdict: Verdict::Success,
        title: "fine".into(),
        summary: String::new(),
        annotations: Vec::new(),
    };
    let refused = json!({ "message": "Cannot transition status via :success from :canceled" });
    let refused = super::fakes::Fault::Instead(Reply::json(400, &refused));
    world.fake().state().fault("POST", 1, refused);

    let told = world.open().report(&check).await;

    assert!(told.is_err(), "nobody sees the verdict: {told:?}");
}

#[tokio::test]
async fn whether_an_account_is_a_bot_is_asked_once() {
    let world = world().await;
    let number = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        let robot = state.account("renovate", true);
        let token = state.account("group_12_bot_9af3", true);
        let number = state.open(ana, "raise the count").number;
        for author in [ana, robot, token, robot, ana] {
            state.say(number, Some(author), "isoform approve");
        }
        number
    };
    let forge = world.open();

    for _ in 0..2 {
        let all = forge.comments(number, 0).await.unwrap();
        let bots: Vec<bool> = all.iter().map(|c| c.author.bot).collect();
        assert_eq!(bots, [false, true, true, true, false]);
    }

    let asked = world.fake().asked();
    let lookups = asked.iter().filter(|a| a.path[0] == "users").count();
    assert_eq!(
        lookups, 2,
        "the name of a token's account says it by itself"
    );
}

#[tokio::test]
async fn a_fast_forward_came_in_by_its_own_head() {
    let world = world().await;
    let number = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        state.open(ana, "raise the count").number
    };
    let head = world.fake().state().pulls[&number].head.clone();
    let reply = json!({
        "iid": number, "title": "t", "author": null, "sha": head, "source_branch": "topic", "target_branch": "main", "state": "merged",
        "source_project_id": 77, "target_project_id": 77, "merge_commit_sha": null, "squash_commit_sha": null,
    });
    let reply = super::fakes::Fault::Instead(Reply::json(200, &reply));
    world.fake().state().fault("/merge_requests", 1, reply);

    let pull = world.open().pull(number).await.unwrap();

    let merged = isoform::domain::forge::PullState::Merged {
        commit: Some(head.parse().unwrap()),
    };
    assert_eq!(pull.state, merged);
}

#[tokio::test]
async fn a_merge_request_without_a_commit_hides_no_other() {
    let world = world().await;
    let request = |iid: u64, sha: serde_json::Value| {
        json!({
            "iid": iid, "title": "t", "author": null, "sha": sha, "source_branch": "topic", "target_branch": "main",
            "state": "opened", "source_project_id": 77, "target_project_id": 77,
        })
    };
    let listed = json!([request(1, json!(null)), request(2, json!("a".repeat(40)))]);
    let listed = super::fakes::Fault::Instead(Reply::json(200, &listed));
    world.fake().state().fault("/merge_requests", 1, listed);

    let all = world.open().open_pulls("main").await.unwrap();

    assert_eq!(all.iter().map(|p| p.number).collect::<Vec<_>>(), [2]);
}
