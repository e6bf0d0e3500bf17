//! Every call of a deployment, broken in every way: the end is the same, and nothing is executed twice.
//!
//! What is broken is told by the stack that a call is about, so that many stacks of one daemon meet one fault each beside each
//! other. Calls that are about no stack (roles, keys, the log, bundles) have a daemon of their own for each fault.
//! `ISOFORM_EMULATED=full` tries everything, otherwise a choice that differs with `ISOFORM_SEED`.

use std::collections::BTreeMap;

use super::proxy::{Call, Fault};
use super::{Ground, environment, everything};
use crate::support::Bench;

/// What fails three times in a row is not mended by the SDK, which tries three times: the line has to.
const TIMES: usize = 3;

fn seed() -> u64 {
    let named = std::env::var("ISOFORM_SEED").ok();
    named.and_then(|t| t.parse().ok()).unwrap_or(1)
}

/// A number that follows from a seed and words, evenly.
fn mixed(seed: u64, words: &[&str]) -> u64 {
    let bytes = words.iter().flat_map(|w| w.bytes().chain([0]));
    let mixed = bytes.fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
}

/// Leaves so many of a list, the same ones for one seed.
fn chosen<T>(mut all: Vec<(String, T)>, most: usize) -> Vec<(String, T)> {
    if !everything() {
        all.sort_by_key(|(name, _)| mixed(seed(), &[name]));
        all.truncate(most);
    }
    all
}

fn template(stack: &str) -> String {
    format!(
        "Description: 'stack-of-the-tests: {stack} '\nResources:\n  T: {{ Type: 'AWS::SNS::Topic', Properties: {{ DisplayName: {stack} }} }}\nOutputs:\n  Topic: {{ Value: !Ref T }}\n"
    )
}

/// Writes a commit with a stack of each name.
fn write(bench: &Bench, names: &[String]) {
    let mut sync = String::from("isoform: 1\nstacks:\n");
    for name in names {
        bench.write(&format!("stacks/{name}.yaml"), &template(name));
        sync.push_str(&format!(
            "  {name}: {{ template: stacks/{name}.yaml, placement: beta, stack_name: {name} }}\n"
        ));
    }
    bench.write("isoform.yaml", &sync);
}

/// Everything is as it would be without a fault: each stack is there once, was executed once, and the chain verifies.
fn as_without_faults(ground: &Ground, bench: &Bench, names: &[String]) {
    let mut wanted: Vec<_> = names
        .iter()
        .map(|n| (n.clone(), "CREATE_COMPLETE".to_owned()))
        .collect();
    wanted.sort();
    assert_eq!(ground.stacks(), wanted);
    for name in names {
        let calls = ground.proxy.calls();
        let of_it: Vec<&Call> = calls.iter().filter(|c| c.what == *name).collect();
        assert_eq!(
            ground.proxy.accepted("ExecuteChangeSet", name),
            1,
            "{name} was not executed exactly once: {of_it:#?}"
        );
        assert_eq!(
            ground.proxy.accepted("DeleteStack", name),
            0,
            "{name}: {of_it:#?}"
        );
    }
    let left = ground.change_sets(names);
    assert!(left.is_empty(), "change sets are left behind: {left:?}");
    bench.cli(&["audit", "verify"], 0);
}

/// The calls about one stack, in order: name, and the how many-th of this name.
fn recorded(ground: &Ground, what: &str) -> Vec<(String, usize)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for call in ground.proxy.calls().iter().filter(|c| c.what == what) {
        let number = seen.entry(call.name.clone()).or_default();
        // How often it is looked whether a stack rests yet depends on the emulator.
        if *number < 4 {
            out.push((call.name.clone(), *number));
        }
        *number += 1;
    }
    out
}

fn a_fault_at_any_call_about_a_stack(emulator: &str) {
    let Some(ground) = Ground::on(emulator) else {
        return;
    };
    let mut bench = ground.bench("auto");
    let plain = vec!["plain".to_owned()];
    write(&bench, &plain);
    bench.push("one stack");
    bench.start();
    bench.in_sync(1);
    let calls = recorded(&ground, "plain");
    for name in [
        "PutObject",
        "HeadObject",
        "CreateChangeSet",
        "GetTemplate",
        "ExecuteChangeSet",
    ] {
        assert!(calls.iter().any(|(n, _)| n == name), "{name}: {calls:?}");
    }

    let mut cases = Vec::new();
    for (name, number) in &calls {
        for fault in Fault::PASSING {
            let stack = format!("{name}-{number}-{fault:?}").to_lowercase();
            cases.push((stack, Some((name.clone(), *number, fault))));
        }
    }
    let mut cases = chosen(cases, 36);
    // The two that would be the worst are always among them, and some with faults at many calls.
    for (name, fault) in [
        ("ExecuteChangeSet", Fault::Lost),
        ("CreateChangeSet", Fault::Lost),
    ] {
        let stack = format!("{name}-0-{fault:?}").to_lowercase();
        if !cases.iter().any(|(n, _)| *n == stack) {
            cases.push((stack, Some((name.to_owned(), 0, fault))));
        }
    }
    for turn in 0..if everything() { 24 } else { 6 } {
        cases.push((format!("many-{}-{turn}", seed()), None));
    }
    for (stack, case) in &cases {
        let stack = stack.clone();
        match case.clone() {
            Some((name, number, fault)) => ground.proxy.rule(fault, TIMES, move |call, before| {
                call.what == stack && call.name == name && before >= number
            }),
            None => ground.proxy.judge(8, move |call, before| {
                let words = [&*stack, &*call.name, &*before.to_string()];
                let drawn = mixed(seed(), &words) as usize;
                let faults = Fault::PASSING;
                let broken = call.what == stack && drawn.is_multiple_of(3);
                broken.then(|| faults[drawn / 3 % faults.len()])
            }),
        }
    }
    let mut names: Vec<String> = cases.iter().map(|(n, _)| n.clone()).collect();
    names.push("plain".into());
    write(&bench, &names);
    bench.push("a stack for every fault");
    bench.in_sync(names.len());

    as_without_faults(&ground, &bench, &names);
    let calls = ground.proxy.calls();
    let met = |stack: &String| calls.iter().any(|c| c.what == *stack && c.fault.is_some());
    for (stack, _) in cases.iter().filter(|(_, case)| case.is_some()) {
        assert!(met(stack), "the fault of {stack} was never met");
    }
    let mut mixtures = cases.iter().filter(|(_, case)| case.is_none());
    assert!(mixtures.any(|(stack, _)| met(stack)));
    bench.stop();
}

/// A deployment from an empty state folder, with a template and a sealed bundle.
fn whole(bench: &mut Bench) {
    environment(bench, "net", "net");
    bench.write(
        "isoform.yaml",
        "isoform: 1\nenvironments:\n  net: { template: net@1, spec: net.yaml, placement: beta, stack_name: net }\n",
    );
    bench.push("an environment");
    // A start that meets a fault may end; whatever supervises the daemon starts it again.
    for _ in 0..8 {
        if bench.try_start() {
            break;
        }
    }
    bench.in_sync(1);
}

fn a_fault_at_any_call_about_no_stack(emulator: &str) {
    let Some(ground) = Ground::on(emulator) else {
        return;
    };
    let mut bench = ground.bench("auto");
    whole(&mut bench);
    bench.stop();
    let kinds = |c: &Call| (c.name.clone(), kind(c));
    let mut calls: Vec<(String, String)> = ground.proxy.calls().iter().map(kinds).collect();
    calls.sort();
    calls.dedup();
    calls.retain(|(_, kind)| kind != "net");
    for name in [
        "AssumeRole",
        "GetCallerIdentity",
        "GenerateDataKey",
        "PutObject",
    ] {
        assert!(calls.iter().any(|(n, _)| n == name), "{name}: {calls:?}");
    }

    let mut cases = Vec::new();
    for (name, of) in &calls {
        for fault in Fault::PASSING {
            let case = (name.clone(), of.clone(), fault);
            cases.push((format!("{name} {of} {fault:?}"), case));
        }
    }
    for (case, (name, of, fault)) in chosen(cases, 10) {
        let Some(ground) = Ground::on(emulator) else {
            return;
        };
        println!("{case}");
        let mut bench = ground.bench("auto");
        ground.proxy.rule(fault, TIMES, move |call, _| {
            call.name == name && kind(call) == of
        });
        whole(&mut bench);
        as_without_faults(&ground, &bench, &["net".to_owned()]);
        let fired = ground.proxy.calls().iter().any(|c| c.fault.is_some());
        assert!(fired, "{case} was never met");
        // What cannot be shipped at the end is told by how the daemon ends.
        ground.proxy.calm();
        bench.stop();
    }
}

/// What a call is about, without what differs from run to run: the folder of an object, the name of a role.
fn kind(call: &Call) -> String {
    match call.service.as_str() {
        "s3" if call.what == call.path => {
            let end = if call.path.ends_with(".json") {
                " statement"
            } else {
                ""
            };
            let folder = call.path.split('/').nth(3).unwrap_or("bucket");
            format!("{folder}{end}")
        }
        "sts" => call.what.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => call.what.clone(),
    }
}

mod on_ministack {
    #[test]
    fn a_fault_at_any_call_about_a_stack_changes_nothing_in_the_end() {
        super::a_fault_at_any_call_about_a_stack("ministack");
    }

    #[test]
    fn a_fault_at_any_call_about_no_stack_changes_nothing_in_the_end() {
        super::a_fault_at_any_call_about_no_stack("ministack");
    }
}
