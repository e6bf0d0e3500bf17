//! Verdicts beside a commit, and deliveries that are sent again.

use std::collections::BTreeSet;
use std::time::Duration;

use isoform::domain::forge::{Annotation, Check, Level, Verdict};
use isoform::domain::model::Timestamp;
use isoform::port::Error;

use super::ForgeWorld;
use super::fakes::Delivery;

const HEAD: &str = "feedfeedfeedfeedfeedfeedfeedfeedfeedfeed";

fn check(verdict: Verdict, title: &str) -> Check {
    Check {
        head: HEAD.parse().unwrap(),
        name: "isoform/platform".into(),
        verdict,
        title: title.into(),
        summary: "**All** of it.".into(),
        annotations: Vec::new(),
    }
}

fn remark(line: u32) -> Annotation {
    Annotation {
        path: "services/orders.yaml".into(),
        line,
        level: [Level::Notice, Level::Warning, Level::Failure][line as usize % 3],
        title: format!("remark {line}"),
        message: "what is wrong, and what to do".into(),
    }
}

/// What people see: verdict, title and the number of remarks.
fn shown(world: &dyn ForgeWorld, name: &str) -> Option<(Verdict, String, usize)> {
    let state = world.fake().state();
    let shown = state.shown(HEAD, name)?;
    Some((shown.verdict, shown.title.clone(), shown.annotations.len()))
}

pub async fn a_verdict_takes_the_place_of_the_one_before(world: &dyn ForgeWorld) {
    let forge = world.open();

    for (verdict, seen) in [
        (Verdict::Pending, Verdict::Pending),
        (Verdict::Failure, Verdict::Failure),
        (Verdict::Success, Verdict::Success),
        (Verdict::Neutral, world.neutral()),
    ] {
        forge
            .report(&check(verdict, &format!("{verdict:?}")))
            .await
            .unwrap();

        let expected = Some((seen, format!("{verdict:?}"), 0));
        assert_eq!(shown(world, "isoform/platform"), expected);
    }
    // A process that knows nothing of the first reports goes on in the same place.
    world
        .open()
        .report(&check(Verdict::Failure, "later"))
        .await
        .unwrap();
    assert_eq!(shown(world, "isoform/platform").unwrap().1, "later");
}

pub async fn verdicts_of_other_names_and_commits_stay(world: &dyn ForgeWorld) {
    let forge = world.open();
    let mut other = check(Verdict::Failure, "other name");
    other.name = "isoform/other".into();
    let mut older = check(Verdict::Failure, "other commit");
    older.head = "b".repeat(40).parse().unwrap();

    for check in [&other, &older, &check(Verdict::Success, "this")] {
        forge.report(check).await.unwrap();
    }

    assert_eq!(
        shown(world, "isoform/platform").unwrap().0,
        Verdict::Success
    );
    assert_eq!(shown(world, "isoform/other").unwrap().0, Verdict::Failure);
    let state = world.fake().state();
    let kept = state.shown(&"b".repeat(40), "isoform/platform");
    assert_eq!(kept.unwrap().verdict, Verdict::Failure);
}

pub async fn a_work_in_progress_can_be_shown_again(world: &dyn ForgeWorld) {
    let forge = world.open();
    let mut done = check(Verdict::Failure, "wrong");
    done.annotations = vec![remark(3)];
    forge.report(&done).await.unwrap();

    forge
        .report(&check(Verdict::Pending, "looking again"))
        .await
        .unwrap();

    let expected = Some((Verdict::Pending, "looking again".to_owned(), 0));
    assert_eq!(shown(world, "isoform/platform"), expected);
}

pub async fn a_long_title_is_cut(world: &dyn ForgeWorld) {
    let title = "é".repeat(300);

    let forge = world.open();
    forge
        .report(&check(Verdict::Success, &title))
        .await
        .unwrap();

    let (_, shown, _) = shown(world, "isoform/platform").unwrap();
    assert!(
        shown.ends_with('…') && shown.chars().count() >= 140,
        "{shown}"
    );
    let mut empty = check(Verdict::Success, "");
    empty.summary = "x".repeat(100_000);
    forge.report(&empty).await.unwrap();
}

pub async fn many_remarks_are_shown_each_once(world: &dyn ForgeWorld) {
    let forge = world.open();
    let mut check = check(Verdict::Failure, "wrong");
    check.annotations = (1..=120).map(remark).collect();

    forge.report(&check).await.unwrap();
    // Told again, by a process that knows nothing of it, they are not doubled.
    world.open().report(&check).await.unwrap();

    let (verdict, _, _) = shown(world, "isoform/platform").unwrap();
    assert_eq!(verdict, Verdict::Failure);
    if !world.annotates() {
        return;
    }
    let state = world.fake().state();
    let remarks = &state.shown(HEAD, "isoform/platform").unwrap().annotations;
    let lines: BTreeSet<u64> = remarks
        .iter()
        .map(|r| r["start_line"].as_u64().unwrap())
        .collect();
    assert_eq!(remarks.len(), 120);
    assert_eq!(lines, (1..=120).collect());
}

pub async fn failed_deliveries_are_sent_again_each_once(world: &dyn ForgeWorld) {
    let forge = world.open();
    let now = world.clock().now();
    let ago = |seconds: i64| Timestamp(now.0 - seconds * 1000);
    if !world.redelivers() {
        let none = forge.redeliver(ago(600)).await;
        assert!(matches!(none, Err(Error::Unsupported(_))), "{none:?}");
        return;
    }
    let own = super::fakes::github::REPOSITORY;
    {
        let mut state = world.fake().state();
        for (id, guid, age, status, repository) in [
            (1, "too-old", 700, 500, Some(own)),
            (2, "arrived", 500, 200, Some(own)),
            (3, "failed", 400, 502, Some(own)),
            (4, "repeated", 390, 500, Some(own)),
            (5, "repeated", 300, 200, Some(own)),
            (6, "again", 290, 504, Some(own)),
            (7, "again", 280, 504, Some(own)),
            (8, "elsewhere", 270, 500, Some(own + 1)),
            (9, "of-the-app", 260, 500, None),
        ] {
            let (guid, at) = (guid.to_owned(), ago(age));
            state.deliveries.push(Delivery {
                id,
                guid,
                at,
                status,
                repository,
            });
        }
        // More than a page that arrived.
        for id in 100..260 {
            let (guid, at) = (format!("fine-{id}"), ago(5));
            state.deliveries.push(Delivery {
                id,
                guid,
                at,
                status: 200,
                repository: Some(own),
            });
        }
    }

    let sent = forge.redeliver(ago(600)).await.unwrap();

    assert_eq!(sent, 2);
    let asked = world.fake().asked();
    let attempts: Vec<&str> = asked
        .iter()
        .filter(|a| a.path.last().is_some_and(|p| p == "attempts"))
        .map(|a| a.path[3].as_str())
        .collect();
    assert_eq!(attempts, ["3", "7"]);
    world.clock().advance(Duration::from_secs(1));
}
