//! Who is who: one person may come by several doors.
//!
//! An identity is written `<name>@<issuer>`: `ana@github.com` is whoever has that login there, `#123@github.com` whoever has
//! that id, which stays when an account is renamed. Without an issuer it is a login of the daemon's own host.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::model::Actor;

/// The issuer of whoever comes by the daemon's own socket.
const LOCAL: &str = "local";

/// Persons and their identities, as the operator's configuration names them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct People {
    /// By identity, with its issuer: the person.
    known: BTreeMap<String, String>,
}

/// Returns an identity with its issuer.
fn whole(identity: &str) -> String {
    if identity.contains('@') {
        identity.to_owned()
    } else {
        format!("{identity}@{LOCAL}")
    }
}

/// The identities that somebody has by the door that he came by.
fn identities(actor: &Actor) -> Vec<String> {
    let issuer = &actor.issuer;
    if issuer == LOCAL {
        // Whom the system names, it names by login alone.
        return vec![format!("{}@{LOCAL}", actor.subject)];
    }
    let mut all = vec![format!("#{}@{issuer}", actor.subject)];
    // A name that is written like an id, or with an issuer of its own, is no name.
    if !actor.display.starts_with('#') && !actor.display.contains('@') {
        all.push(format!("{}@{issuer}", actor.display));
    }
    all
}

impl People {
    /// Takes persons with their identities. An identity of two persons is told.
    pub fn new<'a>(
        given: impl IntoIterator<Item = (&'a str, &'a [String])>,
    ) -> Result<Self, String> {
        let mut known = BTreeMap::new();
        for (person, identities) in given {
            for identity in identities {
                let before = known.insert(whole(identity), person.to_owned());
                if let Some(other) = before.filter(|o| o != person) {
                    return Err(format!(
                        "`{identity}` is said to be `{other}` and `{person}`"
                    ));
                }
            }
        }
        Ok(Self { known })
    }

    /// Returns the person, or the identity where nobody said whose it is: the one that stays when an account is renamed,
    /// so that nobody counts twice by another name.
    pub fn name(&self, actor: &Actor) -> String {
        let mut identities = identities(actor);
        let known = identities.iter().find_map(|i| self.known.get(i));
        match known {
            Some(person) => person.clone(),
            None => identities.swap_remove(0),
        }
    }

    /// Tells whether an entry of a rule means somebody: a person, or an identity.
    pub fn is(&self, entry: &str, actor: &Actor) -> bool {
        let person = self.name(actor);
        let named = whole(entry);
        person == entry || identities(actor).contains(&named) || {
            // One identity of a person means the person.
            self.known.get(&named).is_some_and(|p| *p == person)
        }
    }

    /// Tells whether somebody is the author of a commit, whose name Git took from whoever wrote it.
    pub fn is_author(&self, author: &str, actor: &Actor) -> bool {
        author == actor.subject || author == actor.display || self.is(author, actor)
    }

    /// Returns how many people some entries mean.
    pub fn count(&self, entries: &[String]) -> usize {
        let persons = entries.iter().map(|entry| {
            let known = self.known.get(&whole(entry));
            known.cloned().unwrap_or_else(|| entry.clone())
        });
        persons.collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(issuer: &str, subject: &str, display: &str) -> Actor {
        Actor {
            issuer: issuer.into(),
            subject: subject.into(),
            via: "comment".into(),
            display: display.into(),
        }
    }

    #[test]
    fn a_name_is_nobody_elsewhere() {
        let people = People::default();
        let here = actor("local", "bo", "bo");
        let there = actor("github.com", "7", "bo");
        for (entry, local, forge) in [
            ("bo", true, false),
            ("bo@local", true, false),
            ("bo@github.com", false, true),
            ("#7@github.com", false, true),
            ("7@github.com", false, false),
            ("bo@gitlab.com", false, false),
        ] {
            assert_eq!(people.is(entry, &here), local, "{entry}");
            assert_eq!(people.is(entry, &there), forge, "{entry}");
        }
    }

    #[test]
    fn one_person_counts_once_by_whatever_door() {
        let identities = ["bo".to_owned(), "#7@github.com".to_owned()];
        let people = People::new([("bo-b", identities.as_slice())]).unwrap();
        let doors = [
            actor("local", "bo", "bo"),
            actor("github.com", "7", "renamed"),
        ];
        for door in &doors {
            assert_eq!(people.name(door), "bo-b");
            for entry in ["bo-b", "bo", "#7@github.com"] {
                assert!(people.is(entry, door), "{entry} {door:?}");
            }
        }
        assert_eq!(people.count(&["bo".into(), "bo-b".into()]), 1);
        assert_eq!(people.count(&["bo".into(), "ana".into()]), 2);
    }

    #[test]
    fn nobody_counts_twice_by_another_name() {
        let people = People::default();
        let before = actor("github.com", "7", "bo");
        let after = actor("github.com", "7", "robert");
        assert_eq!(people.name(&before), people.name(&after));
        // A name that looks like somebody else's id.
        let evil = actor("bitbucket.org", "{9}", "#{7}");
        assert!(!people.is("#{7}@bitbucket.org", &evil));
        assert!(people.is("#{9}@bitbucket.org", &evil));
        let forged = actor("forge.test", "9", "bo@github.com");
        assert!(!people.is("bo@github.com", &forged));
    }

    #[test]
    fn an_identity_is_of_one_person() {
        let one = ["bo".to_owned()];
        let twice = People::new([("a", one.as_slice()), ("b", one.as_slice())]);
        assert!(twice.is_err());
    }
}
