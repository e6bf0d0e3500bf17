//! What the command line says, and how it ends: words, counts, exit codes and shapes.

use serde_json::Value;

use crate::support::{Bench, PLACEMENTS};

fn topic(name: &str) -> String {
    format!("Resources:\n  T: {{Type: 'AWS::SNS::Topic', Properties: {{DisplayName: '{name}'}}}}\n")
}

/// A bench with these stacks, each with its own template and options of the sync file.
fn stacks(placements: &str, all: &[(&str, &str)]) -> Bench {
    let mut bench = Bench::empty(placements);
    let mut sync = "isoform: 1\nstacks:\n".to_owned();
    for (name, options) in all {
        bench.write(&format!("{name}.yaml"), &topic("one"));
        sync.push_str(&format!(
            "  {name}: {{ template: {name}.yaml, placement: beta, stack_name: {name}{options} }}\n"
        ));
    }
    bench.write("isoform.yaml", &sync);
    bench.push("stacks");
    bench.start();
    bench.settle();
    bench
}

fn chain() -> Bench {
    stacks(PLACEMENTS, &[("one", ""), ("two", ", after: [stack/one]")])
}

fn json(bench: &Bench, arguments: &[&str]) -> Value {
    let output = bench.run(&[arguments, &["--output", "json"]].concat());
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", crate::support::text(&output)))
}

#[test]
fn the_doctor_says_what_it_looks_at_without_aws() {
    let bench = Bench::empty("");

    let found = json(&bench, &["doctor"]);
    assert_eq!((&found["v"], &found["bad"]), (&1.into(), &0.into()));
    let text = bench.cli(&["doctor"], 0);
    assert!(text.contains("nothing in AWS is used"), "{text}");

    let state = bench.root.join("state");
    std::fs::create_dir_all(&state).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&state, open).unwrap();
    let text = bench.cli(&["doctor"], 1);
    assert!(text.contains("chmod 700"), "{text}");
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::write(&state, "").unwrap();
    let text = bench.cli(&["doctor"], 1);
    assert!(text.contains("is no folder"), "{text}");
    std::fs::remove_file(&state).unwrap();

    std::fs::remove_file(bench.root.join("root.key")).unwrap();
    let text = bench.cli(&["doctor"], 1);
    assert!(text.contains("isoform config key"), "{text}");
    assert!(!bench.root.join("root.key").exists(), "nothing is written");
    let text = bench.cli(&["iam"], 64);
    assert!(text.contains("embedded engine"), "{text}");
}

#[test]
fn the_policies_of_an_account_are_found_by_its_name_and_by_its_id() {
    let bench = Bench::empty("");
    let config = r#"
isoform: 1
accounts: { prod: { id: "333333333333", roles: { apply: act } }, spare: { id: "444444444444" } }
placements: { prod: { account: prod, regions: [us-east-1] } }
sources: { p: { url: ./origin.git, may: { stacks: ["*"], placements: [prod] } } }
bundle_stores: { us: { url: "s3://acme-us", owner: "333333333333", region: us-east-1, encryption: sse-s3 } }
state: { path: state, key: "file:root.key" }
"#;
    std::fs::write(bench.root.join("config.yaml"), config).unwrap();

    let by_id = bench.cli(&["iam", "--template", "333333333333"], 0);
    let by_name = bench.cli(&["iam", "--template", "prod"], 0);
    let nothing = bench.cli(&["iam", "--template", "spare"], 64);

    assert!(by_id.contains("AWS::IAM::Role"), "{by_id}");
    assert_eq!(by_name, by_id);
    assert!(nothing.contains("it has prod (333333333333)"), "{nothing}");
}

#[test]
fn who_waits_behind_a_failure_or_a_hold_is_told_so() {
    let bench = chain();
    bench.cli(&["local", "fail", "one", "T", "--times", "1"], 0);
    for name in ["one", "two"] {
        bench.write(&format!("{name}.yaml"), &topic("two"));
    }
    bench.push("one fails");
    bench.settle();

    bench.cli(&["wait", "stack/two", "--timeout", "20s"], 1);
    let why = json(&bench, &["why", "stack/two"]);
    assert_eq!(why["targets"][0]["waits_for"], "stack/one", "{why}");
    let detail = why["targets"][0]["condition"]["detail"].as_str().unwrap();
    assert!(detail.contains("Failed(StackRolledBack)"), "{detail}");

    bench.cli(&["suspend", "stack/one", "--reason", "later"], 0);
    bench.cli(&["retry", "stack/one"], 0);
    bench.becomes("stack/one", "Held(Suspended)");
    bench.cli(&["wait", "stack/two", "--timeout", "20s"], 3);
    bench.cli(&["resume", "stack/one"], 0);
    bench.cli(&["wait", "stack/two", "--timeout", "20s"], 0);
}

#[test]
fn a_source_that_is_refused_shows_in_the_exit_code() {
    let bench = chain();
    bench.git(&["commit", "-q", "--amend", "-m", "another history"]);
    bench.git(&["push", "-f", "origin", "main"]);
    let said = bench.cli(&["sync"], 3);
    assert!(said.contains("isoform approve --source example"), "{said}");
    bench.cli(&["status"], 3);
    bench.cli(&["sync", "--wait"], 3);
    bench.cli(&["approve", "--source", "example"], 0);
    bench.settle();
    bench.cli(&["sync", "--wait"], 0);

    std::fs::rename(bench.root.join("origin.git"), bench.root.join("away.git")).unwrap();
    bench.cli(&["sync"], 1);
    bench.cli(&["status"], 1);
    assert!(json(&bench, &["sync"])["refused"]["example"].is_string());
}

#[test]
fn what_names_nothing_is_a_wrong_question() {
    let bench = chain();
    for asked in [
        &["plan", "stack/nosuch"][..],
        &["audit", "prove", "nosuch"],
        &["audit", "show", "nosuch"],
        &["history", "nosuch"],
        &["logs", "nosuch"],
        &["why", "nosuch"],
        &["render", ".", "--part", "instance", "--data", "nosuch.json"],
        &[
            "render", "nosuch", "--part", "instance", "--data", "one.yaml",
        ],
        &["bundle", "build", "nosuch", "--out", "x.tar.gz"],
        &["bundle", "verify", "nosuch"],
        &["bundle", "verify", &"0".repeat(64)],
        &["audit", "verify", "--file", "nosuch"],
        &["diff", "main..nosuch"],
        &["diff", "nosuch"],
        &["diff", "--folder", "nosuch"],
        &["local", "continue", "nosuch"],
        &["hook", "install", "nosuch"],
        &["init", "nosuch"],
    ] {
        let said = bench.cli(asked, 64);
        assert!(!said.contains("class="), "{asked:?}: {said}");
    }
    let said = bench.cli(&["diff", "main..nosuch"], 64);
    assert!(said.contains("`nosuch`"), "{said}");
    assert!(said.contains("git fetch"), "{said}");
}

#[test]
fn a_suspension_shows_while_nothing_is_held_by_it() {
    let bench = chain();
    bench.cli(
        &[
            "suspend",
            "stack/one",
            "--reason",
            "a freeze",
            "--for",
            "8h",
        ],
        0,
    );

    let status = bench.cli(&["status"], 0);
    assert!(status.contains("suspended"), "{status}");
    let why = bench.cli(&["why", "stack/one"], 0);
    assert!(why.contains("a freeze"), "{why}");
    let said = bench.cli(&["resume", "--all"], 0);
    assert!(said.contains("resumed: stack/one"), "{said}");
    assert!(!bench.cli(&["history", "stack/two"], 0).contains("resumed"));
    let said = bench.cli(&["resume", "--all"], 0);
    assert!(said.contains("nothing to resume"), "{said}");
}

#[test]
fn a_blast_radius_is_one_line_and_its_list_is_whole_where_one_asks() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let placements = PLACEMENTS.replacen("blast_radius: 50", "blast_radius: 3", 1);
    let bench = stacks(&placements, &names.map(|n| (n, "")));

    let status = bench.cli(&["status"], 3);
    let held: Vec<&str> = status
        .lines()
        .filter(|l| l.contains("approve --snapshot"))
        .collect();
    assert_eq!(held.len(), 1, "{status}");
    assert!(held[0].contains("7 targets"), "{status}");
    let why = json(&bench, &["why", "stack/a"]);
    assert_eq!(
        why["targets"][0]["blast_radius"].as_array().unwrap().len(),
        7,
        "{why}"
    );
    let why = bench.cli(&["why", "stack/a"], 3);
    for name in names {
        assert!(why.contains(&format!("stack/{name}\n")), "{why}");
    }
}

#[test]
fn a_push_does_not_repeat_what_was_held_before_it() {
    let bench = stacks(PLACEMENTS, &[("one", ", gate: approve"), ("two", "")]);
    let origin = bench.root.join("origin.git");
    bench.cli(&["hook", "install", origin.to_str().unwrap()], 0);
    bench.becomes("stack/one", "Pending(Approval)");

    bench.write("two.yaml", &topic("two"));
    let said = bench.push("only two");
    assert!(said.contains("stack/two"), "{said}");
    assert!(!said.contains("stack/one"), "{said}");
    bench.write("one.yaml", &topic("two"));
    let said = bench.push("now one");
    assert!(said.contains("stack/one"), "{said}");
}

#[test]
fn what_depends_on_an_output_that_is_not_there_yet_shows_as_known_after_apply() {
    let mut bench = Bench::example();
    bench.push("the example");
    bench.start();
    bench.settle();
    let component = "templates/component/bucket/cloudformation.yaml";
    bench.edit(
        component,
        "Resources:\n",
        "Resources:\n  More:\n    Type: AWS::IAM::ManagedPolicy\n    Properties:\n      PolicyDocument: { Version: '2012-10-17', Statement: [ { Effect: Allow, Action: 's3:ListBucket', Resource: '*' } ] }\n",
    );
    bench.edit(
        component,
        "Outputs:\n",
        "Outputs:\n  MorePolicy: { Value: !Ref More }\n",
    );

    let said = bench.cli(&["diff"], 2);

    let orders = said.split("\nsvc/orders/beta").nth(1).unwrap();
    assert!(
        orders.contains("(known after apply: comp/orders-bucket.MorePolicy)"),
        "{said}"
    );
    assert!(!said.contains("isoform-unknown-"), "{said}");
    assert!(
        !bench
            .cli(&["diff", "--text"], 2)
            .contains("isoform-unknown-")
    );
}

#[test]
fn every_command_speaks_json_with_the_version_of_its_shape() {
    let bench = stacks(PLACEMENTS, &[("one", "")]);
    let bundle = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/repo-layout/templates/environment/fargate-env/v1");
    let bundle = bundle.to_str().unwrap();
    let at = |name: &str| bench.root.join(name).to_str().unwrap().to_owned();
    let built = json(
        &bench,
        &["bundle", "build", bundle, "--out", &at("b.tar.gz")],
    );
    let digest = built["digest"].as_str().unwrap().to_owned();
    let put = json(
        &bench,
        &["bundle", "put", bundle, "--as", "fargate-env@1.0"],
    );
    assert_eq!(put["digest"], built["digest"]);
    let opened = json(&bench, &["bundle", "open", &digest, "--out", &at("opened")]);
    assert_eq!(opened["files"], built["files"]);
    let verified = json(&bench, &["bundle", "verify", &digest]);
    assert_eq!(verified["holds"], true);
    let made = json(&bench, &["config", "key", &at("another.key")]);
    assert!(made["made"].is_string());
    let hook = json(&bench, &["hook", "install", &at("origin.git")]);
    assert!(hook["installed"].is_string());
    let folder = bench.root.join("fresh");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("data.json"), "{}").unwrap();
    let init = json(&bench, &["init", folder.to_str().unwrap()]);
    assert_eq!(init["choose"], 0, "{init}");

    let part = ["--part", "infrastructure", "--data"];
    let data = at("fresh/data.json");
    let render = [&["render", bundle][..], &part, &[&data]].concat();
    let failed = json(&bench, &render);
    assert!(failed["findings"][0]["code"].is_string(), "{failed}");
    bench.cli(&render, 1);
    let nothing = json(&bench, &["bundle", "put", &at("fresh"), "--as", "x@1.0"]);
    let shapes = [
        &built, &put, &opened, &verified, &made, &hook, &init, &failed, &nothing,
    ];
    for shape in shapes {
        assert_eq!(shape["v"], 1, "{shape}");
    }
    for refused in [&failed, &nothing, &json(&bench, &["why", "nosuch"])] {
        assert!(refused["error"].is_string(), "{refused}");
    }
}
