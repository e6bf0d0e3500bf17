//! What only tests use: crash points for the real process, and synthetic estates. Compiled with the feature `testing`
//! only; a release has none of it.

#[cfg(feature = "testing")]
pub mod estate;
#[cfg(feature = "testing")]
pub mod stub;

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

/// Dies or panics over files that hold a text: `ISOFORM_POISON=abort:TEXT` or `panic:TEXT`.
///
/// It stands for a fault that no test has found yet, in the libraries that read what a repository holds.
#[cfg(feature = "testing")]
pub fn poison<'a>(files: impl Iterator<Item = &'a [u8]>) {
    let Some(named) = crate::config::variable("ISOFORM_POISON") else {
        return;
    };
    let (how, needle) = named.split_once(':').unwrap_or(("abort", &named));
    for bytes in files {
        if bytes.windows(needle.len()).any(|w| w == needle.as_bytes()) {
            assert!(how != "panic", "a poisoned file");
            std::process::abort();
        }
    }
}

/// Does nothing in a release.
#[cfg(not(feature = "testing"))]
#[inline]
pub fn poison<'a>(_: impl Iterator<Item = &'a [u8]>) {}

#[cfg(feature = "testing")]
pub mod faults;

/// Returns bytes of a seeded source where a simulation runs on this thread: what it does must repeat.
pub fn seeded<const N: usize>() -> Option<[u8; N]> {
    #[cfg(feature = "testing")]
    return faults::seeded();
    #[cfg(not(feature = "testing"))]
    None
}

/// A boundary of the state database: a simulation may fail here, or end here.
///
/// An error `after` means that the commit is done and its answer is lost.
pub async fn at_store(_side: &'static str) -> Result<(), String> {
    #[cfg(feature = "testing")]
    return faults::at_store(_side).await;
    #[cfg(not(feature = "testing"))]
    Ok(())
}

/// Tells whether a guard stands. A simulation takes one away to see that it is missed; a release has them all.
#[inline]
pub fn guard(_name: &str) -> bool {
    #[cfg(feature = "testing")]
    return faults::guard(_name);
    #[cfg(not(feature = "testing"))]
    true
}
