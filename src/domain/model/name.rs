//! Names and counted words: when two file names are one file somewhere, and how a number is said.

use unicode_normalization::UnicodeNormalization;

/// Returns a name without its letter case and Unicode form: names that are equal here are one file on some system.
pub fn folded_name(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    // Through upper case, which makes one of `ß` and `SS` and of the three sigmas, and before it through lower case, which
    // makes one of the two sizes of `ß`.
    let name: String = name.nfc().collect();
    let upper = name.to_lowercase().to_uppercase();
    let lower = upper.to_lowercase().replace('ς', "σ");
    lower.nfc().collect()
}

/// Writes a number with its word, which is given in the singular: `1 target`, `2 entries`.
pub fn counted(number: usize, word: &str) -> String {
    match (number, word.strip_suffix('y')) {
        (1, _) => format!("1 {word}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {word}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_all_others_are_not() {
        assert_eq!(counted(1, "entry"), "1 entry");
        assert_eq!(counted(0, "entry"), "0 entries");
        assert_eq!(counted(2, "change set"), "2 change sets");
    }

    #[test]
    fn sec_05_letter_case_and_unicode_form_do_not_count() {
        for (one, other) in [
            ("README", "readme"),
            ("caf\u{e9}", "CAFE\u{301}"),
            ("stra\u{df}e", "STRASSE"),
            ("\u{1e9e}", "ss"),
            ("\u{3bf}\u{3c2}", "\u{39f}\u{3a3}"),
        ] {
            assert_eq!(folded_name(one), folded_name(other), "{one} {other}");
        }
        assert_ne!(folded_name("a"), folded_name("\u{e4}"));
    }
}
