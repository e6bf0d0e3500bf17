//! Taking over stacks that another installation left behind: as Proton did.

use std::sync::Arc;

use async_trait::async_trait;
use isoform::clock::Clock;
use isoform::config::Config;
use isoform::daemon;
use isoform::domain::model::Actor;
use isoform::domain::plan::ChangeSetStatus;
use isoform::local::{LocalEngine, LocalObjects, World};
use isoform::port::{
    Error, ObjectStore, OnFailure, Proposal, Put, Roles, StackEngine, StackRef, body,
};
use isoform::testing::faults::Faulty;

use crate::support::{Bench, PLACEMENTS};
use crate::world::topic;

const SYNC: &str = "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: AWSProton-topic, tags: { team: orders } }\n";

/// Empties the bundle store: what the other installation knew is lost.
fn forget(cloud: &std::path::Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = World::open(cloud, Clock::system(), 1.0).await.unwrap();
        let store = LocalObjects::new(world, "bundles");
        let page = store.list("", None).await.unwrap();
        assert!(page.next.is_none());
        for object in page.items {
            store.delete(&object.key).await.unwrap();
        }
    });
}

/// A world in which somebody else made a stack: another installation, of which only the stack is left.
fn left_behind(placements: &str) -> Bench {
    let mut bench = Bench::empty(PLACEMENTS);
    bench.write("topic.yaml", &topic("one"));
    bench.write("isoform.yaml", SYNC);
    bench.push("a topic");
    bench.start();
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
    bench.stop();
    std::fs::remove_dir_all(bench.root.join("state")).unwrap();
    let config = bench.root.join("config.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(PLACEMENTS, placements)).unwrap();
    forget(&bench.root.join("cloud"));
    bench.start();
    bench
}

/// Makes a stack as somebody does who has no isoform: without its tags, with a secret.
fn by_hand(bench: &Bench, template: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (cloud, template) = (bench.root.join("cloud"), template.to_owned());
    runtime.block_on(async {
        let world = World::open(&cloud, Clock::system(), 0.01).await.unwrap();
        let store = LocalObjects::new(world.clone(), "theirs");
        store
            .put("t.yaml", body(template), &Put::default())
            .await
            .unwrap();
        let account = "000000000001".parse().unwrap();
        let engine = LocalEngine::new(world, account, "us-east-1".parse().unwrap());
        let proposal = Proposal {
            stack: "AWSProton-orders".parse().unwrap(),
            name: "by-proton".into(),
            token: "t".into(),
            create: true,
            import: [].into(),
            template_url: store.url("t.yaml", None),
            parameters: [("Word".to_owned(), "hunter2-hunter2".to_owned())].into(),
            kept: std::collections::BTreeSet::new(),
            tags: [("proton:service".to_owned(), "orders".to_owned())].into(),
            capabilities: Vec::new(),
            notification_arns: Vec::new(),
            rollback_triggers: Vec::new(),
            monitoring_minutes: 0,
            on_failure: OnFailure::Rollback,
        };
        let proposed = engine.propose(&proposal).await.unwrap();
        while engine.review(&proposed.change_set).await.unwrap().status == ChangeSetStatus::Creating
        {
        }
        engine.execute(&proposed.change_set, "x").await.unwrap();
        let stack = StackRef::Id(proposed.stack_id);
        while !engine
            .describe(&stack)
            .await
            .unwrap()
            .unwrap()
            .status
            .is_settled()
        {}
    });
}

#[test]
fn a_stack_of_proton_gets_no_tag_and_its_secret_stays_what_it_is() {
    let secret = "Parameters:\n  Word: { Type: String, NoEcho: true }\nResources:\n  T: { Type: AWS::SNS::Topic, Properties: { DisplayName: !Ref Word } }\n";
    let mut bench = Bench::empty(PLACEMENTS);
    by_hand(&bench, secret);
    let sync = |bench: &Bench, word: &str| {
        bench.write("isoform.yaml", &format!("isoform: 1\nstacks:\n  orders: {{ template: topic.yaml, placement: beta, stack_name: AWSProton-orders, parameters: {{ Word: {word} }}, tags: {{ 'proton:service': orders }} }}\n"));
    };
    // The same template in another dress, which means the same.
    bench.write("topic.yaml", "# orders\nResources: { T: { Properties: { DisplayName: { Ref: Word } }, Type: AWS::SNS::Topic } }\nParameters: { Word: { NoEcho: true, Type: String } }\n");
    sync(&bench, "another-secret");
    bench.push("orders");
    bench.start();
    bench.becomes("stack/orders", "Foreign(NotOurs)");
    let said = bench.cli(&["adopt", "stack/orders"], 2);
    assert!(
        !said.contains("hunter2") && !said.contains("another-secret"),
        "{said}"
    );

    sync(&bench, "hunter2-hunter2");
    bench.push("the secret that it has");
    bench.settle();
    let said = bench.cli(&["adopt", "stack/orders"], 0);
    assert!(
        !said.contains("hunter2") && !said.contains("differs"),
        "{said}"
    );
    bench.becomes("stack/orders", "InSync(Settled)");
    // The first change is of what Git changed, and of nothing else.
    bench.write(
        "topic.yaml",
        &format!("{secret}  U: {{ Type: AWS::SNS::Topic }}\n"),
    );
    let shown = bench.cli(&["diff"], 2);
    assert!(shown.contains("+ U") && !shown.contains("~ T"), "{shown}");
    bench.push("one more");
    bench.settle();
    assert_eq!(bench.condition("stack/orders"), "InSync(Settled)");
    bench.stop();
}

#[test]
fn what_was_changed_by_hand_is_told_and_kept_and_stops_nothing() {
    let bench = left_behind(PLACEMENTS);
    bench.becomes("stack/topic", "Foreign(NotOurs)");
    let as_it_is = bench.cli(&["adopt", "stack/topic", "--check", "--drift"], 0);
    assert!(
        as_it_is.contains("every resource is what the stack says"),
        "{as_it_is}"
    );
    let change = ["local", "change", "AWSProton-topic", "T", "--set"];
    bench.cli(&[&change[..], &["DisplayName=by hand"]].concat(), 0);

    let without = bench.cli(&["adopt", "stack/topic", "--check"], 0);
    let said = bench.cli(&["adopt", "stack/topic", "--drift"], 0);

    assert!(!without.contains("by hand"), "{without}");
    assert!(
        said.contains("T (AWS::SNS::Topic) was changed by hand: DisplayName")
            && said.contains("adopted"),
        "{said}"
    );
    bench.becomes("stack/topic", "InSync(Settled)");
}

fn writes(bench: &Bench) -> Vec<i64> {
    [
        "CreateChangeSet",
        "ExecuteChangeSet",
        "DeleteStack",
        "SetStackPolicy",
        "UpdateTerminationProtection",
    ]
    .map(|call| bench.calls(call))
    .to_vec()
}

#[test]
fn a_stack_that_is_what_git_asks_for_is_taken_over_and_nothing_is_changed() {
    let mut bench = left_behind(PLACEMENTS);
    bench.becomes("stack/topic", "Foreign(NotOurs)");
    let why = bench.cli(&["why", "stack/topic"], 3);
    assert!(why.contains("isoform adopt stack/topic"), "{why}");
    let before = writes(&bench);

    let checked = bench.cli(&["adopt", "stack/topic", "--check"], 0);
    assert!(checked.contains("it can be adopted"), "{checked}");
    assert_eq!(bench.condition("stack/topic"), "Foreign(NotOurs)");
    let said = bench.cli(&["adopt", "stack/topic", "--stack", "AWSProton-topic"], 0);
    assert!(
        said.contains("adopted") && said.contains("finds nothing to change"),
        "{said}"
    );
    bench.becomes("stack/topic", "InSync(Settled)");
    // Two change sets that found nothing, and both are gone.
    let mut after = before.clone();
    after[0] += 2;
    assert_eq!(writes(&bench), after);
    assert_eq!(bench.calls("DeleteChangeSet"), 2);
    let again = bench.cli(&["adopt", "stack/topic"], 1);
    assert!(again.contains("has a stack already"), "{again}");

    // It goes on as every other: in sync after a restart and after a lost state folder, and the next push is a change of it.
    bench.stop();
    std::fs::remove_dir_all(bench.root.join("state")).unwrap();
    bench.start();
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
    assert_eq!(writes(&bench), after);
    bench.write("topic.yaml", &topic("two"));
    bench.push("two");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "InSync(Settled)");
    assert_eq!(bench.calls("ExecuteChangeSet"), after[1] + 1);
    bench.cli(&["audit", "verify"], 0);
    // Back to what was found.
    bench.cli(&["rollback", "stack/topic", "--reason", "as it was"], 0);
    bench.becomes("stack/topic", "Held(Pinned)");
}

#[test]
fn it_can_be_taken_over_while_the_daemon_only_observes() {
    let bench = left_behind(&PLACEMENTS.replace("mode: auto", "mode: observe"));
    bench.becomes("stack/topic", "Pending(Observe)");
    bench.cli(&["adopt", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn a_stack_in_which_something_would_change_is_not_taken_over() {
    let bench = left_behind(PLACEMENTS);
    bench.write("topic.yaml", &topic("another name"));
    bench.write(
        "isoform.yaml",
        &SYNC.replace("tags: { team: orders }", "tags: {}"),
    );
    bench.push("something else");
    bench.becomes("stack/topic", "Foreign(NotOurs)");
    bench.settle();

    let said = bench.cli(&["adopt", "stack/topic"], 2);
    assert!(
        said.contains("not adopted") && said.contains("DisplayName"),
        "{said}"
    );
    assert!(said.contains("{\"team\":\"orders\"}"), "{said}");
    assert_eq!(bench.condition("stack/topic"), "Foreign(NotOurs)");
    assert_eq!(bench.calls("ExecuteChangeSet"), 1);
}

#[test]
fn what_cannot_be_taken_over_says_why() {
    let bench = left_behind(PLACEMENTS);
    bench.becomes("stack/topic", "Foreign(NotOurs)");
    for (stack, code, words) in [
        ("nothing-there", 64, "there is no stack `nothing-there`"),
        (
            "arn:aws:cloudformation:eu-west-1:000000000001:stack/AWSProton-topic/u",
            1,
            "is not in us-east-1",
        ),
        ("no name", 64, "no name"),
    ] {
        let said = bench.cli(&["adopt", "stack/topic", "--stack", stack], code);
        assert!(said.contains(words), "{said}");
    }
    bench.cli(&["adopt", "stack/nothing"], 64);
    // Another target has it: one owner.
    bench.cli(&["adopt", "stack/topic"], 0);
    bench.write(
        "isoform.yaml",
        &format!("{SYNC}  other: {{ template: topic.yaml, placement: beta, stack_name: else }}\n"),
    );
    bench.push("another");
    bench.settle();
    let said = bench.cli(&["adopt", "stack/other", "--stack", "AWSProton-topic"], 1);
    assert!(
        said.contains("already") || said.contains("names the stack `else`"),
        "{said}"
    );
}

#[test]
fn what_is_left_of_an_adoption_that_did_not_end_is_no_claim() {
    let bench = left_behind(PLACEMENTS);
    bench.becomes("stack/topic", "Foreign(NotOurs)");
    let checked = bench.cli(&["adopt", "stack/topic", "--check", "--output", "json"], 0);
    let checked: serde_json::Value = serde_json::from_str(&checked).unwrap();
    let stack = checked["stack"].as_str().unwrap().replace(['/', ':'], "_");
    let estate = bench.estate();
    let uid = estate["targets"][0]["uid"].as_str().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cloud = bench.root.join("cloud");
        let world = World::open(&cloud, Clock::system(), 1.0).await.unwrap();
        let store = LocalObjects::new(world, "bundles");
        let claim = body(format!("{uid} adopted"));
        store
            .put(&format!("owners/{stack}"), claim, &Put::default())
            .await
            .unwrap();
    });
    // Nothing was proved: it is not taken for ours, and can be proved again.
    bench.push("a look");
    bench.settle();
    assert_eq!(bench.condition("stack/topic"), "Foreign(NotOurs)");
    bench.cli(&["adopt", "stack/topic"], 0);
    bench.becomes("stack/topic", "InSync(Settled)");
}

/// Roles of which one exists, with a trust policy.
struct Known {
    given: Option<String>,
    trust: Result<Option<&'static str>, Error>,
}

#[async_trait]
impl Roles for Known {
    fn given(&self) -> Option<&str> {
        self.given.as_deref()
    }

    async fn trust(&self, role: &str) -> Result<Option<String>, Error> {
        if Some(role) == self.given() {
            return Ok(Some(TRUSTS.into()));
        }
        self.trust.clone().map(|t| t.map(str::to_owned))
    }
}

const TRUSTS: &str = r#"{"Statement":{"Effect":"Allow","Principal":{"Service":"cloudformation.amazonaws.com"},"Action":"sts:AssumeRole"}}"#;
const OTHERS: &str = r#"{"Statement":{"Effect":"Allow","Principal":{"Service":"proton.amazonaws.com"},"Action":"sts:AssumeRole"}}"#;
const PROTONS: &str = "arn:aws:iam::000000000001:role/ProtonServiceRole";

#[test]
fn the_role_that_the_stack_has_must_be_one_that_cloudformation_can_take() {
    let mut bench = left_behind(PLACEMENTS);
    bench.becomes("stack/topic", "Foreign(NotOurs)");
    bench.stop();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ours = || Some("arn:aws:iam::000000000001:role/isoform-cfn".to_owned());
    let denied = Err(Error::Denied("GetRole: AccessDenied".into()));
    for (given, trust, expected) in [
        (
            None,
            Ok(Some(TRUSTS)),
            Ok("it exists and lets CloudFormation take it"),
        ),
        (
            None,
            denied,
            Ok("could not be checked: access denied: GetRole"),
        ),
        (
            None,
            Ok(None),
            Err("ProtonServiceRole, which does not exist"),
        ),
        (
            None,
            Ok(Some(OTHERS)),
            Err("no statement lets cloudformation.amazonaws.com take it"),
        ),
        (
            ours(),
            Ok(None),
            Ok("until the first change, which gives it arn:aws:iam::000000000001:role/isoform-cfn"),
        ),
    ] {
        let answer = runtime.block_on(async {
            let config = Config::load(&bench.root.join("config.yaml")).unwrap();
            let (_, ports) = daemon::open_ports(&config, &Clock::system()).await.unwrap();
            let roles = Arc::new(Known { given, trust });
            let ports = Faulty::with_role(ports, PROTONS, roles);
            let built = daemon::build_on(config, Clock::system(), Some(ports))
                .await
                .unwrap();
            let actor = Actor::daemon("test");
            built.line.look("poll", &actor).await.unwrap();
            built
                .line
                .adopt_stack("stack/topic", None, true, false, &actor)
                .await
        });

        match (answer, expected) {
            (Ok(found), Ok(words)) => {
                assert_eq!(found.role.as_deref(), Some(PROTONS));
                let told = found.notes.iter().any(|n| n.contains(words));
                assert!(told && found.changes.is_empty(), "{words}: {found:#?}");
            }
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (answer, _) => panic!("{answer:#?}, and not {expected:?}"),
        }
    }
    // What was refused was refused before a change set was made for it.
    assert_eq!(bench.calls("CreateChangeSet"), 1 + 3);
}
