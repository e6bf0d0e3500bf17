//! When two file names are one file somewhere.

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

#[cfg(test)]
mod tests {
    use super::*;

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
