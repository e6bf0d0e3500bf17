//! What stands in a pull request's comment beside the preview: what can be asked for, what became of it, and, after the
//! merge, how it went.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::comment::{ROWS, code, line_of, plain, short, text};
use super::{Change, Replacement};
use crate::domain::model::{Address, Condition, Digest, SyncResult, Timestamp, counted};

/// A target whose change waits for people.
#[derive(Clone, Debug)]
pub struct Asks {
    /// The target.
    pub address: Address,
    /// The review that an approval binds to.
    pub review: Digest,
    /// How many people must approve.
    pub count: u32,
    /// Who has, in this pull request and for this head.
    pub given: Vec<String>,
}

/// What was answered to somebody who asked in a comment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Who asked.
    pub who: String,
    /// For what.
    pub command: String,
    /// Whether it was done.
    pub done: bool,
    /// What became of it.
    pub says: String,
    /// When.
    pub at: Timestamp,
}

/// What stands below a preview.
#[derive(Clone, Debug, Default)]
pub struct Aside {
    /// What waits for people.
    pub asks: Vec<Asks>,
    /// What is to be known beside the changes.
    pub notes: Vec<String>,
}

/// Writes what stands below a preview.
pub fn aside(aside: &Aside) -> String {
    let mut out = String::new();
    if !aside.asks.is_empty() {
        out.push_str("\n**Waits for people.** To approve before the merge, write one line for each target:\n\n");
        for asks in aside.asks.iter().take(ROWS) {
            let given = match asks.given.as_slice() {
                [] => String::new(),
                some => format!(", approved by {}", text(&some.join(", "))),
            };
            let _ = writeln!(
                out,
                "- {} ({} of {}{given})",
                code(&format!(
                    "/isoform approve {} {}",
                    asks.address,
                    asks.review.short(12).trim_end_matches('…')
                )),
                asks.given.len(),
                asks.count,
            );
        }
        if asks_more(aside.asks.len()) > 0 {
            let _ = writeln!(out, "- and {} more", asks_more(aside.asks.len()));
        }
        out.push_str("\nAn approval counts for this head and this review. A push to the branch voids it; the merge does not.\n");
    }
    if !aside.notes.is_empty() {
        out.push_str("\n**To know**\n\n");
        for note in aside.notes.iter().take(ROWS) {
            let _ = writeln!(out, "- {}", text(note));
        }
    }
    out
}

fn asks_more(count: usize) -> usize {
    count.saturating_sub(ROWS)
}

/// What answers begin with. Nothing of a repository can write it: it would be escaped.
const ASKED: &str = "\n**Asked for**\n\n";
/// The most bytes of answers below a comment.
pub const ANSWERS: usize = 6_000;

/// Writes a comment with other answers below it than it had.
pub fn with_answers(comment: &str, given: &[Answer]) -> String {
    let end = comment.rfind(ASKED).unwrap_or(comment.len());
    let mut out = comment[..end].to_owned();
    answers(&mut out, given);
    out
}

/// Writes a comment for a forge that shows no HTML: what was folded stands open.
pub fn without_html(comment: &str) -> String {
    let open = comment
        .replace("<details><summary>", "\n**")
        .replace("</summary>", "**\n")
        .replace("</details>", "")
        .replace("<sub>", "")
        .replace("</sub>", "");
    // Escaped as HTML in summaries alone.
    open.replace("&lt;", "\\<")
        .replace("&gt;", "\\>")
        .replace("&amp;", "&")
}

fn answers(out: &mut String, answers: &[Answer]) {
    if answers.is_empty() {
        return;
    }
    out.push_str(ASKED);
    for answer in answers {
        let sign = if answer.done { "✅" } else { "❌" };
        let _ = writeln!(
            out,
            "- {sign} {} by {}: {}",
            code(&answer.command),
            text(&answer.who),
            text(&answer.says)
        );
    }
}

/// Writes the comment of a pull request that nobody has let in: one from another repository.
pub fn stranger(marker: &str, head: &str) -> String {
    format!(
        "<!-- isoform-preview:v1:{} -->\n### ⏸ isoform: not looked at\n\nIt comes from another repository, and a preview shows what is deployed. Somebody who may reads it first and writes\n\n{}\n\nThat counts for this head only.\n",
        plain(marker),
        code(&format!("/isoform preview {head}"))
    )
}

/// What stands before what is old. Nothing of a repository can write it: it would be escaped.
const STALE: &str = "\n---\n\n_Stale: what was shown before._\n\n";

/// Writes the comment of a pull request that could not be looked at. What was shown before stands below, and is old.
pub fn stale(marker: &str, head: &str, why: &str, before: Option<&str>) -> String {
    let mut out = format!(
        "<!-- isoform-preview:v1:{} -->\n### ⚠️ isoform: {} could not be looked at\n\n{}\n\nIt is tried again by itself.\n",
        plain(marker),
        code(head),
        text(why)
    );
    // Without its marker: a comment has one. What was stale already goes on standing, and does not stand in itself.
    let rest = before.and_then(|b| match b.split_once(STALE) {
        Some((_, shown)) => Some(shown),
        None => {
            let (_, shown) = b.split_once('\n')?;
            (!shown.starts_with("### ⚠️")).then_some(shown)
        }
    });
    if let Some(rest) = rest {
        let _ = write!(out, "{STALE}{rest}");
    }
    out
}

/// How one target went after a merge.
#[derive(Clone, Debug)]
pub struct Went {
    /// Its wave, from 1: each needs only earlier ones.
    pub wave: usize,
    /// The target.
    pub address: Address,
    /// How it stands.
    pub condition: Condition,
    /// What is to be said beside.
    pub notes: Vec<String>,
    /// What an approval would bind to, where one is waited for.
    pub review: Option<Digest>,
}

/// How a merge went.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    /// A word by which the comment is found again.
    pub marker: &'a str,
    /// The commit that brought it.
    pub commit: &'a str,
    /// Every target that was shown.
    pub targets: Vec<Went>,
    /// The newest signed state of the log: its last entry and the hash of that.
    pub checkpoint: Option<(u64, String)>,
    /// Most bytes.
    pub budget: usize,
}

fn sign(result: SyncResult) -> &'static str {
    match result {
        SyncResult::InSync | SyncResult::NoEffect => "✅",
        SyncResult::Planning | SyncResult::Applying | SyncResult::CleaningUp => "⏳",
        SyncResult::Pending | SyncResult::Held | SyncResult::Orphaned => "⏸",
        SyncResult::Failed | SyncResult::Stuck | SyncResult::Drifted | SyncResult::Foreign => "❌",
        SyncResult::Superseded | SyncResult::Contested | SyncResult::Unknown => "⚠️",
    }
}

impl Outcome<'_> {
    /// Says it in a line: how many went well, how many did not, how many are on their way.
    pub fn verdict(&self) -> String {
        let count = |signs: &[&str]| {
            let of = |w: &&Went| signs.contains(&sign(w.condition.result));
            self.targets.iter().filter(of).count()
        };
        let mut parts = Vec::new();
        for (signs, word) in [
            (&["❌"][..], "failed"),
            (&["⏸"], "waiting"),
            (&["⏳", "⚠️"], "under way"),
            (&["✅"], "in sync"),
        ] {
            let number = count(signs);
            if number > 0 {
                parts.push(format!("{number} {word}"));
            }
        }
        match parts.is_empty() {
            true => "nothing had to change".into(),
            false => format!(
                "{} of {}",
                parts.join(", "),
                counted(self.targets.len(), "target")
            ),
        }
    }

    /// Tells whether every target has come to an end that nobody needs to wait for.
    pub fn is_over(&self) -> bool {
        let over = |w: &Went| matches!(sign(w.condition.result), "✅");
        self.targets.iter().all(over)
    }

    /// Tells whether one has failed.
    pub fn has_failed(&self) -> bool {
        let failed = |w: &Went| sign(w.condition.result) == "❌";
        self.targets.iter().any(failed)
    }
}

/// Writes the comment of a pull request that was merged.
pub fn outcome(outcome: &Outcome<'_>) -> String {
    let head = match (outcome.has_failed(), outcome.is_over()) {
        (true, _) => "❌",
        (_, true) => "✅",
        _ => "⏳",
    };
    let mut out = format!(
        "<!-- isoform-preview:v1:{} -->\n### {head} isoform: {}\n\nmerged as {}\n",
        plain(outcome.marker),
        outcome.verdict(),
        code(outcome.commit)
    );
    if !outcome.targets.is_empty() {
        out.push_str("\n| wave | target | how it stands |\n| --- | --- | --- |\n");
    }
    let most = outcome.budget.saturating_sub(2_000);
    let mut left_out = 0;
    for went in &outcome.targets {
        let mut line = format!(
            "| {} | {} {} | {} {} |\n",
            went.wave,
            sign(went.condition.result),
            code(&went.address.to_string()),
            text(&went.condition.to_string()),
            match went.condition.result {
                SyncResult::InSync | SyncResult::NoEffect => String::new(),
                _ => text(&went.condition.detail),
            }
        );
        if out.len() + line.len() > most {
            left_out += 1;
            continue;
        }
        out.push_str(&std::mem::take(&mut line));
    }
    if left_out > 0 {
        let _ = writeln!(
            out,
            "\n_{} more are left out here; `isoform status` shows them._",
            left_out
        );
    }
    for went in &outcome.targets {
        let mut more = String::new();
        if let Some(review) = &went.review {
            let line = format!(
                "/isoform approve {} {}",
                went.address,
                review.short(12).trim_end_matches('…')
            );
            let _ = writeln!(
                more,
                "\n{} waits: {}",
                code(&went.address.to_string()),
                code(&line)
            );
        }
        for note in &went.notes {
            let _ = writeln!(more, "- {}", text(note));
        }
        if out.len() + more.len() <= most + 1_000 {
            out.push_str(&more);
        }
    }
    if let Some((seq, hash)) = &outcome.checkpoint {
        let _ = writeln!(
            out,
            "\n<sub>audit log signed up to entry {seq}: {}</sub>",
            code(hash)
        );
    }
    out
}

/// Writes changes as lines, to be compared with those of another review.
pub fn change_lines(changes: &[Change]) -> Vec<String> {
    let mut lines = Vec::new();
    for change in changes {
        lines.push(line_of(change));
        for property in &change.properties {
            let shown = |v: &Option<String>| v.as_deref().map_or("∅".to_owned(), short);
            let forces = match property.replaces {
                Replacement::Never => "",
                _ => " forces replacement",
            };
            lines.push(format!(
                "{}.{}: {} → {}{forces}",
                short(&change.logical),
                short(&property.path),
                shown(&property.before),
                shown(&property.after)
            ));
        }
    }
    lines
}

/// Says what differs between what was approved and what is asked now.
pub fn difference(before: &[String], now: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|l| !now.contains(l));
    let come = now.iter().filter(|l| !before.contains(l));
    let mut all: Vec<String> = gone.map(|l| format!("no longer: {l}")).collect();
    all.extend(come.map(|l| format!("new: {l}")));
    if all.is_empty() {
        return vec![
            "the changes read alike; the stack has moved, or the text differs elsewhere".into(),
        ];
    }
    if all.len() > 20 {
        let more = all.len() - 20;
        all.truncate(20);
        all.push(format!("and {more} more"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::Reason;

    fn went(address: &str, result: SyncResult, reason: Reason) -> Went {
        Went {
            wave: 1,
            address: address.parse().unwrap(),
            condition: Condition {
                result,
                reason,
                detail: "because | of <b>it</b>".into(),
                since: Timestamp(0),
            },
            notes: Vec::new(),
            review: None,
        }
    }

    fn said() -> Answer {
        Answer {
            who: "ana".into(),
            command: "approve stack/topic 9f31c2ab".into(),
            done: true,
            says: "approved 9f31c2ab… of stack/topic".into(),
            at: Timestamp(0),
        }
    }

    #[test]
    fn after_the_merge_it_says_how_it_went() {
        let mut waits = went("stack/topic", SyncResult::Pending, Reason::Approval);
        waits.review = Some(Digest::of("r1", b"x"));
        waits.notes = difference(&["a".into(), "b".into()], &["b".into(), "c".into()]);
        waits.wave = 2;
        let text = outcome(&Outcome {
            marker: "m:7",
            commit: "1a2b3c4",
            targets: vec![
                went("stack/one", SyncResult::InSync, Reason::Settled),
                waits,
            ],
            checkpoint: Some((104, "ab".repeat(32))),
            budget: 60_000,
        });
        let text = with_answers(&text, &[said()]);
        insta::assert_snapshot!(text);
        // Answers take the place of those before.
        assert_eq!(with_answers(&text, &[said()]), text);
    }

    #[test]
    fn below_a_preview_stands_what_can_be_asked_for() {
        let text = aside(&Aside {
            asks: vec![Asks {
                address: "stack/topic".parse().unwrap(),
                review: Digest::of("r1", b"x"),
                count: 2,
                given: vec!["ana".into()],
            }],
            notes: vec!["stack/x: this pull request takes its own `gate` away".into()],
        });
        insta::assert_snapshot!(with_answers(&text, &[said()]));
    }

    #[test]
    fn what_is_old_says_so_and_keeps_one_marker() {
        let before = stranger("m:7", "1a2b3c4");
        let text = stale("m:7", "5d6e7f8", "the forge does not answer", Some(&before));
        assert_eq!(text.matches("<!-- isoform").count(), 1, "{text}");
        assert!(text.contains("Stale") && text.contains("/isoform preview 1a2b3c4"));
        // It stays as it is, however often a look fails; and where nothing was shown, nothing is old.
        let again = stale("m:7", "5d6e7f8", "the forge does not answer", Some(&text));
        assert_eq!(again, text);
        let nothing = stale("m:7", "5d6e7f8", "why", None);
        assert_eq!(stale("m:7", "5d6e7f8", "why", Some(&nothing)), nothing);
    }

    #[test]
    fn a_forge_without_html_is_shown_none() {
        let text = without_html("<details><summary>🔴 a &lt;b&gt;</summary>\n\nx\n</details>\n");
        assert_eq!(text.trim(), "**🔴 a \\<b\\>**\n\n\nx");
    }

    #[test]
    fn an_outcome_fits_its_budget() {
        let many =
            (0..2_000).map(|n| went(&format!("stack/s{n}"), SyncResult::Failed, Reason::Internal));
        let text = outcome(&Outcome {
            marker: "m",
            commit: "1a2b3c4",
            targets: many.collect(),
            checkpoint: None,
            budget: 30_000,
        });
        assert!(
            text.len() <= 30_000 && text.contains("left out"),
            "{}",
            text.len()
        );
    }
}
