//! The draft: what a composition becomes when a handle's edits are folded over it. Pure.

use std::collections::BTreeSet;

use super::{BindHow, ComposeError, Composition, JoinHow, Joined, Op, Role, TaskBind, fields};
use crate::element::{Body, ElementId, Kind, Record};
use crate::error::ReadError;

/// A wanted composition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    /// What is wanted.
    pub(crate) wanted: Composition,
    /// Every element an edit names, and for edits of everything each element they changed.
    pub(crate) touched: BTreeSet<ElementId>,
    /// Tasks that were not bound and are wanted bound, in the order they were bound: the first one is the primary
    /// process of a new container.
    pub(crate) starts: Vec<ElementId>,
}

/// How a fold reads elements.
pub(crate) trait Lookup {
    /// The record of an element as it is now.
    fn record(&self, id: &ElementId) -> Result<Record, ReadError>;
}

/// Folds `ops` over `committed`. Repeating what is already so is no error and no change.
pub(crate) fn fold(
    executor: &ElementId,
    committed: &Composition,
    ops: &[Op],
    lookup: &dyn Lookup,
) -> Result<Draft, ComposeError> {
    let mut fold = Fold {
        executor,
        committed,
        lookup,
        draft: Draft {
            wanted: committed.clone(),
            touched: BTreeSet::new(),
            starts: Vec::new(),
        },
    };
    for op in ops {
        match op {
            Op::Join { id, how, revision } => fold.join(id, how, *revision)?,
            Op::Bind { id: Some(id), how } => fold.bind(id, how)?,
            Op::Bind { id: None, how } => fold.bind_all(how)?,
            Op::Unbind { id: Some(id) } if id == executor => {
                fold.unbind_where(|kind| kind == Kind::Task)
            }
            Op::Unbind { id: Some(id) } => fold.unbind(id)?,
            Op::Unbind { id: None } => fold.unbind_where(|_| true),
            Op::Leave { id } => fold.leave(id)?,
        }
    }
    Ok(fold.draft)
}

struct Fold<'a> {
    executor: &'a ElementId,
    committed: &'a Composition,
    lookup: &'a dyn Lookup,
    draft: Draft,
}

impl Fold<'_> {
    fn join(&mut self, id: &ElementId, how: &JoinHow, revision: u64) -> Result<(), ComposeError> {
        self.draft.touched.insert(id.clone());
        if how.kind() != id.kind() {
            let (id, how) = (id.clone(), how.kind());
            return Err(ComposeError::WrongRole { id, how });
        }
        if let Some(there) = self.draft.wanted.joined.get(id) {
            let same = match &there.role {
                Role::Part(part) => part == how,
                Role::Task { .. } => *how == JoinHow::Task,
            };
            return match same {
                true => Ok(()),
                false => Err(ComposeError::AlreadyJoined {
                    id: id.clone(),
                    executor: self.executor.clone(),
                }),
            };
        }
        fields::check_join(how).map_err(|error| ComposeError::InvalidField {
            id: id.clone(),
            field: error.field,
            rule: error.rule,
        })?;
        self.check_conflicts(id, how)?;
        let record = self.lookup.record(id)?;
        let role = match (how, record.body) {
            (JoinHow::Task, Body::Task(body)) => Role::Task {
                spec: Box::new(body.spec),
                checksum: record.checksum,
                owner: record.owner,
                bind: TaskBind::default(),
            },
            (how, _) => Role::Part(how.clone()),
        };
        let joined = Joined {
            role,
            bound: false,
            revision,
            changed: 0,
        };
        self.draft.wanted.joined.insert(id.clone(), joined);
        Ok(())
    }

    fn check_conflicts(&self, id: &ElementId, how: &JoinHow) -> Result<(), ComposeError> {
        for (other, joined) in &self.draft.wanted.joined {
            let Role::Part(part) = &joined.role else {
                continue;
            };
            let why = match (how, part) {
                (JoinHow::Image { .. }, JoinHow::Image { .. }) => "an executor has one root",
                (JoinHow::Network(_), JoinHow::Network(_)) => "an executor has one network",
                (JoinHow::Volume { target, .. }, JoinHow::Volume { target: taken, .. })
                    if target == taken =>
                {
                    "both have the same target"
                }
                _ => continue,
            };
            return Err(ComposeError::ConflictsWith {
                id: id.clone(),
                other: other.clone(),
                why,
            });
        }
        Ok(())
    }

    fn bind(&mut self, id: &ElementId, how: &BindHow) -> Result<(), ComposeError> {
        self.draft.touched.insert(id.clone());
        if id == self.executor {
            return match how {
                BindHow::Plain => Ok(()),
                BindHow::Executor(limits) => {
                    self.draft.wanted.limits = Some(limits.clone());
                    Ok(())
                }
                BindHow::Task(_) => Err(ComposeError::WrongBind { id: id.clone() }),
            };
        }
        let Some(joined) = self.draft.wanted.joined.get_mut(id) else {
            return Err(self.not_joined(id));
        };
        let settings = match (how, &joined.role) {
            (BindHow::Plain, _) => None,
            (BindHow::Task(settings), Role::Task { .. }) => Some(settings),
            _ => return Err(ComposeError::WrongBind { id: id.clone() }),
        };
        if let (Some(settings), Role::Task { bind, .. }) = (settings, &mut joined.role) {
            if joined.bound && bind != settings {
                return Err(ComposeError::AlreadyBound { id: id.clone() });
            }
            *bind = settings.clone();
        }
        if !joined.bound {
            joined.bound = true;
            self.started(id);
        }
        Ok(())
    }

    fn bind_all(&mut self, how: &BindHow) -> Result<(), ComposeError> {
        if *how != BindHow::Plain {
            return Err(ComposeError::WrongBind {
                id: self.executor.clone(),
            });
        }
        let unbound = |(id, joined): (&ElementId, &Joined)| (!joined.bound).then(|| id.clone());
        let all: Vec<_> = self
            .draft
            .wanted
            .joined
            .iter()
            .filter_map(unbound)
            .collect();
        for id in all {
            self.bind(&id, how)?;
        }
        Ok(())
    }

    fn started(&mut self, id: &ElementId) {
        let was_bound = self
            .committed
            .joined
            .get(id)
            .is_some_and(|joined| joined.bound);
        if id.kind() == Kind::Task && !was_bound {
            self.draft.starts.push(id.clone());
        }
    }

    fn unbind(&mut self, id: &ElementId) -> Result<(), ComposeError> {
        self.draft.touched.insert(id.clone());
        let Some(joined) = self.draft.wanted.joined.get_mut(id) else {
            return Err(self.not_joined(id));
        };
        joined.bound = false;
        self.draft.starts.retain(|start| start != id);
        Ok(())
    }

    fn unbind_where(&mut self, of_kind: impl Fn(Kind) -> bool) {
        for (id, joined) in &mut self.draft.wanted.joined {
            if joined.bound && of_kind(id.kind()) {
                joined.bound = false;
                self.draft.touched.insert(id.clone());
                self.draft.starts.retain(|start| start != id);
            }
        }
    }

    fn leave(&mut self, id: &ElementId) -> Result<(), ComposeError> {
        self.draft.touched.insert(id.clone());
        match self.draft.wanted.joined.get(id) {
            None => Err(self.not_joined(id)),
            Some(joined) if joined.bound => Err(ComposeError::StillBound { id: id.clone() }),
            Some(_) => {
                self.draft.wanted.joined.remove(id);
                Ok(())
            }
        }
    }

    fn not_joined(&self, id: &ElementId) -> ComposeError {
        ComposeError::NotJoined {
            id: id.clone(),
            executor: self.executor.clone(),
        }
    }
}
