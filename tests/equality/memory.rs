//! A hostile template takes no more memory than `docs/formats/rendering.md` says, and no call takes long.

use std::process::{Command, Stdio};

use isoform::domain::render::{Limits, render};
use serde_json::json;

/// The most that one rendering may add to the process. The limit on work is 64 MiB; a text may be held twice while it
/// grows, and an item that was paid as 32 bytes can take as many again.
const BOUND: u64 = 128 << 20;

/// Templates that would take gigabytes or minutes if nothing counted.
const HOSTILE: &[&str] = &[
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = ns.l + ['x' * 100000 ~ i] %}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(20000) %}{% set ns.l = ns.l + [i] %}{% endfor %}",
    "{% for i in range(90000) %}{% set x = 'x' * 4000000 %}{% endfor %}",
    "{{ ('x' * 4000000) | list | length }}",
    "{% for i in range(9000) %}{% set x = ('x,' * 40000).split(',') %}{% endfor %}",
    "{% for i in range(9000) %}{{ ('ab' * 1000000) | replace('a', 'aaaa') | length }}{% endfor %}",
    "{{ ('a' * 250000) | wordwrap(1) | length }}",
    "{{ ('- ' * 120000) | wordwrap(1) | length }}",
    "{{ ('\n' * 2000000) | indent(60) | length }}",
    "{{ '%4000000d' | format(1) ~ '%4000000d' | format(1) ~ '%4000000d' | format(1) }}",
    "{{ ('{:4000000}' * 100).format('a','a','a','a','a','a','a','a','a','a') }}",
    "{% set x %}{% for i in range(90000) %}RAW{% endfor %}{% endset %}{{ x | length }}",
    "{% macro m() %}{% for i in range(40000) %}RAW{% endfor %}{% endmacro %}{% for i in range(4) %}{{ m() }}{% endfor %}",
    // A shared value that is a tree of 2^40 leaves when it is walked.
    "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
    "{% set ns = namespace(a=(1,)) %}{% for i in range(40) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}{{ {ns.a: 1} | length }}",
    "{% set ns = namespace(a=(1,)) %}{% for i in range(40) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}{{ ns.a in {1: 2} }}",
    "{% set ns = namespace(a=(1,)) %}{% for i in range(40) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}{{ {'a': 1}[ns.a] is defined }}",
    "{% set ns = namespace(a=[1]) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ [ns.a, ns.a] | sort | length }}",
    "{% set ns = namespace(a=[1]) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | pprint }}",
    "{% set ns = namespace(a=[1]) %}{% for i in range(40) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | tojson | length }}",
    "{% set ns = namespace(a=[]) %}{% for i in range(50000) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a is defined }}",
];

/// Raw text is large, and a loop prints it often.
fn large() -> Vec<String> {
    let raw = "r".repeat(900_000);
    vec![
        format!("{{% for i in range(90000) %}}{raw}{{% endfor %}}"),
        format!("{{% set x %}}{{% for i in range(90000) %}}{raw}{{% endfor %}}{{% endset %}}"),
        format!(
            "{}{{{{ o | proton_cfn_lambda_function_formatted_env_vars }}}}",
            " ".repeat(900_000)
        ),
        format!(
            "{{{{ dict({}) }}}}",
            (0..70_000)
                .map(|i| format!("a{i}=x"))
                .collect::<Vec<_>>()
                .join(",")
        ),
        format!("{{{{ range({}) }}}}", "1,".repeat(70_000)),
    ]
}

/// The work of the child: renders one of them and prints how far its memory went up.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    let index: usize = std::env::var("ISOFORM_HOSTILE").unwrap().parse().unwrap();
    let text = HOSTILE
        .iter()
        .map(ToString::to_string)
        .chain(large())
        .nth(index)
        .unwrap();
    let outputs: serde_json::Map<String, serde_json::Value> =
        (0..9000).map(|i| (format!("k{i}"), json!("v"))).collect();
    let before = peak();
    let result = std::thread::Builder::new()
        .stack_size(16 << 20)
        .spawn(move || render("t", &text, &json!({ "o": outputs }), &Limits::default()))
        .unwrap()
        .join()
        .unwrap();
    println!(
        "GREW {} {}",
        peak() - before,
        result.map_or_else(
            |f| f.code.to_string(),
            |r| format!("{} bytes", r.text.len())
        )
    );
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

#[test]
fn sec_12_no_template_takes_more_memory_than_its_bound() {
    if !cfg!(target_os = "linux") {
        println!(
            "SKIP sec_12_no_template_takes_more_memory_than_its_bound: the peak is read where Linux shows it"
        );
        return;
    }
    let all = HOSTILE.len() + large().len();
    let mut grew = Vec::new();
    for index in 0..all {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::child", "--ignored", "--nocapture"])
            .env("ISOFORM_HOSTILE", index.to_string())
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text
            .lines()
            .find_map(|l| l.split_once("GREW "))
            .map(|l| l.1);
        let line = line.unwrap_or_else(|| panic!("template {index} ended the process: {text}"));
        let bytes: u64 = line.split(' ').next().unwrap().parse().unwrap();
        println!("{index:2} {} KiB, {line}", bytes >> 10);
        assert!(bytes <= BOUND, "template {index} took {bytes} bytes");
        grew.push(bytes);
    }
    println!("the most was {} MiB", grew.iter().max().unwrap() >> 20);
}
