//! What a pull request would do, as one comment in Markdown: for a forge, or for whoever posts it.
//!
//! The verdict stands first, then what must be looked at, the gravest first, then each target folded away. Everything that
//! comes from a repository or an account is written so that it cannot become markup, a mention or another line.

use std::cmp::Reverse;
use std::fmt::Write;

use super::concern::{Worry, cause, concerns};
use super::{Action, Change, Concern, DiffReport, PolicyAction, Replacement, TargetDiff};
use crate::domain::model::{Finding, Prune, counted};

/// A longer value is cut: whoever wants all of it asks `isoform diff`.
const VALUE: usize = 160;
/// How many rows and concerns are listed before the rest is a count.
pub(super) const ROWS: usize = 50;

/// What the comment is about.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// A word by which the comment is found again; nobody sees it.
    pub marker: &'a str,
    /// What is merged.
    pub head: &'a str,
    /// Into what.
    pub base: &'a str,
    /// Most bytes: forges have limits, GitHub 65,536 characters.
    pub budget: usize,
}

/// Writes the comment. It never has more bytes than its budget, as long as that is more than a few hundred.
pub fn comment(report: &DiffReport, about: &About<'_>) -> String {
    let targets = ranked(report);
    let mut out = format!("<!-- isoform-preview:v1:{} -->\n", plain(about.marker));
    head(&mut out, report, &targets, about);
    faults(&mut out, report);
    table(&mut out, &targets);
    must_look(&mut out, &targets);
    for moved in &report.moved {
        let _ = writeln!(
            out,
            "\n↪ {} moves to {}: it keeps its stack",
            code(&moved.from.to_string()),
            code(&moved.to.to_string())
        );
    }
    gone(&mut out, report);
    let mut left_out = 0;
    // Room for the last line.
    let most = about.budget.saturating_sub(160);
    for target in &targets {
        let details = target.details();
        if out.len() + details.len() <= most {
            out.push_str(&details);
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        let _ = writeln!(
            out,
            "\n_The details of {} are left out here; `isoform diff` shows them._",
            counted(left_out, "target")
        );
    }
    if out.len() > about.budget {
        let mut end = most.min(out.len());
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
        // Whatever was open is closed by an empty line, and a fence is never open here.
        out.push_str("\n\n_Cut here; `isoform diff` shows all of it._\n");
    }
    out
}

/// Returns the targets of a report, the gravest first.
pub fn gravest_first(report: &DiffReport) -> Vec<&TargetDiff> {
    ranked(report).into_iter().map(|shown| shown.diff).collect()
}

fn ranked(report: &DiffReport) -> Vec<Shown<'_>> {
    let mut targets: Vec<Shown<'_>> = report.targets.iter().map(Shown::new).collect();
    targets.sort_by(|a, b| {
        let order = b.gravity().cmp(&a.gravity());
        order.then_with(|| a.diff.address.cmp(&b.diff.address))
    });
    targets
}

/// Writes the comment of a pull request that cannot be merged: nothing can be said of what it would do.
pub fn conflict(paths: &[String], about: &About<'_>) -> String {
    let mut out = format!(
        "<!-- isoform-preview:v1:{} -->\n### ❌ isoform: it cannot be merged\n\n{} conflicts with {} in\n\n",
        plain(about.marker),
        code(about.head),
        code(about.base)
    );
    for path in paths.iter().take(ROWS) {
        let _ = writeln!(out, "- {}", code(path));
    }
    if paths.len() > ROWS {
        let _ = writeln!(out, "- and {} more", paths.len() - ROWS);
    }
    out.push_str("\nMerge the base into the branch; then it is looked at again.\n");
    out
}

struct Shown<'a> {
    diff: &'a TargetDiff,
    concerns: Vec<(&'a Change, Concern)>,
}

impl<'a> Shown<'a> {
    fn new(diff: &'a TargetDiff) -> Self {
        let of = |c: &'a Change| concerns(c).into_iter().map(move |concern| (c, concern));
        let mut all: Vec<_> = diff.changes.iter().flat_map(of).collect();
        all.sort_by_key(|(_, concern)| Reverse(concern.worry));
        Self {
            diff,
            concerns: all,
        }
    }

    fn worry(&self) -> Option<Worry> {
        self.concerns.first().map(|(_, c)| c.worry)
    }

    /// What orders targets: loss, rights, doors, then replacements, deletions, what may be replaced, changes, and creations last.
    fn gravity(&self) -> (Option<Worry>, bool, bool, bool, bool) {
        (
            self.worry(),
            self.count(is_replaced) > 0,
            self.count(is_deleted) > 0,
            self.count(is_maybe) > 0,
            !self.diff.create,
        )
    }

    fn count(&self, is: fn(&Change) -> bool) -> usize {
        self.diff.changes.iter().filter(|c| is(c)).count()
    }

    fn sign(&self) -> &'static str {
        match self.worry() {
            Some(Worry::Loss) => "🔴",
            Some(Worry::Access | Worry::Network) => "🟠",
            Some(Worry::Policy) => "🟡",
            None if [is_replaced, is_deleted, is_maybe].map(|is| self.count(is)) != [0; 3] => "🟡",
            None => "🟢",
        }
    }

    fn verdict(&self) -> String {
        let mut parts = Vec::new();
        let losses = self.concerns.iter().filter(|(_, c)| c.worry == Worry::Loss);
        if losses.count() > 0 {
            parts.push("**loses state**, waits for an approval".to_owned());
        }
        if self.diff.create {
            parts.push(format!(
                "created, {}",
                counted(self.diff.changes.len(), "resource")
            ));
        } else {
            for (is, word) in [
                (is_replaced as fn(&Change) -> bool, "replaced"),
                (is_maybe, "perhaps replaced"),
                (is_deleted, "deleted"),
                (is_in_place, "in place"),
                (is_new, "new"),
            ] {
                let count = self.count(is);
                if count > 0 {
                    parts.push(format!("{count} {word}"));
                }
            }
            if self.diff.changes.is_empty() {
                parts.push("options, tags or outputs only".into());
            }
        }
        for (worry, word) in [
            (Worry::Access, "rights grow"),
            (Worry::Network, "opens to the network"),
        ] {
            if self.concerns.iter().any(|(_, c)| c.worry == worry) {
                parts.push(format!("**{word}**"));
            }
        }
        parts.join(" · ")
    }

    fn place(&self, change: &Change, path: Option<&str>) -> String {
        let key = path.map(|p| format!("{}.{p}", change.logical));
        let place = key.and_then(|k| self.diff.places.get(&k));
        place.map_or(String::new(), |p| format!(" ({})", code(p)))
    }

    fn details(&self) -> String {
        let mut out = format!(
            "\n<details><summary>{} {} — {}</summary>\n\n```diff\n",
            self.sign(),
            html(&self.diff.address.to_string()),
            html(&self.verdict().replace("**", ""))
        );
        for change in &self.diff.changes {
            let _ = writeln!(out, "{}", line_of(change));
            // What a new resource has in full is in the template.
            if change.action == Action::Add {
                continue;
            }
            for property in &change.properties {
                let shown = |v: &Option<String>, none: &str| {
                    v.as_ref().map_or(none.to_owned(), |v| short(v))
                };
                let forces = match property.replaces {
                    Replacement::Always => "   forces replacement",
                    Replacement::Conditional => "   may force replacement",
                    Replacement::Never => "",
                };
                let key = format!("{}.{}", change.logical, property.path);
                let place = self.diff.places.get(&key);
                let place = place.map(|p| format!("   {}", short(p)));
                let _ = writeln!(
                    out,
                    "      {}  {} → {}{forces}{}",
                    short(&property.path),
                    shown(&property.before, "(not set)"),
                    shown(&property.after, "(removed)"),
                    place.unwrap_or_default(),
                );
            }
        }
        out.push_str("```\n");
        let told = self.diff.problems.iter().chain(&self.diff.gates);
        for said in told {
            let _ = writeln!(out, "- {}", text(said));
        }
        if !self.diff.then.is_empty() {
            let then: Vec<String> = self
                .diff
                .then
                .iter()
                .map(|a| code(&a.to_string()))
                .collect();
            let _ = writeln!(
                out,
                "- planned again if its outputs change: {}",
                then.join(", ")
            );
        }
        out.push_str("</details>\n");
        out
    }
}

fn is_replaced(change: &Change) -> bool {
    change.action == Action::Modify && change.replacement == Replacement::Always
}

fn is_maybe(change: &Change) -> bool {
    change.action == Action::Dynamic
        || change.action == Action::Modify && change.replacement == Replacement::Conditional
}

fn is_deleted(change: &Change) -> bool {
    change.action == Action::Remove
}

fn is_in_place(change: &Change) -> bool {
    change.action == Action::Modify && change.replacement == Replacement::Never
}

fn is_new(change: &Change) -> bool {
    matches!(change.action, Action::Add | Action::Import)
}

fn head(out: &mut String, report: &DiffReport, targets: &[Shown<'_>], about: &About<'_>) {
    let errors = report.findings.iter().filter(|f| f.is_error()).count();
    let count = |is: fn(&Change) -> bool| targets.iter().map(|t| t.count(is)).sum::<usize>();
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(counted(errors, "error"));
    }
    for (number, word) in [
        (count(is_replaced), "replaced"),
        (count(is_maybe), "perhaps replaced"),
        (count(is_deleted), "deleted"),
        (count(is_in_place), "changed in place"),
        (count(is_new), "created"),
    ] {
        if number > 0 {
            parts.push(format!("{} {word}", counted(number, "resource")));
        }
    }
    let worst = targets.first().map_or("🟢", Shown::sign);
    let sign = if errors > 0 { "❌" } else { worst };
    let what = match (parts.is_empty(), targets.is_empty()) {
        (true, true) => "nothing changes".to_owned(),
        (true, false) => format!(
            "{} of options, tags or outputs",
            counted(targets.len(), "change")
        ),
        (false, _) => parts.join(" · "),
    };
    let _ = writeln!(
        out,
        "### {sign} isoform: {what}\n\n{} {}, {} not · {} into {}",
        counted(targets.len(), "target"),
        if targets.len() == 1 {
            "changes"
        } else {
            "change"
        },
        if report.unchanged == 1 {
            "1 does".to_owned()
        } else {
            format!("{} do", report.unchanged)
        },
        code(about.head),
        code(about.base),
    );
}

fn faults(out: &mut String, report: &DiffReport) {
    let errors: Vec<&Finding> = report.findings.iter().filter(|f| f.is_error()).collect();
    if errors.is_empty() {
        return;
    }
    out.push_str("\n**Errors: what they touch does not move**\n\n");
    for fault in errors.iter().take(ROWS) {
        let place = match &fault.place.span {
            Some(span) => format!("{}:{}", fault.place.file, span.line),
            None => fault.place.file.clone(),
        };
        let help = fault.help.as_ref().map(|h| format!(" — {}", text(h)));
        let _ = writeln!(
            out,
            "- {} {}{}",
            code(&place),
            text(&fault.message),
            help.unwrap_or_default()
        );
    }
    if errors.len() > ROWS {
        let _ = writeln!(out, "- and {} more", errors.len() - ROWS);
    }
}

fn table(out: &mut String, targets: &[Shown<'_>]) {
    if targets.is_empty() {
        return;
    }
    out.push_str("\n| target | placement | what happens |\n| --- | --- | --- |\n");
    for target in targets.iter().take(ROWS) {
        let _ = writeln!(
            out,
            "| {} {} | {} | {} |",
            target.sign(),
            code(&target.diff.address.to_string()),
            code(&target.diff.placement),
            target.verdict()
        );
    }
    if targets.len() > ROWS {
        let _ = writeln!(out, "| … | | and {} more |", targets.len() - ROWS);
    }
}

fn must_look(out: &mut String, targets: &[Shown<'_>]) {
    let mut all: Vec<(&Shown<'_>, &Change, &Concern)> = targets
        .iter()
        .flat_map(|t| t.concerns.iter().map(move |(c, concern)| (t, *c, concern)))
        .collect();
    if all.is_empty() {
        return;
    }
    all.sort_by_key(|(.., concern)| Reverse(concern.worry));
    out.push_str("\n**Must look at**\n\n");
    for (target, change, concern) in all.iter().take(ROWS) {
        let (sign, word) = match concern.worry {
            Worry::Loss => ("🔴", "State"),
            Worry::Access => ("🟠", "Rights"),
            Worry::Network => ("🟠", "Network"),
            Worry::Policy => ("🟡", "Policy"),
        };
        let because = match (concern.worry, cause(change)) {
            (Worry::Loss, Some(cause)) => {
                let shown = |v: &Option<String>| v.as_deref().map_or("(not set)".into(), short);
                format!(
                    ", because {} {} → {}",
                    code(&cause.path),
                    code(&shown(&cause.before)),
                    code(&shown(&cause.after))
                )
            }
            _ => String::new(),
        };
        let _ = writeln!(
            out,
            "- {sign} {word}: {} {}{because}{}",
            code(&target.diff.address.to_string()),
            text(&short(&concern.says)),
            target.place(change, concern.path.as_deref())
        );
    }
    if all.len() > ROWS {
        let _ = writeln!(out, "- and {} more", all.len() - ROWS);
    }
}

fn gone(out: &mut String, report: &DiffReport) {
    for orphan in report.orphaned.iter().take(ROWS) {
        let (sign, fate) = match orphan.prune {
            Prune::Never => ("🟡", "its stack stays"),
            Prune::Ask => ("🟠", "its stack may be deleted when that is approved"),
            Prune::Auto => ("🔴", "its stack may be deleted (`prune: auto`)"),
        };
        let _ = writeln!(
            out,
            "\n{sign} {}: Git would no longer ask for it; {fate}",
            code(&orphan.address.to_string())
        );
    }
    if report.orphaned.len() > ROWS {
        let _ = writeln!(out, "\n… and {} more", report.orphaned.len() - ROWS);
    }
}

/// The marks of a diff: a forge colours what begins with `+`, `-` or `!`.
pub(super) fn line_of(change: &Change) -> String {
    let (mark, word) = match (change.action, change.replacement) {
        (Action::Add, _) => ("+  ", "is created"),
        (Action::Import, _) => ("+  ", "is taken in"),
        (Action::Remove, _) => ("-  ", "is deleted"),
        (_, Replacement::Always) => ("-/+", "is replaced"),
        (_, Replacement::Conditional) => ("!  ", "may be replaced"),
        _ => ("!  ", "in place"),
    };
    let fate = change.policy.map_or("", PolicyAction::fate);
    format!(
        "{mark} {}  {}  {word}{fate}",
        short(&change.logical),
        short(&change.kind)
    )
}

/// Tells whether a character begins a new line, hides, or turns around what stands there.
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if hides(c) { '·' } else { c })
        .collect()
}

/// For inside of the comment that holds the marker, which it never ends.
pub(super) fn plain(text: &str) -> String {
    clean(text).replace("--", "-\u{2010}")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// For inside of a fence: one line, which is never its end.
pub(super) fn short(text: &str) -> String {
    cut(&clean(text))
}

/// A word in a line of Markdown, as it is. A backtick would end it, a bar the cell of a table.
pub(super) fn code(text: &str) -> String {
    let clean = short(text).replace('`', "'").replace('|', "¦");
    format!("`{clean}`")
}

/// A sentence in a line of Markdown: nothing in it is markup, and nobody is called by it.
pub(super) fn text(given: &str) -> String {
    let mut out = String::new();
    for c in short(given).chars() {
        match c {
            '\\' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '~' | '&' | '!' => {
                out.push('\\');
                out.push(c);
            }
            '`' => out.push('\''),
            // A name after it would be told of it, and a number would be linked.
            '@' => out.push_str("@\u{2060}"),
            c => out.push(c),
        }
    }
    out
}

fn html(given: &str) -> String {
    short(given)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('@', "@\u{2060}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::Place;
    use crate::domain::plan::{Move, Orphan, PropertyChange};

    fn property(path: &str, before: &str, after: &str, replaces: Replacement) -> PropertyChange {
        PropertyChange {
            path: path.into(),
            before: Some(before.into()),
            after: Some(after.into()),
            after_unknown: false,
            replaces,
        }
    }

    fn change(logical: &str, kind: &str, properties: Vec<PropertyChange>) -> Change {
        let replacement = properties.iter().map(|p| p.replaces).max();
        let replacement = replacement.unwrap_or(Replacement::Never);
        Change {
            logical: logical.into(),
            kind: kind.into(),
            physical: None,
            action: Action::Modify,
            replacement,
            policy: (replacement != Replacement::Never).then_some(PolicyAction::ReplaceAndDelete),
            properties,
        }
    }

    fn target(address: &str, changes: Vec<Change>) -> TargetDiff {
        TargetDiff {
            address: address.parse().unwrap(),
            create: false,
            placement: "prod".into(),
            changes,
            places: [("Db.DBName".to_owned(), "templates/db.yaml:12".to_owned())].into(),
            text: String::new(),
            then: Vec::new(),
            problems: Vec::new(),
            gates: Vec::new(),
            review: None,
        }
    }

    fn report() -> DiffReport {
        let db = change(
            "Db",
            "AWS::RDS::DBInstance",
            vec![property(
                "DBName",
                "\"orders\"",
                "\"orders2\"",
                Replacement::Always,
            )],
        );
        let role = change(
            "Role",
            "AWS::IAM::Role",
            vec![property(
                "Policies[0].PolicyDocument.Statement[0].Action",
                "\"s3:GetObject\"",
                "\"s3:*\"",
                Replacement::Never,
            )],
        );
        let topic = change(
            "Topic",
            "AWS::SNS::Topic",
            vec![property(
                "DisplayName",
                "\"a\"",
                "\"b\"",
                Replacement::Never,
            )],
        );
        let mut new = target("stack/new", vec![topic.clone()]);
        new.create = true;
        new.changes[0].action = Action::Add;
        DiffReport {
            v: 1,
            targets: vec![
                new,
                target("stack/topic", vec![topic]),
                target("stack/web", vec![role]),
                target("stack/orders", vec![db]),
            ],
            unchanged: 41,
            moved: vec![Move {
                from: "stack/old".parse().unwrap(),
                to: "stack/topic".parse().unwrap(),
            }],
            orphaned: vec![Orphan {
                address: "stack/gone".parse().unwrap(),
                prune: Prune::Ask,
            }],
            findings: vec![Finding::error(
                "spec.value",
                Place::file("services/x.yaml"),
                "`count` is <b>no</b> number, @ops",
            )],
        }
    }

    const ABOUT: About<'_> = About {
        marker: "example:7",
        head: "1a2b3c4",
        base: "main",
        budget: 60_000,
    };

    #[test]
    fn a_comment_says_the_gravest_first() {
        insta::assert_snapshot!(comment(&report(), &ABOUT));
    }

    #[test]
    fn what_may_be_replaced_stands_before_what_is_in_place() {
        let mut report = report();
        let vpc = property("Tenancy", "\"a\"", "\"b\"", Replacement::Conditional);
        report.targets = vec![
            target("stack/a", vec![change("T", "AWS::SNS::Topic", Vec::new())]),
            target("stack/b", vec![change("V", "AWS::EC2::VPC", vec![vpc])]),
        ];
        let text = comment(&report, &ABOUT);
        let (b, a) = (text.find("🟡 `stack/b`"), text.find("🟢 `stack/a`"));
        assert!(b.is_some() && b < a, "{text}");
    }

    #[test]
    fn nothing_to_do_is_one_line() {
        let mut empty = report();
        empty.targets.clear();
        empty.moved.clear();
        empty.orphaned.clear();
        empty.findings.clear();
        let text = comment(&empty, &ABOUT);
        assert!(text.contains("🟢 isoform: nothing changes"), "{text}");
        assert_eq!(text.lines().filter(|l| !l.is_empty()).count(), 3, "{text}");
    }

    #[test]
    fn a_comment_fits_its_budget_and_says_what_it_leaves_out() {
        let mut large = report();
        let one = large.targets[3].clone();
        for n in 0..500 {
            let mut more = one.clone();
            more.address = format!("stack/s{n}").parse().unwrap();
            large.targets.push(more);
        }
        for budget in [2_000, 20_000, 60_000] {
            let text = comment(&large, &About { budget, ..ABOUT });
            assert!(text.len() <= budget, "{budget}: {}", text.len());
            assert!(
                text.contains("left out") || text.contains("Cut here"),
                "{budget}"
            );
            let (open, closed) = (text.matches("<details>"), text.matches("</details>"));
            assert_eq!(open.count(), closed.count(), "{budget}");
        }
    }

    #[test]
    fn what_a_repository_says_is_never_markup() {
        let evil = "x\n```\n</details><img src=x> [a](b) | @everyone <!-- --> \u{202E}`";
        let mut report = report();
        report.targets.truncate(1);
        report.targets[0].create = false;
        report.targets[0].changes = vec![change(
            evil,
            "AWS::IAM::Role",
            vec![property("PolicyDocument", evil, evil, Replacement::Never)],
        )];
        report.targets[0].problems = vec![evil.into()];
        report.targets[0].placement = evil.into();
        report.findings[0].message = evil.into();
        report.findings[0].help = Some(evil.into());

        let text = comment(
            &report,
            &About {
                head: evil,
                base: evil,
                marker: evil,
                ..ABOUT
            },
        );

        // The marker's comment ends where its line does.
        let marker = text.lines().next().unwrap();
        assert_eq!(marker.find("-->"), Some(marker.len() - 3), "{marker}");
        // The fence opens and closes once: whatever else stands in it begins no line.
        let fences = text.lines().filter(|l| l.trim_start().starts_with("```"));
        assert_eq!(fences.count(), 2, "{text}");
        let (mut inside, mut outside) = (false, String::new());
        for line in text.lines().skip(1) {
            if line.starts_with("```") {
                inside = !inside;
            } else if !inside {
                // What stands between backticks is shown as it is.
                outside.extend(line.split('`').step_by(2));
                outside.push('\n');
            }
        }
        assert!(!outside.replace("\\<", "").contains("<img"), "{outside}");
        assert!(!outside.contains("@everyone"), "{outside}");
        assert!(!text.contains('\u{202E}'), "{text}");
    }
}
