//! Comments: one for each marker, in its place, and nobody else's.

use std::time::Duration;

use isoform::port::Error;

use super::fakes::Fault;
use super::{ForgeWorld, MARKER, text};

/// A pull request of somebody; returns its number and theirs.
fn opened(world: &dyn ForgeWorld) -> (u64, u64) {
    let mut state = world.fake().state();
    let ana = state.account("ana", false);
    (state.open(ana, "raise the count").number, ana)
}

fn bodies(world: &dyn ForgeWorld, number: u64) -> Vec<String> {
    let state = world.fake().state();
    let said = state.said(number);
    said.iter().map(|c| world.read(&c.body)).collect()
}

pub async fn a_comment_is_written_once_and_then_in_its_place(world: &dyn ForgeWorld) {
    let (number, _) = opened(world);
    let forge = world.open();

    let first = forge
        .write_comment(number, MARKER, None, &text("one"))
        .await
        .unwrap();
    let again = forge
        .write_comment(number, MARKER, Some(first), &text("two"))
        .await
        .unwrap();

    assert_eq!(first, again);
    assert_eq!(bodies(world, number), [text("two")]);
    let author = world.fake().state().said(number)[0].author;
    assert_eq!(author, Some(world.me()));
}

pub async fn a_comment_whose_id_was_lost_is_found_by_its_marker(world: &dyn ForgeWorld) {
    let (number, ana) = opened(world);
    let first = world
        .open()
        .write_comment(number, MARKER, None, &text("one"))
        .await
        .unwrap();
    for at in 0..120 {
        world
            .fake()
            .state()
            .say(number, Some(ana), &format!("remark {at}"));
    }

    let found = world
        .open()
        .write_comment(number, MARKER, None, &text("two"))
        .await
        .unwrap();

    assert_eq!(found, first);
    assert_eq!(bodies(world, number)[0], text("two"));
    assert_eq!(bodies(world, number).len(), 121);
}

pub async fn sec_a_comment_of_somebody_else_is_never_touched(world: &dyn ForgeWorld) {
    let (number, ana) = opened(world);
    let (theirs, bots, gone) = {
        let mut state = world.fake().state();
        let bot = state.account("other[bot]", true);
        let theirs = state.say(number, Some(ana), &world.written(&text("theirs")));
        let bots = state.say(number, Some(bot), &world.written(&text("a bot's")));
        let gone = state.say(number, None, &world.written(&text("nobody's")));
        (theirs, bots, gone)
    };

    let found = world
        .open()
        .write_comment(number, MARKER, None, &text("ours"))
        .await
        .unwrap();
    // An id out of a state that was restored, or that somebody put there.
    for id in [theirs, bots, gone] {
        let forge = world.open();
        let ours = text("ours, again");
        let again = forge.write_comment(number, MARKER, Some(id), &ours).await;
        assert_eq!(again.unwrap(), found);
    }

    let all = bodies(world, number);
    let expected = ["theirs", "a bot's", "nobody's", "ours, again"].map(text);
    assert_eq!(all, expected);
}

pub async fn a_comment_under_another_pull_request_is_never_touched(world: &dyn ForgeWorld) {
    let (number, ana) = opened(world);
    let other = world.fake().state().open(ana, "another").number;
    let forge = world.open();
    let there = forge
        .write_comment(other, MARKER, None, &text("there"))
        .await
        .unwrap();

    let here = forge
        .write_comment(number, MARKER, Some(there), &text("here"))
        .await
        .unwrap();

    assert_ne!(here, there);
    assert_eq!(bodies(world, other), [text("there")]);
    assert_eq!(bodies(world, number), [text("here")]);
}

pub async fn a_deleted_comment_is_made_anew(world: &dyn ForgeWorld) {
    let (number, _) = opened(world);
    let forge = world.open();
    let first = forge
        .write_comment(number, MARKER, None, &text("one"))
        .await
        .unwrap();
    world.fake().state().comments.remove(&first);

    let second = forge
        .write_comment(number, MARKER, Some(first), &text("two"))
        .await
        .unwrap();

    assert_ne!(first, second);
    assert_eq!(bodies(world, number), [text("two")]);
}

pub async fn two_markers_are_two_comments(world: &dyn ForgeWorld) {
    let (number, _) = opened(world);
    let forge = world.open();
    let other = "<!-- isoform:preview:other -->";

    let one = forge
        .write_comment(number, MARKER, None, &text("one"))
        .await
        .unwrap();
    let two = forge
        .write_comment(number, other, None, &format!("{other}\ntwo"))
        .await
        .unwrap();
    let again = forge
        .write_comment(number, MARKER, None, &text("one, again"))
        .await
        .unwrap();

    assert_ne!(one, two);
    assert_eq!(one, again);
    assert_eq!(
        bodies(world, number),
        [text("one, again"), format!("{other}\ntwo")]
    );
}

pub async fn a_comment_must_begin_with_its_marker(world: &dyn ForgeWorld) {
    let (number, _) = opened(world);
    let forge = world.open();

    for (marker, text) in [(MARKER, "no marker"), ("", "nothing")] {
        let refused = forge.write_comment(number, marker, None, text).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }

    assert!(bodies(world, number).is_empty());
}

pub async fn an_answer_that_was_lost_does_not_double_a_comment(world: &dyn ForgeWorld) {
    let (number, _) = opened(world);
    let forge = world.open();
    let (_, comments) = world.routes();
    world
        .fake()
        .state()
        .fault(&format!("POST {comments}"), 1, Fault::Lost);

    let lost = forge
        .write_comment(number, MARKER, None, &text("one"))
        .await;
    assert!(matches!(lost, Err(Error::Unavailable(_))), "{lost:?}");
    forge
        .write_comment(number, MARKER, None, &text("one"))
        .await
        .unwrap();

    assert_eq!(bodies(world, number), [text("one")]);
}

pub async fn every_character_survives(world: &dyn ForgeWorld) {
    let (number, _) = opened(world);
    let strange = text(
        "äöü 漢字 🚀\u{200d}👩\n```diff\n- \"a\\b\"\n+ 'c'\n```\n<details>&amp;</details>\t%2e%2e?x=1&y#z",
    );

    let forge = world.open();
    forge
        .write_comment(number, MARKER, None, &strange)
        .await
        .unwrap();

    assert_eq!(bodies(world, number)[0], strange);
    assert_eq!(forge.comments(number, 0).await.unwrap()[0].body, strange);
}

pub async fn a_comment_of_the_greatest_size_is_taken_and_no_greater_one(world: &dyn ForgeWorld) {
    let (number, _) = opened(world);
    let forge = world.open();
    let room = forge.comment_limit() - text("").chars().count();

    let fits = text(&"é".repeat(room));
    let id = forge
        .write_comment(number, MARKER, None, &fits)
        .await
        .unwrap();
    let beyond = forge
        .write_comment(number, MARKER, Some(id), &text(&"é".repeat(room + 1)))
        .await;

    assert!(matches!(beyond, Err(Error::Refused(_))), "{beyond:?}");
    assert_eq!(bodies(world, number), [fits]);
}

pub async fn comments_after_a_known_one_are_told_oldest_first(world: &dyn ForgeWorld) {
    let (number, ana) = opened(world);
    let ids: Vec<u64> = (0..3)
        .map(|at| {
            world
                .fake()
                .state()
                .say(number, Some(ana), &format!("remark {at}"))
        })
        .collect();
    let forge = world.open();

    let ids_after = async |after| -> Vec<u64> {
        let all = forge.comments(number, after).await.unwrap();
        all.iter().map(|c| c.id).collect()
    };

    assert_eq!(ids_after(0).await, ids);
    assert_eq!(ids_after(ids[0]).await, ids[1..]);
    assert!(ids_after(ids[2]).await.is_empty());
    let next = world.fake().state().say(number, Some(ana), "one more");
    assert_eq!(ids_after(ids[2]).await, [next]);
}

pub async fn edits_bots_and_accounts_that_are_gone_are_told(world: &dyn ForgeWorld) {
    let (number, ana) = opened(world);
    {
        let mut state = world.fake().state();
        let bot = state.account("robot", true);
        state.say(number, Some(ana), "isoform approve");
        let edited = state.say(number, Some(ana), "isoform approve svc/orders");
        state.say(number, Some(bot), "a bot's");
        state.say(number, None, "nobody's");
        let later = state.now().plus(Duration::from_secs(90));
        state.comments.get_mut(&edited).unwrap().updated = later;
    }

    let all = world.open().comments(number, 0).await.unwrap();

    let told: Vec<(bool, bool)> = all.iter().map(|c| (c.edited, c.author.bot)).collect();
    let bot = world.tells_bots();
    assert_eq!(
        told,
        [(false, false), (true, false), (false, bot), (false, false)]
    );
    assert_eq!(all[0].author.id, world.person_id(ana));
    assert_eq!(all[0].author.login, "ana");
    assert_eq!(all[0].created, super::fakes::BEGINNING);
    // Nobody's permission can be looked up by it.
    assert_ne!(all[3].author.id, world.person_id(ana));
    assert_eq!(all[3].body, "nobody's");
}

pub async fn more_than_a_page_of_comments_is_told(world: &dyn ForgeWorld) {
    let (number, ana) = opened(world);
    let ids: Vec<u64> = (0..205)
        .map(|at| {
            world
                .fake()
                .state()
                .say(number, Some(ana), &format!("remark {at}"))
        })
        .collect();

    let all = world.open().comments(number, ids[1]).await.unwrap();

    assert_eq!(all.iter().map(|c| c.id).collect::<Vec<_>>(), ids[2..]);
}

pub async fn comments_of_what_is_not_there_are_not_found(world: &dyn ForgeWorld) {
    let forge = world.open();

    let read = forge.comments(999, 0).await;
    let written = forge.write_comment(999, MARKER, None, &text("one")).await;

    assert!(matches!(read, Err(Error::NotFound(_))), "{read:?}");
    assert!(matches!(written, Err(Error::NotFound(_))), "{written:?}");
}
