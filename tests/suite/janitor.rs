//! Change sets that the log does not know: those of this installation go, and nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon;
use isoform::domain::model::{Actor, StackId, Timestamp};
use isoform::local::{LocalEngine, LocalObjects};
use isoform::port::{ObjectStore, OnFailure, Proposal, Put, StackEngine, StackRef, body};

use crate::states::by_hand;
use crate::support::{Bench, PLACEMENTS};
use crate::world::topic;

const SYNC: &str =
    "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: topic }\n";

/// Makes change sets of these names on the stack `topic`, as whoever has the names.
async fn make(engine: &LocalEngine, store: &LocalObjects, names: &[String]) {
    let (key, text) = ("mine", topic("mine"));
    let _ = store.put(key, body(text), &Put::default()).await;
    for name in names {
        let proposal = Proposal {
            stack: "topic".parse().unwrap(),
            name: name.clone(),
            token: name.clone(),
            create: false,
            import: BTreeMap::new(),
            template_url: store.url(key, None),
            parameters: BTreeMap::new(),
            kept: BTreeSet::new(),
            tags: BTreeMap::new(),
            capabilities: Vec::new(),
            notification_arns: Vec::new(),
            rollback_triggers: Vec::new(),
            monitoring_minutes: 0,
            on_failure: OnFailure::Rollback,
        };
        engine.propose(&proposal).await.unwrap();
    }
}

/// Names and ARNs of the change sets on the stack `topic`.
async fn listed(engine: &LocalEngine) -> BTreeMap<String, String> {
    let stack = StackRef::Name("topic".parse().unwrap());
    let id: StackId = engine.describe(&stack).await.unwrap().unwrap().stack_id;
    let (mut found, mut token) = (BTreeMap::new(), None);
    loop {
        let page = engine.change_sets(&id, token.as_deref()).await.unwrap();
        found.extend(page.items.into_iter().map(|s| (s.name, s.change_set)));
        token = page.next;
        if token.is_none() {
            return found;
        }
    }
}

fn prefix(bench: &Bench) -> String {
    let installation = bench.estate()["installation"].as_str().unwrap().to_owned();
    format!("if-{}", &installation[..8])
}

#[test]
fn what_the_log_does_not_know_goes_and_nothing_else() {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("topic.yaml", &topic("one"));
    bench.write("isoform.yaml", SYNC);
    bench.push("a topic");
    bench.start();
    bench.becomes("stack/topic", "InSync(Settled)");
    bench.stop();
    let path = bench.root.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    let waits = config.replacen("mode: auto", "mode: approve", 1);
    std::fs::write(&path, waits).unwrap();
    bench.start();
    bench.write("topic.yaml", &topic("two"));
    bench.push("another topic");
    bench.becomes("stack/topic", "Pending(Approval)");
    let ours = prefix(&bench);
    bench.stop();
    let left = [
        format!("{ours}-g1-0123456789ab-a9"),
        format!("{ours}-p-0123456789ab-77777777"),
    ];
    let others = [
        "if-00000000-g1-0123456789ab-a1".to_owned(),
        format!("{ours}-mine"),
        "release-42".to_owned(),
    ];
    let before = by_hand(&bench, async |engine, store| {
        let before = listed(&engine).await;
        make(&engine, &store, &left).await;
        make(&engine, &store, &others).await;
        // One that is being made is left for another day.
        tokio::time::sleep(Duration::from_millis(200)).await;
        before
    });
    let waiting = before.keys().filter(|n| n.contains("-g2-"));
    assert_eq!(waiting.count(), 1, "{before:?}");

    let calls = bench.calls("ListChangeSets");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = Config::load(&path).unwrap();
        let built = daemon::build_on(config, Clock::system(), None)
            .await
            .unwrap();
        let line = &built.line;
        line.look("test", &Actor::daemon("test")).await.unwrap();
        let work = async || {
            let pause = Duration::from_secs(1);
            while let Ok(Some(guard)) =
                tokio::time::timeout(pause, line.queue.next(&line.stop)).await
            {
                line.reconcile(&guard).await;
            }
        };
        // Right after a start nothing is due.
        line.look_for_leftovers(line.clock.steady());
        work().await;
        assert_eq!(bench.calls("ListChangeSets"), calls);
        let long_ago = Timestamp(line.clock.steady().0 - 2 * 86_400_000);
        line.look_for_leftovers(long_ago);
        work().await;
        assert_eq!(bench.calls("ListChangeSets"), calls + 1);
        // Once a day.
        line.look_for_leftovers(long_ago);
        work().await;
        assert_eq!(bench.calls("ListChangeSets"), calls + 1);
        line.store.close().await;
    });

    let after = by_hand(&bench, async |engine, _| listed(&engine).await);
    let mut wanted: BTreeSet<&String> = before.keys().collect();
    wanted.extend(&others);
    assert_eq!(after.keys().collect::<BTreeSet<_>>(), wanted);
    bench.start();
    let history = bench.cli(&["history", "stack/topic"], 0);
    assert!(
        history.contains("discarding 2 change sets that nothing needs any more"),
        "{history}"
    );
    // What waited is what runs.
    bench.cli(&["approve", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 2);
}

#[test]
fn a_stack_with_too_many_change_sets_is_cleared_or_says_whose_they_are() {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("topic.yaml", &topic("one"));
    bench.write("isoform.yaml", SYNC);
    bench.push("a topic");
    bench.start();
    bench.becomes("stack/topic", "InSync(Settled)");
    let ours = prefix(&bench);
    let some = by_hand(&bench, async |engine, store| {
        let there = listed(&engine).await.len();
        let names: Vec<String> = (there..1000).map(|n| format!("release-{n:04}")).collect();
        make(&engine, &store, &names).await;
        let all = listed(&engine).await;
        assert_eq!(all.len(), 1000);
        all.into_iter()
            .filter(|(name, _)| name.starts_with("release-"))
            .map(|(_, change_set)| change_set)
            .take(3)
            .collect::<Vec<_>>()
    });

    bench.write("topic.yaml", &topic("two"));
    bench.push("another topic");
    bench.becomes("stack/topic", "Failed(ChangeSetFailed)");
    let why = bench.run(&["why", "stack/topic"]);
    let why = crate::support::text(&why);
    assert!(
        why.contains(
            "the stack has 1000, of which 1 are isoform's and 999 are made by others (release-"
        ),
        "{why}"
    );

    // Ours in place of a few of them: then there is room to be made.
    by_hand(&bench, async |engine, store| {
        for change_set in &some {
            engine.discard(change_set).await.unwrap();
        }
        let names: Vec<String> = (0..some.len())
            .map(|n| format!("{ours}-p-0123456789ab-{n:08}"))
            .collect();
        make(&engine, &store, &names).await;
        assert_eq!(listed(&engine).await.len(), 1000);
        tokio::time::sleep(Duration::from_millis(200)).await;
    });
    bench.cli(&["retry", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
    let history = bench.cli(&["history", "stack/topic"], 0);
    assert!(history.contains("discarding 3 change sets"), "{history}");
}
