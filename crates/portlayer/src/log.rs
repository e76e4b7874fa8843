//! Logs: where output of tasks goes, as the elements `log://node/<name>` say it. Pure; the runtime writes.
//!
//! Output that is not discarded or handed over is always in the node's files first ([`LogKind::File`]); what else a stream
//! goes to follows those files, each with a place of its own that survives us. So nothing is lost while a receiver is away,
//! as far back as the files go.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where journald listens for its native protocol.
pub const JOURNALD: &str = "/run/systemd/journal/socket";
/// Where the local syslog listens.
pub const DEV_LOG: &str = "/dev/log";

/// The longest line that is sent on, in bytes: with its fields it fits the datagrams of local sockets.
pub const MAX_LINE_BYTES: u32 = 64 << 10;
/// The default of it.
const LINE_BYTES: u32 = 16 << 10;
/// The smallest file.
const MIN_FILE_BYTES: u64 = 4 << 10;

/// A log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// What it is.
    pub kind: LogKind,
    /// Lines a second that are sent on, for each task and stream; what is beyond is dropped and counted. 0 = all of them.
    pub lines_per_second: u32,
    /// Bytes of a line that are sent on; the rest of a longer one is dropped and counted.
    pub line_bytes: u32,
    /// The values of a task's secrets are replaced in its output, before anything is stored.
    pub redact: bool,
}

/// What a log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogKind {
    /// Bounded files of the node, for each task: what `logs` reads. `None` = the node's bounds.
    File(Option<FileBounds>),
    /// Nowhere.
    Null,
    /// journald, by its native protocol.
    Journald {
        /// Its socket.
        socket: String,
        /// `SYSLOG_IDENTIFIER`.
        identifier: String,
    },
    /// Syslog as in RFC 5424.
    Syslog {
        /// Where.
        to: SyslogAddress,
        /// Facility, 0 to 23.
        facility: u8,
        /// APP-NAME.
        app: String,
    },
    /// A FIFO or file of a caller that the engine gets as it is: nothing of it is stored, limited or redacted.
    Path(String),
}

/// How much of a task's output the files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBounds {
    /// Bytes after which the next file is begun.
    pub file_bytes: u64,
    /// Files kept, the newest included.
    pub files: u32,
}

/// Where a syslog server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogAddress {
    /// A socket of this host, a message a datagram.
    Unix(String),
    /// `host:port`, messages with counted octets (RFC 6587).
    Tcp(String),
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {rule}")]
pub struct LogError {
    /// The setting.
    pub field: String,
    /// What it breaks.
    pub rule: String,
}

fn refuse<T>(field: &str, rule: impl Into<String>) -> Result<T, LogError> {
    Err(LogError {
        field: field.to_owned(),
        rule: rule.into(),
    })
}

/// Facilities by name (RFC 5424, 6.2.1), those of the kernel left out.
const FACILITIES: [(&str, u8); 11] = [
    ("user", 1),
    ("daemon", 3),
    ("syslog", 5),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

impl LogSpec {
    /// A log with the usual limits.
    pub fn new(kind: LogKind) -> Self {
        Self {
            kind,
            lines_per_second: 0,
            line_bytes: LINE_BYTES,
            redact: false,
        }
    }

    /// Reads the settings of an element: `kind`, and what the kind has. No settings at all are the node's files. Error: the
    /// setting and the rule it breaks.
    pub fn of_settings(settings: &BTreeMap<String, String>) -> Result<Self, LogError> {
        let mut left: BTreeMap<&str, &str> = settings
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let kind = match left.remove("kind") {
            None if settings.is_empty() => LogKind::File(None),
            None => return refuse("kind", "file, null, journald, syslog or path is needed"),
            Some("file") => file(&mut left)?,
            Some("null") => LogKind::Null,
            Some("journald") => LogKind::Journald {
                socket: absolute("socket", left.remove("socket").unwrap_or(JOURNALD))?,
                identifier: word("identifier", left.remove("identifier"))?,
            },
            Some("syslog") => syslog(&mut left)?,
            Some("path") => match left.remove("path") {
                Some(path) => LogKind::Path(absolute("path", path)?),
                None => return refuse("path", "the FIFO or file is needed"),
            },
            Some(_) => return refuse("kind", "file, null, journald, syslog or path"),
        };
        let mut spec = LogSpec::new(kind);
        if let Some(text) = left.remove("rate") {
            spec.lines_per_second = number("rate", text)?;
        }
        if let Some(text) = left.remove("line") {
            spec.line_bytes = number("line", text)?;
            if !(16..=MAX_LINE_BYTES).contains(&spec.line_bytes) {
                return refuse("line", "16 to 65536 bytes");
            }
        }
        match left.remove("redact") {
            None | Some("none") => {}
            Some("secrets") => spec.redact = true,
            Some(_) => return refuse("redact", "secrets or none"),
        }
        if let LogKind::Path(_) = spec.kind
            && spec != LogSpec::new(spec.kind.clone())
        {
            return refuse(
                "kind",
                "what is handed over is neither limited nor redacted",
            );
        }
        match left.keys().next() {
            Some(key) => refuse(key, "no such setting of this kind of log"),
            None => Ok(spec),
        }
    }

    /// Output goes on to somewhere else than the node's files.
    pub fn is_forwarded(&self) -> bool {
        matches!(self.kind, LogKind::Journald { .. } | LogKind::Syslog { .. })
    }

    /// The place outside of the node's own data that it reaches, as the node's owner allows it: `unix:/dev/log`,
    /// `tcp:logs.example:601`, `path:/run/collector/x`.
    pub fn destination(&self) -> Option<String> {
        match &self.kind {
            LogKind::File(_) | LogKind::Null => None,
            LogKind::Journald { socket, .. } => Some(format!("unix:{socket}")),
            LogKind::Syslog { to, .. } => Some(match to {
                SyslogAddress::Unix(path) => format!("unix:{path}"),
                SyslogAddress::Tcp(address) => format!("tcp:{address}"),
            }),
            LogKind::Path(path) => Some(format!("path:{path}")),
        }
    }
}

fn file(left: &mut BTreeMap<&str, &str>) -> Result<LogKind, LogError> {
    let bounds = (left.remove("file_bytes"), left.remove("files"));
    let (Some(bytes), Some(files)) = bounds else {
        return match bounds {
            (None, None) => Ok(LogKind::File(None)),
            _ => refuse("files", "file_bytes and files come together"),
        };
    };
    let bounds = FileBounds {
        file_bytes: number("file_bytes", bytes)?,
        files: number("files", files)?,
    };
    if bounds.file_bytes < MIN_FILE_BYTES {
        return refuse("file_bytes", "at least 4096");
    }
    if bounds.files == 0 {
        return refuse("files", "at least 1");
    }
    Ok(LogKind::File(Some(bounds)))
}

fn syslog(left: &mut BTreeMap<&str, &str>) -> Result<LogKind, LogError> {
    let to = match left.remove("address") {
        None => SyslogAddress::Unix(DEV_LOG.to_owned()),
        Some(text) => match text.split_once(':') {
            Some(("unix", path)) => SyslogAddress::Unix(absolute("address", path)?),
            Some(("tcp", address)) => {
                let port = address
                    .rsplit_once(':')
                    .map(|(_, port)| port.parse::<u16>());
                let fits =
                    address.len() <= 260 && !address.contains(|c: char| c.is_control() || c == ' ');
                match port {
                    Some(Ok(1..)) if fits => SyslogAddress::Tcp(address.to_owned()),
                    _ => return refuse("address", "tcp: is followed by host:port"),
                }
            }
            _ => return refuse("address", "unix:/path or tcp:host:port"),
        },
    };
    let name = left.remove("facility").unwrap_or("user");
    let Some((_, facility)) = FACILITIES.iter().find(|(known, _)| *known == name) else {
        return refuse("facility", "user, daemon, syslog or local0 to local7");
    };
    let app = word("app", left.remove("app"))?;
    Ok(LogKind::Syslog {
        to,
        facility: *facility,
        app,
    })
}

/// Names in messages: printable and without spaces (RFC 5424, 6.2.5).
fn word(field: &str, text: Option<&str>) -> Result<String, LogError> {
    let text = text.unwrap_or("portlayer");
    match (1..=48).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => refuse(field, "1 to 48 printable characters without spaces"),
    }
}

fn number<T: FromStr>(field: &str, text: &str) -> Result<T, LogError> {
    text.parse()
        .or_else(|_| refuse(field, "not a number in its range"))
}

fn absolute(field: &str, path: &str) -> Result<String, LogError> {
    crate::compose::check_absolute(field, path).map_err(|error| LogError {
        field: error.field,
        rule: error.rule,
    })?;
    match path {
        "/" => refuse(field, "not a file"),
        path => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<LogSpec, LogError> {
        let settings = pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        LogSpec::of_settings(&settings.collect())
    }

    #[test]
    fn settings_become_logs() {
        assert_eq!(read(&[]).unwrap().kind, LogKind::File(None));
        let syslog = read(&[
            ("kind", "syslog"),
            ("address", "tcp:[::1]:601"),
            ("facility", "local3"),
            ("rate", "100"),
            ("line", "2048"),
            ("redact", "secrets"),
        ])
        .unwrap();
        assert_eq!(syslog.destination().unwrap(), "tcp:[::1]:601");
        assert!(syslog.redact && syslog.is_forwarded());
        assert_eq!((syslog.lines_per_second, syslog.line_bytes), (100, 2048));
        let journald = read(&[("kind", "journald")]).unwrap();
        assert_eq!(
            journald.destination().unwrap(),
            "unix:/run/systemd/journal/socket"
        );
        let file = read(&[("kind", "file"), ("file_bytes", "8192"), ("files", "2")]).unwrap();
        let bounds = FileBounds {
            file_bytes: 8192,
            files: 2,
        };
        assert_eq!(
            (file.kind.clone(), file.destination()),
            (LogKind::File(Some(bounds)), None)
        );
    }

    #[test]
    fn what_cannot_be_names_the_setting() {
        for (pairs, field) in [
            (&[("line", "100")][..], "kind"),
            (&[("kind", "carrier-pigeon")], "kind"),
            (&[("kind", "path")], "path"),
            (&[("kind", "path"), ("path", "x")], "path"),
            (&[("kind", "path"), ("path", "/a/../b")], "path"),
            (
                &[("kind", "path"), ("path", "/a"), ("redact", "secrets")],
                "kind",
            ),
            (&[("kind", "file"), ("files", "3")], "files"),
            (
                &[("kind", "file"), ("file_bytes", "1"), ("files", "3")],
                "file_bytes",
            ),
            (&[("kind", "syslog"), ("address", "udp:x:1")], "address"),
            (&[("kind", "syslog"), ("address", "tcp:x")], "address"),
            (&[("kind", "syslog"), ("address", "tcp:x:0")], "address"),
            (&[("kind", "syslog"), ("facility", "kern")], "facility"),
            (&[("kind", "syslog"), ("app", "a b")], "app"),
            (&[("kind", "journald"), ("socket", "relative")], "socket"),
            (&[("kind", "journald"), ("path", "/x")], "path"),
            (&[("kind", "null"), ("line", "7")], "line"),
            (&[("kind", "null"), ("rate", "-1")], "rate"),
            (&[("kind", "null"), ("redact", "all")], "redact"),
        ] {
            assert_eq!(read(pairs).unwrap_err().field, field, "{pairs:?}");
        }
    }
}
