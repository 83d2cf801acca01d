//! What `cac-measure` counts, as a library for the tests that hold some of it.

pub mod comments;
pub mod functions;
pub mod imports;
pub mod names;
pub mod public;
pub mod source;
