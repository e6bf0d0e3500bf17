//! Commands that need no daemon.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::client::config_path;
use super::diff::folder_files;
use super::online::errors;
use super::show::{self, BOLD, GREEN, RED, RESET, YELLOW};
use super::{CHANGES, DONE, FAILED, Global, Output, finding, usage};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon;
use crate::domain::bundle;
use crate::domain::estate::validate as validate_files;
use crate::domain::model::{Digest, Finding};
use crate::domain::render::{self, Limits};
use crate::domain::template::{Files, load_bundle, load_component};
use crate::git::Mirror;
use crate::port::Ports;
use crate::reconcile::open_bundle;
use crate::store::RootKey;

/// Arguments of `render`.
#[derive(Args)]
pub(crate) struct RenderArgs {
    /// The bundle's directory.
    bundle: PathBuf,
    /// Which part.
    #[arg(long, value_enum)]
    part: PartName,
    /// The complete namespaces as JSON; nothing is added.
    #[arg(long)]
    data: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum PartName {
    Infrastructure,
    Instance,
    Pipeline,
    Component,
}

#[derive(Subcommand)]
pub(crate) enum BundleCommand {
    /// Build the archive of a bundle's directory.
    Build {
        /// The directory.
        folder: PathBuf,
        /// Where to write it.
        #[arg(long, short)]
        out: PathBuf,
    },
    /// Put a bundle's directory into the bundle store, sealed, and print its digest.
    Put {
        /// The directory.
        folder: PathBuf,
        /// `name@major.minor`, for the encryption context.
        #[arg(long = "as", value_name = "VERSION")]
        named: String,
    },
    /// Open a bundle of the bundle store into a new folder.
    Open {
        /// Its digest.
        digest: String,
        /// The folder; it must not exist.
        #[arg(long, short)]
        out: PathBuf,
    },
    /// Check that a bundle of the bundle store opens and is what its digest says.
    Verify {
        /// Its digest.
        digest: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the configuration as it is understood.
    Show,
    /// Make a root key, in a file that only you can read.
    Key {
        /// The file.
        file: PathBuf,
    },
}

/// `isoform validate`
pub(crate) fn validate(global: &Global, folder: &Path, strict: bool) -> anyhow::Result<u8> {
    if !folder.is_dir() {
        return Err(usage(format!("{} is not a folder", folder.display())));
    }
    let files = folder_files(folder)?;
    let placements = match &global.config {
        Some(path) => Some(Config::load(path)?.placements),
        None => None,
    };
    let branch = git2::Repository::discover(folder)
        .ok()
        .and_then(|r| {
            r.head()
                .ok()
                .and_then(|h| h.shorthand().ok().map(str::to_owned))
        })
        .unwrap_or_else(|| "main".into());
    let checked = validate_files(&files, placements.as_ref(), &branch);
    let wrong = if strict {
        checked.findings.len()
    } else {
        errors(&checked.findings)
    };
    let nothing = checked.bundles + checked.components + checked.specs + checked.targets == 0;
    let code = if wrong > 0 || nothing { FAILED } else { DONE };
    if global.output == Output::Json {
        show::json(
            &serde_json::json!({ "v": 1, "findings": checked.findings, "bundles": checked.bundles, "components": checked.components, "specs": checked.specs, "targets": checked.targets }),
        )?;
        return Ok(code);
    }
    finding::print(&checked.findings);
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let looked = format!(
        "{}, {}, {}, {}",
        count(checked.bundles, "bundle"),
        count(checked.components, "component"),
        count(checked.specs, "spec"),
        count(checked.targets, "target")
    );
    let warnings = checked.findings.len() - errors(&checked.findings);
    if nothing {
        anstream::println!(
            "{RED}✗{RESET} nothing to check: no bundle, component, spec or sync file lies below {}",
            folder.display()
        );
    } else if wrong > 0 {
        anstream::println!(
            "{RED}✗ {}{RESET} · {} · {looked}",
            count(errors(&checked.findings), "error"),
            count(warnings, "warning")
        );
    } else {
        anstream::println!(
            "{GREEN}✓{RESET} nothing is wrong · {} · {looked}",
            count(warnings, "warning")
        );
    }
    Ok(code)
}

/// `isoform render`
pub(crate) fn render(args: &RenderArgs) -> anyhow::Result<u8> {
    let text = std::fs::read_to_string(&args.data)
        .with_context(|| format!("reading {}", args.data.display()))?;
    let data: Value = serde_json::from_str(&text)
        .with_context(|| format!("{} is not JSON", args.data.display()))?;
    let files = folder_files(&args.bundle)?;
    let (part, findings) = match args.part {
        PartName::Component => {
            let nested: Files = files
                .into_iter()
                .map(|(p, b)| (format!("component/{p}"), b))
                .collect();
            let (component, findings) = load_component(&nested, "component");
            (component.map(|c| c.part), findings)
        }
        other => {
            let (bundle, findings) = load_bundle(&files, "");
            let part = bundle.and_then(|b| match other {
                PartName::Infrastructure => b.infrastructure,
                PartName::Instance => b.instance,
                _ => b.pipeline,
            });
            (part, findings)
        }
    };
    let Some(part) = part else {
        for finding in findings.iter().filter(|f| f.is_error()) {
            anstream::eprintln!("{}\n", finding::render(finding));
        }
        return Err(usage(format!("{} has no such part", args.bundle.display())));
    };
    if part.engine != crate::domain::template::Engine::Jinja {
        bail!(
            "{} is not rendered: its manifest names an engine that isoform does not deploy",
            part.file
        );
    }
    match render::render(&part.file, &part.text, &data, &Limits::default()) {
        Ok(rendered) => {
            for note in &rendered.notes {
                anstream::eprintln!("{}\n", finding::render(note));
            }
            // Byte-exact: no line break is added.
            let mut out = std::io::stdout().lock();
            out.write_all(rendered.text.as_bytes())?;
            out.flush()?;
            Ok(DONE)
        }
        Err(found) => {
            anstream::eprintln!("{}", finding::render(&found));
            Ok(FAILED)
        }
    }
}

/// `isoform diff A..B`: what two revisions of a repository differ in, target by target, without a daemon.
pub(crate) fn diff_revisions(global: &Global, folder: &Path, range: &str) -> anyhow::Result<u8> {
    let (from, to) = range
        .split_once("..")
        .ok_or_else(|| usage("write two revisions, as in HEAD~1..HEAD"))?;
    let repository = git2::Repository::discover(folder)?;
    let resolve = |name: &str| -> anyhow::Result<_> {
        let name = if name.is_empty() { "HEAD" } else { name };
        let id = repository
            .revparse_single(name)?
            .peel_to_commit()?
            .id()
            .to_string();
        id.parse::<crate::domain::model::Revision>()
            .map_err(anyhow::Error::msg)
    };
    let (from, to) = (resolve(from)?, resolve(to)?);
    let mirror = Mirror::of(repository.path())?;
    let (old, new) = (mirror.read(&from)?, mirror.read(&to)?);
    let rendered = |files: &Files| crate::domain::estate::rendered(files, "main");
    let (before, after) = (rendered(&old.files), rendered(&new.files));
    let mut changed = 0;
    let mut json = Vec::new();
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (a, b) = (
            before.get(name).map_or("", String::as_str),
            after.get(name).map_or("", String::as_str),
        );
        if a == b {
            continue;
        }
        changed += 1;
        let text = similar::TextDiff::from_lines(a, b)
            .unified_diff()
            .context_radius(3)
            .header(from.short(), to.short())
            .to_string();
        if global.output == Output::Json {
            json.push(serde_json::json!({ "target": name, "text": text }));
            continue;
        }
        anstream::println!("{BOLD}{name}{RESET}");
        for line in text.lines() {
            let colour = if line.starts_with('+') {
                GREEN
            } else if line.starts_with('-') {
                RED
            } else {
                ""
            };
            anstream::println!("  {colour}{}{RESET}", show::clean(line));
        }
    }
    if global.output == Output::Json {
        show::json(&serde_json::json!({ "v": 1, "targets": json }))?;
    } else {
        anstream::println!(
            "{changed} of {} targets render differently (outputs of others stand as names)",
            before.len().max(after.len())
        );
    }
    Ok(if changed > 0 { CHANGES } else { DONE })
}

/// `isoform run`
pub(crate) async fn run_daemon(global: &Global, json_log: bool, log: &str) -> anyhow::Result<u8> {
    crate::telemetry::start(json_log, log);
    no_core_dumps();
    let config = Config::load(&config_path(global))?;
    let built = daemon::build(config, Clock::system()).await?;
    if built.restored > 0 {
        tracing::warn!(
            "the state was empty: {} entries were taken over from the bundle store",
            built.restored
        );
    }
    let drained = daemon::run(built, signals()).await?;
    Ok(if drained { DONE } else { FAILED })
}

/// A core dump would hold the keys in the clear.
fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!("core dumps cannot be switched off: {error}");
    }
}

/// Ends at the first SIGTERM or SIGINT. A second one ends the process at once.
pub(crate) async fn signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        std::future::pending::<()>().await;
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        std::process::exit(i32::from(FAILED));
    });
}

/// `isoform bundle`
pub(crate) async fn bundle(global: &Global, command: BundleCommand) -> anyhow::Result<u8> {
    match command {
        BundleCommand::Build { folder, out } => {
            let files = checked_bundle(&folder)?;
            if out.starts_with(&folder) {
                return Err(usage(format!("{} lies inside the bundle", out.display())));
            }
            std::fs::write(&out, bundle::pack(&files)?)
                .with_context(|| format!("writing {}", out.display()))?;
            anstream::println!(
                "{} {} files → {}",
                bundle::digest(&files),
                files.len(),
                out.display()
            );
            Ok(DONE)
        }
        BundleCommand::Put { folder, named } => {
            let files = checked_bundle(&folder)?;
            let config = Config::load(&config_path(global))?;
            let (_, ports) = daemon::open_ports(&config, &Clock::system()).await?;
            let digest = bundle::digest(&files);
            crate::reconcile::put_bundle(
                ports.as_ref(),
                config.encryption,
                &digest,
                &files,
                &named,
            )
            .await?;
            anstream::println!("{digest}");
            Ok(DONE)
        }
        BundleCommand::Open { digest, out } => {
            let files = stored(global, &digest).await?;
            if out.exists() {
                return Err(usage(format!("{} exists", out.display())));
            }
            for (path, blob) in &files {
                let to = out.join(path);
                std::fs::create_dir_all(to.parent().unwrap_or(&out))?;
                std::fs::write(&to, &blob.bytes)?;
            }
            anstream::println!("{} files → {}", files.len(), out.display());
            Ok(DONE)
        }
        BundleCommand::Verify { digest } => {
            let files = stored(global, &digest).await?;
            anstream::println!(
                "{GREEN}✓{RESET} opens, and its {} files have the digest {}",
                files.len(),
                bundle::digest(&files)
            );
            Ok(DONE)
        }
    }
}

fn checked_bundle(folder: &Path) -> anyhow::Result<Files> {
    let files = folder_files(folder)?;
    let (_, findings) = load_bundle(&files, "");
    let wrong: Vec<Finding> = findings.into_iter().filter(Finding::is_error).collect();
    if !wrong.is_empty() {
        for finding in &wrong {
            anstream::eprintln!("{}\n", finding::render(finding));
        }
        bail!(
            "{} is not a bundle that can be registered",
            folder.display()
        );
    }
    Ok(files)
}

async fn stored(global: &Global, digest: &str) -> anyhow::Result<Files> {
    let digest: Digest = if digest.contains(':') {
        digest.parse()
    } else {
        format!("b1:{digest}").parse()
    }
    .map_err(anyhow::Error::msg)?;
    let config = Config::load(&config_path(global))?;
    let (_, ports) = daemon::open_ports(&config, &Clock::system()).await?;
    Ok(open_bundle(ports.home().as_ref(), ports.sealing().as_deref(), &digest).await?)
}

/// `isoform config`
pub(crate) fn config(global: &Global, command: ConfigCommand) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Show => {
            let path = config_path(global);
            let config = Config::load(&path)?;
            let origin = if global.config.is_some() {
                "flag or ISOFORM_CONFIG"
            } else {
                "default"
            };
            if global.output == Output::Json {
                show::json(&serde_json::json!({
                    "v": 1, "file": path, "origin": origin, "state": config.state, "socket": config.socket(), "cloud": config.cloud,
                    "poll_ms": config.poll.as_millis() as u64, "sweep_ms": config.sweep.as_millis() as u64, "workers": config.workers,
                    "placements": config.placements.values().map(|p| serde_json::json!({ "name": p.name, "account": p.account, "regions": p.regions, "mode": p.mode, "blast_radius": p.blast_radius, "critical": p.critical })).collect::<Vec<_>>(),
                    "sources": config.sources.values().map(|s| serde_json::json!({ "name": s.grant.source, "url": crate::telemetry::redact(&s.remote.url), "branch": s.remote.branch, "mode": s.grant.mode })).collect::<Vec<_>>(),
                }))?;
                return Ok(DONE);
            }
            anstream::println!("{BOLD}{}{RESET} ({origin})", path.display());
            anstream::println!(
                "  state   {}\n  socket  {}\n  cloud   {} (embedded engine)",
                config.state.display(),
                config.socket().display(),
                config.cloud.display()
            );
            for p in config.placements.values() {
                let regions = p
                    .regions
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                anstream::println!(
                    "  placement {:<12} {} {regions}   mode {:?}, blast radius {}{}",
                    p.name.to_string(),
                    p.account,
                    p.mode,
                    p.blast_radius,
                    if p.critical { ", critical" } else { "" }
                );
            }
            for s in config.sources.values() {
                anstream::println!(
                    "  source    {:<12} {} {}   mode {:?}",
                    s.grant.source.to_string(),
                    crate::telemetry::redact(&s.remote.url),
                    s.remote.branch,
                    s.grant.mode
                );
            }
            Ok(DONE)
        }
        ConfigCommand::Key { file } => {
            if file.exists() {
                return Err(usage(format!(
                    "{} exists: a root key is never overwritten",
                    file.display()
                )));
            }
            RootKey::read_or_make(&file)?;
            anstream::println!(
                "{GREEN}made{RESET} {}\n{YELLOW}keep a copy where the state's backups are not{RESET}: without it nothing that isoform encrypted can be read again",
                file.display()
            );
            Ok(DONE)
        }
    }
}

/// `isoform schema`
pub(crate) fn schema(format: &str) -> anyhow::Result<u8> {
    let text = match format {
        "sync" => include_str!("../../docs/formats/sync-file.schema.json"),
        _ => include_str!("../../docs/formats/config.schema.json"),
    };
    anstream::print!("{text}");
    Ok(DONE)
}
