//! Situations that are told step by step instead of by a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use isoform::domain::audit::{Body, Entry, Stream};
use isoform::domain::deployment::{EventKind, Outcome};
use isoform::domain::model::{Digest, Reason, SnapshotId, SyncResult};
use isoform::local::{Failure, Phase};
use isoform::port::{Put, StackEngine, body, read_all};
use isoform::reconcile::ApproveWhat;
use isoform::testing::faults;

use crate::alone;
use crate::driver::{FORKED, Simulation, Step, person};

fn executions() -> usize {
    let ledger = faults::ledger();
    let taken = ledger.iter().filter(|e| e.taken && e.call == "execute");
    taken.count()
}

impl Simulation {
    async fn head(&self) -> u64 {
        *self.line().unwrap().store.watch().borrow()
    }

    fn push_service(&mut self) {
        let mut model = self.model();
        model.service = self.commits.len() as u64 + 1;
        self.commit(model, None);
    }

    /// Looks and works, so many times, with half a minute in between.
    pub async fn go_on(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.look().await;
            while self.work().await {}
            self.clock.advance(Duration::from_secs(30));
        }
    }

    /// Says whether changes of some stacks fail.
    async fn fails(&mut self, stack: &str, fails: bool) {
        let failure = Failure {
            stack: stack.into(),
            logical: "Alarm".into(),
            reason: if fails { "for the test" } else { "" }.into(),
            times: fails.then_some(1),
            phase: Phase::Make,
        };
        self.world.script(&failure).await.unwrap();
    }

    /// Returns how targets whose address begins so are, with the commit that each serves.
    async fn how(&self, begins: &str) -> Vec<(SyncResult, Option<String>)> {
        let estate = self.line().unwrap().estate().await.unwrap();
        let of_it = estate.targets.into_iter();
        let of_it = of_it.filter(|t| t.address.to_string().starts_with(begins));
        of_it.map(|t| (t.condition.result, t.serving)).collect()
    }

    fn head_commit(&self) -> Option<String> {
        Some(self.head.to_string())
    }

    /// Tells whether the daemon says of a target that another one has gone on with its log.
    async fn says_forked(&self) -> bool {
        let estate = self.line().unwrap().estate().await.unwrap();
        estate
            .targets
            .iter()
            .any(|t| t.condition.detail.contains(FORKED))
    }
}

/// A machine is put back to a snapshot while the first still works: whoever ships first goes on, and the other one
/// executes nothing any more, says so, and does not start again.
#[test]
fn of_two_daemons_on_one_log_only_one_executes() {
    for the_copy_is_first in [true, false] {
        alone(11, false, async move |s: &mut Simulation| {
            s.start().await?;
            s.go_on(4).await;
            s.twin();
            s.twin();
            s.start().await?;
            if !the_copy_is_first {
                s.switch();
            }

            s.push_service();
            s.go_on(4).await;
            let first = executions();
            s.switch();
            s.push_service();
            s.go_on(4).await;

            assert_eq!(executions(), first, "the second one executed something");
            assert!(s.says_forked().await);
            s.built = None;
            let again =
                isoform::daemon::build_on(s.config.clone(), s.clock.clone(), Some(s.ports.clone()));
            let said = s
                .carry(again)
                .await
                .unwrap()
                .err()
                .map(|e| format!("{e:#}"));
            assert!(said.unwrap().contains(FORKED));
            s.switch();
            s.go_on(4).await;
            assert!(executions() > first, "the first one does not go on");
            Ok(())
        })
        .unwrap();
    }
}

/// A copy that is older than what was shipped, and alone: it takes in what it lacks and goes on from there.
#[test]
fn a_machine_put_back_to_a_snapshot_catches_up_with_its_log() {
    alone(12, false, async |s: &mut Simulation| {
        s.start().await?;
        s.go_on(2).await;
        s.twin();
        s.go_on(6).await;
        s.push_service();
        s.go_on(4).await;
        let line = s.line().unwrap();
        line.ship().await.unwrap();
        let before = line.store.entries(1, u64::MAX).await.unwrap();
        drop(line);
        s.built = None;
        s.twin();

        s.start().await?;

        let after = s.line().unwrap().store.entries(1, u64::MAX).await.unwrap();
        assert!(s.built.as_ref().unwrap().restored > 0);
        assert_eq!(after[..before.len()], before[..]);
        s.other = None;
        s.calm().await?;
        s.settle_accounts().await
    })
    .unwrap();
}

/// No space for an hour and a half: nothing is executed that could not be written down, nothing dies, nothing spins, and
/// with space it goes on by itself.
#[test]
fn a_full_disk_is_waited_out() {
    alone(13, false, async |s: &mut Simulation| {
        s.start().await?;
        s.go_on(4).await;
        s.fill(true);
        let (head, executed) = (s.head().await, executions());
        s.push_service();
        let mut worked = 0;
        for _ in 0..180 {
            s.look().await;
            while s.work().await {
                worked += 1;
            }
            let line = s.line().ok_or("it died of a full disk")?;
            let _ = line.checkpoint(1).await;
            let _ = line.store.flush().await;
            s.clock.advance(Duration::from_secs(30));
        }
        assert_eq!((s.head().await, executions()), (head, executed));
        // Nine targets, backing off: a handful of tries each in the first minutes, and then one in ten minutes.
        assert!(worked < 400, "{worked} tries");
        s.fill(false);
        s.go_on(60).await;

        assert!(executions() > executed);
        s.calm().await?;
        s.settle_accounts().await
    })
    .unwrap();
}

/// Three pushes come for each time that the first wave settles, and it bakes for ten minutes: a later wave goes on as often as
/// the one before it has settled, to nothing else than what that has settled with, and is never starved by what is newer.
#[test]
fn pushes_faster_than_a_wave_settles_do_not_starve_the_next_wave() {
    alone(14, false, async |s: &mut Simulation| {
        s.start().await?;
        s.go_on(60).await;
        let from = s.clock.now();
        for _ in 0..100 {
            for _ in 0..3 {
                s.push_service();
                s.look().await;
            }
            while s.work().await {}
            s.clock.advance(Duration::from_secs(10));
        }
        let end = s.clock.now();
        let entries = s.line().unwrap().store.entries(1, u64::MAX).await.unwrap();
        let mut address = BTreeMap::new();
        let mut pinned = BTreeMap::new();
        let mut settled: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for entry in &entries {
            let (Stream::Target(uid), Body::Target(kind)) = (&entry.stream, &entry.body) else {
                continue;
            };
            match kind {
                EventKind::Minted { address: a, .. } => {
                    address.insert(uid, a.to_string());
                }
                EventKind::Begun(begun) => {
                    pinned.insert(uid, begun.snapshot.0);
                }
                EventKind::Settled(s) if s.outcome == Outcome::Applied && entry.at > from => {
                    let at = entry.at.since(from).as_secs();
                    let list = settled.entry(address[uid].clone()).or_default();
                    list.push((pinned[uid], at));
                }
                _ => {}
            }
        }
        let beta = &settled["svc/web/beta"];
        // What has baked well before the end must have come to production; of those that baked while both regions were
        // busy with the one before, the newest.
        let over = end.since(from).as_secs() - 700;
        let baked = beta.iter().filter(|(_, at)| *at < over);
        let expected: Vec<u64> = baked.map(|(snapshot, _)| *snapshot).collect();
        assert!(expected.len() > 30, "{beta:?}");
        for place in ["svc/web/prod@us-east-1", "svc/web/prod@eu-west-1"] {
            let came = settled.get(place).cloned().unwrap_or_default();
            assert!(
                came.len() * 2 >= expected.len(),
                "{place} came {} times, {} had settled before it: {came:?}",
                came.len(),
                expected.len()
            );
            assert!(
                came.iter()
                    .all(|(snapshot, _)| beta.iter().any(|(b, _)| b == snapshot))
            );
        }
        Ok(())
    })
    .unwrap();
}

/// Production has failed with a commit; the next one mends it. It has to come to production by itself, as soon as the wave
/// before has settled and baked: what is shown of production meanwhile is that it failed.
#[test]
fn what_failed_goes_on_by_itself_when_the_wave_before_has_settled_with_the_mended_commit() {
    alone(15, false, async |s: &mut Simulation| {
        s.start().await?;
        s.go_on(60).await;
        s.fails("*svc-web-prod*", true).await;
        s.push_service();
        s.go_on(60).await;
        s.fails("*svc-web-prod*", false).await;
        let failed = s.how("svc/web/prod").await;
        assert!(
            failed.iter().any(|(r, _)| *r == SyncResult::Failed),
            "{failed:?}"
        );

        s.push_service();
        s.go_on(60).await;

        let done = (SyncResult::InSync, s.head_commit());
        assert_eq!(s.how("svc/web/prod").await, vec![done; 2]);
        Ok(())
    })
    .unwrap();
}

/// A commit bakes in the first wave when a newer one fails there. The end of its bake has to be noticed all the same.
#[test]
fn what_has_baked_goes_on_although_something_newer_has_failed_in_the_wave_before() {
    alone(16, false, async |s: &mut Simulation| {
        s.start().await?;
        s.go_on(60).await;
        s.push_service();
        s.go_on(10).await;
        let good = s.head_commit();
        assert_eq!(
            s.how("svc/web/beta").await,
            [(SyncResult::InSync, good.clone())]
        );
        s.fails("*svc-web-beta*", true).await;
        s.push_service();
        s.go_on(8).await;
        assert_eq!(
            s.how("svc/web/beta").await,
            [(SyncResult::Failed, good.clone())]
        );

        s.go_on(60).await;

        let serving: Vec<_> = s
            .how("svc/web/prod")
            .await
            .into_iter()
            .map(|t| t.1)
            .collect();
        assert_eq!(serving, vec![good; 2]);
        Ok(())
    })
    .unwrap();
}

/// Somebody who may write to the bundle store adds a well-chained entry behind the end of a log: neither a state that is
/// there nor an empty one takes it in.
#[test]
fn sec_57_a_segment_that_nobody_signed_is_not_taken_in() {
    alone(15, false, async |s: &mut Simulation| {
        s.start().await?;
        s.go_on(4).await;
        let line = s.line().unwrap();
        line.checkpoint(1).await.unwrap();
        let entries = line.store.entries(1, u64::MAX).await.unwrap();
        let (last, log) = (entries.last().unwrap().clone(), line.settings.log.clone());
        let key = format!("log/{log}/{:020}", last.seq + 1);
        drop(line);
        s.built = None;
        let count = entries.iter().filter(|e| e.stream == Stream::Daemon);
        let forged = Entry {
            stream: Stream::Daemon,
            stream_seq: count.count() as u64 + 1,
            body: Body::BlastRadiusApproved {
                snapshot: SnapshotId(1),
                list: Digest::of("d1", b"any"),
            },
            ..last.clone()
        }
        .chained(last.seq + 1, &last.hash);
        let genuine: serde_json::Value = {
            let home = s.ports.home();
            let first = format!("log/{log}/{:020}", 1);
            let bytes = read_all(home.as_ref(), &first, None, 1 << 24).await;
            serde_json::from_slice(&bytes.unwrap()).unwrap()
        };
        // Without a signature, and with one that was made for another segment.
        for signature in [serde_json::Value::Null, genuine["signature"].clone()] {
            let segment = serde_json::json!({
                "format": "isoform-log-v1", "entries": [forged], "payloads": [], "checkpoints": [], "signature": signature,
            });
            let home = s.ports.home();
            let put = Put::default();
            let put = home.put(&key, body(segment.to_string()), &put);
            put.await.unwrap();
            let here = s.config.state.clone();
            for state in [here.clone(), s.new_folder()] {
                s.config.state = state;
                let built = isoform::daemon::build_on(
                    s.config.clone(),
                    s.clock.clone(),
                    Some(s.ports.clone()),
                );
                let said = s.carry(built).await.unwrap().err();
                let said = said.map(|e| format!("{e:#}")).unwrap_or_default();
                assert!(said.contains(&key) && said.contains("is not signed"), "{said}");
            }
            s.config.state = here;
            s.ports.home().delete(&key).await.unwrap();
        }

        s.start().await?;

        let after = s.line().unwrap().store.entries(1, u64::MAX).await.unwrap();
        assert_eq!(after[..entries.len()], entries[..]);
        s.calm().await?;
        s.settle_accounts().await
    })
    .unwrap();
}

/// A segment of a release that signed none is taken where a checkpoint vouches for it, and not where none does.
#[test]
fn a_segment_without_a_signature_is_taken_where_a_checkpoint_covers_it() {
    for covered in [true, false] {
        alone(16, false, async move |s: &mut Simulation| {
            s.start().await?;
            s.go_on(2).await;
            s.twin();
            s.push_service();
            s.look().await;
            let line = s.line().unwrap();
            line.ship().await.unwrap();
            if covered {
                line.checkpoint(1).await.unwrap();
            }
            let before = line.store.entries(1, u64::MAX).await.unwrap();
            let folder = format!("log/{}/", line.settings.log);
            drop(line);
            s.built = None;
            let home = s.ports.home();
            for item in home.list(&folder, None).await.unwrap().items {
                let bytes = read_all(home.as_ref(), &item.key, None, 1 << 24).await;
                let mut segment: serde_json::Value =
                    serde_json::from_slice(&bytes.unwrap()).unwrap();
                segment.as_object_mut().unwrap().remove("signature");
                home.delete(&item.key).await.unwrap();
                let put = Put::default();
                let put = home.put(&item.key, body(segment.to_string()), &put);
                put.await.unwrap();
            }
            let copy = s.copy.clone().unwrap();
            for state in [copy, s.new_folder()] {
                s.config.state = state;
                let built = isoform::daemon::build_on(
                    s.config.clone(),
                    s.clock.clone(),
                    Some(s.ports.clone()),
                );
                match s.carry(built).await.unwrap() {
                    Ok(built) => {
                        assert!(covered, "it was taken");
                        assert!(built.restored > 0, "nothing was missing");
                        let after = built.line.store.entries(1, u64::MAX).await.unwrap();
                        assert!(after.starts_with(&before) || before.starts_with(&after));
                    }
                    Err(error) => {
                        let said = format!("{error:#}");
                        assert!(!covered && said.contains("is not signed"), "{said}");
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    }
}

fn deletions() -> usize {
    let ledger = faults::ledger();
    let taken = ledger.iter().filter(|e| e.taken && e.call == "delete");
    taken.count()
}

/// Six stacks are dropped where one may go in a day. Time makes room for one a day, and nobody has asked for that: a push
/// weeks later deletes none of them, whatever the daemon did in between.
#[test]
fn what_was_over_the_budget_waits_for_a_person_however_long_that_takes() {
    for interrupted in [false, true] {
        alone(17, false, async move |s: &mut Simulation| {
            s.start().await?;
            let mut model = s.model();
            let names = ["c", "d", "e", "f", "g", "h"];
            model.stacks.extend(names.map(|n| (n.to_owned(), 1)));
            s.commit(model.clone(), None);
            s.go_on(40).await;
            model
                .stacks
                .retain(|name, _| !names.contains(&name.as_str()));
            s.commit(model, None);
            s.go_on(8).await;
            assert_eq!(deletions(), 0);
            if interrupted {
                // What cannot be read takes the removals back for a while, and they begin anew.
                s.step(Step::Unreachable).await;
                s.go_on(2).await;
                s.step(Step::Unreachable).await;
            }
            for _ in 0..3 {
                s.clock.advance(Duration::from_secs(25 * 3600));
                s.push_service();
                s.go_on(8).await;
                assert_eq!(deletions(), 0);
            }
            let estate = s.line().unwrap().estate().await.unwrap();
            let held = estate
                .targets
                .iter()
                .filter(|t| t.condition.reason == Reason::PruneBudget);
            assert_eq!(held.count(), 6);
            let what = ApproveWhat::Review {
                target: "stack/d".into(),
                review: None,
                opens: false,
            };
            let line = s.line().unwrap();
            line.approve(&what, &person()).await.unwrap();
            drop(line);
            s.go_on(8).await;
            assert_eq!(deletions(), 1);
            Ok(())
        })
        .unwrap();
    }
}

/// Somebody takes the protection off a stack that Git gave up weeks ago: the looks that found it unasked for are done anew.
#[test]
fn a_protection_that_is_taken_off_needs_two_looks_of_its_own() {
    alone(18, false, async |s: &mut Simulation| {
        s.start().await?;
        s.go_on(20).await;
        let engine = s.engine("beta");
        let all = engine.list(None).await.unwrap().items;
        let stack = all
            .iter()
            .find(|i| i.name.as_str().starts_with("isoform-stack-b-"));
        let stack = stack.unwrap().stack_id.clone();
        engine.set_protection(&stack, true).await.unwrap();
        let mut model = s.model();
        model.stacks.remove("b");
        s.commit(model, None);
        s.go_on(4).await;
        assert_eq!(deletions(), 0);
        engine.set_protection(&stack, false).await.unwrap();
        s.clock.advance(Duration::from_secs(14 * 86_400));
        s.push_service();

        s.look().await;
        while s.work().await {}

        assert_eq!(deletions(), 0, "one look was enough");
        s.go_on(2).await;
        assert_eq!(deletions(), 1);
        Ok(())
    })
    .unwrap();
}

/// The wall is a day ahead while the first wave settles, and is set right: the next wave begins when it has baked, and not a
/// day later.
#[test]
fn a_wall_that_was_ahead_when_a_wave_settled_does_not_hold_the_next_one() {
    for restarted in [false, true] {
        alone(19, false, async move |s: &mut Simulation| {
            s.start().await?;
            s.go_on(80).await;
            let day = 86_400_000;
            s.clock.jump(day);
            s.push_service();
            s.go_on(3).await;
            let executed = executions();
            s.clock.jump(-day);
            if restarted {
                s.built = None;
                s.start().await?;
            }
            s.go_on(2).await;
            assert_eq!(executions(), executed, "it has not baked");

            s.go_on(22).await;

            assert!(executions() > executed, "production waits for the wall");
            Ok(())
        })
        .unwrap();
    }
}

/// Both regions of production were reviewed and held. When they are let go and the first fails, the wave halts: the other one
/// was not in motion yet, however long ago it began.
#[test]
fn what_was_held_does_not_run_after_its_wave_has_halted() {
    alone(17, false, async |s: &mut Simulation| {
        s.start().await?;
        s.go_on(60).await;
        let before = s.head_commit();
        s.push_service();
        s.go_on(10).await;
        s.step(Step::Freeze).await;
        s.go_on(40).await;
        let held = (SyncResult::Held, before.clone());
        assert_eq!(s.how("svc/web/prod").await, vec![held; 2]);
        s.fails("*svc-web-prod*", true).await;
        s.step(Step::Freeze).await;
        s.go_on(40).await;

        let mut found = s.how("svc/web/prod").await;
        found.sort();
        let expected = [SyncResult::Pending, SyncResult::Failed].map(|r| (r, before.clone()));
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(found, expected);
        Ok(())
    })
    .unwrap();
}

/// The seeds never change more than a placement allows at once. With a lower limit nothing of it begins, and without the guard
/// it does.
#[test]
fn the_blast_radius_is_missed_when_it_is_gone() {
    for missing in [None, Some("blast-radius")] {
        alone(20, false, async move |s: &mut Simulation| {
            faults::without(missing);
            let beta = "beta".parse().unwrap();
            s.config.placements.get_mut(&beta).unwrap().blast_radius = 1;
            s.start().await?;
            s.go_on(20).await;
            assert_eq!(executions() > 0, missing.is_some());
            Ok(())
        })
        .unwrap();
    }
}
