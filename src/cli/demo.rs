//! The demo: a folder with a repository, a clone, keys and a local world; a daemon over it; and live progress.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use git2::{IndexAddOption, Repository, RepositoryInitOptions, Signature};

use super::client::Client;
use super::show::{self, BOLD, DIM, RESET};
use super::{DONE, FAILED, Global, hook, offline};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon;
use crate::reconcile::{EstateReport, TargetReport};
use crate::store::RootKey;

/// The example that the demo deploys: the files of `examples/repo-layout`, at compile time.
static EXAMPLE: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/example.rs"));

/// Arguments of `demo`.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Where the demo lives. Running it again goes on where it was.
    #[arg(default_value = "isoform-demo")]
    folder: PathBuf,
    /// End as soon as everything rests.
    #[arg(long)]
    once: bool,
    /// How slow the embedded engine of a new demo is; 1 is some tens of milliseconds a resource.
    #[arg(long, default_value_t = 1.0)]
    pace: f64,
}

pub(crate) async fn demo(args: &DemoArgs, _: &Global) -> anyhow::Result<u8> {
    crate::telemetry::start(false, "error");
    let folder = std::path::absolute(&args.folder)?;
    let fresh = !folder.join("config.yaml").exists();
    if fresh {
        make(&folder, args.pace)?;
    }
    let shown = args.folder.display();
    anstream::println!(
        "{BOLD}isoform {}{RESET} · embedded engine: nothing is created in any cloud\n",
        env!("CARGO_PKG_VERSION")
    );
    anstream::println!("  {shown}/origin.git     the repository that is deployed (push here)");
    anstream::println!("  {shown}/work           your clone of it");
    anstream::println!(
        "  {shown}/state          the daemon's state, encrypted; its key: {shown}/root.key {DIM}(a demo keeps it here; do not do this for real){RESET}"
    );
    anstream::println!(
        "  {shown}/cloud          the embedded cloud: stacks, objects and its keys\n"
    );
    let config = Config::load(&folder.join("config.yaml"))?;
    let socket = config.socket();
    if fresh {
        hook::install(&folder.join("origin.git"), &socket, None)?;
    }
    let built = daemon::build(config, Clock::system()).await?;
    let line = built.line.clone();
    let stop = built.stop.clone();
    let runner = tokio::spawn(daemon::run(built, offline::signals()));
    let result = watch(&socket, fresh, &stop).await;
    let settled = match result {
        Ok(settled) => settled,
        Err(error) => {
            stop.cancel();
            let _ = runner.await;
            return Err(error);
        }
    };
    if stop.is_cancelled() {
        let drained = runner.await??;
        anstream::println!("drained · run it again to go on where it was");
        return Ok(if drained { DONE } else { FAILED });
    }
    line.checkpoint(1).await?;
    hints(&args.folder);
    if args.once {
        stop.cancel();
    } else {
        anstream::println!(
            "\n{DIM}the daemon runs here; Ctrl-C drains it and leaves nothing half done{RESET}"
        );
        follow(&socket, &stop).await;
    }
    let drained = runner.await??;
    if !args.once {
        anstream::println!("drained · run it again to go on where it was");
    }
    Ok(if drained && settled { DONE } else { FAILED })
}

fn hints(folder: &Path) {
    let shown = folder.display();
    anstream::println!("\n{BOLD}try{RESET}   {DIM}in another terminal:{RESET}");
    anstream::println!(
        "      cd {shown}/work && alias isoform={}",
        std::env::current_exe().map_or_else(|_| "isoform".into(), |p| p.display().to_string())
    );
    anstream::println!(
        "      sed -i 's/desired_count: 2/desired_count: 3/' services/orders.yaml && isoform diff"
    );
    anstream::println!("      git commit -am 'orders: three tasks' && git push");
    anstream::println!(
        "      isoform status · isoform why svc/orders/beta · isoform audit show svc/orders/beta · isoform audit verify"
    );
}

fn make(folder: &Path, pace: f64) -> anyhow::Result<()> {
    if folder.exists() && std::fs::read_dir(folder)?.next().is_some() {
        bail!(
            "{} exists and is no demo: name another folder",
            folder.display()
        );
    }
    crate::secret_file::folder(folder)?;
    RootKey::read_or_make(&folder.join("root.key"))?;
    repositories(folder)?;
    let config = format!(
        "# The demo's configuration: docs/formats/config.md describes every key.\n\
isoform: 1\n\
accounts:\n  sandbox: {{ id: \"000000000001\" }}\n  production: {{ id: \"000000000002\" }}\n  tools: {{ id: \"000000000003\" }}\n\
placements:\n\
\x20 beta:  {{ account: sandbox, regions: [us-east-1], mode: auto, blast_radius: 20 }}\n\
\x20 prod:  {{ account: production, regions: [us-east-1, eu-west-1], mode: auto, blast_radius: 20 }}\n\
\x20 tools: {{ account: tools, regions: [us-east-1], mode: auto }}\n\
sources:\n\
\x20 example:\n    url: ./origin.git\n    may: {{ templates: [\"*\"], environments: [\"*\"], services: [\"*\"], components: [\"*\"], stacks: [\"*\"], placements: [\"*\"] }}\n\
bundle_stores:\n  main: {{ url: \"local://bundles\", encryption: client-kms }}\n\
state: {{ path: state, key: \"file:root.key\" }}\n\
local: {{ path: cloud, pace: {pace} }}\n\
poll: 5s\nsweep: 60s\n"
    );
    std::fs::write(folder.join("config.yaml"), config)?;
    Ok(())
}

fn repositories(folder: &Path) -> anyhow::Result<()> {
    let (origin, work) = (folder.join("origin.git"), folder.join("work"));
    let mut bare = RepositoryInitOptions::new();
    bare.bare(true).initial_head("main");
    Repository::init_opts(&origin, &bare).context("making the bare repository")?;
    let mut options = RepositoryInitOptions::new();
    options.initial_head("main");
    let clone = Repository::init_opts(&work, &options).context("making the clone")?;
    for (path, text) in EXAMPLE {
        let to = work.join(path);
        std::fs::create_dir_all(to.parent().unwrap_or(&work))?;
        std::fs::write(&to, text)?;
    }
    let mut index = clone.index()?;
    index.add_all(["*"], IndexAddOption::DEFAULT, None)?;
    index.write()?;
    let tree = clone.find_tree(index.write_tree()?)?;
    let who = clone
        .signature()
        .or_else(|_| Signature::now("isoform demo", "demo@localhost"))?;
    let commit = clone.commit(Some("HEAD"), &who, &who, "Initial layout", &tree, &[])?;
    clone
        .remote("origin", &origin.display().to_string())?
        .push(&["refs/heads/main:refs/heads/main"], None)
        .context("pushing into the bare repository")?;
    clone.reference("refs/remotes/origin/main", commit, true, "demo")?;
    clone
        .find_branch("main", git2::BranchType::Local)?
        .set_upstream(Some("origin/main"))?;
    let mut config = clone.config()?;
    // The command line finds its daemon by this, wherever in the clone it is called.
    config.set_str(
        "isoform.socket",
        &folder.join("state/isoform.sock").display().to_string(),
    )?;
    if config.get_string("user.name").is_err() {
        config.set_str("user.name", "isoform demo")?;
        config.set_str("user.email", "demo@localhost")?;
    }
    Ok(())
}

/// Shows progress until everything rests. Returns whether all of it is in sync.
async fn watch(
    socket: &Path,
    fresh: bool,
    stop: &tokio_util::sync::CancellationToken,
) -> anyhow::Result<bool> {
    let begun = Instant::now();
    // Without colours (`NO_COLOR`, a dumb terminal) the cursor stays where it is, too.
    let stdout = std::io::stdout();
    let live = stdout.is_terminal()
        && anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
    let mut drawn = 0usize;
    let mut words: BTreeMap<String, String> = BTreeMap::new();
    let mut titled = false;
    loop {
        if stop.is_cancelled() {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        let Ok(client) = Client::at(socket) else {
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("the daemon did not open its socket");
            }
            continue;
        };
        let Ok(estate) = client.get::<EstateReport>("estate", &[]).await else {
            continue;
        };
        if estate.snapshot == 0 || estate.targets.is_empty() {
            continue;
        }
        if !titled {
            titled = true;
            let commit = estate.commits.values().next();
            let what = commit
                .map(|c| format!("{} \"{}\"", c.revision.short(), show::clean(&c.summary)))
                .unwrap_or_default();
            let verb = if fresh { "deploying" } else { "going on with" };
            anstream::println!(
                "{verb} {what} · {} targets in {} waves",
                estate.targets.len(),
                estate.levels.len()
            );
        }
        let order: BTreeMap<_, _> = estate
            .levels
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, a)| (a.clone(), i))
            .collect();
        let mut targets: Vec<&TargetReport> = estate.targets.iter().collect();
        targets.sort_by_key(|t| order.get(&t.address).copied().unwrap_or(usize::MAX));
        if live {
            if drawn > 0 {
                anstream::print!("\u{1b}[{drawn}A");
            }
            // Lines are cut at the edge, not wrapped (DECAWM off): the cursor goes up by lines, not by rows.
            anstream::print!("\u{1b}[?7l");
            for target in &targets {
                anstream::println!("\u{1b}[2K{}", show::progress_line(target));
            }
            anstream::print!("\u{1b}[?7h");
            drawn = targets.len();
        } else {
            for target in &targets {
                let word = target.condition.to_string();
                let quiet = matches!(
                    target.condition.result,
                    crate::domain::model::SyncResult::Unknown
                );
                if !quiet
                    && words
                        .insert(target.address.to_string(), word.clone())
                        .as_ref()
                        != Some(&word)
                {
                    anstream::println!("{}", show::progress_line(target));
                }
            }
        }
        if estate.settled {
            anstream::println!(
                "{} · {} · log at entry {}",
                show::verdict(&estate),
                show::span(begun.elapsed()),
                estate.entries
            );
            return Ok(targets.iter().all(|t| {
                matches!(
                    t.condition.result,
                    crate::domain::model::SyncResult::InSync
                        | crate::domain::model::SyncResult::NoEffect
                )
            }));
        }
    }
}

/// Shows what happens while the demo runs, a line for each change.
async fn follow(socket: &Path, stop: &tokio_util::sync::CancellationToken) {
    let mut words: BTreeMap<String, String> = BTreeMap::new();
    let mut head = 0u64;
    let Ok(client) = Client::at(socket) else {
        return;
    };
    while !stop.is_cancelled() {
        let from = head.to_string();
        let query = [("from", from.as_str())];
        let answer = client.get::<EstateReport>("changed", &query);
        let estate = tokio::select! {
            () = stop.cancelled() => return,
            estate = answer => estate,
        };
        let Ok(estate) = estate else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let first = head == 0;
        head = estate.entries;
        for target in &estate.targets {
            let word = target.condition.to_string();
            let old = words.insert(target.address.to_string(), word.clone());
            if !first && old.as_ref() != Some(&word) {
                anstream::println!("{}", show::progress_line(target));
            }
        }
    }
}
