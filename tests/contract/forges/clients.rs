//! The clients that are published for other forges, as judges: what isoform asks is what they ask, and what a fake answers
//! they understand.

use std::collections::BTreeSet;
use std::process::Command;

use isoform::domain::forge::{Check, Person, Verdict};
use serde_json::{Value, json};

use super::fakes::{Asked, bitbucket, gitea, gitlab};
use super::{ForgeWorld, MARKER, text};

/// A request without what is minted: its method, its path, and the fields that it sends.
fn shape(asked: &Asked) -> (String, String, Vec<String>) {
    let fields = asked.body.as_ref().and_then(Value::as_object);
    let mut fields: Vec<String> = fields
        .map(|f| f.keys().cloned().collect())
        .unwrap_or_default();
    fields.sort();
    let mut path = asked.path.join(" ");
    // Where GitLab is asked to write a state, its client says so in the address.
    if let Some(state) = asked.query.get("state").filter(|_| asked.writes()) {
        path = format!("{path} {state}");
    }
    (asked.method.clone(), path, fields)
}

async fn judged(test: &str, world: &dyn ForgeWorld, kind: &str, repository: &str, token: &str) {
    let Ok(judges) = std::env::var("ISOFORM_TEST_NODE") else {
        println!("SKIP {test}: ISOFORM_TEST_NODE names no folder of packages; run ./tests/run");
        return;
    };
    let merge = "feed".repeat(10);
    let (ana, number, merged) = {
        let role = |wanted| world.roles().into_iter().find(|r| r.1 == wanted).unwrap().0;
        let write = role(isoform::domain::forge::Permission::Write);
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        state.roles.insert(ana, write.to_owned());
        let number = state.open(ana, "raise the count").number;
        state.say(number, Some(ana), "a remark");
        let merged = state.open(ana, "merged");
        merged.open = false;
        merged.merged = Some(merge.clone());
        (ana, number, merged.number)
    };
    let person = Person {
        id: world.person_id(ana),
        login: "ana".into(),
        bot: false,
    };
    let forge = world.open();
    let head = forge.pull(number).await.unwrap().head;
    forge.pull(merged).await.unwrap();
    forge.open_pulls("main").await.unwrap();
    let write = |known, rest: &str| {
        let (forge, text) = (forge.clone(), text(rest));
        async move { forge.write_comment(number, MARKER, known, &text).await }
    };
    let id = write(None, "one").await.unwrap();
    write(Some(id), "two").await.unwrap();
    forge.comments(number, 0).await.unwrap();
    let check = Check {
        head: head.clone(),
        name: "c".into(),
        verdict: Verdict::Failure,
        title: "d".into(),
        summary: String::new(),
        annotations: Vec::new(),
    };
    forge.report(&check).await.unwrap();
    let may = forge.permission(&person).await.unwrap();
    assert_eq!(
        forge.pulls_of(&merge.parse().unwrap()).await.unwrap(),
        [merged]
    );
    let ours: Vec<Asked> = world.fake().asked();

    let world_of_it = json!({
        "number": number, "comment": id, "head": head.as_str(), "merged": merge, "base": "main",
        "person": match kind { "gitea" => person.login.clone(), _ => person.id.clone() },
    });
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/oracle/forge_clients.mjs"
    );
    let (api, node) = (world.fake().api.clone(), format!("{judges}/node"));
    let (kind, repository, token) = (kind.to_owned(), repository.to_owned(), token.to_owned());
    let said = tokio::task::spawn_blocking(move || {
        let said = Command::new(node)
            .arg(script)
            .args([&kind, &api, &token, &repository, &world_of_it.to_string()])
            .output()
            .unwrap();
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        serde_json::from_slice::<Value>(&said.stdout).unwrap()
    });
    let said = said.await.unwrap();

    let theirs: BTreeSet<_> = world.fake().asked().iter().map(shape).collect();
    for asked in &ours {
        // Bitbucket's client does not know who it is, and the second pull request was only asked for by isoform.
        let path = asked.path.join(" ");
        let only_ours = path == "user" || path.ends_with(&format!(" {merged}"));
        let known = theirs.contains(&shape(asked))
            || only_ours
            || path.ends_with(&format!("{merged} commits"));
        assert!(
            known,
            "{:?} is none of\n{}",
            shape(asked),
            theirs
                .iter()
                .map(|t| format!("{t:?}\n"))
                .collect::<String>()
        );
    }
    // What the client understood of the fake.
    assert_eq!(said["pulls"], json!([number]), "{said}");
    assert!(
        head.as_str().starts_with(said["head"].as_str().unwrap()),
        "{said}"
    );
    assert_eq!(said["comments"].as_array().unwrap().len(), 2, "{said}");
    assert_eq!(said["comment"], id, "{said}");
    assert_eq!(said["status"], true, "{said}");
    assert_eq!(said["merged"], json!([merged]), "{said}");
    for text in ["edited", "written"] {
        let text = said[text].as_str().unwrap();
        assert!(text.ends_with("by a published client"), "{said}");
    }
    let level = match &said["permission"] {
        Value::String(word) => word.clone(),
        level => level.to_string(),
    };
    let role = world.roles().into_iter().find(|r| r.0 == level);
    assert_eq!(role.unwrap().1, may, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_of_gitea_is_what_its_published_client_asks() {
    let test = "what_is_asked_of_gitea_is_what_its_published_client_asks";
    let world = super::gitea::world().await;
    let repository = format!("{}/{}", gitea::OWNER, gitea::NAME);
    judged(test, &world, "gitea", &repository, gitea::TOKEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_of_gitlab_is_what_its_published_client_asks() {
    let test = "what_is_asked_of_gitlab_is_what_its_published_client_asks";
    let world = super::gitlab::world().await;
    judged(test, &world, "gitlab", gitlab::PROJECT, gitlab::TOKEN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_of_bitbucket_is_what_its_published_client_asks() {
    let test = "what_is_asked_of_bitbucket_is_what_its_published_client_asks";
    let world = super::bitbucket::token().await;
    let repository = format!("{}/{}", bitbucket::OWNER, bitbucket::NAME);
    judged(
        test,
        &world,
        "bitbucket",
        &repository,
        bitbucket::ACCESS_TOKEN,
    )
    .await;
}
