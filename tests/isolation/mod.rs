//! What keeps a task from the host and from its neighbours, seen from inside, on a real kernel. Needs root.

mod limits;
mod profile;
mod users;

use crate::cli::{Node, Way, code, shown};
