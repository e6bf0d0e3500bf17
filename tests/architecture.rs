//! The arrows between modules, and the rules that the compiler does not hold.
//!
//! A new arrow is a visible change of the table below: `docs/architecture.md` says why each is there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Module → what it may use inside the crate.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain::model", &[]),
    ("domain::yaml", &["domain::model"]),
    ("domain::cfn", &["domain::model", "domain::yaml"]),
    (
        "domain::spec",
        &["domain::model", "domain::yaml", "domain::policy"],
    ),
    (
        "domain::schema",
        &["domain::model", "domain::yaml", "domain::spec"],
    ),
    (
        "domain::template",
        &[
            "domain::model",
            "domain::yaml",
            "domain::spec",
            "domain::schema",
        ],
    ),
    (
        "domain::catalogue",
        &["domain::model", "domain::spec", "domain::template"],
    ),
    ("domain::forge", &["domain::model"]),
    ("domain::graph", &["domain::model"]),
    ("domain::pace", &["domain::model"]),
    ("domain::iam", &["domain::model"]),
    ("domain::render", &["domain::model", "domain::yaml"]),
    ("domain::plan", &["domain::model", "domain::cfn"]),
    // A policy looks at reviews and at the gate that a sync file adds; the sync file names windows. One circle, of two files.
    (
        "domain::policy",
        &["domain::model", "domain::plan", "domain::spec"],
    ),
    ("domain::bundle", &["domain::model", "domain::template"]),
    ("domain::seal", &[]),
    (
        "domain::deployment",
        &["domain::model", "domain::plan", "domain::policy"],
    ),
    (
        "domain::audit",
        &[
            "domain::model",
            "domain::catalogue",
            "domain::deployment",
            "domain::policy",
        ],
    ),
    (
        "domain::estate",
        &[
            "domain::model",
            "domain::yaml",
            "domain::cfn",
            "domain::spec",
            "domain::schema",
            "domain::template",
            "domain::render",
            "domain::plan",
            "domain::policy",
            "domain::graph",
            "domain::bundle",
        ],
    ),
    ("port", &["domain"]),
    ("clock", &["domain"]),
    ("secret_file", &[]),
    ("telemetry", &[]),
    // Fault wrappers stand before the ports, and the store asks them at its boundary.
    ("testing", &["config", "clock", "domain", "port"]),
    ("workqueue", &["domain", "clock"]),
    ("config", &["domain", "git"]),
    ("git", &["domain", "secret_file"]),
    ("store", &["domain", "secret_file", "testing"]),
    ("local", &["domain", "port", "clock", "secret_file"]),
    ("aws", &["domain", "port", "clock"]),
    ("forge", &["domain", "port", "clock", "secret_file"]),
    (
        "reconcile",
        &[
            "domain",
            "port",
            "git",
            "store",
            "clock",
            "workqueue",
            "config",
            "testing",
            "secret_file",
            // What is written to a forge passes the same redaction as what is written to the log.
            "telemetry",
        ],
    ),
    (
        "http",
        &[
            "domain",
            "reconcile",
            "store",
            "clock",
            "secret_file",
            "telemetry",
        ],
    ),
    (
        "daemon",
        &[
            "domain",
            "port",
            "aws",
            "forge",
            "local",
            "store",
            "clock",
            "workqueue",
            "config",
            "reconcile",
            "http",
            "secret_file",
        ],
    ),
    (
        "cli",
        &[
            "domain",
            "port",
            "local",
            "git",
            "store",
            "clock",
            "config",
            "reconcile",
            "daemon",
            "telemetry",
            "secret_file",
        ],
    ),
];

struct Seen {
    uses: BTreeSet<(usize, Vec<String>)>,
    asynchronous: Vec<usize>,
    words: Vec<(usize, String)>,
}

impl<'a> Visit<'a> for Seen {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_use_tree(&mut self, tree: &'a syn::UseTree) {
        walk(tree, &mut Vec::new(), &mut self.uses);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let line = path.segments[0].ident.span().start().line;
        self.words.push((line, parts.join("::")));
        if parts.len() > 1 {
            self.uses.insert((line, parts));
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_signature(&mut self, signature: &'a syn::Signature) {
        if let Some(token) = signature.asyncness {
            self.asynchronous.push(token.span.start().line);
        }
        syn::visit::visit_signature(self, signature);
    }

    fn visit_macro(&mut self, mac: &'a syn::Macro) {
        self.visit_path(&mac.path);
    }
}

fn tests(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .any(|a| a.path().is_ident("cfg") && quote(a).contains("test"))
}

fn quote(attribute: &syn::Attribute) -> String {
    match &attribute.meta {
        syn::Meta::List(list) => list.tokens.to_string(),
        _ => String::new(),
    }
}

fn walk(tree: &syn::UseTree, prefix: &mut Vec<String>, out: &mut BTreeSet<(usize, Vec<String>)>) {
    match tree {
        syn::UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            walk(&path.tree, prefix, out);
            prefix.pop();
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|t| walk(t, prefix, out)),
        syn::UseTree::Name(name) => add(prefix, &name.ident, out),
        syn::UseTree::Rename(name) => add(prefix, &name.ident, out),
        syn::UseTree::Glob(glob) => {
            out.insert((glob.star_token.spans[0].start().line, prefix.clone()));
        }
    }
}

fn add(prefix: &[String], name: &syn::Ident, out: &mut BTreeSet<(usize, Vec<String>)>) {
    let mut path = prefix.to_vec();
    path.push(name.to_string());
    out.insert((name.span().start().line, path));
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Returns the module of a file, as the table names modules.
fn module(path: &Path) -> String {
    let parts: Vec<String> = path
        .with_extension("")
        .components()
        .map(|c| c.as_os_str().to_string_lossy().into_owned())
        .collect();
    let depth = if parts[0] == "domain" { 2 } else { 1 };
    parts
        .iter()
        .filter(|p| *p != "mod")
        .take(depth)
        .cloned()
        .collect::<Vec<_>>()
        .join("::")
}

fn parsed() -> Vec<(PathBuf, String, Seen)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    let mut out = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().to_owned();
        if relative.ends_with("tests.rs") {
            continue;
        }
        let parsed = syn::parse_file(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let mut seen = Seen {
            uses: BTreeSet::new(),
            asynchronous: Vec::new(),
            words: Vec::new(),
        };
        seen.visit_file(&parsed);
        out.push((relative.clone(), module(&relative), seen));
    }
    out
}

#[test]
fn every_arrow_is_in_the_table() {
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut faults = Vec::new();
    for (file, module, seen) in parsed() {
        if matches!(module.as_str(), "lib" | "main" | "domain") {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            faults.push(format!(
                "{}: the module `{module}` is not in the table",
                file.display()
            ));
            continue;
        };
        for (line, path) in &seen.uses {
            // `super::super::x` of a module inside the domain names a sibling of it.
            let supers = path.iter().take_while(|p| *p == "super").count();
            let inner: Vec<&String> = path.iter().skip(supers).collect();
            let target = if path[0] == "crate" {
                let depth = if path.get(1).is_some_and(|p| p == "domain") {
                    2
                } else {
                    1
                };
                path.iter()
                    .skip(1)
                    .take(depth)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("::")
            } else if supers > 0
                && module.starts_with("domain::")
                && inner
                    .first()
                    .is_some_and(|p| ARROWS.iter().any(|(m, _)| *m == format!("domain::{p}")))
                && file.file_stem().is_some_and(|s| s == "mod")
                && supers == 1
            {
                format!("domain::{}", inner[0])
            } else {
                continue;
            };
            let ok = target == module
                || allowed
                    .iter()
                    .any(|a| target == *a || target.starts_with(&format!("{a}::")))
                || target.is_empty();
            if !ok {
                faults.push(format!(
                    "src/{}:{line}: `{module}` uses `{target}`",
                    file.display()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_domain_is_pure() {
    let mut faults = Vec::new();
    for (file, module, seen) in parsed()
        .into_iter()
        .filter(|(_, m, _)| m.starts_with("domain"))
    {
        faults.extend(
            seen.asynchronous
                .iter()
                .map(|line| format!("src/{}:{line}: `{module}` has an async fn", file.display())),
        );
        for (line, path) in &seen.uses {
            let text = path.join("::");
            let bad = [
                "std::fs",
                "std::net::Tcp",
                "std::net::Udp",
                "std::env",
                "std::process",
                "std::thread",
                "std::time::Instant",
                "std::time::SystemTime",
                "tokio",
                "sqlx",
                "git2",
                "axum",
                "reqwest",
                "uuid",
                "rand",
            ];
            if bad
                .iter()
                .any(|b| text == *b || text.starts_with(&format!("{b}::")))
            {
                faults.push(format!(
                    "src/{}:{line}: `{module}` uses `{text}`",
                    file.display()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn names_the_sdk(path: &str) -> bool {
    let first = path.split("::").next().unwrap_or_default();
    first.starts_with("aws_") && first != "aws_lc_rs"
}

#[test]
fn the_never_rules_hold() {
    let mut faults = Vec::new();
    for (file, _, seen) in parsed() {
        let name = file.display().to_string();
        let used = seen
            .uses
            .iter()
            .map(|(line, path)| (*line, path.join("::")));
        for (line, word) in used.filter(|(_, word)| names_the_sdk(word)) {
            if !name.starts_with("aws/") {
                faults.push(format!(
                    "src/{name}:{line}: `{word}`: only src/aws speaks to AWS"
                ));
            }
        }
        // At a crash point the program ends itself.
        let starts = matches!(name.as_str(), "git/errand.rs" | "testing/mod.rs");
        let used = seen.uses.iter().map(|(line, path)| (line, path.join("::")));
        let named = seen.words.iter().map(|(line, word)| (line, word.clone()));
        for (line, word) in used.chain(named).filter(|_| !starts) {
            let ends = ["process::Command", "process::Command::new"];
            if word == "Command::new" || ends.iter().any(|end| word.ends_with(end)) {
                faults.push(format!(
                    "src/{name}:{line}: `{word}`: only git/errand.rs starts a process, and that is isoform itself"
                ));
            }
        }
        for (line, word) in &seen.words {
            let rule = match word.as_str() {
                "tokio::spawn"
                    if !matches!(
                        name.as_str(),
                        "daemon/run.rs"
                            | "http/mod.rs"
                            | "http/webhooks.rs"
                            | "cli/mod.rs"
                            | "cli/demo.rs"
                            | "cli/offline.rs"
                    ) =>
                {
                    Some(
                        "tasks are spawned in daemon/run.rs, where connections are served, and where the command line holds a whole daemon",
                    )
                }
                "std::env::var"
                    if !matches!(
                        name.as_str(),
                        "config/mod.rs" | "cli/hook.rs" | "secret_file.rs"
                    ) =>
                {
                    Some(
                        "only config reads the environment, the hook what Git tells it, and secret_file where systemd keeps credentials",
                    )
                }
                "println" | "eprintln" | "print" | "eprint" | "dbg"
                    if !name.starts_with("cli/") =>
                {
                    Some("only the command line prints")
                }
                "SystemTime::now" if name != "clock.rs" => Some("only clock.rs reads the clock"),
                word if names_the_sdk(word) && !name.starts_with("aws/") => {
                    Some("only src/aws speaks to AWS; everything else knows the ports")
                }
                _ => None,
            };
            if let Some(rule) = rule {
                faults.push(format!("src/{name}:{line}: `{word}`: {rule}"));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root.join("reconcile"), &mut files);
    for file in files.iter().filter(|f| !f.ends_with("perform.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for call in [
                "engine.execute(",
                "engine.propose(",
                "engine.discard(",
                "engine.delete(",
                "engine.set_stack_policy(",
                "engine.set_protection(",
                "engine.cancel(",
                "engine.rollback(",
                "engine.continue_rollback(",
            ] {
                if line.contains(call) {
                    faults.push(format!(
                        "{}:{}: `{call}`: only perform.rs changes the world",
                        file.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    let mut everywhere = Vec::new();
    sources(&root, &mut everywhere);
    for file in everywhere {
        let text = std::fs::read_to_string(&file).unwrap();
        for call in [
            "checkout_",
            "CheckoutBuilder",
            "RepoBuilder",
            "Repository::clone",
        ] {
            if text.contains(call) {
                faults.push(format!(
                    "{}: `{call}`: nothing of a repository is checked out",
                    file.display()
                ));
            }
        }
    }
    for (file, module, _) in parsed() {
        for bad in ["util", "common", "helpers", "misc", "manager"] {
            if module.split("::").any(|p| p == bad) {
                faults.push(format!(
                    "src/{}: a module is not called `{bad}`",
                    file.display()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
