//! Flag over environment over file over default, remembering which it was.

use std::path::{Path, PathBuf};

use super::file::File;
use super::source::{Environment, Origin, Setting, Sources};
use super::{Config, ConfigError, SOCKET, Way, location, network, pull, serve};

/// The smallest log file: below it there would be a file for every few lines.
const MIN_LOG_FILE_BYTES: u64 = 4 << 10;

/// What the command line says; `None` = not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`: this file and no other.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--embedded`.
    pub embedded: bool,
}

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every setting, in the order of the file.
    pub settings: Vec<Setting>,
    /// How a command comes to the port layer.
    pub way: Way,
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
        "PORTLAYER_DATA_DIR",
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
    let socket = from.pick(
        "socket",
        flags.socket.clone().map(|value| (value, "--socket")),
        "PORTLAYER_SOCKET",
        file.socket,
        Some(default_socket(environment, &config, &from)),
    )?;
    config.socket = socket.unwrap_or_default();
    if !config.socket.is_absolute() {
        return from.refuse("socket", "an absolute path is needed");
    }
    let embedded = from.pick(
        "embedded",
        flags.embedded.then_some((true, "--embedded")),
        "PORTLAYER_EMBEDDED",
        file.embedded,
        Some(false),
    )?;
    config.embedded = embedded == Some(true);
    let engine = &mut config.engine;
    engine.containerd = from.set(
        "engine.containerd",
        "PORTLAYER_CONTAINERD",
        file.engine.containerd,
        engine.containerd.clone(),
    )?;
    engine.runc = from.set(
        "engine.runc",
        "PORTLAYER_RUNC",
        file.engine.runc,
        engine.runc.clone(),
    )?;
    engine.disk_pool_bytes = from.set_size(
        "engine.disk_pool",
        "PORTLAYER_DISK_POOL",
        file.engine.disk_pool,
        engine.disk_pool_bytes,
    )?;
    let all = engine.id_ranges.clone();
    let ranges = from.set(
        "engine.id_ranges",
        "PORTLAYER_ID_RANGES",
        file.engine.id_ranges,
        format!("{}-{}", all.start, all.end - 1),
    )?;
    let parsed = ranges.split_once('-').and_then(|(first, last)| {
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse::<u32>().ok()?);
        (first <= last && last < all.end).then(|| first..last + 1)
    });
    match parsed {
        Some(parsed) => engine.id_ranges = parsed,
        None => {
            let rule = format!("FIRST-LAST is needed, at most 0-{}", all.end - 1);
            return from.refuse("engine.id_ranges", &rule);
        }
    }
    // There is no default: it is for nodes that keep their networks apart from the host's own.
    if let (Some(namespace), Some(file)) = (file.engine.network_namespace, &path) {
        let key = "engine.network_namespace";
        from.record(key, &namespace, Origin::File(file.clone()));
        if !namespace.is_absolute() {
            return from.refuse(key, "an absolute path is needed");
        }
        engine.network_namespace = Some(namespace);
    }
    config.ledger.cache_bytes = from.set_size(
        "ledger.cache",
        "PORTLAYER_LEDGER_CACHE",
        file.ledger.cache,
        config.ledger.cache_bytes,
    )?;
    config.ledger.event_retention = from.set(
        "ledger.event_retention",
        "PORTLAYER_EVENT_RETENTION",
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
        "PORTLAYER_LOG_FILES",
        file.logs.files,
        config.logs.files,
    )?;
    // A list: only a file can give it.
    let origin = match &file.logs.destinations {
        Some(_) => from.file_origin(),
        None => Origin::Default,
    };
    if let Some(destinations) = file.logs.destinations {
        config.logs.destinations = destinations;
    }
    from.record("logs.destinations", &config.logs.destinations, origin);
    config.serve = serve::resolve(file.serve, config.serve, &mut from)?;
    config.trace.endpoint = from.pick(
        "trace.endpoint",
        None,
        "PORTLAYER_TRACE_ENDPOINT",
        file.trace.endpoint,
        None,
    )?;
    config.pull = pull::resolve(file.pull, config.pull, &mut from)?;
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
    // So are networks.
    let origin = match (&path, file.networks.is_empty()) {
        (Some(path), false) => Origin::File(path.clone()),
        _ => Origin::Default,
    };
    config.networks = match network::specs(&file.networks) {
        Ok(specs) => specs,
        Err((key, rule)) => return Err(ConfigError::Value { key, origin, rule }),
    };
    from.record("networks", &file.networks, origin);
    // And what tables of names are in.
    let origin = match (&path, &file.diego) {
        (Some(path), Some(_)) => Origin::File(path.clone()),
        _ => Origin::Default,
    };
    config.diego = file.diego.unwrap_or_default();
    from.record("diego", &config.diego, origin);
    check(&config, &from)?;
    Ok(Loaded {
        way: Way::of(config.embedded, &from),
        config,
        settings: from.settings,
    })
}

/// The rules of single values.
fn check(config: &Config, from: &Sources<'_>) -> Result<(), ConfigError> {
    for (key, program) in [
        ("engine.containerd", &config.engine.containerd),
        ("engine.runc", &config.engine.runc),
    ] {
        // Relative to what? containerd starts runc and is in another directory than we are.
        let relative = program.contains('/') && !program.starts_with('/');
        if program.is_empty() || relative {
            return from.refuse(key, "a name in PATH or an absolute path is needed");
        }
    }
    if let Some(endpoint) = &config.trace.endpoint {
        let key = "trace.endpoint";
        if !cfg!(feature = "otel") {
            return from.refuse(key, "this program was built without the feature otel");
        }
        if !endpoint.starts_with("http://") {
            return from.refuse(key, "http://host:port is needed");
        }
    }
    if config.logs.file_bytes < MIN_LOG_FILE_BYTES {
        return from.refuse("logs.file", "at least 4 KiB");
    }
    let kinds = ["unix:/", "path:/", "tcp:"];
    let mut destinations = config.logs.destinations.iter();
    if let Some(bad) = destinations.find(|text| !kinds.iter().any(|kind| text.starts_with(kind))) {
        let rule = format!("{bad:?} is none of unix:/PATH, path:/PATH, tcp:HOST:PORT");
        return from.refuse("logs.destinations", &rule);
    }
    if config.logs.files == 0 {
        return from.refuse("logs.files", "at least 1");
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

/// The socket of the system's daemon, or of the user's; beside the data where a flag or the environment says where
/// those are, so that several nodes of one machine do not meet.
fn default_socket(environment: &Environment, config: &Config, from: &Sources<'_>) -> PathBuf {
    let named = matches!(
        from.origin("data_dir"),
        Origin::Flag(_) | Origin::Variable(_)
    );
    let runtime = environment.variable("XDG_RUNTIME_DIR").map(Path::new);
    match runtime.filter(|path| path.is_absolute()) {
        _ if named => config.socket.clone(),
        _ if environment.root => PathBuf::from("/run/portlayer").join(SOCKET),
        Some(directory) => directory.join("portlayer").join(SOCKET),
        None => config.socket.clone(),
    }
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
