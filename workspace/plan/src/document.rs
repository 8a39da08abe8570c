//! Documents that the runtime writes: the configuration of `spec` and the object of `features`.

use alloc::string::String;
use alloc::vec::Vec;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

mod default_spec;
mod features;

pub use default_spec::default_spec;
pub use features::{FeatureLists, SeccompLists, features_document};

/// JSON with members in the order of their declaration.
fn pretty(document: &impl Serialize, indent: &[u8]) -> String {
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(indent);
    let written = document.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter));
    written.expect("names are strings and the memory cannot refuse a write");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}
