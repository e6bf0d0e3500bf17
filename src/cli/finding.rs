//! Showing findings as compilers do: where, what, an excerpt, and what to do.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::show::clean;
use crate::domain::model::{Finding, Place, Severity};

/// Prints findings and a count; returns the number of errors.
pub(crate) fn print(findings: &[Finding]) -> usize {
    for finding in findings {
        anstream::println!("{}\n", render(finding));
    }
    findings.iter().filter(|f| f.is_error()).count()
}

/// Renders one finding.
pub(crate) fn render(finding: &Finding) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let message = clean(&finding.message);
    let code = clean(&finding.code);
    let label = clean(&finding.label);
    let mut report: Vec<Group<'_>> = Vec::new();
    let mut group = level
        .primary_title(message.as_str())
        .id(code.as_str())
        .elements(Vec::<Snippet<'_, annotate_snippets::Annotation<'_>>>::new());
    let path = clean(&finding.place.file);
    let excerpt = finding.place.excerpt.as_deref().map(clean);
    if let (Some(text), Some((start, end, line))) = (&excerpt, range(&finding.place)) {
        let annotation = AnnotationKind::Primary
            .span(start..end)
            .label(label.as_str());
        group = group.element(
            Snippet::source(text.as_str())
                .line_start(line)
                .path(path.as_str())
                .annotation(annotation),
        );
    } else {
        group = group.element(annotate_snippets::Origin::path(path.as_str()));
    }
    let related: Vec<Shown> = finding
        .related
        .iter()
        .map(|r| {
            (
                clean(&r.place.file),
                clean(&r.label),
                r.place.excerpt.as_deref().map(clean),
                range(&r.place),
            )
        })
        .collect();
    for (file, label, excerpt, place) in &related {
        if let (Some(text), Some((start, end, line))) = (excerpt, place) {
            let annotation = AnnotationKind::Context
                .span(*start..*end)
                .label(label.as_str());
            group = group.element(
                Snippet::source(text.as_str())
                    .line_start(*line)
                    .path(file.as_str())
                    .annotation(annotation),
            );
        }
    }
    let help = finding.help.as_deref().map(clean);
    if let Some(help) = &help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    report.push(group);
    Renderer::styled().render(&report)
}

/// A related place, cleaned: file, label, excerpt, and byte range with line.
type Shown = (
    String,
    String,
    Option<String>,
    Option<(usize, usize, usize)>,
);

/// Returns the byte range of a place within its excerpt, and its line.
fn range(place: &Place) -> Option<(usize, usize, usize)> {
    let (span, text) = (place.span?, place.excerpt.as_deref()?);
    let at = |column: u32| {
        text.char_indices()
            .nth((column as usize).saturating_sub(1))
            .map_or(text.len(), |(i, _)| i)
    };
    let start = at(span.column);
    let end = if span.end_line > span.line {
        text.trim_end().len()
    } else {
        at(span.end_column)
    };
    Some((start, end.max(start).min(text.len()), span.line as usize))
}
