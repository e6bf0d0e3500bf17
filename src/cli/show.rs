//! Words, colours and tables. One thought a line, the verdict first, the next step always there.

use std::time::Duration;

use crate::domain::model::{Condition, Reason, SyncResult, Timestamp};
use crate::domain::plan::{Action, Change, PolicyAction, Replacement};
use crate::port::Traffic;
use crate::reconcile::{EstateReport, TargetReport};

pub(crate) const RED: &str = "\u{1b}[1;31m";
pub(crate) const GREEN: &str = "\u{1b}[32m";
pub(crate) const YELLOW: &str = "\u{1b}[33m";
pub(crate) const BOLD: &str = "\u{1b}[1m";
pub(crate) const DIM: &str = "\u{1b}[2m";
pub(crate) const RESET: &str = "\u{1b}[0m";

/// Prints a value as JSON, with the version of its shape: `v` is there and 1 until the shape changes.
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut value = serde_json::to_value(value)?;
    if let Some(fields) = value.as_object_mut() {
        fields.entry("v").or_insert(1.into());
    }
    anstream::println!("{}", serde_json::to_string_pretty(&value)?);
    Ok(())
}

/// Takes control characters and direction overrides out of a text from outside.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}') { '·' } else { c }).collect()
}

/// Writes a time in the user's zone.
pub(crate) fn time(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(time) => time
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S %:z")
            .to_string(),
        Err(_) => at.to_string(),
    }
}

/// Writes how long something took or is ago.
pub(crate) fn span(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..=9_999 => format!("{:.1} s", ms as f64 / 1000.0),
        10_000..=119_999 => format!("{} s", ms / 1000),
        120_000..=7_199_999 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// Writes what a service holds back; absent where nothing was refused lately.
pub(crate) fn throttled(calls: &Traffic, now: Timestamp) -> Option<String> {
    let ago = span(now.since(calls.throttled_at?));
    let pace = calls.rate.map_or_else(String::new, |rate| {
        format!(", at most {rate:.1} a second now")
    });
    let waiting = match calls.waiting {
        0 => String::new(),
        waiting => format!(", {waiting} waiting"),
    };
    Some(format!(
        "{} in {}/{}: {} of {} calls refused, the last {ago} ago{pace}{waiting}",
        calls.call, calls.account, calls.region, calls.throttled, calls.made
    ))
}

/// Returns a sign and a colour for a condition.
pub(crate) fn sign(condition: &Condition) -> (&'static str, &'static str) {
    match condition.result {
        SyncResult::InSync | SyncResult::NoEffect => ("✓", GREEN),
        SyncResult::Failed | SyncResult::Stuck => ("✗", RED),
        SyncResult::Applying | SyncResult::Planning | SyncResult::CleaningUp => ("⠙", BOLD),
        SyncResult::Pending if matches!(condition.reason, Reason::Dependency | Reason::Rollout) => {
            ("·", DIM)
        }
        SyncResult::Pending | SyncResult::Held => ("⏸", YELLOW),
        SyncResult::Superseded => ("·", DIM),
        _ => ("!", YELLOW),
    }
}

/// Writes one line of progress for a target.
pub(crate) fn progress_line(target: &TargetReport) -> String {
    let (sign, colour) = sign(&target.condition);
    let mut text = match target.condition.result {
        SyncResult::InSync => {
            let took = target
                .took_ms
                .map(|ms| format!("{:>8}", span(Duration::from_millis(ms))))
                .unwrap_or_default();
            let uses = if target.uses.is_empty() {
                String::new()
            } else {
                format!(
                    "   uses {}",
                    target
                        .uses
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            };
            format!("in sync {took}{uses}")
        }
        SyncResult::NoEffect => "in sync: nothing to change".to_owned(),
        SyncResult::Applying | SyncResult::CleaningUp => target
            .progress
            .clone()
            .unwrap_or_else(|| "executing".into()),
        SyncResult::Planning => "planning".into(),
        _ => format!("{}   {}", target.condition, clean(&target.condition.detail)),
    };
    if text.chars().count() > 150 {
        text = format!("{}…", text.chars().take(149).collect::<String>());
    }
    format!(
        "  {:<34} {colour}{sign}{RESET} {text}",
        target.address.to_string()
    )
}

/// Writes the verdict on an estate in one line.
pub(crate) fn verdict(estate: &EstateReport) -> String {
    let count = |f: &dyn Fn(&TargetReport) -> bool| estate.targets.iter().filter(|t| f(t)).count();
    let good = count(&|t| {
        matches!(
            t.condition.result,
            SyncResult::InSync | SyncResult::NoEffect
        )
    });
    let failed = count(&|t| matches!(t.condition.result, SyncResult::Failed | SyncResult::Stuck));
    let held = count(&|t| is_held(&t.condition));
    let total = estate.targets.len();
    if good == total && total > 0 {
        return format!("{GREEN}in sync{RESET} · {good} of {total}");
    }
    let mut parts = vec![format!("{good} of {total} in sync")];
    if failed > 0 {
        parts.push(format!("{RED}{failed} failed{RESET}"));
    }
    if held > 0 {
        parts.push(format!("{YELLOW}{held} held{RESET}"));
    }
    let waiting = total - good - failed - held;
    if waiting > 0 {
        parts.push(format!("{waiting} waiting"));
    }
    parts.join(" · ")
}

/// Tells whether a person is asked.
pub(crate) fn is_held(condition: &Condition) -> bool {
    if condition.result == SyncResult::Orphaned {
        return matches!(
            condition.reason,
            Reason::Approval | Reason::PruneBudget | Reason::Protected
        );
    }
    matches!(
        condition.result,
        SyncResult::Pending
            | SyncResult::Held
            | SyncResult::Drifted
            | SyncResult::Foreign
            | SyncResult::Contested
    ) && !matches!(
        condition.reason,
        Reason::Dependency | Reason::Rollout | Reason::NotYet | Reason::StackMoved
    )
}

/// Writes the changes of a target, one resource and one property a line.
pub(crate) fn changes(changes: &[Change], places: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut out = Vec::new();
    for change in changes {
        let (mark, colour, word) = match (change.action, change.replacement) {
            (Action::Add, _) => ("  +", GREEN, "is created"),
            (Action::Import, _) => ("  <", GREEN, "is taken in"),
            (Action::Remove, _) => ("  -", RED, "is deleted"),
            (_, Replacement::Always) => ("-/+", RED, "is replaced"),
            (_, Replacement::Conditional) => ("-/~", YELLOW, "may be replaced"),
            _ => ("  ~", YELLOW, "in place"),
        };
        let fate = change.policy.map_or("", PolicyAction::fate);
        let loss = if change.loses_state() {
            format!(
                "   {RED}{}{RESET}",
                crate::domain::cfn::stateful(&change.kind).map_or("", |s| s.reason)
            )
        } else {
            String::new()
        };
        out.push(format!(
            "  {colour}{mark}{RESET} {BOLD}{}{RESET}  {}   {word}{fate}{loss}",
            clean(&change.logical),
            clean(&change.kind)
        ));
        // What a new resource has in full is in the rendered text; here it would only scroll away what matters.
        let shown: &[_] = if change.action == Action::Add {
            &[]
        } else {
            &change.properties
        };
        for property in shown {
            let before = property
                .before
                .as_deref()
                .map_or("(not set)".to_owned(), clean);
            let after = property
                .after
                .as_deref()
                .map_or("(removed)".to_owned(), clean);
            let forces = match property.replaces {
                Replacement::Always => format!("   {RED}forces replacement{RESET}"),
                Replacement::Conditional => format!("   {YELLOW}may force replacement{RESET}"),
                Replacement::Never => String::new(),
            };
            let place = places(&format!("{}.{}", change.logical, property.path))
                .map(|p| format!("   {DIM}{}{RESET}", clean(&p)))
                .unwrap_or_default();
            out.push(format!(
                "        {:<28} {before} → {after}{forces}{place}",
                clean(&property.path)
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_stands_in_one_line() {
        let calls = Traffic {
            account: "111111111111".parse().unwrap(),
            region: "eu-west-1".parse().unwrap(),
            call: "DescribeStacks".into(),
            made: 340,
            throttled: 12,
            waiting: 2,
            rate: Some(1.44),
            throttled_at: Some(Timestamp(7_000)),
        };
        assert_eq!(
            throttled(&calls, Timestamp(10_000)).unwrap(),
            "DescribeStacks in 111111111111/eu-west-1: 12 of 340 calls refused, the last 3.0 s ago, at most 1.4 a second now, 2 waiting"
        );
        let quiet = Traffic {
            throttled_at: None,
            ..calls
        };
        assert_eq!(throttled(&quiet, Timestamp(10_000)), None);
    }

    #[test]
    fn sec_13_control_characters_and_overrides_are_neutralised() {
        assert_eq!(clean("a\u{1b}[31mb\u{202E}c\nd"), "a·[31mb·c·d");
    }
}
