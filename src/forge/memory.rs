//! What a client remembers of listings, so that asking again costs nothing where nothing is new.
//!
//! A conditional request that is answered with 304 does not count against GitHub's primary limit:
//! <https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api#use-conditional-requests-if-appropriate>.

use std::collections::VecDeque;
use std::sync::Arc;

use reqwest::header::{ETAG, HeaderValue, LINK};

use super::client::Answer;

/// At most so many bytes of answers are kept.
const BYTES: usize = 4 << 20;
/// At most so many answers are kept.
const ANSWERS: usize = 64;

/// Answers with their tags, those used last at the end.
#[derive(Default)]
pub(super) struct Memory {
    kept: VecDeque<(String, Known)>,
}

/// An answer that was kept.
#[derive(Clone)]
pub(super) struct Known {
    /// Its tag.
    pub tag: HeaderValue,
    /// What it named as the next page: an answer that says "not changed" may leave that out.
    pub link: Option<HeaderValue>,
    /// Its body.
    pub body: Arc<[u8]>,
}

impl Memory {
    /// Returns what an address answered last.
    pub(super) fn recall(&mut self, address: &str) -> Option<Known> {
        let at = self.kept.iter().position(|(a, _)| a == address)?;
        let found = self.kept.remove(at)?;
        let known = found.1.clone();
        self.kept.push_back(found);
        Some(known)
    }

    /// Keeps an answer that has a tag; the oldest ones make room.
    pub(super) fn keep(&mut self, address: &str, answer: &Answer) {
        self.kept.retain(|(a, _)| a != address);
        let Some(tag) = answer.headers.get(ETAG).cloned() else {
            return;
        };
        if answer.body.len() > BYTES / 4 {
            return;
        }
        let known = Known {
            tag,
            link: answer.headers.get(LINK).cloned(),
            body: answer.body.as_slice().into(),
        };
        self.kept.push_back((address.to_owned(), known));
        while self.kept.len() > ANSWERS || self.bytes() > BYTES {
            self.kept.pop_front();
        }
    }

    fn bytes(&self) -> usize {
        self.kept.iter().map(|(_, k)| k.body.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tag: Option<&'static str>, bytes: usize) -> Answer {
        let mut answer = Answer::of(200, vec![b'x'; bytes]);
        if let Some(tag) = tag {
            answer.headers.insert(ETAG, HeaderValue::from_static(tag));
        }
        answer
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let mut memory = Memory::default();
        for number in 0..70 {
            memory.keep(&number.to_string(), &answer(Some("\"a\""), 10));
            memory.recall("0");
        }
        assert_eq!(memory.kept.len(), ANSWERS);
        assert!(memory.recall("0").is_some());
        assert!(memory.recall("1").is_none());

        for number in 100..110 {
            memory.keep(&number.to_string(), &answer(Some("\"a\""), 1 << 20));
        }
        assert!(memory.bytes() <= BYTES);
        memory.keep("great", &answer(Some("\"a\""), (1 << 20) + 1));
        assert!(memory.recall("great").is_none());
    }

    #[test]
    fn an_answer_without_a_tag_takes_the_place_of_one_that_had_it() {
        let mut memory = Memory::default();
        memory.keep("a", &answer(Some("\"1\""), 1));
        memory.keep("a", &answer(None, 1));
        assert!(memory.recall("a").is_none());
    }
}
