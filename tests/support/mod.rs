//! Fixtures that tests share.

pub(crate) mod node;
