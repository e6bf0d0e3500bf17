//! The driver: chooses the next step by the seed, carries it out, and moves the clock when only time helps.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon::{Built, build_on, open_ports};
use isoform::domain::model::{Actor, Reason, SyncResult, Timestamp};
use isoform::domain::plan::StatusClass;
use isoform::local::{Failure, LocalEngine, World};
use isoform::port::{Ports, StackEngine, StackRef};
use isoform::reconcile::{ApproveWhat, Line, Selector, TargetReport};
use isoform::testing::faults::{self, Kind};

use crate::checks::{Checks, Looks};
use crate::disk::{self, Tear};
use crate::estate::{CONFIG, Model};

/// The wall when a simulation begins.
const START: Timestamp = Timestamp(1_700_000_000_000);

/// For how many rounds nobody tries anything again, in the stories where that is so.
const ALONE: u32 = 60;

/// Seeds from here on tell long stories.
pub const LONG: u64 = 1_000_000;

/// What a daemon says when another one has gone on with its log.
pub const FORKED: &str = "holds another log";

/// How a simulation ended.
pub struct Ended {
    pub steps: u64,
    pub story: Vec<String>,
    /// A digest of the story and of everything in the log.
    pub digest: String,
}

/// How often each kind of step is chosen: each seed has its own mixture.
struct Swarm {
    weights: Vec<(Step, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Work,
    Look,
    Flood,
    Sweep,
    Ship,
    Wait,
    Push,
    Break,
    Drop,
    Rewrite,
    Fault,
    Fail,
    Meddle,
    Vanish,
    Operator,
    Freeze,
    Unreachable,
    Jump,
    Death,
    Loss,
    Purge,
    Rollout,
    Twin,
    Full,
}

/// A daemon that stands beside the one that works: made from a copy of its state.
pub struct Other {
    built: Option<Built>,
    state: PathBuf,
    looks: Looks,
    forked: bool,
}

pub struct Simulation {
    pub seed: u64,
    random: u64,
    tell: bool,
    story: Vec<String>,
    folder: tempfile::TempDir,
    pub clock: Clock,
    pub config: Config,
    pub world: World,
    pub ports: Arc<dyn Ports>,
    pub built: Option<Built>,
    pub other: Option<Other>,
    /// A copy of the state folder, for another daemon.
    pub copy: Option<PathBuf>,
    /// How many state folders there were.
    folders: u32,
    /// The newest entry that was acknowledged when the process died.
    acknowledged: Option<(u64, String)>,
    /// Whether the daemon has said that another one has gone on with its log.
    forked: bool,
    full: bool,
    /// How often something was worked on at one time.
    busy: (Timestamp, u32),
    /// How much of the ledger was held against what the driver knew then.
    judged: usize,
    violation: Option<String>,
    swarm: Swarm,
    repository: git2::Repository,
    /// What each commit asks for, by its id.
    pub commits: BTreeMap<String, Model>,
    pub head: git2::Oid,
    checks: Checks,
    frozen: bool,
    away: bool,
    steps: u64,
}

pub fn person() -> Actor {
    Actor {
        issuer: "local".into(),
        subject: "ana".into(),
        via: "socket".into(),
        display: "ana".into(),
    }
}

impl Simulation {
    pub async fn new(seed: u64, tell: bool) -> Self {
        let clock = Clock::standing(START);
        faults::begin(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), &clock);
        let mut random = seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1;
        let base = if std::path::Path::new("/dev/shm").is_dir() {
            PathBuf::from("/dev/shm")
        } else {
            std::env::temp_dir()
        };
        let folder = tempfile::Builder::new()
            .prefix("isoform-sim-")
            .tempdir_in(base)
            .unwrap();
        let root = folder.path();
        std::fs::write(root.join("config.yaml"), CONFIG).unwrap();
        isoform::secret_file::write(&root.join("root.key"), format!("{seed:064x}").as_bytes())
            .unwrap();
        let config = Config::load(&root.join("config.yaml")).unwrap();
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).initial_head("main");
        let repository = git2::Repository::init_opts(root.join("origin.git"), &options).unwrap();
        let (world, ports) = open_ports(&config, &clock.elsewhere()).await.unwrap();
        let all = [
            (Step::Work, 60),
            (Step::Look, 12),
            (Step::Flood, 2),
            (Step::Sweep, 3),
            (Step::Ship, 3),
            (Step::Wait, 14),
            (Step::Push, 8),
            (Step::Break, 2),
            (Step::Drop, 4),
            (Step::Rewrite, 2),
            (Step::Fault, 10),
            (Step::Fail, 2),
            (Step::Meddle, 1),
            (Step::Vanish, 1),
            (Step::Operator, 6),
            (Step::Freeze, 2),
            (Step::Unreachable, 2),
            (Step::Jump, 1),
            (Step::Death, 3),
            (Step::Loss, 1),
            (Step::Purge, 2),
            (Step::Rollout, 2),
            // These say less about everything else, so they have seeds of their own.
            (Step::Twin, if seed.is_multiple_of(5) { 6 } else { 0 }),
            (Step::Full, if seed % 5 == 2 { 3 } else { 0 }),
        ];
        // Swarm testing: each seed leaves some kinds out and does others often, so that rare mixtures come up.
        let weights = all
            .into_iter()
            .map(|(step, weight)| {
                let base = matches!(step, Step::Work | Step::Look | Step::Wait | Step::Push);
                let factor = match faults::next_random(&mut random) >> 62 {
                    0 if !base => 0,
                    3 => 3,
                    _ => 1,
                };
                (step, weight * factor)
            })
            .collect();
        let mut simulation = Self {
            seed,
            random,
            tell,
            story: Vec::new(),
            folder,
            clock,
            config,
            world,
            ports: faults::Faulty::new(ports),
            built: None,
            other: None,
            copy: None,
            folders: 0,
            acknowledged: None,
            forked: false,
            full: false,
            busy: (START, 0),
            judged: 0,
            violation: None,
            swarm: Swarm { weights },
            repository,
            commits: BTreeMap::new(),
            head: git2::Oid::ZERO_SHA1,
            checks: Checks::default(),
            frozen: false,
            away: false,
            steps: 0,
        };
        simulation.commit(Model::first(), None);
        simulation
    }

    pub fn below(&mut self, most: u64) -> u64 {
        (faults::next_random(&mut self.random) >> 33) % most
    }

    pub fn say(&mut self, text: impl Into<String>) {
        let text = format!(
            "{:>9.1}s {}",
            self.clock.steady().0 as f64 / 1000.0,
            text.into()
        );
        if self.tell {
            println!("{text}");
        }
        self.story.push(text);
    }

    pub fn model(&self) -> Model {
        self.commits[&self.head.to_string()].clone()
    }

    /// Commits a model; without a parent given, onto the head.
    pub fn commit(&mut self, model: Model, parent: Option<git2::Oid>) {
        let mut builder = git2::build::TreeUpdateBuilder::new();
        for (path, text) in model.files() {
            let blob = self.repository.blob(text.as_bytes()).unwrap();
            builder.upsert(path, blob, git2::FileMode::Blob);
        }
        let empty = {
            let id = self.repository.treebuilder(None).unwrap().write().unwrap();
            self.repository.find_tree(id).unwrap()
        };
        let tree = builder.create_updated(&self.repository, &empty).unwrap();
        let parent = parent.or((!self.head.is_zero()).then_some(self.head));
        let parents: Vec<git2::Commit<'_>> = parent
            .iter()
            .map(|p| self.repository.find_commit(*p).unwrap())
            .collect();
        let number = self.commits.len() as i64;
        let who =
            git2::Signature::new("ana", "ana@example.org", &git2::Time::new(number, 0)).unwrap();
        let id = self
            .repository
            .commit(
                None,
                &who,
                &who,
                &format!("{number}"),
                &self.repository.find_tree(tree).unwrap(),
                &parents.iter().collect::<Vec<_>>(),
            )
            .unwrap();
        drop(parents);
        drop(empty);
        self.repository
            .reference("refs/heads/main", id, true, "push")
            .unwrap();
        self.head = id;
        self.commits.insert(id.to_string(), model);
    }

    pub fn line(&self) -> Option<Arc<Line>> {
        self.built.as_ref().map(|b| b.line.clone())
    }

    /// Carries something of the daemon out. Where it waits for time, time passes; where the process dies, it is gone.
    pub async fn carry<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let clock = self.clock.clone();
        let mut last = None;
        let done = {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    done = &mut work => break Some(done),
                    () = faults::death() => {
                        // Before anything of it is dropped: a database that is closed in order has nothing torn.
                        last = Some(self.power_off().await);
                        break None;
                    }
                    () = clock.asleep() => {
                        if let Some(wait) = clock.next_wake() {
                            clock.advance(wait);
                        }
                        tokio::task::yield_now().await;
                    }
                    () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it hangs"),
                }
            }
        };
        if faults::died() {
            let how = match last {
                Some(how) => how,
                None => self.power_off().await,
            };
            self.say(format!("the process dies: {how:?}"));
            self.built = None;
            return None;
        }
        done
    }

    /// A folder for a state that there was not before.
    pub fn new_folder(&mut self) -> PathBuf {
        self.folders += 1;
        self.folder.path().join(format!("state-{}", self.folders))
    }

    /// Leaves the state folder as a disk has it when the power goes.
    async fn power_off(&mut self) -> Tear {
        let tear = match self.below(8) {
            0 | 1 => Tear::Tail(1 + self.below(6000) as usize),
            2 => Tear::Checkpoint(self.below(1000)),
            3 if self.seed % 5 == 1 => Tear::Lying(1 + self.below(6) as usize),
            _ => Tear::None,
        };
        let to = self.new_folder();
        if let Some(line) = self.line() {
            let newest = *line.store.watch().borrow();
            let entry = line.store.entries(newest, 1).await.unwrap().pop();
            self.acknowledged = entry.map(|e| (e.seq, e.hash));
        }
        let done = disk::image(&self.config.state, &to, tear).unwrap();
        if matches!(done, Tear::Lying(_)) {
            self.acknowledged = None;
            self.checks.lost = true;
        }
        self.config.state = to;
        done
    }

    /// The state folder is gone; nothing but the bundle store knows what was.
    fn forget(&mut self) {
        self.built = None;
        self.config.state = self.new_folder();
        self.acknowledged = None;
        self.frozen = false;
        self.forked = false;
        self.checks.lost = true;
    }

    /// Puts another daemon on a copy of the state in the place of the one that works, which stands still meanwhile.
    pub fn stand_beside(&mut self, state: PathBuf) {
        if self.frozen {
            std::fs::write(state.join("FREEZE"), "").unwrap();
        }
        self.checks.lost = true;
        self.other = Some(Other {
            built: None,
            state,
            looks: Looks::default(),
            forked: false,
        });
        self.switch();
    }

    /// Goes on with the other daemon, and leaves this one as it stands.
    pub fn switch(&mut self) {
        if let Some(other) = &mut self.other {
            std::mem::swap(&mut self.built, &mut other.built);
            std::mem::swap(&mut self.config.state, &mut other.state);
            std::mem::swap(&mut self.checks.looks, &mut other.looks);
            std::mem::swap(&mut self.forked, &mut other.forked);
        }
    }

    /// Starts the daemon; under faults that may take several tries.
    pub async fn start(&mut self) -> Result<(), String> {
        for attempt in 0..20 {
            if attempt > 10 {
                faults::disarm();
                self.fill(false);
            }
            let built = build_on(
                self.config.clone(),
                self.clock.clone(),
                Some(self.ports.clone()),
            );
            match self.carry(built).await {
                Some(Ok(built)) => {
                    if let Some((seq, hash)) = self.acknowledged.take() {
                        let found = built.line.store.entries(seq, 1).await.unwrap().pop();
                        if found.is_none_or(|e| e.hash != hash) {
                            return Err(format!("entry {seq} was acknowledged and is gone"));
                        }
                    }
                    built.line.enqueue_all();
                    self.built = Some(built);
                    self.say("the daemon runs");
                    return Ok(());
                }
                Some(Err(error)) => {
                    self.say(format!("the daemon does not start: {error:#}"));
                    // A person does what it says.
                    if format!("{error:#}").contains(FORKED) {
                        self.forget();
                    }
                    self.clock.advance(Duration::from_secs(5));
                }
                None => {}
            }
        }
        Err("the daemon does not start without faults".into())
    }

    /// Works on the next target that is due; tells whether there was one.
    pub async fn work(&mut self) -> bool {
        let Some(line) = self.line() else {
            return false;
        };
        let guard = tokio::select! {
            biased;
            guard = line.queue.next(&line.stop) => guard,
            () = std::future::ready(()) => None,
        };
        let Some(guard) = guard else { return false };
        let now = self.clock.steady();
        self.busy = if self.busy.0 == now {
            (now, self.busy.1 + 1)
        } else {
            (now, 0)
        };
        assert!(self.busy.1 < 300, "it spins");
        let uid = guard.key().clone();
        let doing = line.clone();
        let after = self
            .carry(async move { doing.reconcile(&guard).await })
            .await;
        if let Some(after) = after {
            if let Some(after) = after {
                line.enqueue(&uid, after);
            }
            if let Some(Err(error)) = self.carry(line.close_look()).await {
                self.say(format!("the end of a look: {error}"));
            }
        }
        self.judge();
        let known = match line.target(&uid, false).await {
            Ok(Some(target)) => format!("{} {}", target.address, target.condition),
            _ => "a target".into(),
        };
        self.say(format!("work: {known}"));
        true
    }

    pub async fn look(&mut self) {
        let Some(line) = self.line() else { return };
        let before = line.newest().map(|s| s.id);
        let looked = self.carry(line.look("poll", &Actor::daemon("poll"))).await;
        // What was read counts, even where shipping what was found has failed.
        let read = line.newest().filter(|s| Some(s.id) != before);
        match (&looked, read) {
            (Some(Err(_)), Some(read)) => {
                self.checks.looked(&Some(Ok((Some(read), true))), self.away);
            }
            _ => self.checks.looked(&looked, self.away),
        }
        match looked {
            Some(Ok((snapshot, new))) => {
                let id = snapshot.map_or(0, |s| s.id.0);
                self.say(format!("look: snapshot {id}, new: {new}"));
            }
            Some(Err(error)) => {
                self.forked |= matches!(error, isoform::reconcile::Error::Forked(_));
                self.say(format!("look: {error}"));
            }
            None => {}
        }
    }

    /// Fills the disk of the state, or makes space again.
    pub fn fill(&mut self, full: bool) {
        self.full = full;
        faults::fill(full);
    }

    /// Holds what was done since the last time against what is known now.
    fn judge(&mut self) {
        let done = faults::ledger().split_off(self.judged);
        self.judged += done.len();
        if let Err(why) = self.checks.after_step(&done, self.frozen) {
            self.violation.get_or_insert(why);
        }
    }

    pub fn engine(&self, name: &str) -> LocalEngine {
        let (account, region) = match name {
            "eu" => ("000000000002", "eu-west-1"),
            "us" => ("000000000002", "us-east-1"),
            _ => ("000000000001", "us-east-1"),
        };
        LocalEngine::new(
            self.world.clone(),
            account.parse().unwrap(),
            region.parse().unwrap(),
        )
    }

    /// Chooses one of the stacks that exist.
    async fn some_stack(&mut self) -> Option<(LocalEngine, isoform::port::StackSummary)> {
        let place = ["beta", "us", "eu"][self.below(3) as usize];
        let engine = self.engine(place);
        let mut page = engine.list(None).await.ok()?.items;
        // Nobody can change a shell: it holds nothing.
        page.retain(|s| s.status.class() != StatusClass::Shell);
        page.sort_by(|a, b| a.name.cmp(&b.name));
        if page.is_empty() {
            return None;
        }
        let at = self.below(page.len() as u64) as usize;
        Some((engine, page.swap_remove(at)))
    }

    /// Chooses one of the targets that the daemon knows, by address.
    async fn some_target(&mut self, fits: impl Fn(&TargetReport) -> bool) -> Option<TargetReport> {
        let estate = self.line()?.estate().await.ok()?;
        let mut fitting: Vec<TargetReport> = estate.targets.into_iter().filter(fits).collect();
        if fitting.is_empty() {
            return None;
        }
        let at = self.below(fitting.len() as u64) as usize;
        Some(fitting.swap_remove(at))
    }

    pub async fn step(&mut self, step: Step) {
        match step {
            Step::Work => {
                self.work().await;
            }
            Step::Look => self.look().await,
            Step::Flood => {
                for _ in 0..10 {
                    self.look().await;
                }
            }
            Step::Sweep => {
                let Some(line) = self.line() else { return };
                let swept = self.carry(async move { line.sweep().await.is_ok() }).await;
                self.say(format!("sweep: {swept:?}"));
            }
            Step::Ship => {
                let Some(line) = self.line() else { return };
                let shipped =
                    self.carry(async move {
                        line.checkpoint(1).await.is_ok() && line.ship().await.is_ok()
                    })
                    .await;
                self.say(format!("ship: {shipped:?}"));
            }
            Step::Wait => {
                let wait = [1, 3, 10, 60, 200, 700][self.below(6) as usize];
                self.clock.advance(Duration::from_secs(wait));
            }
            Step::Push => {
                let mut model = self.model();
                model.broken = false;
                let number = self.commits.len() as u64 + 1;
                match self.below(6) {
                    0 => model.environment = number,
                    1 | 2 => model.service = number,
                    3 => {
                        model.stacks.insert("data".into(), number);
                    }
                    4 => {
                        for name in ["a", "b", "c"] {
                            model.stacks.insert(name.into(), number);
                        }
                    }
                    _ => {
                        model.environment = number;
                        model.service = number;
                    }
                }
                self.commit(model, None);
                self.say(format!("push {number}: {:?}", self.model()));
            }
            Step::Break => {
                let mut model = self.model();
                model.broken = true;
                self.commit(model, None);
                self.say("push: broken");
            }
            Step::Drop => {
                let mut model = self.model();
                model.broken = false;
                let names: Vec<String> = model.stacks.keys().cloned().collect();
                if let Some(name) = names.get(self.below(3) as usize) {
                    model.stacks.remove(name);
                    self.commit(model, None);
                    self.say(format!("push: without {name}"));
                }
            }
            Step::Rewrite => {
                let ids: Vec<String> = self.commits.keys().cloned().collect();
                let at = self.below(ids.len() as u64) as usize;
                let back: git2::Oid = ids[at].parse().unwrap();
                let model = self.commits[&ids[at]].clone();
                if self.below(2) == 0 {
                    self.repository
                        .reference("refs/heads/main", back, true, "force")
                        .unwrap();
                    self.head = back;
                } else {
                    let mut model = model;
                    model.service = self.commits.len() as u64 + 1;
                    model.broken = false;
                    self.commit(model, Some(back));
                }
                self.say("force-push");
            }
            Step::Fault => {
                let kind = Kind::ALL[self.below(Kind::ALL.len() as u64) as usize];
                let calls = self.below(30);
                faults::arm(calls, kind);
                self.say(format!("in {calls} calls: {kind:?}"));
            }
            Step::Fail => {
                let stack =
                    ["*", "*env-prod*", "*svc-web-beta*", "*svc-web-prod*"][self.below(4) as usize];
                let failure = Failure {
                    stack: stack.into(),
                    logical: "Alarm".into(),
                    reason: "it does not work".into(),
                    times: Some(1),
                    phase: isoform::local::Phase::Make,
                };
                self.world.script(&failure).await.unwrap();
                self.say(format!("the next change of {stack} fails"));
            }
            Step::Meddle => {
                if let Some((engine, stack)) = self.some_stack().await {
                    let by = [Some("by-hand"), None][self.below(2) as usize];
                    let done = engine.meddle_by(&stack.name, by).await.is_ok();
                    let seq = self.line().map_or(0, |l| *l.store.watch().borrow());
                    if done {
                        self.checks.meddled(stack.stack_id.as_str(), seq);
                    }
                    self.say(format!("somebody changes {}: {done}", stack.name));
                }
            }
            Step::Vanish => {
                if let Some((engine, stack)) = self.some_stack().await {
                    let done = engine.delete(&stack.stack_id, "by-hand", &[]).await.is_ok();
                    let seq = self.line().map_or(0, |l| *l.store.watch().borrow());
                    if done {
                        self.checks.meddled(stack.stack_id.as_str(), seq);
                    }
                    self.say(format!("somebody deletes {}: {done}", stack.name));
                }
            }
            Step::Operator => self.operate().await,
            Step::Freeze => {
                let other = self.other.as_ref().map(|o| o.state.clone());
                for state in [Some(self.config.state.clone()), other]
                    .into_iter()
                    .flatten()
                {
                    let path = state.join("FREEZE");
                    if self.frozen {
                        let _ = std::fs::remove_file(path);
                    } else if std::fs::write(path, "").is_err() {
                        return;
                    }
                }
                self.frozen = !self.frozen;
                self.say(format!("frozen: {}", self.frozen));
            }
            Step::Unreachable => {
                let (here, away) = (
                    self.folder.path().join("origin.git"),
                    self.folder.path().join("away.git"),
                );
                let moved = if self.away {
                    std::fs::rename(away, here)
                } else {
                    std::fs::rename(here, away)
                };
                moved.unwrap();
                self.away = !self.away;
                let path = if self.away { "away.git" } else { "origin.git" };
                self.repository = git2::Repository::open(self.folder.path().join(path)).unwrap();
                self.say(format!("the source is away: {}", self.away));
            }
            Step::Jump => {
                let by = [
                    -86_400_000,
                    -3_600_000,
                    -5_000,
                    5_000,
                    3_600_000,
                    86_400_000,
                ][self.below(6) as usize];
                self.clock.jump(by);
                self.checks.jumped = true;
                self.say(format!("the wall jumps by {by} ms"));
            }
            Step::Death => {
                let how = self.power_off().await;
                self.say(format!("kill -9: {how:?}"));
                self.built = None;
            }
            Step::Loss => {
                self.say("kill -9, and the state folder is lost");
                self.forget();
            }
            Step::Purge => Box::pin(self.purge()).await,
            Step::Rollout => Box::pin(self.roll_out()).await,
            Step::Twin => self.twin(),
            Step::Full => {
                self.fill(!self.full);
                self.say(format!("the disk of the state is full: {}", self.full));
            }
        }
    }

    /// An operator does something that fits.
    async fn operate(&mut self) {
        let Some(line) = self.line() else { return };
        let what = self.below(7);
        let Some(target) = self
            .some_target(|t| match what {
                0 | 1 => t.review.is_some(),
                2 => matches!(t.condition.result, SyncResult::Failed | SyncResult::Stuck),
                3 => t.condition.result == SyncResult::Drifted,
                _ => true,
            })
            .await
        else {
            return;
        };
        let address = target.address.to_string();
        let (ana, one) = (person(), Selector::Targets(address.clone()));
        let said = match what {
            0 => {
                let what = ApproveWhat::Review {
                    target: address.clone(),
                    review: None,
                    opens: false,
                };
                self.carry(async move { line.approve(&what, &ana).await.is_ok() })
                    .await
                    .map(|ok| format!("approve: {ok}"))
            }
            1 => {
                let address = address.clone();
                self.carry(async move { line.reject(&address, "no", &ana).await.is_ok() })
                    .await
                    .map(|ok| format!("reject: {ok}"))
            }
            2 => self
                .carry(async move { line.retry(&one, &ana).await.is_ok() })
                .await
                .map(|ok| format!("retry: {ok}")),
            3 => {
                let overwrite = self.below(2) == 0;
                let address = address.clone();
                self.carry(async move {
                    line.resolve_drift(&address, overwrite, "so", &ana)
                        .await
                        .is_ok()
                })
                .await
                .map(|ok| format!("drift, overwrite {overwrite}: {ok}"))
            }
            4 => self
                .carry(async move { line.suspend(&one, "so", None, &ana).await.is_ok() })
                .await
                .map(|ok| format!("suspend: {ok}")),
            5 => self
                .carry(async move { line.resume(&one, &ana).await.is_ok() })
                .await
                .map(|ok| format!("resume: {ok}")),
            _ => {
                let source = ApproveWhat::Source("s".into());
                self.carry(async move { line.approve(&source, &ana).await.is_ok() })
                    .await
                    .map(|ok| format!("accept the history: {ok}"))
            }
        };
        self.say(format!("{address}: {}", said.unwrap_or_default()));
    }

    fn choose(&mut self) -> Step {
        let total: u64 = self.swarm.weights.iter().map(|(_, w)| w).sum();
        let mut at = self.below(total);
        for (step, weight) in &self.swarm.weights {
            if at < *weight {
                return *step;
            }
            at -= weight;
        }
        Step::Work
    }

    pub async fn run(&mut self) -> Result<Ended, String> {
        let result = self.all().await;
        if let Err(why) = &result {
            self.say(format!("VIOLATION: {why}"));
            if let Some(line) = self.line().filter(|_| self.tell) {
                for entry in line.store.entries(1, u64::MAX).await.unwrap_or_default() {
                    let body = serde_json::to_string(&entry.body).unwrap_or_default();
                    println!("{:>4} {} {body}", entry.seq, entry.stream);
                }
            }
        }
        result?;
        Ok(Ended {
            steps: self.steps,
            digest: self.digest().await?,
            story: std::mem::take(&mut self.story),
        })
    }

    /// Digests the story and the log; where this simulation lies on disk is not part of it.
    async fn digest(&self) -> Result<String, String> {
        let line = self.line().ok_or("no daemon")?;
        let entries = line
            .store
            .entries(1, u64::MAX)
            .await
            .map_err(|e| e.to_string())?;
        let mut text = self.story.join("\n");
        for entry in entries {
            let told = (
                entry.seq,
                &entry.stream,
                entry.at,
                &entry.actor,
                &entry.body,
            );
            text += &serde_json::to_string(&told).map_err(|e| e.to_string())?;
        }
        let text = text.replace(&*self.folder.path().to_string_lossy(), "");
        Ok(isoform::domain::model::sha256_hex(text.as_bytes()))
    }

    async fn all(&mut self) -> Result<(), String> {
        // Most are short, so that there are many; what needs a long story has its own numbers.
        let steps = if self.seed < LONG {
            30 + self.below(60)
        } else {
            60 + self.below(140)
        };
        for _ in 0..steps {
            self.steps += 1;
            if self.built.is_none() {
                self.start().await?;
            }
            let step = self.choose();
            self.step(step).await;
            self.judge();
            if let Some(why) = self.violation.take() {
                return Err(why);
            }
        }
        self.calm().await?;
        self.settle_accounts().await
    }

    pub async fn settle_accounts(&mut self) -> Result<(), String> {
        let line = self.line().ok_or("no daemon")?;
        let entries = line
            .store
            .entries(1, u64::MAX)
            .await
            .map_err(|e| e.to_string())?;
        let checkpoints = line.store.checkpoints().await.map_err(|e| e.to_string())?;
        self.checks
            .whole(&entries, &checkpoints, &faults::ledger(), &self.commits)
    }

    /// Deploys everything and changes everything, with one fault at the given call; returns how many calls there were.
    pub async fn nth(&mut self, fault: Option<(u64, Kind)>) -> Result<u64, String> {
        if let Some((call, kind)) = fault {
            faults::arm(call, kind);
        }
        for round in 0..2 {
            for _ in 0..60 {
                if self.built.is_none() {
                    self.start().await?;
                }
                self.look().await;
                while self.work().await {}
                self.clock.advance(Duration::from_secs(30));
            }
            if round == 0 {
                self.step(Step::Drop).await;
                let mut model = self.model();
                (model.environment, model.service) = (9, 9);
                self.commit(model, None);
            }
        }
        let calls = faults::calls();
        self.calm().await?;
        self.settle_accounts().await?;
        Ok(calls)
    }

    /// The faults stop; everything must come to rest as Git asks, with what an operator does about what he is told.
    pub async fn calm(&mut self) -> Result<(), String> {
        faults::disarm();
        self.fill(false);
        if self.other.is_some() {
            // A person stops one of the two; which one is chance.
            if self.below(2) == 0 {
                self.switch();
            }
            self.other = None;
            self.say("calm: one of the two daemons is stopped");
        }
        if self.away {
            self.step(Step::Unreachable).await;
        }
        for stack in ["*", "*env-prod*", "*svc-web-beta*", "*svc-web-prod*"] {
            let none = Failure {
                stack: stack.into(),
                logical: "Alarm".into(),
                reason: String::new(),
                times: None,
                phase: isoform::local::Phase::Make,
            };
            self.world.script(&none).await.unwrap();
        }
        if self.built.is_none() {
            self.start().await?;
        }
        if self.frozen {
            self.step(Step::Freeze).await;
        }
        let _ = std::fs::remove_file(self.config.state.join("FREEZE"));
        let number = self.commits.len() as u64 + 1;
        let model = Model {
            environment: number,
            service: number,
            stacks: ["a", "b", "data"].map(|n| (n.to_owned(), number)).into(),
            broken: false,
        };
        self.commit(model.clone(), None);
        self.say("calm: everything is asked for once more");
        let ana = person();
        // Nobody is known where the first commit was never read.
        let _ = self
            .line()
            .ok_or("no daemon")?
            .resume(&Selector::All, &ana)
            .await;
        for round in 0..300 {
            self.steps += 1;
            if self.forked {
                self.say("calm: the state is rebuilt, as it says");
                self.forget();
                self.start().await?;
                let _ = self
                    .line()
                    .ok_or("no daemon")?
                    .resume(&Selector::All, &ana)
                    .await;
            }
            let line = self.line().ok_or("no daemon")?;
            self.look().await;
            if round % 10 == 0
                && let Err(error) = line.sweep().await
                && !matches!(error, isoform::reconcile::Error::Forked(_))
            {
                return Err(error.to_string());
            }
            while self.work().await {
                if self.built.is_none() {
                    return Err("it died without a fault".into());
                }
            }
            self.clock.advance(Duration::from_secs(90));
            if self.at_rest(&line, &model).await? {
                return self.holds(&model).await;
            }
            if round % 5 == 4 {
                self.nobody_is_forgotten(&line).await?;
                // In some stories nobody is there to try again what failed, or to let a wave go on, until it is late: the
                // newest commit has to come through by itself wherever nothing keeps it.
                let alone = self.seed.is_multiple_of(3) && round < ALONE;
                self.help(&line, alone).await;
            }
        }
        let line = self.line().ok_or("no daemon")?;
        let estate = line.estate().await.map_err(|e| e.to_string())?;
        let bad: Vec<String> = estate
            .targets
            .iter()
            .filter(|t| t.condition.result != SyncResult::InSync)
            .map(|t| format!("{} {}: {}", t.address, t.condition, t.condition.detail))
            .collect();
        Err(format!(
            "it does not come to rest: {bad:#?} refused: {:?}",
            estate.refused
        ))
    }

    /// Asks everybody, where nothing is due: whoever may go on has been woken before, so this changes nothing in the world.
    ///
    /// Without it a wake that was lost is hidden by whatever asks everybody the next time: a retry, a resume, a start.
    async fn nobody_is_forgotten(&mut self, line: &Arc<Line>) -> Result<(), String> {
        while self.work().await {}
        let estate = line.estate().await.map_err(|e| e.to_string())?;
        let in_motion = |t: &TargetReport| {
            matches!(
                t.condition.result,
                SyncResult::Planning
                    | SyncResult::Applying
                    | SyncResult::CleaningUp
                    | SyncResult::Unknown
            )
        };
        // Who is in motion is asked in its own time, and what it comes to wakes others.
        if self.forked || estate.targets.iter().any(in_motion) {
            return Ok(());
        }
        let moved =
            |e: &&faults::Effect| e.taken && matches!(e.call, "propose" | "execute" | "delete");
        let before = faults::ledger().iter().filter(moved).count();
        for target in &estate.targets {
            // Who was denied a call waits for a person, and says so.
            let stalled = matches!(
                target.condition.reason,
                Reason::ChangeSetFailed | Reason::Internal
            );
            if !stalled {
                line.enqueue(&target.uid, Duration::ZERO);
            }
        }
        while self.work().await {}
        let ledger = faults::ledger();
        match ledger.iter().filter(moved).nth(before) {
            Some(effect) => Err(format!(
                "it could go on, and nobody had woken it: {} {}",
                effect.call, effect.what
            )),
            None => Ok(()),
        }
    }

    /// What an operator does about what he is told; where he is alone, nothing about what has failed.
    async fn help(&mut self, line: &Arc<Line>, alone: bool) {
        let ana = person();
        let _ = line.approve(&ApproveWhat::Source("s".into()), &ana).await;
        let Ok(estate) = line.estate().await else {
            return;
        };
        for target in estate.targets {
            let address = target.address.to_string();
            let one = Selector::Targets(address.clone());
            let condition = target.condition;
            self.forked |= condition.detail.contains(FORKED);
            match (condition.result, condition.reason) {
                (_, Reason::Approval | Reason::PruneBudget) => {
                    let what = ApproveWhat::Review {
                        target: address.clone(),
                        review: None,
                        opens: false,
                    };
                    let _ = line.approve(&what, &ana).await;
                }
                (_, Reason::BlastRadius) => {
                    let head = self.head.to_string();
                    let _ = line.approve(&ApproveWhat::Snapshot(head), &ana).await;
                }
                (SyncResult::Drifted, _) => {
                    let _ = line.resolve_drift(&address, true, "calm", &ana).await;
                }
                // A removal that was rejected stays so until somebody thinks better of it.
                (SyncResult::Failed | SyncResult::Stuck, _)
                | (SyncResult::Orphaned, Reason::Rejected)
                    if !alone =>
                {
                    let _ = line.retry(&one, &ana).await;
                }
                (_, Reason::RolloutHalted) if !alone => {
                    let _ = line.resume(&one, &ana).await;
                }
                _ => continue,
            }
            self.say(format!("calm: {address} {condition}"));
        }
    }

    async fn at_rest(&self, line: &Arc<Line>, model: &Model) -> Result<bool, String> {
        let estate = line.estate().await.map_err(|e| e.to_string())?;
        let wanted = model.targets();
        let in_sync = estate
            .targets
            .iter()
            .filter(|t| {
                t.condition.result == SyncResult::InSync
                    && t.serving.as_deref() == Some(self.head.to_string().as_str())
            })
            .filter(|t| wanted.contains_key(&t.address.to_string()))
            .count();
        // Whoever waits for the end of a look must not wait for ever.
        let ended = line.newest().is_none_or(|s| line.has_ended(s.id));
        Ok(ended && in_sync == wanted.len() && estate.targets.len() == wanted.len())
    }

    /// The world is what the last commit asks for, asked without the daemon.
    async fn holds(&mut self, model: &Model) -> Result<(), String> {
        let line = self.line().ok_or("no daemon")?;
        let estate = line.estate().await.map_err(|e| e.to_string())?;
        for target in estate.targets {
            let address = target.address.to_string();
            let place = if address.ends_with("@us-east-1") {
                "us"
            } else if address.ends_with("@eu-west-1") {
                "eu"
            } else {
                "beta"
            };
            let name = target.stack_name.ok_or("a target without a stack")?;
            let there = self
                .engine(place)
                .describe(&StackRef::Name(name.parse().unwrap()))
                .await
                .map_err(|e| e.to_string())?
                .ok_or(format!("{address} is in sync and has no stack"))?;
            let shown = there.outputs.get("Number").cloned().unwrap_or_default();
            let wanted = &model.targets()[&address];
            if shown != *wanted {
                return Err(format!(
                    "{address} is in sync and shows {shown}, not {wanted}"
                ));
            }
        }
        Ok(())
    }
}
