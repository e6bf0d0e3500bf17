//! Makes minijinja 3.x behave like stock Python Jinja2 3.1
//! (`Environment(undefined=StrictUndefined)`, autoescape off).
//!
//! Principle: where the two engines cannot be made equal, the result is an
//! error rather than other bytes. Everything here is panic-free, and pays for
//! what it reads and makes (`meter.rs`), so that a rendering is bounded.
//!
//! One room for each thing that Jinja2 has: what is shared stands here and in `python`, `arguments` and `strings`, and
//! every room sees all of it, as they are parts of one language.
//!
//! Use: `install(&mut env)` once; per template `normalize_source`, then
//! `check_source`, then `compile` that normalised text, and evaluate under an
//! open `Meter`.

mod arguments;
mod check;
mod collection_filters;
mod filters;
mod format;
mod jinja_tests;
mod meter;
mod methods;
mod number_filters;
mod operators;
mod output_filters;
mod python;
mod rewrite;
mod strings;
mod text_filters;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use minijinja::value::{
    Enumerator, Object, ObjectRepr, Rest, StringInput, Tuple, ValueKind, ValueOrKwargs,
};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

use arguments::*;
pub(super) use check::check_source;
use collection_filters::*;
use filters::*;
use format::*;
use jinja_tests::*;
pub use meter::Expired;
pub(super) use meter::{MEMORY, Meter, TIME};
use meter::{spend, spend_items};
use methods::*;
use number_filters::*;
use output_filters::*;
pub(super) use python::str_of;
use python::*;
pub(super) use rewrite::{Program, compile};
use strings::*;
use text_filters::*;

/// Longest string any filter, method or print may produce (bytes).
pub const MAX_TEXT: usize = 4 * 1024 * 1024;
/// Longest list any filter may produce or consume.
pub const MAX_ITEMS: usize = 100_000;
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

/// The value, or the stand-in of a lenient undefined.
fn marked(state: &State<'_, '_>, v: &Value) -> Value {
    if is_silent(state, v) {
        Value::from_object(Silent)
    } else {
        v.clone()
    }
}

/// Replaces lenient undefined arguments by their stand-in.
fn mark_silent(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Vec<Value> {
    let mut args = args.into_values();
    for v in args.iter_mut() {
        *v = marked(state, v);
    }
    args
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
        // What stands between the tags comes here too, and there is the most of it: no copy.
        if let (Ty::Str, Some(text)) = (ty(value), value.as_str()) {
            spend(text.len())?;
            return out.write_str(text).map_err(Error::from);
        }
        let text = str_of(value)?;
        spend(text.len())?;
        out.write_str(&text).map_err(Error::from)
    });
    operators::install(env);
    for name in NOT_STOCK_FILTERS {
        env.remove_filter(name);
    }
    for name in NOT_STOCK_TESTS {
        env.remove_test(name);
    }
    for &(name, f) in FILTERS {
        let keeps = KEEP_SAFE.contains(&name);
        env.add_filter(
            name,
            move |st: &mut State<'_, '_>, a: Rest<ValueOrKwargs>| {
                spend(0)?;
                let a = mark_silent(st, a);
                let result = f(st, &a)?;
                Ok::<Value, Error>(match (a.first(), result.as_str()) {
                    (Some(of), Some(s)) if keeps && of.is_safe() && !result.is_safe() => {
                        as_safe_as(of, s.to_owned())
                    }
                    _ => result,
                })
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
