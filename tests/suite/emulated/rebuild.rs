//! The state folder is lost, and nothing is left but Git, the bundle store, the account and the root key.

use serde_json::{Value, json};

use super::Ground;
use crate::support::Bench;

const WRITES: [&str; 6] = [
    "CreateChangeSet",
    "ExecuteChangeSet",
    "DeleteChangeSet",
    "DeleteStack",
    "SetStackPolicy",
    "UpdateTerminationProtection",
];

fn topic(name: &str) -> String {
    format!(
        "Resources:\n  T: {{ Type: 'AWS::SNS::Topic', Properties: {{ DisplayName: {name} }} }}\nOutputs:\n  T: {{ Value: !Ref T }}\n"
    )
}

/// What must be the same before and after: who is who, what serves, what waits, who has said yes, who is suspended.
fn known(estate: &Value) -> Value {
    let of = |target: &Value| {
        let mut kept =
            json!({ "condition": [target["condition"]["result"], target["condition"]["reason"]] });
        for field in [
            "address",
            "uid",
            "stack_name",
            "serving",
            "review",
            "approvals",
            "last",
            "suspended",
        ] {
            kept[field] = target[field].clone();
        }
        kept
    };
    let all = estate["targets"].as_array().unwrap().iter().map(of);
    json!({ "installation": estate["installation"], "targets": all.collect::<Vec<_>>() })
}

/// Entries of the log that say what was done to targets, without those of looking.
fn deeds(bench: &Bench) -> Vec<String> {
    let listed = bench.cli(&["audit", "list", "--output", "json"], 0);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let entries = listed["entries"].as_array().unwrap().iter();
    let of_targets = entries.filter(|e| e["stream"].to_string().contains("target"));
    of_targets.map(|e| e["hash"].to_string()).collect()
}

/// Says yes where the emulator does not say whether a change replaces.
fn yes(bench: &Bench, emulator: &str, target: &str) {
    if emulator == "moto" {
        bench.becomes(target, "Pending(Approval)");
        bench.cli(&["approve", target], 0);
    }
    bench.settle();
}

fn state_is_lost(emulator: &str) {
    let Some(ground) = Ground::on(emulator) else {
        return;
    };
    let mut bench = ground.bench("auto");
    let config = bench.root.join("config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let two = "prod: { account: beta, regions: [eu-west-1], mode: approve, gates: { approve: { count: 2 } }, blast_radius: 500 }";
    std::fs::write(
        &config,
        text.replace("placements: { ", &format!("placements: {{ {two}, ")),
    )
    .unwrap();
    for name in ["served", "suspended", "waiting"] {
        bench.write(&format!("{name}.yaml"), &topic(name));
    }
    bench.write(
        "isoform.yaml",
        "isoform: 1\nstacks:\n  served: { template: served.yaml, placement: beta }\n  suspended: { template: suspended.yaml, placement: beta }\n  waiting: { template: waiting.yaml, placement: prod }\n",
    );
    bench.push("three stacks");
    bench.start();
    bench.becomes("stack/served", "InSync(Settled)");
    bench.becomes("stack/suspended", "InSync(Settled)");
    bench.becomes("stack/waiting", "Pending(Approval)");
    bench.cli(&["approve", "stack/waiting"], 0);
    bench.cli(
        &["suspend", "stack/suspended", "--reason", "for the test"],
        0,
    );
    bench.write("served.yaml", &topic("again"));
    bench.write("suspended.yaml", &topic("again"));
    bench.push("two of them change");
    bench.becomes("stack/suspended", "Held(Suspended)");
    yes(&bench, emulator, "stack/served");
    bench.becomes("stack/served", "InSync(Settled)");
    let (before, done) = (known(&bench.settle()), deeds(&bench));
    let approvals = |of: &Value| of.to_string().matches("\"approvals\":[\"").count();
    assert_eq!(approvals(&before), 1, "one of two has said yes: {before:#}");
    bench.stop();
    let written = ground.proxy.counts(&WRITES);

    std::fs::remove_dir_all(bench.root.join("state")).unwrap();
    bench.start();
    let after = known(&bench.settle());
    assert_eq!(after, before);
    assert_eq!(deeds(&bench), done);
    assert_eq!(
        ground.proxy.counts(&WRITES),
        written,
        "something was written"
    );

    // It goes on where it was: with the next generation, and with what was suspended.
    bench.cli(&["resume", "stack/suspended"], 0);
    yes(&bench, emulator, "stack/suspended");
    bench.becomes("stack/suspended", "InSync(Settled)");
    bench.write("served.yaml", &topic("once-more"));
    bench.push("one of them changes");
    yes(&bench, emulator, "stack/served");
    bench.becomes("stack/served", "InSync(Settled)");
    assert!(ground.proxy.sent("-g3-") > 0, "the generation went back");
    bench.becomes("stack/waiting", "Pending(Approval)");
    bench.cli(&["audit", "verify"], 0);
    bench.stop();
}

macro_rules! on {
    ($($module:ident $name:literal),*) => {
        $(mod $module {
            #[test]
            fn a_daemon_without_its_state_comes_back_as_it_was() {
                super::state_is_lost($name);
            }
        })*
    };
}
on!(on_ministack "ministack", on_localemu "localemu", on_moto "moto");
