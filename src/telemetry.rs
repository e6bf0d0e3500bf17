//! Logging: one subscriber, and the one redactor in front of it.
//!
//! Nothing secret is given to a log on purpose; the redactor is for what slips through in the text of an error:
//! credentials in URLs and the values behind well-known words.

use std::io::{self, IsTerminal, Write};

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging to standard error: lines for people, or JSON for the journal.
pub fn start(json: bool, filter: &str) {
    // A file of lines holds no colours: what reads it is no terminal.
    let colours = io::stderr().is_terminal() && !json;
    let writer = move || Redacting(io::stderr(), colours);
    let _ = subscriber(json, colours, filter, writer).try_init();
}

fn subscriber<W>(json: bool, colours: bool, filter: &str, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(colours)
        .with_writer(writer);
    if json {
        Dispatch::new(builder.json().finish().with(filter_fn(is_told)))
    } else {
        let plain = builder.with_target(false).finish();
        Dispatch::new(plain.with(filter_fn(is_told)))
    }
}

/// Of the AWS SDK warnings only: below that it writes down whole requests, and in them the values of parameters.
///
/// A filter of its own and no directive of the other: there the longest target wins, and one that names a span opens all
/// that happens in it.
fn is_told(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("aws_") || *metadata.level() <= LevelFilter::WARN
}

/// Writes one line for each event; the second part tells whether the formatter puts colours in.
struct Redacting<W>(W, bool);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0
            .write_all(one_line(&redact(&text), self.1).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Makes an event one line without control characters and direction overrides, so that no text from outside can pretend
/// to be another event or steer a terminal.
fn one_line(text: &str, colours: bool) -> String {
    let (body, end) = match text.strip_suffix('\n') {
        Some(body) => (body, "\n"),
        None => (text, ""),
    };
    let hidden = |c: char| {
        (c.is_control() && c != '\t' && !(colours && c == '\u{1b}'))
            || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in body.chars() {
        if hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out + end
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

    /// A sink that can be read.
    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_sdk_of_aws_stays_quiet_whatever_is_asked_for() {
        for asked in [
            "trace",
            "aws_=trace",
            "aws_smithy_runtime=trace",
            "info,aws_smithy_runtime::client::orchestrator=trace",
            "[try_op]=trace",
            "trace,aws_smithy_runtime[try_op]=trace",
            "not a filter!",
        ] {
            for json in [true, false] {
                let kept = Kept::default();
                let sink = kept.clone();
                let log = subscriber(json, false, asked, move || sink.clone());

                tracing::dispatcher::with_default(&log, || {
                    let _inside = tracing::info_span!("try_op").entered();
                    tracing::trace!(target: "aws_smithy_runtime", "CANARY");
                    tracing::debug!(target: "aws_smithy_runtime::client::orchestrator", "CANARY");
                    tracing::info_span!(target: "aws_sdk_s3", "put", body = "CANARY")
                        .in_scope(|| tracing::error!(target: "isoform", "of ours"));
                    tracing::warn!(target: "aws_smithy_runtime", "a warning");
                });

                let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
                assert!(!text.contains("CANARY"), "{asked}: {text}");
                if asked.starts_with("trace") || asked.starts_with("info") {
                    assert!(
                        text.contains("a warning") && text.contains("of ours"),
                        "{asked}: {text}"
                    );
                }
            }
        }
    }

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

    #[test]
    fn sec_59_one_event_is_one_line() {
        let evil = "a\nINFO forged\r\u{1b}[2J\u{202e}b\u{2028}c\n";
        let line = one_line(evil, false);
        assert_eq!(line, "a\\nINFO forged\\r\\u{1b}[2J\\u{202e}b\\u{2028}c\n");
        assert_eq!(
            one_line("\u{1b}[32mINFO\u{1b}[0m x\n", true),
            "\u{1b}[32mINFO\u{1b}[0m x\n"
        );
    }
}
