//! Handles, plans and results of commits, for people and programs.

use std::collections::BTreeMap;

use portlayer::compose::{Handle, Plan, RunId};
use portlayer::element::ElementId;
use portlayer_client::{Committed, ElementOutcome};
use serde::Serialize;

use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::{Column, Format, Out, Row};

#[derive(Serialize)]
struct StepRow<'a> {
    at: usize,
    step: &'a portlayer::compose::Step,
}

impl Row for StepRow<'_> {
    const COLUMNS: &'static [Column] = &[Column::new("STEP").right(), Column::new("WHAT")];

    fn cells(&self) -> Vec<Vec<u8>> {
        vec![self.at.to_string().into(), self.step.to_string().into()]
    }

    fn name(&self) -> String {
        self.step.to_string()
    }
}

/// The steps of a plan; programs get the whole plan.
pub(super) fn plan(plan: &Plan, out: Out) -> Result<(), Failure> {
    let rows: Vec<_> = (1..)
        .zip(&plan.steps)
        .map(|(at, step)| StepRow { at, step })
        .collect();
    match out.format() {
        Format::Json | Format::Yaml => out.one(plan, plan.executor.as_str(), &[])?,
        _ => out.list(&rows)?,
    }
    Ok(())
}

#[derive(Serialize)]
struct EditRow<'a> {
    at: usize,
    edit: &'a portlayer::compose::Op,
}

impl Row for EditRow<'_> {
    const COLUMNS: &'static [Column] = &[Column::new("EDIT").right(), Column::new("WHAT")];

    fn cells(&self) -> Vec<Vec<u8>> {
        let what = serde_json::to_string(self.edit).unwrap_or_default();
        vec![self.at.to_string().into(), what.into()]
    }

    fn name(&self) -> String {
        self.at.to_string()
    }
}

/// The edits of a handle.
pub(super) fn handle(handle: &Handle, out: Out) -> Result<(), Failure> {
    let rows: Vec<_> = (1..)
        .zip(handle.ops())
        .map(|(at, edit)| EditRow { at, edit })
        .collect();
    match out.format() {
        Format::Json | Format::Yaml => out.one(handle, handle.executor().as_str(), &[])?,
        _ => out.list(&rows)?,
    }
    Ok(())
}

/// What a commit did, in a form programs can read.
#[derive(Debug, Serialize)]
pub(crate) struct ResultView<'a> {
    executor: &'a ElementId,
    revision: u64,
    elements: BTreeMap<&'a ElementId, ElementView>,
    runs: &'a [RunId],
}

#[derive(Debug, Serialize)]
struct ElementView {
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> ResultView<'a> {
    pub(crate) fn of(result: &'a Committed) -> Self {
        let view = |result: &ElementOutcome| match result {
            ElementOutcome::Success => ElementView {
                result: "success",
                error: None,
            },
            ElementOutcome::NoOp => ElementView {
                result: "no-op",
                error: None,
            },
            ElementOutcome::Error(error) => ElementView {
                result: "error",
                error: Some(error.to_string()),
            },
        };
        Self {
            executor: &result.executor,
            revision: result.revision,
            elements: result
                .elements
                .iter()
                .map(|(id, result)| (id, view(result)))
                .collect(),
            runs: &result.runs,
        }
    }
}

#[derive(Serialize)]
struct ResultRow<'a> {
    id: &'a ElementId,
    #[serde(flatten)]
    view: &'a ElementView,
}

impl Row for ResultRow<'_> {
    const COLUMNS: &'static [Column] = &[
        Column::new("ID"),
        Column::new("RESULT"),
        Column::new("ERROR"),
    ];

    fn cells(&self) -> Vec<Vec<u8>> {
        vec![
            self.id.as_str().into(),
            self.view.result.into(),
            self.view.error.clone().unwrap_or_default().into(),
        ]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

/// What a commit did, element by element; 1 when some element failed.
pub(super) fn result(result: &Committed, out: Out) -> Outcome {
    let view = ResultView::of(result);
    let rows: Vec<_> = view
        .elements
        .iter()
        .map(|(id, view)| ResultRow { id, view })
        .collect();
    match out.format() {
        Format::Json | Format::Yaml => out.one(&view, result.executor.as_str(), &[])?,
        _ => out.list(&rows)?,
    }
    Ok(if result.is_error() { Exit(1) } else { Exit::OK })
}
