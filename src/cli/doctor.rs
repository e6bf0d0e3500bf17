//! `isoform doctor`: what is wrong with what the daemon works with, and how to mend it.

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::client::config_path;
use super::show::{self, BOLD, DIM, GREEN, RED, RESET, YELLOW};
use super::{DONE, FAILED, Global, Output, offline, usage};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::doctor::{Verdict, examine};
use crate::daemon::probe::{Answer, Finding, Outcome, Probe, spot};
use crate::domain::model::counted;

/// Arguments of `doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Instead, try in this placement's account what isoform assumes of CloudFormation: makes small stacks and deletes them again.
    #[arg(long, value_name = "PLACEMENT[@REGION]")]
    probe: Option<String>,
}

/// `isoform doctor`
pub(crate) async fn doctor(global: &Global, args: &DoctorArgs) -> anyhow::Result<u8> {
    let config = Config::load(&config_path(global))?;
    if let Some(named) = &args.probe {
        return probe(global, &config, named).await;
    }
    let checks = examine(&config, &Clock::system()).await;
    let bad = checks.iter().filter(|c| c.verdict == Verdict::Bad).count();
    if global.output == Output::Json {
        show::json(&json!({ "checks": checks, "bad": bad }))?;
    } else {
        let mut subject = "";
        for check in &checks {
            if check.subject != subject {
                anstream::println!("{BOLD}{}{RESET}", show::clean(&check.subject));
                subject = &check.subject;
            }
            let (colour, word) = match check.verdict {
                Verdict::Good => (GREEN, "good  "),
                Verdict::Unsure => (YELLOW, "unsure"),
                Verdict::Bad => (RED, "bad   "),
            };
            anstream::println!("  {colour}{word}{RESET} {}", show::clean(&check.says));
            if let Some(mend) = &check.mend {
                anstream::println!("         {DIM}{}{RESET}", show::clean(mend));
            }
        }
        if bad == 0 {
            anstream::println!("{GREEN}nothing is wrong{RESET}");
        } else {
            anstream::println!("{RED}{} to mend{RESET}", counted(bad, "thing"));
        }
    }
    Ok(if bad == 0 { DONE } else { FAILED })
}

/// `isoform doctor --probe`
async fn probe(global: &Global, config: &Config, named: &str) -> anyhow::Result<u8> {
    let spot = spot(config, named).map_err(usage)?;
    let stop = CancellationToken::new();
    let probe = Probe::open(config, &spot, &Clock::system(), stop.clone()).await?;
    let prefix = probe.prefix().to_owned();
    // On standard error, so that whoever has to delete by hand knows what, however it ends.
    anstream::eprintln!("makes stacks `{prefix}-…` in {spot}, and deletes them at the end");
    let text = global.output != Output::Json;
    let mut tell = |finding: &Finding| {
        if text {
            line(finding);
        }
    };
    let outcome = {
        let mut work = std::pin::pin!(probe.run(&mut tell));
        tokio::select! {
            outcome = &mut work => outcome,
            () = offline::signals() => {
                anstream::eprintln!("stopping: `{prefix}-…` are being deleted; stopped once more they stay");
                stop.cancel();
                work.await
            }
        }
    };
    let not_held = with(&outcome, Answer::NotHeld);
    if text {
        end(&outcome);
    } else {
        show::json(
            &json!({ "prefix": prefix, "findings": outcome.findings, "not_held": not_held, "left": outcome.left, "stopped": outcome.stopped }),
        )?;
    }
    // Where nothing could be told, as without credentials, nothing is known to be well.
    let told = with(&outcome, Answer::Held) > 0;
    let well = told && not_held == 0 && outcome.left.is_empty() && !outcome.stopped;
    Ok(if well { DONE } else { FAILED })
}

fn with(outcome: &Outcome, answer: Answer) -> usize {
    let those = outcome.findings.iter().filter(|f| f.answer == answer);
    those.count()
}

fn line(finding: &Finding) {
    let (colour, word) = match finding.answer {
        Answer::Held => (GREEN, "held             "),
        Answer::NotHeld => (RED, "not held         "),
        Answer::Unknown => (YELLOW, "could not be told"),
    };
    anstream::println!("{colour}{word}{RESET} {}", show::clean(finding.assumption));
    anstream::println!(
        "                  {DIM}{}{RESET}",
        show::clean(&finding.seen)
    );
}

fn end(outcome: &Outcome) {
    if outcome.left.is_empty() {
        anstream::println!("{DIM}everything that was made is deleted{RESET}");
    }
    for left in &outcome.left {
        anstream::println!("{RED}left behind{RESET} {}", show::clean(left));
    }
    if outcome.stopped {
        anstream::println!("{YELLOW}stopped before the end{RESET}");
    }
    anstream::println!(
        "{} held, {} not held, {} could not be told",
        with(outcome, Answer::Held),
        with(outcome, Answer::NotHeld),
        with(outcome, Answer::Unknown)
    );
}
