//! Three accounts in two regions under one daemon: what is wrong with one is nobody else's trouble.

use super::proxy::{Call, Fault};
use super::{Ground, account, prepared};
use crate::support::Bench;

const REGIONS: [&str; 2] = ["eu-west-1", "us-east-2"];
const PLACES: [&str; 3] = ["one", "two", "three"];

struct Land {
    ground: Ground,
    accounts: Vec<String>,
    bench: Bench,
}

/// The bucket of an account in a region. Each has its own: MiniStack and LocalEmu do not let CloudFormation of one account read
/// a template that lies in a bucket of another one.
fn bucket(account: &str, region: &str) -> String {
    format!("isoform-{account}-{region}")
}

impl Land {
    fn on(emulator: &str) -> Option<Self> {
        let ground = Ground::on(emulator)?;
        let accounts = vec![ground.account.clone(), account(), account()];
        let bench = Bench::empty("");
        let mut stores = String::new();
        let mut named = format!("  stranger: {{ id: '{}' }}\n", account());
        let mut placed = String::new();
        for (place, id) in PLACES.iter().zip(&accounts) {
            named.push_str(&format!(
                "  {place}: {{ id: '{id}', roles: {{ apply: hand }} }}\n"
            ));
            let mut serves = Vec::new();
            for region in REGIONS {
                let bucket = bucket(id, region);
                let made = prepared(&ground.endpoint, id, region, &bucket);
                ground.runtime.block_on(made);
                stores.push_str(&format!("  {place}-{region}: {{ url: 's3://{bucket}/x', owner: '{id}', encryption: sse-s3, region: {region}, role: 'arn:aws:iam::{id}:role/store' }}\n"));
                serves.push(format!("{region}: {place}-{region}"));
            }
            let line = |name: &str| {
                format!(
                    "  {name}: {{ account: {name}, regions: [{}], mode: auto, blast_radius: 50, bundle_store: {{ {} }} }}\n",
                    REGIONS.join(", "),
                    serves.join(", ")
                )
            };
            placed.push_str(&line(place));
            if *place == PLACES[0] {
                placed.push_str(&line("stranger"));
            }
        }
        let config = format!(
            "isoform: 1
aws: {{ endpoint: '{}' }}
sources: {{ example: {{ url: ./origin.git, may: {{ stacks: ['*'], placements: ['*'], stack_names: ['*'] }} }} }}
home: {}-{}
state: {{ path: state, key: 'file:root.key' }}
poll: 1s
sweep: 300s
workers: 4
bundle_stores:\n{stores}accounts:\n{named}placements:\n{placed}",
            ground.proxy.address, PLACES[0], REGIONS[0]
        );
        std::fs::write(bench.root.join("config.yaml"), config).unwrap();
        Some(Self {
            ground,
            accounts,
            bench,
        })
    }

    /// Asks for a stack in each place, all of the same name and content but for a number.
    fn push(&self, number: u32, places: &[&str]) {
        let mut sync = String::from("isoform: 1\nstacks:\n");
        for place in places {
            sync.push_str(&format!(
                "  {place}: {{ template: topic.yaml, placement: {place}, stack_name: topic }}\n"
            ));
        }
        self.bench.write("isoform.yaml", &sync);
        self.bench.write("topic.yaml", &format!("Resources:\n  T: {{ Type: 'AWS::SNS::Topic', Properties: {{ DisplayName: n{number} }} }}\nOutputs:\n  T: {{ Value: !Ref T }}\n"));
        self.bench.push(&format!("number {number}"));
    }

    /// What was called for an account since so many calls, in order, by region.
    fn called(&self, since: usize, account: &str) -> Vec<Vec<String>> {
        let calls = self.ground.proxy.calls();
        let of = |region: &&str| {
            let ours = |c: &&Call| {
                c.service == "cloudformation" && c.account == account && c.region == **region
            };
            let names = calls[since..].iter().filter(ours).map(|c| c.name.clone());
            // How often it is looked whether a stack rests depends on the emulator.
            let mut names: Vec<String> =
                names.filter(|n| !n.starts_with("DescribeStack")).collect();
            names.dedup();
            names
        };
        REGIONS.iter().map(of).collect()
    }
}

fn address(place: &str, region: &str) -> String {
    format!("stack/{place}@{region}")
}

fn kept_apart(emulator: &str) {
    let Some(mut land) = Land::on(emulator) else {
        return;
    };
    land.push(1, &PLACES);
    land.bench.start();
    land.bench.in_sync(6);
    let mut ids = Vec::new();
    for account in &land.accounts {
        for region in REGIONS {
            let found = land.ground.stacks_of(account, region);
            let [(name, status, id)] = &found[..] else {
                panic!("{account} {region}: {found:?}")
            };
            assert_eq!(
                (name.as_str(), status.as_str()),
                ("topic", "CREATE_COMPLETE")
            );
            assert!(id.contains(&format!(":{region}:{account}:")), "{id}");
            ids.push(id.clone());
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 6);

    // Nothing was said to an account or region about another one.
    for call in land
        .ground
        .proxy
        .calls()
        .iter()
        .filter(|c| c.service == "cloudformation")
    {
        assert!(land.accounts.contains(&call.account), "{call:?}");
    }
    let since = land.ground.proxy.calls().len();
    land.push(2, &PLACES);
    land.bench.in_sync(6);
    let quiet = land.called(since, &land.accounts[2]);
    assert!(
        quiet
            .iter()
            .all(|names| names.contains(&"ExecuteChangeSet".to_owned())),
        "{quiet:?}"
    );

    // One account denies everything, another one throttles everything: the third goes its way, call by call as before.
    let (denied, throttled) = (land.accounts[0].clone(), land.accounts[1].clone());
    land.ground
        .proxy
        .judge(usize::MAX, move |call, _| match call.service.as_str() {
            "cloudformation" if call.account == denied => Some(Fault::Denied),
            "cloudformation" if call.account == throttled => Some(Fault::Throttled),
            _ => None,
        });
    let since = land.ground.proxy.calls().len();
    land.push(3, &PLACES);
    for region in REGIONS {
        land.bench
            .becomes(&address("one", region), "Failed(ChangeSetFailed)");
        land.bench
            .becomes(&address("two", region), "Unknown(Unavailable)");
        land.bench
            .becomes(&address("three", region), "InSync(Settled)");
    }
    assert_eq!(land.called(since, &land.accounts[2]), quiet);
    let why = land.bench.cli(&["why", &address("one", REGIONS[0])], 1);
    assert!(
        why.contains("access denied") && why.contains("AccessDenied"),
        "{why}"
    );

    // The throttled one goes on by itself, the denied one when a person says so.
    land.ground.proxy.calm();
    for region in REGIONS {
        land.bench
            .becomes(&address("two", region), "InSync(Settled)");
        land.bench.cli(&["retry", &address("one", region)], 0);
    }
    land.bench.in_sync(6);
    land.bench.cli(&["audit", "verify"], 0);
    land.bench.stop();
}

fn a_store_is_out(emulator: &str) {
    let Some(mut land) = Land::on(emulator) else {
        return;
    };
    land.push(1, &PLACES);
    land.bench.start();
    land.bench.in_sync(6);

    let out = format!("/{}/", bucket(&land.accounts[1], REGIONS[1]));
    let rule = move |call: &Call, _| call.path.starts_with(&out);
    land.ground.proxy.rule(Fault::Gateway, usize::MAX, rule);
    land.push(2, &PLACES);
    for place in PLACES {
        for region in REGIONS {
            let is_out = (place, region) == (PLACES[1], REGIONS[1]);
            let wanted = if is_out {
                "Unknown(Unavailable)"
            } else {
                "InSync(Settled)"
            };
            land.bench.becomes(&address(place, region), wanted);
        }
    }
    let head = land.bench.head();
    let estate = land.bench.estate();
    assert_eq!(estate["commits"]["example"]["revision"], head.as_str());

    land.ground.proxy.calm();
    land.bench.in_sync(6);
    land.bench.stop();
}

fn a_stranger_is_refused(emulator: &str) {
    let Some(mut land) = Land::on(emulator) else {
        return;
    };
    // No role leads to that account: the daemon's own credentials are of another one.
    land.push(1, &["one", "stranger"]);
    land.bench.start();
    for region in REGIONS {
        land.bench
            .becomes(&address("one", region), "InSync(Settled)");
        land.bench
            .becomes(&address("stranger", region), "Failed(ChangeSetFailed)");
        let why = land.bench.cli(&["why", &address("stranger", region)], 1);
        assert!(why.contains("the credentials are of the account"), "{why}");
    }
    let calls = land.ground.proxy.calls();
    let own = |c: &&Call| c.service == "cloudformation" && c.account.is_empty();
    assert_eq!(
        calls.iter().filter(own).count(),
        0,
        "it was called with the wrong credentials"
    );
    land.bench.stop();
}

macro_rules! on {
    ($($module:ident $name:literal $($test:ident $run:ident),*;)*) => {
        $(mod $module {
            $(#[test]
            fn $test() {
                super::$run($name);
            })*
        })*
    };
}
on! {
    on_ministack "ministack"
        what_is_wrong_with_an_account_is_its_own_trouble kept_apart,
        a_bundle_store_that_is_out_stops_what_it_serves_and_nothing_else a_store_is_out,
        credentials_of_a_stranger_call_nothing a_stranger_is_refused;
    on_localemu "localemu"
        what_is_wrong_with_an_account_is_its_own_trouble kept_apart,
        a_bundle_store_that_is_out_stops_what_it_serves_and_nothing_else a_store_is_out,
        credentials_of_a_stranger_call_nothing a_stranger_is_refused;
    // moto says of no change whether it replaces, so that every update waits for a person.
    on_moto "moto"
        credentials_of_a_stranger_call_nothing a_stranger_is_refused;
}
