//! Filters on lists and mappings.

use super::*;

pub(super) fn f_default(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "default_value", "boolean"], 1)?;
    let v = b.val(0);
    let default = || b.opt(1).cloned().unwrap_or(Value::from(""));
    if matches!(ty(&v), Ty::Undefined | Ty::Silent) || (b.bool_or(2, false)? && !v.is_true()) {
        Ok(default())
    } else {
        Ok(v)
    }
}

pub(super) fn f_attr(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
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

pub(super) fn f_items(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value"], 1)?;
    let v = b.val(0);
    if matches!(ty(&v), Ty::Undefined | Ty::Silent) {
        return Ok(Gen::value(Vec::new()));
    }
    Ok(Gen::value(tuples(pairs_of(&v)?)))
}

pub(super) fn tuples(pairs: Vec<(Value, Value)>) -> Vec<Value> {
    pairs
        .into_iter()
        .map(|(k, v)| Value::from(Tuple::from([k, v])))
        .collect()
}

pub(super) fn f_dictsort(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
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

pub(super) fn f_sort(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
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

pub(super) fn f_unique(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
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

pub(super) fn min_max(a: &[Value], want: Ordering) -> Res<Value> {
    let b = bind(a, &["value", "case_sensitive", "attribute"], 1)?;
    let case = b.bool_or(1, false)?;
    let path = attr_path(&b.some(2).cloned().unwrap_or(Value::from(())))?;
    let mut best: Option<(Value, Value)> = None;
    for item in items_of(&b.val(0))? {
        let key = key_of(&item, &path, case, None)?;
        let better = match &best {
            Some((k, _)) => py_cmp(&key, k, 0)? == Some(want),
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|b| b.1).unwrap_or_default())
}

pub(super) fn f_min(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    min_max(a, Ordering::Less)
}

pub(super) fn f_max(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    min_max(a, Ordering::Greater)
}

pub(super) fn f_sum(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
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

pub(super) fn f_batch(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
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

pub(super) fn f_slice(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "slices", "fill_with"], 2)?;
    let seq = items_of(&b.val(0))?;
    let n = match usize::try_from(b.int_or(1, 0)?) {
        Ok(n) if n > 0 && n <= MAX_ITEMS => n,
        Ok(0) => return err("integer division or modulo by zero"),
        Ok(_) => return too_large(),
        Err(_) => return Ok(Gen::value(Vec::new())),
    };
    spend_items(n)?;
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

pub(super) fn f_map(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let (pos, kw) = split_kwargs(a);
    let Some(v) = pos.first() else {
        return Err(Error::from(ErrorKind::MissingArgument));
    };
    // What is false is nothing to map, also where it cannot be iterated.
    if !truth(v)? {
        return Ok(Gen::value(Vec::new()));
    }
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

pub(super) fn select(st: &mut State<'_, '_>, a: &[Value], attr: bool, keep: bool) -> Res<Value> {
    let (pos, _) = split_kwargs(a);
    let Some(v) = pos.first() else {
        return Err(Error::from(ErrorKind::MissingArgument));
    };
    if !truth(v)? {
        return Ok(Gen::value(Vec::new()));
    }
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

pub(super) fn f_select(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    select(st, a, false, true)
}

pub(super) fn f_reject(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    select(st, a, false, false)
}

pub(super) fn f_selectattr(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    select(st, a, true, true)
}

pub(super) fn f_rejectattr(st: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    select(st, a, true, false)
}

pub(super) fn f_groupby(_: &mut State<'_, '_>, a: &[Value]) -> Res<Value> {
    let b = bind(a, &["value", "attribute", "default", "case_sensitive"], 2)?;
    let path = attr_path(&b.val(1))?;
    let default = b.some(2);
    let case = b.bool_or(3, false)?;
    let mut rows = Vec::new();
    for item in items_of(&b.val(0))? {
        rows.push((key_of(&item, &path, case, default)?, item));
    }
    py_sort(&mut rows, false, |r| &r.0)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (k, item) in rows {
        match groups.last_mut() {
            Some((last, items)) if py_eq(last, &k, 0)? => items.push(item),
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
