//! The catalogue: which versions of which templates are registered, and which one a name means.
//!
//! A version is immutable once registered. A merged change of a template's content makes the next minor of its major;
//! the newest is the recommended one. Nothing here stores anything: `reconcile` puts registrations under their keys
//! with a conditional put, and the log holds them.

mod shelf;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::model::{Digest, Revision, SourceName};
use super::spec::TemplateRef;
use super::template::BundleKind;
pub use shelf::{Archive, Shelf, Shelved, places, revision};

/// One registered version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// What the template is for.
    pub kind: BundleKind,
    /// Its name.
    pub name: String,
    /// The major version.
    pub major: u32,
    /// The minor version; the first is 0.
    pub minor: u32,
    /// The bundle's identity.
    pub bundle: Digest,
    /// The source it came from.
    pub source: SourceName,
    /// The commit that brought it.
    pub revision: Revision,
}

impl Registered {
    /// Returns the key under which the registration is put: last, and only if absent.
    pub fn key(&self) -> String {
        format!(
            "catalogue/{}/{}/{}/{}.json",
            self.kind.word(),
            self.name,
            self.major,
            self.minor
        )
    }

    /// Returns `name@major.minor`.
    pub fn version(&self) -> String {
        format!("{}@{}.{}", self.name, self.major, self.minor)
    }
}

/// Every registered version.
#[derive(Clone, Default, Debug)]
pub struct Catalogue {
    versions: BTreeMap<(BundleKind, String, u32), Vec<Registered>>,
}

/// Why a version cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the version {0} is registered with other content")]
pub struct Conflict(pub String);

impl Catalogue {
    /// Adds a registration, as the log or the store tells it. Adding the same one twice changes nothing.
    pub fn add(&mut self, version: Registered) -> Result<(), Conflict> {
        let list = self
            .versions
            .entry((version.kind, version.name.clone(), version.major))
            .or_default();
        match list.iter().find(|v| v.minor == version.minor) {
            Some(same) if same.bundle == version.bundle => Ok(()),
            Some(_) => Err(Conflict(version.version())),
            None => {
                list.push(version);
                list.sort_by_key(|v| v.minor);
                Ok(())
            }
        }
    }

    /// Returns the minor that content becomes: `None` where the newest has this very content.
    ///
    /// The comparison is with the newest only, as Proton's was: a revert makes one more minor.
    pub fn next_minor(
        &self,
        kind: BundleKind,
        name: &str,
        major: u32,
        bundle: &Digest,
    ) -> Option<u32> {
        match self.newest(kind, name, major) {
            Some(newest) if newest.bundle == *bundle => None,
            Some(newest) => Some(newest.minor + 1),
            None => Some(0),
        }
    }

    /// Returns the recommended minor of a major.
    pub fn newest(&self, kind: BundleKind, name: &str, major: u32) -> Option<&Registered> {
        self.versions.get(&(kind, name.to_owned(), major))?.last()
    }

    /// Returns what a reference means.
    pub fn resolve(&self, kind: BundleKind, reference: &TemplateRef) -> Option<&Registered> {
        let list = self
            .versions
            .get(&(kind, reference.name.clone(), reference.major))?;
        match reference.minor {
            Some(minor) => list.iter().find(|v| v.minor == minor),
            None => list.last(),
        }
    }

    /// Returns every registration.
    pub fn all(&self) -> impl Iterator<Item = &Registered> {
        self.versions.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(minor: u32, content: &[u8]) -> Registered {
        Registered {
            kind: BundleKind::Service,
            name: "web".into(),
            major: 1,
            minor,
            bundle: Digest::of("b1", content),
            source: "s".parse().unwrap(),
            revision: "0".repeat(40).parse().unwrap(),
        }
    }

    #[test]
    fn changed_content_makes_the_next_minor_and_a_revert_one_more() {
        let mut catalogue = Catalogue::default();
        let next = |c: &Catalogue, content: &[u8]| {
            c.next_minor(BundleKind::Service, "web", 1, &Digest::of("b1", content))
        };
        assert_eq!(next(&catalogue, b"a"), Some(0));
        catalogue.add(version(0, b"a")).unwrap();
        assert_eq!(
            (next(&catalogue, b"a"), next(&catalogue, b"b")),
            (None, Some(1))
        );
        catalogue.add(version(1, b"b")).unwrap();
        assert_eq!(next(&catalogue, b"a"), Some(2));
    }

    #[test]
    fn a_major_follows_and_a_minor_pins() {
        let mut catalogue = Catalogue::default();
        catalogue.add(version(0, b"a")).unwrap();
        catalogue.add(version(1, b"b")).unwrap();
        let minor = |text: &str| {
            catalogue
                .resolve(BundleKind::Service, &text.parse().unwrap())
                .map(|v| v.minor)
        };
        assert_eq!(
            (
                minor("web@1"),
                minor("web@1.0"),
                minor("web@1.7"),
                minor("web@2")
            ),
            (Some(1), Some(0), None, None)
        );
        assert_eq!(
            catalogue.add(version(0, b"x")),
            Err(Conflict("web@1.0".into()))
        );
    }
}
