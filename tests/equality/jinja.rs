//! Generated templates and data, rendered by isoform and by Jinja2: the same bytes, or refused by both.

use isoform::domain::render::{Limits, render};
use serde_json::{Value, json};

use crate::choices::{Choices, extent, shrink};
use crate::oracle::{Oracle, python};
use crate::templates::generate;

/// What isoform refuses and Jinja2 renders. Each stands in `docs/formats/rendering.md`.
const REFUSED: &[&str] = &[
    "integers of more than 127 bits are not supported",
    "integer is too large",
    "this integer has no exact float",
    "complex numbers are not supported",
    "cannot print a generator",
    "format on a safe string is not supported",
    "is not supported",
    "are not supported",
    "these objects cannot be compared here",
    "unhashable type: 'dict view'",
    "unhashable type: 'generator'",
    // Constants are folded by another way of lookup, which takes this for a missing key.
    "'dict' object cannot be sliced",
];

fn case(choices: &mut Choices) -> Value {
    let (template, data) = generate(choices);
    json!({ "template": template, "data": data })
}

#[derive(Debug)]
enum Verdict {
    Same,
    BothRefuse,
    OursRefuses(String),
    Differs(String),
}

fn judge(case: &Value, theirs: &Value) -> Verdict {
    let text = case["template"].as_str().unwrap();
    let ours = render("t", text, &case["data"], &Limits::default());
    match (ours, theirs["text"].as_str()) {
        (Ok(ours), Some(theirs)) if ours.text == theirs => Verdict::Same,
        (Err(_), None) => Verdict::BothRefuse,
        // An `if` without `else` inside a list or tuple.
        (Err(finding), Some(_))
            if text.contains("(1 if false)") && finding.code == "render.undefined" =>
        {
            Verdict::OursRefuses("a missing else".into())
        }
        (Err(finding), Some(_)) if REFUSED.iter().any(|r| finding.message.contains(r)) => {
            Verdict::OursRefuses(finding.message)
        }
        // Jinja2 folds constants before it renders, and one of these fails there even where nothing reaches it.
        (Ok(_), None)
            if theirs["error"]
                .as_str()
                .is_some_and(|e| e.contains("unhashable")) =>
        {
            Verdict::BothRefuse
        }
        (ours, _) => Verdict::Differs(format!(
            "isoform: {:?}\nJinja2:  {theirs}",
            ours.map(|r| r.text)
                .map_err(|f| (f.code, f.message, f.help))
        )),
    }
}

#[test]
fn generated_templates_render_as_jinja2_renders_them() {
    let Some(python) = python("generated_templates_render_as_jinja2_renders_them") else {
        return;
    };
    let mut oracle = Oracle::start(&python, "render.py");
    let (mut same, mut both, mut refused) = (0u64, 0u64, 0u64);
    let mut reasons = std::collections::BTreeMap::<String, u64>::new();
    let seeds: Vec<u64> = extent(2000).collect();
    for batch in seeds.chunks(250) {
        let cases: Vec<Value> = batch
            .iter()
            .map(|seed| case(&mut Choices::random(*seed)))
            .collect();
        for ((seed, case_), theirs) in batch.iter().zip(&cases).zip(oracle.ask(&cases)) {
            match judge(case_, &theirs) {
                Verdict::Same => same += 1,
                Verdict::BothRefuse => {
                    both += 1;
                }
                Verdict::OursRefuses(why) => {
                    refused += 1;
                    *reasons.entry(why).or_insert(0) += 1;
                }
                Verdict::Differs(_) => differs(*seed, &mut oracle),
            }
        }
    }
    println!("{same} equal, {both} refused by both, {refused} refused as documented");
    for (why, times) in &reasons {
        println!("  {times} {why}");
    }
    // A generator whose templates mostly fail would prove little.
    assert!(
        same * 10 > seeds.len() as u64 * 6,
        "{same} of {}",
        seeds.len()
    );
    assert!(
        refused * 50 < seeds.len() as u64,
        "{refused} of {}",
        seeds.len()
    );
}

fn differs(seed: u64, oracle: &mut Oracle) {
    let mut choices = Choices::random(seed);
    case(&mut choices);
    let small = shrink(choices.taken(), |taken| {
        let case = case(&mut Choices::replay(taken));
        let theirs = oracle.ask(std::slice::from_ref(&case));
        matches!(judge(&case, &theirs[0]), Verdict::Differs(_))
    });
    let case = case(&mut Choices::replay(&small));
    let theirs = oracle.ask(std::slice::from_ref(&case));
    let Verdict::Differs(how) = judge(&case, &theirs[0]) else {
        panic!("seed {seed} differs, and its small form does not");
    };
    let line = format!("seed {seed} differs\ntemplate: {}\n{how}", case["template"]);
    if std::env::var_os("ISOFORM_EQUALITY_ALL").is_some() {
        println!("{line}\n");
    } else {
        panic!("{line}\ndata: {}", case["data"]);
    }
}
