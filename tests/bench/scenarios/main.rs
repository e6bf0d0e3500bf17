//! What isoform costs, beside a floor or a peer measured in the same run. `docs/performance.md` has what came out.
//!
//! `cargo bench --features testing --bench scenarios -- NAME [--services N] [--repeat N]`

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(
    clippy::disallowed_methods,
    reason = "waiting for a process or a minute is real here"
)]

mod bundle;
mod cloud;
mod daemon;
mod diff;
mod floors;
mod footprint;
mod line;
mod log;
mod measure;
mod phases;
mod poll;
#[path = "../../suite/sec/servers.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the servers of the tests, the hostile ones among them"
)]
mod servers;
mod webhooks;

use anyhow::bail;

/// What the command line asks for.
pub struct Options {
    /// How many services of ten instances the estate has.
    pub services: usize,
    /// How often each thing is measured.
    pub repeat: usize,
    /// How many workers the daemon has.
    pub workers: usize,
}

fn main() -> anyhow::Result<()> {
    let mut names = Vec::new();
    let mut options = Options {
        services: 1000,
        repeat: 5,
        workers: 64,
    };
    let mut words = std::env::args().skip(1).peekable();
    // Git over the network is spoken to by a process of its own, which is this program once more.
    if words
        .peek()
        .is_some_and(|w| w == isoform::git::errand::ARGUMENT)
    {
        isoform::git::errand::run();
    }
    if words.peek().is_some_and(|w| w == measure::CHILD) {
        let words: Vec<String> = words.skip(1).collect();
        return child(&words);
    }
    while let Some(word) = words.next() {
        let mut number =
            || -> anyhow::Result<usize> { Ok(words.next().unwrap_or_default().parse()?) };
        match word.as_str() {
            // Cargo's own.
            "--bench" => {}
            "--services" => options.services = number()?,
            "--repeat" => options.repeat = number()?.max(1),
            "--workers" => options.workers = number()?,
            name => names.push(name.to_owned()),
        }
    }
    for name in &names {
        match name.as_str() {
            "bundle" => bundle::run(&options)?,
            "cloud" => cloud::run(&options)?,
            "diff" => diff::run(&options)?,
            "footprint" => footprint::run(&options)?,
            "line" => line::run(&options)?,
            "log" => log::run(&options)?,
            "phases" => phases::run(&options)?,
            "poll" => poll::run(&options)?,
            "webhooks" => webhooks::run(&options)?,
            other => bail!("there is no scenario `{other}`"),
        }
    }
    if names.is_empty() {
        println!(
            "name a scenario: bundle, cloud, diff, footprint, line, log, phases, poll, webhooks"
        );
    }
    Ok(())
}

/// What is measured in a process of its own, or must not be counted with what is measured.
fn child(words: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["cloud-far"] => cloud::far::serve(),
        ["cloud-measured", address, repeat] => cloud::measured(address, repeat),
        ["git-server", root] => poll::serve(root),
        ["bundle", mebibytes] => bundle::packed(mebibytes),
        ["roll-out", folder, services] => footprint::roll_out(folder, services),
        ["daemon", folder] => footprint::serve(folder),
        _ => bail!("there is no such child"),
    }
}
