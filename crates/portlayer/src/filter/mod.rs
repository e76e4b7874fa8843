//! The one filter language: of lists, events and the command line. It is containerd's, so that it is learned once.
//!
//! `kind==image,labels."team"~=^a` selects what is an image *and* whose `team` begins with `a`; several filters
//! select what any of them selects; none selects everything. A field an element does not have is the empty text, so
//! `parent!=x` holds for elements without parent; `parent` alone asks whether it is there. Fields with several values
//! (`ancestor`, `uses`, `labels` with the key in both maps) hold for `==` and `~=` when one value does, for `!=` when
//! all do. Unknown fields are errors, never ignored.

mod element;
mod event;
mod parser;
mod plan;
mod quote;
mod scanner;

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

pub use element::{ElementField, ElementView, Relations};
pub use event::EventField;
pub(crate) use plan::{Scan, plan};

use parser::Test;

/// Filters over elements.
pub type ElementFilter = Filter<ElementField>;
/// Filters over events.
pub type EventFilter = Filter<EventField>;

/// Bytes a compiled regular expression may take.
const REGEX_BYTES: usize = 1 << 20;
/// The longest accepted filter, in bytes.
const MAX_FILTER_BYTES: usize = 64 * 1024;

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid filter at offset {at}: {reason}")]
pub struct FilterError {
    /// Which of several filters, from 0.
    pub filter: usize,
    /// Offset in bytes into its text.
    pub at: usize,
    /// The rule.
    pub reason: String,
}

impl FilterError {
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self {
            filter: 0,
            at,
            reason: reason.into(),
        }
    }
}

impl From<FilterError> for crate::error::ReadError {
    fn from(error: FilterError) -> Self {
        crate::error::ReadError::InvalidFilter {
            at: error.at,
            reason: error.reason,
        }
    }
}

/// What can be filtered by.
pub trait Field: Sized {
    /// The field of a path. Error: why there is none, for people.
    fn resolve(path: &[String]) -> Result<Self, String>;
}

/// Parsed filters: what any of them selects is selected.
#[derive(Debug, Clone)]
pub struct Filter<F> {
    alternatives: Vec<Vec<Condition<F>>>,
}

/// One selector, ready to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Condition<F> {
    pub(crate) field: F,
    pub(crate) test: Compiled,
}

#[derive(Debug, Clone)]
pub(crate) enum Compiled {
    Present,
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    Matches(Regex),
}

impl<F> Default for Filter<F> {
    /// Selects everything.
    fn default() -> Self {
        Self {
            alternatives: Vec::new(),
        }
    }
}

impl<F: Field> Filter<F> {
    /// Parses filters. Error: the first fault with its offset.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, FilterError> {
        let mut alternatives = Vec::with_capacity(filters.len());
        for (at, text) in filters.iter().enumerate() {
            let parsed = conditions(text.as_ref());
            alternatives.push(parsed.map_err(|error| FilterError {
                filter: at,
                ..error
            })?);
        }
        Ok(Self { alternatives })
    }

    /// Whether the thing whose fields `values` gives is selected.
    pub fn selects<V: AsRef<[u8]>>(&self, values: impl Fn(&F) -> Vec<V>) -> bool {
        self.alternatives.is_empty()
            || self.alternatives.iter().any(|all| {
                all.iter()
                    .all(|condition| condition.test.holds(&values(&condition.field)))
            })
    }

    pub(crate) fn alternatives(&self) -> &[Vec<Condition<F>>] {
        &self.alternatives
    }
}

fn conditions<F: Field>(text: &str) -> Result<Vec<Condition<F>>, FilterError> {
    if text.len() > MAX_FILTER_BYTES {
        return Err(FilterError::new(
            MAX_FILTER_BYTES,
            "longer than 65536 bytes",
        ));
    }
    let mut conditions = Vec::new();
    for selector in parser::parse(text)? {
        let field = F::resolve(&selector.path).map_err(|why| FilterError::new(selector.at, why))?;
        let test = match selector.test {
            Test::Present => Compiled::Present,
            Test::Equal(value) => Compiled::Equal(value),
            Test::NotEqual(value) => Compiled::NotEqual(value),
            Test::Matches(value) => Compiled::Matches(regex(&value, selector.value_at)?),
        };
        conditions.push(Condition { field, test });
    }
    Ok(conditions)
}

fn regex(pattern: &[u8], at: usize) -> Result<Regex, FilterError> {
    let pattern = std::str::from_utf8(pattern)
        .map_err(|_| FilterError::new(at, "a regular expression is UTF-8 text"))?;
    RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(REGEX_BYTES)
        .nest_limit(64)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                FilterError::new(at, "the regular expression is too large")
            }
            _ => FilterError::new(at, "not a regular expression"),
        })
}

impl Compiled {
    fn holds<V: AsRef<[u8]>>(&self, values: &[V]) -> bool {
        let mut values = values.iter().map(AsRef::as_ref);
        match self {
            Compiled::Present => values.next().is_some(),
            Compiled::Equal(wanted) => values.any(|value| value == wanted),
            Compiled::NotEqual(wanted) => {
                let mut absent = true;
                let differ = values
                    .inspect(|_| absent = false)
                    .all(|value| value != wanted);
                if absent { !wanted.is_empty() } else { differ }
            }
            Compiled::Matches(regex) => {
                let mut absent = true;
                let found = values
                    .inspect(|_| absent = false)
                    .any(|value| regex.is_match(value));
                if absent { regex.is_match(b"") } else { found }
            }
        }
    }
}

#[cfg(test)]
mod tests;
