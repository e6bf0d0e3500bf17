//! Which target waits for which: producers of outputs, `after:`, and the order for people.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Address;

/// What each target needs first.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Graph {
    needs: BTreeMap<Address, BTreeSet<Address>>,
    users: BTreeMap<Address, BTreeSet<Address>>,
}

impl Graph {
    /// Adds a target.
    pub fn add(&mut self, target: &Address) {
        self.needs.entry(target.clone()).or_default();
    }

    /// Says that `target` needs `first`.
    pub fn needs(&mut self, target: &Address, first: &Address) {
        self.needs
            .entry(target.clone())
            .or_default()
            .insert(first.clone());
        self.users
            .entry(first.clone())
            .or_default()
            .insert(target.clone());
    }

    /// Returns what a target needs directly.
    pub fn first(&self, target: &Address) -> impl Iterator<Item = &Address> {
        self.needs.get(target).into_iter().flatten()
    }

    /// Returns who needs a target directly.
    pub fn users(&self, target: &Address) -> impl Iterator<Item = &Address> {
        self.users.get(target).into_iter().flatten()
    }

    /// Returns those whom somebody needs directly.
    pub fn used(&self) -> impl Iterator<Item = &Address> {
        self.users.keys()
    }

    /// Returns every circle as its path, the shortest description of each.
    pub fn circles(&self) -> Vec<Vec<Address>> {
        let mut found: Vec<Vec<Address>> = Vec::new();
        let mut done: BTreeSet<&Address> = BTreeSet::new();
        for start in self.needs.keys() {
            if done.contains(start) {
                continue;
            }
            // Depth first with an explicit stack: the graph comes from a repository, so recursion is not for us.
            let mut path: Vec<(&Address, Vec<&Address>)> =
                vec![(start, self.first(start).collect())];
            while let Some((_, open)) = path.last_mut() {
                let Some(next) = open.pop() else {
                    if let Some((finished, _)) = path.pop() {
                        done.insert(finished);
                    }
                    continue;
                };
                if let Some(from) = path.iter().position(|(a, _)| *a == next) {
                    let mut circle: Vec<Address> =
                        path[from..].iter().map(|(a, _)| (*a).clone()).collect();
                    circle.push(next.clone());
                    found.push(circle);
                } else if !done.contains(next) && self.needs.contains_key(next) {
                    path.push((next, self.first(next).collect()));
                }
            }
        }
        found
    }

    /// Returns the targets in levels: each needs only earlier levels. Targets in circles come last.
    pub fn levels(&self) -> Vec<Vec<Address>> {
        let mut done: BTreeSet<&Address> = BTreeSet::new();
        let mut levels = Vec::new();
        while done.len() < self.needs.len() {
            let ready: Vec<&Address> = self
                .needs
                .iter()
                .filter(|(t, needs)| {
                    !done.contains(*t)
                        && needs
                            .iter()
                            .all(|n| done.contains(n) || !self.needs.contains_key(n))
                })
                .map(|(t, _)| t)
                .collect();
            if ready.is_empty() {
                levels.push(
                    self.needs
                        .keys()
                        .filter(|t| !done.contains(*t))
                        .cloned()
                        .collect(),
                );
                break;
            }
            done.extend(&ready);
            levels.push(ready.into_iter().cloned().collect());
        }
        levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for (a, b) in edges {
            let (a, b) = (Address::stack(a), Address::stack(b));
            graph.add(&b);
            graph.needs(&a, &b);
        }
        graph
    }

    #[test]
    fn levels_put_producers_first() {
        let levels = graph(&[("c", "b"), ("b", "a"), ("d", "a")]).levels();
        let names: Vec<Vec<&str>> = levels
            .iter()
            .map(|l| l.iter().map(Address::name).collect())
            .collect();
        assert_eq!(names, [vec!["a"], vec!["b", "d"], vec!["c"]]);
    }

    #[test]
    fn circles_are_found_with_their_path() {
        let circles = graph(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]).circles();
        assert_eq!(circles.len(), 1);
        assert_eq!(circles[0].first(), circles[0].last());
        assert_eq!(circles[0].len(), 4);
        assert!(graph(&[("a", "b")]).circles().is_empty());
    }
}
