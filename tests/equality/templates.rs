//! A grammar of templates as Proton bundles have them, and of data for them.

use serde_json::{Map, Value, json};

use crate::choices::Choices;

/// The type that an expression is meant to have. Now and then another one is taken: errors must be equal too.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Str,
    Int,
    Float,
    Bool,
    Strs,
    Nums,
    Rows,
    Dict,
    Any,
}

const KINDS: &[Kind] = &[
    Kind::Str,
    Kind::Int,
    Kind::Float,
    Kind::Bool,
    Kind::Strs,
    Kind::Nums,
    Kind::Rows,
    Kind::Dict,
];

const TEXTS: &[&str] = &[
    "a",
    "",
    "orders",
    "Front-End",
    "a b",
    "x=1;y=2",
    "a,b,,c",
    " pad ",
    "ünï ß",
    "日本",
    "it's",
    "say \"hi\"",
    "10",
    "-7",
    "3.50",
    "1e3",
    "True",
    "arn:aws:iam::000000000001:policy/p",
    "a-rather-long-service-name-0123",
    "A_b.c/d",
    "<b>&amp;",
    "two\nlines",
    "tab\there",
    "\\d+",
    "{{",
    "}}",
    "#",
    "%",
    "ǅ",
    "İI",
    "e\u{301}",
    "a\r\nb",
    "100%",
    "0x1f",
    "  ",
    "the quick brown fox jumps over the lazy dog",
    "nbsp\u{a0}x",
    "\u{1f600}",
];

fn words<'a>(c: &mut Choices) -> &'a str {
    c.of(TEXTS)
}

/// Returns a template and its namespaces.
pub fn generate(c: &mut Choices) -> (String, Value) {
    let data = data(c);
    let mut t = Writer {
        c,
        out: String::new(),
        names: Vec::new(),
        loops: 0,
        macros: 0,
    };
    let parts = 1 + t.c.below(5);
    for _ in 0..parts {
        t.statement(3);
    }
    let end = t.c.below(4);
    t.out.push_str(["", "\n", "\n\n", "\r\n"][end as usize]);
    (t.out, data)
}

fn number(c: &mut Choices) -> Value {
    match c.below(12) {
        0 => json!(80),
        1 => json!(0),
        2 => json!(1),
        3 => json!(-3),
        4 => json!(2.5),
        5 => json!(1e17),
        6 => json!(0.00001),
        7 => json!(1.0),
        8 => json!(9_007_199_254_740_993i64),
        9 => json!(u64::MAX),
        10 => json!(i64::MIN),
        _ => json!(c.below(1000)),
    }
}

fn scalar(c: &mut Choices) -> Value {
    match c.below(5) {
        0 => json!(words(c)),
        1 => number(c),
        2 => json!(c.below(2) == 0),
        3 => Value::Null,
        _ => json!(words(c)),
    }
}

fn texts(c: &mut Choices) -> Vec<Value> {
    (0..c.below(4)).map(|_| json!(words(c))).collect()
}

fn mapping(c: &mut Choices) -> Value {
    let mut map = Map::new();
    for _ in 0..c.below(4) {
        let key = c.of(&["A", "b", "My_Key", "k-1", "yes", "Z"]);
        let value = json!(words(c));
        map.insert(key.to_owned(), value);
    }
    Value::Object(map)
}

fn rows(c: &mut Choices) -> Value {
    (0..c.below(4))
        .map(|_| {
            json!({ "name": words(c), "port": c.below(4) * 40, "on": c.below(2) == 0, "tags": texts(c) })
        })
        .collect()
}

fn inputs(c: &mut Choices) -> Value {
    json!({
        "s": words(c), "t": words(c), "i": number(c), "n": c.below(100), "f": 2.75, "flag": c.below(2) == 0, "none": null,
        "list": texts(c), "nums": (0..c.below(4)).map(|_| number(c)).collect::<Vec<_>>(), "rows": rows(c),
        "map": mapping(c), "any": scalar(c),
    })
}

fn data(c: &mut Choices) -> Value {
    let environment =
        json!({ "name": words(c), "account_id": "000000000001", "outputs": mapping(c) });
    let instances: Vec<Value> = (0..c.below(3))
        .map(|i| json!({ "name": format!("i{i}"), "inputs": inputs(c), "outputs": mapping(c), "environment": environment }))
        .collect();
    json!({
        "environment": environment,
        "service": { "name": words(c), "repository_id": "acme/app", "branch_name": "main" },
        "service_instance": { "name": words(c), "inputs": inputs(c), "components": { "default": { "outputs": mapping(c) } } },
        "service_instances": instances,
    })
}

struct Writer<'a> {
    c: &'a mut Choices,
    out: String,
    names: Vec<(String, Kind)>,
    loops: u32,
    macros: u32,
}

impl Writer<'_> {
    fn raw(&mut self) {
        let text = self.c.of(&[
            "key: ",
            "\n",
            "  - ",
            "Resources:\n  A:\n",
            " # comment\n",
            "\t",
            "'",
            "\"",
            "{ ",
            "}",
            "{a",
            "%",
            "{\n",
            "#}",
            "text ",
            "!Ref X\n",
            "\r\n",
            "  \n",
            "-",
            "ü",
            "\n\n\n",
            "}}",
            "%}",
            "\\",
            "\u{a0}",
        ]);
        self.out.push_str(text);
    }

    /// An opening or closing delimiter, with or without whitespace control.
    fn open(&mut self, kind: &str) {
        let control = self.c.of(&["", "", "", "-", "-", "+"]);
        // `{{+` is not in the grammar of every version: the sign would be taken for an operator.
        let control = if kind == "{{" && control == "+" {
            ""
        } else {
            control
        };
        self.out.push_str(kind);
        self.out.push_str(control);
        self.out.push(' ');
    }

    fn close(&mut self, kind: &str) {
        let control = self.c.of(&["", "", "", "-", "-"]);
        self.out.push(' ');
        self.out.push_str(control);
        self.out.push_str(kind);
    }

    fn tag(&mut self, text: &str) {
        self.open("{%");
        self.out.push_str(text);
        self.close("%}");
    }

    fn body(&mut self, depth: u32) {
        let before = self.names.len();
        for _ in 0..=self.c.below(3) {
            self.statement(depth.saturating_sub(1));
        }
        self.names.truncate(before);
    }

    fn name(&mut self) -> String {
        self.c.of(&["x", "y", "env_var", "port", "i"]).to_owned()
    }

    fn statement(&mut self, depth: u32) {
        let choice = if depth == 0 {
            self.c.below(8)
        } else {
            self.c.below(24)
        };
        match choice {
            0 => self.raw(),
            1..=6 => {
                let kind = *self.c.of(&KINDS.iter().collect::<Vec<_>>());
                let e = self.expr(kind, 3);
                self.open("{{");
                self.out.push_str(&e);
                self.close("}}");
            }
            7 => self.raw(),
            8..=10 => {
                let test = self.expr(Kind::Bool, 2);
                self.tag(&format!("if {test}"));
                self.body(depth);
                if self.c.below(3) == 1 {
                    let other = self.expr(Kind::Bool, 2);
                    self.tag(&format!("elif {other}"));
                    self.body(depth);
                }
                if self.c.below(2) == 1 {
                    self.tag("else");
                    self.body(depth);
                }
                self.tag("endif");
            }
            11..=14 => self.for_loop(depth),
            15..=17 => self.set(),
            18 => {
                let name = self.name();
                let filter = self
                    .c
                    .of(&["", "", " | trim", " | upper", " | replace('a', 'b')"]);
                self.tag(&format!("set {name}{filter}"));
                self.body(depth);
                self.tag("endset");
                self.names.push((name, Kind::Str));
            }
            19 => {
                let (name, value) = (self.name(), self.expr(Kind::Str, 2));
                self.tag(&format!("with {name} = {value}"));
                let before = self.names.len();
                self.names.push((name, Kind::Str));
                self.body(depth);
                self.names.truncate(before);
                self.tag("endwith");
            }
            20 => {
                let filter = self.c.of(&[
                    "upper",
                    "indent(2)",
                    "trim",
                    "replace('a', 'bb')",
                    "indent(4, true)",
                ]);
                self.tag(&format!("filter {filter}"));
                self.body(depth);
                self.tag("endfilter");
            }
            21 => {
                self.macros += 1;
                let name = format!("m{}", self.macros);
                let default = self.c.of(&["'d'", "2", "none", "[]"]);
                self.tag(&format!("macro {name}(a, b={default})"));
                let before = std::mem::take(&mut self.names);
                self.names.push(("a".into(), Kind::Str));
                self.names.push(("b".into(), Kind::Any));
                self.body(depth);
                self.names = before;
                self.tag("endmacro");
                let value = self.expr(Kind::Str, 1);
                let call = match self.c.below(4) {
                    0 => format!("{name}({value})"),
                    1 => format!("{name}({value}, 3)"),
                    2 => format!("{name}({value}, b='q') | trim"),
                    _ => format!("{name}(a={value}) | length"),
                };
                self.open("{{");
                self.out.push_str(&call);
                self.close("}}");
            }
            22 => {
                let text = self.c.of(&[
                    "{{ x }}",
                    "{{resolve:ssm:x}}",
                    "{% if %}",
                    "\n  a\n",
                    "{# no #}",
                ]);
                self.tag("raw");
                self.out.push_str(text);
                self.tag("endraw");
            }
            _ => {
                let text = self
                    .c
                    .of(&["{# note #}", "{#- note -#}", "{# {{ x }} \n #}\n"]);
                self.out.push_str(text);
            }
        }
    }

    fn for_loop(&mut self, depth: u32) {
        let before = self.names.len();
        let head = match self.c.below(9) {
            0 => {
                let e = self.expr(Kind::Strs, 2);
                self.names.push(("v".into(), Kind::Str));
                format!("for v in {e}")
            }
            1 => {
                let e = self.expr(Kind::Nums, 2);
                self.names.push(("n".into(), Kind::Any));
                format!("for n in {e}")
            }
            2 => {
                let e = self.expr(Kind::Dict, 1);
                self.names.push(("k".into(), Kind::Str));
                self.names.push(("v".into(), Kind::Str));
                let how = self.c.of(&[".items()", " | dictsort", " | items"]);
                format!("for k, v in ({e}){how}")
            }
            3 => {
                let e = self.expr(Kind::Rows, 1);
                let filter = self
                    .c
                    .of(&["", " if row.on", " if row.port > 40", " if row.name"]);
                self.names.push(("row.name".into(), Kind::Str));
                self.names.push(("row.port".into(), Kind::Int));
                self.names.push(("row.tags".into(), Kind::Strs));
                format!("for row in {e}{filter}")
            }
            4 => {
                let prefix = "service_instance";
                self.names.push((format!("{prefix}.name"), Kind::Str));
                self.names.push((format!("{prefix}.inputs.n"), Kind::Int));
                self.names.push((format!("{prefix}.outputs"), Kind::Dict));
                "for service_instance in service_instances".into()
            }
            5 => {
                let e = self.expr(Kind::Str, 1);
                self.names.push(("ch".into(), Kind::Str));
                format!("for ch in {e}")
            }
            6 => {
                self.names.push(("n".into(), Kind::Int));
                let (a, b) = (self.c.below(5), self.c.below(5));
                format!("for n in range({a}, {b})")
            }
            7 => {
                let e = self.expr(Kind::Rows, 1);
                self.names.push(("g.grouper".into(), Kind::Any));
                self.names.push(("g.list".into(), Kind::Rows));
                let by = self.c.of(&["port", "on", "name"]);
                format!("for g in {e} | groupby('{by}')")
            }
            _ => {
                let e = self.expr(Kind::Dict, 1);
                self.names.push(("k".into(), Kind::Str));
                format!("for k in {e}")
            }
        };
        for name in [
            "index",
            "index0",
            "length",
            "revindex",
            "revindex0",
            "depth",
        ] {
            self.names.push((format!("loop.{name}"), Kind::Int));
        }
        for name in ["first", "last"] {
            self.names.push((format!("loop.{name}"), Kind::Bool));
        }
        self.names.push(("loop.cycle('p', 'q')".into(), Kind::Str));
        self.names
            .push(("(loop.previtem | default('-'))".into(), Kind::Any));
        self.names
            .push(("(loop.nextitem is defined)".into(), Kind::Bool));
        self.loops += 1;
        self.tag(&head);
        self.body(depth);
        self.names.truncate(before);
        if self.c.below(4) == 3 {
            self.tag("else");
            self.body(depth);
        }
        self.tag("endfor");
        self.loops -= 1;
    }

    fn set(&mut self) {
        match self.c.below(6) {
            0..=2 => {
                let kind = *self.c.of(&KINDS.iter().collect::<Vec<_>>());
                let (name, value) = (self.name(), self.expr(kind, 2));
                self.tag(&format!("set {name} = {value}"));
                self.names.push((name, kind));
            }
            3 => {
                let value = self.expr(Kind::Str, 1);
                let sep = self.c.of(&["=", ",", ";", "-", " "]);
                let how = self.c.of(&[
                    ".partition('S')[::2]",
                    ".rpartition('S')[::2]",
                    ".partition('S')[1:]",
                ]);
                self.tag(&format!("set k, v = ({value}){}", how.replace('S', sep)));
                self.names.push(("k".into(), Kind::Str));
                self.names.push(("v".into(), Kind::Str));
            }
            4 => {
                let (a, b) = (self.expr(Kind::Str, 1), self.expr(Kind::Int, 1));
                self.tag(&format!("set a, b = {a}, {b}"));
                self.names.push(("a".into(), Kind::Str));
                self.names.push(("b".into(), Kind::Int));
            }
            _ => {
                let value = self.expr(Kind::Int, 1);
                self.tag(&format!("set ns = namespace(n={value}, s='')"));
                self.names.push(("ns.n".into(), Kind::Int));
                self.names.push(("ns.s".into(), Kind::Str));
                let more = self.expr(Kind::Str, 1);
                self.tag(&format!("set ns.s = ns.s ~ {more}"));
            }
        }
    }

    /// A literal text as a template writes it.
    fn quoted(&mut self) -> String {
        let text = words(self.c);
        let quote = if self.c.below(2) == 0 { '\'' } else { '"' };
        let mut out = String::from(quote);
        for ch in text.chars() {
            match ch {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                ch if ch == quote => {
                    out.push('\\');
                    out.push(ch);
                }
                ch => out.push(ch),
            }
        }
        out.push(quote);
        out
    }

    fn known(&mut self, kind: Kind) -> Option<String> {
        // What may be anything mostly stands where anything can stand.
        let any = kind == Kind::Str && self.c.below(4) == 0 || self.c.one_in(40);
        let fitting: Vec<&str> = self
            .names
            .iter()
            .filter(|(_, k)| *k == kind || any && *k == Kind::Any)
            .map(|(n, _)| n.as_str())
            .collect();
        if fitting.is_empty() || self.c.below(3) == 0 {
            return None;
        }
        Some(self.c.of(&fitting).to_owned())
    }

    fn path(&mut self, names: &[&str]) -> String {
        let name = self.c.of(names);
        format!("service_instance.inputs.{name}")
    }

    fn expr(&mut self, kind: Kind, depth: u32) -> String {
        // Something of another type, or missing.
        if self.c.one_in(150) {
            let other = *self.c.of(&KINDS.iter().collect::<Vec<_>>());
            return self.expr(other, depth.saturating_sub(1));
        }
        if self.c.one_in(300) {
            return self
                .c
                .of(&[
                    "missing",
                    "service.nothing",
                    "environment.outputs.A",
                    "service_instance.inputs['k-1']",
                    "(1 if false)",
                ])
                .to_owned();
        }
        if depth == 0 {
            return self.leaf(kind);
        }
        if self.c.one_in(12) {
            let (test, a, b) = (
                self.expr(Kind::Bool, depth - 1),
                self.expr(kind, depth - 1),
                self.expr(kind, depth - 1),
            );
            return format!("({a} if {test} else {b})");
        }
        if self.c.one_in(20) {
            let (a, b) = (self.expr(kind, depth - 1), self.expr(kind, depth - 1));
            return format!("({a} {} {b})", self.c.of(&["or", "and"]));
        }
        if self.c.one_in(16) {
            let (a, b) = (self.expr(kind, depth - 1), self.leaf(kind));
            return format!("({a} | default({b}{}))", self.c.of(&["", ", true"]));
        }
        match kind {
            Kind::Str => self.text(depth),
            Kind::Int | Kind::Float => self.number(kind, depth),
            Kind::Bool => self.truth(depth),
            Kind::Strs | Kind::Nums | Kind::Rows => self.list(kind, depth),
            Kind::Dict => self.dict(depth),
            Kind::Any => self.leaf(kind),
        }
    }

    fn leaf(&mut self, kind: Kind) -> String {
        if let Some(name) = self.known(kind) {
            return name;
        }
        match kind {
            Kind::Str => match self.c.below(4) {
                0 => self.quoted(),
                1 => self
                    .c
                    .of(&[
                        "service.name",
                        "service_instance.name",
                        "environment.name",
                        "service.branch_name",
                    ])
                    .to_owned(),
                _ => self.path(&["s", "t"]),
            },
            Kind::Int => match self.c.below(3) {
                0 => self
                    .c
                    .of(&[
                        "1", "0", "2", "3", "-1", "10", "80", "7", "1_000", "0x1F", "true",
                    ])
                    .to_owned(),
                _ => self.path(&["n", "i"]),
            },
            Kind::Float => match self.c.below(3) {
                0 => self
                    .c
                    .of(&[
                        "1.5", "0.1", "2.0", "-0.5", "1e3", "1e-7", "3.14159", "1.5e17",
                    ])
                    .to_owned(),
                _ => self.path(&["f", "i"]),
            },
            Kind::Bool => match self.c.below(3) {
                0 => self
                    .c
                    .of(&["true", "false", "True", "False", "none"])
                    .to_owned(),
                _ => self.path(&["flag", "any"]),
            },
            Kind::Strs => match self.c.below(3) {
                0 => {
                    let items: Vec<String> = (0..self.c.below(4)).map(|_| self.quoted()).collect();
                    format!("[{}]", items.join(", "))
                }
                _ => self.path(&["list"]),
            },
            Kind::Nums => match self.c.below(3) {
                0 => {
                    let items: Vec<String> = (0..self.c.below(4))
                        .map(|_| {
                            self.c
                                .of(&["1", "3", "2", "1.0", "true", "-4", "0.5", "1"])
                                .to_owned()
                        })
                        .collect();
                    format!("[{}]", items.join(", "))
                }
                _ => self.path(&["nums"]),
            },
            Kind::Rows => self.path(&["rows"]),
            Kind::Dict => match self.c.below(4) {
                0 => "environment.outputs".into(),
                1 => "service_instance.components.default.outputs".into(),
                2 => {
                    let (a, b) = (self.quoted(), self.quoted());
                    let key = self
                        .c
                        .of(&["'k'", "1", "true", "1.0", "none", "(1, 2)", "'z'"]);
                    format!("{{{a}: 1, {key}: {b}}}")
                }
                _ => self.path(&["map"]),
            },
            Kind::Any => self.path(&["any"]),
        }
    }

    fn text(&mut self, depth: u32) -> String {
        let d = depth - 1;
        let a = self.expr(Kind::Str, d);
        let n = self.c.below(12);
        match self.c.below(47) {
            0 => a,
            1 => format!("({a} ~ {})", self.expr(Kind::Str, d)),
            2 => {
                let kind = *self.c.of(&KINDS.iter().collect::<Vec<_>>());
                format!("({a} ~ {})", self.expr(kind, d))
            }
            3 => format!("({a} + {})", self.expr(Kind::Str, d)),
            4 => format!("({a} * {n})"),
            5..=9 => {
                let f = self.c.of(&[
                    "upper",
                    "lower",
                    "title",
                    "capitalize",
                    "trim",
                    "string",
                    "safe",
                    "e",
                    "forceescape",
                    "urlencode",
                    "reverse",
                    "tojson",
                    "striptags",
                ]);
                format!("({a} | {f})")
            }
            10 => {
                let (x, y) = (self.quoted(), self.quoted());
                let count = self.c.of(&["", ", 1", ", 0", ", -1"]);
                format!("({a} | replace({x}, {y}{count}))")
            }
            11..=13 => {
                let length = self.c.below(30) + self.c.below(2) * 3;
                let rest = self.c.of(&[
                    "",
                    ", true",
                    ", true, ''",
                    ", true, 'zzz', 0",
                    ", false, '…'",
                    ", false, '..', 2",
                    ", leeway=0",
                    ", true, end='-'",
                ]);
                format!("({a} | truncate({length}{rest}))")
            }
            14 => format!(
                "({a} | indent({n}{}))",
                self.c.of(&["", ", true", ", false, true", ", true, true"])
            ),
            15 => format!("({a} | center({}))", n * 3),
            16 => format!(
                "({a} | wordwrap({}{}))",
                n + 1,
                self.c
                    .of(&["", ", false", ", true, '|'", ", break_on_hyphens=false"])
            ),
            17 => format!("({a} | first | d)"),
            18 => format!(
                "(({a})[{}] | d)",
                self.c.of(&[
                    "0", "-1", "1:", ":3", "::-1", "-3:", "1:-1", "::2", "5:1:-1", ":-2", "9"
                ])
            ),
            19..=22 => {
                let m = self.c.of(&[
                    "upper()",
                    "lower()",
                    "strip()",
                    "strip('a')",
                    "lstrip()",
                    "rstrip('b ')",
                    "title()",
                    "capitalize()",
                    "swapcase()",
                    "zfill(8)",
                    "center(9, '*')",
                    "ljust(8)",
                    "rjust(8, '.')",
                    "removeprefix('a')",
                    "removesuffix('b')",
                    "expandtabs(4)",
                    "format(1)",
                    "casefold()",
                ]);
                format!("({a}).{m}")
            }
            23 => {
                let (x, y) = (self.quoted(), self.quoted());
                format!("({a}).replace({x}, {y}{})", self.c.of(&["", ", 1"]))
            }
            24 => format!(
                "(({a}).split({})[{}] | default('?'))",
                self.c.of(&["','", "", "'='", "';', 1", "none"]),
                self.c.of(&["0", "-1", "1"])
            ),
            25..=27 => {
                let list = self.expr(Kind::Strs, d);
                format!("({list} | join({}))", self.c.of(&["", "','", "' - '", "1"]))
            }
            28 => {
                let list = self.expr(Kind::Strs, d);
                format!("({a}).join({list})")
            }
            29 => {
                let kind = *self.c.of(&KINDS.iter().collect::<Vec<_>>());
                format!("({} | string)", self.expr(kind, d))
            }
            30..=31 => {
                let kind = *self.c.of(&KINDS.iter().collect::<Vec<_>>());
                let indent = self.c.of(&["", "(2)", "(indent=1)"]);
                format!("({} | tojson{indent})", self.expr(kind, d))
            }
            32 => {
                let v = self.expr(Kind::Int, d);
                format!(
                    "({} | format({v}))",
                    self.c.of(&[
                        "'%d'", "'%05d'", "'%s!'", "'%x'", "'%-6s|'", "'%+d'", "'%5.2f'", "'%%%d'"
                    ])
                )
            }
            33 => {
                let v = self.expr(Kind::Str, d);
                format!(
                    "({} % {v})",
                    self.c.of(&["'%s'", "'<%6s>'", "'%r'", "'%.2s'"])
                )
            }
            34 => {
                let (x, y) = (self.expr(Kind::Int, d), self.expr(Kind::Str, d));
                format!("('%s-%s' % ({x}, {y}))")
            }
            35 => {
                let (x, y) = (self.expr(Kind::Str, d), self.expr(Kind::Int, d));
                format!(
                    "{}.format({x}, n={y})",
                    self.c.of(&[
                        "'{} {n}'",
                        "'{0}{0}'",
                        "'{n:>5}'",
                        "'{:.2}'",
                        "'{n:03d}|{}'",
                        "'{!r}'",
                        "'{{}}{}'"
                    ])
                )
            }
            36 => {
                let dict = self.expr(Kind::Dict, d);
                format!(
                    "({dict}[{}] | default('-'))",
                    self.c
                        .of(&["'A'", "'b'", "'k'", "1", "true", "1.0", "none"])
                )
            }
            37 => {
                let dict = self.expr(Kind::Dict, d);
                format!(
                    "({dict}).get({})",
                    self.c.of(&["'A'", "'A', 'x'", "1", "'zz'", "none, 0"])
                )
            }
            38 => {
                let v = self.expr(Kind::Int, d);
                format!("({v} | filesizeformat{})", self.c.of(&["", "(true)"]))
            }
            39 => {
                let list = self.expr(Kind::Strs, d);
                format!(
                    "({list} | {} | d('-'))",
                    self.c.of(&[
                        "first",
                        "last",
                        "max",
                        "min",
                        "length",
                        "batch(2) | list",
                        "slice(2, '-') | list",
                        "map('upper') | join",
                        "map('length') | list"
                    ])
                )
            }
            40 => {
                let rows = self.expr(Kind::Rows, d);
                let f = self.c.of(&[
                    "map(attribute='port') | list",
                    "map(attribute='tags') | list",
                    "map(attribute='none', default=0) | list",
                    "map('length') | list",
                    "map(attribute='tags.0', default='-') | join(',')",
                    "batch(2) | list",
                    "slice(2) | list | length",
                    "groupby('on')",
                    "join(',', attribute='name')",
                    "map(attribute='name') | map('upper') | join(';')",
                ]);
                format!("({rows} | {f})")
            }
            41 => {
                let (x, y) = (self.expr(Kind::Int, d), self.expr(Kind::Str, d));
                self.c
                    .of(&[
                        "[X, Y]",
                        "(X, Y)",
                        "[[X], Y]",
                        "(X,)",
                        "[]",
                        "()",
                        "([Y] + [X])",
                        "(Y,) * 2",
                    ])
                    .replace('X', &x)
                    .replace('Y', &y)
            }
            42 => {
                let nums = self.expr(Kind::Nums, d);
                format!(
                    "({nums} | {})",
                    self.c.of(&[
                        "string",
                        "join('-')",
                        "batch(2, 0) | list",
                        "map('string') | join",
                        "tojson",
                        "sum ~ ''"
                    ])
                )
            }
            45 => {
                let dict = self.expr(Kind::Dict, d);
                format!("({dict} | xmlattr)")
            }
            43 => format!("({a} | wordcount ~ '')"),
            44 => {
                let dict = self.expr(Kind::Dict, d);
                let how = self.c.of(&[
                    ".items()",
                    ".keys()",
                    ".values()",
                    " | dictsort",
                    " | dictsort(true)",
                    " | dictsort(by='value')",
                    " | dictsort(reverse=true)",
                    " | items | list",
                    ".items() | list",
                    ".keys() | join",
                ]);
                format!("(({dict}){how})")
            }
            _ => {
                let dict = self.c.of(&[
                    "environment.outputs",
                    "service_instance.components.default.outputs",
                ]);
                let f = self.c.of(&[
                    "proton_cfn_ecs_task_definition_formatted_env_vars",
                    "proton_cfn_lambda_function_formatted_env_vars",
                    "proton_cfn_iam_policy_arns",
                ]);
                format!("({dict} | {f})")
            }
        }
    }

    fn number(&mut self, kind: Kind, depth: u32) -> String {
        let d = depth - 1;
        let a = self.expr(kind, d);
        match self.c.below(20) {
            0 => a,
            1..=7 => {
                let other = if self.c.one_in(3) {
                    Kind::Float
                } else {
                    Kind::Int
                };
                let b = self.expr(other, d);
                format!("({a} {} {b})", self.c.of(&["+", "-", "*", "/", "//", "%"]))
            }
            8 => format!("({a} ** {})", self.c.below(4)),
            9 => format!("(-{a})"),
            10 => format!("({a} | abs)"),
            11 => {
                let v = self.expr(Kind::Str, d);
                format!(
                    "({v} | int{})",
                    self.c.of(&["", "(5)", "(default=1)", "(0, 16)"])
                )
            }
            12 => format!(
                "({a} | round{})",
                self.c
                    .of(&["", "(1)", "(2, 'floor')", "(0, 'ceil')", "(-1)"])
            ),
            13 => {
                let v = self.expr(Kind::Str, d);
                format!("({v} | float{})", self.c.of(&["", "(1.5)"]))
            }
            14 => {
                let list = *self
                    .c
                    .of(&[&Kind::Str, &Kind::Strs, &Kind::Dict, &Kind::Rows]);
                format!(
                    "({} | {})",
                    self.expr(list, d),
                    self.c.of(&["length", "count"])
                )
            }
            15 => {
                let list = self.expr(Kind::Nums, d);
                format!(
                    "({list} | {})",
                    self.c
                        .of(&["sum", "sum", "length", "max | d(1)", "first | default(2)"])
                )
            }
            16 => {
                let (v, what) = (self.expr(Kind::Str, d), self.quoted());
                format!(
                    "({v}).{}({what})",
                    self.c.of(&["find", "rfind", "count", "count", "find"])
                )
            }
            17 => format!("({a} | int)"),
            18 => format!("({a} | float)"),
            _ => {
                let rows = self.expr(Kind::Rows, d);
                format!("({rows} | sum(attribute='port'))")
            }
        }
    }

    fn truth(&mut self, depth: u32) -> String {
        let d = depth - 1;
        match self.c.below(16) {
            0 => self.leaf(Kind::Bool),
            1..=4 => {
                let kind = *self.c.of(&KINDS.iter().collect::<Vec<_>>());
                let (a, b) = (self.expr(kind, d), self.expr(kind, d));
                let ordered = matches!(kind, Kind::Str | Kind::Int | Kind::Float | Kind::Strs);
                let op = if ordered || self.c.one_in(12) {
                    self.c.of(&["==", "!=", "<", "<=", ">", ">="])
                } else {
                    self.c.of(&["==", "!="])
                };
                format!("({a} {op} {b})")
            }
            5 => format!("(not {})", self.expr(Kind::Bool, d)),
            6 => {
                let (a, b) = (self.expr(Kind::Bool, d), self.expr(Kind::Bool, d));
                format!("({a} {} {b})", self.c.of(&["and", "or"]))
            }
            7 => {
                let (a, b) = (self.expr(Kind::Str, d), self.expr(Kind::Strs, d));
                format!("({a} {} {b})", self.c.of(&["in", "not in"]))
            }
            8 => {
                let (a, b) = (self.expr(Kind::Str, d), self.expr(Kind::Str, d));
                format!("({a} {} {b})", self.c.of(&["in", "not in"]))
            }
            9 => {
                let (a, b) = (self.expr(Kind::Str, d), self.expr(Kind::Dict, d));
                format!("({a} in {b})")
            }
            10..=11 => {
                let kind = *self.c.of(&KINDS.iter().collect::<Vec<_>>());
                let a = self.expr(kind, d);
                let test = self.c.of(&[
                    "defined",
                    "undefined",
                    "none",
                    "string",
                    "number",
                    "integer",
                    "float",
                    "boolean",
                    "mapping",
                    "sequence",
                    "iterable",
                    "true",
                    "false",
                    "not none",
                    "odd",
                    "even",
                    "divisibleby(2)",
                    "divisibleby 3",
                    "eq 1",
                    "lt(3)",
                    "ge 2.5",
                    "in [1, 'a']",
                    "upper",
                    "lower",
                    "callable",
                    "sameas(true)",
                    "ne ''",
                ]);
                format!("({a} is {test})")
            }
            12 => {
                let name = self.c.of(&[
                    "service.nothing",
                    "environment.outputs.A",
                    "environment.outputs.A.b",
                    "missing",
                    "service_instance.components.default.outputs['k-1']",
                ]);
                format!(
                    "({name} is {})",
                    self.c.of(&["defined", "undefined", "not defined"])
                )
            }
            13 => {
                let a = self.expr(Kind::Str, d);
                let m = self.c.of(&[
                    "startswith('a')",
                    "endswith('b')",
                    "isdigit()",
                    "isalpha()",
                    "isalnum()",
                    "isupper()",
                    "islower()",
                    "istitle()",
                    "isspace()",
                    "startswith(('a', 'o'))",
                    "isnumeric()",
                    "isidentifier()",
                    "isascii()",
                ]);
                format!("({a}).{m}")
            }
            14 => {
                let (a, b, e) = (
                    self.expr(Kind::Int, d),
                    self.path(&["n", "i"]),
                    self.expr(Kind::Int, d),
                );
                format!(
                    "({a} {} {b} {} {e})",
                    self.c.of(&["<", "<=", "==", "!="]),
                    self.c.of(&["<", ">=", "=="])
                )
            }
            _ => {
                let kind = *self.c.of(&KINDS.iter().collect::<Vec<_>>());
                self.expr(kind, d)
            }
        }
    }

    fn list(&mut self, kind: Kind, depth: u32) -> String {
        let d = depth - 1;
        if kind == Kind::Strs && self.c.below(3) == 0 {
            let a = self.expr(Kind::Str, d);
            return match self.c.below(6) {
                0..=1 => format!(
                    "({a}).split({})",
                    self.c.of(&["','", "';'", "", "' '", "'a', 1", "'-'"])
                ),
                2 => format!("({a}).splitlines()"),
                3 => format!("({a} | list)"),
                4 => {
                    let rows = self.expr(Kind::Rows, d);
                    format!("({rows} | map(attribute='name') | list)")
                }
                _ => {
                    let dict = self.expr(Kind::Dict, d);
                    format!("({dict} | list)")
                }
            };
        }
        let a = self.expr(kind, d);
        match self.c.below(16) {
            0 => a,
            1 => format!("({a} + {})", self.expr(kind, d)),
            2 => format!("({a} * {})", self.c.below(3)),
            3 => format!(
                "({a})[{}]",
                self.c.of(&[
                    "1:", ":1", "::-1", "-1:", "::2", "3:0:-1", "0:-1", ":99", "-9:2"
                ])
            ),
            4..=5 => {
                let by = if kind == Kind::Rows {
                    self.c.of(&[
                        "(attribute='name')",
                        "(attribute='port')",
                        "(true, attribute='port')",
                        "(attribute='on,name')",
                    ])
                } else {
                    self.c
                        .of(&["", "(true)", "(reverse=true)", "(case_sensitive=true)"])
                };
                format!("({a} | sort{by})")
            }
            6 => {
                let by = if kind == Kind::Rows {
                    "(attribute='port')"
                } else {
                    ""
                };
                format!("({a} | unique{by} | list)")
            }
            7 => format!("({a} | reverse | list)"),
            8 if kind == Kind::Rows => a,
            8 => {
                let f = if kind == Kind::Nums {
                    self.c.of(&["'abs'", "'int'", "'float'"])
                } else {
                    self.c.of(&[
                        "'string'",
                        "'upper'",
                        "'replace', 'a', 'b'",
                        "'trim'",
                        "'tojson'",
                        "'default', 'x', true",
                    ])
                };
                format!("({a} | map({f}) | list)")
            }
            9..=10 => {
                let f = match kind {
                    Kind::Rows => self.c.of(&[
                        "selectattr('on')",
                        "rejectattr('on')",
                        "selectattr('port', 'gt', 40)",
                        "selectattr('name', 'eq', 'a')",
                        "selectattr('tags')",
                        "selectattr('name', 'in', ['a', 'orders'])",
                        "rejectattr('port', 'ge', 80)",
                    ]),
                    Kind::Nums => self.c.of(&[
                        "select",
                        "reject",
                        "select('odd')",
                        "select('gt', 1)",
                        "reject('eq', 1)",
                        "select('integer')",
                        "select('divisibleby', 2)",
                    ]),
                    _ => self.c.of(&[
                        "select",
                        "reject",
                        "select('upper')",
                        "select('in', 'abc')",
                        "reject('eq', 'a')",
                        "select('string')",
                    ]),
                };
                format!("({a} | {f} | list)")
            }
            _ => format!("({a} | list)"),
        }
    }

    fn dict(&mut self, depth: u32) -> String {
        let d = depth - 1;
        let a = self.expr(Kind::Dict, d);
        match self.c.below(7) {
            0..=2 => a,
            3 => format!("dict({a}, x=1)"),
            4 => {
                let (x, y) = (self.expr(Kind::Str, d), self.expr(Kind::Int, d));
                format!("{{{x}: {y}, 'q': [{y}]}}")
            }
            5 => format!("({a}).copy()"),
            _ => {
                let y = self.expr(Kind::Any, d);
                format!("{{'a': {y}, 'b': {{'c': none}}, \"d\": (1, 2)}}")
            }
        }
    }
}
