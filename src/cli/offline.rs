//! Commands that need no daemon.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::config_path;
use super::diff::folder_files;
use super::online::errors;
use super::show::{self, BOLD, GREEN, RED, RESET};
use super::{CHANGES, DONE, FAILED, Faulty, Global, Output, finding, usage};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon;
use crate::domain::bundle;
use crate::domain::estate::validate as validate_files;
use crate::domain::model::{Digest, Finding, Revision, counted};
use crate::domain::render::{self, Limits};
use crate::domain::template::{Files, load_bundle, load_component};
use crate::git::Mirror;
use crate::port;
use crate::reconcile::{self, open_bundle};

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
    let looked = format!(
        "{}, {}, {}, {}",
        counted(checked.bundles, "bundle"),
        counted(checked.components, "component"),
        counted(checked.specs, "spec"),
        counted(checked.targets, "target")
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
            counted(errors(&checked.findings), "error"),
            counted(warnings, "warning")
        );
    } else {
        anstream::println!(
            "{GREEN}✓{RESET} nothing is wrong · {} · {looked}",
            counted(warnings, "warning")
        );
    }
    Ok(code)
}

/// `isoform render`
pub(crate) fn render(global: &Global, args: &RenderArgs) -> anyhow::Result<u8> {
    let text = std::fs::read_to_string(&args.data)
        .map_err(|e| usage(format!("reading {}: {e}", args.data.display())))?;
    let data: Value = serde_json::from_str(&text)
        .map_err(|e| usage(format!("{} is not JSON: {e}", args.data.display())))?;
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
        let wrong: Vec<Finding> = findings.into_iter().filter(Finding::is_error).collect();
        let message = format!("{} has no such part", args.bundle.display());
        if wrong.is_empty() {
            return Err(usage(message));
        }
        return Err(Faulty::error(message, wrong));
    };
    if part.engine != crate::domain::template::Engine::Jinja {
        bail!(
            "{} is not rendered: its manifest names an engine that isoform does not deploy",
            part.file
        );
    }
    match render::render(&part.file, &part.text, &data, &Limits::default()) {
        Ok(rendered) if global.output == Output::Json => {
            show::json(&json!({ "text": rendered.text, "findings": rendered.notes }))?;
            Ok(DONE)
        }
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
        Err(found) => Err(Faulty::error(
            format!("{} cannot be rendered", part.file),
            vec![*found],
        )),
    }
}

/// Finds the commit that a word names in a clone.
pub(crate) fn commit_of(repository: &git2::Repository, name: &str) -> anyhow::Result<Revision> {
    // libgit2's own words name neither the revision nor what to do.
    let commit = repository
        .revparse_single(name)
        .and_then(|o| o.peel_to_commit())
        .map_err(|_| {
            usage(format!(
                "`{}` is no commit of this clone: `git log --oneline --all` lists what it has, `git fetch` gets what it lacks",
                name.escape_debug()
            ))
        })?;
    let id = commit.id().to_string();
    id.parse().map_err(anyhow::Error::msg)
}

/// `isoform diff A..B`: what two revisions of a repository differ in, target by target, without a daemon.
pub(crate) fn diff_revisions(global: &Global, folder: &Path, range: &str) -> anyhow::Result<u8> {
    let (from, to) = range
        .split_once("..")
        .ok_or_else(|| usage("write two revisions, as in HEAD~1..HEAD; `--against deployed` compares one with what is deployed"))?;
    let repository = git2::Repository::discover(folder)
        .map_err(|_| usage(format!("{} lies in no Git repository", folder.display())))?;
    let resolve = |name: &str| commit_of(&repository, if name.is_empty() { "HEAD" } else { name });
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
            "{changed} of {} {} differently (outputs of others stand as names)",
            counted(before.len().max(after.len()), "target"),
            if before.len().max(after.len()) == 1 {
                "renders"
            } else {
                "render"
            },
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
            "the state was empty: {} taken over from the bundle store",
            counted(usize::try_from(built.restored)?, "entry")
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
            let digest = bundle::digest(&files);
            let said = format!(
                "{digest} {} → {}",
                counted(files.len(), "file"),
                out.display()
            );
            told(
                global,
                &said,
                json!({ "digest": digest, "files": files.len(), "out": out }),
            )
        }
        BundleCommand::Put { folder, named } => {
            let files = checked_bundle(&folder)?;
            let config = Config::load(&config_path(global))?;
            let ports = daemon::open(&config, &Clock::system()).await?;
            let digest = bundle::digest(&files);
            crate::reconcile::put_bundle(
                ports.as_ref(),
                config.encryption,
                &digest,
                &files,
                &named,
            )
            .await?;
            told(
                global,
                &digest.to_string(),
                json!({ "digest": digest, "files": files.len(), "version": named }),
            )
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
            let said = format!("{} → {}", counted(files.len(), "file"), out.display());
            told(
                global,
                &said,
                json!({ "digest": bundle::digest(&files), "files": files.len(), "out": out }),
            )
        }
        BundleCommand::Verify { digest } => {
            let files = stored(global, &digest).await?;
            let digest = bundle::digest(&files);
            let said = format!(
                "{GREEN}✓{RESET} opens, and its {} {} the digest {digest}",
                counted(files.len(), "file"),
                if files.len() == 1 { "has" } else { "have" },
            );
            told(
                global,
                &said,
                json!({ "digest": digest, "files": files.len(), "holds": true }),
            )
        }
    }
}

/// Says what was done, as a line or as JSON.
fn told(global: &Global, text: &str, value: Value) -> anyhow::Result<u8> {
    if global.output == Output::Json {
        show::json(&value)?;
    } else {
        anstream::println!("{text}");
    }
    Ok(DONE)
}

fn checked_bundle(folder: &Path) -> anyhow::Result<Files> {
    let files = folder_files(folder)?;
    let (_, findings) = load_bundle(&files, "");
    let wrong: Vec<Finding> = findings.into_iter().filter(Finding::is_error).collect();
    if !wrong.is_empty() {
        return Err(Faulty::error(
            format!(
                "{} is not a bundle that can be registered",
                folder.display()
            ),
            wrong,
        ));
    }
    Ok(files)
}

async fn stored(global: &Global, digest: &str) -> anyhow::Result<Files> {
    let digest: Digest = if digest.contains(':') {
        digest.parse()
    } else {
        format!("b1:{digest}").parse()
    }
    .map_err(|e: <Digest as std::str::FromStr>::Err| usage(e.to_string()))?;
    let config = Config::load(&config_path(global))?;
    let ports = daemon::open(&config, &Clock::system()).await?;
    let opened = open_bundle(ports.home().as_ref(), ports.sealing().as_deref(), &digest).await;
    match opened {
        Err(reconcile::Error::Port(port::Error::NotFound(_))) => Err(usage(format!(
            "no bundle with the digest {digest} is in the bundle store"
        ))),
        other => Ok(other?),
    }
}
