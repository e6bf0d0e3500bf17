//! `isoform doctor`: what is wrong with what the daemon works with, and how to mend it.

use serde_json::json;

use super::client::config_path;
use super::show::{self, BOLD, DIM, GREEN, RED, RESET, YELLOW};
use super::{DONE, FAILED, Global, Output};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::doctor::{Verdict, examine};
use crate::domain::model::counted;

/// `isoform doctor`
pub(crate) async fn doctor(global: &Global) -> anyhow::Result<u8> {
    let config = Config::load(&config_path(global))?;
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
