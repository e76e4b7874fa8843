//! Fixtures that tests share.

pub(crate) mod left;
pub(crate) mod node;
