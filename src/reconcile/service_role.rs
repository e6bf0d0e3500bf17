//! The role that CloudFormation works with on a stack that is taken over: it stays with the stack, and may be gone.

use super::{Line, OperatorError};
use crate::domain::estate::Target;
use crate::domain::iam::{Trust, Works, trust};
use crate::domain::plan::Observed;
use crate::port;

/// How a role was found.
enum Found {
    Good,
    Unsure(String),
    Unseen(String),
    Missing,
    Refused(String),
}

impl Found {
    fn of(answer: Result<Option<String>, port::Error>, at: &Works<'_>) -> Self {
        match answer {
            Ok(Some(policy)) => match trust(&policy, at) {
                Trust::Given => Self::Good,
                Trust::Unsure(says) => Self::Unsure(says),
                Trust::Refused(why) => Self::Refused(why),
            },
            Ok(None) => Self::Missing,
            Err(error) => Self::Unseen(error.to_string()),
        }
    }

    /// Says why CloudFormation cannot work with it, where it cannot.
    fn fault(&self) -> Option<String> {
        match self {
            Self::Missing => Some("which does not exist".into()),
            Self::Refused(why) => Some(format!("which CloudFormation may not take: {why}")),
            _ => None,
        }
    }

    /// Says what was seen of it.
    fn words(&self) -> String {
        match self {
            Self::Good => "it exists and lets CloudFormation take it".into(),
            Self::Unsure(says) => {
                format!("whether CloudFormation may take it is not sure: {says}")
            }
            Self::Unseen(error) => {
                format!("it could not be checked: {error}; whoever looks needs iam:GetRole on it")
            }
            Self::Missing | Self::Refused(_) => self.fault().unwrap_or_default(),
        }
    }
}

/// Judges the role that a stack has and the one that it would be given: what a person should know, or why not to go on.
fn judge(
    account: &str,
    sticky: Option<(&str, &Found)>,
    given: Option<(&str, &Found)>,
) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    match (sticky, given) {
        (Some((role, found)), None) => match found.fault() {
            Some(fault) => {
                return Err(format!(
                    "CloudFormation works on this stack with the role {role}, {fault}. The stack keeps it until it is given another one: name one \
                     as `roles: {{ cloudformation: … }}` of the account {account} in the configuration, or mend this one"
                ));
            }
            None => notes.push(format!(
                "CloudFormation works on this stack with the role {role} until another one is given: {}",
                found.words()
            )),
        },
        (Some((role, found)), Some((new, _))) if role != new => notes.push(format!(
            "CloudFormation works on this stack with the role {role} until the first change, which gives it {new}: {}",
            found.words()
        )),
        _ => {}
    }
    if let Some((role, found)) = given {
        match found.fault() {
            Some(fault) => {
                return Err(format!(
                    "the configuration gives CloudFormation the role {role}, {fault}: mend the role (`isoform iam` prints its trust), or \
                     `roles: {{ cloudformation: … }}` of the account {account}"
                ));
            }
            None => notes.push(format!(
                "the role {role} of the configuration: {}",
                found.words()
            )),
        }
    }
    Ok(notes)
}

impl Line {
    /// Looks at the roles that CloudFormation works with on a stack: what a person should know of them. A role that is gone, or that
    /// CloudFormation may not take, is refused, for nothing could ever be changed.
    pub(super) async fn roles_of(
        &self,
        target: &Target,
        observed: &Observed,
    ) -> Result<Vec<String>, OperatorError> {
        let sticky = observed.role.as_deref();
        let Some(roles) = self.ports.roles(&target.placement, &target.region) else {
            return Ok(Vec::new());
        };
        let at = Works {
            account: &target.placement.account,
            region: &target.region,
            stack: Some(observed.stack_id.as_str()),
        };
        let given = roles.given();
        let seen = match sticky {
            Some(role) => Some((role, Found::of(roles.trust(role).await, &at))),
            None => None,
        };
        let new = match given {
            Some(role) => Some((role, Found::of(roles.trust(role).await, &at))),
            None => None,
        };
        judge(
            target.placement.account.as_str(),
            seen.as_ref().map(|(role, found)| (*role, found)),
            new.as_ref().map(|(role, found)| (*role, found)),
        )
        .map_err(OperatorError::NotNow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_cannot_be_taken_stops_it_unless_another_one_is_given() {
        let (good, gone) = (Found::Good, Found::Missing);
        let (away, unseen) = (
            Found::Refused("no statement".into()),
            Found::Unseen("access denied".into()),
        );
        for (sticky, given, expected) in [
            (None, None, Ok(0)),
            (Some(("old", &good)), None, Ok(1)),
            (Some(("old", &unseen)), None, Ok(1)),
            (Some(("old", &gone)), None, Err("old, which does not exist")),
            (
                Some(("old", &away)),
                None,
                Err("may not take: no statement"),
            ),
            (Some(("old", &gone)), Some(("new", &good)), Ok(2)),
            (Some(("new", &good)), Some(("new", &good)), Ok(1)),
            (
                Some(("old", &good)),
                Some(("new", &gone)),
                Err("new, which does not exist"),
            ),
            (None, Some(("new", &unseen)), Ok(1)),
        ] {
            match (judge("1", sticky, given), expected) {
                (Ok(notes), Ok(count)) => assert_eq!(notes.len(), count, "{notes:?}"),
                (Err(why), Err(words)) => assert!(why.contains(words), "{why}"),
                (found, _) => panic!("{found:?}, and not {expected:?}"),
            }
        }
    }

    #[test]
    fn what_could_not_be_checked_says_what_is_missing() {
        let unseen = Found::Unseen("access denied: GetRole".into());

        let notes = judge("1", Some(("old", &unseen)), None).unwrap();

        assert!(notes[0].contains("could not be checked"), "{notes:?}");
        assert!(notes[0].contains("iam:GetRole"), "{notes:?}");
    }
}
