//! Sources that are no repositories: archives of bundles in an object store.
//!
//! One listing tells whether anything has moved. What has moved is read once, and its bundles are put into the bundle store
//! under their digests before the new revision is accepted: from then on the archives are not needed any more, whoever
//! replaces or removes them. After that everything is as with a repository in which the bundles lie.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::bundles::open_bundle;
use super::{Error, Line};
use crate::domain::bundle;
use crate::domain::catalogue::{Archive, Shelf, Shelved, places, revision};
use crate::domain::model::{Finding, Place, Revision, SourceName, canonical_json, counted};
use crate::domain::template::Files;
use crate::git::{CommitInfo, Tree};
use crate::port::{self, ObjectStore, Pages, Put, body};

/// How many archives a shelf has at most, and how many objects are looked through for them.
const ARCHIVES: usize = 500;
const LISTED: usize = 20_000;
/// The largest archive: Proton took 5 MB of files, and some wrap more around them.
const ARCHIVE: u64 = 8 << 20;
/// All bundles of a shelf together: they are held in memory.
const TOTAL: usize = 256 << 20;
/// What an archive may cost when it is opened.
const LIMITS: bundle::Limits = bundle::Limits {
    entries: 2_000,
    bytes: 16 << 20,
    path: 512,
};
/// How long a listing may take, and for how long archives are read in one look: other sources wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
const READING: Duration = Duration::from_secs(20);
/// The largest manifest of a shelf.
const MANIFEST: u64 = 4 << 20;

/// A shelf at a revision, as the bundles that lie in it.
pub(super) struct Read {
    pub tree: Arc<Tree>,
    pub commit: CommitInfo,
    shelf: Shelf,
}

/// The newest of each shelf that was read.
#[derive(Default)]
pub(super) struct Shelves {
    read: Mutex<BTreeMap<SourceName, (Revision, Arc<Read>)>>,
    /// What was found in archives of shelves that could not be read to the end yet.
    begun: Mutex<BTreeMap<SourceName, Vec<Shelved>>>,
}

impl Shelves {
    fn of(&self, name: &SourceName) -> Option<(Revision, Arc<Read>)> {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).cloned()
    }

    fn keep(&self, name: &SourceName, revision: &Revision, read: &Arc<Read>) {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.clone(), (revision.clone(), read.clone()));
    }

    fn begun(&self, name: &SourceName) -> Vec<Shelved> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.get(name).cloned().unwrap_or_default()
    }

    fn go_on_from(&self, name: &SourceName, shelved: Vec<Shelved>) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.insert(name.clone(), shelved);
    }
}

fn key(name: &SourceName, revision: &Revision) -> String {
    format!("sources/{name}/{revision}.json")
}

/// Why a shelf could not be read, as its source shows it.
fn told(error: &Error) -> String {
    match error {
        Error::Port(port::Error::KeyUnavailable(text)) => {
            format!("Held(KeyUnavailable): {text}")
        }
        Error::Port(error @ port::Error::Denied(_)) => format!("shelf.denied: {error}"),
        Error::Broken(text) => format!("shelf.refused: {text}"),
        other => format!("shelf.unreachable: {other}"),
    }
}

impl Line {
    /// Looks at every shelf; tells whether all of them could be read.
    ///
    /// At an unchanged one this is one listing. Unknown is not empty: where one cannot be read, what it had stands.
    pub(super) async fn look_at_shelves(
        &self,
        revisions: &mut BTreeMap<SourceName, Revision>,
    ) -> Result<bool, Error> {
        let mut complete = true;
        for name in self.settings.shelves.keys() {
            match self.look_at_shelf(name, revisions.get(name)).await {
                Ok(head) => {
                    if !(revisions.get(name) == Some(&head) && self.is_left_alone(name)) {
                        self.shared().refused.remove(name);
                    }
                    revisions.insert(name.clone(), head);
                }
                // What concerns the line itself is none of a shelf's.
                Err(error @ (Error::Store(_) | Error::Forked(_) | Error::Illegal(_))) => {
                    return Err(error);
                }
                Err(error) => {
                    complete = false;
                    self.refuse(name, None, &told(&error)).await?;
                }
            }
        }
        Ok(complete)
    }

    async fn look_at_shelf(
        &self,
        name: &SourceName,
        known: Option<&Revision>,
    ) -> Result<Revision, Error> {
        // A bucket that does not answer keeps nobody else waiting for long.
        let (head, archives) = tokio::select! {
            biased;
            listed = self.listing(name) => listed?,
            () = self.clock.sleep(PATIENCE) => {
                let late = format!("the listing of `{name}` took more than {} s", PATIENCE.as_secs());
                return Err(port::Error::Unavailable(late).into());
            }
        };
        if known != Some(&head) {
            let before = match known {
                Some(before) => self.shelf(name, before).await.ok(),
                None => None,
            };
            self.shelve(name, &head, archives, before.as_deref())
                .await?;
        }
        Ok(head)
    }

    fn objects_of(&self, name: &SourceName) -> Result<Arc<dyn ObjectStore>, Error> {
        let store = self.ports.shelf(name);
        store.ok_or_else(|| Error::Broken(format!("the source `{name}` has no object store")))
    }

    /// Lists the archives of a shelf, all pages.
    async fn listing(&self, name: &SourceName) -> Result<(Revision, BTreeSet<Archive>), Error> {
        let store = self.objects_of(name)?;
        let mut found = BTreeSet::new();
        let (mut pages, mut listed) = (Pages::default(), 0);
        while pages.go_on() {
            let page = store.list("", pages.token()).await?;
            listed += page.items.len();
            for object in page.items {
                if Archive::is_one(&object.key) {
                    found.insert(Archive {
                        key: object.key,
                        etag: object.etag,
                        size: object.size,
                    });
                }
            }
            if listed > LISTED || found.len() > ARCHIVES {
                return Err(Error::Broken(format!(
                    "more than {ARCHIVES} archives, or more than {LISTED} objects, lie there: name a narrower prefix in `url`"
                )));
            }
            pages.turn(page.next)?;
        }
        let head = revision(&found)
            .ok_or_else(|| Error::Broken("the listing has no digest".to_owned()))?;
        Ok((head, found))
    }

    /// Reads what is not as it was before, and puts the bundles and what is known of them into the bundle store.
    async fn shelve(
        &self,
        name: &SourceName,
        head: &Revision,
        archives: BTreeSet<Archive>,
        before: Option<&Read>,
    ) -> Result<Arc<Read>, Error> {
        let store = self.objects_of(name)?;
        let begun = self.shelves.begun(name);
        let until = self.clock.steady().plus(READING);
        let (mut shelved, all) = (Vec::new(), archives.len());
        for archive in archives {
            let known = before.and_then(|b| b.shelf.same(&archive));
            if let Some(same) = known.or_else(|| begun.iter().find(|s| s.archive == archive)) {
                shelved.push(same.clone());
                continue;
            }
            if self.clock.steady() > until {
                let read = shelved.len();
                self.shelves.go_on_from(name, shelved);
                return Err(port::Error::Busy(format!(
                    "{read} of {} are read; the next look goes on",
                    counted(all, "archive")
                ))
                .into());
            }
            match self.take_in(store.as_ref(), archive).await {
                Ok(found) => shelved.push(found),
                Err(error) => {
                    self.shelves.go_on_from(name, shelved);
                    return Err(error);
                }
            }
        }
        let shelf = Shelf {
            isoform_shelf: 1,
            at: self.clock.now(),
            archives: shelved,
        };
        let read = Arc::new(self.opened(name, head, shelf.clone(), before).await?);
        let text = canonical_json(&json!(shelf));
        let home = self.ports.home();
        match home
            .put(&key(name, head), body(text), &Put::default())
            .await
        {
            // Of the same listing the same comes out.
            Ok(_) | Err(port::Error::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.shelves.keep(name, head, &read);
        self.shelves.go_on_from(name, Vec::new());
        Ok(read)
    }

    /// Reads one archive and puts its bundles. What is wrong with the archive itself is kept with it.
    async fn take_in(&self, store: &dyn ObjectStore, archive: Archive) -> Result<Shelved, Error> {
        let mut out = Shelved {
            archive,
            version: None,
            bundles: BTreeMap::new(),
            refused: None,
        };
        let found = &out.archive;
        if let Err(why) = bundle::check_path(&found.key, &LIMITS) {
            out.refused = Some(why.to_owned());
            return Ok(out);
        }
        if found.size > ARCHIVE {
            out.refused = Some(format!(
                "the archive has {} bytes, at most {ARCHIVE} are read",
                found.size
            ));
            return Ok(out);
        }
        let (meta, bytes) = port::read_whole(store, &found.key, None, ARCHIVE).await?;
        if meta.etag != found.etag {
            let moved = format!("{} was replaced while it was read", found.key);
            return Err(port::Error::Busy(moved).into());
        }
        out.version = meta.version;
        let key = found.key.clone();
        let opened = move || {
            let files = bundle::unpack(&bytes, &LIMITS).map_err(|e| whole(&e))?;
            places(&key, &files)
        };
        let opened = tokio::task::spawn_blocking(opened)
            .await
            .map_err(|_| Error::Panicked)?;
        match opened {
            Ok(bundles) => {
                for (place, files) in bundles {
                    let digest = bundle::digest(&files);
                    self.put_bundle(&digest, &files, &place.replace("/v", "@"))
                        .await?;
                    out.bundles.insert(place, digest);
                }
            }
            Err(why) => out.refused = Some(why),
        }
        Ok(out)
    }

    /// Returns a shelf at a revision: as it was read last, or from the bundle store.
    pub(super) async fn shelf(
        &self,
        name: &SourceName,
        wanted: &Revision,
    ) -> Result<Arc<Read>, Error> {
        let known = self.shelves.of(name);
        if let Some((_, read)) = known.as_ref().filter(|(revision, _)| revision == wanted) {
            return Ok(read.clone());
        }
        let home = self.ports.home();
        let bytes = match port::read_all(home.as_ref(), &key(name, wanted), None, MANIFEST).await {
            Ok(bytes) => bytes,
            // The bundle store is another one than it was: what still lies there as it did is taken in again.
            Err(port::Error::NotFound(what)) => {
                let (head, archives) = self.listing(name).await?;
                if head != *wanted {
                    return Err(port::Error::NotFound(what).into());
                }
                return self.shelve(name, &head, archives, None).await;
            }
            Err(error) => return Err(error.into()),
        };
        let shelf: Shelf = serde_json::from_slice(&bytes)
            .map_err(|e| Error::Broken(format!("{} cannot be read: {e}", key(name, wanted))))?;
        let before = known.as_ref().map(|(_, read)| read.as_ref());
        let read = Arc::new(self.opened(name, wanted, shelf, before).await?);
        if known.is_none() {
            self.shelves.keep(name, wanted, &read);
        }
        Ok(read)
    }

    /// Lays the bundles of a shelf out as a repository would have them.
    async fn opened(
        &self,
        name: &SourceName,
        revision: &Revision,
        shelf: Shelf,
        before: Option<&Read>,
    ) -> Result<Read, Error> {
        let home = self.ports.home();
        let sealing = self.ports.sealing();
        let mut tree = Tree::default();
        let mut holds: BTreeMap<&str, &str> = BTreeMap::new();
        let mut total = 0;
        for one in &shelf.archives {
            let key = one.archive.key.as_str();
            if let Some(why) = &one.refused {
                let message = format!("the archive is not taken in: {why}");
                tree.findings
                    .push(Finding::error("shelf.archive", Place::file(key), message));
            }
            for (place, digest) in &one.bundles {
                if let Some(other) = holds.insert(place, key) {
                    let message = format!(
                        "it holds {}, and so does `{other}`, which comes first and counts",
                        place.replace("/v", "@")
                    );
                    let finding = Finding::error("template.ambiguous", Place::file(key), message);
                    tree.findings
                        .push(finding.help("replace the one, or take the other away"));
                    holds.insert(place, other);
                    continue;
                }
                let known = before.filter(|b| b.shelf.archives.contains(one));
                let files = match known.map(|b| below(&b.tree.files, place)) {
                    Some(files) if bundle::digest(&files) == *digest => files,
                    _ => open_bundle(home.as_ref(), sealing.as_deref(), digest).await?,
                };
                total += files.values().map(|f| f.bytes.len()).sum::<usize>();
                if total > TOTAL {
                    return Err(Error::Broken(format!(
                        "the archives hold more than {TOTAL} bytes together: name a narrower prefix in `url`"
                    )));
                }
                let placed = files.into_iter().map(|(p, f)| (format!("{place}/{p}"), f));
                tree.files.extend(placed);
            }
        }
        let url = self.settings.shelves.get(name).map(|s| s.url.as_str());
        let summary = format!(
            "{} in {}",
            counted(shelf.archives.len(), "archive"),
            url.unwrap_or_default()
        );
        Ok(Read {
            tree: Arc::new(tree),
            commit: CommitInfo {
                revision: revision.clone(),
                author: String::new(),
                summary,
                at: shelf.at,
            },
            shelf,
        })
    }
}

fn below(files: &Files, place: &str) -> Files {
    crate::domain::template::sub_tree(files, place)
}

/// An error with its cause, in one line.
fn whole(error: &bundle::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_shelf_cannot_be_read_is_told_by_a_stable_word() {
        for (error, word) in [
            (
                port::Error::KeyUnavailable("k".into()),
                "Held(KeyUnavailable): k",
            ),
            (
                port::Error::Denied("d".into()),
                "shelf.denied: access denied: d",
            ),
            (
                port::Error::Unavailable("u".into()),
                "shelf.unreachable: a service: unavailable: u",
            ),
        ] {
            assert_eq!(told(&Error::Port(error)), word);
        }
        let narrow = Error::Broken("too much".into());
        assert_eq!(told(&narrow), "shelf.refused: too much");
    }
}
