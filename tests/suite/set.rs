//! `isoform set`: a pipeline brings a value into a spec, and hears what became of it.

use serde_json::Value;

use crate::support::{Bench, ISOFORM, PLACEMENTS, text};

fn example() -> Bench {
    let mut bench = Bench::example();
    bench.edit(
        "services/orders.yaml",
        "      desired_count: 2\n",
        "      desired_count: 2   # two for now\n",
    );
    bench.push("Initial layout");
    bench.git(&["config", "user.name", "bo"]);
    bench.git(&["config", "user.email", "bo@example.org"]);
    bench.start();
    bench.settle();
    bench
}

fn at(bench: &Bench, branch: &str, path: &str) -> String {
    bench.git(&["fetch", "-q", "origin"]);
    bench.git(&["show", &format!("origin/{branch}:{path}")])
}

fn json(bench: &Bench, arguments: &[&str]) -> (i32, Value) {
    let output = bench.run(&[arguments, &["--output", "json"]].concat());
    let found = serde_json::from_slice(&output.stdout);
    let found = found.unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", text(&output)));
    (output.status.code().unwrap(), found)
}

#[test]
fn a_value_that_is_set_directly_is_deployed_and_waited_for() {
    let bench = example();
    let before = bench.git(&["status", "--porcelain", "--branch"]);
    let head = bench.head();

    let said = bench.cli(
        &[
            "set",
            "svc/orders/beta",
            "desired_count=3",
            "--direct",
            "--wait",
        ],
        0,
    );

    assert!(
        said.contains("2 → 3")
            && said.contains("services/orders.yaml:9")
            && said.contains("in sync"),
        "{said}"
    );
    assert_eq!(bench.condition("svc/orders/beta"), "InSync(Settled)");
    let logs = bench.cli(&["diff", "--against", "deployed", "HEAD"], 2);
    assert!(logs.contains("3 → 2"), "{logs}");
    // The clone is as it was: its files, its index, its branches.
    assert_eq!(
        (
            bench.git(&["status", "--porcelain", "--branch"]),
            bench.head()
        ),
        (before, head)
    );
    let spec = at(&bench, "main", "services/orders.yaml");
    assert!(
        spec.contains("      desired_count: 3   # two for now\n"),
        "{spec}"
    );
    let log = bench.git(&["log", "-1", "--format=%an %s", "origin/main"]);
    assert_eq!(log.trim(), "bo svc/orders/beta: desired_count is 3");

    let again = bench.cli(
        &[
            "set",
            "svc/orders/beta",
            "desired_count=3",
            "--direct",
            "--wait",
        ],
        0,
    );
    assert!(
        again.contains("is 3 already") && again.contains("nothing to commit"),
        "{again}"
    );

    let (code, found) = json(
        &bench,
        &[
            "set",
            "svc/orders/beta",
            "desired_count=4",
            "size=medium",
            "--direct",
            "--wait",
        ],
    );
    assert_eq!(
        (code, &found["outcome"]["code"]),
        (0, &0.into()),
        "{found:#}"
    );
    assert_eq!(found["values"][0]["before"], "3");
    assert_eq!(
        found["outcome"]["targets"][0]["condition"]["result"],
        "InSync"
    );
    assert_eq!(found["outcome"]["targets"][0]["serving"], found["commit"]);
}

#[test]
fn a_value_on_a_branch_waits_for_its_merge() {
    let bench = example();
    let main = bench.git(&["ls-remote", "origin", "refs/heads/main"]);

    let said = bench.cli(&["set", "env/prod@us-east-1", "log_retention_days=30"], 0);

    assert!(
        said.contains("isoform/set-env-prod-us-east-1, for a merge into main"),
        "{said}"
    );
    let spec = at(
        &bench,
        "isoform/set-env-prod-us-east-1",
        "environments/prod.us-east-1.yaml",
    );
    assert!(spec.contains("log_retention_days: 30"), "{spec}");
    assert_eq!(bench.git(&["ls-remote", "origin", "refs/heads/main"]), main);
    bench.cli(
        &[
            "set",
            "pipe/orders",
            "unit_test_command=make all",
            "--branch",
            "ci/x",
            "-m",
            "tests: all",
        ],
        0,
    );
    let spec = at(&bench, "ci/x", "services/orders.yaml");
    assert!(spec.contains("unit_test_command: make all\n"), "{spec}");
    assert_eq!(
        bench
            .git(&["log", "-1", "--format=%s", "origin/ci/x"])
            .trim(),
        "tests: all"
    );
    // A parameter of a plain stack stands in the sync file, quoted as it was.
    bench.cli(
        &["set", "stack/alarms", "Threshold=7", "--branch", "ci/x"],
        0,
    );
    let sync = at(&bench, "ci/x", "isoform.yaml");
    assert!(
        sync.contains("parameters: { Email: oncall@example.org, Threshold: \"7\" }"),
        "{sync}"
    );
    let spec = at(&bench, "ci/x", "services/orders.yaml");
    assert!(
        spec.contains("unit_test_command: make all\n"),
        "the branch went on: {spec}"
    );
}

#[test]
fn two_who_set_at_once_both_land() {
    let bench = example();
    let set = |target: &str, value: &str| {
        std::process::Command::new(ISOFORM)
            .args([
                "set", target, value, "--direct", "--base", "main", "--output", "json",
            ])
            .current_dir(bench.work())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let all: Vec<_> = [
        ("svc/orders/beta", "desired_count=5"),
        ("svc/orders/prod", "desired_count=6"),
        ("svc/billing/beta", "image=httpd:3"),
    ]
    .into_iter()
    .map(|(target, value)| set(target, value))
    .collect();

    for child in all {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    let orders = at(&bench, "main", "services/orders.yaml");
    let billing = at(&bench, "main", "services/billing.yaml");
    assert!(
        orders.contains("desired_count: 5   # two for now")
            && orders.contains("desired_count: 6\n")
            && billing.contains("image: httpd:3\n"),
        "{orders}{billing}"
    );
    let commits = bench.git(&["rev-list", "--count", "origin/main"]);
    assert_eq!(commits.trim(), "4");
}

#[test]
fn what_cannot_be_set_commits_nothing_and_says_why() {
    let bench = example();
    let tip = bench.git(&["ls-remote", "origin"]);

    let fault = bench.cli(
        &["set", "svc/orders/beta", "desired_count=300", "--direct"],
        1,
    );
    assert!(
        fault.contains("services/orders.yaml:9:22")
            && fault.contains("at most 100")
            && fault.contains("nothing is committed"),
        "{fault}"
    );
    for (target, value, word) in [
        (
            "svc/orders/bet",
            "image=x",
            "did you mean `svc/orders/beta`?",
        ),
        (
            "svc/orders/beta",
            "desired_cout=3",
            "did you mean `desired_count`?",
        ),
        ("svc/orders/beta", "desired_count=x", "takes a whole number"),
        ("svc/orders/beta", "image", "key=value"),
        ("comp/orders-bucket", "a=b", "no values of its own"),
        ("env/prod", "log_retention_days=30", "name one of"),
        ("stack/alarms", "Emai=x", "did you mean `Email`?"),
    ] {
        let said = bench.cli(&["set", target, value, "--direct"], 64);
        assert!(said.contains(word), "{target} {value}: {said}");
    }
    let (code, found) = json(&bench, &["set", "svc/orders/beta", "desired_count=300"]);
    assert_eq!(code, 1);
    assert_eq!(
        found["findings"][0]["place"]["file"],
        "services/orders.yaml"
    );
    let wait = bench.cli(&["set", "svc/orders/beta", "image=x", "--wait"], 64);
    assert!(wait.contains("--direct"), "{wait}");
    let base = [
        "set",
        "svc/orders/beta",
        "image=x",
        "--direct",
        "--base",
        "nowhere",
    ];
    assert!(bench.cli(&base, 64).contains("has no branch `nowhere`"));
    let followed = bench.cli(&[&base[..], &["--wait"]].concat(), 64);
    assert!(followed.contains("the daemon follows main"), "{followed}");
    assert_eq!(bench.git(&["ls-remote", "origin"]), tip);
}

#[test]
fn a_deployment_that_fails_or_is_held_is_told_by_the_exit_code() {
    let held = PLACEMENTS.replacen("mode: auto", "mode: approve", 1);
    let mut bench = Bench::empty(&held);
    let template = "Parameters: {Name: {Type: String}}\nResources: {T: {Type: 'AWS::SNS::Topic', Properties: {DisplayName: !Ref Name}}}\n";
    bench.write("t.yaml", template);
    bench.write("isoform.yaml", "isoform: 1\nstacks:\n  held: { template: t.yaml, placement: beta, parameters: { Name: one } }\n  runs: { template: t.yaml, placement: tools, stack_name: runs, parameters: { Name: one } }\n");
    bench.push("stacks");
    bench.git(&["config", "user.name", "bo"]);
    bench.git(&["config", "user.email", "bo@example.org"]);
    bench.start();
    bench.becomes("stack/held", "Pending(Approval)");
    bench.becomes("stack/runs", "InSync(Settled)");

    let said = bench.cli(&["set", "stack/held", "Name=two", "--direct", "--wait"], 3);
    assert!(said.contains("Approval"), "{said}");

    bench.cli(&["local", "fail", "runs", "T", "--reason", "no luck"], 0);
    let said = bench.cli(&["set", "stack/runs", "Name=two", "--direct", "--wait"], 1);
    assert!(said.contains("Failed"), "{said}");
}

/// Git's own server for a bench's repository, on loopback, until it is dropped.
struct Served {
    server: std::process::Child,
    url: String,
}

impl Served {
    fn new(bench: &Bench) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        // The server itself: `git daemon` would start it and not end it.
        let programs = bench.git(&["--exec-path"]);
        let program = std::path::Path::new(programs.trim()).join("git-daemon");
        let server = std::process::Command::new(program)
            .args(["--reuseaddr", "--export-all", "--enable=receive-pack"])
            .arg("--listen=127.0.0.1")
            .args([
                format!("--port={port}"),
                format!("--base-path={}", bench.root.display()),
            ])
            .arg(&bench.root)
            .env("USER", "ana")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let begun = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed().as_secs() < 60, "git daemon does not listen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let url = format!("git://127.0.0.1:{port}/origin.git");
        Self { server, url }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn a_remote_over_the_network_is_moved_without_force_and_its_hook_is_heard() {
    let bench = example();
    bench.cli(&["hook", "install", "../origin.git"], 0);
    let served = Served::new(&bench);
    bench.git(&["remote", "set-url", "origin", &served.url]);
    let refs = bench.git(&["for-each-ref", "refs/heads"]);

    let said = bench.cli(
        &[
            "set",
            "svc/orders/beta",
            "desired_count=3",
            "--direct",
            "--base",
            "main",
        ],
        0,
    );

    assert!(
        said.contains("remote: isoform:") && said.contains("✓ updated"),
        "{said}"
    );
    let after = bench.git(&["for-each-ref", "refs/heads"]);
    assert_eq!(after, refs, "no branch of the clone moves");
    // What the clone does not have yet is fetched: the edit is made on the newest tip.
    bench.git(&["clone", "-q", &served.url, "../other"]);
    let output = std::process::Command::new(ISOFORM)
        .args(["set", "svc/orders/prod", "desired_count=6", "--direct"])
        .args(["--folder", "../other"])
        .current_dir(bench.work())
        .envs([
            ("GIT_AUTHOR_NAME", "bo"),
            ("HOME", bench.root.to_str().unwrap()),
        ])
        .output()
        .unwrap();
    let unknown = text(&output);
    assert!(unknown.contains("git config user.name"), "{unknown}");
    for (key, value) in [("user.name", "cy"), ("user.email", "cy@example.org")] {
        bench.git(&["-C", "../other", "config", key, value]);
    }
    let other = [
        "set",
        "svc/orders/prod",
        "desired_count=6",
        "--direct",
        "--folder",
        "../other",
    ];
    bench.cli(&other, 0);
    bench.cli(
        &[
            "set",
            "svc/orders/beta",
            "desired_count=7",
            "--direct",
            "--base",
            "main",
        ],
        0,
    );
    let spec = at(&bench, "main", "services/orders.yaml");
    assert!(
        spec.contains("desired_count: 7   # two for now") && spec.contains("desired_count: 6\n"),
        "{spec}"
    );
    // A hook that says no is heard, and nothing is tried again.
    let hook = bench.root.join("origin.git/hooks/pre-receive");
    std::fs::write(&hook, "#!/bin/sh\necho not on a Friday\nexit 1\n").unwrap();
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&hook, runs).unwrap();
    let said = bench.cli(
        &[
            "set",
            "svc/orders/beta",
            "desired_count=8",
            "--direct",
            "--base",
            "main",
        ],
        1,
    );
    assert!(
        said.contains("refuses the push to main: pre-receive hook declined"),
        "{said}"
    );
}
