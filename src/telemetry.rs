//! Logging: one subscriber, and the one redactor in front of it.
//!
//! Nothing secret is given to a log on purpose; the redactor is for what slips through in the text of an error:
//! credentials in URLs and the values behind well-known words.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error: lines for people, or JSON for the journal.
pub fn start(json: bool, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Redacting(io::stderr()));
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.with_target(false).try_init()
    };
}

struct Redacting<W>(W);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(redact(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Takes credentials out of a text: user info and queries of URLs, and what follows words such as `password=`.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, part) in text
        .split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','))
        .enumerate()
    {
        let _ = index;
        let mut word = part.to_owned();
        if let Some(scheme) = word.find("://") {
            let rest = scheme + 3;
            let end = word[rest..].find('/').map_or(word.len(), |i| rest + i);
            if let Some(at) = word[rest..end].rfind('@') {
                word.replace_range(rest..rest + at, "‹redacted›");
            }
            if let Some(query) = word.find('?') {
                let tail = word[query..]
                    .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','))
                    .map_or(word.len(), |i| query + i);
                word.replace_range(query..tail, "?‹redacted›");
            }
        }
        let lower = word.to_ascii_lowercase();
        for name in [
            "password=",
            "passwd=",
            "token=",
            "secret=",
            "authorization:",
            "x-amz-security-token=",
        ] {
            if let Some(at) = lower.find(name) {
                let tail = word[at..]
                    .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','))
                    .map_or(word.len(), |i| at + i);
                word.replace_range(at + name.len()..tail.max(at + name.len()), "‹redacted›");
                break;
            }
        }
        out.push_str(&word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_reach_a_sink() {
        for (text, gone) in [
            ("fetching https://user:CANARY@host/x failed", "CANARY"),
            ("GET https://host/x?X-Amz-Signature=CANARY done", "CANARY"),
            ("bad password=CANARY here", "CANARY"),
            ("{\"url\":\"https://tok:CANARY@h/p\"}", "CANARY"),
        ] {
            assert!(!redact(text).contains(gone), "{}", redact(text));
        }
        assert_eq!(
            redact("nothing to see at https://host/path, really"),
            "nothing to see at https://host/path, really"
        );
    }
}
