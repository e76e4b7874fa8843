//! Which locations cannot be used right now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::LocationError;

/// The unusable locations with the reason for people. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Health {
    away: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Health {
    /// Error: `Unavailable` while the location cannot be used.
    pub(crate) fn check(&self, location: &str) -> Result<(), LocationError> {
        match self.lock().get(location) {
            None => Ok(()),
            Some(reason) => Err(LocationError::Unavailable {
                location: location.to_owned(),
                reason: reason.clone(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
