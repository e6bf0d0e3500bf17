//! Generated CloudFormation expressions, evaluated by isoform and resolved by cfn-lint: the same value wherever cfn-lint
//! knows one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use isoform::domain::cfn::{
    EvaluateError, Pseudo, Resolver, Scope, bind_parameters, evaluate, parse_template, unknown,
};
use serde_json::{Value, json};

use crate::choices::{Choices, extent, shrink};
use crate::oracle::{Oracle, python};

fn template() -> Value {
    json!({
        "Parameters": {
            "Name": { "Type": "String", "Default": "orders" },
            "Csv": { "Type": "String", "Default": "a,b,,c" },
            "Port": { "Type": "Number", "Default": "8080" },
            "Zones": { "Type": "CommaDelimitedList", "Default": "x, y,z" },
            "Key": { "Type": "String", "Default": "prod" },
            "Empty": { "Type": "String", "Default": "" },
        },
        "Mappings": {
            "Sizes": { "beta": { "cpu": "256", "list": ["1", "2"] }, "prod": { "cpu": "1024", "list": ["3", "4", "5"] } },
        },
        "Resources": { "R": { "Type": "AWS::SNS::Topic" } },
    })
}

fn text(c: &mut Choices, depth: u32) -> Value {
    if depth == 0 {
        return json!(c.of(&[
            "a",
            "-",
            "a,b",
            "x y",
            "",
            "${AWS",
            "é",
            "10.0.0.0/16",
            "prod",
            "p:q:r"
        ]));
    }
    let d = depth - 1;
    match c.below(9) {
        0 => text(c, 0),
        1 => {
            json!({ "Ref": c.of(&["Name", "Csv", "Port", "Key", "AWS::Region", "AWS::Partition"]) })
        }
        2 => json!({ "Fn::Join": [c.of(&["-", "", ",", "::"]), list(c, d)] }),
        3 => json!({ "Fn::Select": [index(c), list(c, d)] }),
        4 => {
            let format = c.of(&[
                "${Name}",
                "a-${Csv}-b",
                "${Name}:${Port}",
                "$Name",
                "${AWS::Region}/x",
                "plain",
                "$${Name}",
                "{${Key}}",
                "${ Name }",
            ]);
            json!({ "Fn::Sub": format })
        }
        5 => {
            let (x, y) = (text(c, d), text(c, d));
            let format = c.of(&["${X}", "${X}-${Y}", "${Y}${Name}${X}", "${X}${X}", "none"]);
            json!({ "Fn::Sub": [format, { "X": x, "Y": y }] })
        }
        6 => json!({ "Fn::FindInMap": ["Sizes", key(c), "cpu"] }),
        7 => {
            json!({ "Fn::Select": ["1", { "Fn::Split": [c.of(&[",", ":", "-", "a"]), text(c, d)] }] })
        }
        _ => json!({ "Fn::Join": ["", [text(c, d), text(c, d)]] }),
    }
}

fn key(c: &mut Choices) -> Value {
    match c.below(3) {
        0 => json!("beta"),
        1 => json!({ "Ref": "Key" }),
        _ => json!("prod"),
    }
}

fn index(c: &mut Choices) -> Value {
    match c.below(4) {
        0 => json!(0),
        1 => json!(1),
        2 => json!("0"),
        _ => json!("2"),
    }
}

fn list(c: &mut Choices, depth: u32) -> Value {
    let d = depth.saturating_sub(1);
    match c.below(5) {
        0 => json!({ "Fn::Split": [c.of(&[",", ":", "-"]), text(c, d)] }),
        1 => json!({ "Fn::FindInMap": ["Sizes", key(c), "list"] }),
        2 => json!({ "Ref": "Zones" }),
        _ => (0..=c.below(3)).map(|_| text(c, d)).collect(),
    }
}

fn expression(c: &mut Choices) -> Value {
    let depth = 1 + c.below(3);
    match c.below(4) {
        // cfn-lint resolves functions, not what lies inside a list that is none.
        3 => match list(c, depth) {
            Value::Array(items) => json!({ "Fn::Join": ["|", items] }),
            function => function,
        },
        _ => text(c, depth),
    }
}

struct Nothing;

impl Resolver for Nothing {
    fn resource(&self, logical: &str, _: Option<&str>) -> Result<Value, EvaluateError> {
        Ok(unknown(logical))
    }
    fn import(&self, name: &str) -> Result<Value, EvaluateError> {
        Ok(unknown(name))
    }
}

fn ours(value: &Value) -> Result<Value, String> {
    let mut whole = template();
    whole["Resources"]["R"]["Metadata"] = json!({ "V": value });
    let parsed = parse_template("t.json", &whole.to_string())
        .map_err(|f| format!("{}: {}", f[0].code, f[0].message))?;
    let parameters = bind_parameters(&parsed, &BTreeMap::new(), &|_| String::new())
        .map_err(|_| "parameters".to_owned())?;
    let pseudo = Pseudo {
        account: "123456789012".into(),
        region: "us-east-1".into(),
        stack_name: "s".into(),
        stack_id: None,
        notification_arns: Vec::new(),
    };
    let scope = Scope {
        template: &parsed,
        parameters: &parameters,
        pseudo: &pseudo,
        resolver: &Nothing,
    };
    evaluate(value, &scope).map_err(|e| e.message)
}

fn differs(value: &Value, theirs: &Value) -> Option<String> {
    let expected = theirs.get("value")?;
    let ours = ours(value);
    // An item that is not there, in a list from which another is taken: cfn-lint does not look at it.
    if ours
        .as_ref()
        .is_err_and(|e| e.contains("cannot select item"))
    {
        return None;
    }
    (ours.as_ref() != Ok(expected)).then(|| format!("isoform:  {ours:?}\ncfn-lint: {expected}"))
}

/// Asks for cfn-lint itself: the Python of an older preparation has none.
fn has_cfn_lint(python: &Path, test: &str) -> bool {
    let found = Command::new(python)
        .args(["-c", "import cfnlint"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        println!("SKIP {test}: this Python has no cfn-lint; run ./tests/run");
    }
    found
}

#[test]
fn generated_expressions_have_the_value_that_cfn_lint_finds() {
    let name = "generated_expressions_have_the_value_that_cfn_lint_finds";
    let Some(python) = python(name).filter(|p| has_cfn_lint(p, name)) else {
        return;
    };
    let mut oracle = Oracle::start(&python, "resolve_cfn.py");
    let case = |value: &Value| json!({ "template": template(), "value": value });
    let mut known = 0u64;
    let seeds: Vec<u64> = extent(1000).collect();
    for batch in seeds.chunks(250) {
        let values: Vec<Value> = batch
            .iter()
            .map(|seed| expression(&mut Choices::random(*seed)))
            .collect();
        let cases: Vec<Value> = values.iter().map(case).collect();
        for ((seed, value), theirs) in batch.iter().zip(&values).zip(oracle.ask(&cases)) {
            known += u64::from(theirs.get("value").is_some());
            if differs(value, &theirs).is_none() {
                continue;
            }
            let mut choices = Choices::random(*seed);
            expression(&mut choices);
            let small = shrink(choices.taken(), |taken| {
                let value = expression(&mut Choices::replay(taken));
                differs(&value, &oracle.ask(&[case(&value)])[0]).is_some()
            });
            let value = expression(&mut Choices::replay(&small));
            let how = differs(&value, &oracle.ask(&[case(&value)])[0]).unwrap_or_default();
            if std::env::var_os("ISOFORM_EQUALITY_ALL").is_none() {
                panic!("seed {seed} differs\n{value}\n{how}");
            }
            println!("seed {seed} differs\n{value}\n{how}\n");
        }
    }
    println!("{known} of {} known to both", seeds.len());
    assert!(known * 2 > seeds.len() as u64, "{known}");
}
