//! Crash points, for tests of the real process. Compiled only with the feature `testing`; a release has none.

/// Kills the process as `kill -9` would, if the environment names this point.
///
/// It can do nothing else: the tested program is the released one up to the moment of its death.
#[cfg(feature = "testing")]
pub fn crash_point(name: &str) {
    use std::sync::OnceLock;
    static NAMED: OnceLock<Option<String>> = OnceLock::new();
    let named = NAMED.get_or_init(|| crate::config::variable("ISOFORM_CRASH"));
    if named.as_deref() == Some(name) {
        // The signal cannot be caught, so nothing is flushed and nothing is cleaned up.
        let me = std::process::id().to_string();
        let _ = std::process::Command::new("kill")
            .args(["-9", &me])
            .status();
        std::process::abort();
    }
}

/// Does nothing in a release.
#[cfg(not(feature = "testing"))]
#[inline]
pub fn crash_point(_: &str) {}
