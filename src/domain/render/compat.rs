//! Makes minijinja 3.x behave like stock Python Jinja2 3.1
//! (`Environment(undefined=StrictUndefined)`, autoescape off).
//!
//! Principle: where the two engines cannot be made equal, the result is an
//! error rather than other bytes, wherever minijinja offers a hook.
//! Everything here is panic-free and has bounded output.
//!
//! Use: `install(&mut env)` once; per template `normalize_source`, then
//! `check_source`, then compile that normalised text.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use minijinja::value::{
    Enumerator, Object, ObjectRepr, Rest, StringInput, Tuple, ValueKind, ValueOrKwargs,
};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

/// Longest string any filter, method or print may produce (bytes).
pub const MAX_TEXT: usize = 4 * 1024 * 1024;
/// Longest list any filter may produce or consume.
pub const MAX_ITEMS: usize = 100_000;
/// Total bytes printed by `{{ }}` in one render, captures (`{% set %}` blocks,
/// macros, `{% filter %}`) included: the writer's cap does not see those.
pub const MAX_PRINTED: usize = 64 * 1024 * 1024;
/// Nesting depth when printing or comparing.
const MAX_DEPTH: usize = 64;

type Res<T> = Result<T, Error>;

fn err<T>(msg: impl Into<String>) -> Res<T> {
    Err(Error::new(ErrorKind::InvalidOperation, msg.into()))
}

fn undefined<T>() -> Res<T> {
    Err(Error::from(ErrorKind::UndefinedError))
}

fn too_large<T>() -> Res<T> {
    err("result is too large")
}

// ---------------------------------------------------------------- objects

/// A Python generator: iterable once, no length, always true, not printable.
struct Gen {
    items: Mutex<Option<Vec<Value>>>,
}

impl Gen {
    fn value(items: Vec<Value>) -> Value {
        Value::from_object(Gen {
            items: Mutex::new(Some(items)),
        })
    }

    fn take(&self) -> Vec<Value> {
        match self.items.lock() {
            Ok(mut guard) => guard.take().unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }
}

impl fmt::Debug for Gen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<generator object>")
    }
}

impl Object for Gen {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }
    // Not subscriptable; a `None` here would make minijinja try nth().
    fn get_value(self: &Arc<Self>, _key: &Value) -> Option<Value> {
        Some(Value::UNDEFINED)
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.take())
    }
    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }
    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<generator object>")
    }
}

/// `dict.keys()`, `.values()`, `.items()`.
struct View {
    name: &'static str,
    items: Vec<Value>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }
    // An invalid-free `None` here makes minijinja try nth(); returning
    // undefined makes `d.items()[0]` fail as in Python.
    fn get_value(self: &Arc<Self>, _key: &Value) -> Option<Value> {
        Some(Value::UNDEFINED)
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }
    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = repr_of(&Value::from_dyn_object(self.clone())).unwrap_or_default();
        f.write_str(&text)
    }
}

/// Python's `range` object.
#[derive(Debug)]
struct PyRange {
    start: i64,
    stop: i64,
    step: i64,
    len: usize,
}

impl PyRange {
    fn at(&self, idx: usize) -> Option<Value> {
        if idx >= self.len {
            return None;
        }
        let off = i64::try_from(idx).ok()?.checked_mul(self.step)?;
        Some(Value::from(self.start.checked_add(off)?))
    }
    fn text(&self) -> String {
        if self.step == 1 {
            format!("range({}, {})", self.start, self.stop)
        } else {
            format!("range({}, {}, {})", self.start, self.stop, self.step)
        }
    }
}

impl Object for PyRange {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.at(key.as_usize()?)
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.len)
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// One element of `groupby`: a named tuple `(grouper, list)`.
#[derive(Debug)]
struct Group {
    grouper: Value,
    list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str() {
            Some("grouper") => return Some(self.grouper.clone()),
            Some("list") => return Some(self.list.clone()),
            Some(_) => return None,
            None => {}
        }
        match key.as_usize()? {
            0 => Some(self.grouper.clone()),
            1 => Some(self.list.clone()),
            _ => None,
        }
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = repr_of(&Value::from_dyn_object(self.clone())).unwrap_or_default();
        f.write_str(&text)
    }
}

/// An integer that does not fit 128 bits: printable, nothing else.
#[derive(Debug)]
struct BigInt(String);

impl Object for BigInt {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `cycler(...)`.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    pos: Mutex<usize>,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if key.as_str() != Some("current") {
            return None;
        }
        let pos = self.pos.lock().ok().map(|p| *p)?;
        self.items.get(pos).cloned()
    }
    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, m: &str, a: &[Value]) -> Res<Value> {
        if !a.is_empty() {
            return err("too many arguments");
        }
        let Ok(mut pos) = self.pos.lock() else {
            return err("cycler is broken");
        };
        match m {
            "next" => {
                let rv = self.items.get(*pos).cloned().unwrap_or_default();
                *pos = (*pos + 1) % self.items.len().max(1);
                Ok(rv)
            }
            "reset" => {
                *pos = 0;
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `joiner(sep)`.
#[derive(Debug)]
struct Joiner {
    sep: Value,
    used: Mutex<bool>,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
        if !a.is_empty() {
            return err("too many arguments");
        }
        let Ok(mut used) = self.used.lock() else {
            return err("joiner is broken");
        };
        if *used {
            Ok(self.sep.clone())
        } else {
            *used = true;
            Ok(Value::from(""))
        }
    }
}

/// Stands for the lenient undefined of `x if false` in arguments.
#[derive(Debug)]
struct Silent;

impl Object for Silent {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn is_true(self: &Arc<Self>) -> bool {
        false
    }
    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Is this the lenient undefined of `x if false`?  Only the conversion to a
/// string argument tells the two kinds apart in minijinja's public API.
fn is_silent(state: &State<'_, '_>, v: &Value) -> bool {
    v.is_undefined() && StringInput::new(state, v).is_ok()
}

/// Replaces lenient undefined arguments by their stand-in.
fn mark_silent(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Vec<Value> {
    let mut args = args.into_values();
    for v in args.iter_mut() {
        if is_silent(state, v) {
            *v = Value::from_object(Silent);
        }
    }
    args
}

/// Bytes printed so far in this render.
struct Printed(usize);

// ------------------------------------------------------------ Python types

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ty {
    Undefined,
    /// The result of `x if false`: Jinja2 makes it a lenient undefined.
    Silent,
    None,
    Bool,
    Int,
    Float,
    Str,
    List,
    Tuple,
    Dict,
    Gen,
    View,
    Range,
    Other,
}

fn ty(v: &Value) -> Ty {
    match v.kind() {
        ValueKind::Plain if v.downcast_object_ref::<Silent>().is_some() => Ty::Silent,
        ValueKind::Undefined => Ty::Undefined,
        ValueKind::None => Ty::None,
        ValueKind::Bool => Ty::Bool,
        ValueKind::Number if v.is_integer() => Ty::Int,
        ValueKind::Number => Ty::Float,
        ValueKind::String => Ty::Str,
        ValueKind::Seq => {
            if v.is_tuple() || v.downcast_object_ref::<Group>().is_some() {
                Ty::Tuple
            } else if v.downcast_object_ref::<PyRange>().is_some() {
                Ty::Range
            } else {
                Ty::List
            }
        }
        ValueKind::Iterable => {
            if v.downcast_object_ref::<Gen>().is_some() {
                Ty::Gen
            } else if v.downcast_object_ref::<View>().is_some() {
                Ty::View
            } else if v.len().is_some() {
                // list slices, `a + b`, `a * n`
                Ty::List
            } else {
                Ty::Gen
            }
        }
        ValueKind::Map => {
            // `loop`, macros and namespaces are maps for minijinja.
            let odd = v.as_object().is_some_and(|o| {
                let n = o.type_name();
                n.ends_with("::Loop") || n.ends_with("::Macro") || n.ends_with("::Namespace")
            });
            if odd { Ty::Other } else { Ty::Dict }
        }
        _ => Ty::Other,
    }
}

fn type_name(v: &Value) -> &'static str {
    match ty(v) {
        Ty::Undefined | Ty::Silent => "undefined",
        Ty::None => "NoneType",
        Ty::Bool => "bool",
        Ty::Int => "int",
        Ty::Float => "float",
        Ty::Str => "str",
        Ty::List => "list",
        Ty::Tuple => "tuple",
        Ty::Dict => "dict",
        Ty::Gen => "generator",
        Ty::View => "dict view",
        Ty::Range => "range",
        Ty::Other => "object",
    }
}

fn int_of(v: &Value) -> Option<i128> {
    match ty(v) {
        Ty::Bool => Some(i128::from(v.is_true())),
        Ty::Int => i128::try_from(v.clone()).ok(),
        _ => None,
    }
}

fn num_of(v: &Value) -> Option<f64> {
    match ty(v) {
        Ty::Bool => Some(if v.is_true() { 1.0 } else { 0.0 }),
        Ty::Int | Ty::Float => f64::try_from(v.clone())
            .ok()
            .or_else(|| int_of(v).map(|x| x as f64))
            .or_else(|| v.to_string().parse().ok()),
        _ => None,
    }
}

fn int_value(x: i128) -> Value {
    match i64::try_from(x) {
        Ok(x) => Value::from(x),
        Err(_) => Value::from(x),
    }
}

/// Python's `repr(float)`.
pub fn float_repr(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let sci = format!("{x:e}");
    let Some((mantissa, exp)) = sci.split_once('e') else {
        return sci;
    };
    let exp: i32 = exp.parse().unwrap_or(0);
    if (-4..16).contains(&exp) {
        let mut rv = x.to_string();
        if !rv.contains('.') {
            rv.push_str(".0");
        }
        rv
    } else {
        let sign = if exp < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exp.unsigned_abs())
    }
}

/// Python's `repr(str)`.
fn repr_str(out: &mut String, s: &str) {
    let quote = if s.contains('\'') && !s.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c if printable(c) => out.push(c),
            c => {
                let n = c as u32;
                if n <= 0xff {
                    out.push_str(&format!("\\x{n:02x}"));
                } else if n <= 0xffff {
                    out.push_str(&format!("\\u{n:04x}"));
                } else {
                    out.push_str(&format!("\\U{n:08x}"));
                }
            }
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable` for one character: the same Unicode categories
/// as Rust's debug escaping (which escapes combining marks only at the start).
fn printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let s: String = ['a', c].into_iter().collect();

    s.escape_debug().count() == 2
}

fn check_len(s: &str) -> Res<()> {
    if s.len() > MAX_TEXT {
        too_large()
    } else {
        Ok(())
    }
}

fn repr_into(out: &mut String, v: &Value, depth: usize) -> Res<()> {
    if depth > MAX_DEPTH {
        return err("value is nested too deeply");
    }
    check_len(out)?;
    let seq = |out: &mut String, open: &str, close: &str, one: bool| -> Res<()> {
        out.push_str(open);
        let items = items_of(v)?;
        for (idx, item) in items.iter().enumerate() {
            if idx > 0 {
                out.push_str(", ");
            }
            repr_into(out, item, depth + 1)?;
        }
        if one && items.len() == 1 {
            out.push(',');
        }
        out.push_str(close);
        Ok(())
    };
    match ty(v) {
        // `[missing]` prints like this in stock Jinja2, even when strict
        Ty::Undefined | Ty::Silent => out.push_str("Undefined"),
        Ty::None => out.push_str("None"),
        Ty::Bool => out.push_str(if v.is_true() { "True" } else { "False" }),
        Ty::Int => out.push_str(&v.to_string()),
        Ty::Float => out.push_str(&float_repr(num_of(v).unwrap_or(f64::NAN))),
        Ty::Str => {
            let s = v.as_str().unwrap_or_default();
            if v.is_safe() {
                out.push_str("Markup(");
                repr_str(out, s);
                out.push(')');
            } else {
                repr_str(out, s);
            }
        }
        Ty::List => seq(out, "[", "]", false)?,
        Ty::Tuple => seq(out, "(", ")", true)?,
        Ty::View => {
            if let Some(view) = v.downcast_object_ref::<View>() {
                out.push_str(view.name);
            }
            seq(out, "([", "])", false)?;
        }
        Ty::Range => match v.downcast_object_ref::<PyRange>() {
            Some(r) => out.push_str(&r.text()),
            None => return err("cannot print this value"),
        },
        Ty::Dict => {
            out.push('{');
            for (idx, (k, item)) in pairs_of(v)?.iter().enumerate() {
                if idx > 0 {
                    out.push_str(", ");
                }
                repr_into(out, k, depth + 1)?;
                out.push_str(": ");
                repr_into(out, item, depth + 1)?;
            }
            out.push('}');
        }
        Ty::Gen => return err("cannot print a generator; use |list or |join"),
        Ty::Other => match v.downcast_object_ref::<BigInt>() {
            Some(b) => out.push_str(&b.0),
            None => return err("cannot print this object"),
        },
    }
    check_len(out)
}

/// Python's `repr(value)`.
pub fn repr_of(v: &Value) -> Res<String> {
    let mut out = String::new();
    repr_into(&mut out, v, 0)?;
    Ok(out)
}

/// Python's `str(value)`; undefined fails.
pub fn str_of(v: &Value) -> Res<String> {
    match ty(v) {
        Ty::Undefined => undefined(),
        Ty::Silent => Ok(String::new()),
        Ty::Str => Ok(v.as_str().unwrap_or_default().to_string()),
        _ => repr_of(v),
    }
}

/// Python's `iter(value)`, collected and bounded.
fn items_of(v: &Value) -> Res<Vec<Value>> {
    match ty(v) {
        Ty::Undefined => return undefined(),
        Ty::None | Ty::Bool | Ty::Int | Ty::Float => {
            return err(format!("'{}' object is not iterable", type_name(v)));
        }
        Ty::Other => return err("object is not iterable"),
        Ty::Silent => return Ok(Vec::new()),
        _ => {}
    }
    if v.len().is_some_and(|n| n > MAX_ITEMS) && ty(v) != Ty::Str {
        return too_large();
    }
    let mut rv = Vec::new();
    for item in v.try_iter()?.checked() {
        rv.push(item?);
        if rv.len() > MAX_ITEMS.max(MAX_TEXT) {
            return too_large();
        }
    }
    Ok(rv)
}

fn pairs_of(v: &Value) -> Res<Vec<(Value, Value)>> {
    if ty(v) == Ty::Undefined {
        return undefined();
    }
    if ty(v) != Ty::Dict {
        return err("Can only get item pairs from a mapping.");
    }
    match v.as_object().and_then(|o| o.try_iter_pairs()) {
        Some(iter) => Ok(iter.take(MAX_ITEMS).collect()),
        None => Ok(Vec::new()),
    }
}

/// Truth of a value; undefined fails (StrictUndefined).
fn truth(v: &Value) -> Res<bool> {
    if v.is_undefined() {
        undefined()
    } else {
        Ok(v.is_true())
    }
}

/// Python's `<` on two values, as an ordering; other types fail.
fn py_cmp(a: &Value, b: &Value, depth: usize) -> Res<Ordering> {
    if depth > MAX_DEPTH {
        return err("value is nested too deeply");
    }
    let (ta, tb) = (ty(a), ty(b));
    let is_num = |t: Ty| matches!(t, Ty::Bool | Ty::Int | Ty::Float);
    if ta == Ty::Undefined || tb == Ty::Undefined {
        return undefined();
    }
    if is_num(ta) && is_num(tb) {
        return Ok(match (int_of(a), int_of(b)) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => num_of(a)
                .unwrap_or(f64::NAN)
                .partial_cmp(&num_of(b).unwrap_or(f64::NAN))
                .unwrap_or(Ordering::Equal),
        });
    }
    match (ta, tb) {
        (Ty::Str, Ty::Str) => Ok(a.as_str().cmp(&b.as_str())),
        (Ty::List, Ty::List) | (Ty::Tuple, Ty::Tuple) => {
            let (x, y) = (items_of(a)?, items_of(b)?);
            for (p, q) in x.iter().zip(y.iter()) {
                if p == q {
                    continue;
                }
                return py_cmp(p, q, depth + 1);
            }
            Ok(x.len().cmp(&y.len()))
        }
        _ => err(format!(
            "'<' not supported between instances of '{}' and '{}'",
            type_name(a),
            type_name(b)
        )),
    }
}

/// Stable sort which reports the first comparison error.
fn py_sort<T>(items: &mut [T], reverse: bool, key: impl Fn(&T) -> &Value) -> Res<()> {
    let mut failed = None;
    items.sort_by(|a, b| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        match py_cmp(key(a), key(b), 0) {
            Ok(o) if reverse => o.reverse(),
            Ok(o) => o,
            Err(e) => {
                failed = Some(e);
                Ordering::Equal
            }
        }
    });
    failed.map_or(Ok(()), Err)
}

/// A text key equal for values which are equal in Python (1 == 1.0 == True).
fn hash_key(v: &Value, depth: usize) -> Res<String> {
    if depth > MAX_DEPTH {
        return err("value is nested too deeply");
    }
    Ok(match ty(v) {
        Ty::Undefined => return undefined(),
        Ty::None => "n".into(),
        Ty::Bool | Ty::Int => format!("i{}", int_of(v).map_or(v.to_string(), |x| x.to_string())),
        Ty::Float => {
            let x = num_of(v).unwrap_or(f64::NAN);
            if x.fract() == 0.0 && x.abs() < 1e30 {
                format!("i{}", x as i128)
            } else {
                format!("f{}", float_repr(x))
            }
        }
        Ty::Str => format!("s{}", v.as_str().unwrap_or_default()),
        Ty::Tuple => {
            let mut rv = String::from("t(");
            for item in items_of(v)? {
                let k = hash_key(&item, depth + 1)?;
                rv.push_str(&format!("{}:{k},", k.len()));
            }
            rv
        }
        _ => return err(format!("unhashable type: '{}'", type_name(v))),
    })
}

fn lowered(v: Value) -> Value {
    match (ty(&v), v.as_str()) {
        (Ty::Str, Some(s)) => Value::from(s.to_lowercase()),
        _ => v,
    }
}

// --------------------------------------------------------------- arguments

/// Splits off keyword arguments.
fn split_kwargs(args: &[Value]) -> (Vec<Value>, Vec<(String, Value)>) {
    let mut pos = args.to_vec();
    let mut kw = Vec::new();
    if pos.last().is_some_and(Value::is_kwargs)
        && let Some(last) = pos.pop()
        && let Some(iter) = last.as_object().and_then(|o| o.try_iter_pairs())
    {
        kw = iter.map(|(k, v)| (k.to_string(), v)).collect();
    }
    (pos, kw)
}

/// Binds arguments to parameter names as Python does.
struct Bound {
    values: Vec<Option<Value>>,
}

fn bind(args: &[Value], names: &[&str], required: usize) -> Res<Bound> {
    let (pos, kw) = split_kwargs(args);
    if pos.len() > names.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut values: Vec<Option<Value>> = pos.into_iter().map(Some).collect();
    values.resize(names.len(), None);
    for (k, v) in kw {
        let slot = names
            .iter()
            .position(|n| *n == k)
            .and_then(|i| values.get_mut(i));
        match slot {
            Some(slot @ None) => *slot = Some(v),
            Some(Some(_)) => return err(format!("multiple values for argument '{k}'")),
            None => return err(format!("unexpected keyword argument '{k}'")),
        }
    }
    if values.iter().take(required).any(Option::is_none) {
        return Err(Error::from(ErrorKind::MissingArgument));
    }
    Ok(Bound { values })
}

impl Bound {
    fn opt(&self, i: usize) -> Option<&Value> {
        self.values.get(i).and_then(|v| v.as_ref())
    }
    /// The argument, with `None` counted as absent.
    fn some(&self, i: usize) -> Option<&Value> {
        self.opt(i).filter(|v| !v.is_none())
    }
    fn val(&self, i: usize) -> Value {
        self.opt(i).cloned().unwrap_or_default()
    }
    /// Exactly a string.
    fn str(&self, i: usize) -> Res<String> {
        let v = self.val(i);
        match ty(&v) {
            Ty::Str | Ty::Silent => str_of(&v),
            Ty::Undefined => undefined(),
            _ => err(format!("expected str, got {}", type_name(&v))),
        }
    }
    fn str_or(&self, i: usize, default: &str) -> Res<String> {
        match self.opt(i) {
            Some(_) => self.str(i),
            None => Ok(default.to_string()),
        }
    }
    fn int_or(&self, i: usize, default: i64) -> Res<i64> {
        match self.opt(i) {
            None => Ok(default),
            Some(v) if v.is_undefined() => undefined(),
            Some(v) => match int_of(v).and_then(|x| i64::try_from(x).ok()) {
                Some(x) => Ok(x),
                None => err(format!("expected int, got {}", type_name(v))),
            },
        }
    }
    fn bool_or(&self, i: usize, default: bool) -> Res<bool> {
        self.opt(i).map_or(Ok(default), truth)
    }
}

// ----------------------------------------------------------- string helpers

/// Python's `str.isspace` for one character.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn strip(s: &str, chars: Option<&str>, left: bool, right: bool) -> String {
    let hit = |c: char| match chars {
        Some(set) => set.contains(c),
        None => is_space(c),
    };
    let mut s = s;
    if left {
        s = s.trim_start_matches(hit);
    }
    if right {
        s = s.trim_end_matches(hit);
    }
    s.to_string()
}

/// Python's `str.splitlines`.
fn splitlines(s: &str, keep: bool) -> Vec<String> {
    let mut rv = Vec::new();
    let mut line = String::new();
    let mut iter = s.chars().peekable();
    let mut open = false;
    while let Some(c) = iter.next() {
        open = true;
        let brk = matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        );
        if !brk {
            line.push(c);
            continue;
        }
        if keep {
            line.push(c);
        }
        if c == '\r' && iter.peek() == Some(&'\n') {
            iter.next();
            if keep {
                line.push('\n');
            }
        }
        rv.push(std::mem::take(&mut line));
        open = false;
    }
    if open {
        rv.push(line);
    }
    rv
}

fn pad(n: i64, fill: char) -> Res<String> {
    let n = usize::try_from(n).unwrap_or(0);
    if n.saturating_mul(fill.len_utf8()) > MAX_TEXT {
        return too_large();
    }
    Ok(std::iter::repeat_n(fill, n).collect())
}

fn char_len(s: &str) -> i64 {
    i64::try_from(s.chars().count()).unwrap_or(i64::MAX)
}

/// Python's `str.center`.
fn center(s: &str, width: i64, fill: char) -> Res<String> {
    let total = width.saturating_sub(char_len(s));
    if total <= 0 {
        return Ok(s.to_string());
    }
    let left = total / 2 + (total & width & 1);
    Ok(format!(
        "{}{s}{}",
        pad(left, fill)?,
        pad(total - left, fill)?
    ))
}

fn replace(s: &str, old: &str, new: &str, count: i64) -> Res<String> {
    let hits = s.matches(old).count();
    let n = match usize::try_from(count) {
        Ok(n) => n.min(hits),
        Err(_) => hits,
    };
    if n.saturating_mul(new.len()).saturating_add(s.len()) > MAX_TEXT {
        return too_large();
    }
    Ok(s.replacen(old, new, n))
}

fn upper_first(c: char) -> String {
    // title case; a multi-letter expansion keeps only its first letter upper
    let mut it = c.to_uppercase();
    let mut rv: String = it.next().into_iter().collect();
    for c in it {
        rv.extend(c.to_lowercase());
    }
    rv
}

/// Python's `str.title`.
fn title_method(s: &str) -> String {
    let mut rv = String::with_capacity(s.len());
    let mut prev = false;
    for c in s.chars() {
        let cased = c.is_lowercase() || c.is_uppercase();
        if prev {
            rv.extend(c.to_lowercase());
        } else {
            rv.push_str(&upper_first(c));
        }
        prev = cased;
    }
    rv
}

fn capitalize(s: &str) -> String {
    let mut it = s.chars();
    match it.next() {
        Some(c) => format!("{}{}", upper_first(c), it.as_str().to_lowercase()),
        None => String::new(),
    }
}

fn html_escape(s: &str) -> String {
    let mut rv = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '&' => rv.push_str("&amp;"),
            '<' => rv.push_str("&lt;"),
            '>' => rv.push_str("&gt;"),
            '"' => rv.push_str("&#34;"),
            '\'' => rv.push_str("&#39;"),
            c => rv.push(c),
        }
    }
    rv
}

/// Python's `urllib.parse.quote`.
fn quote(s: &str, for_qs: bool) -> String {
    let mut rv = String::with_capacity(s.len());
    for &b in s.as_bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                rv.push(char::from(b));
            }
            b'/' if !for_qs => rv.push('/'),
            b' ' if for_qs => rv.push('+'),
            b => rv.push_str(&format!("%{b:02X}")),
        }
    }
    rv
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// `textwrap`'s word splitter (`wordsep_re`), on characters.
fn wrap_chunks(s: &[char], hyphens: bool) -> Vec<Vec<char>> {
    let ws = |c: char| matches!(c, '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ');
    let at = |i: usize| s.get(i).copied();
    let punct = |c: char| is_word(c) || "!\"'&.,?".contains(c);
    let letter = |c: char| is_word(c) && !c.is_numeric();
    let mut rv: Vec<Vec<char>> = Vec::new();
    let mut i = 0;
    while let Some(c) = at(i) {
        let start = i;
        if ws(c) {
            while at(i).is_some_and(ws) {
                i += 1;
            }
        } else if !hyphens {
            while at(i).is_some_and(|c| !ws(c)) {
                i += 1;
            }
        } else {
            // em-dash between words
            let mut dash = i;
            while at(dash) == Some('-') {
                dash += 1;
            }
            if dash - i >= 2
                && i > 0
                && at(i - 1).is_some_and(punct)
                && at(dash).is_some_and(is_word)
            {
                i = dash;
            } else {
                // shortest non-empty run of non-space ending at a break
                i += 1;
                loop {
                    // hyphenated word: "-" here, then two letters
                    if at(i) == Some('-') {
                        let back = |n: usize| i.checked_sub(n).and_then(at);
                        let before = (back(1).is_some_and(letter) && back(2).is_some_and(letter))
                            || (back(1).is_some_and(punct)
                                && back(2) == Some('-')
                                && back(3).is_some_and(letter));
                        let after = at(i + 1).is_some_and(letter)
                            && (at(i + 2).is_some_and(letter)
                                || (at(i + 2) == Some('-') && at(i + 3).is_some_and(letter)));
                        if before && after {
                            i += 1;
                            break;
                        }
                    }
                    match at(i) {
                        None => break,
                        Some(c) if ws(c) => break,
                        _ => {}
                    }
                    // before an em-dash
                    if at(i) == Some('-') && i > 0 && at(i - 1).is_some_and(punct) {
                        let mut d = i;
                        while at(d) == Some('-') {
                            d += 1;
                        }
                        if d - i >= 2 && at(d).is_some_and(is_word) {
                            break;
                        }
                    }
                    i += 1;
                }
            }
        }
        rv.push(s.get(start..i).unwrap_or_default().to_vec());
    }
    rv
}

/// `textwrap.wrap(expand_tabs=False, replace_whitespace=False)`.
fn wrap_line(s: &str, width: usize, long: bool, hyphens: bool) -> Vec<String> {
    let chars: Vec<char> = s.chars().collect();
    let mut chunks = wrap_chunks(&chars, hyphens);
    chunks.reverse();
    let blank = |c: &[char]| c.iter().all(|c| is_space(*c));
    let mut lines: Vec<String> = Vec::new();
    while !chunks.is_empty() {
        let mut cur: Vec<Vec<char>> = Vec::new();
        let mut len = 0;
        if !lines.is_empty() && chunks.last().is_some_and(|c| blank(c)) {
            chunks.pop();
        }
        while let Some(chunk) = chunks.last() {
            if len + chunk.len() > width {
                break;
            }
            len += chunk.len();
            cur.extend(chunks.pop());
        }
        if let Some(chunk) = chunks.last_mut()
            && chunk.len() > width
        {
            if long {
                let mut end = width.saturating_sub(len);
                if hyphens && chunk.len() > end {
                    // break after a hyphen inside the part that fits
                    let hy = chunk
                        .get(..end)
                        .unwrap_or_default()
                        .iter()
                        .rposition(|c| *c == '-');
                    if let Some(h) = hy
                        && h > 0
                        && chunk.iter().take(h).any(|c| *c != '-')
                    {
                        end = h + 1;
                    }
                }
                let end = end.min(chunk.len());
                cur.push(chunk.drain(..end).collect());
            } else if cur.is_empty() {
                cur.extend(chunks.pop());
            }
        }
        if cur.last().is_some_and(|c| blank(c)) {
            cur.pop();
        }
        if !cur.is_empty() {
            lines.push(cur.into_iter().flatten().collect());
        }
    }
    lines
}

// ------------------------------------------------- printf and str.format

/// Exponent form as C prints it.
fn fmt_exp(x: f64, prec: usize, upper: bool) -> String {
    let s = format!("{x:.prec$e}");
    let rv = match s.split_once('e') {
        Some((m, e)) => {
            let e: i32 = e.parse().unwrap_or(0);
            format!(
                "{m}e{}{:02}",
                if e < 0 { '-' } else { '+' },
                e.unsigned_abs()
            )
        }
        None => s,
    };
    if upper { rv.to_uppercase() } else { rv }
}

fn fmt_general(x: f64, prec: usize, alt: bool) -> String {
    let prec = prec.max(1);
    let probe = format!("{x:.*e}", prec - 1);
    let exp: i32 = probe
        .split_once('e')
        .and_then(|(_, e)| e.parse().ok())
        .unwrap_or(0);
    let p = i32::try_from(prec).unwrap_or(i32::MAX);
    let trim = |s: String| {
        if alt || !s.contains('.') {
            s
        } else {
            s.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    };
    if exp < -4 || exp >= p {
        let s = fmt_exp(x, prec - 1, false);
        match s.split_once('e') {
            Some((m, e)) => format!("{}e{e}", trim(m.to_string())),
            None => s,
        }
    } else {
        let digits = usize::try_from(p - 1 - exp).unwrap_or(0);
        trim(format!("{x:.digits$}"))
    }
}

/// The unsigned body of a number in one of the float presentation types.
fn fmt_float(x: f64, kind: char, prec: Option<usize>, alt: bool) -> String {
    let x = x.abs();
    let upper = kind.is_ascii_uppercase();
    if x.is_nan() || x.is_infinite() {
        let s = if x.is_nan() { "nan" } else { "inf" };
        return if upper { s.to_uppercase() } else { s.into() };
    }
    let prec = prec.unwrap_or(6).min(400);
    match kind {
        'e' | 'E' => fmt_exp(x, prec, upper),
        'g' | 'G' => {
            let s = fmt_general(x, prec, alt);
            if upper { s.to_uppercase() } else { s }
        }
        _ => format!("{x:.prec$}"),
    }
}

fn fmt_radix(x: i128, kind: char) -> String {
    let n = x.unsigned_abs();
    match kind {
        'x' => format!("{n:x}"),
        'X' => format!("{n:X}"),
        'o' => format!("{n:o}"),
        'b' => format!("{n:b}"),
        _ => n.to_string(),
    }
}

fn parse_width(chars: &[char], i: &mut usize) -> Res<Option<usize>> {
    let mut rv: Option<usize> = None;
    while let Some(d) = chars.get(*i).and_then(|c| c.to_digit(10)) {
        let n = rv
            .unwrap_or(0)
            .saturating_mul(10)
            .saturating_add(d as usize);
        if n > MAX_TEXT {
            return too_large();
        }
        rv = Some(n);
        *i += 1;
    }
    Ok(rv)
}

/// Python's `fmt % args`.
fn percent_format(fmt: &str, pos: &[Value], kw: &[(String, Value)], mapping: bool) -> Res<String> {
    let chars: Vec<char> = fmt.chars().collect();
    let mut out = String::new();
    let mut next = 0;
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        check_len(&out)?;
        i += 1;
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut keyed = None;
        if chars.get(i) == Some(&'(') {
            let mut depth = 1;
            let mut key = String::new();
            i += 1;
            while let Some(&c) = chars.get(i) {
                i += 1;
                match c {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                key.push(c);
            }
            if depth != 0 {
                return err("incomplete format key");
            }
            if !mapping {
                return err("format requires a mapping");
            }
            match kw.iter().find(|(k, _)| *k == key) {
                Some((_, v)) => keyed = Some(v.clone()),
                None => return err(format!("format key '{key}' is missing")),
            }
        }
        let (mut left, mut zero, mut alt, mut sign) = (false, false, false, None);
        while let Some(&c) = chars.get(i) {
            match c {
                '-' => left = true,
                '0' => zero = true,
                '#' => alt = true,
                '+' => sign = Some('+'),
                ' ' => sign = sign.or(Some(' ')),
                _ => break,
            }
            i += 1;
        }
        if chars.get(i) == Some(&'*') {
            return err("'*' in a format is not supported");
        }
        let width = parse_width(&chars, &mut i)?.unwrap_or(0);
        let mut prec = None;
        if chars.get(i) == Some(&'.') {
            i += 1;
            if chars.get(i) == Some(&'*') {
                return err("'*' in a format is not supported");
            }
            prec = Some(parse_width(&chars, &mut i)?.unwrap_or(0));
        }
        while matches!(chars.get(i), Some('l' | 'L' | 'h')) {
            i += 1;
        }
        let Some(&kind) = chars.get(i) else {
            return err("incomplete format");
        };
        i += 1;
        if kind == '%' {
            out.push('%');
            continue;
        }
        let arg = match keyed {
            Some(v) => v,
            None => {
                let v = match pos.get(next) {
                    Some(v) => v.clone(),
                    None => return err("not enough arguments for format string"),
                };
                next += 1;
                v
            }
        };
        if arg.is_undefined() {
            return undefined();
        }
        let (neg, body, number) = match kind {
            's' | 'r' => {
                let s = if kind == 's' {
                    str_of(&arg)?
                } else {
                    repr_of(&arg)?
                };
                (
                    false,
                    s.chars().take(prec.unwrap_or(usize::MAX)).collect(),
                    false,
                )
            }
            'c' => match (arg.as_str(), int_of(&arg)) {
                (Some(s), _) if s.chars().count() == 1 => (false, s.to_string(), false),
                (_, Some(n)) => match u32::try_from(n).ok().and_then(char::from_u32) {
                    Some(c) => (false, c.to_string(), false),
                    None => return err("%c arg not in range"),
                },
                _ => return err("%c requires int or char"),
            },
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
                let n = match (int_of(&arg), num_of(&arg)) {
                    (Some(n), _) => n,
                    (None, Some(f))
                        if matches!(kind, 'd' | 'i' | 'u') && f.is_finite() && f.abs() < 1e30 =>
                    {
                        f.trunc() as i128
                    }
                    _ => return err(format!("%{kind} format: a number is required")),
                };
                let mut s = fmt_radix(n, kind);
                if let Some(p) = prec {
                    let miss = p.saturating_sub(s.len());
                    s = format!("{}{s}", pad(miss as i64, '0')?);
                }
                if alt {
                    match kind {
                        'x' => s.insert_str(0, "0x"),
                        'X' => s.insert_str(0, "0X"),
                        'o' => s.insert_str(0, "0o"),
                        _ => {}
                    }
                }
                (n < 0, s, true)
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match num_of(&arg) {
                Some(x) => (
                    x.is_sign_negative() && !x.is_nan(),
                    fmt_float(x, kind, prec, alt),
                    true,
                ),
                None => return err("must be real number"),
            },
            _ => return err(format!("unsupported format character '{kind}'")),
        };
        let lead = match (number, neg, sign) {
            (true, true, _) => "-",
            (true, false, Some('+')) => "+",
            (true, false, Some(_)) => " ",
            _ => "",
        };
        let miss = width as i64 - char_len(&body) - char_len(lead);
        if left {
            out.push_str(lead);
            out.push_str(&body);
            out.push_str(&pad(miss, ' ')?);
        } else if zero && number {
            out.push_str(lead);
            let split = if alt && matches!(kind, 'x' | 'X' | 'o') {
                2.min(body.len())
            } else {
                0
            };
            out.push_str(body.get(..split).unwrap_or_default());
            out.push_str(&pad(miss, '0')?);
            out.push_str(body.get(split..).unwrap_or_default());
        } else {
            out.push_str(&pad(miss, ' ')?);
            out.push_str(lead);
            out.push_str(&body);
        }
    }
    if !mapping && next < pos.len() {
        return err("not all arguments converted during string formatting");
    }
    check_len(&out)?;
    Ok(out)
}

/// Inserts a thousands separator into the integer part.
fn group_digits(s: &str, sep: char) -> String {
    let end = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (int, rest) = s.split_at(end);
    let n = int.len();
    let mut rv = String::new();
    for (i, c) in int.chars().enumerate() {
        if i > 0 && (n - i) % 3 == 0 {
            rv.push(sep);
        }
        rv.push(c);
    }
    rv.push_str(rest);
    rv
}

/// Python's `format(value, spec)`.
fn format_spec(v: &Value, spec: &str) -> Res<String> {
    if v.is_undefined() {
        return undefined();
    }
    if spec.is_empty() {
        return str_of(v);
    }
    let t = ty(v);
    if !matches!(t, Ty::Str | Ty::Int | Ty::Float | Ty::Bool) {
        return err("unsupported format string passed to __format__");
    }
    let chars: Vec<char> = spec.chars().collect();
    let mut i = 0;
    let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '^' | '='));
    let (mut fill, mut align) = (' ', None);
    if is_align(chars.get(1)) {
        fill = chars.first().copied().unwrap_or(' ');
        align = chars.get(1).copied();
        i = 2;
    } else if is_align(chars.first()) {
        align = chars.first().copied();
        i = 1;
    }
    let mut sign = None;
    if let Some(c @ ('+' | '-' | ' ')) = chars.get(i) {
        sign = Some(*c);
        i += 1;
    }
    let alt = chars.get(i) == Some(&'#');
    if alt {
        i += 1;
    }
    if chars.get(i) == Some(&'0') {
        i += 1;
        if align.is_none() {
            fill = '0';
            align = Some(if t == Ty::Str { '<' } else { '=' });
        }
    }
    let width = parse_width(&chars, &mut i)?.unwrap_or(0);
    let mut sep = None;
    if let Some(c @ (',' | '_')) = chars.get(i) {
        sep = Some(*c);
        i += 1;
    }
    let mut prec = None;
    if chars.get(i) == Some(&'.') {
        i += 1;
        prec = parse_width(&chars, &mut i)?;
        if prec.is_none() {
            return err("Format specifier missing precision");
        }
    }
    let kind = chars.get(i).copied();
    if chars.len() > i + 1 {
        return err("Invalid format specifier");
    }
    let bad = || {
        err(format!(
            "Unknown format code for object of type '{}'",
            type_name(v)
        ))
    };
    let (neg, mut body, number) = match (t, kind) {
        (Ty::Str, None | Some('s')) => {
            if sign.is_some() || alt || sep.is_some() || align == Some('=') {
                return err("not allowed in string format specifier");
            }
            let s: String = v
                .as_str()
                .unwrap_or_default()
                .chars()
                .take(prec.unwrap_or(usize::MAX))
                .collect();
            (false, s, false)
        }
        (Ty::Str, _) => return bad(),
        (Ty::Int | Ty::Bool, None | Some('d' | 'x' | 'X' | 'o' | 'b')) => {
            if prec.is_some() {
                return err("Precision not allowed in integer format specifier");
            }
            let Some(n) = int_of(v) else { return bad() };
            let k = kind.unwrap_or('d');
            if sep.is_some() && k != 'd' {
                return err("unsupported separator");
            }
            let mut s = fmt_radix(n, k);
            if alt && k != 'd' {
                s = format!("0{k}{s}");
            }
            (n < 0, s, true)
        }
        (_, Some(k @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G'))) => {
            let x = num_of(v).unwrap_or(f64::NAN);
            (
                x.is_sign_negative() && !x.is_nan(),
                fmt_float(x, k, prec, alt),
                true,
            )
        }
        (_, Some('%')) => {
            let x = num_of(v).unwrap_or(f64::NAN) * 100.0;
            (
                x.is_sign_negative() && !x.is_nan(),
                format!("{}%", fmt_float(x, 'f', prec, alt)),
                true,
            )
        }
        (Ty::Float, None) if prec.is_none() => {
            let x = num_of(v).unwrap_or(f64::NAN);
            (
                x.is_sign_negative() && !x.is_nan(),
                float_repr(x.abs()),
                true,
            )
        }
        _ => return bad(),
    };
    if let Some(sep) = sep {
        if fill == '0' && align == Some('=') && width > body.len() {
            return err("zero padding with a separator is not supported");
        }
        body = group_digits(&body, sep);
    }
    let lead = match (number, neg, sign) {
        (true, true, _) => "-",
        (true, false, Some('+')) => "+",
        (true, false, Some(' ')) => " ",
        _ => "",
    };
    let miss = width as i64 - char_len(&body) - char_len(lead);
    let align = align.unwrap_or(if number { '>' } else { '<' });
    let left = match align {
        '<' => 0,
        '^' => miss.max(0) / 2,
        _ => miss.max(0),
    };
    let (a, b) = (pad(left, fill)?, pad(miss.max(0) - left, fill)?);
    Ok(if align == '=' {
        let cut = if alt && body.starts_with('0') && kind != Some('d') {
            2.min(body.len())
        } else {
            0
        };
        let (p, q) = body.split_at(cut);
        format!("{lead}{p}{a}{q}")
    } else {
        format!("{a}{lead}{body}{b}")
    })
}

/// Python's `str.format`.
fn str_format(fmt: &str, pos: &[Value], kw: &[(String, Value)]) -> Res<String> {
    let chars: Vec<char> = fmt.chars().collect();
    let mut out = String::new();
    let mut auto: Option<usize> = Some(0);
    let mut used_auto = false;
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        check_len(&out)?;
        i += 1;
        match c {
            '{' if chars.get(i) == Some(&'{') => {
                out.push('{');
                i += 1;
            }
            '}' if chars.get(i) == Some(&'}') => {
                out.push('}');
                i += 1;
            }
            '}' => return err("Single '}' encountered in format string"),
            '{' => {
                let mut field = String::new();
                let mut closed = false;
                while let Some(&c) = chars.get(i) {
                    i += 1;
                    if c == '}' {
                        closed = true;
                        break;
                    }
                    if c == '{' {
                        return err("nested format fields are not supported");
                    }
                    field.push(c);
                }
                if !closed {
                    return err("expected '}' before end of string");
                }
                let (head, spec) = match field.split_once(':') {
                    Some((h, s)) => (h.to_string(), s.to_string()),
                    None => (field.clone(), String::new()),
                };
                let (name, conv) = match head.split_once('!') {
                    Some((n, c)) => (n.to_string(), Some(c.to_string())),
                    None => (head, None),
                };
                let cut = name.find(['.', '[']).unwrap_or(name.len());
                let (first, mut rest) = name.split_at(cut);
                let mut val = if first.is_empty() {
                    used_auto = true;
                    let Some(n) = auto else {
                        return err("cannot switch from manual to automatic field numbering");
                    };
                    auto = Some(n + 1);
                    pos.get(n).cloned()
                } else if first.chars().all(|c| c.is_ascii_digit()) {
                    if used_auto {
                        return err("cannot switch from automatic to manual field numbering");
                    }
                    auto = None;
                    first
                        .parse::<usize>()
                        .ok()
                        .and_then(|n| pos.get(n).cloned())
                } else {
                    kw.iter().find(|(k, _)| k == first).map(|(_, v)| v.clone())
                };
                while !rest.is_empty() {
                    // `{a[key]}`; attributes of Python objects are not data
                    let Some(inner) = rest.strip_prefix('[') else {
                        return err("attribute access in a format string is not supported");
                    };
                    let Some((key, tail)) = inner.split_once(']') else {
                        return err("Missing ']' in format string");
                    };
                    let key = match key.parse::<u64>() {
                        Ok(n) => Value::from(n),
                        Err(_) => Value::from(key),
                    };
                    val = match val {
                        Some(v) => Some(v.get_item(&key)?).filter(|v| !v.is_undefined()),
                        None => None,
                    };
                    rest = tail;
                }
                let Some(v) = val else {
                    return err("Replacement index or key not found in format arguments");
                };
                let v = match conv.as_deref() {
                    None => v,
                    Some("r") => Value::from(repr_of(&v)?),
                    Some("s") => Value::from(str_of(&v)?),
                    Some(_) => return err("Unknown conversion specifier"),
                };
                out.push_str(&format_spec(&v, &spec)?);
            }
            c => out.push(c),
        }
    }
    check_len(&out)?;
    Ok(out)
}

// ------------------------------------------------------------------ filters

type FilterFn = fn(&mut State<'_, '_>, &[Value]) -> Res<Value>;

fn text(s: String) -> Res<Value> {
    check_len(&s)?;
    Ok(Value::from(s))
}

/// Jinja2's `environment.getitem`: item lookup, undefined when missing.
fn getitem(v: &Value, key: &Value) -> Res<Value> {
    match ty(v) {
        Ty::Undefined => undefined(),
        Ty::Gen | Ty::View => Ok(Value::UNDEFINED),
        _ => v.get_item(key),
    }
}

fn attr_path(attr: &Value) -> Res<Vec<Value>> {
    match ty(attr) {
        Ty::None => Ok(Vec::new()),
        Ty::Str => Ok(attr
            .as_str()
            .unwrap_or_default()
            .split('.')
            .map(|p| match p.parse::<u64>() {
                Ok(n) if p.bytes().all(|b| b.is_ascii_digit()) => Value::from(n),
                _ => Value::from(p),
            })
            .collect()),
        Ty::Undefined => undefined(),
        _ => Ok(vec![attr.clone()]),
    }
}

/// Jinja2's `make_attrgetter`.
fn get_path(v: &Value, path: &[Value], default: Option<&Value>) -> Res<Value> {
    let mut v = v.clone();
    for part in path {
        v = getitem(&v, part)?;
        if let (true, Some(d)) = (v.is_undefined(), default) {
            v = d.clone();
        }
    }
    Ok(v)
}

fn key_of(v: &Value, path: &[Value], case: bool, default: Option<&Value>) -> Res<Value> {
    let v = get_path(v, path, default)?;
    Ok(if case { v } else { lowered(v) })
}

fn f_upper(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    text(str_of(&b.val(0))?.to_uppercase())
}

fn f_lower(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    text(str_of(&b.val(0))?.to_lowercase())
}

fn f_capitalize(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    text(capitalize(&str_of(&b.val(0))?))
}

fn f_title(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    let s = str_of(&b.val(0))?;
    let mut rv = String::with_capacity(s.len());
    let mut start = true;
    for c in s.chars() {
        let sep = is_space(c) || "-({[<".contains(c);
        if sep {
            rv.push(c);
        } else if start {
            rv.extend(c.to_uppercase());
        } else {
            rv.extend(c.to_lowercase());
        }
        start = sep;
    }
    text(rv)
}

fn f_length(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    py_len(&b.val(0)).map(Value::from)
}

fn py_len(v: &Value) -> Res<usize> {
    match (ty(v), v.len()) {
        (Ty::Undefined, _) => undefined(),
        (Ty::Silent, _) => Ok(0),
        (Ty::Gen | Ty::Other, _) | (_, None) => {
            err(format!("object of type '{}' has no len()", type_name(v)))
        }
        (_, Some(n)) => Ok(n),
    }
}

fn f_first(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["seq"], 1)?;
    Ok(items_of(&b.val(0))?.into_iter().next().unwrap_or_default())
}

fn f_last(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["seq"], 1)?;
    let v = b.val(0);
    if ty(&v) == Ty::Gen {
        return err("'generator' object is not reversible");
    }
    Ok(items_of(&v)?.pop().unwrap_or_default())
}

fn f_list(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    Ok(Value::from(items_of(&b.val(0))?))
}

fn f_string(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    let v = b.val(0);
    if v.is_safe() {
        return Ok(v);
    }
    text(str_of(&v)?)
}

fn f_safe(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    Ok(Value::from_safe_string(str_of(&b.val(0))?))
}

fn f_escape(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let v = b.val(0);
    if v.is_safe() {
        return Ok(v);
    }
    let s = html_escape(&str_of(&v)?);
    check_len(&s)?;
    Ok(Value::from_safe_string(s))
}

fn f_forceescape(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let s = html_escape(&str_of(&b.val(0))?);
    check_len(&s)?;
    Ok(Value::from_safe_string(s))
}

fn f_striptags(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let mut s = str_of(&b.val(0))?;
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        let mut out = String::with_capacity(s.len());
        let mut rest = s.as_str();
        while let Some((head, tail)) = rest.split_once(open) {
            let Some((_, after)) = tail.split_once(close) else {
                break;
            };
            out.push_str(head);
            rest = after;
        }
        out.push_str(rest);
        s = out;
    }
    let s = s
        .split(is_space)
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let mut out = String::with_capacity(s.len());
    let mut rest = s.as_str();
    while let Some(i) = rest.find('&') {
        out.push_str(rest.get(..i).unwrap_or_default());
        rest = rest.get(i..).unwrap_or_default();
        let known = [
            ("&amp;", "&"),
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&#34;", "\""),
            ("&#39;", "'"),
            ("&apos;", "'"),
            ("& ", "& "),
        ];
        match known
            .iter()
            .find_map(|(e, c)| rest.strip_prefix(e).map(|r| (r, c)))
        {
            Some((r, c)) => {
                out.push_str(c);
                rest = r;
            }
            None => return err("striptags: unsupported HTML entity"),
        }
    }
    out.push_str(rest);
    text(out)
}

fn f_replace(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s", "old", "new", "count"], 3)?;
    let count = match b.some(3) {
        Some(_) => b.int_or(3, -1)?,
        None => -1,
    };
    text(replace(
        &str_of(&b.val(0))?,
        &str_of(&b.val(1))?,
        &str_of(&b.val(2))?,
        count,
    )?)
}

fn f_trim(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "chars"], 1)?;
    let s = str_of(&b.val(0))?;
    let chars = match b.some(1) {
        Some(_) => Some(b.str(1)?),
        None => None,
    };
    text(strip(&s, chars.as_deref(), true, true))
}

fn f_center(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "width"], 1)?;
    text(center(&str_of(&b.val(0))?, b.int_or(1, 80)?, ' ')?)
}

fn f_indent(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s", "width", "first", "blank"], 1)?;
    let s = b.str(0)?;
    let by = match b.opt(1).and_then(Value::as_str) {
        Some(s) => s.to_string(),
        None => pad(b.int_or(1, 4)?, ' ')?,
    };
    let (first, blank) = (b.bool_or(2, false)?, b.bool_or(3, false)?);
    let lines = splitlines(&format!("{s}\n"), false);
    if lines
        .len()
        .saturating_mul(by.len() + 1)
        .saturating_add(s.len())
        > MAX_TEXT
    {
        return too_large();
    }
    let mut rv = String::new();
    if first {
        rv.push_str(&by);
    }
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            rv.push('\n');
            if blank || !line.is_empty() {
                rv.push_str(&by);
            }
        }
        rv.push_str(line);
    }
    text(rv)
}

fn f_truncate(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s", "length", "killwords", "end", "leeway"], 1)?;
    let s = b.str(0)?;
    let length = b.int_or(1, 255)?;
    let kill = b.bool_or(2, false)?;
    let end = b.str_or(3, "...")?;
    let leeway = match b.some(4) {
        Some(_) => b.int_or(4, 5)?,
        None => 5,
    };
    if length < char_len(&end) {
        return err(format!(
            "expected length >= {}, got {length}",
            char_len(&end)
        ));
    }
    if leeway < 0 {
        return err(format!("expected leeway >= 0, got {leeway}"));
    }
    if char_len(&s) <= length.saturating_add(leeway) {
        return Ok(b.val(0));
    }
    let keep = usize::try_from(length - char_len(&end)).unwrap_or(0);
    let head: String = s.chars().take(keep).collect();
    let head = if kill {
        head.as_str()
    } else {
        head.rsplit_once(' ').map_or(head.as_str(), |(h, _)| h)
    };
    text(format!("{head}{end}"))
}

fn f_wordwrap(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(
        a,
        &[
            "s",
            "width",
            "break_long_words",
            "wrapstring",
            "break_on_hyphens",
        ],
        1,
    )?;
    let s = b.str(0)?;
    let width = match usize::try_from(b.int_or(1, 79)?) {
        Ok(n) if n > 0 => n,
        _ => return err("invalid width (must be > 0)"),
    };
    let long = b.bool_or(2, true)?;
    let sep = match b.some(3) {
        Some(_) => b.str(3)?,
        None => "\n".into(),
    };
    let hyphens = b.bool_or(4, true)?;
    if s.len() > 256 * 1024 {
        return too_large();
    }
    let lines: Vec<String> = splitlines(&s, false)
        .iter()
        .map(|l| wrap_line(l, width, long, hyphens).join(&sep))
        .collect();
    text(lines.join(&sep))
}

fn f_wordcount(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["s"], 1)?;
    let s = str_of(&b.val(0))?;
    Ok(Value::from(
        s.split(|c| !is_word(c)).filter(|w| !w.is_empty()).count(),
    ))
}

fn f_format(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let (mut pos, kw) = split_kwargs(a);
    if pos.is_empty() {
        return Err(Error::from(ErrorKind::MissingArgument));
    }
    let v = pos.remove(0);
    if v.is_safe() {
        return err("format on a safe string is not supported");
    }
    if !pos.is_empty() && !kw.is_empty() {
        return err("can't handle positional and keyword arguments at the same time");
    }
    // with one dict argument `"..." % (d,)` is still positional
    text(percent_format(&str_of(&v)?, &pos, &kw, !kw.is_empty())?)
}

fn f_join(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "d", "attribute"], 1)?;
    let sep = match b.opt(1) {
        Some(v) => str_of(v)?,
        None => String::new(),
    };
    let path = attr_path(&b.some(2).cloned().unwrap_or(Value::from(())))?;
    let mut rv = String::new();
    for (i, item) in items_of(&b.val(0))?.iter().enumerate() {
        if i > 0 {
            rv.push_str(&sep);
        }
        let item = get_path(item, &path, None)?;
        if !is_silent(st, &item) {
            rv.push_str(&str_of(&item)?);
        }
        check_len(&rv)?;
    }
    text(rv)
}

fn f_reverse(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let v = b.val(0);
    if let Some(s) = v.as_str() {
        return text(s.chars().rev().collect());
    }
    let mut items = items_of(&v)?;
    items.reverse();
    Ok(match ty(&v) {
        Ty::Gen => Value::from(items),
        _ => Gen::value(items),
    })
}

fn parse_int(s: &str, base: u32) -> Option<Option<i128>> {
    // outer None: not an integer; inner None: too large
    let s = strip(s, None, true, true);
    let (neg, body) = match s.strip_prefix('-') {
        Some(r) => (true, r),
        None => (false, s.strip_prefix('+').unwrap_or(&s)),
    };
    let lower = body.to_ascii_lowercase();
    let (base, digits) = match (base, lower.get(..2)) {
        (16 | 0, Some("0x")) => (16, lower.get(2..)?),
        (8 | 0, Some("0o")) => (8, lower.get(2..)?),
        (2 | 0, Some("0b")) => (2, lower.get(2..)?),
        (0, _) => (10, lower.as_str()),
        (b, _) => (b, lower.as_str()),
    };
    let prefixed = digits.len() != lower.len();
    let digits = if prefixed {
        digits.strip_prefix('_').unwrap_or(digits)
    } else {
        digits
    };
    if digits.is_empty()
        || digits.starts_with('_')
        || digits.ends_with('_')
        || digits.contains("__")
    {
        return None;
    }
    let digits = digits.replace('_', "");
    if !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    Some(
        i128::from_str_radix(&digits, base)
            .ok()
            .map(|n| if neg { -n } else { n }),
    )
}

fn parse_float(s: &str) -> Option<f64> {
    let s = strip(s, None, true, true);
    let low = s.to_ascii_lowercase();
    let bare = low.trim_start_matches(['+', '-']);
    if matches!(bare, "inf" | "infinity" | "nan") {
        return low.parse().ok();
    }
    let ok = low
        .chars()
        .all(|c| c.is_ascii_digit() || "+-.e_".contains(c));
    let b = low.as_bytes();
    let under = b.iter().enumerate().all(|(i, c)| {
        *c != b'_'
            || (i > 0
                && b.get(i - 1).is_some_and(u8::is_ascii_digit)
                && b.get(i + 1).is_some_and(u8::is_ascii_digit))
    });
    if !ok || !under {
        return None;
    }
    low.replace('_', "").parse().ok()
}

fn float_to_int(x: f64) -> Res<Value> {
    if x.abs() < 1.7e38 {
        Ok(int_value(x.trunc() as i128))
    } else {
        err("integer is too large")
    }
}

fn f_int(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "default", "base"], 1)?;
    let v = b.val(0);
    let default = b.opt(1).cloned().unwrap_or(Value::from(0));
    let base = match u32::try_from(b.int_or(2, 10)?) {
        Ok(n) if n == 0 || (2..=36).contains(&n) => n,
        _ => return err("int() base must be >= 2 and <= 36, or 0"),
    };
    match ty(&v) {
        Ty::Undefined | Ty::Silent => undefined(),
        Ty::Bool => Ok(int_value(int_of(&v).unwrap_or(0))),
        Ty::Int => Ok(v),
        Ty::Float => {
            let x = num_of(&v).unwrap_or(f64::NAN);
            if x.is_infinite() {
                // Python raises OverflowError from int() here
                return err("cannot convert float infinity to integer");
            }
            if x.is_nan() {
                return Ok(default);
            }
            float_to_int(x)
        }
        Ty::Str => {
            let s = v.as_str().unwrap_or_default();
            match parse_int(s, base) {
                Some(Some(n)) => Ok(int_value(n)),
                Some(None) => err("integer is too large"),
                None => match parse_float(s) {
                    Some(x) if x.is_finite() => float_to_int(x),
                    _ => Ok(default),
                },
            }
        }
        _ => Ok(default),
    }
}

fn f_float(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "default"], 1)?;
    let v = b.val(0);
    let default = b.opt(1).cloned().unwrap_or(Value::from(0.0));
    match ty(&v) {
        Ty::Undefined | Ty::Silent => undefined(),
        Ty::Str => Ok(parse_float(v.as_str().unwrap_or_default()).map_or(default, Value::from)),
        _ => Ok(num_of(&v).map_or(default, Value::from)),
    }
}

fn f_abs(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["x"], 1)?;
    let v = b.val(0);
    match (ty(&v), int_of(&v), num_of(&v)) {
        (Ty::Undefined, ..) => undefined(),
        (_, Some(n), _) => Ok(int_value(n.saturating_abs())),
        (Ty::Float, _, Some(x)) => Ok(Value::from(x.abs())),
        _ => err("bad operand type for abs()"),
    }
}

fn f_round(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "precision", "method"], 1)?;
    let v = b.val(0);
    let prec = b.int_or(1, 0)?;
    let method = b.str_or(2, "common")?;
    if v.is_undefined() {
        return undefined();
    }
    let Some(x) = num_of(&v) else {
        return err(format!("type {} doesn't define __round__", type_name(&v)));
    };
    if prec.abs() > 300 {
        return err("precision is out of range");
    }
    let p = prec as i32;
    if method != "common" {
        if method != "ceil" && method != "floor" {
            return err("method must be common, ceil or floor");
        }
        let scale = 10f64.powi(p);
        let y = x * scale;
        if !y.is_finite() {
            return err("cannot convert float to integer");
        }
        let y = if method == "ceil" {
            y.ceil()
        } else {
            y.floor()
        };
        // Python divides an int: there is no negative zero
        return Ok(Value::from((y + 0.0) / scale));
    }
    if let Some(n) = int_of(&v) {
        if p >= 0 {
            return Ok(int_value(n));
        }
        let Some(unit) = 10i128.checked_pow(p.unsigned_abs().min(37)) else {
            return Ok(Value::from(0));
        };
        if p < -37 {
            return Ok(Value::from(0));
        }
        let (q, r) = (n.div_euclid(unit), n.rem_euclid(unit));
        let up = r * 2 > unit || (r * 2 == unit && q % 2 != 0);
        return match (q + i128::from(up)).checked_mul(unit) {
            Some(n) => Ok(int_value(n)),
            None => err("integer is too large"),
        };
    }
    if !x.is_finite() {
        return Ok(v);
    }
    if p >= 0 {
        let s = format!("{x:.*}", p as usize);
        return Ok(Value::from(s.parse::<f64>().unwrap_or(x)));
    }
    // a negative precision on a float: round half even on the exact value
    let unit = 10f64.powi(-p);
    let y = x / unit;
    let mut r = y.round();
    if (y - y.trunc()).abs() == 0.5 {
        r = 2.0 * (y / 2.0).round();
    }
    Ok(Value::from(r * unit))
}

fn f_filesizeformat(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "binary"], 1)?;
    let v = b.val(0);
    let binary = b.bool_or(1, false)?;
    let x = match ty(&v) {
        Ty::Undefined => return undefined(),
        Ty::Str => parse_float(v.as_str().unwrap_or_default()),
        _ => num_of(&v),
    };
    let Some(x) = x.filter(|x| x.is_finite()) else {
        return err("could not convert to float");
    };
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if x == 1.0 {
        return text("1 Byte".into());
    }
    if x < base {
        return text(format!("{} Bytes", x.trunc() as i128));
    }
    let names = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    // exact comparison with the integer unit, as in Python
    let step: u128 = if binary { 1024 } else { 1000 };
    let mut unit = step;
    let mut name = "k";
    for n in names {
        unit = unit.saturating_mul(step);
        name = n;
        if (x as u128) < unit {
            break;
        }
    }
    let unit = unit as f64;
    let name = match (binary, name) {
        (true, "k") => "KiB".to_string(),
        (true, n) => format!("{n}iB"),
        (false, n) => format!("{n}B"),
    };
    text(format!("{:.1} {name}", base * x / unit))
}

fn f_urlencode(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let v = b.val(0);
    let pairs = match ty(&v) {
        Ty::Undefined => return undefined(),
        Ty::Dict => pairs_of(&v)?,
        Ty::List | Ty::Tuple | Ty::Gen | Ty::View | Ty::Range => {
            let mut rv = Vec::new();
            for item in items_of(&v)? {
                match items_of(&item)?.as_slice() {
                    [k, v] => rv.push((k.clone(), v.clone())),
                    _ => return err("expected pairs to urlencode"),
                }
            }
            rv
        }
        _ => return text(quote(&str_of(&v)?, false)),
    };
    let mut rv = Vec::new();
    for (k, v) in pairs {
        rv.push(format!(
            "{}={}",
            quote(&str_of(&k)?, true),
            quote(&str_of(&v)?, true)
        ));
    }
    text(rv.join("&"))
}

fn f_xmlattr(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["d", "autospace"], 1)?;
    let auto = b.bool_or(1, true)?;
    let esc = |v: &Value| -> Res<String> {
        let s = str_of(v)?;
        Ok(if v.is_safe() { s } else { html_escape(&s) })
    };
    let mut rv = Vec::new();
    for (k, v) in pairs_of(&b.val(0))? {
        if v.is_none() || v.is_undefined() {
            continue;
        }
        let Some(key) = k.as_str() else {
            return err("xmlattr keys must be strings");
        };
        if key.contains(|c| is_space(c) || "/>=".contains(c)) {
            return err(format!("Invalid character in attribute name: {key}"));
        }
        rv.push(format!("{}=\"{}\"", esc(&k)?, esc(&v)?));
    }
    let rv = rv.join(" ");
    text(if auto && !rv.is_empty() {
        format!(" {rv}")
    } else {
        rv
    })
}

fn json_str(out: &mut String, s: &str) {
    // ensure_ascii plus Jinja2's HTML-safe replacements
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '<' | '>' | '&' | '\'' => out.push_str(&format!("\\u{:04x}", c as u32)),
            ' '..='~' => out.push(c),
            c => {
                let mut buf = [0u16; 2];
                for unit in c.encode_utf16(&mut buf) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}

fn json_float(x: f64) -> String {
    if x.is_nan() {
        "NaN".into()
    } else if x.is_infinite() {
        if x > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        }
    } else {
        float_repr(x)
    }
}

fn json_into(out: &mut String, v: &Value, indent: Option<&str>, depth: usize) -> Res<()> {
    if depth > MAX_DEPTH {
        return err("value is nested too deeply");
    }
    check_len(out)?;
    let nl = |out: &mut String, depth: usize| {
        if let Some(by) = indent {
            out.push('\n');
            for _ in 0..depth {
                out.push_str(by);
            }
        }
    };
    let sep = if indent.is_some() { "," } else { ", " };
    match ty(v) {
        Ty::Undefined => return undefined(),
        Ty::None => out.push_str("null"),
        Ty::Bool => out.push_str(if v.is_true() { "true" } else { "false" }),
        Ty::Int => out.push_str(&v.to_string()),
        Ty::Float => out.push_str(&json_float(num_of(v).unwrap_or(f64::NAN))),
        Ty::Str => json_str(out, v.as_str().unwrap_or_default()),
        Ty::List | Ty::Tuple => {
            let items = items_of(v)?;
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(sep);
                }
                nl(out, depth + 1);
                json_into(out, item, indent, depth + 1)?;
            }
            if !items.is_empty() {
                nl(out, depth);
            }
            out.push(']');
        }
        Ty::Dict => {
            let mut pairs = pairs_of(v)?;
            py_sort(&mut pairs, false, |p| &p.0)?;
            out.push('{');
            for (i, (k, item)) in pairs.iter().enumerate() {
                if i > 0 {
                    out.push_str(sep);
                }
                nl(out, depth + 1);
                match ty(k) {
                    Ty::Str => json_str(out, k.as_str().unwrap_or_default()),
                    Ty::None => out.push_str("\"null\""),
                    Ty::Bool => out.push_str(if k.is_true() { "\"true\"" } else { "\"false\"" }),
                    Ty::Int => out.push_str(&format!("\"{k}\"")),
                    Ty::Float => {
                        let s = json_float(num_of(k).unwrap_or(f64::NAN));
                        out.push_str(&format!("\"{s}\""));
                    }
                    _ => return err("keys must be str, int, float, bool or None"),
                }
                out.push_str(": ");
                json_into(out, item, indent, depth + 1)?;
            }
            if !pairs.is_empty() {
                nl(out, depth);
            }
            out.push('}');
        }
        _ => match v.downcast_object_ref::<BigInt>() {
            Some(b) => out.push_str(&b.0),
            None => {
                return err(format!(
                    "Object of type {} is not JSON serializable",
                    type_name(v)
                ));
            }
        },
    }
    check_len(out)
}

fn f_tojson(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "indent"], 1)?;
    let by = match b.some(1) {
        None => None,
        Some(v) => Some(match v.as_str() {
            Some(s) => s.to_string(),
            None => pad(b.int_or(1, 0)?.min(64), ' ')?,
        }),
    };
    let mut out = String::new();
    json_into(&mut out, &b.val(0), by.as_deref(), 0)?;
    Ok(Value::from_safe_string(out))
}

fn f_pprint(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    fn sorted(v: &Value, depth: usize) -> Res<Value> {
        if depth > MAX_DEPTH {
            return err("value is nested too deeply");
        }
        Ok(match ty(v) {
            Ty::Dict => {
                let mut p = pairs_of(v)?;
                py_sort(&mut p, false, |p| &p.0)?;
                let mut rv = Vec::new();
                for (k, v) in p {
                    rv.push((k, sorted(&v, depth + 1)?));
                }
                Value::from_pairs(rv)
            }
            Ty::List => {
                let mut rv = Vec::new();
                for v in items_of(v)? {
                    rv.push(sorted(&v, depth + 1)?);
                }
                Value::from(rv)
            }
            _ => v.clone(),
        })
    }
    let b = bind(a, &["value"], 1)?;
    if b.val(0).is_undefined() {
        return text("Undefined".into());
    }
    let s = repr_of(&sorted(&b.val(0), 0)?)?;
    let long_str = ty(&b.val(0)) == Ty::Str && s.len() > 78;
    if char_len(&s) > 80 || long_str {
        // Python's line breaking is not reproduced
        return err("pprint of a value longer than one line is not supported");
    }
    text(s)
}

fn f_default(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "default_value", "boolean"], 1)?;
    let v = b.val(0);
    let default = || b.opt(1).cloned().unwrap_or(Value::from(""));
    if matches!(ty(&v), Ty::Undefined | Ty::Silent) || (b.bool_or(2, false)? && !v.is_true()) {
        Ok(default())
    } else {
        Ok(v)
    }
}

fn f_attr(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["obj", "name"], 2)?;
    let v = b.val(0);
    if matches!(ty(&v), Ty::Undefined | Ty::Silent) {
        return undefined();
    }
    let name = str_of(&b.val(1))?;
    match ty(&v) {
        // `attr` never reads dict items, and methods are not values here
        Ty::Other => v.get_item(&Value::from(name)),
        Ty::Tuple if v.downcast_object_ref::<Group>().is_some() => v.get_item(&Value::from(name)),
        _ => Ok(Value::UNDEFINED),
    }
}

fn f_items(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let v = b.val(0);
    if matches!(ty(&v), Ty::Undefined | Ty::Silent) {
        return Ok(Gen::value(Vec::new()));
    }
    Ok(Gen::value(tuples(pairs_of(&v)?)))
}

fn tuples(pairs: Vec<(Value, Value)>) -> Vec<Value> {
    pairs
        .into_iter()
        .map(|(k, v)| Value::from(Tuple::from([k, v])))
        .collect()
}

fn f_dictsort(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "case_sensitive", "by", "reverse"], 1)?;
    let case = b.bool_or(1, false)?;
    let by = b.str_or(2, "key")?;
    let rev = b.bool_or(3, false)?;
    if by != "key" && by != "value" {
        return err("You can only sort by either \"key\" or \"value\"");
    }
    let mut rows: Vec<(Value, (Value, Value))> = pairs_of(&b.val(0))?
        .into_iter()
        .map(|(k, v)| {
            let key = if by == "key" { k.clone() } else { v.clone() };
            (if case { key } else { lowered(key) }, (k, v))
        })
        .collect();
    py_sort(&mut rows, rev, |r| &r.0)?;
    Ok(Value::from(tuples(rows.into_iter().map(|r| r.1).collect())))
}

fn f_sort(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "reverse", "case_sensitive", "attribute"], 1)?;
    let rev = b.bool_or(1, false)?;
    let case = b.bool_or(2, false)?;
    let mut paths = Vec::new();
    match b.some(3) {
        Some(v) if v.as_str().is_some() => {
            for part in v.as_str().unwrap_or_default().split(',') {
                paths.push(attr_path(&Value::from(part))?);
            }
        }
        Some(v) => paths.push(attr_path(v)?),
        None => paths.push(Vec::new()),
    }
    let mut rows = Vec::new();
    for item in items_of(&b.val(0))? {
        let mut keys = Vec::new();
        for p in &paths {
            keys.push(key_of(&item, p, case, None)?);
        }
        rows.push((Value::from(keys), item));
    }
    py_sort(&mut rows, rev, |r| &r.0)?;
    Ok(Value::from(
        rows.into_iter().map(|r| r.1).collect::<Vec<_>>(),
    ))
}

fn f_unique(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "case_sensitive", "attribute"], 1)?;
    let case = b.bool_or(1, false)?;
    let path = attr_path(&b.some(2).cloned().unwrap_or(Value::from(())))?;
    let mut seen = HashSet::new();
    let mut rv = Vec::new();
    for item in items_of(&b.val(0))? {
        if seen.insert(hash_key(&key_of(&item, &path, case, None)?, 0)?) {
            rv.push(item);
        }
    }
    Ok(Gen::value(rv))
}

fn min_max(a: &[Value], want: Ordering) -> Res<Value> {
    let b = bind(a, &["value", "case_sensitive", "attribute"], 1)?;
    let case = b.bool_or(1, false)?;
    let path = attr_path(&b.some(2).cloned().unwrap_or(Value::from(())))?;
    let mut best: Option<(Value, Value)> = None;
    for item in items_of(&b.val(0))? {
        let key = key_of(&item, &path, case, None)?;
        let better = match &best {
            Some((k, _)) => py_cmp(&key, k, 0)? == want,
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|b| b.1).unwrap_or_default())
}

fn f_min(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    min_max(a, Ordering::Less)
}

fn f_max(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    min_max(a, Ordering::Greater)
}

fn f_sum(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["iterable", "attribute", "start"], 1)?;
    let path = attr_path(&b.some(1).cloned().unwrap_or(Value::from(())))?;
    let mut acc = b.opt(2).cloned().unwrap_or(Value::from(0));
    if ty(&acc) == Ty::Str {
        return err("sum() can't sum strings");
    }
    if ty(&acc) == Ty::List {
        let mut rv = items_of(&acc)?;
        for item in items_of(&b.val(0))? {
            let item = get_path(&item, &path, None)?;
            if ty(&item) != Ty::List {
                return err("can only concatenate list to list");
            }
            rv.extend(items_of(&item)?);
            if rv.len() > MAX_ITEMS {
                return too_large();
            }
        }
        return Ok(Value::from(rv));
    }
    for item in items_of(&b.val(0))? {
        let item = get_path(&item, &path, None)?;
        if item.is_undefined() {
            return undefined();
        }
        acc = match (int_of(&acc), int_of(&item)) {
            (Some(x), Some(y)) => match x.checked_add(y) {
                Some(n) => int_value(n),
                None => return err("integer is too large"),
            },
            _ => match (num_of(&acc), num_of(&item)) {
                (Some(x), Some(y)) => Value::from(x + y),
                _ => return err("unsupported operand types for +"),
            },
        };
    }
    Ok(acc)
}

fn f_batch(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "linecount", "fill_with"], 2)?;
    let n = b.int_or(1, 0)?;
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    let mut rows = Vec::new();
    let mut row: Vec<Value> = Vec::new();
    for item in items_of(&b.val(0))? {
        if row.len() == n {
            rows.push(Value::from(std::mem::take(&mut row)));
        }
        row.push(item);
    }
    if !row.is_empty() {
        if let Some(fill) = b.some(2) {
            if n != usize::MAX && n > MAX_ITEMS {
                return too_large();
            }
            if n != usize::MAX {
                while row.len() < n {
                    row.push(fill.clone());
                }
            }
        }
        rows.push(Value::from(row));
    }
    Ok(Gen::value(rows))
}

fn f_slice(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "slices", "fill_with"], 2)?;
    let seq = items_of(&b.val(0))?;
    let n = match usize::try_from(b.int_or(1, 0)?) {
        Ok(n) if n > 0 && n <= MAX_ITEMS => n,
        Ok(0) => return err("integer division or modulo by zero"),
        Ok(_) => return too_large(),
        Err(_) => return Ok(Gen::value(Vec::new())),
    };
    let (per, extra) = (seq.len() / n, seq.len() % n);
    let mut rows = Vec::new();
    let mut iter = seq.into_iter();
    for i in 0..n {
        let take = per + usize::from(i < extra);
        let mut row: Vec<Value> = iter.by_ref().take(take).collect();
        if let (Some(fill), true) = (b.some(2), i >= extra) {
            row.push(fill.clone());
        }
        rows.push(Value::from(row));
    }
    Ok(Gen::value(rows))
}

fn f_map(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let (pos, kw) = split_kwargs(a);
    let Some(v) = pos.first() else {
        return Err(Error::from(ErrorKind::MissingArgument));
    };
    let mut rv = Vec::new();
    if pos.len() == 1 {
        let attr = kw.iter().find(|(k, _)| k == "attribute");
        let Some((_, attr)) = attr else {
            return err("map requires a filter argument");
        };
        if kw.iter().any(|(k, _)| k != "attribute" && k != "default") {
            return err("unexpected keyword argument");
        }
        let default = kw
            .iter()
            .find(|(k, v)| k == "default" && !v.is_none())
            .map(|(_, v)| v);
        let path = attr_path(attr)?;
        for item in items_of(v)? {
            rv.push(get_path(&item, &path, default)?);
        }
        return Ok(Gen::value(rv));
    }
    let name = str_of(pos.get(1).unwrap_or(&Value::UNDEFINED))?;
    let rest = a.get(2..).unwrap_or_default();
    for item in items_of(v)? {
        let mut args = vec![item];
        args.extend_from_slice(rest);
        rv.push(st.apply_filter(&name, &args)?);
    }
    Ok(Gen::value(rv))
}

fn select(st: &mut State<'_, '_>, a: &[Value], attr: bool, keep: bool) -> Res<Value> {
    let (pos, _) = split_kwargs(a);
    let Some(v) = pos.first() else {
        return Err(Error::from(ErrorKind::MissingArgument));
    };
    let mut off = 1;
    let mut path = Vec::new();
    if attr {
        match pos.get(1) {
            Some(p) => path = attr_path(p)?,
            None => return err("Missing parameter for attribute name"),
        }
        off = 2;
    }
    let test = match pos.get(off) {
        Some(t) => Some(str_of(t)?),
        None => None,
    };
    let rest = a.get(off + 1..).unwrap_or_default();
    let mut rv = Vec::new();
    for item in items_of(v)? {
        let key = get_path(&item, &path, None)?;
        let hit = match &test {
            Some(name) => {
                let mut args = vec![key];
                args.extend_from_slice(rest);
                st.perform_test(name, &args)?
            }
            None if is_silent(st, &key) => false,
            None => truth(&key)?,
        };
        if hit == keep {
            rv.push(item);
        }
    }
    Ok(Gen::value(rv))
}

fn f_select(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    select(st, a, false, true)
}

fn f_reject(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    select(st, a, false, false)
}

fn f_selectattr(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    select(st, a, true, true)
}

fn f_rejectattr(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    select(st, a, true, false)
}

fn f_groupby(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "attribute", "default", "case_sensitive"], 2)?;
    let path = attr_path(&b.val(1))?;
    let default = b.some(2);
    let case = b.bool_or(3, false)?;
    let mut rows = Vec::new();
    for item in items_of(&b.val(0))? {
        rows.push((key_of(&item, &path, case, default)?, item));
    }
    if rows.len() == 1 && rows.iter().any(|r| r.0.is_undefined()) {
        return undefined();
    }
    py_sort(&mut rows, false, |r| &r.0)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (k, item) in rows {
        match groups.last_mut() {
            Some((last, items)) if *last == k => items.push(item),
            _ => groups.push((k, vec![item])),
        }
    }
    let mut rv = Vec::new();
    for (k, items) in groups {
        let grouper = match (case, items.first()) {
            (false, Some(item)) => get_path(item, &path, default)?,
            _ => k,
        };
        rv.push(Value::from_object(Group {
            grouper,
            list: Value::from(items),
        }));
    }
    Ok(Value::from(rv))
}

const FILTERS: &[(&str, FilterFn)] = &[
    ("abs", f_abs),
    ("attr", f_attr),
    ("batch", f_batch),
    ("capitalize", f_capitalize),
    ("center", f_center),
    ("count", f_length),
    ("d", f_default),
    ("default", f_default),
    ("dictsort", f_dictsort),
    ("e", f_escape),
    ("escape", f_escape),
    ("filesizeformat", f_filesizeformat),
    ("first", f_first),
    ("float", f_float),
    ("forceescape", f_forceescape),
    ("format", f_format),
    ("groupby", f_groupby),
    ("indent", f_indent),
    ("int", f_int),
    ("items", f_items),
    ("join", f_join),
    ("last", f_last),
    ("length", f_length),
    ("list", f_list),
    ("lower", f_lower),
    ("map", f_map),
    ("max", f_max),
    ("min", f_min),
    ("pprint", f_pprint),
    ("reject", f_reject),
    ("rejectattr", f_rejectattr),
    ("replace", f_replace),
    ("reverse", f_reverse),
    ("round", f_round),
    ("safe", f_safe),
    ("select", f_select),
    ("selectattr", f_selectattr),
    ("slice", f_slice),
    ("sort", f_sort),
    ("string", f_string),
    ("striptags", f_striptags),
    ("sum", f_sum),
    ("title", f_title),
    ("tojson", f_tojson),
    ("trim", f_trim),
    ("truncate", f_truncate),
    ("unique", f_unique),
    ("upper", f_upper),
    ("urlencode", f_urlencode),
    ("wordcount", f_wordcount),
    ("wordwrap", f_wordwrap),
    ("xmlattr", f_xmlattr),
];

/// minijinja's own filters and tests, unknown to stock Jinja2.
const NOT_STOCK_FILTERS: &[&str] = &["split", "lines", "bool", "chain", "zip"];
const NOT_STOCK_TESTS: &[&str] = &["startingwith", "endingwith", "int", "safe"];

// -------------------------------------------------------------------- tests

fn cmp_test(a: &[Value], ok: fn(Ordering) -> bool) -> Res<bool> {
    let b = bind(a, &["a", "b"], 2)?;
    Ok(ok(py_cmp(&b.val(0), &b.val(1), 0)?))
}

fn eq_test(a: &[Value]) -> Res<bool> {
    let b = bind(a, &["a", "b"], 2)?;
    let (x, y) = (b.val(0), b.val(1));
    if x.is_undefined() || y.is_undefined() {
        return undefined();
    }
    Ok(x == y)
}

fn contains(item: &Value, seq: &Value) -> Res<bool> {
    match (ty(item), ty(seq)) {
        (_, Ty::Undefined) | (Ty::Undefined, Ty::Str) => undefined(),
        (Ty::Str, Ty::Str) => Ok(seq
            .as_str()
            .unwrap_or_default()
            .contains(item.as_str().unwrap_or_default())),
        (_, Ty::Str) => err("'in <string>' requires string as left operand"),
        (_, Ty::Dict) => {
            let key = hash_key(item, 0)?;
            for (k, _) in pairs_of(seq)? {
                if hash_key(&k, 0)? == key {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => {
            if item.is_undefined() {
                return undefined();
            }
            Ok(items_of(seq)?.iter().any(|v| v == item))
        }
    }
}

fn modulo_test(v: &Value, n: i128, want: i128) -> Res<bool> {
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

fn test(name: &str, a: &[Value]) -> Res<bool> {
    match name {
        "==" | "eq" | "equalto" => return eq_test(a),
        "!=" | "ne" => return eq_test(a).map(|b| !b),
        "<" | "lt" | "lessthan" => return cmp_test(a, Ordering::is_lt),
        "<=" | "le" => return cmp_test(a, Ordering::is_le),
        ">" | "gt" | "greaterthan" => return cmp_test(a, Ordering::is_gt),
        ">=" | "ge" => return cmp_test(a, Ordering::is_ge),
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

const TESTS: &[&str] = &[
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

// ------------------------------------------------------------------ methods

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase()
}

fn is_lower(s: &str) -> bool {
    s.chars().any(is_cased) && !s.chars().any(char::is_uppercase)
}

fn is_upper(s: &str) -> bool {
    s.chars().any(is_cased) && !s.chars().any(char::is_lowercase)
}

fn list_value(items: Vec<String>) -> Res<Value> {
    if items.len() > MAX_ITEMS {
        return too_large();
    }
    Ok(items.into_iter().map(Value::from).collect())
}

/// Python's `str.split` / `str.rsplit`.
fn split(s: &str, sep: Option<&str>, max: i64, right: bool) -> Res<Vec<String>> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    if let Some(sep) = sep {
        if sep.is_empty() {
            return err("empty separator");
        }
        let n = max.saturating_add(1);
        let mut rv: Vec<String> = if right {
            s.rsplitn(n, sep).map(String::from).collect()
        } else {
            s.splitn(n, sep).map(String::from).collect()
        };
        if right {
            rv.reverse();
        }
        return Ok(rv);
    }
    let mut rv = Vec::new();
    let mut rest = s;
    loop {
        rest = if right {
            rest.trim_end_matches(is_space)
        } else {
            rest.trim_start_matches(is_space)
        };
        if rest.is_empty() {
            break;
        }
        if rv.len() == max {
            rv.push(strip(rest, None, right, !right && max == 0));
            // the remainder keeps its far side's spaces, Python strips the
            // near side only
            if let (false, Some(last)) = (right, rv.last_mut()) {
                *last = rest.to_string();
            } else if let Some(last) = rv.last_mut() {
                *last = rest.to_string();
            }
            break;
        }
        if right {
            match rest.rfind(is_space) {
                Some(i) => {
                    let cut = i + rest
                        .get(i..)
                        .and_then(|r| r.chars().next())
                        .map_or(1, char::len_utf8);
                    rv.push(rest.get(cut..).unwrap_or_default().to_string());
                    rest = rest.get(..i).unwrap_or_default();
                }
                None => {
                    rv.push(rest.to_string());
                    break;
                }
            }
        } else {
            match rest.find(is_space) {
                Some(i) => {
                    rv.push(rest.get(..i).unwrap_or_default().to_string());
                    rest = rest.get(i..).unwrap_or_default();
                }
                None => {
                    rv.push(rest.to_string());
                    break;
                }
            }
        }
    }
    if right {
        rv.reverse();
    }
    Ok(rv)
}

/// The `[start:end]` part of a string and the offset of its start.
fn sub(s: &str, b: &Bound, i: usize) -> Res<Option<(String, i64)>> {
    let len = char_len(s);
    let fix = |x: i64| if x < 0 { (x + len).max(0) } else { x };
    let get = |i: usize, d: i64| -> Res<i64> {
        match b.some(i) {
            Some(_) => b.int_or(i, d).map(fix),
            None => Ok(d),
        }
    };
    let (start, end) = (get(i, 0)?, get(i + 1, len)?.min(len));
    if start > end {
        return Ok(None);
    }
    let part = s
        .chars()
        .skip(usize::try_from(start).unwrap_or(0))
        .take(usize::try_from(end - start).unwrap_or(0))
        .collect();
    Ok(Some((part, start)))
}

fn find(s: &str, b: &Bound, right: bool) -> Res<i64> {
    let what = b.str(0)?;
    let Some((part, off)) = sub(s, b, 1)? else {
        return Ok(-1);
    };
    let hit = if right {
        part.rfind(&what)
    } else {
        part.find(&what)
    };
    Ok(match hit.and_then(|i| part.get(..i)) {
        Some(head) => off + char_len(head),
        None => -1,
    })
}

fn affix(s: &str, b: &Bound, end: bool) -> Res<bool> {
    let v = b.val(0);
    let options = match ty(&v) {
        Ty::Str => vec![v],
        Ty::Tuple => items_of(&v)?,
        Ty::Undefined => return undefined(),
        _ => return err("first arg must be str or a tuple of str"),
    };
    let Some((part, _)) = sub(s, b, 1)? else {
        return Ok(false);
    };
    for o in options {
        let Some(o) = o.as_str() else {
            return err("tuple must contain only strings");
        };
        if (end && part.ends_with(o)) || (!end && part.starts_with(o)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn fill_of(b: &Bound, i: usize) -> Res<char> {
    let s = b.str_or(i, " ")?;
    let mut it = s.chars();
    match (it.next(), it.next()) {
        (Some(c), None) => Ok(c),
        _ => err("The fill character must be exactly one character long"),
    }
}

fn digits(s: &str, numeric: bool) -> Res<bool> {
    let mut all = !s.is_empty();
    for c in s.chars() {
        if c.is_ascii_digit() {
            continue;
        }
        if !c.is_ascii() && (c.is_numeric() || (numeric && c.is_alphabetic())) {
            return err("digit test of a non-ASCII character is not supported");
        }
        all = false;
    }
    Ok(all)
}

fn str_method(v: &Value, name: &str, a: &[Value]) -> Res<Value> {
    let s = v.as_str().unwrap_or_default();
    let none = || bind(a, &[], 0);
    match name {
        "upper" => none().and_then(|_| text(s.to_uppercase())),
        "lower" => none().and_then(|_| text(s.to_lowercase())),
        "casefold" => {
            none()?;
            if !s.is_ascii() {
                return err("casefold of non-ASCII text is not supported");
            }
            text(s.to_lowercase())
        }
        "title" => none().and_then(|_| text(title_method(s))),
        "capitalize" => none().and_then(|_| text(capitalize(s))),
        "swapcase" => {
            none()?;
            let mut rv = String::new();
            for c in s.chars() {
                if c.is_uppercase() {
                    rv.extend(c.to_lowercase());
                } else {
                    rv.extend(c.to_uppercase());
                }
            }
            text(rv)
        }
        "strip" | "lstrip" | "rstrip" => {
            let b = bind(a, &["\0"], 0)?;
            let chars = match b.some(0) {
                Some(_) => Some(b.str(0)?),
                None => None,
            };
            text(strip(
                s,
                chars.as_deref(),
                name != "rstrip",
                name != "lstrip",
            ))
        }
        "split" | "rsplit" => {
            let b = bind(a, &["sep", "maxsplit"], 0)?;
            let sep = match b.some(0) {
                Some(_) => Some(b.str(0)?),
                None => None,
            };
            list_value(split(
                s,
                sep.as_deref(),
                b.int_or(1, -1)?,
                name == "rsplit",
            )?)
        }
        "splitlines" => {
            let b = bind(a, &["keepends"], 0)?;
            list_value(splitlines(s, b.bool_or(0, false)?))
        }
        "partition" | "rpartition" => {
            let b = bind(a, &["\0"], 1)?;
            let sep = b.str(0)?;
            if sep.is_empty() {
                return err("empty separator");
            }
            let parts = if name == "partition" {
                match s.split_once(&sep) {
                    Some((x, y)) => [x, sep.as_str(), y],
                    None => [s, "", ""],
                }
            } else {
                match s.rsplit_once(&sep) {
                    Some((x, y)) => [x, sep.as_str(), y],
                    None => ["", "", s],
                }
            };
            Ok(Value::from(Tuple::from(parts.map(Value::from))))
        }
        "replace" => {
            let b = bind(a, &["\0", "\0\0", "\0\0\0"], 2)?;
            text(replace(s, &b.str(0)?, &b.str(1)?, b.int_or(2, -1)?)?)
        }
        "removeprefix" => {
            let p = bind(a, &["\0"], 1)?.str(0)?;
            text(s.strip_prefix(&p).unwrap_or(s).to_string())
        }
        "removesuffix" => {
            let p = bind(a, &["\0"], 1)?.str(0)?;
            text(s.strip_suffix(&p).unwrap_or(s).to_string())
        }
        "find" | "rfind" | "index" | "rindex" => {
            let b = bind(a, &["\0", "\0\0", "\0\0\0"], 1)?;
            let i = find(s, &b, name.starts_with('r'))?;
            if i < 0 && name.ends_with("index") {
                return err("substring not found");
            }
            Ok(Value::from(i))
        }
        "count" => {
            let b = bind(a, &["\0", "\0\0", "\0\0\0"], 1)?;
            let what = b.str(0)?;
            Ok(Value::from(
                sub(s, &b, 1)?.map_or(0, |(p, _)| p.matches(&what).count()),
            ))
        }
        "startswith" | "endswith" => {
            let b = bind(a, &["\0", "\0\0", "\0\0\0"], 1)?;
            affix(s, &b, name == "endswith").map(Value::from)
        }
        "center" | "ljust" | "rjust" => {
            let b = bind(a, &["\0", "\0\0"], 1)?;
            let (w, c) = (b.int_or(0, 0)?, fill_of(&b, 1)?);
            let more = w.saturating_sub(char_len(s));
            text(match name {
                "center" => center(s, w, c)?,
                "ljust" => format!("{s}{}", pad(more, c)?),
                _ => format!("{}{s}", pad(more, c)?),
            })
        }
        "zfill" => {
            let w = bind(a, &["\0"], 1)?.int_or(0, 0)?;
            let zeros = pad(w.saturating_sub(char_len(s)), '0')?;
            let cut = usize::from(s.starts_with(['+', '-']));
            let (sign, rest) = s.split_at(cut);
            text(format!("{sign}{zeros}{rest}"))
        }
        "expandtabs" => {
            let n = bind(a, &["tabsize"], 0)?.int_or(0, 8)?;
            let mut rv = String::new();
            let mut col = 0i64;
            for c in s.chars() {
                match c {
                    '\t' if n > 0 => {
                        let k = n - col % n;
                        rv.push_str(&pad(k, ' ')?);
                        col += k;
                        check_len(&rv)?;
                    }
                    '\t' => {}
                    c => {
                        rv.push(c);
                        col = if matches!(c, '\n' | '\r') { 0 } else { col + 1 };
                    }
                }
            }
            text(rv)
        }
        "join" => {
            let b = bind(a, &["\0"], 1)?;
            let mut rv = String::new();
            for (i, item) in items_of(&b.val(0))?.iter().enumerate() {
                if i > 0 {
                    rv.push_str(s);
                }
                match item.as_str() {
                    Some(t) => rv.push_str(t),
                    None => {
                        return err(format!("expected str instance, {} found", type_name(item)));
                    }
                }
                check_len(&rv)?;
            }
            text(rv)
        }
        "format" => {
            if v.is_safe() {
                return err("format on a safe string is not supported");
            }
            let (pos, kw) = split_kwargs(a);
            text(str_format(s, &pos, &kw)?)
        }
        "isalpha" => none()
            .map(|_| !s.is_empty() && s.chars().all(char::is_alphabetic))
            .map(Value::from),
        "isalnum" => none()
            .map(|_| !s.is_empty() && s.chars().all(char::is_alphanumeric))
            .map(Value::from),
        "isascii" => none().map(|_| Value::from(s.is_ascii())),
        "isspace" => none().map(|_| Value::from(!s.is_empty() && s.chars().all(is_space))),
        "islower" => none().map(|_| Value::from(is_lower(s))),
        "isupper" => none().map(|_| Value::from(is_upper(s))),
        "isdigit" | "isdecimal" => none().and_then(|_| digits(s, false)).map(Value::from),
        "isnumeric" => none().and_then(|_| digits(s, true)).map(Value::from),
        "isprintable" => none().map(|_| Value::from(s.chars().all(printable))),
        "isidentifier" => {
            none()?;
            if !s.is_ascii() {
                return err("isidentifier of non-ASCII text is not supported");
            }
            let ok = s.chars().all(is_word) && !s.starts_with(|c: char| c.is_ascii_digit());
            Ok(Value::from(ok && !s.is_empty()))
        }
        "istitle" => {
            none()?;
            let (mut prev, mut any) = (false, false);
            for c in s.chars() {
                if (c.is_uppercase() && prev) || (c.is_lowercase() && !prev) {
                    return Ok(Value::from(false));
                }
                prev = is_cased(c);
                any |= prev;
            }
            Ok(Value::from(any))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn dict_method(v: &Value, name: &str, a: &[Value]) -> Res<Value> {
    let view = |name: &'static str, items: Vec<Value>| Value::from_object(View { name, items });
    match name {
        "items" => {
            bind(a, &[], 0)?;
            Ok(view("dict_items", tuples(pairs_of(v)?)))
        }
        "keys" => {
            bind(a, &[], 0)?;
            let keys = pairs_of(v)?.into_iter().map(|p| p.0).collect();
            Ok(view("dict_keys", keys))
        }
        "values" => {
            bind(a, &[], 0)?;
            let vals = pairs_of(v)?.into_iter().map(|p| p.1).collect();
            Ok(view("dict_values", vals))
        }
        "copy" => {
            bind(a, &[], 0)?;
            Ok(Value::from_pairs(pairs_of(v)?))
        }
        "get" => {
            let b = bind(a, &["\0", "\0\0"], 1)?;
            hash_key(&b.val(0), 0)?;
            let hit = v.as_object().and_then(|o| o.get_value(&b.val(0)));
            Ok(hit.unwrap_or_else(|| b.opt(1).cloned().unwrap_or(Value::from(()))))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn list_method(v: &Value, name: &str, a: &[Value]) -> Res<Value> {
    match name {
        "count" => {
            let b = bind(a, &["\0"], 1)?;
            let n = items_of(v)?.iter().filter(|x| **x == b.val(0)).count();
            Ok(Value::from(n))
        }
        "index" => {
            let b = bind(a, &["\0"], 1)?;
            match items_of(v)?.iter().position(|x| *x == b.val(0)) {
                Some(i) => Ok(Value::from(i)),
                None => err("value is not in list"),
            }
        }
        "copy" if ty(v) == Ty::List => {
            bind(a, &[], 0)?;
            Ok(Value::from(items_of(v)?))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Python methods of strings, dicts and lists.  Mutating methods are unknown:
/// minijinja values are immutable.
pub fn method(_: &mut State<'_, '_>, v: &Value, name: &str, args: &[Value]) -> Res<Value> {
    match ty(v) {
        Ty::Undefined => undefined(),
        Ty::Str => str_method(v, name, args),
        Ty::Dict => dict_method(v, name, args),
        Ty::List | Ty::Tuple | Ty::Range => list_method(v, name, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

// ---------------------------------------------------------------- functions

fn g_range(a: &[Value]) -> Res<Value> {
    let (pos, kw) = split_kwargs(a);
    if !kw.is_empty() {
        return err("range() takes no keyword arguments");
    }
    let mut n = Vec::new();
    for v in &pos {
        match int_of(v).and_then(|x| i64::try_from(x).ok()) {
            Some(x) => n.push(x),
            None if v.is_undefined() => return undefined(),
            None => return err("range() arguments must be integers"),
        }
    }
    let (start, stop, step) = match n.as_slice() {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] => (*start, *stop, *step),
        _ => return err("range expected 1 to 3 arguments"),
    };
    if step == 0 {
        return err("range() arg 3 must not be zero");
    }
    let (a, b, s) = (i128::from(start), i128::from(stop), i128::from(step));
    let span = if s > 0 { b - a } else { a - b };
    let len = if span <= 0 {
        0
    } else {
        (span + s.abs() - 1) / s.abs()
    };
    match usize::try_from(len) {
        Ok(len) if len <= MAX_ITEMS => Ok(Value::from_object(PyRange {
            start,
            stop,
            step,
            len,
        })),
        _ => too_large(),
    }
}

fn g_dict(a: &[Value]) -> Res<Value> {
    let (pos, kw) = split_kwargs(a);
    let mut pairs = match pos.as_slice() {
        [] => Vec::new(),
        [v] if ty(v) == Ty::Dict => pairs_of(v)?,
        [v] => {
            let mut rv = Vec::new();
            for item in items_of(v)? {
                match items_of(&item)?.as_slice() {
                    [k, v] => rv.push((k.clone(), v.clone())),
                    _ => return err("dictionary update sequence needs pairs"),
                }
            }
            rv
        }
        _ => return Err(Error::from(ErrorKind::TooManyArguments)),
    };
    pairs.extend(kw.into_iter().map(|(k, v)| (Value::from(k), v)));
    for (k, _) in &pairs {
        hash_key(k, 0)?;
    }
    Ok(Value::from_pairs(pairs))
}

fn g_cycler(a: &[Value]) -> Res<Value> {
    let (pos, kw) = split_kwargs(a);
    if pos.is_empty() || !kw.is_empty() {
        return err("at least one item has to be provided");
    }
    Ok(Value::from_object(Cycler {
        items: pos,
        pos: Mutex::new(0),
    }))
}

fn g_joiner(a: &[Value]) -> Res<Value> {
    let b = bind(a, &["sep"], 0)?;
    Ok(Value::from_object(Joiner {
        sep: b.opt(0).cloned().unwrap_or(Value::from(", ")),
        used: Mutex::new(false),
    }))
}

// ------------------------------------------------------------------ install

/// Installs everything.  Call once, before adding the project's own filters.
pub fn install(env: &mut Environment<'static>) {
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(method);
    env.set_formatter(|out, state, value| {
        if *state.auto_escape() != AutoEscape::None {
            return err("autoescape is not supported");
        }
        if is_silent(state, value) {
            return Ok(());
        }
        let text = str_of(value)?;
        let printed = state.get_or_insert_extension_with(|| Printed(0));
        printed.0 = printed.0.saturating_add(text.len());
        if printed.0 > MAX_PRINTED {
            return too_large();
        }
        out.write_str(&text).map_err(Error::from)
    });
    for name in NOT_STOCK_FILTERS {
        env.remove_filter(name);
    }
    for name in NOT_STOCK_TESTS {
        env.remove_test(name);
    }
    for &(name, f) in FILTERS {
        env.add_filter(
            name,
            move |st: &mut State<'_, '_>, a: Rest<ValueOrKwargs>| {
                let a = mark_silent(st, a);
                f(st, &a)
            },
        );
    }
    for &name in TESTS {
        env.add_test(name, move |st: &State<'_, '_>, a: Rest<ValueOrKwargs>| {
            test(name, &mark_silent(st, a))
        });
    }
    env.remove_global("debug");
    env.add_function("range", |a: Rest<ValueOrKwargs>| g_range(&a.into_values()));
    env.add_function("dict", |a: Rest<ValueOrKwargs>| g_dict(&a.into_values()));
    env.add_function("cycler", |a: Rest<ValueOrKwargs>| {
        g_cycler(&a.into_values())
    });
    env.add_function("joiner", |a: Rest<ValueOrKwargs>| {
        g_joiner(&a.into_values())
    });
}

/// Python's lexer view of the source: `\r\n` and `\r` become `\n` before
/// anything else.  Apply to every template before compiling it.
pub fn normalize_source(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

/// JSON to template value.  Integers stay integers up to 128 bits; beyond
/// that (only with serde_json's `arbitrary_precision`) they can be printed
/// but not computed with.
pub fn from_json(v: &serde_json::Value) -> Value {
    match v {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => Value::from(*b),
        serde_json::Value::String(s) => Value::from(s.as_str()),
        serde_json::Value::Number(n) => {
            if let Some(x) = n.as_i64() {
                return Value::from(x);
            }
            if let Some(x) = n.as_u64() {
                return Value::from(x);
            }
            let s = n.to_string();
            if s.contains(['.', 'e', 'E']) {
                return Value::from(n.as_f64().unwrap_or(f64::NAN));
            }
            match s.parse::<i128>() {
                Ok(x) => Value::from(x),
                Err(_) => Value::from_object(BigInt(s)),
            }
        }
        serde_json::Value::Array(a) => Value::from(a.iter().map(from_json).collect::<Vec<_>>()),
        serde_json::Value::Object(o) => {
            Value::from_pairs(o.iter().map(|(k, v)| (k.as_str(), from_json(v))))
        }
    }
}

// ------------------------------------------------------------ source checks

#[derive(Debug, Clone, PartialEq)]
enum Tok {
    Name(String),
    Op(char),
    Num,
    Str,
}

/// Refuses constructs which minijinja would render differently from Jinja2 and
/// which no run-time hook can reach.  Takes normalised source; errors name the
/// line.  The scan follows Jinja2's lexer and is linear.
pub fn check_source(src: &str) -> Res<()> {
    let c: Vec<char> = src.chars().collect();
    let at = |i: usize| c.get(i).copied();
    let mut open: Vec<String> = Vec::new();
    let mut elifs = 0usize;
    let mut line = 1usize;
    let mut i = 0;
    while let Some(ch) = at(i) {
        if ch == '\n' {
            line += 1;
        }
        let ('{', Some(kind @ ('{' | '%' | '#'))) = (ch, at(i + 1)) else {
            i += 1;
            continue;
        };
        i += 2;
        if kind == '#' {
            while at(i).is_some() && !(at(i) == Some('#') && at(i + 1) == Some('}')) {
                line += usize::from(at(i) == Some('\n'));
                i += 1;
            }
            i += 2;
            continue;
        }
        if matches!(at(i), Some('-' | '+')) {
            i += 1;
        }
        let tag_line = line;
        let mut toks: Vec<Tok> = Vec::new();
        let mut depth = 0usize;
        while let Some(ch) = at(i) {
            let end = if kind == '{' { '}' } else { '%' };
            let dash = ch == '-' || (ch == '+' && kind == '%');
            let e = if dash { i + 1 } else { i };
            if depth == 0 && at(e) == Some(end) && at(e + 1) == Some('}') {
                i = e + 2;
                break;
            }
            match ch {
                '\n' => {
                    line += 1;
                    i += 1;
                }
                '"' | '\'' => {
                    i += 1;
                    while let Some(s) = at(i) {
                        i += 1;
                        line += usize::from(s == '\n');
                        if s == ch {
                            break;
                        }
                        if s == '\\' {
                            let n = at(i).unwrap_or(' ');
                            if matches!(n, '/' | 'a' | 'v' | 'U' | 'N' | '4'..='7' | '\n') {
                                return Err(Error::new(
                                    ErrorKind::SyntaxError,
                                    format!("line {line}: the escape \\{n} is not supported"),
                                ));
                            }
                            line += usize::from(n == '\n');
                            i += 1;
                        }
                    }
                    toks.push(Tok::Str);
                }
                '(' | '[' | '{' => {
                    depth += 1;
                    toks.push(Tok::Op(ch));
                    i += 1;
                }
                ')' | ']' | '}' => {
                    depth = depth.saturating_sub(1);
                    toks.push(Tok::Op(ch));
                    i += 1;
                }
                ch if ch.is_whitespace() => i += 1,
                ch if ch.is_ascii_digit() => {
                    while at(i).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                        i += 1;
                    }
                    toks.push(Tok::Num);
                }
                ch if is_word(ch) => {
                    let mut name = String::new();
                    while let Some(c) = at(i).filter(|c| is_word(*c)) {
                        name.push(c);
                        i += 1;
                    }
                    toks.push(Tok::Name(name));
                }
                ch => {
                    toks.push(Tok::Op(ch));
                    i += 1;
                }
            }
        }
        let bad = |what: &str| {
            Err(Error::new(
                ErrorKind::SyntaxError,
                format!("line {tag_line}: {what}"),
            ))
        };
        if let Some(what) = bad_slice(&toks).or_else(|| too_complex(&toks)) {
            return bad(what);
        }
        if toks.windows(5).any(|w| {
            matches!(w, [Tok::Name(a), Tok::Op('.'), Tok::Name(b), Tok::Op('('), Tok::Op(')')]
                if a == "loop" && b == "cycle")
        }) {
            return bad("loop.cycle() needs arguments");
        }
        if kind != '%' {
            continue;
        }
        let Some(Tok::Name(tag)) = toks.first() else {
            continue;
        };
        match tag.as_str() {
            "raw" => {
                // skip to the matching endraw
                while at(i).is_some() {
                    if at(i) == Some('{') && at(i + 1) == Some('%') {
                        let mut j = i + 2;
                        while at(j).is_some_and(|c| c.is_whitespace() || c == '-' || c == '+') {
                            j += 1;
                        }
                        let word: String = c.iter().skip(j).take(6).collect();
                        if word == "endraw" {
                            break;
                        }
                    }
                    line += usize::from(at(i) == Some('\n'));
                    i += 1;
                }
            }
            "extends" | "include" | "import" | "from" => {
                return bad("extends, include and import need other files: not supported");
            }
            "autoescape" => return bad("autoescape is not supported"),
            "macro" => {
                if let Some(what) = bad_macro(&toks) {
                    return bad(what);
                }
                open.push(tag.clone());
            }
            "for" | "filter" | "call" | "with" | "if" => {
                if open.len() >= MAX_OPEN_TAGS {
                    return bad("tags are nested too deeply");
                }
                open.push(tag.clone());
            }
            "elif" => {
                open.push(tag.clone());
                elifs += 1;
                if elifs > MAX_ELIFS {
                    return bad("too many elif branches");
                }
            }
            "set" if open.iter().any(|t| t == "filter") => {
                return bad("set inside filter is not supported");
            }
            "block" if !open.is_empty() => {
                return bad("block inside another tag is not supported");
            }
            t if t.starts_with("end") && t != "endset" && t != "endblock" && t != "endraw" => {
                while open.last().is_some_and(|t| t == "elif") {
                    open.pop();
                    elifs = elifs.saturating_sub(1);
                }
                open.pop();
            }
            _ => {}
        }
    }
    Ok(())
}

/// minijinja parses and compiles operator chains recursively without a limit:
/// a few thousand of them overflow the stack and abort the process.
const MAX_CHAIN: usize = 600;
/// `elif` branches of all open `if`s together (each one is a recursion).
const MAX_ELIFS: usize = 200;
const MAX_OPEN_TAGS: usize = 400;

fn too_complex(toks: &[Tok]) -> Option<&'static str> {
    // tokens since the last comma, for each open bracket, and their sum
    let mut frames = vec![0usize];
    let mut total = 0usize;
    for t in toks {
        match t {
            Tok::Op(',') => {
                if let Some(n) = frames.last_mut() {
                    total = total.saturating_sub(*n);
                    *n = 0;
                }
            }
            Tok::Op(')' | ']' | '}') => {
                if frames.len() > 1 {
                    total = total.saturating_sub(frames.pop().unwrap_or(0));
                }
            }
            t => {
                if let Some(n) = frames.last_mut() {
                    *n += 1;
                }
                total += 1;
                if matches!(t, Tok::Op('(' | '[' | '{')) {
                    frames.push(0);
                }
            }
        }
        if total > MAX_CHAIN {
            return Some("the expression is too complex");
        }
    }
    None
}

/// Slices with a negative step and bounds are wrong (and overflow) in
/// minijinja 3.0; `[::-1]` is right.
fn bad_slice(toks: &[Tok]) -> Option<&'static str> {
    struct Frame {
        subscript: bool,
        colons: usize,
        bounds: bool,
        step: usize,
        negative: bool,
    }
    let mut stack: Vec<Frame> = Vec::new();
    let mut prev: Option<&Tok> = None;
    for t in toks {
        match t {
            Tok::Op('(' | '[' | '{') => {
                let value = matches!(
                    prev,
                    Some(Tok::Name(_) | Tok::Str | Tok::Num | Tok::Op(')' | ']' | '}'))
                );
                if let Some(f) = stack.last_mut() {
                    f.bounds |= f.colons < 2;
                    f.step += usize::from(f.colons >= 2);
                }
                stack.push(Frame {
                    subscript: *t == Tok::Op('[') && value,
                    colons: 0,
                    bounds: false,
                    step: 0,
                    negative: false,
                });
            }
            Tok::Op(')' | ']' | '}') => {
                if let Some(f) = stack.pop() {
                    // the step is a plain positive number, or unbounded -1
                    let plain = f.step == 1 && !f.negative;
                    if f.subscript && f.colons == 2 && f.step > 0 && f.bounds && !plain {
                        return Some("slices with bounds and a negative step are not supported");
                    }
                }
            }
            Tok::Op(':') => {
                if let Some(f) = stack.last_mut() {
                    f.colons += 1;
                }
            }
            other => {
                if let Some(f) = stack.last_mut() {
                    if f.colons < 2 {
                        f.bounds = true;
                    } else {
                        f.step += 1;
                        f.negative |= !matches!(other, Tok::Num);
                    }
                }
            }
        }
        prev = Some(t);
    }
    None
}

/// A macro default which names a parameter sees the outer variable instead.
fn bad_macro(toks: &[Tok]) -> Option<&'static str> {
    let mut depth = 0usize;
    let mut params: Vec<&str> = Vec::new();
    let mut used: Vec<&str> = Vec::new();
    let mut prev = &Tok::Num;
    for t in toks.iter().skip(2) {
        match t {
            Tok::Op('(' | '[' | '{') => depth += 1,
            Tok::Op(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Tok::Name(n) => {
                let param = depth == 1 && matches!(prev, Tok::Op('(' | ','));
                if param {
                    params.push(n);
                } else if *prev != Tok::Op('.') && *prev != Tok::Op('|') {
                    used.push(n);
                }
            }
            _ => {}
        }
        prev = t;
    }
    if used.iter().any(|n| params.contains(n)) {
        return Some("a macro default may not name a parameter");
    }
    None
}
