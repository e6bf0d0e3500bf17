//! What the trust policy of a role says of CloudFormation, which is to take it for a stack.
//!
//! Which keys CloudFormation sends when it takes a role is written nowhere. So a condition that does not fit is told and not
//! held against anybody.

use serde_json::Value;

use super::read::{any, conditions};
use crate::domain::model::{AccountId, Region};

const SERVICE: &str = "cloudformation.amazonaws.com";

/// Whether CloudFormation may take a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It may.
    Given,
    /// It may, unless what the policy says beyond that keeps it from it.
    Unsure(String),
    /// It may not, and why.
    Refused(String),
}

/// Where CloudFormation works when it takes a role.
#[derive(Clone, Copy, Debug)]
pub struct Works<'a> {
    /// The account.
    pub account: &'a AccountId,
    /// The region.
    pub region: &'a Region,
    /// The ARN of the stack; absent where any is meant.
    pub stack: Option<&'a str>,
}

/// Reads a trust policy: may CloudFormation take the role there?
pub fn trust(policy: &str, at: &Works<'_>) -> Trust {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else {
        return Trust::Unsure("its trust policy cannot be read".into());
    };
    let statements = match policy.get("Statement") {
        Some(Value::Array(all)) => all.iter().collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    };
    let concerned = statements
        .into_iter()
        .filter(|s| takes(s) && names(s, at.region));
    let (denied, allowed): (Vec<_>, Vec<_>) =
        concerned.partition(|s| s.get("Effect").is_some_and(|e| e == "Deny"));
    let mut doubts = Vec::new();
    for statement in denied {
        let asked = asked(statement, at);
        if asked.is_empty() {
            return Trust::Refused(format!("a statement denies it to {SERVICE}"));
        }
        // One part that does not hold, and it denies nothing here.
        if !asked.iter().any(|a| a.fits == Some(false)) {
            doubts.push(format!("it is denied where {}", words(&asked)));
        }
    }
    let mut given = false;
    let mut asks = Vec::new();
    for statement in allowed {
        let asked = asked(statement, at);
        match asked.iter().all(|a| a.fits == Some(true)) {
            true => given = true,
            false => asks.push(format!("it is given where {}", words(&asked))),
        }
    }
    match (given, asks.is_empty()) {
        (false, true) => return Trust::Refused(format!("no statement lets {SERVICE} take it")),
        (false, false) => doubts.extend(asks),
        (true, _) => {}
    }
    match doubts.is_empty() {
        true => Trust::Given,
        false => Trust::Unsure(doubts.join("; ")),
    }
}

/// Tells whether a statement is about taking the role.
fn takes(statement: &Value) -> bool {
    let about = |key: &str| {
        any(statement.get(key), &|a| {
            like(&a.to_lowercase(), "sts:assumerole")
        })
    };
    match statement.get("NotAction") {
        Some(_) => !about("NotAction"),
        None => about("Action"),
    }
}

/// Tells whether a statement is about CloudFormation: by name, by that of a region, or as everybody.
fn names(statement: &Value, region: &Region) -> bool {
    let regional = format!("cloudformation.{region}.amazonaws.com");
    let is_it = |p: &str| p == SERVICE || p == regional || p == "*";
    let within = |principal: &Value| {
        principal == "*"
            || any(principal.get("Service"), &is_it)
            || any(principal.get("AWS"), &|p| p == "*")
    };
    match (statement.get("Principal"), statement.get("NotPrincipal")) {
        (Some(principal), _) => within(principal),
        (None, Some(but)) => !within(but),
        (None, None) => false,
    }
}

/// One part of a condition.
struct Asked {
    words: String,
    /// Whether it holds for the stack; absent where nobody knows.
    fits: Option<bool>,
}

fn asked(statement: &Value, at: &Works<'_>) -> Vec<Asked> {
    conditions(statement)
        .map(|(operator, key, value)| Asked {
            words: format!("{key} is {operator} {value}"),
            fits: fits(operator, key, value, at),
        })
        .collect()
}

fn words(asked: &[Asked]) -> String {
    let all: Vec<&str> = asked.iter().map(|a| a.words.as_str()).collect();
    all.join(" and ")
}

fn fits(operator: &str, key: &str, value: &Value, at: &Works<'_>) -> Option<bool> {
    let operator = operator.strip_suffix("IfExists").unwrap_or(operator);
    let plain = operator.replacen("Not", "", 1);
    let globs = match plain.as_str() {
        "StringEquals" | "StringEqualsIgnoreCase" => false,
        "StringLike" | "ArnEquals" | "ArnLike" => true,
        _ => return None,
    };
    let known = match key.to_lowercase().as_str() {
        "aws:sourceaccount" => at.account.to_string(),
        "aws:sourcearn" => at.stack.map_or_else(
            || {
                let (partition, _) = at.region.partition();
                let (region, account) = (at.region, at.account);
                format!("arn:{partition}:cloudformation:{region}:{account}:stack/any/any")
            },
            str::to_owned,
        ),
        _ => return None,
    };
    let same = |v: &str| match globs {
        true => like(v, &known),
        false => v == known,
    };
    let found = any(Some(value), &same);
    Some(found == (plain == operator))
}

/// Tells whether a pattern of IAM matches: `*` stands for any run of characters, `?` for one.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on after the newest star: one more character of the text is its own.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, t) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: &str = "arn:aws:cloudformation:eu-west-1:111111111111:stack/orders/1";

    fn read(policy: &str) -> Trust {
        let (account, region) = (
            "111111111111".parse().unwrap(),
            "eu-west-1".parse().unwrap(),
        );
        let at = Works {
            account: &account,
            region: &region,
            stack: Some(STACK),
        };
        trust(policy, &at)
    }

    fn word(policy: &str) -> &'static str {
        match read(policy) {
            Trust::Given => "given",
            Trust::Unsure(_) => "unsure",
            Trust::Refused(_) => "refused",
        }
    }

    const GIVEN: &str = r#"{"Effect":"Allow","Principal":{"Service":"cloudformation.amazonaws.com"},"Action":"sts:AssumeRole"}"#;

    fn with(condition: &str) -> String {
        GIVEN.replacen(
            "\"sts:AssumeRole\"",
            &format!("\"sts:AssumeRole\",\"Condition\":{condition}"),
            1,
        )
    }

    #[test]
    fn whom_a_trust_policy_names() {
        for (statement, expected) in [
            (GIVEN.to_owned(), "given"),
            (
                GIVEN.replace(
                    "\"cloudformation.amazonaws.com\"",
                    "[\"ec2.amazonaws.com\",\"cloudformation.amazonaws.com\"]",
                ),
                "given",
            ),
            (
                GIVEN.replace("cloudformation.", "cloudformation.eu-west-1."),
                "given",
            ),
            (
                GIVEN.replace("cloudformation.", "cloudformation.us-east-1."),
                "refused",
            ),
            (GIVEN.replace("cloudformation.", "proton."), "refused"),
            (
                GIVEN.replace("{\"Service\":\"cloudformation.amazonaws.com\"}", "\"*\""),
                "given",
            ),
            (
                GIVEN.replace(
                    "{\"Service\":\"cloudformation.amazonaws.com\"}",
                    "{\"AWS\":[\"*\"]}",
                ),
                "given",
            ),
            (
                GIVEN.replace(
                    "{\"Service\":\"cloudformation.amazonaws.com\"}",
                    "{\"AWS\":\"arn:aws:iam::111111111111:root\"}",
                ),
                "refused",
            ),
            (
                GIVEN.replace(
                    "\"sts:AssumeRole\"",
                    "[\"sts:TagSession\",\"sts:assumerole\"]",
                ),
                "given",
            ),
            (GIVEN.replace("sts:AssumeRole", "sts:*"), "given"),
            (GIVEN.replace("sts:AssumeRole", "sts:TagSession"), "refused"),
            (GIVEN.replace("\"Action\"", "\"NotAction\""), "refused"),
            (
                GIVEN.replace(
                    "\"Action\":\"sts:AssumeRole\"",
                    "\"NotAction\":\"sts:TagSession\"",
                ),
                "given",
            ),
            (GIVEN.replace("Allow", "Deny"), "refused"),
            (
                format!("{GIVEN},{}", GIVEN.replace("Allow", "Deny")),
                "refused",
            ),
            (
                format!(
                    "{GIVEN},{}",
                    GIVEN
                        .replace("Allow", "Deny")
                        .replace("\"Principal\"", "\"NotPrincipal\"")
                ),
                "given",
            ),
        ] {
            let policy = format!("{{\"Statement\":[{statement}]}}");
            assert_eq!(word(&policy), expected, "{policy}");
        }
        assert_eq!(
            word(&format!("{{\"Statement\":{GIVEN}}}")),
            "given",
            "one alone"
        );
        assert_eq!(word("{"), "unsure");
        assert_eq!(word("{}"), "refused");
    }

    #[test]
    fn a_condition_that_may_keep_it_away_is_told() {
        for (condition, expected) in [
            (
                r#"{"StringEquals":{"aws:SourceAccount":"111111111111"}}"#,
                "given",
            ),
            (
                r#"{"StringEqualsIfExists":{"AWS:sourceaccount":["2","111111111111"]}}"#,
                "given",
            ),
            (
                r#"{"StringEquals":{"aws:SourceAccount":"222222222222"}}"#,
                "unsure",
            ),
            (
                r#"{"StringNotEquals":{"aws:SourceAccount":"222222222222"}}"#,
                "given",
            ),
            (
                r#"{"ArnLike":{"aws:SourceArn":"arn:aws:cloudformation:*:111111111111:stack/ord?rs/*"}}"#,
                "given",
            ),
            (
                r#"{"ArnLike":{"aws:SourceArn":"arn:aws:cloudformation:us-east-1:*"}}"#,
                "unsure",
            ),
            (
                r#"{"StringEquals":{"aws:SourceArn":"arn:aws:cloudformation:*"}}"#,
                "unsure",
            ),
            (
                r#"{"ArnLikeIfExists":{"aws:SourceArn":"*"},"StringEquals":{"aws:SourceAccount":"2"}}"#,
                "unsure",
            ),
            (r#"{"StringEquals":{"sts:ExternalId":"x"}}"#, "unsure"),
            (
                r#"{"DateLessThan":{"aws:CurrentTime":"2030-01-01T00:00:00Z"}}"#,
                "unsure",
            ),
        ] {
            let policy = format!("{{\"Statement\":[{}]}}", with(condition));
            assert_eq!(word(&policy), expected, "{policy}");
        }
        let Trust::Unsure(says) = read(&format!(
            "{{\"Statement\":{}}}",
            with(r#"{"StringEquals":{"aws:SourceAccount":"2"}}"#)
        )) else {
            panic!("it does not fit");
        };
        assert!(
            says.contains("aws:SourceAccount is StringEquals \"2\""),
            "{says}"
        );
    }

    #[test]
    fn a_denial_counts_where_its_condition_may_hold() {
        for (condition, expected) in [
            (
                r#"{"StringNotEquals":{"aws:SourceAccount":"111111111111"}}"#,
                "given",
            ),
            (r#"{"StringNotEquals":{"aws:SourceAccount":"2"}}"#, "unsure"),
            (r#"{"Bool":{"aws:SecureTransport":"false"}}"#, "unsure"),
        ] {
            let denial = with(condition).replace("Allow", "Deny");
            let policy = format!("{{\"Statement\":[{GIVEN},{denial}]}}");
            assert_eq!(word(&policy), expected, "{policy}");
        }
    }

    #[test]
    fn patterns_are_those_of_iam() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*b*c", "a/b/b/c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*", "b", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(like(pattern, text), matches, "{pattern} {text}");
        }
    }
}
