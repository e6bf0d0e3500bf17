//! Arguments by place and by name, bound as Python binds them.

use super::*;

/// Splits off keyword arguments.
pub(super) fn split_kwargs(args: &[Value]) -> (Vec<Value>, Vec<(String, Value)>) {
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
pub(super) struct Bound {
    values: Vec<Option<Value>>,
}

pub(super) fn bind(args: &[Value], names: &[&str], required: usize) -> Res<Bound> {
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
    pub(super) fn opt(&self, i: usize) -> Option<&Value> {
        self.values.get(i).and_then(|v| v.as_ref())
    }
    /// The argument, with `None` counted as absent.
    pub(super) fn some(&self, i: usize) -> Option<&Value> {
        self.opt(i).filter(|v| !v.is_none())
    }
    pub(super) fn val(&self, i: usize) -> Value {
        self.opt(i).cloned().unwrap_or_default()
    }
    /// Exactly a string.
    pub(super) fn str(&self, i: usize) -> Res<String> {
        let v = self.val(i);
        match ty(&v) {
            Ty::Str => str_of(&v),
            Ty::Undefined | Ty::Silent => undefined(),
            _ => err(format!("expected str, got {}", type_name(&v))),
        }
    }
    pub(super) fn str_or(&self, i: usize, default: &str) -> Res<String> {
        match self.opt(i) {
            Some(_) => self.str(i),
            None => Ok(default.to_string()),
        }
    }
    pub(super) fn int_or(&self, i: usize, default: i64) -> Res<i64> {
        match self.opt(i) {
            None => Ok(default),
            Some(v) if v.is_undefined() => undefined(),
            Some(v) => match int_of(v).and_then(|x| i64::try_from(x).ok()) {
                Some(x) => Ok(x),
                None => err(format!("expected int, got {}", type_name(v))),
            },
        }
    }
    pub(super) fn bool_or(&self, i: usize, default: bool) -> Res<bool> {
        self.opt(i).map_or(Ok(default), truth)
    }
}
