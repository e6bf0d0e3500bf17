//! The life of a change set.

use std::time::Duration;

use isoform::domain::plan::{Action, ChangeSetStatus as C, StackStatus as S};
use isoform::port::Error;

use crate::harness::*;

const TOPIC: &str = "Resources:\n  A: {Type: 'AWS::SNS::Topic'}\n";
const QUEUE: &str = "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 1}}\n";
const QUEUE_CHANGED: &str =
    "Resources:\n  Q: {Type: 'AWS::SQS::Queue', Properties: {DelaySeconds: 2}}\n";

pub async fn a_create_change_set_makes_a_shell(world: &dyn Harness) {
    let name = world.name("orders");
    let (proposed, read) = propose(world, &proposal(world, &name, TOPIC).await).await;

    assert_eq!(read.status, C::Available);
    assert_eq!(read.changes[0].action, Action::Add);
    let shell = look(world, &proposed.stack_id).await;
    assert_eq!(shell.status, S::ReviewInProgress);
    assert_eq!(shell.watermark(), None);
    // It takes the name and needs deleting by itself; deleting the change set does not remove it.
    let engine = world.engine();
    engine.discard(&proposed.change_set).await.unwrap();
    assert_eq!(
        look(world, &proposed.stack_id).await.status,
        S::ReviewInProgress
    );
    assert_eq!(
        delete(world, &proposed.stack_id, &[]).await.status,
        S::DeleteComplete
    );
}

pub async fn a_shell_is_used_by_the_next_create_change_set(world: &dyn Harness) {
    let name = world.name("orders");
    let (first, _) = propose(world, &proposal(world, &name, TOPIC).await).await;

    let (second, _) = propose(world, &proposal(world, &name, TOPIC).await).await;

    assert_eq!(first.stack_id, second.stack_id);
    assert_ne!(first.change_set, second.change_set);
}

pub async fn the_type_must_fit_the_stack(world: &dyn Harness) {
    let name = world.name("orders");
    let mut update = proposal(world, &name, TOPIC).await;
    update.create = false;
    assert!(matches!(
        world.engine().propose(&update).await,
        Err(Error::NotFound(_))
    ));
    apply(world, &name, TOPIC).await;

    let mut create = proposal(world, &name, QUEUE).await;
    create.create = true;

    assert!(matches!(
        world.engine().propose(&create).await,
        Err(Error::Exists(_))
    ));
}

pub async fn making_one_takes_time(world: &dyn Harness) {
    let proposal = proposal(world, &world.name("orders"), TOPIC).await;
    let engine = world.engine();

    let proposed = engine.propose(&proposal).await.unwrap();

    assert_eq!(
        engine.review(&proposed.change_set).await.unwrap().status,
        C::Creating
    );
    assert!(is_refused(engine.execute(&proposed.change_set, "x").await));
    assert_eq!(
        read_back(world, &proposed.change_set).await.status,
        C::Available
    );
}

pub async fn the_same_token_is_the_same_change_set(world: &dyn Harness) {
    let proposal = proposal(world, &world.name("orders"), TOPIC).await;
    let engine = world.engine();

    let first = engine.propose(&proposal).await.unwrap();
    let again = engine.propose(&proposal).await.unwrap();

    assert_eq!(first, again);
    let found = engine.find(&proposal.stack, &proposal.name).await.unwrap();
    assert_eq!(found, Some(first));
    assert_eq!(engine.find(&proposal.stack, "other").await.unwrap(), None);
}

pub async fn a_name_is_taken_also_while_its_change_set_is_deleted(world: &dyn Harness) {
    let mut one = proposal(world, &world.name("orders"), TOPIC).await;
    let (first, _) = propose(world, &one).await;
    let engine = world.engine();
    one.token = format!("{}-again", one.token);
    assert!(matches!(engine.propose(&one).await, Err(Error::Exists(_))));

    engine.discard(&first.change_set).await.unwrap();

    assert!(matches!(engine.propose(&one).await, Err(Error::Exists(_))));
    for _ in 0..10_000 {
        world.pass(Duration::from_millis(50)).await;
        if engine.propose(&one).await.is_ok() {
            return;
        }
    }
    panic!("the name is never free again");
}

pub async fn deleting_one_that_is_not_there_is_fine(world: &dyn Harness) {
    let (first, _) = propose(world, &proposal(world, &world.name("orders"), TOPIC).await).await;
    let engine = world.engine();

    engine.discard(&first.change_set).await.unwrap();
    world.pass(Duration::from_secs(60)).await;
    engine.discard(&first.change_set).await.unwrap();

    assert!(matches!(
        engine.review(&first.change_set).await,
        Err(Error::NotFound(_))
    ));
}

pub async fn nothing_to_change_is_a_failure_of_its_own(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, TOPIC).await;

    let (proposed, read) = propose(world, &proposal(world, &name, TOPIC).await).await;

    assert_eq!(read.status, C::NoChanges);
    let reason = read.reason.unwrap();
    assert!(reason.starts_with("The submitted information didn't contain changes."));
    assert!(is_refused(
        world.engine().execute(&proposed.change_set, "x").await
    ));
}

pub async fn a_transform_says_it_in_other_words(world: &dyn Harness) {
    let name = world.name("orders");
    let text = format!("Transform: AWS::LanguageExtensions\n{TOPIC}");
    apply(world, &name, &text).await;

    let (_, read) = propose(world, &proposal(world, &name, &text).await).await;

    assert_eq!(read.status, C::NoChanges);
    assert!(
        read.reason
            .unwrap()
            .starts_with("No updates are to be performed.")
    );
}

pub async fn executing_one_deletes_the_others(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, QUEUE).await;
    let engine = world.engine();
    let (first, _) = propose(world, &proposal(world, &name, QUEUE_CHANGED).await).await;
    let (second, _) = propose(world, &proposal(world, &name, QUEUE_CHANGED).await).await;

    engine.execute(&second.change_set, "x").await.unwrap();

    assert!(matches!(
        engine.review(&first.change_set).await,
        Err(Error::NotFound(_))
    ));
    assert_eq!(
        engine.review(&second.change_set).await.unwrap().status,
        C::Executing
    );
    settled(world, &second.stack_id).await;
    assert_eq!(
        engine.review(&second.change_set).await.unwrap().status,
        C::Executed
    );
    assert!(is_refused(engine.execute(&second.change_set, "y").await));
}

pub async fn another_operation_makes_one_obsolete(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, QUEUE).await.stack_id;
    let (first, _) = propose(world, &proposal(world, &name, QUEUE_CHANGED).await).await;
    needs!(world.meddle(&name).await, "operations of somebody else");
    settled(world, &id).await;

    let read = world.engine().review(&first.change_set).await.unwrap();

    assert_eq!(read.status, C::Obsolete);
    assert!(is_refused(
        world.engine().execute(&first.change_set, "x").await
    ));
}

pub async fn making_or_deleting_one_does_not_move_the_stack(world: &dyn Harness) {
    let name = world.name("orders");
    let before = apply(world, &name, QUEUE).await.watermark();

    let (first, _) = propose(world, &proposal(world, &name, QUEUE_CHANGED).await).await;
    let between = look(world, &first.stack_id).await.watermark();
    world.engine().discard(&first.change_set).await.unwrap();
    let after = look(world, &first.stack_id).await.watermark();

    assert_eq!(between, before);
    assert_eq!(after, before);
}

pub async fn what_was_executed_last_is_known_by_name(world: &dyn Harness) {
    let name = world.name("orders");
    let proposal = proposal(world, &name, QUEUE).await;

    let id = begin(world, &proposal).await;

    assert_eq!(
        look(world, &id).await.last_change_set.as_deref(),
        Some(proposal.name.as_str())
    );
    settled(world, &id).await;
    assert_eq!(
        look(world, &id).await.last_change_set.as_deref(),
        Some(proposal.name.as_str())
    );
}

pub async fn a_stack_that_moves_takes_no_change_set(world: &dyn Harness) {
    let name = world.name("orders");
    apply(world, &name, QUEUE).await;
    begin(world, &proposal(world, &name, QUEUE_CHANGED).await).await;

    let answer = world
        .engine()
        .propose(&proposal(world, &name, QUEUE).await)
        .await;

    assert!(matches!(answer, Err(Error::Busy(_))), "{answer:?}");
}

pub async fn a_thousand_are_the_most(world: &dyn Harness) {
    needs!(world.is_cheap(), "a thousand change sets");
    let name = world.name("orders");
    let mut one = proposal(world, &name, TOPIC).await;
    let engine = world.engine();
    let mut first = None;
    for number in 0..1000 {
        one.name = format!("many-{number}");
        one.token = format!("many-token-{number}");
        first = Some(engine.propose(&one).await.unwrap());
    }
    one.name = "one-more".into();
    one.token = "one-more".into();

    let refused = engine.propose(&one).await;
    assert!(matches!(refused, Err(Error::TooMany(_))), "{refused:?}");
    let stack = look(world, &first.unwrap().stack_id).await.stack_id;
    let (mut names, mut token, mut pages) = (std::collections::BTreeSet::new(), None, 0);
    loop {
        let page = engine.change_sets(&stack, token.as_deref()).await.unwrap();
        names.extend(page.items.into_iter().map(|s| s.name));
        pages += 1;
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names.len(), 1000);
    assert!(pages > 1);
}

pub async fn change_sets_of_a_stack_are_listed(world: &dyn Harness) {
    let (name, other) = (world.name("orders"), world.name("other"));
    let of_another = apply(world, &other, QUEUE).await.stack_id;
    let id = apply(world, &name, QUEUE).await.stack_id;
    let (first, second) = (
        proposal(world, &name, QUEUE_CHANGED).await,
        proposal(world, &name, QUEUE_CHANGED).await,
    );
    let (made, _) = propose(world, &first).await;
    propose(world, &second).await;
    let foreign = proposal(world, &other, QUEUE_CHANGED).await;
    propose(world, &foreign).await;
    let engine = world.engine();
    // What a deletion has left behind for a while counts as gone.
    let listed = async |stack| {
        let page = engine.change_sets(stack, None).await.unwrap();
        let there = page.items.into_iter().filter(|s| s.status != C::Deleted);
        there
            .map(|s| (s.name, s.change_set, s.status))
            .collect::<Vec<_>>()
    };

    let found = listed(&id).await;
    let ours = (first.name.clone(), made.change_set.clone(), C::Available);
    assert!(found.contains(&ours), "{found:?}");
    assert!(found.iter().any(|(name, ..)| *name == second.name));
    assert!(found.iter().all(|(name, ..)| *name != foreign.name));
    assert!(
        listed(&of_another)
            .await
            .iter()
            .any(|(name, ..)| *name == foreign.name)
    );
    engine.discard(&made.change_set).await.unwrap();
    assert!(
        listed(&id)
            .await
            .iter()
            .all(|(name, ..)| *name != first.name)
    );
}

pub async fn change_sets_of_a_stack_that_is_not_there_are_not_found(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, QUEUE).await.stack_id;
    let nobody = id.as_str().replace(&name, "nobody");

    let answer = world
        .engine()
        .change_sets(&nobody.parse().unwrap(), None)
        .await;

    assert!(matches!(answer, Err(Error::NotFound(_))), "{answer:?}");
}

pub async fn listings_come_in_pages(world: &dyn Harness) {
    needs!(world.is_cheap(), "many stacks");
    let mut made = Vec::new();
    for number in 0..130 {
        let name = world.name(&format!("s{number}"));
        let (proposed, _) = propose(world, &proposal(world, &name, TOPIC).await).await;
        made.push(proposed.stack_id);
    }

    let (mut seen, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = world.engine().list(token.as_deref()).await.unwrap();
        seen.extend(page.items.into_iter().map(|s| s.stack_id));
        pages += 1;
        token = page.next;
        if token.is_none() {
            break;
        }
    }

    assert!(pages > 1);
    made.sort();
    seen.sort();
    seen.retain(|s| made.contains(s));
    assert_eq!(seen, made);
}

pub async fn what_moves_is_listed_while_it_moves(world: &dyn Harness) {
    let name = world.name("orders");
    let asked = proposal(world, &name, QUEUE).await;
    let (proposed, _) = propose(world, &asked).await;
    let id = proposed.stack_id.clone();
    let engine = world.engine();
    let listed = async || {
        let (mut token, mut found) = (None::<String>, Vec::new());
        loop {
            let page = engine.list_moving(token.as_deref()).await.unwrap();
            found.extend(page.items);
            token = page.next;
            if token.is_none() {
                break found.into_iter().find(|s| s.stack_id == id);
            }
        }
    };
    assert_eq!(listed().await, None, "a shell is not in motion");
    engine.execute(&proposed.change_set, "x").await.unwrap();

    let mut moved = 0;
    loop {
        let before = look(world, &id).await.status;
        let line = listed().await;
        let after = look(world, &id).await.status;
        match line {
            Some(line) => {
                assert!(!before.is_settled(), "it rested: {line:?}");
                assert!(!line.status.is_settled(), "{line:?}");
                moved += 1;
            }
            None => assert!(after.is_settled(), "it was {before} and then {after}"),
        }
        if after.is_settled() {
            break;
        }
        world.pass(Duration::from_millis(50)).await;
    }

    assert_eq!(listed().await, None);
    // Elsewhere an operation may end before anybody can look.
    assert!(moved > 0 || !world.is_cheap());
}

pub async fn events_after_a_known_one_are_told(world: &dyn Harness) {
    let name = world.name("orders");
    let id = apply(world, &name, QUEUE).await.stack_id;
    let engine = world.engine();
    let before = engine.events(&id, None).await.unwrap();
    let known = before.last().unwrap().id.clone();
    assert!(engine.events(&id, Some(&known)).await.unwrap().is_empty());

    apply(world, &name, QUEUE_CHANGED).await;

    let after = engine.events(&id, Some(&known)).await.unwrap();
    assert_eq!(after[0].status, "UPDATE_IN_PROGRESS");
    let all = engine.events(&id, None).await.unwrap();
    assert_eq!(all.len(), before.len() + after.len());
    assert!(all.windows(2).all(|w| w[0].at <= w[1].at));
}
