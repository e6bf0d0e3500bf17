//! `isoform config` and `isoform schema`: what the daemon is told, as it is understood.

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::config_path;
use super::show::{self, BOLD, DIM, GREEN, RESET, YELLOW};
use super::{DONE, Global, Output, usage};
use crate::config::{Config, Forge, Shelf, Source};
use crate::domain::estate::{May, Placement};
use crate::domain::model::{Prune, counted};
use crate::git::Auth;
use crate::store::RootKey;
use crate::telemetry::redact;

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the configuration as it is understood, defaults included.
    Show,
    /// Make a root key, in a file that only you can read.
    Key {
        /// The file; it must not exist.
        file: std::path::PathBuf,
    },
}

/// `isoform config`
pub(crate) fn config(global: &Global, command: ConfigCommand) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Show => show_config(global),
        ConfigCommand::Key { file } => make_key(global, &file),
    }
}

fn show_config(global: &Global) -> anyhow::Result<u8> {
    let path = config_path(global);
    let config = Config::load(&path)?;
    let origin = if global.config.is_some() {
        "flag or ISOFORM_CONFIG"
    } else {
        "default"
    };
    if global.output == Output::Json {
        show::json(&as_json(&config, &path, origin))?;
    } else {
        anstream::println!("{BOLD}{}{RESET} ({origin})", path.display());
        anstream::print!("{}", as_text(&config));
    }
    Ok(DONE)
}

fn make_key(global: &Global, file: &Path) -> anyhow::Result<u8> {
    if file.exists() {
        return Err(usage(format!(
            "{} exists: a root key is never overwritten",
            file.display()
        )));
    }
    RootKey::read_or_make(file)?;
    if global.output == Output::Json {
        show::json(&json!({ "made": file }))?;
    } else {
        anstream::println!(
            "{GREEN}made{RESET} {}\n{YELLOW}keep a copy where the state's backups are not{RESET}: without it nothing that isoform encrypted can be read again",
            file.display()
        );
    }
    Ok(DONE)
}

fn as_json(config: &Config, path: &Path, origin: &str) -> Value {
    json!({
        "v": 1,
        "file": path,
        "origin": origin,
        "state": config.state,
        "root_key": config.root.to_string(),
        "signing_key": config.signing.as_ref().map(ToString::to_string),
        "socket": config.socket(),
        "cloud": config.cloud,
        "pace": config.pace,
        "poll_ms": ms(config.poll),
        "sweep_ms": ms(config.sweep),
        "workers": config.workers,
        "webhooks": config.listen.map(|a| a.to_string()),
        "placements": config.placements.values().map(placement_json).collect::<Vec<_>>(),
        "sources": config.sources.values().map(source_json).chain(config.shelves.values().map(shelf_json)).collect::<Vec<_>>(),
        "bundle_stores": config
            .bundle_stores
            .iter()
            .map(|(name, s)| json!({ "name": name, "url": redact(&s.url), "encryption": s.encryption }))
            .collect::<Vec<_>>(),
    })
}

fn placement_json(p: &Placement) -> Value {
    json!({
        "name": p.name,
        "account": p.account,
        "regions": p.regions,
        "mode": p.mode,
        "blast_radius": p.blast_radius,
        "critical": p.critical,
        "pin_references": p.pin_references,
        "gates": { "approve": {
            "count": p.rule.count,
            "from": p.rule.from,
            "not_author": p.rule.not_author,
            "expires_ms": p.rule.expires.map(ms),
        } },
        "prune": { "policy": p.prune.policy, "targets": p.prune.targets, "percent": p.prune.percent },
    })
}

fn source_json(s: &Source) -> Value {
    let may: serde_json::Map<String, Value> = granted(&s.grant.may)
        .into_iter()
        .map(|(kind, globs)| (kind.to_owned(), json!(globs)))
        .collect();
    json!({
        "name": s.grant.source,
        "url": redact(&s.remote.url),
        "branch": s.remote.branch,
        "mode": s.grant.mode,
        "force_push": s.force_push,
        "deadline_ms": ms(s.remote.patience.total),
        "auth": {
            "ssh_key": s.remote.auth.ssh_key,
            "known_hosts": s.remote.auth.known_hosts,
            "token": s.remote.auth.token,
            "user": s.remote.auth.user,
        },
        "may": may,
        "forge": s.forge.as_ref().map(forge_json),
    })
}

fn forge_json(f: &Forge) -> Value {
    json!({
        "kind": f.kind,
        "name": f.name,
        "api": f.api,
        "repository": f.repository,
        "secrets": f.secrets,
        "may": f.may,
        "comments": f.comments,
        "checks": f.checks,
        "poll_ms": ms(f.poll),
    })
}

/// Says who may ask for what in comments, and how news come.
fn forge_text(f: &Forge) -> String {
    let may: Vec<String> = [
        ("preview", f.may.preview),
        ("why", f.may.why),
        ("approve", f.may.approve),
        ("hold", f.may.hold),
        ("rollback", f.may.rollback),
    ]
    .into_iter()
    .filter_map(|(verb, least)| Some(format!("{verb} {}", least?)))
    .collect();
    let may = match may.is_empty() {
        true => "nobody may ask for anything in comments".to_owned(),
        false => format!("comments: {}", may.join(", ")),
    };
    let news = match f.secrets.is_empty() {
        true => "no webhook",
        false => "webhook",
    };
    format!(
        "{} {} at {}, {may}, {news}, poll {}",
        f.kind,
        f.repository,
        f.api,
        written(f.poll)
    )
}

fn shelf_json(s: &Shelf) -> Value {
    json!({
        "name": s.grant.source,
        "url": redact(&s.url),
        "may": { "templates": s.grant.may.templates },
    })
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn granted(may: &May) -> [(&'static str, &Vec<String>); 7] {
    [
        ("templates", &may.templates),
        ("environments", &may.environments),
        ("services", &may.services),
        ("components", &may.components),
        ("stacks", &may.stacks),
        ("placements", &may.placements),
        ("stack_names", &may.stack_names),
    ]
}

/// Writes a duration as the file does.
fn written(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, name) in [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ] {
        if ms >= unit && ms.is_multiple_of(unit) {
            return format!("{}{name}", ms / unit);
        }
    }
    format!("{ms}ms")
}

/// Writes a value of the file as the file does.
fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn as_text(config: &Config) -> String {
    let mut out = String::new();
    let mut row = |name: &str, text: String| {
        out.push_str(&format!("  {DIM}{name:<13}{RESET}{text}\n"));
    };
    row("state", config.state.display().to_string());
    row("root key", config.root.to_string());
    if let Some(signing) = &config.signing {
        row("signing", signing.to_string());
    }
    row("socket", config.socket().display().to_string());
    row(
        "cloud",
        match &config.aws {
            None => format!(
                "{} (embedded engine, pace {})",
                config.cloud.display(),
                config.pace
            ),
            Some(aws) => format!(
                "AWS at {}, session {}, home store {}",
                aws.endpoint.as_deref().unwrap_or("its own endpoints"),
                aws.session,
                aws.home
            ),
        },
    );
    row(
        "looks",
        format!(
            "poll {}, sweep {}, {}",
            written(config.poll),
            written(config.sweep),
            counted(config.workers, "worker")
        ),
    );
    if let Some(address) = config.listen {
        row("webhooks", format!("heard on {address}"));
    }
    for p in config.placements.values() {
        out.push_str(&placement_text(p));
    }
    for s in config.sources.values() {
        out.push_str(&source_text(s));
    }
    for s in config.shelves.values() {
        let may = format!("templates {}", s.grant.may.templates.join(" "));
        let title = format!("source {}", s.grant.source);
        out.push_str(&section(&title, &redact(&s.url), &[("may define", may)]));
    }
    for (name, store) in &config.bundle_stores {
        out.push_str(&format!(
            "{BOLD}bundle store {name}{RESET}  {}\n  {DIM}{:<13}{RESET}{}\n",
            redact(&store.url),
            "encryption",
            word(store.encryption)
        ));
    }
    out
}

fn placement_text(p: &Placement) -> String {
    let regions: Vec<String> = p.regions.iter().map(ToString::to_string).collect();
    let critical = if p.critical {
        " (critical: any change waits for an approval of its list)"
    } else {
        ""
    };
    let from = if p.rule.from.is_empty() {
        "anybody at the socket".to_owned()
    } else {
        p.rule.from.join(", ")
    };
    let author = if p.rule.not_author {
        ", not from the author"
    } else {
        ""
    };
    let expires = p
        .rule
        .expires
        .map_or_else(String::new, |d| format!(", for {}", written(d)));
    let prune = match p.prune.policy {
        Prune::Never => "never".to_owned(),
        policy => format!(
            "{} (at most {} or {} % in a day without an approval)",
            word(policy),
            counted(p.prune.targets, "stack"),
            p.prune.percent
        ),
    };
    let rows = [
        ("mode", word(p.mode)),
        ("blast radius", format!("{}{critical}", p.blast_radius)),
        (
            "approval",
            format!("{} from {from}{author}{expires}", p.rule.count),
        ),
        ("prune", prune),
        (
            "references",
            match p.pin_references {
                true => "pinned to the version that there is, and followed".into(),
                false => "as they are written".into(),
            },
        ),
    ];
    section(
        &format!("placement {}", p.name),
        &format!("{} {}", p.account, regions.join(", ")),
        &rows,
    )
}

fn source_text(s: &Source) -> String {
    let may: Vec<String> = granted(&s.grant.may)
        .into_iter()
        .filter(|(_, globs)| !globs.is_empty())
        .map(|(kind, globs)| format!("{kind} {}", globs.join(" ")))
        .collect();
    let mut rows = vec![
        ("mode", word(s.grant.mode)),
        ("force push", word(s.force_push)),
        ("deadline", written(s.remote.patience.total)),
        ("auth", auth_text(&s.remote.auth)),
        (
            "may define",
            if may.is_empty() {
                "nothing".to_owned()
            } else {
                may.join(" · ")
            },
        ),
    ];
    rows.extend(s.forge.as_ref().map(|f| ("forge", forge_text(f))));
    section(
        &format!("source {}", s.grant.source),
        &format!("{} {}", redact(&s.remote.url), s.remote.branch),
        &rows,
    )
}

/// Names the files with secrets, never what is in them.
fn auth_text(auth: &Auth) -> String {
    let file = |name: &str, path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|p| format!("{name} in {}", p.display()))
    };
    let parts: Vec<String> = [
        file("ssh key", &auth.ssh_key),
        file("known hosts", &auth.known_hosts),
        file("token", &auth.token),
        auth.user.as_ref().map(|u| format!("user {u}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

fn section(title: &str, about: &str, rows: &[(&str, String)]) -> String {
    let mut out = format!("{BOLD}{title}{RESET}  {about}\n");
    for (name, text) in rows {
        out.push_str(&format!("  {DIM}{name:<13}{RESET}{}\n", show::clean(text)));
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "
isoform: 1
accounts: { a: { id: '000000000001' } }
placements:
  prod:
    account: a
    regions: [us-east-1, eu-west-1]
    mode: approve
    critical: true
    gates: { approve: { count: 2, from: [ana, bo], not_author: true, expires: 24h } }
    prune: { policy: ask, targets: 1 }
    pin_references: true
  beta: { account: a, regions: [us-east-1], mode: auto }
sources:
  orders:
    url: https://host/orders
    force_push: approve
    deadline: 90s
    auth: { token: 'file:token', user: bot }
    may: { services: [orders], placements: [beta, prod] }
bundle_stores: { main: { url: 'local://bundles', encryption: sse-s3 } }
state: { path: state, key: 'file:root.key' }
local: { path: cloud }
";

    fn full() -> Config {
        let file: crate::config::raw::File = serde_yaml::from_str(FULL).unwrap();
        Config::resolve(&file, Path::new("/x")).unwrap()
    }

    #[test]
    fn every_key_of_the_file_is_shown() {
        let text = anstream::adapter::strip_str(&as_text(&full())).to_string();
        assert_eq!(
            text,
            "  state        /x/state
  root key     /x/root.key
  socket       /x/state/isoform.sock
  cloud        /x/cloud (embedded engine, pace 1)
  looks        poll 30s, sweep 5m, 8 workers
placement beta  000000000001 us-east-1
  mode         auto
  blast radius 10
  approval     1 from anybody at the socket
  prune        never
  references   as they are written
placement prod  000000000001 us-east-1, eu-west-1
  mode         approve
  blast radius 10 (critical: any change waits for an approval of its list)
  approval     2 from ana, bo, not from the author, for 1d
  prune        ask (at most 1 stack or 20 % in a day without an approval)
  references   pinned to the version that there is, and followed
source orders  https://host/orders main
  mode         auto
  force push   approve
  deadline     90s
  auth         token in /x/token, user bot
  may define   services orders · placements beta prod
bundle store main  local://bundles
  encryption   sse-s3
"
        );
    }

    #[test]
    fn the_shape_for_programs_holds_the_same() {
        let value = as_json(&full(), Path::new("/x/config.yaml"), "default");

        let prod = &value["placements"][1];
        assert_eq!(prod["gates"]["approve"]["expires_ms"], 86_400_000);
        assert_eq!(
            prod["prune"],
            json!({ "policy": "ask", "targets": 1, "percent": 20 })
        );
        let source = &value["sources"][0];
        assert_eq!(
            (&source["force_push"], &source["deadline_ms"]),
            (&json!("approve"), &json!(90_000))
        );
        assert_eq!(source["auth"]["token"], "/x/token");
        assert_eq!(source["may"]["services"], json!(["orders"]));
        assert_eq!(value["bundle_stores"][0]["encryption"], "sse-s3");
    }
}
