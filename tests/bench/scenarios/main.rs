//! What isoform costs, beside a floor or a peer measured in the same run. `docs/performance.md` has what came out.
//!
//! `cargo bench --features testing --bench scenarios -- NAME [--services N] [--repeat N]`

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod line;
mod measure;
mod phases;

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
    let mut words = std::env::args().skip(1);
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
            "line" => line::run(&options)?,
            "phases" => phases::run(&options)?,
            other => bail!("there is no scenario `{other}`"),
        }
    }
    if names.is_empty() {
        println!("name a scenario: line, phases");
    }
    Ok(())
}
