//! Sources that are no repositories: archives of bundles below a prefix of an object store.

use std::collections::BTreeMap;

use super::aws::{S3Store, store};
use super::raw;
use crate::domain::catalogue::Archive;
use crate::domain::estate::{Grant, May};
use crate::domain::model::SourceName;
use crate::domain::policy::Mode;

/// Where archives lie.
#[derive(Clone, Debug)]
pub enum ShelfPlace {
    /// In a bucket.
    S3(Box<S3Store>),
    /// In a store of the embedded engine, by its name.
    Local(String),
}

/// A place where archives of bundles lie, with what they may define.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// What it may do: templates and nothing else.
    pub grant: Grant,
    /// The URL, for people.
    pub url: String,
    /// Where it is.
    pub place: ShelfPlace,
}

/// Reports keys of a bucket at a source that is a repository.
pub(super) fn unused(raw: &raw::Source, at: &str, faults: &mut Vec<String>) {
    for (word, given) in [
        ("owner", raw.owner.is_some()),
        ("region", raw.region.is_some()),
        ("key", raw.key.is_some()),
        ("former_keys", !raw.former_keys.is_empty()),
        ("role", raw.role.is_some()),
        ("external_id", raw.external_id.is_some()),
    ] {
        if given {
            faults.push(format!(
                "{at}.{word}: it is said of a bucket, s3://…, and this source is a repository"
            ));
        }
    }
}

/// Gives meaning to the sources that are no repositories.
pub(super) fn resolve(file: &raw::File, faults: &mut Vec<String>) -> BTreeMap<SourceName, Shelf> {
    let mut shelves = BTreeMap::new();
    for (name, raw) in file.sources.iter().filter(|(_, s)| s.is_shelf()) {
        let at = format!("sources.{name}");
        for (word, given) in [
            ("branch", raw.branch != "main"),
            ("auth", raw.auth.is_given()),
            ("force_push", raw.force_push != raw::ForcePush::Refuse),
            ("deadline", raw.deadline.is_some()),
            ("mode", raw.mode.is_some()),
        ] {
            if given {
                faults.push(format!(
                    "{at}.{word}: it is said of a repository, and this source holds archives of templates"
                ));
            }
        }
        let place = place(raw, &at, file.local.is_some(), faults);
        let may = may(raw, &at, faults);
        match name.parse::<SourceName>() {
            Ok(source) => {
                if let (Some(place), Some(may)) = (place, may) {
                    let grant = Grant {
                        source: source.clone(),
                        mode: Mode::Auto,
                        may,
                    };
                    let url = raw.url.clone();
                    shelves.insert(source, Shelf { grant, url, place });
                }
            }
            Err(error) => faults.push(format!("{at}: {error}")),
        }
    }
    shelves
}

/// Archives bring templates: whatever else they may define would be allowed in vain.
fn may(raw: &raw::Source, at: &str, faults: &mut Vec<String>) -> Option<May> {
    let Some(given) = &raw.may else {
        faults.push(format!(
            "{at}.may: say which templates it may define: {{ templates: [\"*\"] }}; nothing is allowed by silence"
        ));
        return None;
    };
    for (word, globs) in [
        ("environments", &given.environments),
        ("services", &given.services),
        ("components", &given.components),
        ("stacks", &given.stacks),
        ("placements", &given.placements),
        ("stack_names", &given.stack_names),
    ] {
        if !globs.is_empty() {
            faults.push(format!(
                "{at}.may.{word}: archives bring templates and nothing else"
            ));
        }
    }
    Some(May {
        templates: given.templates.clone(),
        ..May::default()
    })
}

fn place(
    raw: &raw::Source,
    at: &str,
    embedded: bool,
    faults: &mut Vec<String>,
) -> Option<ShelfPlace> {
    if let Some(store) = raw.url.strip_prefix("local://") {
        if !embedded {
            faults.push(format!(
                "{at}.url: local://… is a store of the embedded engine, and there is no `local`; write s3://<bucket>/<prefix>"
            ));
            return None;
        }
        unused(raw, at, faults);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if store.is_empty() || !store.chars().all(plain) || store == "bundles" {
            faults.push(format!(
                "{at}.url: write local://<store>, a name of small letters, digits and `-`; `bundles` is where isoform keeps its own"
            ));
            return None;
        }
        return Some(ShelfPlace::Local(store.to_owned()));
    }
    if embedded {
        faults.push(format!(
            "{at}.url: beside `local` nothing in AWS is read; write local://<store>"
        ));
        return None;
    }
    let bucket = raw::BundleStore {
        url: raw.url.clone(),
        encryption: match raw.key {
            Some(_) => raw::Encryption::SseKms,
            None => raw::Encryption::SseS3,
        },
        owner: raw.owner.clone(),
        region: raw.region.clone(),
        key: raw.key.clone(),
        former_keys: raw.former_keys.clone(),
        role: raw.role.clone(),
        external_id: raw.external_id.clone(),
        object_lock: None,
    };
    let found = store(at, &bucket, faults)?;
    if Archive::is_one(&found.prefix) {
        faults.push(format!(
            "{at}.url: it names one archive; name the folder in which archives lie"
        ));
        return None;
    }
    Some(ShelfPlace::S3(Box::new(found)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    const ON_AWS: &str = r#"
isoform: 1
accounts: { prod: { id: "333333333333" } }
placements: { prod: { account: prod, regions: [us-east-1] } }
sources:
  proton: { url: "s3://acme-proton/templates", owner: "444444444444", key: "arn:aws:kms:us-east-1:444444444444:key/k", role: "arn:aws:iam::444444444444:role/read", external_id: xx, may: { templates: ["*"] } }
  code: { url: /srv/p.git, may: { services: ["*"], placements: [prod] } }
bundle_stores: { us: { url: "s3://acme-us", owner: "333333333333", region: us-east-1, encryption: sse-s3 } }
state: { path: state, key: "file:root.key" }
"#;

    fn resolve(text: &str) -> Result<Config, Vec<String>> {
        let file: raw::File = serde_yaml::from_str(text).unwrap();
        Config::resolve(&file, Path::new("/x"))
    }

    #[test]
    fn a_bucket_is_a_source_of_templates() {
        let config = resolve(ON_AWS).unwrap();

        let shelf = config.shelves.values().next().unwrap();
        let ShelfPlace::S3(store) = &shelf.place else {
            panic!("{shelf:?}");
        };
        assert_eq!(
            (store.bucket.as_str(), store.prefix.as_str()),
            ("acme-proton", "templates")
        );
        assert_eq!(store.region.as_str(), "us-east-1", "the key says it");
        assert_eq!(store.encryption, raw::Encryption::SseKms);
        assert_eq!(shelf.grant.may.templates, ["*"]);
        assert_eq!(config.sources.len(), 1);
    }

    #[test]
    fn a_fault_says_where_it_is() {
        for (from, to, key) in [
            ("owner: \"444444444444\", ", "", "sources.proton.owner"),
            ("s3://acme-proton/", "s3://Acme/", "sources.proton.url"),
            ("/templates\"", "/web.tar.gz\"", "sources.proton.url"),
            (":key/k", ":alias/k", "sources.proton.key"),
            ("role/read", "user/read", "sources.proton.role"),
            ("external_id: xx", "branch: dev", "sources.proton.branch"),
            (
                "external_id: xx",
                "auth: { token: t }",
                "sources.proton.auth",
            ),
            ("external_id: xx", "mode: auto", "sources.proton.mode"),
            (", may: { templates: [\"*\"] }", "", "sources.proton.may"),
            (
                "{ templates: [\"*\"] }",
                "{ templates: [\"*\"], placements: [prod] }",
                "sources.proton.may.placements",
            ),
            (
                "url: /srv/p.git,",
                "url: /srv/p.git, owner: \"444444444444\",",
                "sources.code.owner",
            ),
            (
                "s3://acme-proton/templates",
                "local://proton",
                "sources.proton.url",
            ),
        ] {
            let faults = resolve(&ON_AWS.replace(from, to)).unwrap_err();
            assert!(
                faults.iter().any(|f| f.starts_with(&format!("{key}:"))),
                "{key}: {faults:?}"
            );
        }
    }

    #[test]
    fn beside_the_embedded_engine_it_is_a_store_of_its_world() {
        let of = |url: &str| {
            resolve(&format!(
                "isoform: 1\naccounts: {{a: {{id: '000000000001'}}}}\nplacements: {{beta: {{account: a, regions: [us-east-1]}}}}\nsources: {{p: {{url: '{url}', may: {{templates: ['*']}}}}}}\nstate: {{path: state, key: 'file:root.key'}}\nlocal: {{path: cloud}}\n"
            ))
        };

        let config = of("local://proton").unwrap();

        let place = &config.shelves.values().next().unwrap().place;
        assert!(matches!(place, ShelfPlace::Local(store) if store == "proton"));
        for bad in [
            "local://bundles",
            "local://",
            "local://a/b",
            "s3://acme-proton",
        ] {
            assert!(
                of(bad).unwrap_err()[0].starts_with("sources.p.url:"),
                "{bad}"
            );
        }
    }
}
