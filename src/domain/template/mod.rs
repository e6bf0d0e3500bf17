//! Template bundles: finding them in a tree, reading their parts, and saying what is wrong with them.
//!
//! A bundle is the directory of one version: a schema, and one `*infrastructure` directory per thing that it
//! deploys. The rules are Proton's (`docs/formats/bundles.md`). Nothing here renders.

mod files;
mod layout;
mod manifest;

pub use files::{Blob, Files, parent, sub_tree, text_of};
pub use layout::{
    Bundle, BundleKind, BundlePath, Component, Part, find_bundles, find_components, load_bundle,
    load_component, retired_commands,
};
pub use manifest::{Engine, Manifest, parse_manifest};
