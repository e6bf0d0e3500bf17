//! A verdict beside a commit: a check run of an App, a commit status of a token.

use reqwest::Method;
use serde_json::{Value, json};

use super::GitHub;
use super::app::App;
use super::wire::{CheckRun, CheckRuns, Written};
use crate::domain::forge::{Annotation, Check, Level, Verdict};
use crate::forge::client::Call;
use crate::port::Error;

/// Annotations in one request: <https://docs.github.com/rest/checks/runs#update-a-check-run>.
const BATCH: usize = 50;
/// More are not sent: nobody reads them, and each fifty cost a write.
const ANNOTATIONS: usize = 500;
/// `summary` and `text` of a check run's output, in characters; held in bytes, which are never fewer.
const SUMMARY: usize = 65_535;
/// An annotation's message: 64 KB.
const MESSAGE: usize = 64_000;
/// Titles of annotations, and of check runs, in characters.
const TITLE: usize = 255;
/// A commit status' description.
const DESCRIPTION: usize = 140;

impl GitHub {
    /// Check runs are for Apps only: <https://docs.github.com/rest/checks/runs>.
    pub(super) async fn check_run(&self, app: &App, check: &Check) -> Result<(), Error> {
        let me = self.app_identity(app).await?;
        let path = self.path(&["commits", check.head.as_str(), "check-runs"]);
        let call = Call::get(path)
            .query("check_name", &check.name)
            .query("filter", "latest")
            .query("app_id", me.id)
            .query("per_page", 100);
        let listed: CheckRuns = self.send(call).await?.json()?;
        let last = listed
            .check_runs
            .into_iter()
            .filter(|run| run.name == check.name)
            .max_by_key(|run| run.id);
        let shown = &check.annotations[..check.annotations.len().min(ANNOTATIONS)];
        let mut batches: Vec<&[Annotation]> = shown.chunks(BATCH).collect();
        let end = batches.pop().unwrap_or_default();
        if last.as_ref().is_some_and(|run| says(run, check)) {
            return Ok(());
        }
        let mut id = last.filter(can_be_changed).map(|run| run.id);
        // What ends a run is said with the last remarks: nobody sees half of them as all.
        for batch in batches {
            let body = run(check, Verdict::Pending, batch);
            id = Some(self.put(check, id, body).await?);
        }
        self.put(check, id, run(check, check.verdict, end)).await?;
        Ok(())
    }

    async fn put(&self, check: &Check, id: Option<u64>, mut body: Value) -> Result<u64, Error> {
        let call = match id {
            Some(id) => Call::new(Method::PATCH, self.path(&["check-runs", &id.to_string()])),
            None => {
                body["head_sha"] = json!(check.head.as_str());
                Call::new(Method::POST, self.path(&["check-runs"]))
            }
        };
        let written: Written = self.send(call.json(body)).await?.json()?;
        Ok(written.id)
    }

    /// A commit status: <https://docs.github.com/rest/commits/statuses#create-a-commit-status>. It knows no word for
    /// "works, but look", and the newest of a context is the one that is shown.
    pub(super) async fn status(&self, check: &Check) -> Result<(), Error> {
        let state = match check.verdict {
            Verdict::Pending => "pending",
            Verdict::Success | Verdict::Neutral => "success",
            Verdict::Failure => "failure",
        };
        let path = self.path(&["statuses", check.head.as_str()]);
        let call = Call::new(Method::POST, path).json(json!({
            "state": state,
            "context": check.name,
            "description": first(&check.title, DESCRIPTION),
        }));
        self.send(call).await.map(|_| ())
    }
}

/// Remarks are only ever added to a run, and a run that has ended stays as it ended (Mergifyio/mergify #1989, taskcluster
/// #5085): then a new one takes its place, for the newest of a name is the one that is shown.
fn can_be_changed(run: &CheckRun) -> bool {
    run.output.annotations_count == 0 && run.status != "completed"
}

/// Tells whether a run says all of it already. Remarks cannot be seen from here: where there are any it does not.
fn says(run: &CheckRun, check: &Check) -> bool {
    let (title, summary) = output(check);
    let ended = match conclusion(check.verdict) {
        None => run.status != "completed",
        Some(word) => run.conclusion.as_deref() == Some(word),
    };
    let same = run.output.title.as_deref() == Some(title.as_str())
        && run.output.summary.as_deref() == Some(summary.as_str());
    same && ended && check.annotations.is_empty() && run.output.annotations_count == 0
}

fn output(check: &Check) -> (String, String) {
    let mut summary = check.summary.clone();
    let hidden = check.annotations.len().saturating_sub(ANNOTATIONS);
    if hidden > 0 {
        summary = format!("{hidden} more remarks are not shown on lines.\n\n{summary}");
    }
    let title = first(non_empty(&check.title, &check.name), TITLE);
    (title, cut(&summary, SUMMARY))
}

fn run(check: &Check, verdict: Verdict, annotations: &[Annotation]) -> Value {
    let (title, summary) = output(check);
    let mut body = json!({
        "name": check.name,
        "status": if verdict == Verdict::Pending { "in_progress" } else { "completed" },
        "output": {
            "title": title,
            "summary": summary,
            "annotations": annotations.iter().map(annotation).collect::<Vec<_>>(),
        },
    });
    if let Some(conclusion) = conclusion(verdict) {
        body["conclusion"] = json!(conclusion);
    }
    body
}

fn conclusion(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Pending => None,
        Verdict::Success => Some("success"),
        Verdict::Neutral => Some("neutral"),
        Verdict::Failure => Some("failure"),
    }
}

fn annotation(of: &Annotation) -> Value {
    let level = match of.level {
        Level::Notice => "notice",
        Level::Warning => "warning",
        Level::Failure => "failure",
    };
    json!({
        "path": of.path,
        "start_line": of.line.max(1),
        "end_line": of.line.max(1),
        "annotation_level": level,
        "title": first(&of.title, TITLE),
        "message": cut(non_empty(&of.message, &of.title), MESSAGE),
    })
}

fn non_empty<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.trim().is_empty() { other } else { text }
}

/// Returns the first characters of a text, with a sign where there were more.
pub(super) fn first(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(limit - 1).collect();
    out.push('…');
    out
}

/// Cuts a text after so many bytes, with a sign where there were more.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(first("äöü", 3), "äöü");
        assert_eq!(first("äöüß", 3), "äö…");
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöüß", 7), "äö…");
        assert_eq!(cut(&"x".repeat(70_000), SUMMARY).len(), SUMMARY);
    }
}
