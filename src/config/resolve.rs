//! Flag over environment over file over default, remembering which it was.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::file::File;
use super::{Config, ConfigError, EngineMode, location, parse_size};

/// What the command line says; `None` = not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`: this file and no other.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--engine`.
    pub engine: Option<EngineMode>,
    /// `--address`.
    pub address: Option<PathBuf>,
    /// `--namespace`.
    pub namespace: Option<String>,
}

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
    fn variable(&self, name: &str) -> Option<&str> {
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

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every setting, in the order of the file.
    pub settings: Vec<Setting>,
}

/// Puts a configuration together. Reads at most one file: the one of `--config` or `PORTLAYER_CONFIG` (which must
/// exist), else `$XDG_CONFIG_HOME/portlayer/config.toml`, else the system's. Errors name the key and its origin.
pub fn load(flags: &Flags, environment: &Environment) -> Result<Loaded, ConfigError> {
    let (file, path) = read_file(flags, environment)?;
    let mut from = Sources {
        environment,
        path: &path,
        settings: Vec::new(),
    };
    let data_dir = from.pick(
        "data_dir",
        flags.data_dir.clone().map(|value| (value, "--data-dir")),
        &["PORTLAYER_DATA_DIR"],
        file.data_dir,
        default_data_dir(environment),
    )?;
    let Some(data_dir) = data_dir else {
        return Err(ConfigError::NoDataDir);
    };
    if !data_dir.is_absolute() {
        return from.refuse("data_dir", "an absolute path is needed");
    }
    let mut config = Config::new(data_dir);
    let engine = &mut config.engine;
    // Who names a containerd wants that one.
    let default_mode =
        if flags.address.is_some() || environment.variable("CONTAINERD_ADDRESS").is_some() {
            EngineMode::System
        } else {
            engine.mode
        };
    engine.mode = from.set(
        "engine.mode",
        flags.engine.map(|value| (value, "--engine")),
        &["PORTLAYER_ENGINE"],
        file.engine.mode,
        default_mode,
    )?;
    engine.address = from.set(
        "engine.address",
        flags.address.clone().map(|value| (value, "--address")),
        &["PORTLAYER_ADDRESS", "CONTAINERD_ADDRESS"],
        file.engine.address,
        engine.address.clone(),
    )?;
    engine.namespace = from.set(
        "engine.namespace",
        flags.namespace.clone().map(|value| (value, "--namespace")),
        &["PORTLAYER_NAMESPACE", "CONTAINERD_NAMESPACE"],
        file.engine.namespace,
        engine.namespace.clone(),
    )?;
    engine.snapshotter = from.set(
        "engine.snapshotter",
        None,
        &["PORTLAYER_SNAPSHOTTER", "CONTAINERD_SNAPSHOTTER"],
        file.engine.snapshotter,
        engine.snapshotter.clone(),
    )?;
    engine.containerd = from.set(
        "engine.containerd",
        None,
        &["PORTLAYER_CONTAINERD"],
        file.engine.containerd,
        engine.containerd.clone(),
    )?;
    engine.cgroup_parent = from.set(
        "engine.cgroup_parent",
        None,
        &["PORTLAYER_CGROUP_PARENT"],
        file.engine.cgroup_parent,
        engine.cgroup_parent.clone(),
    )?;
    config.ledger.cache_bytes = from.set_size(
        "ledger.cache",
        "PORTLAYER_LEDGER_CACHE",
        file.ledger.cache,
        config.ledger.cache_bytes,
    )?;
    config.ledger.event_retention = from.set(
        "ledger.event_retention",
        None,
        &["PORTLAYER_EVENT_RETENTION"],
        file.ledger.event_retention,
        config.ledger.event_retention,
    )?;
    config.logs.file_bytes = from.set_size(
        "logs.file",
        "PORTLAYER_LOG_FILE",
        file.logs.file,
        config.logs.file_bytes,
    )?;
    config.logs.files = from.set(
        "logs.files",
        None,
        &["PORTLAYER_LOG_FILES"],
        file.logs.files,
        config.logs.files,
    )?;
    // Locations are structured: only a file can give them, and it gives all of them.
    let origin = match file.locations {
        Some(locations) => {
            config.locations = locations;
            Origin::File(path.clone().unwrap_or_default())
        }
        None => Origin::Default,
    };
    if let Err((key, rule)) = location::check(&config.locations) {
        return Err(ConfigError::Value { key, origin, rule });
    }
    from.record("locations", &config.locations, origin);
    if config.logs.files == 0 {
        return from.refuse("logs.files", "at least 1");
    }
    check_engine(&config, &from)?;
    Ok(Loaded {
        config,
        settings: from.settings,
    })
}

fn check_engine(config: &Config, from: &Sources<'_>) -> Result<(), ConfigError> {
    let engine = &config.engine;
    let name = |text: &str| {
        !text.is_empty()
            && text.len() <= 76
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if !name(&engine.namespace) {
        return from.refuse("engine.namespace", "1 to 76 of A-Z a-z 0-9 . _ -");
    }
    if !name(&engine.snapshotter) {
        return from.refuse("engine.snapshotter", "1 to 76 of A-Z a-z 0-9 . _ -");
    }
    if !engine.address.is_absolute() {
        return from.refuse("engine.address", "the absolute path of a socket is needed");
    }
    if !engine.cgroup_parent.starts_with('/') || engine.cgroup_parent.contains("..") {
        return from.refuse(
            "engine.cgroup_parent",
            "an absolute path without .. is needed",
        );
    }
    Ok(())
}

fn read_file(
    flags: &Flags,
    environment: &Environment,
) -> Result<(File, Option<PathBuf>), ConfigError> {
    let named = flags
        .config
        .clone()
        .or_else(|| environment.variable("PORTLAYER_CONFIG").map(PathBuf::from));
    let candidates = match &named {
        Some(path) => vec![path.clone()],
        None => user_dir(environment, "XDG_CONFIG_HOME", ".config")
            .map(|dir| dir.join("portlayer/config.toml"))
            .into_iter()
            .chain([environment.system_file.clone()])
            .collect(),
    };
    for path in candidates {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                continue;
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let file = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.clone(),
            source: Box::new(source),
        })?;
        return Ok((file, Some(path)));
    }
    Ok((File::default(), None))
}

fn default_data_dir(environment: &Environment) -> Option<PathBuf> {
    if environment.root && environment.variable("XDG_STATE_HOME").is_none() {
        return Some(PathBuf::from("/var/lib/portlayer"));
    }
    user_dir(environment, "XDG_STATE_HOME", ".local/state").map(|dir| dir.join("portlayer"))
}

/// An XDG base directory; a relative one is ignored, as the XDG base directory specification says.
fn user_dir(environment: &Environment, variable: &str, below_home: &str) -> Option<PathBuf> {
    environment
        .variable(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| {
            environment
                .variable("HOME")
                .map(|home| Path::new(home).join(below_home))
        })
}

struct Sources<'a> {
    environment: &'a Environment,
    path: &'a Option<PathBuf>,
    settings: Vec<Setting>,
}

impl Sources<'_> {
    /// The first that is there; `None` when there is no default either.
    fn pick<T>(
        &mut self,
        key: &'static str,
        flag: Option<(T, &'static str)>,
        variables: &[&'static str],
        file: Option<T>,
        default: Option<T>,
    ) -> Result<Option<T>, ConfigError>
    where
        T: FromStr + Serialize,
        T::Err: fmt::Display,
    {
        let (value, origin) = if let Some((value, name)) = flag {
            (value, Origin::Flag(name))
        } else if let Some((text, name)) = variables
            .iter()
            .find_map(|name| Some((self.environment.variable(name)?, *name)))
        {
            let origin = Origin::Variable(name);
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

    /// As `pick`, where there always is a default.
    fn set<T>(
        &mut self,
        key: &'static str,
        flag: Option<(T, &'static str)>,
        variables: &[&'static str],
        file: Option<T>,
        default: T,
    ) -> Result<T, ConfigError>
    where
        T: FromStr + Serialize + Clone,
        T::Err: fmt::Display,
    {
        let picked = self.pick(key, flag, variables, file, Some(default.clone()))?;
        Ok(picked.unwrap_or(default))
    }

    /// A size in bytes, written with or without unit.
    fn set_size(
        &mut self,
        key: &'static str,
        variable: &'static str,
        file: Option<String>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        let text = self.set(key, None, &[variable], file, default.to_string())?;
        parse_size(&text).or_else(|rule| self.refuse(key, &rule.to_string()))
    }

    fn record<T: Serialize>(&mut self, key: &'static str, value: &T, origin: Origin) {
        let value = serde_json::to_value(value).unwrap_or(serde_json::Value::Null);
        self.settings.push(Setting { key, value, origin });
    }

    fn refuse<T>(&self, key: &str, rule: &str) -> Result<T, ConfigError> {
        let origin = self
            .settings
            .iter()
            .find(|setting| setting.key == key)
            .map_or(Origin::Default, |setting| setting.origin.clone());
        Err(ConfigError::Value {
            key: key.to_owned(),
            origin,
            rule: rule.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portlayer::element::Kind;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment {
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            root: true,
            system_file: PathBuf::from("/nonexistent/portlayer.toml"),
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, Flags) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let flags = Flags {
            config: Some(path),
            ..Flags::default()
        };
        (dir, flags)
    }

    fn origin(loaded: &Loaded, key: &str) -> String {
        let setting = loaded.settings.iter().find(|s| s.key == key).unwrap();
        setting.origin.to_string()
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let (_dir, mut flags) = file("[engine]\nnamespace = 'from-file'\n");
        let bare = load(&Flags::default(), &environment(&[])).unwrap();
        assert_eq!(bare.config.engine.namespace, "portlayer");
        assert_eq!(origin(&bare, "engine.namespace"), "default");

        let loaded = load(&flags, &environment(&[])).unwrap();
        assert_eq!(loaded.config.engine.namespace, "from-file");
        assert!(origin(&loaded, "engine.namespace").starts_with("file /"));

        let foreign = environment(&[("CONTAINERD_NAMESPACE", "foreign")]);
        let loaded = load(&flags, &foreign).unwrap();
        assert_eq!(loaded.config.engine.namespace, "foreign");
        let both = environment(&[
            ("CONTAINERD_NAMESPACE", "foreign"),
            ("PORTLAYER_NAMESPACE", "ours"),
        ]);
        let loaded = load(&flags, &both).unwrap();
        assert_eq!(loaded.config.engine.namespace, "ours");
        assert_eq!(
            origin(&loaded, "engine.namespace"),
            "environment PORTLAYER_NAMESPACE"
        );

        flags.namespace = Some("flag".to_owned());
        let loaded = load(&flags, &both).unwrap();
        assert_eq!(loaded.config.engine.namespace, "flag");
        assert_eq!(origin(&loaded, "engine.namespace"), "flag --namespace");
    }

    #[test]
    fn data_go_where_the_user_expects_them() {
        let root = load(&Flags::default(), &environment(&[("HOME", "/root")])).unwrap();
        assert_eq!(root.config.data_dir, Path::new("/var/lib/portlayer"));
        let mut user = environment(&[("HOME", "/home/u")]);
        user.root = false;
        let loaded = load(&Flags::default(), &user).unwrap();
        assert_eq!(
            loaded.config.data_dir,
            Path::new("/home/u/.local/state/portlayer")
        );
        let xdg = environment(&[("HOME", "/root"), ("XDG_STATE_HOME", "/srv/state")]);
        let loaded = load(&Flags::default(), &xdg).unwrap();
        assert_eq!(loaded.config.data_dir, Path::new("/srv/state/portlayer"));
        let mut homeless = environment(&[]);
        homeless.root = false;
        assert!(matches!(
            load(&Flags::default(), &homeless),
            Err(ConfigError::NoDataDir)
        ));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        for (text, key) in [
            ("dat_dir = '/x'", "dat_dir"),
            ("[engine]\nadress = '/x'", "adress"),
            (
                "[[locations]]\nname = 'a'\nkinds = ['image']\ncolour = 'red'",
                "colour",
            ),
        ] {
            let (_dir, flags) = file(text);
            let error = load(&flags, &environment(&[])).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn bad_values_name_key_and_origin() {
        for (text, key) in [
            ("data_dir = 'relative'", "data_dir"),
            ("[ledger]\ncache = '12 apples'", "ledger.cache"),
            ("[logs]\nfiles = 0", "logs.files"),
            (
                "[engine]\ncgroup_parent = '/a/../..'",
                "engine.cgroup_parent",
            ),
            (
                "[[locations]]\nname = 'builtin'\nkinds = ['task']",
                "locations[0].name",
            ),
            (
                "[[locations]]\nname = 'A'\nkinds = ['task']",
                "locations[0].name",
            ),
            (
                "[[locations]]\nname = 'a'\nkinds = ['image']",
                "locations[0].backing",
            ),
            (
                "[[locations]]\nname = 'a'\nkinds = []",
                "locations[0].kinds",
            ),
        ] {
            let (_dir, flags) = file(text);
            let error = load(&flags, &environment(&[])).unwrap_err();
            let ConfigError::Value {
                key: found,
                origin: Origin::File(_),
                ..
            } = &error
            else {
                panic!("{text}: {error}");
            };
            assert_eq!(found, key);
        }
        let error = load(
            &Flags::default(),
            &environment(&[("PORTLAYER_ENGINE", "best")]),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "engine.mode from environment PORTLAYER_ENGINE: expected private or system"
        );
    }

    #[test]
    fn a_file_gives_all_locations() {
        let (_dir, flags) = file(
            "[[locations]]\nname = 'disk'\nkinds = ['volume']\npolicy = 'create-only'\n\
             backing = { type = 'block', size = '2GiB' }\n",
        );
        let config = load(&flags, &environment(&[])).unwrap().config;
        assert_eq!(config.locations.len(), 1);
        assert_eq!(
            config.locations[0].backing,
            super::super::Backing::Block {
                path: None,
                size: 2 << 30
            }
        );
        assert_eq!(config.default_location(Kind::Volume), Some("disk"));
        assert_eq!(config.default_location(Kind::Image), None);
    }

    #[test]
    fn naming_a_containerd_means_using_it() {
        let env = environment(&[("CONTAINERD_ADDRESS", "/run/c.sock")]);
        let config = load(&Flags::default(), &env).unwrap().config;
        assert_eq!(config.engine.mode, EngineMode::System);
        assert_eq!(config.engine.address, Path::new("/run/c.sock"));
        let private = Flags {
            engine: Some(EngineMode::Private),
            ..Flags::default()
        };
        assert_eq!(
            load(&private, &env).unwrap().config.engine.mode,
            EngineMode::Private
        );
    }

    #[test]
    fn a_file_that_was_asked_for_must_exist() {
        let flags = Flags {
            config: Some("/nonexistent/x.toml".into()),
            ..Flags::default()
        };
        assert!(matches!(
            load(&flags, &environment(&[])),
            Err(ConfigError::Read { .. })
        ));
    }
}
