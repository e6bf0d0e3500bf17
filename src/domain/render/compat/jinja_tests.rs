//! The tests of Jinja2: what stands after `is`.

use super::*;

/// The operators have tests of the same meaning.
fn compare_test(op: &str, a: &[Value]) -> Res<bool> {
    let b = bind(a, &["a", "b"], 2)?;
    operators::compare(op, &b.val(0), &b.val(1))
}

/// Pays for reading a text.
fn counted(v: &Value) -> Res<&Value> {
    spend(v.as_str().map_or(0, str::len))?;
    Ok(v)
}

pub(super) fn contains(item: &Value, seq: &Value) -> Res<bool> {
    match (ty(item), ty(seq)) {
        (_, Ty::Undefined) | (Ty::Undefined, Ty::Str) => undefined(),
        (Ty::Str, Ty::Str) => Ok(counted(seq)?
            .as_str()
            .unwrap_or_default()
            .contains(item.as_str().unwrap_or_default())),
        (_, Ty::Str) => err("'in <string>' requires string as left operand"),
        // A text equals only texts, so the mapping can look it up itself.
        (Ty::Str, Ty::Dict) => Ok(seq.as_object().and_then(|o| o.get_value(item)).is_some()),
        (_, Ty::Dict) => {
            let key = hash_key(item, 0)?;
            for (k, _) in pairs_of(seq)? {
                if hash_key(&k, 0)? == key {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        // An item that is missing fails at the first comparison, and not in a list of nothing.
        _ => {
            for v in items_of(seq)? {
                if py_eq(&v, item, 0)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

pub(super) fn modulo_test(v: &Value, n: i128, want: i128) -> Res<bool> {
    if v.is_undefined() {
        return undefined();
    }
    if n == 0 {
        return err("integer modulo by zero");
    }
    match (int_of(v), num_of(v)) {
        (Some(x), _) => Ok(x.checked_rem_euclid(n).unwrap_or(0) == want),
        (None, Some(x)) => Ok(x.rem_euclid(n.unsigned_abs() as f64) == want as f64),
        _ => err("unsupported operand type for %"),
    }
}

pub(super) fn test(name: &str, a: &[Value]) -> Res<bool> {
    match name {
        "==" | "eq" | "equalto" => return compare_test("==", a),
        "!=" | "ne" => return compare_test("!=", a),
        "<" | "lt" | "lessthan" => return compare_test("<", a),
        "<=" | "le" => return compare_test("<=", a),
        ">" | "gt" | "greaterthan" => return compare_test(">", a),
        ">=" | "ge" => return compare_test(">=", a),
        "in" => {
            let b = bind(a, &["value", "seq"], 2)?;
            return contains(&b.val(0), &b.val(1));
        }
        "divisibleby" => {
            let b = bind(a, &["value", "num"], 2)?;
            let Some(n) = int_of(&b.val(1)) else {
                return err("divisibleby needs an integer");
            };
            return modulo_test(&b.val(0), n, 0);
        }
        _ => {}
    }
    let v = bind(a, &["value"], 1)?.val(0);
    let t = ty(&v);
    Ok(match name {
        "odd" => return modulo_test(&v, 2, 1),
        "even" => return modulo_test(&v, 2, 0),
        "none" => t == Ty::None,
        "boolean" => t == Ty::Bool,
        "true" => t == Ty::Bool && v.is_true(),
        "false" => t == Ty::Bool && !v.is_true(),
        "integer" => t == Ty::Int,
        "float" => t == Ty::Float,
        "number" => matches!(t, Ty::Int | Ty::Float | Ty::Bool),
        "string" => t == Ty::Str,
        "mapping" => t == Ty::Dict,
        "escaped" => v.is_safe(),
        "lower" => is_lower(&str_of(&v)?),
        "upper" => is_upper(&str_of(&v)?),
        "sequence" => matches!(t, Ty::List | Ty::Tuple | Ty::Dict | Ty::Str | Ty::Range),
        "iterable" => match t {
            Ty::Undefined => return undefined(),
            Ty::Other => false,
            _ => !matches!(t, Ty::None | Ty::Bool | Ty::Int | Ty::Float),
        },
        "callable" => match t {
            // StrictUndefined has __call__
            Ty::Undefined | Ty::Silent => true,
            Ty::Other => v.as_object().is_some_and(|o| {
                let n = o.type_name();
                n.ends_with("::BoxedFunction") || n.ends_with("::Macro") || n.ends_with("::Joiner")
            }),
            _ => false,
        },
        _ => return err("unknown test"),
    })
}

pub(super) const TESTS: &[&str] = &[
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
    ">",
    "gt",
    "greaterthan",
    ">=",
    "ge",
    "in",
    "divisibleby",
    "odd",
    "even",
    "none",
    "boolean",
    "true",
    "false",
    "integer",
    "float",
    "number",
    "string",
    "mapping",
    "escaped",
    "lower",
    "upper",
    "sequence",
    "iterable",
    "callable",
];
