//! Pull requests: shown before they are merged, and followed afterwards.
//!
//! A preview is the line with another end: the merge is made in memory, compared, asked of CloudFormation with change sets
//! that are discarded, and written to the forge. It is level-triggered as everything here: a webhook or a poll says what to
//! look at; what is true is asked of the forge and of Git. What the forge is to show lies in an outbox first, so that a forge
//! that is down costs a comment that is late, and never a deployment.

mod commands;
mod gates;
mod look;
mod merged;
mod outbox;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use state::Known;
use tokio::sync::watch;

use super::{Error, Line};
use crate::config;
use crate::domain::forge::{PullRequest, PullState};
use crate::domain::model::{SourceName, Timestamp};
use crate::git::Mirror;
use crate::port::{self, Disposition, Forge};

/// How long what changes often is left to settle before pull requests are looked at again.
const SOON: Duration = Duration::from_secs(2);
/// How often it is written how a merge goes: forges count what is written.
const FOLLOWS: Duration = Duration::from_secs(5);
/// How long a forge that fails is left alone, at first and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// How long it is remembered what was read of a pull request that is gone: longer than any comment is obeyed.
const GONE: Duration = Duration::from_secs(2 * 24 * 3600);
/// How often a forge is asked for deliveries that failed.
const REDELIVERED: Duration = Duration::from_secs(3600);
/// How many troubles of one forge are told.
const TOLD: usize = 5;
/// What was changed so lately is looked at in any case.
const LATELY: Duration = Duration::from_secs(60);
/// How long a forge is left alone at most that does not answer at all.
const DOWN: Duration = Duration::from_secs(60);
/// How long a merged pull request is followed. What waits longer is told by `isoform status`.
const FOLLOWED: Duration = Duration::from_secs(14 * 24 * 3600);

/// What is to be looked at, by source.
#[derive(Default)]
pub(super) struct Held {
    sources: Mutex<BTreeMap<SourceName, Due>>,
    wake: watch::Sender<u64>,
}

#[derive(Default)]
struct Due {
    /// Whether the forge is asked which pull requests there are.
    all: bool,
    /// These in any case; with what the forge's list has just told of them.
    numbers: BTreeMap<u64, Option<PullRequest>>,
    /// When it was asked last, by the time that only goes forward.
    listed: Option<Timestamp>,
    /// Up to when it was asked for deliveries that failed.
    redelivered: Option<Timestamp>,
    /// Failures in a row.
    failed: u32,
    /// Why the last round could not be ended.
    trouble: Option<String>,
    /// What failed for itself alone, and when it is tried again, by the time that only goes forward.
    off: BTreeMap<String, Off>,
    /// Comments that are older were written before this daemon looked at the source.
    since: Option<Timestamp>,
    /// What is known, once it was read.
    known: Option<BTreeMap<u64, Known>>,
}

/// Something that is left alone for a while.
#[derive(Clone)]
struct Off {
    why: String,
    times: u32,
    until: Timestamp,
}

/// Tells whether everything else would fail in the same way: nothing is gained by asking for the next.
fn is_general(error: &port::Error) -> bool {
    matches!(
        error,
        port::Error::Limited(_)
            | port::Error::Throttled
            | port::Error::Unavailable(_)
            | port::Error::Busy(_)
    )
}

/// How long something is left alone that has failed so often.
fn patience(times: u32) -> Duration {
    let (least, most) = PATIENCE;
    least.saturating_mul(1 << times.min(10)).min(most)
}

impl Held {
    fn of(&self) -> MutexGuard<'_, BTreeMap<SourceName, Due>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source with its forge.
struct Place<'a> {
    name: &'a SourceName,
    source: &'a config::Source,
    config: &'a config::Forge,
    forge: Arc<dyn Forge>,
}

impl Place<'_> {
    /// The word by which isoform finds its comment again.
    fn marker(&self, line: &Line, number: u64) -> String {
        format!(
            "{}:{}:{number}",
            line.settings.installation.short(),
            self.name
        )
    }

    /// Room for a preview: bytes are at least as many as characters.
    fn budget(&self) -> usize {
        self.forge.comment_limit().min(60_000)
    }
}

impl Line {
    /// Says that something of a pull request is new; without a number, that any may be.
    pub fn hint_pull(&self, source: &SourceName, number: Option<u64>) {
        {
            let mut sources = self.pulls.of();
            let due = sources.entry(source.clone()).or_default();
            match number {
                Some(number) => {
                    due.numbers.insert(number, None);
                }
                None => due.all = true,
            }
        }
        self.pulls.wake.send_modify(|hints| *hints += 1);
    }

    /// Tells whenever something of a pull request may be new.
    pub fn pull_hints(&self) -> watch::Receiver<u64> {
        self.pulls.wake.subscribe()
    }

    /// Does what is due at the forge of a source. Returns when to come again at the latest.
    pub async fn tend_pulls(self: &Arc<Self>, source: &SourceName) -> Result<Duration, Error> {
        let Some(place) = self.place(source) else {
            return Ok(PATIENCE.1);
        };
        let every = place.config.poll;
        match self.round(&place).await {
            Ok(wait) => {
                let mut sources = self.pulls.of();
                let due = sources.entry(source.clone()).or_default();
                (due.failed, due.trouble) = (0, None);
                Ok(wait.unwrap_or(every).min(every))
            }
            Err(Error::Port(error)) => Ok(self.put_off(source, &error)),
            Err(error) => Err(error),
        }
    }

    fn place<'a>(&'a self, name: &'a SourceName) -> Option<Place<'a>> {
        let source = self.settings.sources.get(name)?;
        Some(Place {
            name,
            source,
            config: source.forge.as_ref()?,
            forge: self.ports.forge(name)?,
        })
    }

    /// Decides how long a forge is left alone that did not answer.
    fn put_off(&self, source: &SourceName, error: &port::Error) -> Duration {
        let failed = {
            let mut sources = self.pulls.of();
            let due = sources.entry(source.clone()).or_default();
            due.failed = due.failed.saturating_add(1);
            due.trouble = Some(error.to_string());
            due.failed
        };
        if failed == 1 {
            tracing::warn!(source.name = %source, "the forge: {error}; what is deployed does not wait for it");
        }
        match error.disposition() {
            Disposition::WaitFor(wait) => wait.max(Duration::from_secs(1)),
            // Woken by hints it fails more often than it waits: the wait has a bound of its own.
            Disposition::Retry | Disposition::Stall => patience(failed).min(DOWN),
        }
    }

    /// One round: what there is, what is new of it, what was merged, and what the forge was not told yet.
    async fn round(self: &Arc<Self>, place: &Place<'_>) -> Result<Option<Duration>, Error> {
        self.read_known(place).await?;
        // First what is old: an answer that is late is better than a preview that is.
        self.send_posts(place).await?;
        self.list(place).await?;
        loop {
            let next = {
                let mut sources = self.pulls.of();
                let due = sources.entry(place.name.clone()).or_default();
                due.numbers.pop_first()
            };
            let Some((number, told)) = next else { break };
            let tended = self.tend_one(place, number, told).await;
            self.bear(place, number, tended)?;
            self.send_posts(place).await?;
            if self.stop.is_cancelled() {
                return Ok(None);
            }
        }
        let soon = self.look_at_old(place).await?;
        self.send_posts(place).await?;
        Ok(soon)
    }

    /// Bears an error that is of one pull request alone: it is left alone for a while, and stops no other.
    fn bear(&self, place: &Place<'_>, number: u64, tended: Result<(), Error>) -> Result<(), Error> {
        match tended {
            Ok(()) => {
                self.is_well(place, &format!("pull/{number}"));
                Ok(())
            }
            Err(Error::Port(error)) if !is_general(&error) => {
                self.leave(place, &format!("pull/{number}"), &error);
                Ok(())
            }
            Err(error) => {
                let mut sources = self.pulls.of();
                let due = sources.entry(place.name.clone()).or_default();
                due.numbers.entry(number).or_insert(None);
                Err(error)
            }
        }
    }

    /// Leaves something alone for a time that grows.
    fn leave(&self, place: &Place<'_>, what: &str, error: &port::Error) {
        let now = self.clock.steady();
        let mut sources = self.pulls.of();
        let due = sources.entry(place.name.clone()).or_default();
        let times = due.off.get(what).map_or(1, |o| o.times.saturating_add(1));
        let until = now.plus(patience(times));
        let why = error.to_string();
        due.off.insert(what.to_owned(), Off { why, times, until });
        drop(sources);
        if times == 1 {
            tracing::warn!(source.name = %place.name, "{what}: {error}; it is tried again, and holds up nothing else");
        }
    }

    /// Says what forges do not do, for people.
    pub(super) fn forge_troubles(&self) -> BTreeMap<SourceName, Vec<String>> {
        let mut all = BTreeMap::new();
        for (source, due) in self.pulls.of().iter() {
            let whole = due.trouble.iter().cloned();
            let single = due
                .off
                .iter()
                .map(|(what, off)| format!("{what}: {}", off.why));
            let told: Vec<String> = whole.chain(single).take(TOLD).collect();
            if !told.is_empty() {
                all.insert(source.clone(), told);
            }
        }
        all
    }

    fn is_well(&self, place: &Place<'_>, what: &str) {
        let mut sources = self.pulls.of();
        if let Some(due) = sources.get_mut(place.name) {
            due.off.remove(what);
        }
    }

    fn is_left(&self, place: &Place<'_>, what: &str) -> bool {
        let now = self.clock.steady();
        let sources = self.pulls.of();
        let off = sources.get(place.name).and_then(|d| d.off.get(what));
        off.is_some_and(|o| o.until > now)
    }

    /// Reads what is known from the store, once.
    async fn read_known(&self, place: &Place<'_>) -> Result<(), Error> {
        let is_read = |d: &Due| d.known.is_some();
        if self.pulls.of().get(place.name).is_some_and(is_read) {
            return Ok(());
        }
        let mut all = BTreeMap::new();
        let stored = match self.store.pulls(place.name).await {
            Ok(stored) => Some(stored),
            Err(error) => {
                tracing::warn!(
                    "what was known of pull requests cannot be read, and is asked anew: {error}"
                );
                None
            }
        };
        let mut whole = stored.is_some();
        for (number, body) in stored.into_iter().flatten() {
            // A release that knows another shape looks anew.
            match serde_json::from_slice::<Known>(&body) {
                Ok(known) => {
                    all.insert(number, known);
                }
                Err(_) => whole = false,
            }
        }
        let since = self.watched_since(place, whole).await?;
        let mut sources = self.pulls.of();
        let due = sources.entry(place.name.clone()).or_default();
        due.known = Some(all);
        due.since = Some(since);
        due.all = true;
        Ok(())
    }

    /// Returns since when pull requests of a source are known without a gap. What was written before is obeyed by nobody:
    /// it may have been obeyed already.
    async fn watched_since(&self, place: &Place<'_>, whole: bool) -> Result<Timestamp, Error> {
        let name = format!("pulls-since/{}", place.name);
        let stored = self.store.meta(&name).await?;
        let stored = stored.and_then(|t| t.parse().ok()).map(Timestamp);
        if let Some(since) = stored.filter(|_| whole) {
            return Ok(since);
        }
        let now = self.clock.now();
        self.store.set_meta(&name, &now.0.to_string()).await?;
        Ok(now)
    }

    fn known_pulls(&self, source: &SourceName) -> BTreeMap<u64, Known> {
        let sources = self.pulls.of();
        let due = sources.get(source);
        due.and_then(|d| d.known.clone()).unwrap_or_default()
    }

    fn known_pull(&self, source: &SourceName, number: u64) -> Option<Known> {
        let sources = self.pulls.of();
        sources.get(source)?.known.as_ref()?.get(&number).cloned()
    }

    async fn keep(&self, source: &SourceName, known: &Known) -> Result<(), Error> {
        let number = known.pull.number;
        let body = serde_json::to_vec(known)
            .map_err(|e| Error::Broken(format!("writing a pull request: {e}")))?;
        self.store.keep_pull(source, number, &body).await?;
        let mut sources = self.pulls.of();
        let due = sources.entry(source.clone()).or_default();
        let all = due.known.get_or_insert_default();
        all.insert(number, known.clone());
        Ok(())
    }

    /// Lets go of a pull request. What was read of it is kept for a while.
    async fn forget(&self, place: &Place<'_>, number: u64) -> Result<(), Error> {
        self.store
            .unpost(place.name, &outbox::items(number))
            .await?;
        if let Some(mut known) = self.known_pull(place.name, number)
            && known.gone.is_none()
        {
            let read = known.read;
            known = Known::new(known.pull);
            known.read = read;
            known.gone = Some(self.clock.now());
            self.keep(place.name, &known).await?;
        }
        let path = self.pull_mirror(place.name);
        let forgotten =
            tokio::task::spawn_blocking(move || Mirror::forget_pull(&path, number)).await;
        if let Ok(Err(error)) = forgotten {
            tracing::debug!("a head stays in the mirror of pull requests: {error}");
        }
        Ok(())
    }

    /// Forgets what has been gone for longer than any comment is obeyed.
    async fn bury(&self, place: &Place<'_>, number: u64) -> Result<(), Error> {
        self.store.forget_pull(place.name, number).await?;
        let mut sources = self.pulls.of();
        if let Some(all) = sources.get_mut(place.name).and_then(|d| d.known.as_mut()) {
            all.remove(&number);
        }
        Ok(())
    }

    /// Heads of pull requests lie apart from what is deployed.
    fn pull_mirror(&self, source: &SourceName) -> PathBuf {
        let folder = self.settings.state.join("pulls");
        folder.join(format!("{source}.git"))
    }

    /// Asks the forge which pull requests there are, where that is due.
    async fn list(&self, place: &Place<'_>) -> Result<(), Error> {
        let now = self.clock.steady();
        {
            let sources = self.pulls.of();
            let due = sources.get(place.name);
            let fresh =
                |d: &Due| !d.all && d.listed.is_some_and(|at| now.since(at) < place.config.poll);
            if due.is_some_and(fresh) {
                return Ok(());
            }
        }
        let since = self.clock.now();
        let first = self
            .pulls
            .of()
            .get(place.name)
            .is_none_or(|d| d.listed.is_none());
        let open = place.forge.open_pulls(&place.source.remote.branch).await?;
        let known = self.known_pulls(place.name);
        let there: BTreeSet<u64> = open.iter().map(|p| p.number).collect();
        let left = known
            .iter()
            .filter(|(n, k)| !k.over && k.gone.is_none() && !there.contains(n));
        let mut due: BTreeMap<u64, Option<PullRequest>> = left.map(|(n, _)| (*n, None)).collect();
        for pull in open {
            let seen = known.get(&pull.number);
            // Forges tell the time of a change in seconds: two in one second look like one.
            let lately = pull.updated.is_none_or(|at| since.since(at) < LATELY);
            let new = first || lately || seen.is_none_or(|k| k.pull != pull || k.gone.is_some());
            if new && !self.is_left(place, &format!("pull/{}", pull.number)) {
                due.insert(pull.number, Some(pull));
            }
        }
        {
            let mut sources = self.pulls.of();
            let entry = sources.entry(place.name.clone()).or_default();
            entry.all = false;
            entry.listed = Some(now);
            for (number, told) in due {
                entry.numbers.entry(number).or_insert(told);
            }
        }
        self.sweep_deliveries(place, since).await;
        Ok(())
    }

    /// Lets the forge send again what it could not deliver while nobody heard.
    async fn sweep_deliveries(&self, place: &Place<'_>, now: Timestamp) {
        if place.config.secrets.is_empty() {
            return;
        }
        let since = {
            let mut sources = self.pulls.of();
            let due = sources.entry(place.name.clone()).or_default();
            let before = due.redelivered;
            if before.is_some_and(|b| now.since(b) < REDELIVERED) {
                return;
            }
            due.redelivered = Some(now);
            before.unwrap_or(Timestamp(now.0 - 3 * 24 * 3_600_000))
        };
        match place.forge.redeliver(since).await {
            Ok(0) | Err(port::Error::Unsupported(_)) => {}
            Ok(count) => {
                tracing::info!(source.name = %place.name, "{count} missed deliveries are sent again");
            }
            Err(error) => tracing::debug!("missed deliveries are not sent again: {error}"),
        }
    }

    async fn tend_one(
        self: &Arc<Self>,
        place: &Place<'_>,
        number: u64,
        told: Option<PullRequest>,
    ) -> Result<(), Error> {
        let pull = match told {
            Some(pull) => pull,
            None => match place.forge.pull(number).await {
                Ok(pull) => pull,
                Err(port::Error::NotFound(_)) => return self.forget(place, number).await,
                Err(error) => return Err(error.into()),
            },
        };
        if pull.base != place.source.remote.branch {
            return match self.known_pull(place.name, number) {
                Some(_) => self.forget(place, number).await,
                None => Ok(()),
            };
        }
        let mut known = match self.known_pull(place.name, number) {
            Some(mut known) => {
                known.pull = pull;
                if known.pull.state != PullState::Closed {
                    known.gone = None;
                }
                known
            }
            // What was closed before anybody looked at it is nobody's business.
            None if pull.state == PullState::Closed => return Ok(()),
            None => Known::new(pull),
        };
        if known.pull.state == PullState::Closed {
            return self.forget(place, number).await;
        }
        if matches!(known.pull.state, PullState::Merged { .. }) && known.merged.is_none() {
            if known.shown.is_none() {
                // It was never shown: there is nothing to follow.
                return self.forget(place, number).await;
            }
            known.merged = Some(self.clock.now());
        }
        self.keep(place.name, &known).await?;
        let asked = self.obey(place, &mut known).await?;
        match known.pull.state {
            PullState::Open if asked.done || known.is_stranger() || self.is_old(place, &known) => {
                self.look_at_pull(place, &mut known).await
            }
            PullState::Merged { .. } if !known.over => self.follow_merge(place, &mut known).await,
            // Only the answers are other ones.
            _ if asked.answered => self.post_answers(place, &known).await,
            _ => Ok(()),
        }
    }

    /// Looks again at what has become old: the base moved, or a stack did. Returns when to look again.
    async fn look_at_old(self: &Arc<Self>, place: &Place<'_>) -> Result<Option<Duration>, Error> {
        let Some(newest) = self.newest() else {
            return Ok(Some(SOON));
        };
        let known = self.known_pulls(place.name);
        let follows = known.values().any(|k| k.merged.is_some() && !k.over);
        let now = self.clock.now();
        for (number, mut known) in known.clone() {
            let left = |since: Timestamp, time| now.since(since) > time;
            if known.gone.is_some_and(|at| left(at, GONE)) {
                self.bury(place, number).await?;
            } else if known.merged.is_some_and(|at| left(at, FOLLOWED)) {
                self.forget(place, number).await?;
            } else if known.merged.is_some() && !known.over {
                let followed = self.follow_merge(place, &mut known).await;
                self.bear(place, number, followed)?;
            }
        }
        // While something moves, what is shown would be old before it is read.
        if !self.has_ended(newest.id) {
            return Ok(Some(SOON));
        }
        for (number, known) in known {
            // Who was let in by nobody is never old.
            let old = known.is_open() && !known.is_stranger() && self.is_old(place, &known);
            if old && !self.is_left(place, &format!("pull/{number}")) {
                // The forge is asked first: what moved the base may have been this very one.
                let tended = self.tend_one(place, number, None).await;
                self.bear(place, number, tended)?;
                self.send_posts(place).await?;
            }
        }
        Ok(follows.then_some(FOLLOWS))
    }

    /// Tells whether what is shown of a pull request is not what would be shown now, and whether that is worth a try.
    fn is_old(&self, place: &Place<'_>, known: &Known) -> bool {
        let newest = self.newest();
        let Some(base) = newest.as_ref().and_then(|s| s.revisions.get(place.name)) else {
            return known.shown.is_none();
        };
        let now = (known.pull.head.clone(), base.clone(), self.estate_mark());
        if let Some(failed) = &known.failed
            && failed.at == now
            && self.clock.now() < failed.again
        {
            return false;
        }
        let shown = known.shown.as_ref();
        shown.is_none_or(|s| (&s.head, &s.base, &s.mark) != (&now.0, &now.1, &now.2))
    }
}
