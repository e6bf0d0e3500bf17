//! Capabilities: what CloudFormation wants to be acknowledged before a template may do it.
//!
//! isoform finds most of them in the text. What a macro makes of a text, and what a new type does, only CloudFormation knows.

/// The capability of a template that a macro rewrites.
const EXPANDS: &str = "CAPABILITY_AUTO_EXPAND";

/// Tells whether one is among those that are acknowledged: whoever may make roles with names may make others.
pub fn covers(acknowledged: &[String], needed: &str) -> bool {
    let named = |a: &String| needed == "CAPABILITY_IAM" && a == "CAPABILITY_NAMED_IAM";
    acknowledged.iter().any(|a| a == needed || named(a))
}

/// Returns what is acknowledged without asking: what the text shows.
///
/// Where a macro rewrites the text, also what the target's options name: a change set that fails for want of one says so in
/// words only, and whoever wrote the option has said it beforehand.
pub fn acknowledged(found: &[String], allowed: Option<&[String]>) -> Vec<String> {
    let mut all = found.to_vec();
    if covers(found, EXPANDS) {
        all.extend(allowed.unwrap_or_default().iter().cloned());
    }
    sorted(all)
}

/// Adds what CloudFormation needs to what was acknowledged; the error is the first that the options do not allow.
pub fn grown(
    acknowledged: &[String],
    needed: &[String],
    allowed: Option<&[String]>,
) -> Result<Vec<String>, String> {
    let more = || needed.iter().filter(|n| !covers(acknowledged, n));
    if let Some(allowed) = allowed
        && let Some(refused) = more().find(|n| !covers(allowed, n))
    {
        return Err(refused.clone());
    }
    Ok(sorted(acknowledged.iter().chain(more()).cloned().collect()))
}

/// Returns what is acknowledged although neither the text shows it nor the options name it: a person has to see that.
pub fn unforeseen(
    acknowledged: &[String],
    found: &[String],
    allowed: Option<&[String]>,
) -> Vec<String> {
    let named = allowed.unwrap_or_default();
    let foreseen = |c: &&String| covers(found, c) || covers(named, c);
    let rest = acknowledged.iter().filter(|c| !foreseen(c));
    sorted(rest.cloned().collect())
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const IAM: &str = "CAPABILITY_IAM";
    const NAMED: &str = "CAPABILITY_NAMED_IAM";

    fn of(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn named_roles_cover_others_and_not_the_other_way_round() {
        assert!(covers(&of(&[NAMED]), IAM));
        assert!(covers(&of(&[IAM]), IAM));
        assert!(!covers(&of(&[IAM]), NAMED));
        assert!(!covers(&of(&[NAMED]), EXPANDS));
    }

    #[test]
    fn only_with_a_macro_is_more_acknowledged_than_the_text_shows() {
        let allowed = of(&[NAMED, EXPANDS]);
        for (found, expected) in [
            (of(&[IAM]), of(&[IAM])),
            (of(&[EXPANDS]), of(&[EXPANDS, NAMED])),
        ] {
            assert_eq!(acknowledged(&found, Some(&allowed)), expected);
            assert_eq!(acknowledged(&found, None), found);
        }
    }

    #[test]
    fn it_grows_as_far_as_the_options_allow() {
        for (had, needed, allowed, expected) in [
            (of(&[]), of(&[IAM]), None, Ok(of(&[IAM]))),
            (of(&[EXPANDS]), of(&[IAM]), None, Ok(of(&[EXPANDS, IAM]))),
            (of(&[NAMED]), of(&[IAM]), None, Ok(of(&[NAMED]))),
            (of(&[]), of(&[IAM]), Some(of(&[NAMED])), Ok(of(&[IAM]))),
            (of(&[]), of(&[NAMED]), Some(of(&[IAM])), Err(NAMED.into())),
            // What was acknowledged before is not asked for again.
            (of(&[IAM]), of(&[IAM]), Some(of(&[])), Ok(of(&[IAM]))),
        ] {
            assert_eq!(grown(&had, &needed, allowed.as_deref()), expected);
        }
    }

    #[test]
    fn what_nobody_foresaw_is_told() {
        for (had, found, allowed, expected) in [
            (of(&[IAM]), of(&[IAM]), None, of(&[])),
            (of(&[IAM]), of(&[NAMED]), None, of(&[])),
            (of(&[IAM]), of(&[]), None, of(&[IAM])),
            (of(&[IAM]), of(&[]), Some(of(&[NAMED])), of(&[])),
            (of(&[NAMED]), of(&[IAM]), Some(of(&[IAM])), of(&[NAMED])),
        ] {
            assert_eq!(unforeseen(&had, &found, allowed.as_deref()), expected);
        }
    }
}
