//! Generation from a sequence of choices, so that anything generated can be made small by making the sequence small.

/// The choices that a generator takes. At the end of a replay every choice is 0, the simplest.
pub struct Choices {
    taken: Vec<u32>,
    at: usize,
    random: Option<u64>,
}

impl Choices {
    pub fn random(seed: u64) -> Self {
        // Neighbouring seeds must not walk over the same numbers.
        let z = (seed ^ (seed >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
        let z = (z ^ (z >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D);
        Self {
            taken: Vec::new(),
            at: 0,
            random: Some(z ^ (z >> 33)),
        }
    }

    pub fn replay(taken: &[u32]) -> Self {
        Self {
            taken: taken.to_vec(),
            at: 0,
            random: None,
        }
    }

    pub fn taken(self) -> Vec<u32> {
        self.taken
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        if let Some(state) = &mut self.random {
            // splitmix64
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let choice = ((z ^ (z >> 31)) >> 33) as u32 % n.max(1);
            self.taken.push(choice);
            return choice;
        }
        let choice = self.taken.get(self.at).copied().unwrap_or(0) % n.max(1);
        self.at += 1;
        choice
    }

    pub fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == n - 1
    }

    pub fn of<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len() as u32) as usize]
    }
}

/// Makes a failing sequence smaller: leaves out blocks, then makes choices simpler, as long as it goes on failing.
pub fn shrink(mut taken: Vec<u32>, mut fails: impl FnMut(&[u32]) -> bool) -> Vec<u32> {
    let mut tries = 1000;
    loop {
        let before = taken.clone();
        let mut size = (taken.len() / 2).max(1);
        while size > 0 {
            let mut at = 0;
            while at < taken.len() {
                let mut shorter = taken.clone();
                shorter.drain(at..(at + size).min(taken.len()));
                tries -= 1;
                if tries > 0 && fails(&shorter) {
                    taken = shorter;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        for at in 0..taken.len() {
            for simpler in [0, taken[at] / 2, taken[at].saturating_sub(1)] {
                if simpler >= taken[at] {
                    break;
                }
                let mut simple = taken.clone();
                simple[at] = simpler;
                tries -= 1;
                if tries > 0 && fails(&simple) {
                    taken = simple;
                    break;
                }
            }
        }
        if taken == before || tries <= 0 {
            return taken;
        }
    }
}

/// How many cases to generate, and from which seed on.
pub fn extent(cases: u64) -> std::ops::Range<u64> {
    let read = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
    let first: u64 = read("ISOFORM_EQUALITY_SEED").unwrap_or(1);
    first..first + read("ISOFORM_EQUALITY_CASES").unwrap_or(cases)
}
