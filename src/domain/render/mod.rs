//! Rendering: a template's text and its data into CloudFormation text, byte for byte as stock Jinja2 would.
//!
//! Templates come from repositories, so they are untrusted programs: strict undefined, no loader, no access to
//! anything but the data, fuel, and a cap on the output. The caller gives a thread with 16 MiB of stack.
//! `docs/formats/rendering.md` has what differs from Jinja2. Nothing here knows targets.

mod compat;
mod data;
mod filters;
mod source;

pub use compat::Expired;
pub use data::{
    ComponentData, EnvironmentData, InstanceData, PipelineData, PipelineInstance, ServiceData,
};
pub use source::line_map;

use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::machinery::{eval, make_string_output};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde_json::Value;

use super::model::{Finding, Place, Span, closest};

/// The renderer's epoch: counted up whenever the same inputs may give other bytes.
pub const EPOCH: u32 = 2;

/// What one rendering may cost.
#[derive(Clone)]
pub struct Limits {
    /// Instructions.
    pub fuel: u64,
    /// Bytes of output. CloudFormation takes 1 MB.
    pub output: usize,
    /// Bytes that may be read and made on the way; an item of a list counts as 32.
    pub work: u64,
    /// Tells that the time is up; asked after each MiB of work.
    pub expired: Option<Expired>,
}

impl Default for Limits {
    fn default() -> Self {
        // Enough for every public bundle a hundred times over, and too little to nest values deeper than the stack.
        Self {
            fuel: 200_000,
            output: 1 << 20,
            work: 64 << 20,
            expired: None,
        }
    }
}

/// A rendered text and what is worth saying about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Warnings.
    pub notes: Vec<Finding>,
}

/// Renders one template with the complete data.
///
/// An error names the line and column in the template and never a value.
pub fn render(
    file: &str,
    text: &str,
    data: &Value,
    limits: &Limits,
) -> Result<Rendered, Box<Finding>> {
    Prepared::new(file, text)?
        .compile(limits.fuel)?
        .render(data, limits)
}

/// A template that was looked through and can be compiled.
#[derive(Debug)]
pub struct Prepared {
    file: String,
    /// With the line ends of Jinja.
    normal: String,
    text: String,
    dynamic: Vec<Span>,
}

/// A template that renders any number of times.
#[derive(Debug)]
pub struct Compiled<'a> {
    prepared: &'a Prepared,
    environment: Environment<'a>,
    program: compat::Program<'a>,
}

fn marked(file: &str) -> Box<Finding> {
    let message = "the template or its data holds U+F8F0 or U+F8F1, which isoform uses itself";
    Box::new(
        Finding::error("render.refused", Place::file(file), message)
            .help("remove these private-use characters"),
    )
}

impl Prepared {
    /// Looks a template through for what is refused.
    pub fn new(file: &str, text: &str) -> Result<Self, Box<Finding>> {
        let normal = compat::normalize_source(text);
        // The filters mark places with these; from outside they could break a quoted value into lines.
        let escaped = normal.to_ascii_lowercase();
        if normal.contains(filters::MARKS)
            || escaped.contains("\\uf8f0")
            || escaped.contains("\\uf8f1")
        {
            return Err(marked(file));
        }
        let (text, dynamic) = source::pass_dynamic_references(&normal);
        if let Err(error) = compat::check_source(&text) {
            return Err(Box::new(source::refused(file, &normal, &error)));
        }
        Ok(Self {
            file: file.to_owned(),
            normal,
            text,
            dynamic,
        })
    }

    /// Compiles it. Each rendering may take so many instructions.
    pub fn compile(&self, fuel: u64) -> Result<Compiled<'_>, Box<Finding>> {
        let mut environment = Environment::new();
        // The debug mode puts values of variables into errors.
        environment.set_debug(false);
        environment.set_fuel(Some(fuel));
        compat::install(&mut environment);
        filters::install(&mut environment);
        let result = catch_unwind(|| compat::compile("template", &self.text));
        let program = match result {
            Ok(Ok(program)) => program,
            Ok(Err(error)) => return Err(Box::new(syntax(self.place(&error), &error))),
            Err(_) => return Err(Box::new(panicked(&self.file))),
        };
        Ok(Compiled {
            prepared: self,
            environment,
            program,
        })
    }

    fn place(&self, error: &minijinja::Error) -> Place {
        source::place(&self.file, &self.text, &self.normal, error)
    }
}

impl Compiled<'_> {
    /// Renders the template with the complete data.
    pub fn render(&self, data: &Value, limits: &Limits) -> Result<Rendered, Box<Finding>> {
        let Prepared {
            file,
            normal,
            text: source,
            dynamic,
        } = self.prepared;
        if data.to_string().contains(filters::MARKS) {
            return Err(marked(file));
        }
        let meter = compat::Meter::open(limits.work, limits.expired.clone());
        let context = compat::from_json(data);
        let mut text = String::new();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut out = make_string_output(&mut text);
            eval(
                &self.environment,
                &self.program.instructions,
                context,
                &self.program.blocks,
                &mut out,
                AutoEscape::None,
            )
            .map(drop)
        }));
        drop(meter);
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let place = self.prepared.place(&error);
                return Err(Box::new(explain(source, data, &error, place)));
            }
            Err(_) => return Err(Box::new(panicked(file))),
        }
        let text = filters::indent(text, limits.output);
        if text.len() > limits.output {
            return Err(Box::new(Finding::error(
                "render.output",
                Place::file(file),
                format!("the output has more than {} bytes", limits.output),
            )));
        }
        let notes = dynamic
            .iter()
            .map(|span| {
                Finding::warning(
                    "render.dynamic-reference",
                    Place::at(file, *span, normal),
                    "`{{resolve:` is passed through to CloudFormation; stock Jinja refuses it",
                )
                .help("write {% raw %}{{resolve:…}}{% endraw %} to be safe everywhere")
            })
            .collect();
        Ok(Rendered { text, notes })
    }
}

/// Checks the syntax of a template that nothing gives data to.
pub fn check(file: &str, text: &str) -> Result<(), Box<Finding>> {
    let normal = compat::normalize_source(text);
    let (prepared, _) = source::pass_dynamic_references(&normal);
    compat::check_source(&prepared)
        .map_err(|error| Box::new(source::refused(file, &normal, &error)))?;
    let place = |error: &minijinja::Error| source::place(file, &prepared, &normal, error);
    match catch_unwind(|| compat::compile("template", &prepared).map(drop)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Box::new(syntax(place(&error), &error))),
        Err(_) => Err(Box::new(panicked(file))),
    }
}

fn panicked(file: &str) -> Finding {
    let message = "the template makes the renderer fail";
    Finding::error("render.refused", Place::file(file), message)
}

fn syntax(place: Place, error: &minijinja::Error) -> Finding {
    let help = "this is Jinja: see docs/formats/rendering.md; a `{{` that is meant as text stands in {% raw %}…{% endraw %}";
    let message = format!("the template does not parse: {}", reason(error));
    Finding::error("render.syntax", place, message).help(help)
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    }
}

fn explain(text: &str, data: &Value, error: &minijinja::Error, place: Place) -> Finding {
    match error.kind() {
        ErrorKind::UndefinedError => undefined(text, data, error, place),
        // An operation of the engine's own on an undefined value.
        ErrorKind::InvalidOperation if error.detail().is_some_and(|d| d.contains("undefined")) => {
            undefined(text, data, error, place)
        }
        ErrorKind::OutOfFuel => match error.detail() {
            Some(compat::MEMORY) => Finding::error(
                "render.memory",
                place,
                "the template makes and reads too much text",
            )
            .help("a template that large belongs into several"),
            Some(compat::TIME) => {
                Finding::error("render.time", place, "the template took too long")
            }
            _ => Finding::error("render.fuel", place, "the template takes too many steps")
                .help("a loop that long does not belong into a template"),
        },
        _ => Finding::error(
            "render.failed",
            place,
            format!("the expression fails: {}", reason(error)),
        ),
    }
}

/// Says which name is not there and what is there instead. Names only, never values.
fn undefined(text: &str, data: &Value, error: &minijinja::Error, place: Place) -> Finding {
    let range = source::name_range(text, error);
    let written = range
        .clone()
        .and_then(|r| text.get(r))
        .unwrap_or_default()
        .trim();
    let expression: String = written
        .chars()
        .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
        .collect();
    let parts: Vec<&str> = expression.split('.').filter(|p| !p.is_empty()).collect();
    let mut here = data;
    let mut missing = None;
    let mut path = Vec::new();
    for part in &parts {
        match here.get(part) {
            Some(next) => {
                here = next;
                path.push(*part);
            }
            None => {
                missing = Some(*part);
                break;
            }
        }
    }
    let shown = if expression.is_empty() {
        "a name".to_owned()
    } else {
        format!("`{expression}`")
    };
    let Some(missing) = missing else {
        return Finding::error(
            "render.undefined",
            place,
            format!("{shown} is not defined here"),
        )
        .help("use `is defined` or `| default(…)` for names that may be missing");
    };
    let names: Vec<&str> = here
        .as_object()
        .map(|o| o.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let owner = if path.is_empty() {
        "the data".to_owned()
    } else {
        format!("`{}`", path.join("."))
    };
    let mut help = if names.is_empty() {
        format!("{owner} is empty")
    } else {
        format!(
            "{owner} has {}",
            names
                .iter()
                .take(12)
                .copied()
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let after = range.and_then(|r| text.get(r.start..)).unwrap_or_default();
    if let Some(hyphen) = after
        .strip_prefix(expression.as_str())
        .and_then(|rest| rest.strip_prefix('-'))
    {
        let rest: String = hyphen
            .chars()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
            .collect();
        let whole = format!("{missing}-{rest}");
        if names.contains(&whole.as_str()) {
            help = format!(
                "a hyphen means minus here: write {}['{whole}']",
                path.join(".")
            );
        }
    } else if let Some(near) = closest(missing, names.iter().copied()) {
        help = format!("{help}; did you mean `{near}`?");
    }
    let place = widen(place, &expression);
    Finding::error("render.undefined", place, format!("{shown} is not defined")).help(help)
}

fn widen(place: Place, expression: &str) -> Place {
    let span = place
        .span
        .map(|s| Span::on_line(s.line, s.column, expression.chars().count().max(1) as u32));
    Place { span, ..place }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn out(text: &str, data: Value) -> String {
        render("t.yaml", text, &data, &Limits::default())
            .map_or_else(|f| format!("{}: {}", f.code, f.message), |r| r.text)
    }

    #[test]
    fn plain_constructs_render() {
        let data = json!({"service": {"name": "orders-service-with-a-long-name"}, "service_instance": {"name": "production", "inputs": {"port": 80, "b": true}}});
        for (text, expected) in [
            ("{{ service_instance.inputs.port }}", "80"),
            ("{{ service_instance.inputs.b }}", "True"),
            (
                "{{ (service.name~\"--\"~service_instance.name)|truncate(29, true, 'zzz', 0) }}",
                "orders-service-with-a-long-zzz",
            ),
            (
                "{% raw %}{{resolve:ssm:x}}{% endraw %}",
                "{{resolve:ssm:x}}",
            ),
            ("{{ '{{resolve:ssm:x}}' }}", "{{resolve:ssm:x}}"),
            (
                "a: '{{resolve:secretsmanager:{{ service.name }}:SecretString:k}}'",
                "a: '{{resolve:secretsmanager:orders-service-with-a-long-name:SecretString:k}}'",
            ),
            ("{{ {'a': [1, 2.0, none]} }}", "{'a': [1, 2.0, None]}"),
            ("a\r\nb\n", "a\nb"),
        ] {
            assert_eq!(
                out(text, data.clone()),
                if text.contains("truncate") {
                    "orders-service-with-a-long"
                        .chars()
                        .take(26)
                        .collect::<String>()
                        + "zzz"
                } else {
                    expected.to_owned()
                },
                "{text}"
            );
        }
    }

    #[test]
    fn operators_are_pythons() {
        for (text, expected) in [
            ("{{ 1e17 ~ '|' ~ 0.00001 ~ '|' ~ 1.0 }}", "1e+17|1e-05|1.0"),
            (
                "{{ true > 0 }} {{ 1 == true }} {{ [1] == (1,) }}",
                "True True False",
            ),
            ("{{ {1: 'a', true: 'b', 1.0: 'c'} }}", "{1: 'c'}"),
            (
                "{% for c in 'ab' %}{{ c }}{{ loop.length }}{{ loop.last }} {% endfor %}",
                "a2False b2True ",
            ),
            (
                "{{ [1, 2, 3, 4][3:0:-2] }} {{ 'abcd'[-3:-1] }} {{ 'abc'[-1] }}",
                "[4, 2] bc c",
            ),
            (
                "{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** -1 }} {{ -7.5 // 2 }}",
                "-4 2 3.5 0.5 -4.0",
            ),
            ("{{ '%s-%d' % ('a', 7) }} {{ '%(k)s' % {'k': 1} }}", "a-7 1"),
            (
                "{{ ('<' | e) + '<' }} {{ ('<' | e) ~ '<' }}",
                "&lt;&lt; &lt;<",
            ),
            (
                "{% set a, b = 'xy' %}{{ b }}{% filter upper %}{% set a = 'z' %}{{ a }}{% endfilter %}{{ a }}",
                "yZx",
            ),
            ("{{ 9007199254740993 == 9007199254740992.0 }}", "False"),
        ] {
            assert_eq!(out(text, json!({})), expected, "{text}");
        }
        for text in [
            "{{ 'a' < 1 }}",
            "{{ {[1]: 2} }}",
            "{{ 1 + 'a' }}",
            "{{ 'a' in 5 }}",
        ] {
            assert!(out(text, json!({})).starts_with("render.failed"), "{text}");
        }
    }

    #[test]
    fn a_call_with_too_many_arguments_is_refused_and_nothing_panics() {
        let many = format!("{{{{ range({}) }}}}", "1,".repeat(70_000));

        assert!(out(&many, json!({})).starts_with("render."));
        assert!(check("t", &many).is_err());
    }

    #[test]
    fn the_time_is_asked_for_while_nothing_is_written() {
        let limits = Limits {
            expired: Some(std::sync::Arc::new(|| true)),
            ..Limits::default()
        };
        let text = "{% for i in range(90) %}{% set x = 'x' * 1000000 %}{% endfor %}";

        let finding = render("t", text, &json!({}), &limits).unwrap_err();

        assert_eq!(finding.code, "render.time");
    }

    #[test]
    fn an_undefined_name_is_explained_without_values() {
        let data =
            json!({"environment": {"outputs": {"ClusterArn": "SECRET", "my-output": "SECRET"}}});
        let finding = render(
            "t.yaml",
            "a: 1\nb: '{{ environment.outputs.ClusterName }}'\n",
            &data,
            &Limits::default(),
        )
        .unwrap_err();
        assert_eq!(finding.code, "render.undefined");
        assert_eq!(
            finding.message,
            "`environment.outputs.ClusterName` is not defined"
        );
        let span = finding.place.span.unwrap();
        assert_eq!(
            (span.line, span.column, span.end_column),
            (2, 8, 39),
            "{span:?}"
        );
        assert!(
            finding
                .help
                .as_deref()
                .unwrap()
                .contains("did you mean `ClusterArn`?")
        );
        assert!(!format!("{finding:?}").contains("SECRET"));
        let hyphen = render(
            "t.yaml",
            "{{ environment.outputs.my-output }}",
            &data,
            &Limits::default(),
        )
        .unwrap_err();
        assert!(
            hyphen
                .help
                .as_deref()
                .unwrap_or_default()
                .contains("['my-output']"),
            "{hyphen:?}"
        );
    }

    #[test]
    fn marks_of_the_filters_cannot_come_from_outside() {
        assert!(
            out("k: '{{ v }}'", json!({"v": "a\u{f8f1}  Evil: 1"})).starts_with("render.refused")
        );
        assert!(out("k: '{{ \"\\uf8f1\" }}'", json!({})).starts_with("render.refused"));
    }

    #[test]
    fn errors_of_arithmetic_hold_no_values() {
        let finding = render(
            "t",
            "{{ n / 0 }}",
            &json!({"n": 918273645}),
            &Limits::default(),
        )
        .unwrap_err();
        assert!(!format!("{finding:?}").contains("918273645"), "{finding:?}");
    }

    #[test]
    fn columns_hold_on_lines_with_dynamic_references() {
        let finding = render(
            "t",
            "a: '{{resolve:ssm:{{ nope }}}}'",
            &json!({}),
            &Limits::default(),
        )
        .unwrap_err();
        assert_eq!(finding.place.span.unwrap().column, 22);
    }

    #[test]
    fn sec_12_hostile_templates_are_stopped() {
        for text in [
            "{% for i in range(99999999) %}x{% endfor %}",
            "{{ 'x' * 100000000 }}",
            "{% include '/etc/passwd' %}",
            "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        ] {
            let result = out(text, json!({}));
            assert!(
                result.starts_with("render."),
                "{text}: {}",
                result.chars().take(60).collect::<String>()
            );
        }
    }
}
