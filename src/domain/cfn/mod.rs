//! CloudFormation templates: reading, checking and evaluating them, and what is known of resource types.
//!
//! One evaluator serves the preview of a plan, the `local` reference model and the proof of an audit entry, so they
//! cannot disagree about what a template means. Nothing here knows stacks or change sets.

mod evaluate;
mod parameters;
mod resource_types;
mod template;

pub use evaluate::{
    EvaluateError, Pseudo, Resolver, Scope, UNKNOWN_KEY, evaluate, is_unknown, references, unknown,
};
pub use parameters::{ParameterError, bind_parameters};
pub(crate) use resource_types::Mutability;
pub use resource_types::{ResourceType, StatefulType, resource_type, stateful};
pub use template::{DeletionPolicy, Limit, Output, Parameter, Resource, Template, parse_template};
