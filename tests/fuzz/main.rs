//! Fuzz targets: one test for each, over a corpus, with mutations where time is given.
//!
//! Built on stable Rust and without the feature `edge`: `ISOFORM_FUZZ_SECONDS=2 cargo test --no-default-features --test
//! fuzz`. Without that variable only the corpus and the inputs that once failed are replayed. `docs/guides/fuzzing.md`
//! says how a failure is replayed and kept; `docs/decisions/0008-fuzzing-on-stable.md` why there is a mutator of our own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says where it kept the input, and takes its time from the system"
)]

mod harness;
mod mutate;
mod targets;

macro_rules! targets {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            harness::run(stringify!($name), targets::$name);
        }
    )*};
}

targets! {
    archive
    log_entry
    manifest
    names
    ops
    registration
    render
    schema
    sealed
    spec
    sync
    template
    webhook_bitbucket
    webhook_gitea
    webhook_github
    webhook_gitlab
    yaml
}
