//! Pages of listings: each is read once, and no link of an answer leads elsewhere.

use std::collections::BTreeSet;

use reqwest::Url;

use super::client::{Answer, Call, Client, Place};
use super::words::clean;
use crate::port::Error;

/// A walk over the pages of a listing: each once, and no more of them than allowed.
pub struct Walk {
    next: Option<Call>,
    seen: BTreeSet<String>,
    left: usize,
    /// Whether there were more pages than allowed.
    pub cut: bool,
}

impl Walk {
    /// Begins at a call; at most so many pages are read.
    pub fn new(first: Call, most: usize) -> Self {
        Self {
            next: Some(first),
            seen: BTreeSet::new(),
            left: most,
            cut: false,
        }
    }

    /// Returns the call for the page that is next.
    pub fn call(&mut self) -> Option<Call> {
        let call = self.next.take()?;
        if self.left == 0 {
            self.cut = true;
            return None;
        }
        self.left -= 1;
        Some(call)
    }

    /// Turns to the page that `Link: …; rel="next"` of an answer names (RFC 8288).
    pub fn turn(&mut self, client: &Client, from: &Call, answer: &Answer) -> Result<(), Error> {
        let links = answer.headers.get_all(reqwest::header::LINK);
        let next = links.iter().find_map(|l| next_link(l.to_str().ok()?));
        self.turn_to(client, from, next.as_deref())
    }

    /// Turns to a page that the body of an answer names.
    pub fn turn_to(
        &mut self,
        client: &Client,
        from: &Call,
        next: Option<&str>,
    ) -> Result<(), Error> {
        let Some(link) = next else {
            return Ok(());
        };
        let call = client.follow(from, link)?;
        if !self.seen.insert(link.to_owned()) {
            return Err(Error::Untrusted(format!(
                "{}: the listing leads back to a page that it had before",
                from.name()
            )));
        }
        self.next = Some(call);
        Ok(())
    }
}

fn next_link(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>')?;
        let link = &rest[start + 1..end];
        let after = &rest[end + 1..];
        let parameters = &after[..after.find('<').unwrap_or(after.len())];
        let is_next = parameters.split([';', ',']).any(|p| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            name.trim().eq_ignore_ascii_case("rel")
                && value
                    .trim()
                    .trim_matches('"')
                    .split(' ')
                    .any(|word| word.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(link.to_owned());
        }
        rest = after;
    }
    None
}

impl Client {
    /// Makes a call out of a link of an answer: only below the same base, so that no answer sends the token elsewhere.
    pub fn follow(&self, from: &Call, link: &str) -> Result<Call, Error> {
        let refuse = |why: &str| {
            Error::Untrusted(format!(
                "{}: the next page {why}: `{}`",
                from.name(),
                clean(link, 120)
            ))
        };
        let url = Url::parse(link).map_err(|_| refuse("is no address"))?;
        let below = url.path().starts_with(self.base.path());
        let plain = url.username().is_empty() && url.password().is_none();
        if url.origin() != self.base.origin() || !below || !plain {
            return Err(refuse("lies somewhere else"));
        }
        let mut call = from.clone();
        call.place = Place::Link(url);
        call.query = Vec::new();
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::client::tests::client;

    #[test]
    fn a_link_is_followed_only_below_the_same_base() {
        let client = client("https://git.example.com/api/v3");
        let from = Call::get(["repos"]).query("page", 1);

        let next = client.follow(
            &from,
            "https://git.example.com/api/v3/repositories/1/pulls?page=2",
        );

        let url = client.url(&next.unwrap()).unwrap();
        assert_eq!(url.query(), Some("page=2"));
        for bad in [
            "https://evil.example.com/api/v3/repos?page=2",
            "http://git.example.com/api/v3/repos?page=2",
            "https://git.example.com:444/api/v3/repos",
            "https://git.example.com/other?page=2",
            "https://git.example.com/api/v3/../v4/x",
            "https://u:p@git.example.com/api/v3/repos",
            "/api/v3/repos?page=2",
            "",
        ] {
            let refused = client.follow(&from, bad);
            assert!(matches!(refused, Err(Error::Untrusted(_))), "{bad}");
        }
    }

    #[test]
    fn the_next_page_is_found_in_a_link_header() {
        for (header, next) in [
            (
                r#"<https://a/x?page=2>; rel="next", <https://a/x?page=9>; rel="last""#,
                Some("https://a/x?page=2"),
            ),
            (
                r#"<https://a/x?page=1>; rel="prev", <https://a/x?page=3>; rel="next""#,
                Some("https://a/x?page=3"),
            ),
            (
                "<https://a/x?a=1,2;3>; rel=next",
                Some("https://a/x?a=1,2;3"),
            ),
            (
                r#"<https://a/x>; title="n"; REL="next last""#,
                Some("https://a/x"),
            ),
            (r#"<https://a/x>; rel="last""#, None),
            (r#"<https://a/next>; rel="prev""#, None),
            ("<https://a/x", None),
            ("", None),
        ] {
            assert_eq!(next_link(header).as_deref(), next, "{header}");
        }
    }

    #[test]
    fn a_listing_that_leads_back_is_not_followed_and_one_without_end_is_cut() {
        let client = client("https://a.example");
        let first = Call::get(["x"]);
        let mut walk = Walk::new(first.clone(), 2);

        let one = walk.call().unwrap();
        walk.turn_to(&client, &one, Some("https://a.example/x?page=2"))
            .unwrap();
        let two = walk.call().unwrap();
        let back = walk.turn_to(&client, &two, Some("https://a.example/x?page=2"));
        assert!(matches!(back, Err(Error::Untrusted(_))));
        walk.turn_to(&client, &two, Some("https://a.example/x?page=3"))
            .unwrap();

        assert!(walk.call().is_none());
        assert!(walk.cut);
    }
}
