//! Where values come from: what is asked for a value, in order, and which of them gave it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{ConfigError, parse_size};

/// What the process was started in; a value, so that a test can make one.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Environment variables that are valid text.
    pub variables: BTreeMap<String, String>,
    /// Runs as root: the data directory is the system's.
    pub root: bool,
    /// The system's configuration file, used when the user has none.
    pub system_file: PathBuf,
}

impl Environment {
    /// The environment of this process; the system's file is `/etc/portlayer/config.toml`.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            root: nix::unistd::Uid::effective().is_root(),
            system_file: PathBuf::from("/etc/portlayer/config.toml"),
        }
    }

    /// A variable that is set and not empty (an empty one means unset, as with the XDG variables).
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This flag.
    Flag(&'static str),
    /// This variable.
    Variable(&'static str),
    /// This file.
    File(PathBuf),
    /// Nobody said otherwise.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "flag {flag}"),
            Origin::Variable(name) => write!(f, "environment {name}"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One setting with its origin, for `config dump`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Name, as in the file.
    pub key: &'static str,
    /// Value.
    pub value: serde_json::Value,
    /// Where it came from.
    pub origin: Origin,
}

/// What is asked for values, and what was found so far.
pub(super) struct Sources<'a> {
    pub(super) environment: &'a Environment,
    /// The file that was read.
    pub(super) path: &'a Option<PathBuf>,
    pub(super) settings: Vec<Setting>,
}

impl Sources<'_> {
    /// The first that is there; `None` when there is no default either.
    pub(super) fn pick<T>(
        &mut self,
        key: &'static str,
        flag: Option<(T, &'static str)>,
        variable: &'static str,
        file: Option<T>,
        default: Option<T>,
    ) -> Result<Option<T>, ConfigError>
    where
        T: FromStr + Serialize,
        T::Err: fmt::Display,
    {
        let (value, origin) = if let Some((value, name)) = flag {
            (value, Origin::Flag(name))
        } else if let Some(text) = self.environment.variable(variable) {
            let origin = Origin::Variable(variable);
            match text.parse::<T>() {
                Ok(value) => (value, origin),
                Err(rule) => {
                    return Err(ConfigError::Value {
                        key: key.to_owned(),
                        origin,
                        rule: rule.to_string(),
                    });
                }
            }
        } else if let (Some(value), Some(path)) = (file, self.path) {
            (value, Origin::File(path.clone()))
        } else if let Some(value) = default {
            (value, Origin::Default)
        } else {
            return Ok(None);
        };
        self.record(key, &value, origin);
        Ok(Some(value))
    }

    /// As `pick`, where there is no flag and always a default.
    pub(super) fn set<T>(
        &mut self,
        key: &'static str,
        variable: &'static str,
        file: Option<T>,
        default: T,
    ) -> Result<T, ConfigError>
    where
        T: FromStr + Serialize + Clone,
        T::Err: fmt::Display,
    {
        let picked = self.pick(key, None, variable, file, Some(default.clone()))?;
        Ok(picked.unwrap_or(default))
    }

    /// A size in bytes, written with or without unit.
    pub(super) fn set_size(
        &mut self,
        key: &'static str,
        variable: &'static str,
        file: Option<String>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        let text = self.set(key, variable, file, default.to_string())?;
        parse_size(&text).or_else(|rule| self.refuse(key, &rule.to_string()))
    }

    pub(super) fn record<T: Serialize>(&mut self, key: &'static str, value: &T, origin: Origin) {
        let value = serde_json::to_value(value).unwrap_or(serde_json::Value::Null);
        self.settings.push(Setting { key, value, origin });
    }

    /// Where a value that was picked came from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let mut settings = self.settings.iter();
        let found = settings.find(|setting| setting.key == key);
        found.map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// The file that was read, as an origin.
    pub(super) fn file_origin(&self) -> Origin {
        self.path.clone().map_or(Origin::Default, Origin::File)
    }

    pub(super) fn refuse<T>(&self, key: &str, rule: &str) -> Result<T, ConfigError> {
        Err(ConfigError::Value {
            key: key.to_owned(),
            origin: self.origin(key),
            rule: rule.to_owned(),
        })
    }
}
