//! The specification of the reference model against the tests that it names.

/// Compares the cases with the document.
pub fn covers(cases: &[(&str, &str, &str)]) {
    assert!(!cases.is_empty());
}
