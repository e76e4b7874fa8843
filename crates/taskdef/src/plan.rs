//! The plan: what every front end makes of its definition and the one runner drives.
//!
//! A plan names elements to ensure (the image, archives, volumes), how they take part, the tree of actions to perform in
//! the one living executor, and what is read out of it in the end. It is a plain value; making one touches nothing.
//! Units are in the names, paths are as in the container, and nothing of a foreign schema is left.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use portlayer::element::ElementId;
use portlayer::store::Access;

/// Everything a run of a definition needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The root file system.
    pub root: Root,
    /// What is mounted, in the order of declaration; the port layer mounts parents before children.
    pub mounts: Vec<Mount>,
    /// Environment of every process, after the image's and before an action's own.
    pub env: Vec<(String, String)>,
    /// Environment of every process, after an action's own: nothing overrides it.
    pub forced_env: Vec<(String, EnvValue)>,
    /// Limits of all processes together.
    pub limits: Limits,
    /// Root in the container is root on the host.
    pub privileged: bool,
    /// Capabilities besides the port layer's own set, by name; without meaning when privileged.
    pub more_capabilities: Vec<String>,
    /// Set-id programs may gain privileges inside.
    pub set_id_programs: bool,
    /// Programs of the processor's other instruction set (32-bit x86) may run.
    pub compat_programs: bool,
    /// What may be reached.
    pub network: Network,
    /// What is done.
    pub action: Action,
    /// What is read out when the action has ended.
    pub outputs: Vec<Output>,
    /// Where output and messages go.
    pub logs: Logs,
    /// Tags the node must have.
    pub placement_tags: Vec<String>,
    /// Host name inside.
    pub hostname: Option<String>,
    /// Whom its certificate names, on a node that issues some; `None` = it gets none.
    pub identity: Option<Identity>,
}

/// Whom a certificate of a run names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The common name, and one of the alternative names.
    pub name: String,
    /// Organisational units.
    pub organizational_units: Vec<String>,
}

/// The value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// This text.
    Text(String),
    /// The address the executor is given when it joins a network, else this text.
    Address(String),
    /// The IPv6 address the executor is given; the variable is not set when there is none.
    AddressV6,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq)]
pub enum Root {
    /// An image the operator has registered under a name.
    Image(ElementId),
    /// The name is none the operator has registered.
    Unknown {
        /// The name.
        name: String,
    },
    /// An image of a registry.
    Registry {
        /// `host/path:tag` or `host/path@sha256:hex`, in canonical form.
        reference: String,
        /// The element it is imported as.
        image: ElementId,
        /// For the registry.
        credentials: Option<Credentials>,
    },
}

/// A user and a password; shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// Something mounted.
#[derive(Debug, Clone, PartialEq)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// Read-write or read-only.
    pub access: Access,
    /// What.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq)]
pub enum MountSource {
    /// The content of an archive. Mounted read-only it is fetched and extracted once and shared by everyone with the
    /// same content; mounted read-write it is a copy of this run alone.
    Archive(Archive),
    /// A volume that is there.
    Volume(ElementId),
    /// A volume that is made empty when it is not there.
    Ensure(ElementId),
    /// Files of this run alone, by relative path.
    Files(Vec<(String, String)>),
}

/// An archive to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Name for log lines; `None` = silent.
    pub label: Option<String>,
    /// Where from.
    pub url: String,
    /// Key in the cache of the node; `None` = not cached.
    pub cache_key: Option<String>,
    /// What its bytes must sum up to.
    pub checksum: Option<Checksum>,
    /// What it must be; `None` = whatever its content says.
    pub format: Option<Format>,
    /// Source of log lines.
    pub source: String,
}

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// gzip of tar.
    TarGzip,
    /// tar.
    Tar,
    /// zip.
    Zip,
}

/// A sum that is demanded of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// The function.
    pub algorithm: Algorithm,
    /// What it must give: hex as it was written, compared without regard to case.
    pub hex: String,
}

/// The functions definitions name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5: finds accidents, no attacks.
    Md5,
    /// SHA-1: finds accidents, no attacks.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Its name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "md5",
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// The function of a name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Algorithm::Md5,
            Algorithm::Sha1,
            Algorithm::Sha256,
            Algorithm::Sha512,
        ];
        all.into_iter()
            .find(|algorithm| name.eq_ignore_ascii_case(algorithm.as_str()))
    }
}

/// Limits of all processes together; `None` = none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, without any swap.
    pub memory_bytes: Option<u64>,
    /// What may be written over the root file system.
    pub disk_bytes: Option<u64>,
    /// Relative CPU weight in cgroup v1 shares.
    pub cpu_shares: Option<u64>,
    /// Processes and threads, those of the container itself included.
    pub pids: Option<u32>,
}

/// What may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Rules that allow; nothing else may be reached.
    pub egress: Vec<EgressRule>,
    /// For the provider of the network.
    pub properties: BTreeMap<String, String>,
}

/// Allows to reach some addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRule {
    /// What kind of packets.
    pub protocol: Protocol,
    /// First and last address of each range; both of one family.
    pub destinations: Vec<(IpAddr, IpAddr)>,
    /// Log new flows.
    pub log: bool,
}

/// Kinds of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// TCP to these ports, first and last of each range.
    Tcp(Vec<(u16, u16)>),
    /// UDP to these ports, first and last of each range.
    Udp(Vec<(u16, u16)>),
    /// ICMP of IPv4; `None` = any.
    Icmp {
        /// Type.
        kind: Option<u8>,
        /// Code.
        code: Option<u8>,
    },
    /// ICMP of IPv6; `None` = any.
    Icmpv6 {
        /// Type.
        kind: Option<u8>,
        /// Code.
        code: Option<u8>,
    },
    /// Everything.
    All,
}

/// What is done, as a tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Runs a process and waits for it.
    Run(Run),
    /// Fetches an archive on the host and extracts it in the container.
    Download(Download),
    /// Sends a file of the container from the host.
    Upload(Upload),
    /// Cancels an action that takes too long.
    Timeout {
        /// How long it may take.
        limit: Duration,
        /// The action.
        action: Box<Action>,
    },
    /// Says when an action begins and ends.
    EmitProgress(EmitProgress),
    /// Goes on whatever an action does.
    Try(Box<Action>),
    /// All at once; ends when all have ended.
    Parallel(Vec<Action>),
    /// One after the other, until one fails.
    Serial(Vec<Action>),
    /// All at once; the first that ends ends the others.
    Codependent(Vec<Action>),
}

/// A process.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory; `None` = the user's home. Made when it is missing.
    pub dir: Option<String>,
    /// Environment, after the plan's.
    pub env: Vec<(String, String)>,
    /// `name`, `uid`, `uid:gid` or `name:group`.
    pub user: String,
    /// Open files, soft and hard; `None` = the node's default.
    pub open_files: Option<u64>,
    /// Source of output and messages.
    pub source: String,
    /// No output and no exit line.
    pub silent: bool,
}

/// An archive that is extracted in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The archive.
    pub archive: Archive,
    /// Directory in the container; relative to the user's home. Made when it is missing.
    pub to: String,
    /// Who extracts: owner of everything.
    pub user: String,
}

/// A file that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Name for log lines; `None` = silent.
    pub label: Option<String>,
    /// Path in the container; relative to the user's home.
    pub from: String,
    /// Where to.
    pub url: String,
    /// Who reads it.
    pub user: String,
    /// Source of log lines.
    pub source: String,
}

/// Messages around an action; empty ones are not said.
#[derive(Debug, Clone, PartialEq)]
pub struct EmitProgress {
    /// Before it, on standard output.
    pub start: String,
    /// After it, on standard output.
    pub success: String,
    /// When it failed, on standard error, followed by the reason.
    pub failure_prefix: String,
    /// Source of the messages.
    pub source: String,
    /// The action.
    pub action: Box<Action>,
}

/// What is read out of the container when the action has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The content of one file.
    File {
        /// Path in the container; relative to root's home.
        path: String,
        /// Most bytes.
        limit_bytes: u64,
        /// What a larger file means.
        overflow: Overflow,
    },
}

/// What a file larger than its limit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Its beginning is taken.
    Truncate,
    /// The run fails.
    Fail,
}

/// Where output and messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Name of the stream; `None` = nothing is logged.
    pub stream: Option<String>,
    /// Source of messages about the container.
    pub source: String,
    /// Bytes a second; `None` = unlimited, 0 = nothing.
    pub bytes_per_second: Option<u64>,
    /// Tags of every line.
    pub tags: BTreeMap<String, String>,
}
