//! CloudFormation templates: reading, checking and evaluating them, and what is known of resource types.
//!
//! One evaluator serves the preview of a plan, the `local` reference model and the proof of an audit entry, so they
//! cannot disagree about what a template means. Nothing here knows stacks or change sets.

mod evaluate;
mod extensions;
mod nested;
mod parameters;
mod references;
mod resource_types;
mod template;

/// Returns a text as CloudFormation gives it back: every character outside ASCII is a question mark.
///
/// `GetTemplate`, outputs and change sets do this: aws-cloudformation/cloudformation-coverage-roadmap #814, #1220. A text
/// that was read back is compared with this of the text that was sent, and is never sent itself.
pub fn as_read_back(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii() { c } else { '?' })
        .collect()
}

pub use evaluate::{
    EvaluateError, Pseudo, Resolver, Scope, UNKNOWN_KEY, evaluate, is_unknown, references, unknown,
};
pub use nested::{NestedTemplates, locate_nested, name_nested, nested_files, nested_name};
pub use parameters::{ParameterError, bind_parameters};
pub use references::{Keeper, Reference, has_unpinned, may_refer, pin as pin_references, unpinned};
pub(crate) use resource_types::Mutability;
pub use resource_types::{ResourceType, StatefulType, resource_type, stateful};
pub use template::{
    DeletionPolicy, Limit, Output, Parameter, Resource, Template, parse_template,
    parse_template_with,
};

#[cfg(test)]
mod tests {
    use super::as_read_back;

    #[test]
    fn a_character_of_any_plane_is_one_question_mark() {
        for (text, read) in [("plain", "plain"), ("請交月報", "????"), ("a🙂b", "a?b")] {
            assert_eq!(as_read_back(text), read);
        }
    }
}
