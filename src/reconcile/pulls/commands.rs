//! What people ask for in comments. Who may is asked of the forge at that moment; every answer is in the log.

use std::time::Duration;

use super::Place;
use super::state::Known;
use crate::domain::audit::{Body, Stream};
use crate::domain::deployment::{Endorsed, EventKind};
use crate::domain::forge::{Command, Permission, PullComment, Verb, commands};
use crate::domain::model::{Actor, Address, PlacementName, TargetUid};
use crate::domain::plan::Answer;
use crate::reconcile::{ApproveWhat, Error, Line, OperatorError, Selector};

/// A comment that is older than this when it is first read is not obeyed: nobody remembers what it was about.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// Most characters of an answer.
const SAYS: usize = 600;

/// What came of reading comments.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked {
    /// Something was done: what is shown may be another.
    pub done: bool,
    /// Somebody was answered.
    pub answered: bool,
}

impl Line {
    /// Reads new comments and does what they ask for.
    pub(super) async fn obey(&self, place: &Place<'_>, known: &mut Known) -> Result<Asked, Error> {
        let mut came = Asked::default();
        let number = known.pull.number;
        let comments = place.forge.comments(number, known.read).await?;
        for comment in comments {
            if comment.id <= known.read {
                continue;
            }
            let before = known.read;
            let asked = self.asked(place, &comment);
            if asked.is_empty() {
                known.read = comment.id;
                continue;
            }
            let permission = match place.forge.permission(&comment.author).await {
                Ok(permission) => Ok(permission),
                Err(error) if super::is_general(&error) => return Err(error.into()),
                Err(error) => Err(format!(
                    "the forge does not say what {} may: {error}",
                    comment.author.login
                )),
            };
            // Noted before it is obeyed: what is asked for once is done at most once, also by a daemon that dies.
            known.read = comment.id.max(before);
            self.keep(place.name, known).await?;
            for command in asked {
                let (name, outcome) = match (&permission, command) {
                    // Whoever may do nothing here is not answered: each answer stays in the log.
                    (Ok(permission), _) if !may_anything(place, *permission) => continue,
                    (Err(unknown), Ok(command)) => (command.to_string(), Err(unknown.clone())),
                    (Err(_), Err(_)) => continue,
                    (Ok(permission), Ok(command)) => {
                        let outcome = match least(place, command.verb()) {
                            Some(least) if *permission >= least => {
                                self.carry_out(place, known, &comment, &command).await?
                            }
                            Some(least) => Err(format!(
                                "{} has {permission} here, and `{}` wants {least}",
                                comment.author.login,
                                command.verb()
                            )),
                            None => Err(format!(
                                "nobody may `{}` in comments here: `forge.may` of the source says who may",
                                command.verb()
                            )),
                        };
                        (command.to_string(), outcome)
                    }
                    (Ok(_), Err(wrong)) => ("command".to_owned(), Err(wrong)),
                };
                came.answered = true;
                came.done |= outcome.is_ok();
                self.answer(place, known, &comment, &name, outcome).await?;
            }
        }
        self.keep(place.name, known).await?;
        Ok(came)
    }

    fn asked(&self, place: &Place<'_>, comment: &PullComment) -> Vec<Result<Command, String>> {
        let old = self.clock.now().since(comment.created) > FRESH;
        let since = self.pulls.of().get(place.name).and_then(|d| d.since);
        // Forges tell whole seconds.
        let before = since.is_none_or(|s| comment.created.0 / 1000 < s.0 / 1000);
        if comment.author.bot || comment.edited || old || before {
            return Vec::new();
        }
        let asked = commands(&comment.body);
        if !asked.is_empty() {
            tracing::info!(source.name = %place.name, "{} asks for something in a comment", comment.author.login);
        }
        asked
    }

    async fn answer(
        &self,
        place: &Place<'_>,
        known: &mut Known,
        comment: &PullComment,
        command: &str,
        outcome: Result<String, String>,
    ) -> Result<(), Error> {
        let done = outcome.is_ok();
        let (Ok(says) | Err(says)) = outcome;
        let says: String = crate::telemetry::redact(&says).chars().take(SAYS).collect();
        let body = Body::Commanded {
            pull: known.pull.number,
            comment: comment.id,
            command: command.to_owned(),
            done,
            answer: says.clone(),
        };
        let actor = actor(place, comment);
        self.log(Stream::Source(place.name.clone()), actor, body)
            .await?;
        known.answer(Answer {
            who: comment.author.login.clone(),
            command: command.to_owned(),
            done,
            says,
            at: self.clock.now(),
        });
        self.keep(place.name, known).await
    }

    async fn carry_out(
        &self,
        place: &Place<'_>,
        known: &mut Known,
        comment: &PullComment,
        command: &Command,
    ) -> Result<Result<String, String>, Error> {
        let actor = actor(place, comment);
        let outcome = match command {
            Command::Preview { head } => return Ok(self.let_in(known, head.as_deref())),
            Command::Approve { target, .. }
            | Command::Hold { target, .. }
            | Command::Resume { target }
            | Command::Rollback { target, .. }
            | Command::Why { target } => match self.own(place, target) {
                Ok(own) => self.say(place, known, command, &own, &actor).await,
                Err(error) => Err(error),
            },
        };
        match outcome {
            Ok(said) => Ok(Ok(said)),
            // Said to whoever asked: part of it may have been done, and nobody does it again.
            Err(OperatorError::Line(error)) => {
                Ok(Err(format!("it may or may not have been done: {error}")))
            }
            Err(refused) => Ok(Err(refused.to_string())),
        }
    }

    async fn say(
        &self,
        place: &Place<'_>,
        known: &Known,
        command: &Command,
        own: &Own,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        let which = || Selector::Targets(own.address.to_string());
        let name = own.address.to_string();
        match command {
            Command::Preview { .. } => Ok(String::new()),
            Command::Approve { review, .. } => {
                self.check_author(place, known, own, actor)?;
                if known.is_open() {
                    return self.endorse(place, known, own, review, actor).await;
                }
                let shown = known.shown.iter().flat_map(|s| &s.targets);
                if !shown.into_iter().any(|t| t.address == own.address) {
                    return Err(OperatorError::NotNow(format!(
                        "this pull request does not change {name}"
                    )));
                }
                let what = ApproveWhat::Review {
                    target: name,
                    review: Some(review.clone()),
                    opens: false,
                };
                self.approve(&what, actor).await
            }
            Command::Hold { reason, .. } => self.suspend(&which(), reason, None, actor).await,
            Command::Resume { .. } => self.resume(&which(), actor).await,
            Command::Rollback { reason, .. } => self.rollback(&name, None, reason, actor).await,
            Command::Why { .. } => self.why(own).await,
        }
    }

    /// Finds a target of the source itself: what somebody may in one repository is nothing in another.
    fn own(&self, place: &Place<'_>, address: &Address) -> Result<Own, OperatorError> {
        let asked = self.newest().and_then(|s| {
            let target = s.compiled.targets.get(address)?;
            Some((target.source.clone(), target.placement.name.clone()))
        });
        let uid = self.shared().by_address.get(address).cloned();
        let placed = || {
            let placed = self.history(uid.as_ref()?)?.placed.clone()?;
            Some((placed.source, placed.placement))
        };
        let stands = asked.or_else(placed);
        match (uid, stands) {
            (Some(uid), Some((source, placement))) if source == *place.name => Ok(Own {
                uid,
                address: address.clone(),
                placement,
            }),
            _ => Err(OperatorError::NoSuch(format!(
                "{address} is no target of this repository"
            ))),
        }
    }

    /// Lets the head of another repository in, or only looks again.
    fn let_in(&self, known: &mut Known, head: Option<&str>) -> Result<String, String> {
        let now = &known.pull.head;
        let named = head.is_none_or(|h| now.as_str().starts_with(h));
        if !named {
            return Err(format!(
                "the head is {} now: read it, and name that one",
                now.short()
            ));
        }
        if !known.is_open() {
            return Err("it is merged".into());
        }
        known.tried = None;
        known.failed = None;
        if known.pull.fork {
            if head.is_none() {
                return Err(format!(
                    "it comes from another repository: name the head that you have read, as in `preview {}`",
                    now.short()
                ));
            }
            known.let_in = Some(now.clone());
        }
        Ok(format!("looked at {}", now.short()))
    }

    /// Approves before the merge what was shown of a target, for this head and this review.
    async fn endorse(
        &self,
        place: &Place<'_>,
        known: &Known,
        own: &Own,
        review: &str,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        let target = &own.address;
        let not_now = |said: String| Err(OperatorError::NotNow(said));
        let Some(shown) = known.shown_of(target) else {
            return not_now(format!(
                "nothing of {target} was shown for {}",
                known.pull.head.short()
            ));
        };
        let (uid, Some(digest)) = (&own.uid, &shown.review) else {
            return not_now(format!(
                "what was shown of {target} is worked out by the reference model: it can be approved after the merge, when CloudFormation has answered"
            ));
        };
        if !digest.hex().starts_with(review) {
            return not_now(format!(
                "what was shown of {target} is {}: read it, and name that one",
                digest.short(8)
            ));
        }
        self.check_allowed(uid, target, actor)?;
        let of = Endorsed {
            source: place.name.clone(),
            pull: known.pull.number,
            head: known.pull.head.clone(),
            review: digest.clone(),
        };
        let event = EventKind::Endorsed(of);
        self.record(uid, actor.clone(), event, Vec::new()).await?;
        self.ship().await?;
        Ok(format!(
            "approved {} of {target} at {}; it counts after the merge if nothing of it differs then",
            digest.short(8),
            known.pull.head.short()
        ))
    }

    /// Refuses whoever opened the pull request where the placement wants somebody else.
    fn check_author(
        &self,
        place: &Place<'_>,
        known: &Known,
        own: &Own,
        actor: &Actor,
    ) -> Result<(), OperatorError> {
        let placement = self.settings.placements.get(&own.placement);
        let Some(rule) = placement.map(|p| &p.rule).filter(|r| r.not_author) else {
            return Ok(());
        };
        let author = Actor {
            issuer: place.config.name.clone(),
            subject: known.pull.author.id.clone(),
            via: "pull request".into(),
            display: known.pull.author.login.clone(),
        };
        match rule.people.name(&author) == rule.people.name(actor) {
            true => Err(OperatorError::NotNow(
                "the placement takes no approval from whoever opened the pull request".into(),
            )),
            false => Ok(()),
        }
    }

    async fn why(&self, own: &Own) -> Result<String, OperatorError> {
        let Some(report) = self.target(&own.uid, false).await? else {
            let address = &own.address;
            return Err(OperatorError::NoSuch(format!("{address} is not there")));
        };
        let detail = match report.condition.detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        Ok(format!("{}{detail} · {}", report.condition, report.help))
    }
}

/// A target of the source whose pull request it is.
struct Own {
    uid: TargetUid,
    address: Address,
    placement: PlacementName,
}

/// Tells whether somebody may ask for anything at all.
fn may_anything(place: &Place<'_>, permission: Permission) -> bool {
    let verbs = [
        Verb::Preview,
        Verb::Why,
        Verb::Approve,
        Verb::Hold,
        Verb::Rollback,
    ];
    let mut least = verbs.into_iter().filter_map(|v| least(place, v));
    // Where nobody may do anything, whoever could push is told so.
    let any = least.next().map(|first| least.fold(first, Permission::min));
    permission >= any.unwrap_or(Permission::Write).max(Permission::Read)
}

fn least(place: &Place<'_>, verb: Verb) -> Option<Permission> {
    let may = &place.config.may;
    match verb {
        Verb::Preview => may.preview,
        Verb::Why => may.why,
        Verb::Approve => may.approve,
        Verb::Hold => may.hold,
        Verb::Rollback => may.rollback,
    }
}

fn actor(place: &Place<'_>, comment: &PullComment) -> Actor {
    Actor {
        issuer: place.config.name.clone(),
        subject: comment.author.id.clone(),
        via: "comment".into(),
        display: comment.author.login.clone(),
    }
}
