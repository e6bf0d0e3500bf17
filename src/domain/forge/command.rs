//! What people ask for in comments: `/isoform <word> …`, at the beginning of a line.
//!
//! Only what was typed as a line of its own counts: nothing in a quote, a block of code, a hidden or folded part. Who
//! may ask is not decided here.

use std::fmt;

use crate::domain::model::{Address, closest};

/// What a line of a comment begins with to be one.
pub const PREFIX: &str = "/isoform";
/// More of them in one comment are left.
const MOST: usize = 10;
/// The least of a digest that tells it from others, and of a commit's id as Git shortens it.
const DIGITS: usize = 8;
const SHORT: usize = 7;
/// Longer reasons are cut.
const REASON: usize = 300;

/// What somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Look at the pull request again; of a fork, look at exactly this head.
    Preview {
        /// The beginning of the head's id.
        head: Option<String>,
    },
    /// Approve what was shown of a target.
    Approve {
        /// The target.
        target: Address,
        /// The beginning of its review digest.
        review: String,
    },
    /// Let nothing of a target run until it is resumed.
    Hold {
        /// The target.
        target: Address,
        /// Why.
        reason: String,
    },
    /// Let a target go on.
    Resume {
        /// The target.
        target: Address,
    },
    /// Say why a target is as it is.
    Why {
        /// The target.
        target: Address,
    },
    /// Bring back what was deployed before.
    Rollback {
        /// The target.
        target: Address,
        /// Why.
        reason: String,
    },
}

/// Words of commands.
const WORDS: [&str; 6] = ["preview", "approve", "hold", "resume", "why", "rollback"];

/// What one may do, as the configuration names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verb {
    /// Look again, and at forks.
    Preview,
    /// Ask why.
    Why,
    /// Approve.
    Approve,
    /// Hold and resume.
    Hold,
    /// Bring back.
    Rollback,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preview => "preview",
            Self::Why => "why",
            Self::Approve => "approve",
            Self::Hold => "hold",
            Self::Rollback => "rollback",
        })
    }
}

impl Command {
    /// Returns what one must be allowed for it.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Preview { .. } => Verb::Preview,
            Self::Approve { .. } => Verb::Approve,
            Self::Hold { .. } | Self::Resume { .. } => Verb::Hold,
            Self::Why { .. } => Verb::Why,
            Self::Rollback { .. } => Verb::Rollback,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preview { head: None } => f.write_str("preview"),
            Self::Preview { head: Some(head) } => write!(f, "preview {head}"),
            Self::Approve { target, review } => write!(f, "approve {target} {review}"),
            Self::Hold { target, .. } => write!(f, "hold {target}"),
            Self::Resume { target } => write!(f, "resume {target}"),
            Self::Why { target } => write!(f, "why {target}"),
            Self::Rollback { target, .. } => write!(f, "rollback {target}"),
        }
    }
}

/// Returns what a comment asks for, and what is wrong with lines that mean to ask.
pub fn commands(body: &str) -> Vec<Result<Command, String>> {
    typed_lines(body)
        .filter_map(|line| {
            let rest = line.strip_prefix(PREFIX)?;
            (rest.is_empty() || rest.starts_with(' ')).then(|| command(rest))
        })
        .take(MOST)
        .collect()
}

/// Tags whose content is no line that somebody typed for itself.
const FOLDING: [&str; 8] = [
    "pre",
    "code",
    "details",
    "summary",
    "blockquote",
    "script",
    "style",
    "textarea",
];

/// What the lines so far have opened.
#[derive(Default)]
struct Inside {
    /// A block of code, with its mark and length.
    fence: Option<(char, usize)>,
    /// A hidden part.
    hidden: bool,
    /// A quote, which goes on to the next empty line.
    quoted: bool,
    /// Tags that fold or quote, the innermost last.
    tags: Vec<&'static str>,
    /// It cannot be told what is inside of what: nothing counts any more.
    lost: bool,
}

impl Inside {
    /// Takes a line; tells whether it stands for itself. Where renderers differ, it does not.
    fn typed(&mut self, line: &str) -> bool {
        let trimmed = line.trim_start_matches(' ');
        let indent = line.len() - trimmed.len();
        let mark = trimmed.chars().next().unwrap_or(' ');
        let run = trimmed.chars().take_while(|c| *c == mark).count();
        let rest = trimmed.get(run * mark.len_utf8()..).unwrap_or_default();
        if let Some((open, length)) = self.fence {
            if indent <= 3 && mark == open && run >= length && rest.trim().is_empty() {
                self.fence = None;
            }
            return false;
        }
        if matches!(mark, '`' | '~') && run >= 3 {
            // Deeper it is a block of its own, and with a backtick behind it no fence: who comes after is not sure.
            self.lost |= indent > 3 || (mark == '`' && rest.contains('`'));
            self.fence = Some((mark, run));
            return false;
        }
        let quoted = self.quoted;
        self.quoted = mark == '>' || (quoted && !trimmed.is_empty());
        let outside = !self.lost && !self.hidden && self.tags.is_empty();
        let lower = line.to_ascii_lowercase();
        self.html(&lower);
        outside && !self.quoted && !lower.contains('<')
    }

    /// Follows what opens and closes in a line.
    fn html(&mut self, lower: &str) {
        let mut rest = lower;
        while !rest.is_empty() {
            if self.hidden {
                let Some(end) = rest.find("-->") else { return };
                self.hidden = false;
                rest = &rest[end + 3..];
                continue;
            }
            let Some(at) = rest.find('<') else { return };
            rest = &rest[at + 1..];
            if let Some(more) = rest.strip_prefix("!--") {
                self.hidden = true;
                rest = more;
                continue;
            }
            let closes = rest.starts_with('/');
            let name = rest.trim_start_matches('/');
            let length = name
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(name.len());
            let Some(tag) = FOLDING.into_iter().find(|t| *t == &name[..length]) else {
                continue;
            };
            match (closes, self.tags.last()) {
                (false, _) => self.tags.push(tag),
                (true, Some(last)) if *last == tag => {
                    self.tags.pop();
                }
                (true, _) => self.lost = true,
            }
        }
    }
}

/// The lines that stand for themselves.
fn typed_lines(body: &str) -> impl Iterator<Item = &str> {
    let mut inside = Inside::default();
    body.lines().filter(move |line| inside.typed(line))
}

fn command(rest: &str) -> Result<Command, String> {
    let mut words = rest.split_ascii_whitespace();
    let word = words.next().unwrap_or_default();
    if !rest.is_ascii() && !matches!(word, "hold" | "rollback") {
        return Err("only plain letters, digits and signs may stand in it".into());
    }
    let mut target = || -> Result<Address, String> {
        let given = words
            .next()
            .ok_or_else(|| format!("name a target: `{PREFIX} {word} <target>`"))?;
        given.parse().map_err(|_| {
            format!(
                "`{}` is not the address of a target, such as svc/orders/prod",
                given.escape_debug()
            )
        })
    };
    let command = match word {
        "preview" => {
            let head = words.next().map(str::to_owned);
            if head.as_ref().is_some_and(|h| !is_hex(h, SHORT)) {
                return Err(format!(
                    "a commit is named by at least {SHORT} digits of its id"
                ));
            }
            Command::Preview { head }
        }
        "approve" => {
            let target = target()?;
            let given = words.next().unwrap_or_default();
            let review = given.trim_start_matches("r1:");
            if !is_hex(review, DIGITS) {
                return Err(format!(
                    "name the review that was shown: `{PREFIX} approve {target} <review>`, at least {DIGITS} digits"
                ));
            }
            Command::Approve {
                target,
                review: review.to_owned(),
            }
        }
        "hold" => {
            let target = target()?;
            let reason = reason(words.by_ref());
            return Ok(Command::Hold { target, reason });
        }
        "resume" => Command::Resume { target: target()? },
        "why" => Command::Why { target: target()? },
        "rollback" => {
            let target = target()?;
            let reason = reason(words.by_ref());
            return Ok(Command::Rollback { target, reason });
        }
        other => {
            let near = closest(other, WORDS);
            let near = near.map(|n| format!("; did you mean `{n}`?"));
            return Err(format!(
                "there is {}{}",
                WORDS.map(|w| format!("`{w}`")).join(", "),
                near.unwrap_or_default()
            ));
        }
    };
    match words.next() {
        None => Ok(command),
        Some(more) => Err(format!("`{}` is one word too many", more.escape_debug())),
    }
}

fn is_hex(text: &str, least: usize) -> bool {
    (least..=64).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn reason<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let said = words.collect::<Vec<_>>().join(" ");
    let clean = said.chars().filter(|c| !c.is_control()).take(REASON);
    let clean: String = clean.collect();
    if clean.is_empty() {
        "asked for in a comment".into()
    } else {
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Vec<String> {
        let all = commands(body).into_iter();
        all.map(|c| c.map_or_else(|e| format!("! {e}"), |c| c.to_string()))
            .collect()
    }

    #[test]
    fn commands_are_lines_of_their_own() {
        let body = "Looks good.\n/isoform approve svc/orders/prod 9f31c2ab\n\n/isoform why stack/topic\r\n/isoform preview\n/isoform hold stack/topic wegen Müller\n";
        assert_eq!(
            asked(body),
            [
                "approve svc/orders/prod 9f31c2ab",
                "why stack/topic",
                "preview",
                "hold stack/topic"
            ]
        );
    }

    #[test]
    fn sec_40_what_was_not_typed_as_a_command_is_none() {
        for body in [
            "> /isoform preview",
            " /isoform preview",
            "    /isoform preview",
            "\t/isoform preview",
            "- /isoform preview",
            "do `/isoform preview`",
            "```\n/isoform preview\n```",
            "~~~ sh\n/isoform preview\n",
            "````\n```\n/isoform preview\n````",
            "<!--\n/isoform preview\n-->",
            "<!-- a --> <!--\n/isoform preview",
            "<pre>\n/isoform preview\n</pre>",
            "<details><summary>x</summary>\n\n/isoform preview\n</details>",
            "<blockquote>\n\n/isoform preview\n\n</blockquote>",
            "/isoformpreview",
            "/Isoform preview",
            "/is\u{043E}form preview",
            "\u{2215}isoform preview",
            "\u{FEFF}/isoform preview",
            "/isoform\u{00A0}preview",
            "isoform preview",
            "text /isoform preview",
            "```\n    ```\n/isoform preview",
            "``` a`b\n/isoform preview\n```\n/isoform preview",
            "    ```\n/isoform preview",
            "<details>\n</pre>\n/isoform preview",
            "</details><details>\n/isoform preview",
            "<details></details></details>\n/isoform preview",
            "> quoted\n/isoform preview",
            "> quoted\nmore\n/isoform preview",
            "<!-- --> <pre>\n/isoform preview",
        ] {
            assert!(commands(body).is_empty(), "{body:?}");
        }
        // After what hides, lines count again.
        for body in [
            "```\nx\n```\n/isoform preview",
            "<!-- x -->\n/isoform preview",
            "<pre>x</pre>\n/isoform preview",
            "> quoted\n\n/isoform preview",
        ] {
            assert_eq!(asked(body), ["preview"], "{body:?}");
        }
    }

    #[test]
    fn sec_40_look_alike_letters_are_refused_in_what_binds() {
        assert!(
            asked("/isoform approve stack/t\u{043E}pic 9f31c2ab")[0].starts_with("! only plain")
        );
        assert!(
            asked("/isoform \u{0430}pprove stack/topic 9f31c2ab")[0].starts_with("! only plain")
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, said) in [
            ("/isoform", "there is `preview`"),
            (
                "/isoform aprove stack/x 9f31c2ab",
                "did you mean `approve`?",
            ),
            ("/isoform approve", "name a target"),
            ("/isoform approve stack/x", "name the review"),
            ("/isoform approve stack/x 9f3", "at least 8 digits"),
            (
                "/isoform approve stack/x 9f31c2ab please",
                "one word too many",
            ),
            ("/isoform approve ../x 9f31c2ab", "is not the address"),
            ("/isoform preview main", "digits of its id"),
        ] {
            let found = asked(line);
            assert!(found[0].contains(said), "{line}: {found:?}");
        }
        let many = "/isoform preview\n".repeat(100);
        assert_eq!(asked(&many).len(), MOST);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_quoted_or_indented_is_a_command(lines in proptest::collection::vec("[ -~]{0,40}", 0..10)) {
            let quoted: String = lines.iter().map(|l| format!("> {l}\n> /isoform preview\n")).collect();
            proptest::prop_assert!(commands(&quoted).is_empty());
        }

        #[test]
        fn any_text_is_read(body in "\\PC{0,200}") {
            let _ = commands(&body);
        }
    }
}
