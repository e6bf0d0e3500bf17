//! Which uid stands behind which address, after what `moved` says.
//!
//! The entries of `moved` stay in the sync file when they have done their work, and several of them may name one
//! address: `[x → y, a → x]` is a chain, `[a → b, b → a]` a swap. So they are resolved all at once, against the
//! addresses as they are before this snapshot, and one that was followed before is not followed again.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::model::{Address, Finding, TargetUid};
use crate::domain::spec::Moved;

/// Who stands at an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The target.
    pub uid: TargetUid,
    /// The address that it had before this one.
    pub came_from: Option<Address>,
    /// Whether it has a stack, or is being deployed. Who has none may be put aside.
    pub deployed: bool,
}

/// Who stands where after the moves of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identities {
    /// The known targets by their addresses; who is new has none yet.
    pub uids: BTreeMap<Address, TargetUid>,
    /// Moves that cannot be followed, each with the addresses that it names. None of those may be touched: what stands
    /// there may be the other one.
    pub unresolved: Vec<([Address; 2], Finding)>,
}

/// A move that has not been followed yet.
struct Wanted<'a> {
    from: Address,
    uid: TargetUid,
    rule: &'a Moved,
}

/// Finds who stands at each address that is asked for.
///
/// `at` tells who stands at an address before this snapshot. `pushed_out` tells who was at an address when another was
/// moved there, and has not been moved itself: the other half of a swap, where only one half was written down.
pub fn identify<'a>(
    asked: &mut dyn Iterator<Item = &'a Address>,
    rules: &[Moved],
    at: &dyn Fn(&Address) -> Option<Standing>,
    pushed_out: &dyn Fn(&Address) -> Option<Standing>,
) -> Identities {
    let asked: BTreeSet<&Address> = asked.collect();
    let mut out = Identities::default();
    for address in &asked {
        if let Some(standing) = at(address) {
            out.uids.insert((*address).clone(), standing.uid);
        }
    }
    if rules.is_empty() {
        return out;
    }
    let mut wanted: BTreeMap<&Address, Vec<Wanted<'_>>> = BTreeMap::new();
    let mut followed_before: BTreeMap<&Address, Wanted<'_>> = BTreeMap::new();
    for rule in rules {
        for to in asked.iter().filter(|to| rule.to.stands_for(to)) {
            let exact = (rule.to == **to).then(|| rule.from.clone());
            let same_region = rule.from.clone().at(to.region().cloned());
            let found = exact.into_iter().chain([same_region]).find_map(|from| {
                let standing = pushed_out(&from).or_else(|| at(&from))?;
                Some((from, standing.uid))
            });
            let Some((from, uid)) = found.filter(|(from, _)| from != *to) else {
                continue;
            };
            let here = at(to);
            let followed = here.as_ref().is_some_and(|h| {
                h.uid == uid
                    || (h.came_from.as_ref() == Some(&from)
                        && (h.deployed || asked.contains(&from)))
            });
            let one = Wanted { from, uid, rule };
            if followed {
                followed_before.insert(to, one);
                continue;
            }
            let list = wanted.entry(to).or_default();
            if list.iter().all(|w| w.uid != one.uid) {
                list.push(one);
            }
        }
    }
    let mut refused: Vec<(&Address, Wanted<'_>, String)> = Vec::new();
    let mut moves: BTreeMap<&Address, Wanted<'_>> = BTreeMap::new();
    let mut leaves: BTreeMap<TargetUid, usize> = BTreeMap::new();
    for one in wanted.values().flatten() {
        *leaves.entry(one.uid.clone()).or_default() += 1;
    }
    for (to, mut list) in wanted {
        let split = list.iter().any(|w| leaves.get(&w.uid) > Some(&1));
        if list.len() == 1 && !split {
            moves.extend(list.pop().map(|one| (to, one)));
            continue;
        }
        let why = if split {
            "one target cannot become two"
        } else {
            "two targets cannot become one"
        };
        refused.extend(list.into_iter().map(|w| (to, w, why.to_owned())));
    }
    // One that cannot be followed may keep another from being followed.
    loop {
        let broken = moves.iter().find_map(|(to, one)| {
            let stays = |uid: &TargetUid| moves.values().all(|other| other.uid != *uid);
            let still_there = at(&one.from).is_some_and(|s| s.uid == one.uid);
            if still_there && asked.contains(&one.from) && !moves.contains_key(&one.from) {
                let why = format!(
                    "{} is still asked for, and nothing else moves there",
                    one.from
                );
                return Some(((*to).clone(), why));
            }
            let here = at(to).filter(|h| h.deployed && h.uid != one.uid && stays(&h.uid))?;
            let why = format!("another target ({}) has its stack there", here.uid.short());
            Some(((*to).clone(), why))
        });
        let Some((to, why)) = broken else { break };
        // An entry that was followed once is followed again where another one makes no sense without it: the same swap a
        // second time, or a swap of two that have changed places in another way before.
        let from = moves.get(&to).map(|one| one.from.clone());
        let vacant = from.filter(|from| !moves.contains_key(from));
        let again = vacant.and_then(|from| followed_before.remove_entry(&from));
        if let Some((to, one)) = again.filter(|(_, one)| moves.values().all(|m| m.uid != one.uid)) {
            moves.insert(to, one);
            continue;
        }
        let Some((to, one)) = moves.remove_entry(&to) else {
            break;
        };
        refused.push((to, one, why));
    }
    for (to, one) in moves {
        out.uids.insert(to.clone(), one.uid);
    }
    for (to, one, why) in refused {
        let message = format!(
            "`moved` cannot be followed: {} → {to}: {why}; nothing is done with either of them",
            one.from
        );
        let finding = Finding::error("sync.moved", one.rule.place.clone(), message).help(
            "correct the entry, or remove it where it has done its work; what has a stack keeps it meanwhile",
        );
        out.unresolved.push(([one.from, to.clone()], finding));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::Place;

    fn uid(letter: &str) -> TargetUid {
        let code = letter.bytes().map(|b| format!("{b:02x}"));
        let text: String = code.collect();
        text.repeat(32)[..32].parse().unwrap()
    }

    /// Addresses before: name, who is there, where that came from, and whether it has a stack.
    type Before<'a> = &'a [(&'a str, &'a str, Option<&'a str>, bool)];

    fn identities(asked: &[&str], rules: &[(&str, &str)], before: Before<'_>) -> Identities {
        let asked: Vec<Address> = asked.iter().map(|n| n.parse().unwrap()).collect();
        let rules: Vec<Moved> = rules
            .iter()
            .map(|(from, to)| Moved {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                place: Place::file("isoform.yaml"),
            })
            .collect();
        let at = |address: &Address| {
            let found = before.iter().find(|b| address.to_string() == b.0)?;
            Some(Standing {
                uid: uid(found.1),
                came_from: found.2.map(|f| f.parse().unwrap()),
                deployed: found.3,
            })
        };
        identify(&mut asked.iter(), &rules, &at, &|_| None)
    }

    fn uids(of: &[(&str, &str)]) -> BTreeMap<Address, TargetUid> {
        let one = |(a, u): &(&str, &str)| (a.parse().unwrap(), uid(u));
        of.iter().map(one).collect()
    }

    const CHAIN: &[(&str, &str)] = &[("stack/x", "stack/y"), ("stack/a", "stack/x")];
    const SWAP: &[(&str, &str)] = &[("stack/a", "stack/b"), ("stack/b", "stack/a")];

    #[test]
    fn a_chain_moves_all_of_its_links_at_once_and_only_once() {
        let before = [("stack/x", "x", None, true), ("stack/a", "a", None, true)];
        let found = identities(&["stack/x", "stack/y"], CHAIN, &before);
        assert_eq!(found.uids, uids(&[("stack/y", "x"), ("stack/x", "a")]));
        assert!(found.unresolved.is_empty());

        let after = [
            ("stack/y", "x", Some("stack/x"), true),
            ("stack/x", "a", Some("stack/a"), true),
        ];
        let again = identities(&["stack/x", "stack/y"], CHAIN, &after);
        assert_eq!(again, found);
        // The middle is asked for no more: who was there is not taken for who came from there.
        let left = identities(&["stack/y"], CHAIN, &after);
        assert_eq!(left.uids, uids(&[("stack/y", "x")]));
    }

    #[test]
    fn a_swap_and_a_ring_of_three_are_followed_and_not_turned_back() {
        let before = [("stack/a", "a", None, true), ("stack/b", "b", None, true)];
        let found = identities(&["stack/a", "stack/b"], SWAP, &before);
        assert_eq!(found.uids, uids(&[("stack/a", "b"), ("stack/b", "a")]));

        let after = [
            ("stack/a", "b", Some("stack/b"), true),
            ("stack/b", "a", Some("stack/a"), true),
        ];
        assert_eq!(identities(&["stack/a", "stack/b"], SWAP, &after), found);

        let ring = [SWAP[0], ("stack/b", "stack/c"), ("stack/c", "stack/a")];
        let before = [before[0], before[1], ("stack/c", "c", None, true)];
        let asked = ["stack/a", "stack/b", "stack/c"];
        let found = identities(&asked, &ring, &before);
        let turned = [("stack/b", "a"), ("stack/c", "b"), ("stack/a", "c")];
        assert_eq!(found.uids, uids(&turned));
        assert!(found.unresolved.is_empty());
    }

    #[test]
    fn a_swap_after_a_chain_is_followed_though_one_half_was_followed_then() {
        let before = [
            ("stack/a", "n", Some("stack/z"), true),
            ("stack/b", "a", Some("stack/a"), true),
        ];
        let found = identities(&["stack/a", "stack/b"], SWAP, &before);
        assert_eq!(found.uids, uids(&[("stack/a", "a"), ("stack/b", "n")]));
        assert!(found.unresolved.is_empty());

        let after = [
            ("stack/a", "a", Some("stack/b"), true),
            ("stack/b", "n", Some("stack/a"), true),
        ];
        assert_eq!(identities(&["stack/a", "stack/b"], SWAP, &after), found);
    }

    #[test]
    fn half_a_swap_that_was_written_down_is_brought_to_its_end() {
        let a: Address = "stack/a".parse().unwrap();
        let b: Address = "stack/b".parse().unwrap();
        let rules: Vec<Moved> = SWAP
            .iter()
            .map(|(from, to)| Moved {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                place: Place::file("isoform.yaml"),
            })
            .collect();
        let standing = |letter: &str, came_from: Option<&Address>| Standing {
            uid: uid(letter),
            came_from: came_from.cloned(),
            deployed: true,
        };
        let at = |address: &Address| (*address == b).then(|| standing("a", Some(&a)));
        let out = |address: &Address| (*address == b).then(|| standing("b", None));

        let found = identify(&mut [a.clone(), b.clone()].iter(), &rules, &at, &out);

        assert_eq!(found.uids, uids(&[("stack/a", "b"), ("stack/b", "a")]));
        assert!(found.unresolved.is_empty());
    }

    #[test]
    fn what_cannot_be_resolved_is_said_and_moves_nobody() {
        let before = [
            ("stack/a", "a", None, true),
            ("stack/b", "b", None, true),
            ("stack/c", "c", None, true),
        ];
        for (asked, rules, kept, said) in [
            // Two become one.
            (
                &["stack/x"][..],
                &[("stack/a", "stack/x"), ("stack/b", "stack/x")][..],
                &[][..],
                "two targets cannot become one",
            ),
            // One becomes two.
            (
                &["stack/x", "stack/y"],
                &[("stack/a", "stack/x"), ("stack/a", "stack/y")],
                &[],
                "one target cannot become two",
            ),
            // The old address is still asked for.
            (
                &["stack/a", "stack/x"],
                &[("stack/a", "stack/x")],
                &[("stack/a", "a")],
                "stack/a is still asked for",
            ),
            // The new address is somebody else's.
            (
                &["stack/b"],
                &[("stack/a", "stack/b")],
                &[("stack/b", "b")],
                "has its stack there",
            ),
            // A chain whose end cannot go stays whole where it is.
            (
                &["stack/b", "stack/c"],
                &[("stack/a", "stack/b"), ("stack/b", "stack/c")],
                &[("stack/b", "b"), ("stack/c", "c")],
                "has its stack there",
            ),
        ] {
            let found = identities(asked, rules, &before);
            assert_eq!(found.uids, uids(kept), "{rules:?}");
            let texts: Vec<&str> = found.unresolved.iter().map(|(_, f)| &*f.message).collect();
            assert!(texts.iter().any(|t| t.contains(said)), "{texts:?}");
            assert_eq!(texts.len(), rules.len());
        }
    }

    #[test]
    fn who_has_no_stack_makes_room_and_what_was_followed_is_left_alone() {
        let before = [("stack/a", "a", None, true), ("stack/b", "b", None, false)];
        let found = identities(&["stack/b"], &[("stack/a", "stack/b")], &before);
        assert_eq!(found.uids, uids(&[("stack/b", "a")]));
        // Followed long ago; the old address has been given to another one since.
        let after = [
            ("stack/b", "a", Some("stack/a"), true),
            ("stack/a", "n", None, true),
        ];
        let found = identities(&["stack/a", "stack/b"], &[("stack/a", "stack/b")], &after);
        assert_eq!(found.uids, uids(&[("stack/b", "a"), ("stack/a", "n")]));
        assert!(found.unresolved.is_empty());
    }

    #[test]
    fn an_entry_without_a_region_means_every_region() {
        let before = [
            ("env/a@us-east-1", "u", None, true),
            ("env/a@eu-west-1", "e", None, true),
            ("env/c", "c", None, true),
        ];
        let asked = ["env/b@us-east-1", "env/b@eu-west-1", "env/d@us-east-1"];
        let rules = [("env/a", "env/b"), ("env/c", "env/d@us-east-1")];
        let found = identities(&asked, &rules, &before);
        let moved = [
            ("env/b@us-east-1", "u"),
            ("env/b@eu-west-1", "e"),
            ("env/d@us-east-1", "c"),
        ];
        assert_eq!(found.uids, uids(&moved));
    }
}
