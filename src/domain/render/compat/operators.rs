//! The operators of Python, as the rewritten template calls them.

use super::*;

// No template can write these names: its lexer has no such letter.
pub(super) const ADD: &str = "\u{1}+";
pub(super) const SUB: &str = "\u{1}-";
pub(super) const MUL: &str = "\u{1}*";
pub(super) const DIV: &str = "\u{1}/";
pub(super) const FLOOR_DIV: &str = "\u{1}//";
pub(super) const REM: &str = "\u{1}%";
pub(super) const POW: &str = "\u{1}**";
pub(super) const CONCAT: &str = "\u{1}~";
pub(super) const EQ: &str = "\u{1}==";
pub(super) const NE: &str = "\u{1}!=";
pub(super) const LT: &str = "\u{1}<";
pub(super) const LE: &str = "\u{1}<=";
pub(super) const GT: &str = "\u{1}>";
pub(super) const GE: &str = "\u{1}>=";
pub(super) const IN: &str = "\u{1}in";
pub(super) const COMPARE: &str = "\u{1}compare";
pub(super) const NEGATE: &str = "\u{1}neg";
pub(super) const ITEM: &str = "\u{1}item";
pub(super) const SLICE: &str = "\u{1}slice";
pub(super) const ITERATE: &str = "\u{1}iter";
pub(super) const DICT: &str = "\u{1}dict";

type Run = fn(&[Value]) -> Res<Value>;

const OPERATORS: &[(&str, Run)] = &[
    (ADD, |a| add(arg(a, 0), arg(a, 1))),
    (SUB, |a| arithmetic('-', arg(a, 0), arg(a, 1))),
    (MUL, |a| mul(arg(a, 0), arg(a, 1))),
    (DIV, |a| div(arg(a, 0), arg(a, 1))),
    (FLOOR_DIV, |a| floor_div(arg(a, 0), arg(a, 1))),
    (REM, |a| rem(arg(a, 0), arg(a, 1))),
    (POW, |a| pow(arg(a, 0), arg(a, 1))),
    (CONCAT, |a| concat(arg(a, 0), arg(a, 1))),
    (EQ, |a| compare("==", arg(a, 0), arg(a, 1)).map(Value::from)),
    (NE, |a| compare("!=", arg(a, 0), arg(a, 1)).map(Value::from)),
    (LT, |a| compare("<", arg(a, 0), arg(a, 1)).map(Value::from)),
    (LE, |a| compare("<=", arg(a, 0), arg(a, 1)).map(Value::from)),
    (GT, |a| compare(">", arg(a, 0), arg(a, 1)).map(Value::from)),
    (GE, |a| compare(">=", arg(a, 0), arg(a, 1)).map(Value::from)),
    (IN, |a| compare("in", arg(a, 0), arg(a, 1)).map(Value::from)),
    (COMPARE, chain),
    (NEGATE, |a| negate(arg(a, 0))),
    (ITEM, |a| getitem(arg(a, 0), arg(a, 1))),
    (SLICE, |a| slice(arg(a, 0), arg(a, 1), arg(a, 2), arg(a, 3))),
    (ITERATE, |a| iterate(arg(a, 0))),
    (DICT, |a| dict(arg(a, 0), arg(a, 1))),
];

fn arg(args: &[Value], index: usize) -> &Value {
    args.get(index).unwrap_or(&Value::UNDEFINED)
}

struct Operator {
    name: &'static str,
    run: Run,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Object for Operator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Res<Value> {
        spend(0)?;
        // The keys and values of a literal lie in lists of ours: a missing one among them stays what it is.
        if args.iter().any(|v| is_silent(state, v)) {
            let marked: Vec<Value> = args.iter().map(|v| marked(state, v)).collect();
            return (self.run)(&marked);
        }
        (self.run)(args)
    }
}

pub(super) fn install(env: &mut Environment<'static>) {
    for &(name, run) in OPERATORS {
        env.add_global(name, Value::from_object(Operator { name, run }));
    }
}

fn unsupported<T>(op: &str, a: &Value, b: &Value) -> Res<T> {
    if a.is_undefined() || b.is_undefined() {
        return undefined();
    }
    err(format!(
        "unsupported operand types for {op}: '{}' and '{}'",
        type_name(a),
        type_name(b)
    ))
}

fn too_big<T>() -> Res<T> {
    err("integers of more than 127 bits are not supported")
}

/// Two texts put together, as `Markup` does it where one of them is safe.
fn join_texts(a: &Value, b: &Value) -> Res<Value> {
    let (x, y) = (
        a.as_str().unwrap_or_default(),
        b.as_str().unwrap_or_default(),
    );
    spend(x.len() + y.len())?;
    if a.is_safe() || b.is_safe() {
        let part = |v: &Value, s: &str| {
            if v.is_safe() {
                s.to_owned()
            } else {
                html_escape(s)
            }
        };
        let whole = part(a, x) + &part(b, y);
        check_len(&whole)?;
        return Ok(Value::from_safe_string(whole));
    }
    if x.len() + y.len() > MAX_TEXT {
        return too_large();
    }
    Ok(Value::from([x, y].concat()))
}

fn sequence(like: Ty, items: Vec<Value>) -> Value {
    if like == Ty::Tuple {
        Value::from(Tuple::from(items))
    } else {
        Value::from(items)
    }
}

fn add(a: &Value, b: &Value) -> Res<Value> {
    match (ty(a), ty(b)) {
        (Ty::Str, Ty::Str) => join_texts(a, b),
        (x @ (Ty::List | Ty::Tuple), y) if x == y => {
            let mut items = items_of(a)?;
            items.extend(items_of(b)?);
            if items.len() > MAX_ITEMS {
                return too_large();
            }
            Ok(sequence(x, items))
        }
        _ => arithmetic('+', a, b),
    }
}

/// `+`, `-` and `*` on numbers.
fn arithmetic(op: char, a: &Value, b: &Value) -> Res<Value> {
    if let (Some(x), Some(y)) = (int_of(a), int_of(b)) {
        let result = match op {
            '+' => x.checked_add(y),
            '-' => x.checked_sub(y),
            _ => x.checked_mul(y),
        };
        return result.map_or_else(too_big, |n| Ok(int_value(n)));
    }
    let (Some(x), Some(y)) = (num_of(a), num_of(b)) else {
        return unsupported(&op.to_string(), a, b);
    };
    Ok(Value::from(match op {
        '+' => x + y,
        '-' => x - y,
        _ => x * y,
    }))
}

fn mul(a: &Value, b: &Value) -> Res<Value> {
    let (seq, times) = match (ty(a), ty(b)) {
        (Ty::Str | Ty::List | Ty::Tuple, Ty::Int | Ty::Bool) => (a, b),
        (Ty::Int | Ty::Bool, Ty::Str | Ty::List | Ty::Tuple) => (b, a),
        _ => return arithmetic('*', a, b),
    };
    let times = usize::try_from(int_of(times).unwrap_or(0).max(0)).unwrap_or(usize::MAX);
    if let Some(s) = seq.as_str() {
        if s.len().saturating_mul(times) > MAX_TEXT {
            return too_large();
        }
        spend(s.len() * times)?;
        let text = s.repeat(times);
        return Ok(as_safe_as(seq, text));
    }
    let items = items_of(seq)?;
    if items.len().saturating_mul(times) > MAX_ITEMS {
        return too_large();
    }
    spend_items(items.len() * times)?;
    let many = std::iter::repeat_n(items, times).flatten().collect();
    Ok(sequence(ty(seq), many))
}

/// Both sides as floats, where that loses nothing.
fn floats(op: &str, a: &Value, b: &Value) -> Res<(f64, f64)> {
    let exact = |v: &Value| match int_of(v) {
        Some(n) if (n as f64) as i128 == n && n.unsigned_abs() <= 1 << 100 => Ok(n as f64),
        Some(_) => err("this integer has no exact float"),
        None => num_of(v).map_or_else(|| unsupported(op, a, b), Ok),
    };
    Ok((exact(a)?, exact(b)?))
}

fn div(a: &Value, b: &Value) -> Res<Value> {
    let (x, y) = floats("/", a, b)?;
    if y == 0.0 {
        return err("division by zero");
    }
    Ok(Value::from(x / y))
}

fn float_divmod(x: f64, y: f64) -> (f64, f64) {
    // CPython's `float_divmod`.
    let mut rest = x % y;
    let mut quotient = (x - rest) / y;
    if rest != 0.0 {
        if (y < 0.0) != (rest < 0.0) {
            rest += y;
            quotient -= 1.0;
        }
    } else {
        rest = 0f64.copysign(y);
    }
    let floor = if quotient != 0.0 {
        let floor = quotient.floor();
        if quotient - floor > 0.5 {
            floor + 1.0
        } else {
            floor
        }
    } else {
        0f64.copysign(x / y)
    };
    (floor, rest)
}

fn floor_div(a: &Value, b: &Value) -> Res<Value> {
    if let (Some(x), Some(y)) = (int_of(a), int_of(b)) {
        if y == 0 {
            return err("integer division or modulo by zero");
        }
        let Some(quotient) = x.checked_div(y) else {
            return too_big();
        };
        let down = x % y != 0 && (x < 0) != (y < 0);
        return Ok(int_value(quotient - i128::from(down)));
    }
    let (x, y) = floats("//", a, b)?;
    if y == 0.0 {
        return err("float floor division by zero");
    }
    Ok(Value::from(float_divmod(x, y).0))
}

fn rem(a: &Value, b: &Value) -> Res<Value> {
    if let Some(format) = a.as_str() {
        if a.is_safe() {
            return err("format on a safe string is not supported");
        }
        return percent(format, b);
    }
    if let (Some(x), Some(y)) = (int_of(a), int_of(b)) {
        if y == 0 {
            return err("integer modulo by zero");
        }
        let rest = x.checked_rem(y).unwrap_or(0);
        let up = rest != 0 && (rest < 0) != (y < 0);
        return Ok(int_value(if up { rest + y } else { rest }));
    }
    let (x, y) = floats("%", a, b)?;
    if y == 0.0 {
        return err("float modulo by zero");
    }
    Ok(Value::from(float_divmod(x, y).1))
}

/// `'…' % x`: a tuple is the arguments, a mapping can be one or the names, anything else is the one argument.
fn percent(format: &str, args: &Value) -> Res<Value> {
    spend(format.len())?;
    match ty(args) {
        Ty::Tuple => text(percent_format(format, &items_of(args)?, &[], false)?),
        Ty::Dict => {
            let mut named = Vec::new();
            for (key, value) in pairs_of(args)? {
                if let Some(key) = key.as_str() {
                    named.push((key.to_owned(), value));
                }
            }
            text(percent_format(
                format,
                std::slice::from_ref(args),
                &named,
                true,
            )?)
        }
        // Python does not mind a list that is not used.
        Ty::List if !format.contains('%') => text(format.to_owned()),
        _ => text(percent_format(
            format,
            std::slice::from_ref(args),
            &[],
            false,
        )?),
    }
}

fn pow(a: &Value, b: &Value) -> Res<Value> {
    if let (Some(x), Some(y)) = (int_of(a), int_of(b))
        && y >= 0
    {
        let power = match (x, u32::try_from(y)) {
            (0 | 1, _) if y > 0 => Some(x),
            (-1, _) => Some(if y % 2 == 0 { 1 } else { -1 }),
            (_, Ok(y)) => x.checked_pow(y),
            _ => None,
        };
        return power.map_or_else(too_big, |n| Ok(int_value(n)));
    }
    let (x, y) = floats("** or pow()", a, b)?;
    if x == 0.0 && y < 0.0 {
        return err("0.0 cannot be raised to a negative power");
    }
    if x < 0.0 && x.is_finite() && y.is_finite() && y.fract() != 0.0 {
        return err("complex numbers are not supported");
    }
    let power = x.powf(y);
    if power.is_infinite() && x.is_finite() && y.is_finite() {
        return err("the result is too large");
    }
    Ok(Value::from(power))
}

fn concat(a: &Value, b: &Value) -> Res<Value> {
    // `str_join` of Jinja2: what comes out is plain text, even of safe ones.
    let mut whole = str_of(a)?;
    whole.push_str(&str_of(b)?);
    text(whole)
}

fn negate(v: &Value) -> Res<Value> {
    if let Some(n) = int_of(v) {
        return n.checked_neg().map_or_else(too_big, |n| Ok(int_value(n)));
    }
    match (ty(v), num_of(v)) {
        (_, Some(x)) => Ok(Value::from(-x)),
        (Ty::Undefined, _) => undefined(),
        _ => err(format!("bad operand type for unary -: '{}'", type_name(v))),
    }
}

/// One comparison by its sign.
pub(super) fn compare(op: &str, a: &Value, b: &Value) -> Res<bool> {
    Ok(match op {
        "==" => py_eq(a, b, 0)?,
        "!=" => !py_eq(a, b, 0)?,
        "in" => contains(a, b)?,
        "not in" => !contains(a, b)?,
        _ => {
            let order = py_cmp(a, b, 0)?;
            let Some(order) = order else {
                return Ok(false);
            };
            match op {
                "<" => order.is_lt(),
                "<=" => order.is_le(),
                ">" => order.is_gt(),
                _ => order.is_ge(),
            }
        }
    })
}

/// `a < b <= c`: both must hold. Every operand is evaluated, where Python stops at the first that does not hold.
fn chain(args: &[Value]) -> Res<Value> {
    for three in args.windows(3).step_by(2) {
        if let [a, op, b] = three
            && !compare(op.as_str().unwrap_or_default(), a, b)?
        {
            return Ok(Value::from(false));
        }
    }
    Ok(Value::from(true))
}

/// What a `for` loops over, and an assignment to several names unpacks.
fn iterate(v: &Value) -> Res<Value> {
    match ty(v) {
        Ty::List | Ty::Tuple | Ty::Range | Ty::Dict => Ok(v.clone()),
        _ => items_of(v).map(Value::from),
    }
}

/// A literal mapping. Keys that are equal in Python (`1`, `1.0`, `true`) are one: the first key, the last value.
fn dict(keys: &Value, values: &Value) -> Res<Value> {
    let keys = items_of(keys)?;
    let mut pairs: Vec<(Value, Value)> = Vec::with_capacity(keys.len());
    let mut at = std::collections::HashMap::new();
    for (key, value) in keys.into_iter().zip(items_of(values)?) {
        match at.entry(hash_key(&key, 0)?) {
            std::collections::hash_map::Entry::Occupied(slot) => {
                let index: usize = *slot.get();
                if let Some(pair) = pairs.get_mut(index) {
                    pair.1 = value;
                }
            }
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(pairs.len());
                pairs.push((key, value));
            }
        }
    }
    Ok(Value::from_pairs(pairs))
}

/// The places that Python's `[start:stop:step]` takes out of that many items.
fn places(len: usize, start: &Value, stop: &Value, step: &Value) -> Res<Vec<usize>> {
    let number = |v: &Value| -> Res<Option<i64>> {
        match (ty(v), int_of(v)) {
            (Ty::None, _) => Ok(None),
            (_, Some(n)) => Ok(Some(
                n.clamp(i128::from(i64::MIN / 2), i128::from(i64::MAX / 2)) as i64,
            )),
            (Ty::Undefined, _) => undefined(),
            _ => err("slice indices must be integers or None"),
        }
    };
    let len = i64::try_from(len).unwrap_or(i64::MAX / 2);
    let step = number(step)?.unwrap_or(1);
    if step == 0 {
        return err("slice step cannot be zero");
    }
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let fix = |v: Option<i64>, none: i64| match v {
        None => none,
        Some(n) if n < 0 => (n + len).max(low),
        Some(n) => n.min(high),
    };
    let (first, last) = if step > 0 { (0, len) } else { (len - 1, -1) };
    let (mut at, end) = (fix(number(start)?, first), fix(number(stop)?, last));
    let mut out = Vec::new();
    while if step > 0 { at < end } else { at > end } {
        out.push(usize::try_from(at).unwrap_or(0));
        at += step;
    }
    Ok(out)
}

fn slice(v: &Value, start: &Value, stop: &Value, step: &Value) -> Res<Value> {
    match ty(v) {
        Ty::Str => {
            let s = v.as_str().unwrap_or_default();
            // Positions of a text are characters; four bytes for each, and eight for its place.
            spend(s.len().saturating_mul(12))?;
            let chars: Vec<char> = s.chars().collect();
            let part: String = places(chars.len(), start, stop, step)?
                .into_iter()
                .filter_map(|i| chars.get(i))
                .collect();
            Ok(as_safe_as(v, part))
        }
        Ty::List | Ty::Tuple => {
            let items = items_of(v)?;
            let part = places(items.len(), start, stop, step)?
                .into_iter()
                .filter_map(|i| items.get(i).cloned())
                .collect();
            Ok(sequence(ty(v), part))
        }
        Ty::Undefined => undefined(),
        other => err(format!(
            "'{}' object cannot be sliced",
            if other == Ty::Range {
                "range"
            } else {
                type_name(v)
            }
        )),
    }
}
