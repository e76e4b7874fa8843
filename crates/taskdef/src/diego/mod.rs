//! Cloud Foundry Diego's tasks: parsed, checked with Diego's own texts, planned.
//!
//! What each field does here and where we differ from Diego is in `docs/task-definitions.md`.

mod downgrade;
pub mod parse;
pub mod plan;
mod rootfs;
pub mod schema;
pub mod settings;
pub mod tasks;
pub mod validate;
pub mod wire;

pub use downgrade::without_image_layers;
pub use parse::{ParseError, Parsed, from_json};
pub use plan::{PlanError, plan};
pub use rootfs::image_of;
pub use settings::{Capacity, Settings, Timers};
pub use tasks::{State, Task, TaskError, TaskEvent, Tasks};
pub use validate::{Invalid, Problem, validate};
pub use wire::{
    definition_from_protobuf, definition_to_protobuf, desire_from_protobuf, desire_to_protobuf,
    task_to_protobuf,
};

/// Settings of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Refuse what Diego refuses although the seed's own example needs it (an exclusive layer without
    /// `legacy_download_user`), and refuse unknown fields.
    pub strict: bool,
}

/// Why a text is not a definition that can be run.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Reads and checks JSON in one step. Unknown fields are logged as a warning, or refused in strict mode.
///
/// # Errors
/// [`DefinitionError`].
pub fn read_json(text: &[u8], rules: &Rules) -> Result<schema::DesiredTask, DefinitionError> {
    let Parsed { desired, unknown } = from_json(text)?;
    if rules.strict && !unknown.is_empty() {
        let problem = |path: String| Problem {
            text: format!("unknown field: {path}"),
            rule: "is no field of a task".to_owned(),
            path,
        };
        let problems = unknown.into_iter().map(problem).collect();
        return Err(Invalid { problems }.into());
    }
    for path in unknown {
        tracing::warn!(task = %desired.task_guid, %path, "unknown field of a task definition");
    }
    validate(&desired, rules)?;
    Ok(desired)
}
