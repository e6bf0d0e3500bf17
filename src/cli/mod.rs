//! The command line. What needs a daemon goes over its socket; the rest works alone.
//!
//! Exit codes: 0 done, 1 failed, 2 changes found, 3 held at a gate, 4 superseded, 5 timed out, 64 usage or
//! configuration.

mod audit;
mod branch;
mod client;
mod config;
mod demo;
mod diff;
mod doctor;
mod finding;
mod hook;
mod iam;
mod init;
mod local;
mod offline;
mod online;
mod preview;
mod proposal;
mod set;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::domain::model::Finding;

/// Exit code: done.
pub(crate) const DONE: u8 = 0;
/// Exit code: failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: changes were found.
pub(crate) const CHANGES: u8 = 2;
/// Exit code: held at a gate.
pub(crate) const HELD: u8 = 3;
/// Exit code: superseded.
pub(crate) const SUPERSEDED: u8 = 4;
/// Exit code: timed out.
pub(crate) const TIMEOUT: u8 = 5;
/// Exit code: usage or configuration.
pub(crate) const USAGE: u8 = 64;

/// The command was asked something that it cannot mean: the exit code is [`USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

/// Makes an error that says what to write instead.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

/// What was given has faults, which are shown one by one: the exit code is [`FAILED`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Faulty {
    message: String,
    findings: Vec<Finding>,
}

impl Faulty {
    fn error(message: String, findings: Vec<Finding>) -> anyhow::Error {
        Self { message, findings }.into()
    }
}

/// Tells an error, as people or as programs read it, and returns the exit code.
fn tell(error: &anyhow::Error, output: Output) -> u8 {
    let text = crate::telemetry::redact(&format!("{error:#}"));
    let findings = error
        .downcast_ref::<Faulty>()
        .map_or(&[][..], |f| &f.findings);
    if output == Output::Json {
        // On standard output, so that there is always one document to read.
        let _ = show::json(&serde_json::json!({ "error": text, "findings": findings }));
    } else {
        for finding in findings {
            anstream::eprintln!("{}\n", finding::render(finding));
        }
        anstream::eprintln!("{}error:{} {text}", show::RED, show::RESET);
    }
    let usage = error.downcast_ref::<Usage>().is_some()
        || error.downcast_ref::<crate::config::Error>().is_some()
        || error.downcast_ref::<client::NoDaemon>().is_some();
    if usage { USAGE } else { FAILED }
}

#[derive(Parser)]
#[command(
    name = "isoform",
    version,
    about = "Keeps CloudFormation equal to Git",
    after_help = "Exit codes: 0 done, 1 failed, 2 changes found, 3 held at a gate, 4 superseded, 5 timed out, 64 usage or configuration",
    propagate_version = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args, Clone)]
pub(crate) struct Global {
    /// The daemon's configuration file.
    #[arg(long, global = true, env = "ISOFORM_CONFIG")]
    config: Option<PathBuf>,
    /// The daemon's socket.
    #[arg(long, global = true, env = "ISOFORM_SOCKET")]
    socket: Option<PathBuf>,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Deploy the example on the embedded engine, from nothing to a first applied push.
    Demo(demo::DemoArgs),
    /// Write a sync file for a repository from what is found in it.
    Init {
        /// The repository.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Overwrite a sync file that is there.
        #[arg(long)]
        force: bool,
    },
    /// Run the daemon.
    Run {
        /// Log as JSON, for the journal.
        #[arg(long)]
        json_log: bool,
        /// What to log: as `RUST_LOG`.
        #[arg(long, default_value = "info", env = "ISOFORM_LOG")]
        log: String,
    },
    /// Check bundles, specs and the sync file of a folder; needs no daemon.
    Validate {
        /// A bundle, a collection of bundles and specs, or a repository.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Treat warnings as errors.
        #[arg(long)]
        strict: bool,
    },
    /// Render one part of a bundle with given data; needs no daemon.
    Render(offline::RenderArgs),
    /// Show what the files of this clone would change, property by property. Writes nothing anywhere.
    Diff(diff::DiffArgs),
    /// Ask CloudFormation what the newest commit would change, with change sets that are never executed.
    Plan {
        /// An address or a glob.
        #[arg(default_value = "**")]
        targets: String,
    },
    /// Look at the sources and stacks now.
    Sync {
        /// Wait until everything rests.
        #[arg(long)]
        wait: bool,
        /// How long to wait.
        #[arg(long, default_value = "10m")]
        timeout: String,
    },
    /// List the targets.
    Targets {
        /// Show the line that made each.
        #[arg(long)]
        explain: bool,
    },
    /// Show the estate.
    Status,
    /// Explain the state of a target.
    Why {
        /// An address or a glob.
        target: String,
    },
    /// Show what happened to a target, or in a deployment or commit.
    History {
        /// An address, a stack name, a deployment or a commit.
        target: String,
        /// How many entries at the most.
        #[arg(short = 'n', long, default_value_t = 40)]
        number: usize,
    },
    /// Show the events of a target's stack.
    Logs {
        /// An address or a glob.
        target: String,
    },
    /// Wait until targets rest.
    Wait {
        /// An address or a glob; absent with --commit.
        target: Option<String>,
        /// Wait until this commit is looked at and rests.
        #[arg(long)]
        commit: Option<String>,
        /// How long to wait.
        #[arg(long, default_value = "10m")]
        timeout: String,
    },
    /// Try again what failed.
    Retry {
        /// An address or a glob.
        target: String,
    },
    /// Allow exactly what was reviewed.
    Approve {
        /// The target whose review waits.
        target: Option<String>,
        /// The review digest that you read; refused if it is another one by now.
        #[arg(long)]
        review: Option<String>,
        /// Open the stack policy for what was reviewed while it runs, and close it afterwards.
        #[arg(long, requires = "target")]
        open_policy: bool,
        /// Allow the blast radius of this commit.
        #[arg(long, conflicts_with_all = ["target", "review"])]
        snapshot: Option<String>,
        /// Accept the rewritten history of this source.
        #[arg(long, conflicts_with_all = ["target", "review", "snapshot"])]
        source: Option<String>,
    },
    /// Say no to what was reviewed.
    Reject {
        /// The target whose review waits.
        target: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Stop the deployment of a target that waits or runs. The same is not tried again by itself.
    Cancel {
        /// The target.
        target: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Move a stack that is stuck: go on with its rollback, roll it back, or delete the rest of what failed.
    Continue {
        /// The target.
        target: String,
        /// Logical ids that the rollback leaves as they are, or that a deletion keeps.
        #[arg(long, value_delimiter = ',')]
        skip: Vec<String>,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Bring back what an earlier deployment gave a target, and hold it there until Git asks for the same.
    Rollback {
        /// The target.
        target: String,
        /// A deployment, a commit or a template version; absent means what it had before the newest change.
        #[arg(long)]
        to: Option<String>,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Take over a stack that isoform did not make, if CloudFormation finds nothing to change in it.
    Adopt {
        /// The target, which the sync file has.
        target: String,
        /// The stack's name or ARN; absent means the name that the target has.
        #[arg(long)]
        stack: Option<String>,
        /// Only compare; take nothing over.
        #[arg(long)]
        check: bool,
        /// Look too whether the resources are what the stack says; CloudFormation may take minutes for it.
        #[arg(long)]
        drift: bool,
    },
    /// Write the comment of a pull request: what merging a branch would do, the gravest first. The merge is made in memory.
    Preview(preview::PreviewArgs),
    /// Change a value of a target in the file that it comes from: as a commit on a branch, or on the followed one.
    Set(set::SetArgs),
    /// Hold targets.
    Suspend {
        #[command(flatten)]
        which: Which,
        /// Why.
        #[arg(long)]
        reason: String,
        /// For how long, as in 8h.
        #[arg(long = "for")]
        hold: Option<String>,
    },
    /// Let targets go that were suspended, are held at an earlier deployment, or whose roll-out halted.
    Resume {
        #[command(flatten)]
        which: Which,
    },
    /// Decide about a stack that somebody else changed.
    Drift {
        #[command(subcommand)]
        what: DriftCommand,
    },
    /// Work with bundles.
    Bundle {
        #[command(subcommand)]
        what: offline::BundleCommand,
    },
    /// Read and verify the log.
    Audit {
        #[command(subcommand)]
        what: audit::AuditCommand,
    },
    /// Show or prepare the configuration.
    Config {
        #[command(subcommand)]
        what: config::ConfigCommand,
    },
    /// Check credentials, permissions, buckets, keys and the clock, and say how to mend what is wrong. Writes nothing without `--probe`.
    Doctor(doctor::DoctorArgs),
    /// Print what AWS must allow for this configuration: roles, trusts, and policies of buckets and keys.
    Iam(iam::IamArgs),
    /// Print the JSON Schema of a file format.
    Schema {
        /// Which format.
        #[arg(value_parser = ["sync", "config"])]
        format: String,
    },
    /// Install or run the hook of a bare repository.
    Hook {
        #[command(subcommand)]
        what: hook::HookCommand,
    },
    /// Play the world outside of the embedded engine: let resources fail, change stacks by hand.
    Local {
        #[command(subcommand)]
        what: local::LocalCommand,
    },
    /// Speak to one remote, for the daemon: see `errand.rs`.
    #[command(hide = true)]
    GitErrand,
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Which targets are meant.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// An address or a glob.
    target: Option<String>,
    /// Every target.
    #[arg(long)]
    all: bool,
    /// Every target of a placement.
    #[arg(long)]
    placement: Option<String>,
    /// Every target of a source.
    #[arg(long)]
    source: Option<String>,
}

impl Which {
    /// One address or glob.
    fn one(target: String) -> Self {
        Self {
            target: Some(target),
            all: false,
            placement: None,
            source: None,
        }
    }
}

#[derive(Subcommand)]
enum DriftCommand {
    /// Accept what the stack has become.
    Accept {
        /// The target.
        target: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Let the next change overwrite it.
    Overwrite {
        /// The target.
        target: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// Parses arguments, runs, and returns the exit code.
pub fn main() -> ExitCode {
    // A pipe that closes ends the program quietly, as it ends every other.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { DONE });
        }
    };
    if matches!(cli.command, Command::GitErrand) {
        crate::git::errand::run();
    }
    let output = cli.global.output;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(16 << 20)
        .build();
    let Ok(runtime) = runtime else {
        anstream::eprintln!("isoform: the runtime cannot be started");
        return ExitCode::from(FAILED);
    };
    // Templates need a deep stack, and the main thread's is the system's choice: so everything runs on the runtime's.
    let result = runtime.block_on(async { tokio::spawn(dispatch(cli)).await });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(error)) => ExitCode::from(tell(&error, output)),
        Err(_) => ExitCode::from(FAILED),
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    let global = cli.global;
    match cli.command {
        Command::Demo(args) => demo::demo(&args, &global).await,
        Command::Init { folder, force } => init::init(&global, &folder, force),
        Command::Run { json_log, log } => offline::run_daemon(&global, json_log, &log).await,
        Command::Validate { folder, strict } => offline::validate(&global, &folder, strict),
        Command::Render(args) => offline::render(&global, &args),
        Command::Diff(args) => diff::diff(&global, &args).await,
        Command::Plan { targets } => diff::plan(&global, &targets).await,
        Command::Sync { wait, timeout } => online::sync(&global, wait, &timeout).await,
        Command::Targets { explain } => online::targets(&global, explain).await,
        Command::Status => online::status(&global).await,
        Command::Why { target } => online::why(&global, &target).await,
        Command::History { target, number } => audit::history(&global, &target, number).await,
        Command::Logs { target } => online::logs(&global, &target).await,
        Command::Wait {
            target,
            commit,
            timeout,
        } => online::wait(&global, target.as_deref(), commit.as_deref(), &timeout).await,
        Command::Retry { target } => {
            online::say(&global, "retry", Which::one(target), "", None, false).await
        }
        Command::Approve {
            target,
            review,
            snapshot,
            source,
            open_policy,
        } => online::approve(&global, target, review, snapshot, source, open_policy).await,
        Command::Reject { target, reason } => {
            online::say(&global, "reject", Which::one(target), &reason, None, false).await
        }
        Command::Adopt {
            target,
            stack,
            check,
            drift,
        } => online::adopt(&global, &target, stack.as_deref(), check, drift).await,
        Command::Cancel { target, reason } => {
            online::say_of(&global, "cancel", &target, &reason, json!({})).await
        }
        Command::Continue {
            target,
            skip,
            reason,
        } => {
            online::say_of(
                &global,
                "continue",
                &target,
                &reason,
                json!({ "skip": skip }),
            )
            .await
        }
        Command::Rollback { target, to, reason } => {
            online::say_of(&global, "rollback", &target, &reason, json!({ "to": to })).await
        }
        Command::Suspend {
            which,
            reason,
            hold,
        } => online::say(&global, "suspend", which, &reason, hold, false).await,
        Command::Resume { which } => online::say(&global, "resume", which, "", None, false).await,
        Command::Drift { what } => {
            let (target, reason, overwrite) = match what {
                DriftCommand::Accept { target, reason } => (target, reason, false),
                DriftCommand::Overwrite { target, reason } => (target, reason, true),
            };
            online::say(
                &global,
                "drift",
                Which::one(target),
                &reason,
                None,
                overwrite,
            )
            .await
        }
        Command::Bundle { what } => offline::bundle(&global, what).await,
        Command::Audit { what } => audit::audit(&global, what).await,
        Command::Config { what } => config::config(&global, what),
        Command::Doctor(args) => doctor::doctor(&global, &args).await,
        Command::Preview(args) => preview::preview(&global, &args).await,
        Command::Set(args) => set::set(&global, &args).await,
        Command::Iam(args) => iam::iam(&global, &args),
        Command::Schema { format } => config::schema(&format),
        Command::Hook { what } => hook::hook(&global, what).await,
        Command::Local { what } => local::local(&global, what).await,
        // Handled before there was a runtime.
        Command::GitErrand => Ok(FAILED),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "isoform",
                &mut std::io::stdout(),
            );
            Ok(DONE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
