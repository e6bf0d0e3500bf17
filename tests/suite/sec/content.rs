//! Hostile content of a repository.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::measure::{holding, run};
use crate::support::{Bench, ISOFORM, PLACEMENTS, copy, python, text};

/// How much more memory a hostile folder may take than a folder with nothing in it.
const GROWTH_KIB: u64 = 32 << 10;

fn write(folder: &Path, path: &str, body: impl AsRef<[u8]>) {
    let to = folder.join(path);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::write(to, body).unwrap();
}

fn validate(folder: &Path) -> super::measure::Measured {
    run(Command::new(ISOFORM)
        .arg("validate")
        .arg(folder)
        .env("NO_COLOR", "1"))
}

fn bundle(folder: &Path, template: &[u8]) {
    write(
        folder,
        "t/v1/schema/schema.yaml",
        "schema: {format: {openapi: '3.0.0'}, environment_input_type: A, types: {A: {type: object, properties: {x: {type: string}}}}}\n",
    );
    write(
        folder,
        "t/v1/infrastructure/manifest.yaml",
        "infrastructure:\n  templates:\n    - file: cloudformation.yaml\n      rendering_engine: jinja\n      template_language: cloudformation\n",
    );
    write(folder, "t/v1/infrastructure/cloudformation.yaml", template);
}

/// A sync file with one bare stack, so that its template is read as CloudFormation.
fn stack(folder: &Path, template: impl AsRef<[u8]>) {
    write(
        folder,
        "isoform.yaml",
        "isoform: 1\nstacks: { s: { template: s.yaml, placement: p } }\n",
    );
    write(folder, "s.yaml", template);
}

fn bomb(first: &str, levels: usize) -> String {
    let mut text = format!("a0: &a0 [{first}]\n");
    for i in 1..levels {
        let inner = vec![format!("*a{}", i - 1); 10].join(",");
        text.push_str(&format!("a{i}: &a{i} [{inner}]\n"));
    }
    text
}

#[test]
fn sec_07_hostile_yaml_costs_less_than_its_limits() {
    let empty = tempfile::tempdir().unwrap();
    bundle(empty.path(), b"Resources: {}\n");
    let base = validate(empty.path()).peak_kib;
    let laughs = bomb("x,x,x,x,x,x,x,x,x,x", 10);
    let wide = |bytes: usize| {
        format!(
            "a: &a {}\nb: [{}]\n",
            "x".repeat(bytes / 2),
            vec!["*a"; bytes / 8].join(",")
        )
    };
    let anchors = |bytes: usize| {
        let mut text = "x".repeat(bytes / 2);
        (0..30).for_each(|i| text = format!("&n{i} [{text}]"));
        text
    };
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let deep_map: String = (0..10_000).map(|i| " ".repeat(i % 200) + "a:\n").collect();
    let twice = "a: 1\n".repeat(9_000);
    let long_key = format!("{}: 1\n", "k".repeat(45_000));
    let sync = |body: &str| format!("isoform: 1\n{body}");
    let spec = |body: &str| format!("proton: EnvironmentSpec\nspec:\n  x: 1\n{body}");
    let many = "- a\n".repeat(1_000_000);
    let unknown: String = (0..200_000).map(|i| format!("k{i}: 1\n")).collect();
    for (name, path, body) in [
        ("a bomb in a spec", "spec.yaml", spec(&laughs)),
        ("a bomb in a sync file", "isoform.yaml", sync(&laughs)),
        (
            "a bomb in a schema",
            "t/v1/schema/schema.yaml",
            laughs.clone(),
        ),
        (
            "a bomb in a manifest",
            "t/v1/infrastructure/manifest.yaml",
            laughs.clone(),
        ),
        (
            "a bomb in a registration",
            "t/v1/.template-registration.yaml",
            laughs.clone(),
        ),
        (
            "a bomb in an ops file",
            "svc/proton-ops.yaml",
            laughs.clone(),
        ),
        ("large aliases in a spec", "spec.yaml", spec(&wide(40_000))),
        (
            "large aliases in a sync file",
            "isoform.yaml",
            sync(&wide(4_000_000)),
        ),
        (
            "anchors in anchors",
            "isoform.yaml",
            sync(&format!("x: {}\n", anchors(4_000_000))),
        ),
        (
            "depth",
            "spec.yaml",
            spec(&format!("y: {}\n", &deep[..40_000])),
        ),
        (
            "depth in a sync file",
            "isoform.yaml",
            sync(&format!("y: {deep}\n")),
        ),
        ("nested mappings", "isoform.yaml", sync(&deep_map)),
        ("one key 9,000 times", "spec.yaml", spec(&twice)),
        ("a key of 45 kB", "spec.yaml", spec(&long_key)),
        (
            "a million items",
            "isoform.yaml",
            sync(&format!("environments:\n{many}")),
        ),
        ("200,000 unknown keys", "isoform.yaml", sync(&unknown)),
        (
            "a sync file of 15 MB",
            "isoform.yaml",
            sync(&"#\n".repeat(7_500_000)),
        ),
        (
            "tags of Python",
            "spec.yaml",
            spec("z: !!python/object/apply:os.system ['id']\n"),
        ),
        (
            "a merge that is a circle",
            "spec.yaml",
            spec("z: &z {<<: *z}\n"),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        bundle(folder.path(), b"Resources: {}\n");
        write(folder.path(), path, &body);
        let run = validate(folder.path());
        assert!(
            matches!(run.code, Some(0..=2)),
            "{name}: {:?} {}",
            run.code,
            run.text.chars().take(500).collect::<String>()
        );
        assert!(run.text.contains("error"), "{name}: {}", run.text);
        let growth = run.peak_kib.saturating_sub(base);
        assert!(
            growth < GROWTH_KIB,
            "{name}: {growth} KiB more than nothing"
        );
        assert!(
            run.text.len() < 2 << 20,
            "{name}: {} bytes of findings",
            run.text.len()
        );
    }
}

#[test]
fn sec_07_hostile_templates_cost_less_than_their_limits() {
    let empty = tempfile::tempdir().unwrap();
    stack(empty.path(), "Resources: {A: {Type: 'AWS::SNS::Topic'}}\n");
    let base = validate(empty.path()).peak_kib;
    let resources: String = (0..100_000).map(|i| format!("  N{i}: 1\n")).collect();
    let sections: String = (0..100_000).map(|i| format!("N{i}: 1\n")).collect();
    for (name, body) in [
        ("a bomb", bomb("x,x,x,x,x,x,x,x,x,x", 10)),
        (
            "large aliases",
            format!(
                "a: &a {}\nb: [{}]\n",
                "x".repeat(500_000),
                vec!["*a"; 100_000].join(",")
            ),
        ),
        ("100,000 resources", format!("Resources:\n{resources}")),
        ("100,000 sections", sections),
        ("depth", format!("Resources: {}", "[".repeat(500_000))),
        (
            "a name of 500 kB",
            format!(
                "{}: 1\nResources: {{A: {{Type: X}}}}\n",
                "k".repeat(500_000)
            ),
        ),
        (
            "JSON of depth 100,000",
            "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000),
        ),
        (
            "lone surrogates",
            "{\"Resources\": {\"A\": {\"Type\": \"\\ud800\"}}}".to_owned(),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        stack(folder.path(), &body);
        let run = validate(folder.path());
        assert_eq!(
            run.code,
            Some(1),
            "{name}: {}",
            run.text.chars().take(500).collect::<String>()
        );
        let growth = run.peak_kib.saturating_sub(base);
        assert!(
            growth < 2 * GROWTH_KIB,
            "{name}: {growth} KiB more than a small template"
        );
        assert!(
            run.text.len() < 2 << 20,
            "{name}: {} bytes of findings",
            run.text.len()
        );
    }
}

#[test]
fn sec_01_what_a_symlink_points_at_is_read_by_nobody() {
    const CANARY: &str = "cAnArY-of-the-host-7d1e";
    let mut bench = Bench::example();
    let outside = tempfile::tempdir().unwrap();
    let host = outside.path().join("host.yaml");
    std::fs::write(
        &host,
        format!("proton: EnvironmentSpec\nspec: {{ cluster_name: {CANARY} }}\n# {CANARY}\n"),
    )
    .unwrap();
    let work = bench.work();
    // SEC-02: the same through a chain inside the repository that leads out of it.
    let up: String = "../".repeat(work.components().count() + 2);
    std::fs::remove_file(work.join("environments/beta.yaml")).unwrap();
    symlink(&host, work.join("environments/beta.yaml")).unwrap();
    symlink(
        format!("{up}{}", &host.to_str().unwrap()[1..]),
        work.join("chain"),
    )
    .unwrap();
    std::fs::remove_file(work.join("services/orders.yaml")).unwrap();
    symlink("../chain", work.join("services/orders.yaml")).unwrap();
    let template =
        work.join("templates/service/web/v1/instance_infrastructure/cloudformation.yaml");
    std::fs::remove_file(&template).unwrap();
    symlink(&host, &template).unwrap();
    symlink(outside.path(), work.join("folder")).unwrap();
    bench.edit("isoform.yaml", "stacks/alarms.yaml", "folder/host.yaml");
    let mut said = vec![text(&bench.run(&["validate", work.to_str().unwrap()]))];
    bench.push("links");
    bench.start();
    bench.settle();
    for command in [
        vec!["status"],
        vec!["why", "env/beta"],
        vec!["diff"],
        vec!["plan"],
        vec!["audit", "export"],
    ] {
        said.push(text(&bench.run(&command)));
    }
    bench.stop();
    said.push(bench.log());
    for answer in &said {
        assert!(!answer.contains(CANARY), "{answer}");
    }
    assert_eq!(holding(&bench.root, CANARY.as_bytes()), [""; 0]);
    assert!(said[0].contains("environments/beta.yaml"), "{}", said[0]);
}

#[test]
fn sec_09_two_other_readers_list_our_archives_as_we_do() {
    let name = "sec_09_two_other_readers_list_our_archives_as_we_do";
    let Some(python) = python(name) else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("bundle");
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples/repo-layout/templates/environment/fargate-env/v1"),
        &source,
    );
    write(&source, "schema/ünicode – name.txt", "x");
    write(
        &source,
        &format!("{}/{}.txt", "d".repeat(120), "n".repeat(120)),
        "long",
    );
    let archive = folder.path().join("bundle.tar.gz");
    let built = run(Command::new(ISOFORM)
        .args(["bundle", "build"])
        .arg(&source)
        .arg("--out")
        .arg(&archive));
    assert_eq!(built.code, Some(0), "{}", built.text);
    let script = "import sys, tarfile\nfor m in tarfile.open(sys.argv[1], 'r:gz').getmembers():\n    assert m.isreg() and m.mode == 0o644 and m.uid == m.gid == m.mtime == 0, m\n    print(m.name)";
    let lines = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .arg(&archive)
            .env("LC_ALL", "C.UTF-8")
            .env("PYTHONIOENCODING", "utf-8")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let mut names: Vec<String> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    };
    let by_python = lines(&python, &["-c", script]);
    let by_tar = lines(Path::new("tar"), &["--quoting-style=literal", "-tzf"]);
    assert_eq!(by_python, by_tar);
    let mut ours: Vec<String> = Vec::new();
    let mut open = vec![source.clone()];
    while let Some(here) = open.pop() {
        for entry in std::fs::read_dir(here).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => ours.push(
                    path.strip_prefix(&source)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                ),
            }
        }
    }
    ours.sort();
    assert_eq!(by_python, ours);
}

#[test]
fn sec_10_limits_are_told_before_anything_is_called() {
    let mut bench = Bench::empty(PLACEMENTS);
    let many = |section: &str, count: usize, each: &str| {
        let lines: String = (0..count).map(|i| format!("  N{i}: {each}\n")).collect();
        format!("{section}:\n{lines}")
    };
    let topic = "{ Type: 'AWS::SNS::Topic' }";
    let one = many("Resources", 1, topic);
    bench.write("resources.yaml", &many("Resources", 501, topic));
    bench.write(
        "parameters.yaml",
        &format!("{one}{}", many("Parameters", 10_000, "{ Type: String }")),
    );
    bench.write(
        "large.yaml",
        &format!("{one}Description: '{}'\n", "x".repeat(1 << 20)),
    );
    bench.write(
        "huge.yaml",
        &format!("{one}Description: '{}'\n", "x".repeat(20 << 20)),
    );
    // What CloudFormation takes inline ends at 51,200 bytes; this is put into the bundle store and is fine.
    bench.write(
        "fine.yaml",
        &format!("{one}Metadata: '{}'\n", "x".repeat(51_201)),
    );
    let names = ["resources", "parameters", "large", "huge", "fine"];
    let stacks: String = names
        .iter()
        .map(|n| format!("  {n}: {{ template: {n}.yaml, placement: beta }}\n"))
        .collect();
    bench.write("isoform.yaml", &format!("isoform: 1\nstacks:\n{stacks}"));
    bench.push("limits");
    bench.start();
    bench.settle();
    for name in &names[..4] {
        let condition = bench.condition(&format!("stack/{name}"));
        assert!(!condition.starts_with("InSync"), "{name}: {condition}");
        let why = text(&bench.run(&["why", &format!("stack/{name}")]));
        assert!(!why.contains("CREATE_"), "{why}");
    }
    assert!(bench.condition("stack/fine").starts_with("InSync"));
    assert_eq!(
        bench.calls("CreateChangeSet"),
        1,
        "one of five was worth a call"
    );
}

#[test]
fn sec_11_a_bad_duration_stops_its_own_target_only() {
    for bad in [
        "-5m",
        "0.5h",
        "NaN",
        "1e30s",
        "99999999999999999999d",
        "soon",
        "'5'",
        "[1m]",
    ] {
        let mut bench = Bench::empty(PLACEMENTS);
        bench.write(
            "good.yaml",
            "Resources: { T: { Type: 'AWS::SNS::Topic' } }\n",
        );
        bench.write("isoform.yaml", &format!("isoform: 1\nstacks:\n  bad: {{ template: good.yaml, placement: beta, monitoring: {bad} }}\n  good: {{ template: good.yaml, placement: beta }}\n"));
        bench.push("durations");
        bench.start();
        bench.settle();
        let (good, bad_one) = (bench.condition("stack/good"), bench.condition("stack/bad"));
        assert!(good.starts_with("InSync"), "{bad}: {good}");
        assert!(!bad_one.starts_with("InSync"), "{bad}: {bad_one}");
        bench.stop();
    }
}

#[test]
fn sec_13_hostile_names_reach_no_terminal() {
    let mut bench = Bench::example();
    let evil = "e\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}gpj.\u{2066}x\u{9b}31m\u{61c}";
    bench.write(
        &format!("specs/{evil}.yaml"),
        "proton: EnvironmentSpec\nspec: [\n",
    );
    bench.write(
        "bad.yaml",
        &format!(
            "proton: ServiceSpec\ninstances:\n  - {{ name: \"{evil}\", environment: beta }}\n"
        ),
    );
    bench.edit(
        "isoform.yaml",
        "template: stacks/alarms.yaml",
        &format!("template: \"stacks/{}.yaml\"", "e\\e[2J\\u202egpj"),
    );
    let mut said = vec![
        text(&bench.run(&["validate", bench.work().to_str().unwrap()])),
        bench.push(&format!("{evil}\n\n{evil}")),
    ];
    bench.start();
    bench.settle();
    for command in [
        vec!["status"],
        vec!["why", "stack/alarms"],
        vec!["history", "env/beta"],
        vec!["audit", "list"],
        vec!["diff"],
        vec!["plan"],
        vec!["logs", "env/beta"],
    ] {
        said.push(text(&bench.run(&command)));
    }
    said.push(bench.log());
    bench.stop();
    for answer in &said {
        let bad = answer.chars().find(|c| {
            (c.is_control() && !matches!(c, '\n' | '\t' | '\r'))
                || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        });
        assert!(bad.is_none(), "{bad:?} in {answer:?}");
    }
}

#[test]
fn sec_15_nothing_that_a_repository_names_is_connected_to() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let mut bench = Bench::example();
    bench.write(
        "environments/beta.yaml",
        &format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n",
            "a".repeat(64)
        ),
    );
    bench.write(".lfsconfig", &format!("[lfs]\n\turl = {url}/lfs\n"));
    bench.write(
        ".gitmodules",
        &format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {url}/sub.git\n"),
    );
    let gitlink = format!("160000,{},sub", "1".repeat(40));
    bench.git(&["add", "-A"]);
    bench.git(&["update-index", "--add", "--cacheinfo", &gitlink]);
    bench.git(&["commit", "-q", "-m", "pointers"]);
    bench.git(&["push", "-q", "origin", "main"]);
    bench.start();
    let estate = bench.settle();
    let beta = crate::support::condition(&estate, "env/beta");
    assert!(!beta.starts_with("InSync"), "{beta}");
    let submodule = text(&bench.run(&["status", "--output", "json"]));
    assert!(submodule.contains("git.submodule"), "{submodule}");
    bench.stop();
    assert!(server.accept().is_err(), "somebody connected");
}

#[test]
fn sec_14_collisions_of_sha_1_are_detected_by_the_library_that_hashes() {
    // No collision with Git's header in front is public, so nothing can be fed to it: the published ones (SHAttered,
    // Shambles) begin as a PDF and as a key. What can be shown is that the program hashes objects with the detecting
    // implementation, which is the only place of libgit2 with this error; it is not there with a system's SHA-1.
    let program = std::fs::read(ISOFORM).unwrap();
    let error = b"SHA1 collision attack detected";
    assert!(program.windows(error.len()).any(|w| w == error));
}
