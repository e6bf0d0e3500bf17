//! Pull requests, from the forge's side: a daemon, a repository, and a forge that checks what it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isoform::clock::Clock;
use isoform::domain::forge::{ForgeKind, Verdict};
use tokio::runtime::Runtime;

use crate::forges::{Fake, Fault, Reply, bitbucket, gitea, github, gitlab};
use crate::sec::servers::HttpServer;
use crate::support::{Bench, PLACEMENTS};
use crate::world::topic;

const SYNC: &str =
    "isoform: 1\nstacks:\n  topic: { template: topic.yaml, placement: beta, stack_name: topic }\n";
const MAY: &str = "{ preview: write, why: read, approve: maintain, hold: write, rollback: admin }";

/// A daemon whose repository lives on a forge.
struct Hub {
    bench: Bench,
    fake: Fake,
    runtime: Runtime,
    kind: ForgeKind,
    /// Who isoform is there.
    own: u64,
}

/// A topic is deployed in mode `approve`, with these gates, and ana (write), bo and cy (maintain) are there.
fn hub(mode: &str) -> Hub {
    hub_with(mode, |_, config| config)
}

/// The same with a configuration that is changed before the daemon starts.
fn hub_with(mode: &str, change: impl Fn(&Bench, String) -> String) -> Hub {
    hub_on(ForgeKind::GitHub, mode, change)
}

/// The same on a forge of some kind. Where a forge has no role between write and admin, whoever maintains is admin.
fn hub_on(kind: ForgeKind, mode: &str, change: impl Fn(&Bench, String) -> String) -> Hub {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let clock = Clock::system();
    let (fake, repository, token, own, roles) = runtime.block_on(async {
        match kind {
            ForgeKind::GitHub => {
                let roles = ["write", "maintain", "read"];
                let fake = github::serve(clock, "").await.0;
                (
                    fake,
                    "acme/platform",
                    github::TOKEN,
                    github::OWN_USER,
                    roles,
                )
            }
            ForgeKind::GitLab => {
                let fake = gitlab::serve(clock).await;
                let roles = ["30", "40", "20"];
                (fake, gitlab::PROJECT, gitlab::TOKEN, gitlab::OWN, roles)
            }
            ForgeKind::Gitea => {
                let roles = ["write", "admin", "read"];
                let fake = gitea::serve(clock).await;
                (fake, "acme/platform", gitea::TOKEN, gitea::OWN, roles)
            }
            ForgeKind::Bitbucket => {
                let fake = bitbucket::serve(clock).await;
                let roles = ["write", "admin", "read"];
                (
                    fake,
                    "acme/platform",
                    bitbucket::API_TOKEN,
                    bitbucket::OWN,
                    roles,
                )
            }
        }
    });
    let mut bench = Bench::empty(&PLACEMENTS.replacen("mode: auto", mode, 1));
    let path = bench.root.join("config.yaml");
    let forge = format!(
        "    url: ./origin.git\n    forge: {{ kind: {kind}, name: forge.test, api: '{}', repository: {repository}, token: 'file:token', poll: 1s, may: {MAY} }}\n",
        fake.api
    );
    let config = std::fs::read_to_string(&path).unwrap();
    let config = config.replacen("    url: ./origin.git\n", &forge, 1);
    std::fs::write(&path, change(&bench, config)).unwrap();
    isoform::secret_file::write(&bench.root.join("token"), token.as_bytes()).unwrap();
    {
        let mut state = fake.state();
        let [write, maintain, read] = roles;
        for (login, role) in [
            ("ana", write),
            ("bo", maintain),
            ("cy", maintain),
            ("di", read),
        ] {
            let id = state.account(login, false);
            state.roles.insert(id, role.into());
        }
    }
    bench.write("topic.yaml", &topic("one"));
    bench.write("isoform.yaml", SYNC);
    bench.push("a topic");
    bench.start();
    let hub = Hub {
        bench,
        fake,
        runtime,
        kind,
        own,
    };
    if mode.contains("approve") {
        hub.bench.becomes("stack/topic", "Pending(Approval)");
        hub.bench.cli(&["approve", "stack/topic"], 0);
    }
    hub.bench.becomes("stack/topic", "InSync(Settled)");
    hub
}

impl Hub {
    fn person(&self, login: &str) -> u64 {
        self.fake.state().by_login(login).unwrap().id
    }

    /// Commits what was written on a branch and opens a pull request, or pushes to the one there is.
    fn propose(&self, number: u64, message: &str) -> String {
        let branch = format!("topic-{number}");
        self.bench.git(&["checkout", "-q", "-B", &branch]);
        self.bench.git(&["add", "-A"]);
        self.bench
            .git(&["commit", "-q", "--allow-empty", "-m", message]);
        let head = self.bench.head();
        let kept = self.kind.head_ref(number);
        let to = kept.unwrap_or_else(|| format!("refs/heads/{branch}"));
        let to = format!("+HEAD:{to}");
        self.bench.git(&["push", "-q", "origin", &to]);
        let author = self.person("ana");
        let mut state = self.fake.state();
        if !state.pulls.contains_key(&number) {
            assert_eq!(state.open(author, message).number, number);
        }
        let now = state.now();
        let pull = state.pulls.get_mut(&number).unwrap();
        (pull.head, pull.updated) = (head.clone(), now);
        drop(state);
        self.bench.git(&["checkout", "-q", "main"]);
        head
    }

    /// Merges a pull request as the forge's button does, by a commit of its own.
    fn merge(&self, number: u64, squash: bool) -> String {
        let head = self.fake.state().pulls[&number].head.clone();
        self.bench.git(&["checkout", "-q", "main"]);
        if squash {
            self.bench.git(&["merge", "-q", "--squash", &head]);
            self.bench.git(&["commit", "-q", "-m", "squashed"]);
        } else {
            self.bench
                .git(&["merge", "-q", "--no-ff", "-m", "merged", &head]);
        }
        let commit = self.bench.head();
        {
            let mut state = self.fake.state();
            let now = state.now();
            let pull = state.pulls.get_mut(&number).unwrap();
            (pull.open, pull.merged, pull.updated) = (false, Some(commit.clone()), now);
        }
        self.bench.git(&["push", "-q", "origin", "main"]);
        commit
    }

    fn say(&self, number: u64, login: &str, body: &str) -> u64 {
        let author = self.person(login);
        let mut state = self.fake.state();
        let id = state.say(number, Some(author), body);
        let now = state.now();
        state.pulls.get_mut(&number).unwrap().updated = now;
        id
    }

    /// What isoform says under a pull request; it says it once.
    fn comment(&self, number: u64) -> String {
        let state = self.fake.state();
        let said = state.said(number);
        let own: Vec<_> = said.iter().filter(|c| c.author == Some(self.own)).collect();
        assert!(own.len() <= 1, "one comment: {own:?}");
        own.first().map(|c| c.body.clone()).unwrap_or_default()
    }

    /// Waits until its comment says something.
    fn says(&self, number: u64, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let text = self.comment(number);
            if words.iter().all(|w| text.contains(w)) {
                return text;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{words:?} are not in:\n{text}\n{}",
                self.bench
                    .log()
                    .lines()
                    .filter(|l| !l.contains("TRACE") && !l.contains("DEBUG"))
                    .collect::<Vec<_>>()
                    .join("\n")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn verdict(&self, head: &str, name: &str, wanted: Verdict) {
        let begun = Instant::now();
        loop {
            let found = self.fake.state().shown(head, name).map(|r| r.verdict);
            if found == Some(wanted) {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{name}: {found:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Takes what differs from run to run out of a text: ids of commits, digests, the installation.
fn still(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() {
            run.push(c);
            continue;
        }
        let hex = run.len() >= 7 && run.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        out.push_str(if hex { "‹id›" } else { &run });
        run.clear();
        out.push(c);
    }
    // The last entry that is signed depends on when it is signed.
    let lines = out
        .lines()
        .map(|l| match l.split_once("signed up to entry ") {
            Some((before, _)) => format!("{before}signed up to entry …"),
            None => l.to_owned(),
        });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the line that approves a target, as the comment shows it.
fn approval(text: &str, target: &str) -> String {
    let wanted = format!("/isoform approve {target} ");
    let at = text
        .find(&wanted)
        .unwrap_or_else(|| panic!("nothing to approve: {text}"));
    let line = text[at..].split('`').next().unwrap();
    line.to_owned()
}

#[test]
fn a_pull_request_is_shown_edited_in_place_and_followed_after_its_merge() {
    let hub = hub("mode: auto");
    hub.bench.write("topic.yaml", &topic("two"));
    let first = hub.propose(1, "two");
    let text = hub.says(1, &["\"one\" → \"two\""]);
    insta::assert_snapshot!("first_preview", still(&text));
    hub.verdict(&first, "isoform/example", Verdict::Success);

    hub.bench.git(&["checkout", "-q", "topic-1"]);
    hub.bench.write("topic.yaml", &topic("three"));
    let second = hub.propose(1, "three");
    hub.says(1, &["\"one\" → \"three\"", &second[..7]]);

    let commit = hub.merge(1, false);
    let text = hub.says(1, &["merged as", "✅ `stack/topic`"]);
    insta::assert_snapshot!("after_the_merge", still(&text));
    hub.verdict(&commit, "isoform/example/deployed", Verdict::Success);
}

#[test]
fn a_broken_commit_and_a_conflict_are_said_on_the_line() {
    let hub = hub("mode: auto");
    hub.bench.write(
        "isoform.yaml",
        &SYNC.replace("placement: beta", "placment: beta"),
    );
    let broken = hub.propose(1, "broken");
    let text = hub.says(1, &["❌ isoform: 2 errors", "placment"]);
    assert!(text.contains("isoform.yaml:3"), "{text}");
    hub.verdict(&broken, "isoform/example", Verdict::Failure);

    hub.bench.git(&["checkout", "-q", "-f", "main"]);
    hub.bench.write("topic.yaml", &topic("theirs"));
    let head = hub.propose(2, "theirs");
    hub.says(2, &["\"one\" → \"theirs\""]);
    hub.bench.write("topic.yaml", &topic("ours"));
    hub.bench.push("ours");
    hub.says(2, &["it cannot be merged", "`topic.yaml`"]);
    hub.verdict(&head, "isoform/example", Verdict::Failure);
}

#[test]
fn an_approval_carries_over_the_merge_and_a_squash_and_is_void_after_a_push() {
    for squash in [false, true] {
        let hub = hub("mode: approve");
        hub.bench.write("topic.yaml", &topic("two"));
        hub.propose(1, "two");
        let asked = hub.says(1, &["/isoform approve stack/topic"]);
        hub.say(1, "bo", &approval(&asked, "stack/topic"));
        let text = hub.says(1, &["✅ `approve stack/topic", "1 of 1, approved by bo"]);
        if !squash {
            insta::assert_snapshot!("approved", still(&text));
        }
        // Pushed again: what was approved is another commit, although it changes the same.
        hub.bench.git(&["checkout", "-q", "topic-1"]);
        hub.bench.write("README.md", "more\n");
        let again = hub.propose(1, "a word more");
        hub.says(1, &[&again[..7], "(0 of 1)"]);
        let asked = hub.comment(1);
        hub.say(1, "bo", &approval(&asked, "stack/topic"));
        hub.says(1, &["1 of 1, approved by bo"]);

        hub.merge(1, squash);
        hub.bench.becomes("stack/topic", "InSync(Settled)");
        hub.says(1, &["merged as", "✅ `stack/topic`"]);
        let history = hub.bench.cli(&["history", "stack/topic"], 0);
        assert!(
            history.contains("approved by bo in pull request 1"),
            "{history}"
        );
        let log = hub.bench.cli(&["audit", "list"], 0);
        assert!(
            log.contains("approve stack/topic") && log.contains("by bo"),
            "{log}"
        );
        hub.bench.cli(&["audit", "verify"], 0);
    }
}

#[test]
fn sec_39_what_was_pushed_after_an_approval_is_not_approved() {
    let hub = hub("mode: approve");
    hub.bench.write("topic.yaml", &topic("two"));
    hub.propose(1, "two");
    let asked = hub.says(1, &["/isoform approve stack/topic"]);
    hub.say(1, "bo", &approval(&asked, "stack/topic"));
    hub.says(1, &["approved by bo"]);
    // Pushed and merged before anybody could look: another change, and another head.
    hub.bench.git(&["checkout", "-q", "topic-1"]);
    hub.bench.write("topic.yaml", &topic("evil"));
    hub.propose(1, "evil");
    hub.merge(1, true);

    hub.bench.becomes("stack/topic", "Pending(Approval)");
    hub.says(
        1,
        &[
            "merged as",
            "⏸ `stack/topic`",
            "/isoform approve stack/topic",
        ],
    );
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(hub.bench.condition("stack/topic"), "Pending(Approval)");
    // After the merge it is approved in the same place.
    let text = hub.comment(1);
    hub.say(1, "cy", &approval(&text, "stack/topic"));
    hub.bench.becomes("stack/topic", "InSync(Settled)");
}

#[test]
fn sec_42_of_two_pull_requests_on_one_stack_the_second_is_asked_again() {
    let hub = hub("mode: approve");
    hub.bench
        .write("topic.yaml", &topic("one").replace("one", "a"));
    hub.propose(1, "a");
    let asked = hub.says(1, &["/isoform approve stack/topic"]);
    hub.say(1, "bo", &approval(&asked, "stack/topic"));
    hub.says(1, &["approved by bo"]);
    // The other one comes first, by another file, so that Git merges both.
    hub.bench.git(&["checkout", "-q", "-f", "main"]);
    let sync = SYNC.replace("stack_name: topic", "stack_name: topic, tags: { team: b }");
    hub.bench.write("isoform.yaml", &sync);
    hub.propose(2, "b");
    let other = hub.says(2, &["/isoform approve stack/topic"]);
    hub.say(2, "bo", &approval(&other, "stack/topic"));
    hub.says(2, &["approved by bo"]);
    hub.merge(2, false);
    hub.bench.becomes("stack/topic", "InSync(Settled)");

    // What was shown of the first is old: it is shown anew, and nobody has approved that.
    let text = hub.says(1, &["(0 of 1)"]);
    assert_ne!(
        approval(&text, "stack/topic"),
        approval(&asked, "stack/topic")
    );
    hub.merge(1, false);
    hub.bench.becomes("stack/topic", "Pending(Approval)");
    hub.says(1, &["is another change now"]);
}

#[test]
fn sec_38_nothing_of_a_fork_is_looked_at_before_somebody_has_read_that_very_head() {
    let hub = hub("mode: auto");
    hub.bench.write("topic.yaml", &topic("two"));
    {
        let author = hub.person("di");
        let mut state = hub.fake.state();
        let pull = state.open(author, "from a stranger");
        (pull.fork, pull.open) = (true, false);
    }
    let head = hub.propose(1, "from a stranger");
    hub.fake.state().pulls.get_mut(&1).unwrap().open = true;
    let text = hub.says(
        1,
        &["not looked at", &format!("/isoform preview {}", &head[..7])],
    );
    assert!(!text.contains("one"), "{text}");
    assert_eq!(hub.bench.calls("CreateChangeSet"), 1);
    // Neither a stranger nor somebody who names no head lets it in.
    hub.say(1, "di", &format!("/isoform preview {}", &head[..7]));
    hub.says(1, &["di has read here, and", "wants write"]);
    hub.say(1, "ana", "/isoform preview");
    hub.says(1, &["name the head that you have read"]);
    hub.say(1, "ana", &format!("/isoform preview {}", &head[..7]));
    hub.says(1, &["\"one\" → \"two\"", "reference model"]);
    // CloudFormation was never asked about it, and the next head is a stranger again.
    assert_eq!(hub.bench.calls("CreateChangeSet"), 1);
    hub.bench.git(&["checkout", "-q", "topic-1"]);
    hub.bench.write("topic.yaml", &topic("three"));
    hub.propose(1, "more");
    hub.says(1, &["not looked at"]);
}

#[test]
fn sec_40_only_what_somebody_may_and_has_typed_is_obeyed() {
    let hub = hub("mode: approve");
    hub.bench.write("topic.yaml", &topic("two"));
    hub.propose(1, "two");
    let asked = hub.says(1, &["/isoform approve stack/topic"]);
    let line = approval(&asked, "stack/topic");
    let (bot, edited) = {
        let mut state = hub.fake.state();
        let bot = state.account("helper[bot]", true);
        state.roles.insert(bot, "admin".into());
        let bo = state.by_login("bo").unwrap().id;
        let said = state.say(1, Some(bot), &line);
        let edited = state.say(1, Some(bo), &line);
        let later = state.now().plus(Duration::from_secs(1));
        state.comments.get_mut(&edited).unwrap().updated = later;
        (said, edited)
    };
    assert!(bot < edited);
    hub.say(1, "bo", &format!("> {line}"));
    hub.say(1, "bo", &format!("```\n{line}\n```"));
    hub.say(1, "ana", &line);
    hub.says(1, &["ana has write here, and", "wants maintain"]);
    hub.say(1, "bo", "/isoform approve stack/topic 0123456789ab");
    let text = hub.says(1, &["read it, and name that one"]);
    assert!(text.contains("(0 of 1)"), "{text}");
    hub.say(1, "bo", "/isoform why stack/topic");
    hub.says(1, &["✅ `why stack/topic` by bo: InSync"]);
    hub.say(1, "bo", "/isoform hold stack/topic until monday");
    hub.says(1, &["suspended"]);
    hub.say(1, "bo", "/isoform rollback stack/topic");
    hub.says(1, &["wants admin"]);
    let history = hub.bench.cli(&["history", "stack/topic"], 0);
    assert!(!history.contains("pull request"), "{history}");
}

#[test]
fn whoever_opened_it_does_not_approve_where_the_placement_says_so() {
    let me = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    let from = format!(
        "{}, bo@forge.test, ana@forge.test",
        String::from_utf8(me.stdout).unwrap().trim()
    );
    let gates = format!("{{ approve: {{ not_author: true, from: [{from}] }} }}");
    let hub = hub(&format!("mode: approve, gates: {gates}"));
    let ana = hub.person("ana");
    hub.fake.state().roles.insert(ana, "admin".into());
    hub.bench.write("topic.yaml", &topic("two"));
    hub.propose(1, "two");
    let asked = hub.says(1, &["/isoform approve stack/topic"]);
    hub.say(1, "ana", &approval(&asked, "stack/topic"));
    hub.says(1, &["no approval from whoever opened the pull request"]);
    hub.say(1, "cy", &approval(&asked, "stack/topic"));
    hub.says(1, &["the placement 'beta' takes approvals from"]);
    hub.say(1, "bo", &approval(&asked, "stack/topic"));
    hub.says(1, &["approved by bo"]);
}

#[test]
fn a_forge_that_is_down_holds_nothing_up_and_is_told_the_last_state() {
    let hub = hub("mode: auto");
    let refused = Reply::json(503, &serde_json::json!({ "message": "down" }));
    hub.fake.state().fault("", 100_000, Fault::Instead(refused));
    hub.bench.write("topic.yaml", &topic("two"));
    hub.bench.push("two");
    hub.bench.becomes("stack/topic", "InSync(Settled)");
    hub.bench.git(&["checkout", "-q", "main"]);
    hub.bench.write("topic.yaml", &topic("three"));
    hub.propose(1, "three");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(hub.comment(1), "");
    hub.fake.state().forgive();
    hub.says(1, &["\"two\" → \"three\""]);
}

#[test]
fn a_daemon_that_dies_goes_on_with_the_comment_that_it_wrote() {
    let mut hub = hub("mode: auto");
    hub.bench.write("topic.yaml", &topic("two"));
    hub.propose(1, "two");
    hub.says(1, &["\"one\" → \"two\""]);
    hub.bench.kill();
    hub.bench.git(&["checkout", "-q", "topic-1"]);
    hub.bench.write("topic.yaml", &topic("three"));
    hub.propose(1, "three");
    hub.bench.start();
    hub.says(1, &["\"one\" → \"three\""]);
}

/// What GitHub would deliver, signed.
fn deliver(hub: &Hub, address: &str, event: &str, id: &str, body: &str) -> u16 {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, body.as_bytes());
    let signature: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    hub.runtime.block_on(async {
        let request = reqwest::Client::new()
            .post(format!("http://{address}/webhooks/example"))
            .header("X-GitHub-Event", event)
            .header("X-GitHub-Delivery", id)
            .header("X-Hub-Signature-256", format!("sha256={signature}"))
            .header("Content-Type", "application/json")
            .body(body.to_owned());
        request.send().await.unwrap().status().as_u16()
    })
}

const SECRET: &str = "a secret of the webhook of this test";

#[test]
fn a_thousand_pushes_to_one_branch_are_fetched_twice_at_most_and_nobody_polls() {
    let fetches = Arc::new(AtomicU64::new(0));
    let server = std::cell::OnceCell::new();
    let hub = hub_with("mode: auto", |bench, config| {
        let server = server.get_or_init(|| HttpServer::start(&bench.root));
        isoform::secret_file::write(&bench.root.join("hook"), SECRET.as_bytes()).unwrap();
        config
            .replace(
                "url: ./origin.git",
                &format!("url: '{}'", server.url("origin.git")),
            )
            .replace(
                "poll: 1s, may",
                "poll: 1h, webhook: { secret: 'file:hook' }, may",
            )
            .replace(
                "\npoll: 1s",
                "\npoll: 1h\nlisten: { webhooks: '127.0.0.1:0' }",
            )
    });
    let log = hub.bench.log();
    let heard = log.split("hearing webhooks on ").nth(1).unwrap();
    let address = heard.lines().next().unwrap().trim().to_owned();
    let counted = fetches.clone();
    server.get().unwrap().turn(move |request, _| {
        counted.fetch_add(u64::from(request.is_fetch()), Ordering::SeqCst);
        false
    });

    hub.bench.write("topic.yaml", &topic("two"));
    hub.bench.push("two");
    let push = r#"{"ref":"refs/heads/main","repository":{"full_name":"acme/platform"}}"#;
    for n in 0..1_000 {
        assert_eq!(
            deliver(&hub, &address, "push", &format!("push-{n}"), push),
            202
        );
    }
    hub.bench.until(|e| e["snapshot"] == 2);
    hub.bench.becomes("stack/topic", "InSync(Settled)");
    let fetched = fetches.load(Ordering::SeqCst);
    assert!((1..=2).contains(&fetched), "{fetched}");

    // A pull request and what is written under it are heard the same way, and fetched by a process of its own.
    hub.bench.write("topic.yaml", &topic("three"));
    hub.propose(1, "three");
    let opened = r#"{"action":"opened","number":1,"pull_request":{"number":1},"repository":{"full_name":"acme/platform"}}"#;
    assert_eq!(
        deliver(&hub, &address, "pull_request", "pull-1", opened),
        202
    );
    hub.says(1, &["\"two\" → \"three\""]);
    hub.say(1, "bo", "/isoform why stack/topic");
    let said = r#"{"action":"created","issue":{"number":1,"pull_request":{}},"comment":{"id":1},"repository":{"full_name":"acme/platform"}}"#;
    assert_eq!(
        deliver(&hub, &address, "issue_comment", "said-1", said),
        202
    );
    hub.says(1, &["✅ `why stack/topic` by bo"]);
    // Claimed and not there: what is true is asked of Git.
    let snapshots = hub.bench.estate()["snapshot"].clone();
    let claimed = push.replace(
        "\"ref\"",
        "\"after\":\"ffffffffffffffffffffffffffffffffffffffff\",\"ref\"",
    );
    assert_eq!(deliver(&hub, &address, "push", "claimed", &claimed), 202);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(hub.bench.estate()["snapshot"], snapshots);
}

#[test]
fn sec_37_a_pull_request_that_takes_its_gate_away_says_so_and_does_not_pass_by_that() {
    let hub = hub("mode: auto");
    let gated = SYNC.replace("placement: beta", "placement: beta, gate: approve");
    hub.bench.write("isoform.yaml", &gated);
    hub.bench.write("topic.yaml", &topic("gated"));
    hub.bench.push("a gate");
    hub.bench.becomes("stack/topic", "Pending(Approval)");
    hub.bench.cli(&["approve", "stack/topic"], 0);
    hub.bench.becomes("stack/topic", "InSync(Settled)");

    hub.bench.write("isoform.yaml", SYNC);
    hub.bench.write("topic.yaml", &topic("free"));
    hub.propose(1, "no gate, and another text");
    hub.says(
        1,
        &["takes its 'gate' away", "/isoform approve stack/topic"],
    );
    hub.merge(1, false);
    hub.bench.becomes("stack/topic", "Pending(Approval)");
    hub.bench.cli(&["approve", "stack/topic"], 0);
    hub.bench.becomes("stack/topic", "InSync(Settled)");
    // From here on the repository asks nobody.
    hub.bench.write("topic.yaml", &topic("freer"));
    hub.bench.push("freer");
    hub.bench.settle();
    assert_eq!(hub.bench.calls("ExecuteChangeSet"), 4);
}

#[test]
fn sec_41_a_preview_runs_no_macro_and_reads_no_secret() {
    let hub = hub("mode: auto");
    let made = hub.bench.calls("CreateChangeSet");
    let macros = "Transform: [MyMacro]\nResources:\n  T: { Type: AWS::SNS::Topic }\n";
    hub.bench.write("topic.yaml", macros);
    let head = hub.propose(1, "a macro");
    hub.says(1, &["❌ isoform: 1 error", "MyMacro"]);
    hub.verdict(&head, "isoform/example", Verdict::Failure);
    // CloudFormation would run it when the change set is made: it is never asked.
    assert_eq!(hub.bench.calls("CreateChangeSet"), made);

    hub.bench.git(&["checkout", "-q", "-f", "main"]);
    let leak = "Resources:\n  T: { Type: AWS::SNS::Topic, Properties: { DisplayName: '{{resolve:ssm:/prod/password}}' } }\nOutputs:\n  Leak: { Value: '{{resolve:ssm:/prod/password}}' }\n";
    hub.bench.write("topic.yaml", leak);
    hub.bench
        .cli(&["local", "rotate", "beta", "ssm:/prod/password"], 0);
    hub.propose(2, "a reference");
    let text = hub.says(2, &["resolve:ssm:/prod/password"]);
    assert!(text.contains("→"), "{text}");
}

#[test]
fn three_hundred_targets_fit_one_comment_and_one_that_limits_is_left_alone() {
    let hub = hub("mode: auto");
    let mut sync = SYNC.to_owned();
    for n in 0..300 {
        sync += &format!("  s{n}: {{ template: topic.yaml, placement: beta, stack_name: s{n} }}\n");
    }
    let limited = Reply::json(
        403,
        &serde_json::json!({ "message": "You have exceeded a secondary rate limit" }),
    )
    .with("retry-after", 3);
    hub.fake.state().fault("POST", 1, Fault::Instead(limited));
    hub.bench.write("isoform.yaml", &sync);
    hub.propose(1, "three hundred");
    let text = hub.says(
        1,
        &[
            "300 targets change, 1 does not",
            "and 250 more",
            "left out here",
        ],
    );
    assert!(text.chars().count() <= 65_536);
    insta::assert_snapshot!(
        "three_hundred",
        still(&text).lines().take(12).collect::<Vec<_>>().join("\n")
    );
    // Told to wait, nothing was asked in between.
    let asked = hub.fake.asked();
    let at = asked
        .iter()
        .position(|a| a.method == "POST" && a.raw.contains("comments"));
    assert!(at.is_some());
}

#[test]
fn sec_35_what_somebody_may_in_one_repository_is_nothing_in_another() {
    let hub = hub_with("mode: auto", |bench, config| {
        bench.git(&["checkout", "-q", "--orphan", "other"]);
        bench.write("other.yaml", &topic("other"));
        let sync = "isoform: 1\nstacks:\n  other: { template: other.yaml, placement: beta, stack_name: other }\n";
        bench.write("isoform.yaml", sync);
        bench.git(&["add", "-A"]);
        bench.git(&["commit", "-q", "-m", "another team's"]);
        bench.git(&["init", "-q", "--bare", "-b", "main", "../other.git"]);
        bench.git(&["push", "-q", "../other.git", "HEAD:main"]);
        bench.git(&["checkout", "-q", "--orphan", "main"]);
        bench.git(&["rm", "-rfq", "--cached", "."]);
        std::fs::remove_file(bench.work().join("other.yaml")).unwrap();
        let other = "sources:\n  other: { url: ./other.git, may: { stacks: ['*'], placements: ['*'], stack_names: ['*'] } }\n";
        config.replacen("sources:\n", other, 1)
    });
    hub.bench.becomes("stack/other", "InSync(Settled)");
    let ana = hub.person("ana");
    hub.fake.state().roles.insert(ana, "admin".into());
    hub.bench.write("topic.yaml", &topic("two"));
    hub.propose(1, "two");
    hub.says(1, &["\"one\" → \"two\""]);
    for (command, at) in [
        ("why stack/other", "`why stack/other`"),
        ("hold stack/other", "`hold stack/other`"),
        ("rollback stack/other", "`rollback stack/other`"),
        ("approve stack/other 0123456789ab", "`approve stack/other"),
    ] {
        hub.say(1, "ana", &format!("/isoform {command}"));
        hub.says(1, &[&format!("❌ {at}"), "no target of this repository"]);
    }
    assert_eq!(hub.bench.condition("stack/other"), "InSync(Settled)");
}

#[test]
fn sec_40_whoever_opens_a_pull_request_again_has_no_command_obeyed_once_more() {
    let hub = hub("mode: auto");
    hub.bench.write("topic.yaml", &topic("two"));
    hub.propose(1, "two");
    hub.says(1, &["\"one\" → \"two\""]);
    hub.say(1, "bo", "/isoform hold stack/topic");
    hub.says(1, &["✅ `hold stack/topic` by bo"]);
    hub.bench.cli(&["resume", "stack/topic"], 0);
    hub.fake.asked();
    hub.fake.state().pulls.get_mut(&1).unwrap().open = false;
    // It is asked for by itself once it is in no list, let go, and then there is a list again.
    let begun = Instant::now();
    let mut alone = false;
    loop {
        let asked = hub.fake.asked();
        let raw = |end: &str| asked.iter().any(|a| a.raw.ends_with(end));
        if alone && raw("/pulls") {
            break;
        }
        alone |= raw("/pulls/1");
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it is not let go"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    {
        let mut state = hub.fake.state();
        let now = state.now();
        let pull = state.pulls.get_mut(&1).unwrap();
        (pull.open, pull.updated) = (true, now);
    }
    hub.say(1, "bo", "/isoform why stack/topic");
    let text = hub.says(1, &["✅ `why stack/topic` by bo"]);
    assert!(!text.contains("hold"), "{text}");
    let log = hub.bench.cli(&["audit", "list"], 0);
    assert_eq!(
        log.matches("hold stack/topic in pull request").count(),
        1,
        "{log}"
    );
}

#[test]
fn what_fails_for_one_pull_request_holds_up_no_other() {
    let hub = hub("mode: auto");
    let denied = |message: &str| Reply::json(403, &serde_json::json!({ "message": message }));
    {
        let mut state = hub.fake.state();
        let locked = denied("Unable to create comment because issue is locked.");
        state.fault("POST /issues/1/comments", 1_000, Fault::Instead(locked));
        let forbidden = denied("Resource not accessible by personal access token");
        state.fault("POST /statuses/", 1_000, Fault::Instead(forbidden.clone()));
        state.fault("GET /issues/2/comments", 1_000, Fault::Instead(forbidden));
    }
    for (number, text) in [(1, "locked"), (2, "denied"), (3, "shown")] {
        hub.bench.git(&["checkout", "-q", "-f", "main"]);
        hub.bench.write("topic.yaml", &topic(text));
        hub.propose(number, text);
    }
    hub.says(3, &["\"one\" → \"shown\""]);
    hub.bench.git(&["checkout", "-q", "-f", "main"]);
    hub.merge(3, false);
    hub.says(3, &["merged as", "✅ `stack/topic`"]);
    assert_eq!(hub.comment(1), "");
    // Whoever asks is told what is late, and why.
    let status = hub.bench.cli(&["status"], 0);
    for told in [
        "forge of example",
        "post/comment/1",
        "issue is locked",
        "pull/2",
    ] {
        assert!(status.contains(told), "{told}: {status}");
    }
}

#[test]
fn sec_40_a_stranger_is_neither_answered_nor_makes_anybody_look() {
    let hub = hub_with("mode: auto", |_, config| {
        config.replace("why: read", "why: write")
    });
    hub.bench.write("topic.yaml", &topic("two"));
    hub.propose(1, "two");
    hub.says(1, &["\"one\" → \"two\""]);
    let made = hub.bench.calls("CreateChangeSet");
    for body in ["/isoform preview", "/isoform x", "/isoform why stack/topic"] {
        hub.say(1, "di", body);
    }
    hub.say(1, "ana", "/isoform why stack/topic");
    let text = hub.says(1, &["✅ `why stack/topic` by ana"]);
    assert!(!text.contains("by di"), "{text}");
    let log = hub.bench.cli(&["audit", "list"], 0);
    assert!(!log.contains("by di"), "{log}");
    // One question that was allowed is one look.
    assert!(hub.bench.calls("CreateChangeSet") <= made + 1);
}

#[test]
fn every_forge_shows_takes_approvals_and_follows() {
    for kind in [ForgeKind::GitLab, ForgeKind::Gitea, ForgeKind::Bitbucket] {
        let hub = hub_on(kind, "mode: approve", |_, config| config);
        hub.bench.write("topic.yaml", &topic("two"));
        let head = hub.propose(1, "two");
        let asked = hub.says(1, &["\"one\" → \"two\"", "/isoform approve stack/topic"]);
        assert_eq!(
            asked.contains("<details>"),
            kind != ForgeKind::Bitbucket,
            "{asked}"
        );
        hub.verdict(
            &head,
            "isoform/example",
            match kind {
                ForgeKind::Gitea => Verdict::Neutral,
                // Theirs have no word for it.
                _ => Verdict::Success,
            },
        );
        hub.say(1, "ana", &approval(&asked, "stack/topic"));
        hub.says(1, &["ana has write here"]);
        hub.say(1, "bo", &approval(&asked, "stack/topic"));
        hub.says(1, &["1 of 1, approved by bo"]);
        let commit = hub.merge(1, false);
        hub.bench.becomes("stack/topic", "InSync(Settled)");
        hub.says(1, &["merged as", "✅ `stack/topic`"]);
        hub.verdict(&commit, "isoform/example/deployed", Verdict::Success);
    }
}
