//! Reading the log: history, one page of evidence, verification, proof, export.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, config_path};
use super::show::{self, BOLD, DIM, GREEN, RED, RESET, clean};
use super::{DONE, FAILED, Global, Output, Usage, usage};
use crate::clock::Clock;
use crate::config::{Config, Encryption, Root};
use crate::domain::audit::{
    Body, Checkpoint, Entry, Stream, Verified, Vouched, read_public_key, verify,
    verify_countersigned,
};
use crate::domain::deployment::{EventKind, Remedy, Step};
use crate::domain::model::counted;
use crate::port::ObjectStore;
use crate::reconcile::{Evidence, Proof, Shipped};
use crate::store::{Keyring, RootKey};

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// List entries of the log.
    List {
        /// The first entry.
        #[arg(long, default_value_t = 1)]
        from: u64,
    },
    /// One page of evidence about a commit, a deployment, a target or a stack.
    Show {
        /// A commit, a deployment, an address, a stack name or a template version.
        what: String,
    },
    /// Walk the chain: entries, checkpoints, shipped segments and payloads.
    Verify(Box<VerifyArgs>),
    /// Open the sealed bundle of a deployment, render again and compare.
    Prove {
        /// A deployment, an address or a commit.
        what: String,
    },
    /// Write entries and checkpoints to standard output, a line each.
    Export,
}

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// An exported log instead of a state folder.
    #[arg(long)]
    file: Option<PathBuf>,
    /// The state folder; absent takes it from the configuration or a demo nearby.
    #[arg(long, conflicts_with = "file")]
    state: Option<PathBuf>,
    /// The folder of the local world whose shipped copy is compared.
    #[arg(long, conflicts_with = "file")]
    cloud: Option<PathBuf>,
    /// The public key to trust, hexadecimal; absent takes the one in the log's first entry.
    #[arg(long)]
    key: Option<String>,
    /// A public key of KMS to trust, which must have signed checkpoints too: a file with PEM or DER, or hexadecimal; again for
    /// each key. Absent takes those that the checkpoints name.
    #[arg(long, value_name = "KEY")]
    signing_key: Vec<String>,
    /// The root key, to check payloads too.
    #[arg(long, conflicts_with = "file")]
    root_key: Option<PathBuf>,
    /// From the bundle store alone, without any state: that of the configuration, or `s3://<bucket>/<prefix>`.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["file", "state", "root_key"])]
    shipped: Option<String>,
    /// Which log, where the bundle store holds several.
    #[arg(long, requires = "shipped")]
    log: Option<String>,
    /// The account that the bucket belongs to.
    #[arg(long, requires = "shipped")]
    owner: Option<String>,
    /// The bucket's region.
    #[arg(long, requires = "shipped")]
    region: Option<String>,
    /// The ARN of the key that the bucket is encrypted under; absent means S3's own.
    #[arg(long, requires = "shipped", value_name = "ARN")]
    sse_key: Option<String>,
    /// The ARN of a role that may read the bucket.
    #[arg(long, requires = "shipped", value_name = "ARN")]
    role: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    entries: Vec<Entry>,
    checkpoints: Vec<Checkpoint>,
}

pub(crate) async fn audit(global: &Global, command: AuditCommand) -> anyhow::Result<u8> {
    match command {
        AuditCommand::List { from } => list(global, from).await,
        AuditCommand::Show { what } => show_evidence(global, &what).await,
        AuditCommand::Verify(args) => verify_log(global, *args).await,
        AuditCommand::Prove { what } => prove(global, &what).await,
        AuditCommand::Export => export(global).await,
    }
}

async fn all(client: &Client, from: u64) -> anyhow::Result<(Vec<Entry>, Vec<Checkpoint>)> {
    let mut entries = Vec::new();
    let mut next = from;
    loop {
        let page: Page = client.get("log", &[("from", &next.to_string())]).await?;
        let Some(last) = page.entries.last() else {
            return Ok((entries, page.checkpoints));
        };
        next = last.seq + 1;
        entries.extend(page.entries);
    }
}

async fn list(global: &Global, from: u64) -> anyhow::Result<u8> {
    let (entries, _) = all(&Client::connect(global)?, from).await?;
    if global.output == Output::Json {
        show::json(&json!({ "entries": entries }))?;
        return Ok(DONE);
    }
    for entry in &entries {
        anstream::println!(
            "{:>6}  {}  {:<22} {}",
            entry.seq,
            show::time(entry.at),
            short_stream(&entry.stream),
            line(entry)
        );
    }
    Ok(DONE)
}

fn short_stream(stream: &Stream) -> String {
    match stream {
        Stream::Target(uid) => format!("target {}", uid.short()),
        other => other.to_string(),
    }
}

/// Says an entry in one line.
fn line(entry: &Entry) -> String {
    let by = clean(&entry.actor.display);
    match &entry.body {
        Body::Created { installation, .. } => {
            format!("log created for installation {installation}")
        }
        Body::Started { version, .. } => format!("isoform {version} started"),
        Body::Stopped => "stopped in order".into(),
        Body::Accepted {
            snapshot,
            revisions,
            trigger,
        } => {
            let heads = revisions
                .iter()
                .map(|(n, r)| format!("{n} {}", r.short()))
                .collect::<Vec<_>>()
                .join(", ");
            format!(
                "snapshot {} accepted: {heads} ({trigger}, {by})",
                snapshot.0
            )
        }
        Body::Refused { reason, .. } => format!("refused: {}", clean(reason)),
        Body::Commanded {
            pull,
            command,
            done,
            answer,
            ..
        } => {
            let outcome = if *done { "done" } else { "refused" };
            format!(
                "{} in pull request {pull} by {by}: {outcome}, {}",
                clean(command),
                clean(answer)
            )
        }
        Body::HistoryAccepted { revision } => {
            format!("history accepted at {} by {by}", revision.short())
        }
        Body::Registered(version) => format!(
            "registered {} as {}",
            version.version(),
            version.bundle.short(12)
        ),
        Body::BlastRadiusApproved { snapshot, .. } => {
            format!("blast radius of snapshot {} approved by {by}", snapshot.0)
        }
        Body::Synced(look) => {
            let counts = look
                .counts
                .iter()
                .map(|(r, n)| format!("{n} {r}"))
                .collect::<Vec<_>>()
                .join(", ");
            format!(
                "look at snapshot {} ended: {counts}; {}",
                look.snapshot.0,
                counted(look.faults, "fault")
            )
        }
        Body::Target(kind) => event(kind, &by),
    }
}

fn event(kind: &EventKind, by: &str) -> String {
    match kind {
        EventKind::Minted {
            address,
            stack_name,
            ..
        } => format!("minted for {address}, stack {stack_name}"),
        EventKind::Moved { address } => format!("moved to {address}"),
        EventKind::Owned { stack } => format!("owns {stack}"),
        EventKind::Adopted {
            stack, evidence, ..
        } => format!("{stack} adopted by {by}: evidence {}", evidence.short(12)),
        EventKind::Begun(p) if p.removal => format!(
            "removal {} begun: generation {}, of {}",
            p.deployment, p.generation.0, p.stack_name
        ),
        EventKind::Begun(p) if p.remedy.is_some() => format!(
            "remedy {} begun: generation {}, of {}",
            p.deployment, p.generation.0, p.stack_name
        ),
        EventKind::Begun(p) if p.rollback => format!(
            "rollback {} begun: generation {}, to {}",
            p.deployment,
            p.generation.0,
            p.digest.short(12)
        ),
        EventKind::Begun(p) => format!(
            "deployment {} begun: generation {}, {}",
            p.deployment,
            p.generation.0,
            p.digest.short(12)
        ),
        EventKind::Announced(Step::Propose { name }) => format!("will make the change set {name}"),
        EventKind::Announced(step) => format!("will {}", step.word()),
        EventKind::Stored { .. } => "bundle and text are stored".into(),
        EventKind::Cleared => "the rest of a failed creation is gone".into(),
        EventKind::Proposed { change_set, .. } => format!(
            "change set {} exists",
            change_set.rsplit("changeSet/").next().unwrap_or_default()
        ),
        EventKind::Reviewed {
            review,
            summary,
            losses,
            ..
        } => {
            let losses = if losses.is_empty() {
                String::new()
            } else {
                format!(
                    "; {RED}{}{RESET}",
                    losses
                        .iter()
                        .map(|l| clean(l))
                        .collect::<Vec<_>>()
                        .join("; ")
                )
            };
            format!("reviewed {}: {summary}{losses}", review.short(12))
        }
        EventKind::Held { detail, .. } => format!(
            "held: {}",
            detail
                .iter()
                .map(|d| clean(d))
                .collect::<Vec<_>>()
                .join("; ")
        ),
        EventKind::Endorsed(of) => format!(
            "{} approved by {by} in pull request {} at {}, before its merge",
            of.review.short(12),
            of.pull,
            of.head.short()
        ),
        EventKind::Approved {
            review,
            opens,
            carried,
        } => format!(
            "{} approved by {by}{}{}",
            review.short(12),
            carried.as_ref().map_or(String::new(), |c| format!(
                " in pull request {}, {}",
                c.pull,
                show::time(c.at)
            )),
            if *opens {
                ", with the stack policy open for it"
            } else {
                ""
            }
        ),
        EventKind::PolicyClosed => "the stack policy is as it was".into(),
        EventKind::Rejected { review, reason } => {
            format!("{} rejected by {by}: {}", review.short(12), clean(reason))
        }
        EventKind::Executed => "CloudFormation took it".into(),
        EventKind::Settled(s) => format!(
            "settled: {:?}{}{}",
            s.outcome,
            s.status
                .as_ref()
                .map(|s| format!(", {s}"))
                .unwrap_or_default(),
            s.cause
                .as_deref()
                .map(|c| format!(": {}", clean(c)))
                .unwrap_or_default()
        ),
        EventKind::CancelAsked { reason } => format!("to be cancelled, by {by}: {}", clean(reason)),
        EventKind::Cancelled { refused } => answered("stop the update", refused.as_deref()),
        EventKind::RemedyAsked { remedy, reason } => {
            format!(
                "{} asked for by {by}: {}",
                remedy_words(remedy),
                clean(reason)
            )
        }
        EventKind::Remedied { refused } => answered("move the stack on", refused.as_deref()),
        EventKind::RollbackAsked { to, reason } => format!(
            "held at deployment {} of {} by {by}: {}",
            to.deployment,
            to.revision.short(),
            clean(reason)
        ),
        EventKind::FailureForgotten => {
            "Git asks for what is applied: what failed since is forgotten".into()
        }
        EventKind::Following => "follows Git again: it asks for the same".into(),
        EventKind::Retried => format!("tried again by {by}"),
        EventKind::Suspended { reason, .. } => format!("suspended by {by}: {}", clean(reason)),
        EventKind::Resumed => format!("resumed by {by}"),
        EventKind::Previewing { change_set, .. } => {
            format!("making the change set {change_set} for a preview")
        }
        EventKind::Uses { targets } => format!("uses {}", counted(targets.len(), "target")),
        EventKind::Previewed { change_set } => {
            format!("the change set {change_set} of a preview is gone")
        }
        EventKind::Tidying { change_sets } => format!(
            "discarding {} that nothing needs any more: {}",
            counted(change_sets.len(), "change set"),
            clean(&change_sets.join(", "))
        ),
        EventKind::DriftResolved {
            overwrite, reason, ..
        } => format!(
            "drift {} by {by}: {}",
            if *overwrite {
                "is to be overwritten"
            } else {
                "accepted"
            },
            clean(reason)
        ),
    }
}

fn answered(what: &str, refused: Option<&str>) -> String {
    match refused {
        None => format!("CloudFormation was told to {what}"),
        Some(text) => format!("CloudFormation would not {what}: {}", clean(text)),
    }
}

fn remedy_words(remedy: &Remedy) -> String {
    let (what, but, names) = match remedy {
        Remedy::Continue { skip } => ("going on with the rollback", "without", skip),
        Remedy::Rollback => return "rolling the stack back".into(),
        Remedy::Delete { retain } => ("deleting the stack", "and keeping", retain),
    };
    if names.is_empty() {
        what.into()
    } else {
        format!("{what} {but} {}", clean(&names.join(", ")))
    }
}

/// `isoform history`
pub(crate) async fn history(global: &Global, target: &str, number: usize) -> anyhow::Result<u8> {
    let evidence: Evidence = Client::connect(global)?
        .get("evidence", &[("q", target)])
        .await?;
    if evidence.entries.is_empty() {
        return Err(usage(format!("nothing is known of `{}`", clean(target))));
    }
    let skip = evidence.entries.len().saturating_sub(number);
    if global.output == Output::Json {
        show::json(&json!({ "entries": evidence.entries[skip..] }))?;
        return Ok(DONE);
    }
    for entry in &evidence.entries[skip..] {
        anstream::println!(
            "{:>6}  {}  {}",
            entry.seq,
            show::time(entry.at),
            line(entry)
        );
    }
    Ok(DONE)
}

async fn show_evidence(global: &Global, what: &str) -> anyhow::Result<u8> {
    let evidence: Evidence = Client::connect(global)?
        .get("evidence", &[("q", what)])
        .await?;
    if global.output == Output::Json {
        show::json(&evidence)?;
        return Ok(DONE);
    }
    if evidence.entries.is_empty() {
        return Err(usage(format!(
            "the log knows nothing of `{}`: write a commit, a deployment, an address or a stack name",
            clean(what)
        )));
    }
    for entry in evidence
        .entries
        .iter()
        .filter(|e| !matches!(e.body, Body::Target(_)))
    {
        anstream::println!("{}  {}", show::time(entry.at), line(entry));
    }
    for page in deployments(&evidence) {
        page_of(&evidence, &page);
    }
    let (first, last) = (
        evidence.entries.first().map_or(0, |e| e.seq),
        evidence.entries.last().map_or(0, |e| e.seq),
    );
    let signed = evidence.signed.map_or_else(
        || "no checkpoint yet".to_owned(),
        |(seq, at)| format!("checkpoint at entry {seq}, signed {}", show::time(at)),
    );
    anstream::println!(
        "\nentries {first}–{last} of the log · {signed} · `isoform audit verify` walks the chain"
    );
    Ok(DONE)
}

/// Groups the entries of targets by deployment.
fn deployments(evidence: &Evidence) -> Vec<Vec<Entry>> {
    let mut groups: Vec<Vec<Entry>> = Vec::new();
    for entry in &evidence.entries {
        let Body::Target(kind) = &entry.body else {
            continue;
        };
        if matches!(kind, EventKind::Begun(_)) {
            groups.push(vec![entry.clone()]);
        } else if let Some(group) = groups
            .iter_mut()
            .rev()
            .find(|g| g[0].stream == entry.stream)
        {
            group.push(entry.clone());
        }
    }
    groups
}

fn page_of(evidence: &Evidence, entries: &[Entry]) {
    let Some(Body::Target(EventKind::Begun(pinned))) = entries.first().map(|e| &e.body) else {
        return;
    };
    let address = match &entries[0].stream {
        Stream::Target(uid) => evidence
            .addresses
            .get(uid.as_str())
            .map(ToString::to_string)
            .unwrap_or_default(),
        _ => String::new(),
    };
    let outcome = entries.iter().rev().find_map(|e| match &e.body {
        Body::Target(EventKind::Settled(s)) => Some(format!("{:?}", s.outcome)),
        _ => None,
    });
    let outcome = outcome.unwrap_or_else(|| "in motion".into());
    anstream::println!(
        "\n{BOLD}{} {}{RESET}  {address}  generation {}  {outcome}",
        if pinned.removal {
            "removal"
        } else {
            "deployment"
        },
        pinned.deployment,
        pinned.generation.0
    );
    let row = |name: &str, text: String| anstream::println!("  {DIM}{name:<10}{RESET}{text}");
    let commit = evidence.commits.get(pinned.revision.as_str());
    let actor = &entries[0].actor;
    let message = commit
        .map(|c| format!(" \"{}\" by {}", clean(&c.summary), clean(&c.author)))
        .unwrap_or_default();
    row(
        "asked",
        format!(
            "{}{message} ({}, {}; signature: not checked)   {}",
            pinned.revision.short(),
            clean(&actor.via),
            clean(&actor.display),
            show::time(entries[0].at)
        ),
    );
    let bundle = pinned
        .bundle
        .as_ref()
        .map(|b| format!(" (bundle {})", b.short(12)))
        .unwrap_or_default();
    // A removal renders nothing: what goes is what was deployed.
    let rendered = |text: String| {
        if pinned.removal {
            row("removes", pinned.stack_name.to_string());
        } else {
            row("rendered", text);
        }
    };
    rendered(format!(
        "{}{bundle}  {}:{}",
        pinned
            .template
            .clone()
            .unwrap_or_else(|| "plain template".into()),
        pinned.digest.prefix(),
        pinned.digest.short(12)
    ));
    for entry in entries {
        let Body::Target(kind) = &entry.body else {
            continue;
        };
        match kind {
            EventKind::Reviewed { .. } => row("reviewed", bare(kind, "reviewed ")),
            EventKind::Held { .. } => row("held", bare(kind, "held: ")),
            EventKind::Approved { .. } | EventKind::Endorsed(_) | EventKind::Rejected { .. } => {
                row(
                    "allowed",
                    format!(
                        "{}   {}",
                        event(kind, &clean(&entry.actor.display)),
                        show::time(entry.at)
                    ),
                );
            }
            EventKind::Announced(Step::Propose { name }) => {
                row("proposed", format!("change set {name}"));
            }
            EventKind::Announced(Step::Execute { token } | Step::Delete { token, .. }) => row(
                "executed",
                format!("token {token}   {}", show::time(entry.at)),
            ),
            EventKind::Settled(_) => row(
                "outcome",
                format!("{}   {}", bare(kind, "settled: "), show::time(entry.at)),
            ),
            _ => {}
        }
    }
}

/// Says an event without the word that stands beside it.
fn bare(kind: &EventKind, word: &str) -> String {
    let text = event(kind, "");
    text.strip_prefix(word)
        .map_or_else(|| text.clone(), str::to_owned)
}

async fn prove(global: &Global, what: &str) -> anyhow::Result<u8> {
    let proof: Proof = Client::connect(global)?
        .get("prove", &[("q", what)])
        .await?;
    if global.output == Output::Json {
        show::json(&proof)?;
    } else {
        anstream::println!(
            "{BOLD}deployment {}{RESET}  {}",
            proof.deployment,
            proof
                .address
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default()
        );
        for (text, held) in &proof.steps {
            anstream::println!(
                "  {} {}",
                if *held {
                    format!("{GREEN}✓{RESET}")
                } else {
                    format!("{RED}✗{RESET}")
                },
                clean(text)
            );
        }
    }
    Ok(if proof.steps.iter().all(|(_, held)| *held) {
        DONE
    } else {
        FAILED
    })
}

async fn export(global: &Global) -> anyhow::Result<u8> {
    let (entries, checkpoints) = all(&Client::connect(global)?, 1).await?;
    for entry in &entries {
        anstream::println!("{}", serde_json::to_string(&json!({ "entry": entry }))?);
    }
    for checkpoint in &checkpoints {
        anstream::println!(
            "{}",
            serde_json::to_string(&json!({ "checkpoint": checkpoint }))?
        );
    }
    Ok(DONE)
}

/// More entries than this without a checkpoint are no tail that a crash leaves.
const UNSIGNED: u64 = 120;

/// What is verified: entries and checkpoints, from wherever they come.
struct Evident {
    entries: Vec<Entry>,
    checkpoints: Vec<Checkpoint>,
    notes: Vec<String>,
    payloads: std::collections::BTreeMap<crate::domain::model::Digest, Vec<u8>>,
    /// How many entries the state says were shipped.
    shipped: u64,
}

async fn verify_log(global: &Global, args: VerifyArgs) -> anyhow::Result<u8> {
    is_meant(&args)?;
    let signing = signing_keys(&args.signing_key)?;
    let result = match (&args.shipped, &args.file) {
        (Some(url), _) => from_store(global, &args, url).await.map(|e| (e, None)),
        (None, Some(path)) => from_file(path).map(|e| (e, None)),
        (None, None) => {
            let (state, cloud) = (args.state.clone(), args.cloud.clone());
            from_state(global, state, cloud, args.root_key.clone()).await
        }
    };
    let key = args.key;
    let (mut evident, copy) = match result {
        Ok(found) => found,
        // A file that is not there is no log that was tampered with.
        Err(error) if error.is::<Usage>() => return Err(error),
        Err(error) => return told(global, Err(format!("{error:#}")), &[], &[]),
    };
    let Some(Body::Created { public_key, .. }) = evident.entries.first().map(|e| e.body.clone())
    else {
        return told(
            global,
            Err("the log does not begin with its creation: it was cut at the beginning".into()),
            &[],
            &[],
        );
    };
    if let Some(trusted) = &key
        && *trusted != public_key
    {
        return told(
            global,
            Err(
                "the log names another public key than the one you trust: it is another log".into(),
            ),
            &[],
            &[],
        );
    }
    let trusted = key.unwrap_or(public_key);
    let check = |bytes: &[u8], signature: &str| Keyring::check(&trusted, bytes, signature);
    // First what lies here, by itself; then against the shipped copy, whose checkpoints count too.
    let mut result = verify(&evident.entries, &evident.checkpoints, &check);
    if result.is_ok()
        && let Some(home) = copy
    {
        if let Err(error) = shipped(home.as_ref(), &mut evident, &trusted).await {
            return told(global, Err(format!("{error:#}")), &evident.notes, &[]);
        }
        result = verify(&evident.entries, &evident.checkpoints, &check);
    }
    let result = result.and_then(|verified| {
        let vouched = verify_countersigned(&evident.checkpoints, &signing)?;
        Ok((verified, vouched))
    });
    match result {
        Ok((verified, _)) if verified.unsigned > UNSIGNED => {
            let said = format!(
                "the last {} entries are not signed; a running daemon signs at least every 100: checkpoints were removed",
                verified.unsigned
            );
            told(global, Err(said), &evident.notes, &[])
        }
        Ok((verified, vouched)) => {
            if signing.is_empty() {
                evident.notes.extend(vouched.iter().map(by_itself));
            }
            let said = held(&verified, &vouched);
            told(global, Ok(said), &evident.notes, &vouched)
        }
        Err(fault) => told(global, Err(fault.to_string()), &evident.notes, &[]),
    }
}

/// Refuses what would be passed over: a path that leads nowhere, and options that say nothing beside others.
fn is_meant(args: &VerifyArgs) -> anyhow::Result<()> {
    for (option, path) in [
        ("--file", &args.file),
        ("--state", &args.state),
        ("--cloud", &args.cloud),
        ("--root-key", &args.root_key),
    ] {
        if let Some(path) = path
            && let Err(error) = std::fs::metadata(path)
        {
            return Err(usage(format!("{option}: {}: {error}", path.display())));
        }
    }
    let url = args.shipped.as_deref().unwrap_or_default();
    if !url.is_empty() && args.cloud.is_some() {
        return Err(usage(
            "--cloud: it is the store of a local world, and --shipped names another one; give one of them",
        ));
    }
    for (option, given) in [
        ("--owner", &args.owner),
        ("--region", &args.region),
        ("--sse-key", &args.sse_key),
        ("--role", &args.role),
    ] {
        if url.is_empty() && given.is_some() {
            return Err(usage(format!(
                "{option}: it is about the bucket of --shipped s3://<bucket>/<prefix>; of the store of the configuration that says it"
            )));
        }
    }
    Ok(())
}

/// Reads the public keys that somebody trusts.
fn signing_keys(given: &[String]) -> anyhow::Result<Vec<String>> {
    let read = |given: &String| {
        if let Some(key) = read_public_key(given.as_bytes()) {
            return Ok(key);
        }
        let bytes = std::fs::read(given).map_err(|e| {
            usage(format!(
                "--signing-key: `{}` is neither a key in hexadecimal nor a file that can be read: {e}",
                clean(given)
            ))
        })?;
        read_public_key(&bytes).ok_or_else(|| {
            usage(format!(
                "--signing-key: {} holds no public key on P-256, in PEM, DER or hexadecimal. aws kms get-public-key --key-id <ARN> --query PublicKey --output text | base64 -d writes one",
                clean(given)
            ))
        })
    };
    given.iter().map(read).collect()
}

/// Says of a key that nobody named what its word is worth.
fn by_itself(vouched: &Vouched) -> String {
    format!(
        "the public key of {} is {}, as the checkpoints themselves say; --signing-key says which one you trust",
        vouched.key, vouched.public_key
    )
}

/// Says how far a chain that holds is vouched for, and by which keys.
fn held(verified: &Verified, vouched: &[Vouched]) -> String {
    let signed = verified
        .signed_at
        .map(|at| format!(", signed {}", show::time(at)))
        .unwrap_or_default();
    let tail = if verified.unsigned > 0 {
        format!(
            "; the last {} {} not signed yet",
            verified.unsigned,
            if verified.unsigned == 1 { "is" } else { "are" }
        )
    } else {
        String::new()
    };
    let too = vouched.iter().map(|v| {
        let (key, at) = (clean(&v.key), show::time(v.at));
        format!("; countersigned to {} by {key}, {at}", v.to)
    });
    format!(
        "{}, chain verified to checkpoint {}{signed}{tail}{}",
        counted(verified.entries as usize, "entry"),
        verified.signed_to,
        too.collect::<String>()
    )
}

fn told(
    global: &Global,
    result: Result<String, String>,
    notes: &[String],
    vouched: &[Vouched],
) -> anyhow::Result<u8> {
    let code = if result.is_ok() { DONE } else { FAILED };
    if global.output == Output::Json {
        show::json(
            &json!({ "v": 1, "holds": result.is_ok(), "said": result.as_ref().unwrap_or_else(|e| e), "notes": notes, "countersigned": vouched }),
        )?;
        return Ok(code);
    }
    for note in notes {
        anstream::println!("  {}", clean(note));
    }
    match result {
        Ok(text) => anstream::println!("{GREEN}✓{RESET} {text}"),
        Err(text) => anstream::println!("{RED}✗ {}{RESET}", clean(&text)),
    }
    Ok(code)
}

fn from_file(path: &std::path::Path) -> anyhow::Result<Evident> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| usage(format!("reading {}: {e}", path.display())))?;
    let mut evident = Evident {
        entries: Vec::new(),
        checkpoints: Vec::new(),
        notes: Vec::new(),
        payloads: Default::default(),
        shipped: 0,
    };
    for (number, line) in text.lines().enumerate() {
        let value: serde_json::Value = serde_json::from_str(line)
            .with_context(|| format!("line {} is not JSON", number + 1))?;
        if let Some(entry) = value.get("entry") {
            evident.entries.push(
                serde_json::from_value(entry.clone())
                    .with_context(|| format!("line {} is no entry", number + 1))?,
            );
        } else if let Some(checkpoint) = value.get("checkpoint") {
            evident.checkpoints.push(
                serde_json::from_value(checkpoint.clone())
                    .with_context(|| format!("line {} is no checkpoint", number + 1))?,
            );
        }
    }
    Ok(evident)
}

/// Reads a state folder without a daemon; opens the shipped copy too.
async fn from_state(
    global: &Global,
    state: Option<PathBuf>,
    cloud: Option<PathBuf>,
    root_key: Option<PathBuf>,
) -> anyhow::Result<(Evident, Option<Arc<dyn ObjectStore>>)> {
    let given = root_key.map(|p| RootKey::read(&p)).transpose()?;
    let mut notes = Vec::new();
    let (state, copy, root) = match state {
        Some(state) => (state, copy_in(cloud).await?, given),
        None => {
            let found = nearby(global)?;
            let ports = match &found.aws {
                Some(_) => Some(crate::daemon::open(&found, &Clock::system()).await?),
                None => None,
            };
            // A key that nobody named is read where that can be: the chain is verified without it.
            let read = match (&given, &found.root, &ports) {
                (None, Root::File(path), _) => Some(RootKey::read(path).map_err(Into::into)),
                (None, Root::Kms(_), Some(ports)) => {
                    let now = Clock::system().now();
                    Some(crate::daemon::root_key(&found, ports.as_ref(), now).await)
                }
                _ => None,
            };
            let root = match read {
                Some(Ok(root)) => Some(root),
                Some(Err(error)) => {
                    let error: anyhow::Error = error;
                    notes.push(format!(
                        "payloads are not checked: the root key cannot be read: {error:#}"
                    ));
                    None
                }
                None => given,
            };
            let copy = match (cloud, &ports) {
                (None, Some(ports)) => Some(ports.home()),
                (cloud, _) => copy_in(cloud.or(Some(found.cloud.clone()))).await?,
            };
            (found.state.clone(), copy, root)
        }
    };
    let (entries, checkpoints, payloads, shipped) = crate::store::read_log(&state)
        .await
        .with_context(|| format!("reading the log in {}", state.display()))?;
    let mut evident = Evident {
        entries,
        checkpoints,
        notes,
        payloads,
        shipped,
    };
    if let Some(root) = root {
        let keyring = crate::store::read_keyring(&state, &root).await?;
        for digest in evident.entries.iter().flat_map(Entry::payloads) {
            match evident.payloads.get(&digest) {
                Some(sealed) => keyring
                    .check_payload(&digest, sealed)
                    .with_context(|| format!("the payload {digest} was changed"))?,
                None => bail!("the payload {digest} is missing"),
            }
        }
        evident.notes.push(format!(
            "{} payloads open and have their digests",
            evident.payloads.len()
        ));
    }
    Ok((evident, copy))
}

/// Reads what was shipped and nothing else: a bundle store and a public key are enough to verify a log.
async fn from_store(global: &Global, args: &VerifyArgs, url: &str) -> anyhow::Result<Evident> {
    let home = if !url.is_empty() {
        bucket(args, url).await?
    } else if let Some(copy) = copy_in(args.cloud.clone()).await? {
        copy
    } else {
        let found = nearby(global)?;
        match (&found.aws, copy_in(Some(found.cloud.clone())).await?) {
            (Some(_), _) => crate::daemon::open(&found, &Clock::system()).await?.home(),
            (None, Some(copy)) => copy,
            (None, None) => {
                return Err(usage(format!(
                    "{} is not there: nothing was shipped to it",
                    found.cloud.display()
                )));
            }
        }
    };
    let log = match &args.log {
        Some(log) => log.clone(),
        None => {
            let mut logs = Shipped::logs(home.as_ref()).await?;
            match (logs.pop_first(), logs.len()) {
                (Some(only), 0) => only,
                (None, _) => bail!("no log was shipped to this bundle store"),
                (Some(first), _) => {
                    let others: Vec<String> = logs.into_iter().collect();
                    return Err(usage(format!(
                        "several logs were shipped there; name one with --log: {first}, {}",
                        others.join(", ")
                    )));
                }
            }
        }
    };
    let there = Shipped::read(home.as_ref(), &log)
        .await
        .context("the shipped log")?;
    let mut notes = vec![format!(
        "{} and {} of the log {log}, from the bundle store alone",
        counted(there.entries.len(), "entry"),
        counted(there.checkpoints.len(), "checkpoint")
    )];
    if let Some(Body::Created {
        public_key,
        log: named,
        ..
    }) = there.entries.first().map(|e| &e.body)
    {
        if *named != log {
            bail!("what lies under {log} is the log {named}");
        }
        match &args.key {
            // It is said below.
            Some(key) if key != public_key => {}
            Some(key) => there.signed(&log, key)?,
            None => {
                there.signed(&log, public_key)?;
                notes.push(format!(
                    "its public key is {public_key}, as the log itself says: whoever wrote it may have chosen that; --key <hex> says which one you trust"
                ));
            }
        }
    }
    Ok(Evident {
        shipped: there.entries.len() as u64,
        entries: there.entries,
        checkpoints: there.checkpoints,
        notes,
        payloads: Default::default(),
    })
}

/// Opens a bucket that no configuration names.
async fn bucket(args: &VerifyArgs, url: &str) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let said = crate::config::raw::BundleStore {
        url: url.to_owned(),
        encryption: match args.sse_key {
            Some(_) => Encryption::SseKms,
            None => Encryption::SseS3,
        },
        owner: args.owner.clone(),
        region: args.region.clone(),
        key: args.sse_key.clone(),
        former_keys: Vec::new(),
        role: args.role.clone(),
        external_id: None,
        object_lock: None,
    };
    let store = crate::config::bucket(&said).map_err(|faults| usage(faults.join("\n")))?;
    Ok(crate::daemon::open_bucket(&store).await)
}

/// The shipped copy in a local world, if there is one.
async fn copy_in(cloud: Option<PathBuf>) -> anyhow::Result<Option<Arc<dyn ObjectStore>>> {
    let Some(cloud) = cloud.filter(|c| c.exists()) else {
        return Ok(None);
    };
    let world = crate::local::World::open(&cloud, Clock::system(), 1.0).await?;
    let home = crate::local::LocalObjects::new(world, "bundles");
    Ok(Some(Arc::new(home)))
}

fn nearby(global: &Global) -> anyhow::Result<Config> {
    let path = config_path(global);
    if global.config.is_some() || path.exists() {
        return Ok(Config::load(&path)?);
    }
    let socket = super::client::socket_path(global)?;
    let config = socket
        .parent()
        .and_then(|s| s.parent())
        .map(|f| f.join("config.yaml"))
        .filter(|p| p.exists());
    Ok(Config::load(&config.context(
        "no configuration is near; name --state, or --config",
    )?)?)
}

/// Adds the shipped copy: its segments must be the same log, and its checkpoints count too.
async fn shipped(home: &dyn ObjectStore, evident: &mut Evident, key: &str) -> anyhow::Result<()> {
    let Some(Body::Created { log, .. }) = evident.entries.first().map(|e| e.body.clone()) else {
        return Ok(());
    };
    let there = Shipped::read(home, &log).await.context("the shipped log")?;
    // Whoever may write to the bundle store can add what was never in this log.
    there.signed(&log, key)?;
    let segments = &there.entries;
    for entry in segments {
        match evident.entries.get(entry.seq as usize - 1) {
            Some(here) if here.hash == entry.hash => {}
            Some(_) => bail!(
                "entry {} differs from the shipped copy: one of the two was rewritten from there on",
                entry.seq
            ),
            None => bail!(
                "the log was cut: it ends at entry {}, and entry {} was shipped",
                evident.entries.len(),
                entry.seq
            ),
        }
        if entry.hash != entry.computed_hash() {
            bail!(
                "entry {} of the shipped copy was changed: its hash is not that of its content",
                entry.seq
            );
        }
    }
    if (segments.len() as u64) < evident.shipped {
        bail!(
            "the shipped copy was cut: it ends at entry {}, and {} were shipped",
            segments.len(),
            evident.shipped
        );
    }
    for (digest, sealed) in &there.payloads {
        if evident
            .payloads
            .get(digest)
            .is_some_and(|here| here != sealed)
        {
            bail!(
                "the payload {digest} of the shipped copy differs from the one here: one of the two was changed"
            );
        }
    }
    evident.notes.push(format!(
        "{} the same in the bundle store",
        match segments.len() {
            1 => "1 entry is".to_owned(),
            n => format!("{n} entries are"),
        }
    ));
    evident.checkpoints.extend(there.checkpoints);
    Ok(())
}
