//! What is known of resource types: a reduced, generated table of the published resource-provider schemas, and a
//! hand-kept table of types that hold state. `data/resource-types/` has both, the script and the licence notice.

use std::collections::BTreeMap;
use std::sync::OnceLock;

static TABLE: &str = include_str!("../../../data/resource-types/resources.tsv");
static STATEFUL: &str = include_str!("../../../data/resource-types/stateful.tsv");

/// What the published schema says of one resource type.
#[derive(Clone, Copy, Debug)]
pub struct ResourceType {
    entries: &'static str,
    identifier: &'static str,
    meta: &'static str,
}

/// A type whose replacement or deletion loses something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatefulType {
    /// What is lost.
    pub reason: &'static str,
    /// Whether CloudFormation can take a snapshot first.
    pub snapshot: bool,
}

/// How a change of a property is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mutability {
    Mutable,
    Conditional,
    CreateOnly,
}

/// Looks a type up; absent for custom resources and for types that the schemas do not know.
pub fn resource_type(name: &str) -> Option<ResourceType> {
    static INDEX: OnceLock<BTreeMap<&'static str, ResourceType>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let mut index = BTreeMap::new();
        for line in TABLE.lines().filter(|l| !l.starts_with('#')) {
            let mut columns = line.split('\t');
            if let (Some(name), Some(meta), Some(identifier), Some(entries)) = (
                columns.next(),
                columns.next(),
                columns.next(),
                columns.next(),
            ) {
                index.insert(
                    name,
                    ResourceType {
                        entries,
                        identifier,
                        meta,
                    },
                );
            }
        }
        index
    });
    index.get(name).copied()
}

/// Tells what is lost when a resource of this type is replaced or deleted.
pub fn stateful(name: &str) -> Option<StatefulType> {
    static INDEX: OnceLock<BTreeMap<&'static str, StatefulType>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let mut index = BTreeMap::new();
        for line in STATEFUL.lines().filter(|l| !l.starts_with('#')) {
            let mut columns = line.split('\t');
            if let (Some(name), Some(reason), Some(snapshot)) =
                (columns.next(), columns.next(), columns.next())
            {
                index.insert(
                    name,
                    StatefulType {
                        reason,
                        snapshot: snapshot == "yes",
                    },
                );
            }
        }
        index
    });
    index.get(name).copied()
}

impl ResourceType {
    fn entries(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.entries
            .split(' ')
            .filter_map(|e| e.split_once('='))
            .map(|(path, flags)| (path, flags.split('~').next().unwrap_or_default()))
    }

    /// Tells whether the schema has this top-level property as an input.
    pub fn has_property(self, name: &str) -> bool {
        self.entries()
            .any(|(path, flags)| path == name && (!flags.contains('R') || flags.contains('C')))
    }

    /// Returns the names of the top-level properties that can be set.
    pub fn properties(self) -> Vec<&'static str> {
        self.entries()
            .filter(|(path, flags)| !path.contains('/') && !flags.contains('R'))
            .map(|(path, _)| path)
            .collect()
    }

    /// Tells whether `Fn::GetAtt` may name this attribute. `true` where the schema leaves it open.
    pub fn has_attribute(self, name: &str) -> bool {
        let path = name.replace('.', "/");
        self.meta.contains("getatt=")
            || self
                .entries()
                .any(|(p, flags)| p == path && (flags.contains('G') || flags.contains('H')))
    }

    /// Returns the attributes that `Fn::GetAtt` may name.
    pub fn attributes(self) -> Vec<String> {
        self.entries()
            .filter(|(_, f)| f.contains('G') || f.contains('H'))
            .map(|(p, _)| p.replace('/', "."))
            .collect()
    }

    /// Returns the properties that identify a resource, as the schema orders them.
    pub fn identifier(self) -> impl Iterator<Item = &'static str> {
        self.identifier.split(',').filter(|p| *p != "-")
    }

    /// Tells whether the old resource must go before the new one can come.
    pub fn deletes_before_create(self) -> bool {
        self.meta.contains("replace=delete_then_create")
    }

    /// Tells how a change at a property path is made. List positions are written `*`.
    ///
    /// A create-only path counts for what stands below it; and what stands above it counts as conditional, because
    /// only a change of that very part replaces.
    pub(crate) fn mutability(self, path: &str) -> Mutability {
        let below = |a: &str, b: &str| {
            a == b || (a.len() > b.len() && a.starts_with(b) && a.as_bytes()[b.len()] == b'/')
        };
        self.entries()
            .filter_map(|(entry, flags)| {
                let kind = if flags.contains('C') {
                    Mutability::CreateOnly
                } else if flags.contains('K') {
                    Mutability::Conditional
                } else {
                    return None;
                };
                if below(path, entry) {
                    Some(kind)
                } else if below(entry, path) {
                    Some(Mutability::Conditional)
                } else {
                    None
                }
            })
            .max()
            .unwrap_or(Mutability::Mutable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_whole() {
        let bucket = resource_type("AWS::S3::Bucket").unwrap();
        assert_eq!(bucket.mutability("BucketName"), Mutability::CreateOnly);
        assert_eq!(
            bucket.mutability("VersioningConfiguration/Status"),
            Mutability::Mutable
        );
        assert!(
            bucket.has_attribute("Arn")
                && bucket.has_property("Tags")
                && !bucket.has_property("Arn")
        );
        assert_eq!(
            resource_type("AWS::RDS::DBInstance")
                .unwrap()
                .mutability("Engine"),
            Mutability::Conditional
        );
        assert!(stateful("AWS::RDS::DBInstance").unwrap().snapshot);
        assert!(stateful("AWS::IAM::Policy").is_none());
        assert!(resource_type("Custom::Thing").is_none());
    }
}
