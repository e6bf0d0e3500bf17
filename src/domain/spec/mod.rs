//! The files that people write beside templates: specs, ops files, registration files and the sync file.
//!
//! Each reader returns what it could read together with every fault. What a file *means* for the estate is decided
//! in [`crate::domain::estate`].

mod fields;
mod proton;
mod sync;

pub(crate) use proton::resolve_current;

pub use fields::Fields;
pub use proton::{
    CURRENT_VALUE, CompatibleEnvironment, EnvironmentSpec, InstanceSpec, OpsEntry, Registration,
    ServiceSpec, parse_environment_spec, parse_ops, parse_registration, parse_service_spec,
    spec_kind,
};
pub use sync::{
    ComponentEntry, Defaults, EnvironmentEntry, Fragment, Gate, Moved, Override, PipelineEntry,
    Repository, ServiceEntry, StackEntry, StackOptions, Stage, SyncFile, TemplateRef,
    parse_deployment, parse_sync,
};
