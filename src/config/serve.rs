//! How the daemon serves: who may use its socket, TLS.

use std::fmt;
use std::num::ParseIntError;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::source::Sources;
use super::{ConfigError, file};

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything that changes nothing.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read-only" => Ok(Role::ReadOnly),
            "read-write" => Ok(Role::ReadWrite),
            _ => Err("expected read-only or read-write"),
        }
    }
}

/// User or group ids; as text separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ids(pub Vec<u32>);

impl FromStr for Ids {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty());
        ids.map(str::parse).collect::<Result<_, _>>().map(Ids)
    }
}

/// Permission bits; as text in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Mode(mode)),
            _ => Err("permission bits in octal are needed, as 0660"),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How the daemon serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServeSettings {
    /// Permission bits of the socket.
    pub mode: Mode,
    /// Group of the socket, by name or number; `None` = ours.
    pub group: Option<String>,
    /// Users that may do everything.
    pub read_write_uids: Ids,
    /// Groups whose members may do everything.
    pub read_write_gids: Ids,
    /// Users that may look.
    pub read_only_uids: Ids,
    /// Groups whose members may look.
    pub read_only_gids: Ids,
    /// Seconds calls in flight have to come to their end when the daemon is stopped.
    pub drain_seconds: u64,
    /// `host:port` of a listener for `/metrics`, which asks nobody who they are; `None` = none.
    pub metrics: Option<String>,
    /// TLS beside the socket.
    pub tls: Option<TlsSettings>,
}

/// Serving over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsSettings {
    /// `host:port` to listen on.
    pub address: String,
    /// Our certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authority that signed the certificates of callers; without it callers need none.
    pub client_ca: Option<PathBuf>,
    /// What callers may do.
    pub role: Role,
}

impl Default for ServeSettings {
    /// Only root may call.
    fn default() -> Self {
        Self {
            mode: Mode(0o660),
            group: None,
            read_write_uids: Ids(vec![0]),
            read_write_gids: Ids::default(),
            read_only_uids: Ids::default(),
            read_only_gids: Ids::default(),
            drain_seconds: 10,
            metrics: None,
            tls: None,
        }
    }
}

/// Environment over file over default for every setting of `[serve]`.
pub(super) fn resolve(
    file: file::Serve,
    default: ServeSettings,
    from: &mut Sources<'_>,
) -> Result<ServeSettings, ConfigError> {
    let mode = match file.mode.map(|text| text.parse::<Mode>()).transpose() {
        Ok(mode) => mode,
        Err(rule) => {
            from.record("serve.mode", &"", from.file_origin());
            return from.refuse("serve.mode", rule);
        }
    };
    let drain = "serve.drain_seconds";
    Ok(ServeSettings {
        mode: from.set("serve.mode", "PORTLAYER_SOCKET_MODE", mode, default.mode)?,
        group: from.pick(
            "serve.group",
            None,
            "PORTLAYER_SOCKET_GROUP",
            file.group,
            default.group,
        )?,
        read_write_uids: from.set(
            "serve.read_write_uids",
            "PORTLAYER_READ_WRITE_UIDS",
            file.read_write_uids,
            default.read_write_uids,
        )?,
        read_write_gids: from.set(
            "serve.read_write_gids",
            "PORTLAYER_READ_WRITE_GIDS",
            file.read_write_gids,
            default.read_write_gids,
        )?,
        read_only_uids: from.set(
            "serve.read_only_uids",
            "PORTLAYER_READ_ONLY_UIDS",
            file.read_only_uids,
            default.read_only_uids,
        )?,
        read_only_gids: from.set(
            "serve.read_only_gids",
            "PORTLAYER_READ_ONLY_GIDS",
            file.read_only_gids,
            default.read_only_gids,
        )?,
        drain_seconds: from.set(
            drain,
            "PORTLAYER_DRAIN_SECONDS",
            file.drain_seconds,
            default.drain_seconds,
        )?,
        metrics: from.pick(
            "serve.metrics",
            None,
            "PORTLAYER_METRICS",
            file.metrics,
            default.metrics,
        )?,
        tls: tls(file.tls, from)?,
    })
}

/// TLS is on when it has an address; then certificate and key are needed too.
fn tls(file: file::Tls, from: &mut Sources<'_>) -> Result<Option<TlsSettings>, ConfigError> {
    let address = from.pick(
        "serve.tls.address",
        None,
        "PORTLAYER_TLS_ADDRESS",
        file.address,
        None,
    )?;
    let certificate = from.pick(
        "serve.tls.certificate",
        None,
        "PORTLAYER_TLS_CERTIFICATE",
        file.certificate,
        None,
    )?;
    let key = from.pick("serve.tls.key", None, "PORTLAYER_TLS_KEY", file.key, None)?;
    let client_ca = from.pick(
        "serve.tls.client_ca",
        None,
        "PORTLAYER_TLS_CLIENT_CA",
        file.client_ca,
        None,
    )?;
    let role = from.pick(
        "serve.tls.role",
        None,
        "PORTLAYER_TLS_ROLE",
        file.role,
        None,
    )?;
    let Some(address) = address else {
        if certificate.is_some() || key.is_some() || client_ca.is_some() || role.is_some() {
            return from.refuse("serve.tls.address", "it is needed with any setting of TLS");
        }
        return Ok(None);
    };
    let Some(certificate) = certificate else {
        return from.refuse("serve.tls.certificate", "it is needed with an address");
    };
    let Some(key) = key else {
        return from.refuse("serve.tls.key", "it is needed with an address");
    };
    let role = role.unwrap_or(Role::ReadOnly);
    if role == Role::ReadWrite && client_ca.is_none() {
        let rule = "read-write over TLS needs client_ca, or anybody could do everything";
        return from.refuse("serve.tls.role", rule);
    }
    Ok(Some(TlsSettings {
        address,
        certificate,
        key,
        client_ca,
        role,
    }))
}
