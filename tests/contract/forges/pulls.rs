//! Pull requests, and what people may do.

use std::time::Duration;

use isoform::domain::forge::{Permission, Person, PullState};
use isoform::domain::model::Revision;
use isoform::port::Error;

use super::ForgeWorld;

fn person(world: &dyn ForgeWorld, id: u64, login: &str) -> Person {
    Person {
        id: world.person_id(id),
        login: login.into(),
        bot: false,
    }
}

fn revision(text: &str) -> Revision {
    text.parse().unwrap()
}

pub async fn open_pull_requests_into_a_branch_are_told_changed_last_first(world: &dyn ForgeWorld) {
    {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        let now = state.now();
        for (title, age) in [
            ("old", 300),
            ("new", 10),
            ("closed", 5),
            ("elsewhere", 1),
            ("middle", 100),
        ] {
            let pull = state.open(ana, title);
            pull.updated.0 = now.0 - age * 1000;
            pull.open = title != "closed";
            if title == "elsewhere" {
                pull.base = "release/1.x".into();
            }
        }
    }
    let forge = world.open();

    let titles = async |base: &str| -> Vec<String> {
        let all = forge.open_pulls(base).await.unwrap();
        all.into_iter().map(|p| p.title).collect()
    };

    assert_eq!(titles("main").await, ["new", "middle", "old"]);
    assert_eq!(titles("release/1.x").await, ["elsewhere"]);
    assert!(titles("none&state=all").await.is_empty());
}

pub async fn a_pull_request_tells_everything_that_is_asked_of_it(world: &dyn ForgeWorld) {
    let (number, ana) = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        let pull = state.open(ana, "raise the count 🚀");
        pull.draft = true;
        pull.labels = vec!["safe to preview".into(), "große".into()];
        (pull.number, ana)
    };
    let forge = world.open();

    let pull = forge.pull(number).await.unwrap();

    assert_eq!(forge.open_pulls("main").await.unwrap()[0], pull);
    assert_eq!(pull.number, number);
    assert_eq!(pull.title, "raise the count 🚀");
    assert_eq!(pull.author, person(world, ana, "ana"));
    assert_eq!(pull.head.as_str(), format!("{number:040x}"));
    assert_eq!(
        (pull.branch.as_str(), pull.base.as_str()),
        ("topic-1", "main")
    );
    assert_eq!(pull.state, PullState::Open);
    assert!(pull.draft && !pull.fork);
    let labels = ["safe to preview", "große"].map(str::to_owned);
    let none: &[String] = &[];
    assert_eq!(pull.labels, if world.labels() { &labels } else { none });
    assert_eq!(pull.updated, Some(super::fakes::BEGINNING));
}

pub async fn a_pull_request_tells_how_it_ended(world: &dyn ForgeWorld) {
    let merge = "feed".repeat(10);
    let (closed, merged) = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        let closed = state.open(ana, "given up");
        closed.open = false;
        let closed = closed.number;
        let pull = state.open(ana, "merged");
        pull.open = false;
        pull.merged = Some(merge.clone());
        (closed, pull.number)
    };
    let forge = world.open();

    assert_eq!(forge.pull(closed).await.unwrap().state, PullState::Closed);
    let commit = Some(revision(&merge));
    assert_eq!(
        forge.pull(merged).await.unwrap().state,
        PullState::Merged { commit }
    );
}

pub async fn a_fork_is_one_also_when_it_was_deleted(world: &dyn ForgeWorld) {
    {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        state.open(ana, "own");
        state.open(ana, "fork").fork = true;
        let gone = state.open(ana, "deleted fork");
        (gone.fork, gone.headless) = (true, true);
        let gone = state.open(ana, "nobody's");
        gone.author = None;
    }
    let forge = world.open();

    let mut all = forge.open_pulls("main").await.unwrap();
    all.sort_by_key(|p| p.number);

    let forks: Vec<bool> = all.iter().map(|p| p.fork).collect();
    assert_eq!(forks, [false, true, true, false]);
    let nobody = forge.permission(&all[3].author).await.unwrap();
    assert_eq!(nobody, Permission::None);
}

pub async fn more_than_a_page_of_pull_requests_is_told(world: &dyn ForgeWorld) {
    {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        for at in 0..230 {
            state.open(ana, &format!("pull {at}"));
        }
    }

    let all = world.open().open_pulls("main").await.unwrap();

    let mut numbers: Vec<u64> = all.iter().map(|p| p.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=230).collect::<Vec<_>>());
}

pub async fn a_pull_request_that_is_not_there_is_not_found(world: &dyn ForgeWorld) {
    let found = world.open().pull(7).await;

    assert!(matches!(found, Err(Error::NotFound(_))), "{found:?}");
}

pub async fn a_commit_came_in_by_the_pull_request_that_was_merged(world: &dyn ForgeWorld) {
    let merge = "feed".repeat(10);
    let merged = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        // Another one is open and has that commit as its head.
        state.open(ana, "open").head = merge.clone();
        let pull = state.open(ana, "merged");
        pull.open = false;
        pull.merged = Some(merge.clone());
        pull.number
    };
    let forge = world.open();

    assert_eq!(forge.pulls_of(&revision(&merge)).await.unwrap(), [merged]);
    let pushed = "feed".repeat(9) + "0000";
    assert!(forge.pulls_of(&revision(&pushed)).await.unwrap().is_empty());
}

pub async fn a_permission_is_that_of_the_role(world: &dyn ForgeWorld) {
    let forge = world.open();
    let mut found = Vec::new();

    for (at, (role, expected)) in world.roles().into_iter().enumerate() {
        let login = format!("person-{at}");
        let id = {
            let mut state = world.fake().state();
            let id = state.account(&login, false);
            state.roles.insert(id, role.to_owned());
            id
        };
        let permission = forge.permission(&person(world, id, &login)).await.unwrap();
        assert_eq!(permission, expected, "{role}");
        found.push(permission);
    }

    // Every level can be told apart, or a rule about it could never hold.
    for level in [Permission::Read, Permission::Write, Permission::Admin] {
        assert!(found.contains(&level), "{level}");
    }
}

pub async fn strangers_and_accounts_that_are_gone_may_do_nothing(world: &dyn ForgeWorld) {
    let stranger = world.fake().state().account("stranger", false);
    let forge = world.open();

    let strange = forge.permission(&person(world, stranger, "stranger")).await;
    let gone = forge.permission(&person(world, 5, "gone")).await;
    let nobody = forge.permission(&person(world, 0, "stranger")).await;

    assert_eq!(strange, Ok(Permission::None));
    assert_eq!(gone, Ok(Permission::None));
    assert_eq!(nobody, Ok(Permission::None));
}

pub async fn sec_an_account_that_took_over_a_name_may_do_nothing(world: &dyn ForgeWorld) {
    let (top, _) = *world
        .roles()
        .iter()
        .find(|r| r.1 == Permission::Admin)
        .unwrap();
    let (ana, _taker) = {
        let mut state = world.fake().state();
        let ana = state.account("ana", false);
        state.accounts.get_mut(&ana).unwrap().login = "ana-maria".into();
        let taker = state.account("ana", false);
        state.roles.insert(taker, top.to_owned());
        (ana, taker)
    };

    // She wrote as `ana`, and may do nothing here; who is called so now may do everything.
    let found = world.open().permission(&person(world, ana, "ana")).await;

    assert_eq!(found, Ok(Permission::None));
}

pub async fn sec_a_name_is_data_and_leads_nowhere_else(world: &dyn ForgeWorld) {
    let forge = world.open();
    world.fake().asked();

    for name in [
        "..",
        ".",
        "../../user",
        "ana/../../..",
        "a?b=c",
        "a#b",
        "a%2fb",
        "",
        "a\r\nx: y",
    ] {
        let found = forge.permission(&person(world, 1, name)).await;
        assert!(
            !matches!(found, Ok(p) if p > Permission::None),
            "{name}: {found:?}"
        );
    }

    for asked in world.fake().asked() {
        let up = |part: &str| matches!(part, "." | "..");
        assert!(!asked.raw.split('/').any(up), "{}", asked.raw);
        assert!(!asked.headers.contains_key("x"), "{}", asked.raw);
        assert!(!asked.query.contains_key("b"), "{}", asked.raw);
    }
    world.clock().advance(Duration::from_secs(1));
}
