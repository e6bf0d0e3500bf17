//! Generated YAML, read by isoform and by PyYAML: the same values, or refused by both.

use isoform::domain::model::Finding;
use isoform::domain::yaml::{Limits, Style, parse, resolve};
use serde_json::{Map, Value, json};

use crate::choices::{Choices, extent, shrink};
use crate::oracle::{Oracle, python};

const PLAIN: &[&str] = &[
    "a",
    "0",
    "-0",
    "+1",
    "010",
    "0o17",
    "0x1F",
    "0b101",
    "1_000",
    "22:22",
    "1:30:00",
    "190:20:30.15",
    "1.5",
    ".5",
    "5.",
    "1e3",
    "1.0e+3",
    "1.0e3",
    "6.8523015e+5",
    "685.230_15e+03",
    ".inf",
    "-.INF",
    ".nan",
    ".NaN",
    "~",
    "null",
    "Null",
    "yes",
    "No",
    "on",
    "OFF",
    "y",
    "n",
    "true",
    "TRUE",
    "tRue",
    "2010-09-09",
    "2012-10-17",
    "2001-12-14t21:59:43.10-05:00",
    "012345678901",
    "09",
    "08:30",
    "10.0.0.0/16",
    "1.2.3",
    "-",
    "=",
    "<<",
    "a b",
    "a:b",
    "a #b",
    "a#b",
    "::",
    "-1",
    "0x",
    "0b",
    "0_",
    "_1",
    "1_",
    "1__0",
    "+.5",
    "-.5e-3",
    "0.0",
    "00",
    "0777",
    "0888",
    "1:60",
    "60:00",
    "0:30",
    "+1:30",
    "-1:30.5",
    "18446744073709551616",
    "9223372036854775808",
    "-9223372036854775809",
    "1e999",
    "1.0e+999",
    "0.1e-400",
    "é",
    "日本",
    "a\u{a0}b",
    ".",
    "..",
    "...",
    "+",
    "--",
    "arn:aws:s3:::b",
    "*",
    "!x",
    "%a",
    "@a",
    "`a",
    "a, b",
    "a]",
    "a}",
    "[",
    "{",
    "? a",
    "a?",
    "|a",
    ">a",
    "&a",
    "'",
    "\"",
    "a'b",
    "0x1.5",
    "0b12",
    "1.e+3",
    "1,000",
    "0.",
    "1._5",
    "._5",
    "1.5_",
    "1_.5",
    "-_1",
    "+_1.5",
    "1:5_",
    "1_0:30",
    "0xG",
    "0x_1",
    "0b_1",
    "0_7",
    "07_",
    "NaN",
    "inf",
    "NULL",
    "nULL",
    "On",
    "oN",
    "Yes",
    "yEs",
    "~a",
    "null ",
    "é:",
];

const LETTERS: &[&str] = &[
    "0", "1", "7", "9", "8", ":", ".", "_", "-", "+", "e", "E", "x", "b", "o", "a", "f", "n", "y",
    "t", "r", "u", "~", "5", "6", " ",
];

fn plain(c: &mut Choices) -> String {
    if c.below(3) == 0 {
        return (0..=c.below(7)).map(|_| c.of(LETTERS)).collect();
    }
    c.of(PLAIN).to_owned()
}

fn quoted(c: &mut Choices, indent: &str) -> String {
    let parts: String = (0..=c.below(4))
        .map(|_| match c.below(9) {
            0..=3 => c.of(PLAIN).to_owned(),
            4 => " ".into(),
            5 => format!("\n{indent}  "),
            6 => format!("\n\n{indent}  "),
            7 => c
                .of(&[
                    "\\n",
                    "\\t",
                    "\\x41",
                    "\\u00e9",
                    "\\\\",
                    "\\/",
                    "\\ ",
                    "\\N",
                    "\\L",
                    "\\U0001F600",
                    "\\q",
                    "\\0",
                ])
                .to_owned(),
            _ => "  ".into(),
        })
        .collect();
    if c.below(2) == 0 {
        format!("'{}'", parts.replace('\'', "''"))
    } else {
        format!("\"{}\"", parts.replace('"', "\\\""))
    }
}

/// A block scalar: either style, every chomping and indentation indicator, blank and deeper lines.
fn block(c: &mut Choices, indent: &str) -> String {
    let style = c.of(&["|", ">"]);
    let header = c.of(&[
        "", "-", "+", "2", "2-", "+2", "-2", "4", "1", " # note", "- # x", "0", "10",
    ]);
    let mut out = format!("{style}{header}\n");
    for _ in 0..c.below(6) {
        let line = c.of(&[
            "a",
            "b c",
            " deeper",
            "",
            "  ",
            "# not a comment",
            "- x",
            "k: v",
            "trailing  ",
            "\ttab",
            "    ",
            "...x",
            "'q'",
            "é",
        ]);
        if line.trim().is_empty() {
            out.push_str(line);
        } else {
            out.push_str(&format!("{indent}  {line}"));
        }
        out.push('\n');
    }
    out
}

/// Writes a value after a key or a dash, to the end of its line.
fn value(c: &mut Choices, indent: &str, depth: u32, anchors: &mut u32) -> String {
    let choice = if depth == 0 { c.below(8) } else { c.below(16) };
    match choice {
        0..=3 => format!(" {}\n", plain(c)),
        4 => format!(" {}\n", quoted(c, indent)),
        5 => format!(" {}", block(c, indent)),
        6 => {
            let more = c.of(&["more", "1", "# x", "b: c", ""]);
            format!(" {}\n{indent}  {more}\n", plain(c))
        }
        7 => c
            .of(&[
                "\n",
                " # note\n",
                " !!str 1\n",
                " !!null x\n",
                " !!int '7'\n",
                " a # note\n",
                " !!bool yes\n",
                " !!float 1\n",
            ])
            .to_owned(),
        8 | 9 => {
            let items: Vec<String> = (0..c.below(4)).map(|_| plain(c)).collect();
            let sep = c.of(&[", ", ",", " , ", ",\n   "]);
            format!(" [{}{}]\n", items.join(sep), c.of(&["", ",", " "]))
        }
        10 => {
            let items: Vec<String> = (0..c.below(3))
                .map(|i| format!("k{i}: {}", plain(c)))
                .collect();
            format!(" {{{}}}\n", items.join(", "))
        }
        11 => {
            *anchors += 1;
            format!(" &n{anchors} {}\n", plain(c))
        }
        12 => match *anchors {
            0 => " none\n".into(),
            n => format!(" *n{}\n", c.below(n) + 1),
        },
        13 | 14 => format!(
            "\n{}",
            mapping(c, &format!("{indent}  "), depth - 1, anchors)
        ),
        _ => {
            let mut out = String::from("\n");
            for _ in 0..=c.below(3) {
                let item = value(c, &format!("{indent}  "), 0, anchors);
                out.push_str(&format!("{indent}-{item}"));
            }
            out
        }
    }
}

fn mapping(c: &mut Choices, indent: &str, depth: u32, anchors: &mut u32) -> String {
    let mut out = String::new();
    for i in 0..=c.below(3) {
        if c.one_in(9) {
            out.push_str(c.of(&["# comment\n", "\n", "    # far\n", "  \n", "#\n"]));
        }
        let key = match c.below(9) {
            0 => format!("'{i}'"),
            1 => format!("{i}"),
            2 => format!("yes{i}"),
            3 => format!("\"k {i}\""),
            _ => format!("k{i}"),
        };
        if c.one_in(14) {
            *anchors += 1;
            let n = *anchors;
            out.push_str(&format!(
                "{indent}m{i}: &n{n} {{a: {}, b{i}: 2}}\n",
                c.of(&["1", "x", "yes"])
            ));
            let how = c
                .of(&[
                    "*N",
                    "[*N]",
                    "[*N, {a: 7, z: 8}]",
                    "{q: 1}",
                    "[{a: 1}, *N]",
                    "x",
                    "[*N, x]",
                ])
                .replace('N', &format!("n{n}"));
            out.push_str(&format!(
                "{indent}{key}:\n{indent}  <<: {how}\n{indent}  a: own\n"
            ));
            continue;
        }
        out.push_str(&format!(
            "{indent}{key}:{}",
            value(c, indent, depth, anchors)
        ));
    }
    out
}

fn document(c: &mut Choices) -> String {
    let head = c.of(&[
        "",
        "",
        "",
        "",
        "---\n",
        "%YAML 1.1\n---\n",
        "# c\n\n",
        "\u{feff}",
    ]);
    let mut text = format!("{head}{}", mapping(c, "", 2, &mut 0));
    match c.below(8) {
        0 => text = text.replace('\n', "\r\n"),
        1 => text.truncate(text.trim_end_matches('\n').len()),
        2 => text.push_str("...\n"),
        _ => {}
    }
    text
}

fn spell(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(n) if n.is_f64() => {
            json!({ "f": n.as_f64().unwrap_or(0.0).to_bits().to_string() })
        }
        Value::Number(n) => json!({ "i": n.to_string() }),
        Value::String(s) => json!({ "s": s }),
        Value::Array(items) => items.iter().map(spell).collect(),
        Value::Object(map) => {
            let map: Map<String, Value> = map.iter().map(|(k, v)| (k.clone(), spell(v))).collect();
            json!({ "m": map })
        }
    }
}

enum Verdict {
    Same,
    BothRefuse,
    OneRefuses(String),
    Differs(String),
}

/// Why isoform refuses what PyYAML reads; each stands in `docs/formats/yaml.md`.
fn documented(findings: &[Finding]) -> bool {
    findings.iter().any(|f| {
        matches!(
            f.code.as_str(),
            "yaml.duplicate" | "yaml.key" | "yaml.documents" | "yaml.tag" | "yaml.merge"
        )
    })
}

/// The first and the last line of what PyYAML says.
fn reason(theirs: &Value) -> String {
    let said = theirs["error"].as_str().unwrap_or_default();
    let lines: Vec<&str> = said.lines().filter(|l| !l.starts_with([' '])).collect();
    lines.join("; ")
}

fn judge(text: &str, theirs: &Value) -> Verdict {
    let ours = parse("f", text, &Limits::SPEC).map(|node| spell(&node.to_json()));
    match (ours, theirs.get("value")) {
        (Ok(ours), Some(theirs)) if ours == *theirs => Verdict::Same,
        (Err(_), None) => Verdict::BothRefuse,
        (Err(findings), Some(_)) if documented(&findings) => {
            Verdict::OneRefuses(format!("isoform: {}", findings[0].code))
        }
        // The syntax of 1.2 is not that of 1.1 everywhere: inside brackets above all.
        (Err(findings), Some(_)) if findings[0].code == "yaml.syntax" => {
            Verdict::OneRefuses(format!("isoform: {}", findings[0].message))
        }
        (Ok(_), None) => Verdict::OneRefuses(format!("PyYAML: {}", reason(theirs))),
        (ours, _) => Verdict::Differs(format!(
            "isoform: {}\nPyYAML:  {theirs}",
            ours.map_or_else(|f| f[0].message.clone(), |v| v.to_string())
        )),
    }
}

#[test]
fn generated_documents_are_read_as_pyyaml_reads_them() {
    let Some(python) = python("generated_documents_are_read_as_pyyaml_reads_them") else {
        return;
    };
    let mut oracle = Oracle::start(&python, "read_yaml.py");
    let (mut same, mut both) = (0u64, 0u64);
    let mut reasons = std::collections::BTreeMap::<String, u64>::new();
    let seeds: Vec<u64> = extent(2000).collect();
    for batch in seeds.chunks(500) {
        let texts: Vec<String> = batch
            .iter()
            .map(|seed| document(&mut Choices::random(*seed)))
            .collect();
        let cases: Vec<Value> = texts.iter().map(|t| json!(t)).collect();
        for ((seed, text), theirs) in batch.iter().zip(&texts).zip(oracle.ask(&cases)) {
            match judge(text, &theirs) {
                Verdict::Same => same += 1,
                Verdict::BothRefuse => both += 1,
                Verdict::OneRefuses(why) => *reasons.entry(why).or_insert(0) += 1,
                Verdict::Differs(_) => differs(*seed, &mut oracle),
            }
        }
    }
    println!("{same} equal, {both} refused by both");
    for (why, times) in &reasons {
        println!("  {times} {why}");
    }
    assert!(
        same * 10 > seeds.len() as u64 * 4,
        "{same} of {}",
        seeds.len()
    );
}

fn differs(seed: u64, oracle: &mut Oracle) {
    let mut choices = Choices::random(seed);
    document(&mut choices);
    let small = shrink(choices.taken(), |taken| {
        let text = document(&mut Choices::replay(taken));
        let theirs = oracle.ask(&[json!(text)]);
        matches!(judge(&text, &theirs[0]), Verdict::Differs(_))
    });
    let text = document(&mut Choices::replay(&small));
    let theirs = oracle.ask(&[json!(text)]);
    let Verdict::Differs(how) = judge(&text, &theirs[0]) else {
        panic!("seed {seed} differs, and its small form does not");
    };
    let line = format!("seed {seed} differs\ndocument: {text:?}\n{how}");
    if std::env::var_os("ISOFORM_EQUALITY_ALL").is_some() {
        println!("{line}\n");
    } else {
        panic!("{line}");
    }
}

#[test]
fn generated_scalars_resolve_as_pyyaml_resolves_them() {
    let Some(python) = python("generated_scalars_resolve_as_pyyaml_resolves_them") else {
        return;
    };
    let mut oracle = Oracle::start(&python, "read_yaml.py");
    let mut compared = 0u64;
    let seeds: Vec<u64> = extent(20_000).collect();
    for batch in seeds.chunks(5000) {
        // Two plain words in a list that no syntax touches: only what is plain in every place is taken.
        let texts: Vec<String> = batch
            .iter()
            .map(|seed| plain(&mut Choices::random(*seed)))
            .filter(|t| {
                t.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+-._~:/".contains(c))
            })
            .filter(|t| !t.ends_with(':') && *t != "-" && *t != "..." && *t != "---")
            .collect();
        let cases: Vec<Value> = texts.iter().map(|t| json!(format!("- {t}\n"))).collect();
        for (text, theirs) in texts.iter().zip(oracle.ask(&cases)) {
            let ours = resolve(text, Style::Plain, None).into_json();
            let expected = theirs.get("value").map_or(&Value::Null, |v| &v[0]);
            if theirs.get("value").is_some() {
                assert_eq!(spell(&ours), *expected, "{text}");
                compared += 1;
            }
        }
    }
    println!("{compared} compared");
    assert!(compared > seeds.len() as u64 / 2, "{compared}");
}
