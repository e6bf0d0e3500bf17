//! Inputs made of other inputs: bytes, words, lines and parts of files, moved and changed.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A small generator: the same seed gives the same inputs.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A seed that differs from run to run.
    pub fn any() -> u64 {
        RandomState::new().build_hasher().finish()
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most.max(1) as u64).unwrap_or(0)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Words that mean something to one of the readers.
const WORDS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{% raw %}",
    "{% endraw %}",
    "{% for i in x %}",
    "{% endfor %}",
    "| default",
    "| join",
    "~",
    "**",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "-",
    "?",
    "&a ",
    "*a",
    "<<: *a",
    "!Ref ",
    "!Sub ",
    "!GetAtt ",
    "!Transform ",
    "Fn::Join",
    "Fn::Transform",
    "Ref",
    "!!python/object:os.system",
    "|",
    ">",
    "'",
    "\"",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\u{2028}",
    "\u{202e}",
    "\r\n",
    "\n",
    "\t",
    "  ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "null",
    "~",
    "true",
    "yes",
    "NO",
    "0x7f",
    "0o17",
    "1e999",
    "-0",
    ".nan",
    ".inf",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1_000",
    "190:20:30",
    "2001-01-01",
    "=",
    "..",
    "../",
    "/",
    "\\",
    "${AWS::Region}",
    "${",
    "AWS::NoValue",
    "proton: EnvironmentSpec",
    "spec:",
    "instances:",
    "isoform: 1",
    "$ref: '#/definitions/A'",
    "minimum",
    "pattern: '^(a+)+$'",
    "enum: []",
    "required",
    "-1",
    "99999999999d",
    "15m",
    "{{resolve:ssm:x}}",
    "b1:",
    "target/",
    "\"seq\":",
];

/// Makes an input of those in the pool.
pub fn mutate(random: &mut Random, pool: &[Vec<u8>]) -> Vec<u8> {
    let mut input = random.of(pool).clone();
    for _ in 0..=random.below(5) {
        step(random, &mut input, pool);
    }
    input
}

fn step(random: &mut Random, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    let more = random
        .below(input.len() - at + 1)
        .min(1 << random.below(10));
    match random.below(12) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => {
            input[at] = *random.of(&[0, 1, 0x7f, 0x80, 0xff, b'\n', b' ', b'-', b'0']);
        }
        2 => drop(input.drain(at..at + more)),
        3 => {
            // Repeated, sometimes often: depth and size.
            let part = input[at..at + more].to_vec();
            let times = 1 + random.below(4).pow(4);
            let part = part.repeat(times);
            insert(input, at, &part[..part.len().min(16 << 10)]);
        }
        4 | 5 => {
            let word = random.of(WORDS).as_bytes();
            insert(input, at, word);
        }
        6 => {
            let other = random.of(pool);
            let from = random.below(other.len() + 1);
            let count = random.below(other.len() - from + 1).min(512);
            insert(input, at, &other[from..from + count]);
        }
        7 => {
            let other = random.of(pool).clone();
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        8 => lines(random, input),
        9 => number(random, input),
        10 => {
            let part = input[at..at + more].to_vec();
            input.drain(at..at + more);
            let to = random.below(input.len() + 1);
            insert(input, to, &part);
        }
        _ => input.truncate(at),
    }
}

fn insert(input: &mut Vec<u8>, at: usize, part: &[u8]) {
    input.splice(at..at, part.iter().copied());
}

/// Takes a line out, doubles it, or changes how far it is indented.
fn lines(random: &mut Random, input: &mut Vec<u8>) {
    let mut all: Vec<Vec<u8>> = input.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let at = random.below(all.len());
    match random.below(4) {
        0 => drop(all.remove(at)),
        1 => {
            let line = all[at].clone();
            let to = random.below(all.len() + 1);
            all.insert(to, line);
        }
        2 => insert(&mut all[at], 0, b"  "),
        _ => {
            let to = random.below(all.len());
            all.swap(at, to);
        }
    }
    *input = all.join(&b'\n');
}

/// Puts another number in the place of one.
fn number(random: &mut Random, input: &mut Vec<u8>) {
    let places: Vec<usize> = (0..input.len())
        .filter(|i| input[*i].is_ascii_digit())
        .collect();
    if places.is_empty() {
        return;
    }
    let at = *random.of(&places);
    let end = (at..input.len())
        .find(|i| !input[*i].is_ascii_digit())
        .unwrap_or(input.len());
    let new = random.of(&[
        "0",
        "1",
        "-1",
        "255",
        "65536",
        "2147483648",
        "4294967296",
        "99999999999999999999",
        "0.5",
        "1e9",
    ]);
    input.splice(at..end, new.bytes());
}
