//! What people ask for in comments. Who may is asked of the forge at that moment; every answer is in the log.

use std::time::Duration;

use super::Place;
use super::state::Known;
use crate::domain::audit::{Body, Stream};
use crate::domain::deployment::{Endorsed, EventKind};
use crate::domain::forge::{Command, PullComment, Verb, commands};
use crate::domain::model::{Actor, Address};
use crate::domain::plan::Answer;
use crate::port;
use crate::reconcile::{ApproveWhat, Error, Line, OperatorError, Selector};

/// A comment that is older than this when it is first read is not obeyed: nobody remembers what it was about.
const FRESH: Duration = Duration::from_secs(24 * 3600);

impl Line {
    /// Reads new comments and does what they ask for. Returns whether anybody asked for anything.
    pub(super) async fn obey(&self, place: &Place<'_>, known: &mut Known) -> Result<bool, Error> {
        let mut any = false;
        let number = known.pull.number;
        let comments = place.forge.comments(number, known.read).await?;
        for comment in comments {
            // Noted before it is obeyed: what is asked for once is done at most once, also by a daemon that dies.
            let before = std::mem::replace(&mut known.read, comment.id);
            if comment.id <= before {
                known.read = before;
                continue;
            }
            let asked = self.asked(place, &comment);
            if asked.is_empty() {
                continue;
            }
            any = true;
            let permission = match place.forge.permission(&comment.author).await {
                Ok(permission) => permission,
                Err(error @ (port::Error::Denied(_) | port::Error::Unsupported(_))) => {
                    self.keep(place.name, known).await?;
                    let said = format!(
                        "the forge does not say what {} may: {error}",
                        comment.author.login
                    );
                    self.answer(place, known, &comment, "command", false, said)
                        .await?;
                    continue;
                }
                Err(error) => {
                    // Asked again: nothing of it was done.
                    known.read = before;
                    return Err(error.into());
                }
            };
            self.keep(place.name, known).await?;
            for command in asked {
                let (name, outcome) = match command {
                    Ok(command) => {
                        let least = least(place, command.verb());
                        let outcome = match least {
                            Some(least) if permission >= least => {
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
                    Err(wrong) => ("command".to_owned(), Err(wrong)),
                };
                let (done, said) = match outcome {
                    Ok(said) => (true, said),
                    Err(said) => (false, said),
                };
                self.answer(place, known, &comment, &name, done, said)
                    .await?;
            }
        }
        self.keep(place.name, known).await?;
        Ok(any)
    }

    fn asked(&self, place: &Place<'_>, comment: &PullComment) -> Vec<Result<Command, String>> {
        let old = self.clock.now().since(comment.created) > FRESH;
        if comment.author.bot || comment.edited || old {
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
        done: bool,
        says: String,
    ) -> Result<(), Error> {
        let says = crate::telemetry::redact(&says);
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
            Command::Approve { target, review } => {
                if known.is_open() {
                    self.endorse(place, known, target, review, &actor).await
                } else {
                    let what = ApproveWhat::Review {
                        target: target.to_string(),
                        review: Some(review.clone()),
                        opens: false,
                    };
                    self.approve(&what, &actor).await
                }
            }
            Command::Hold { target, reason } => {
                let which = Selector::Targets(target.to_string());
                self.suspend(&which, reason, None, &actor).await
            }
            Command::Resume { target } => {
                let which = Selector::Targets(target.to_string());
                self.resume(&which, &actor).await
            }
            Command::Rollback { target, reason } => {
                self.rollback(&target.to_string(), None, reason, &actor)
                    .await
            }
            Command::Why { target } => self.why(target).await,
        };
        match outcome {
            Ok(said) => Ok(Ok(said)),
            Err(OperatorError::Line(error)) => Err(error),
            Err(refused) => Ok(Err(refused.to_string())),
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
        target: &Address,
        review: &str,
        actor: &Actor,
    ) -> Result<String, OperatorError> {
        let not_now = |said: String| Err(OperatorError::NotNow(said));
        let Some(shown) = known.shown_of(target) else {
            return not_now(format!(
                "nothing of {target} was shown for {}",
                known.pull.head.short()
            ));
        };
        let (Some(uid), Some(digest)) = (&shown.uid, &shown.review) else {
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
        self.check_author(place, known, uid, actor)?;
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
        uid: &crate::domain::model::TargetUid,
        actor: &Actor,
    ) -> Result<(), OperatorError> {
        let placed = self.history(uid).and_then(|h| h.placed.clone());
        let placement = placed.and_then(|p| self.settings.placements.get(&p.placement));
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

    async fn why(&self, target: &Address) -> Result<String, OperatorError> {
        let (uid, address) = self.one(&target.to_string())?;
        let Some(report) = self.target(&uid, false).await? else {
            return Err(OperatorError::NoSuch(format!("{address} is not there")));
        };
        let detail = match report.condition.detail.as_str() {
            "" => String::new(),
            detail => format!(": {detail}"),
        };
        Ok(format!("{}{detail} · {}", report.condition, report.help))
    }
}

fn least(place: &Place<'_>, verb: Verb) -> Option<crate::domain::forge::Permission> {
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
