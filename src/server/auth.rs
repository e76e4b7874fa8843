//! Who may call what: the peers of a unix socket by their credentials, those of TLS by their certificates.

use std::fmt;
use std::sync::Arc;

use http::Extensions;
use portlayer::PortLayer;
use portlayer::error::ErrorKind;
use portlayer_client::wire::Fault;
use sha2::{Digest, Sha256};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use super::listen::Peer;
use crate::config::{Config, Ids, Role};

/// A set of users: by user id, or by a group they are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// User ids.
    pub uids: Ids,
    /// Group ids; primary and supplementary groups count.
    pub gids: Ids,
}

impl Who {
    fn has(&self, peer: &Peer) -> bool {
        self.uids.0.contains(&peer.uid) || peer.gids.iter().any(|gid| self.gids.0.contains(gid))
    }
}

/// The allow-lists. Who is on none may do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Peers of the unix socket that may do everything.
    pub read_write: Who,
    /// Peers of the unix socket that may look.
    pub read_only: Who,
    /// What peers of TLS may do; without a client authority in the TLS settings these are all that can connect.
    pub tls: Role,
}

impl Access {
    /// As configured.
    pub fn of(config: &Config) -> Self {
        let serve = &config.serve;
        Self {
            read_write: Who {
                uids: serve.read_write_uids.clone(),
                gids: serve.read_write_gids.clone(),
            },
            read_only: Who {
                uids: serve.read_only_uids.clone(),
                gids: serve.read_only_gids.clone(),
            },
            tls: serve.tls.as_ref().map_or(Role::ReadOnly, |tls| tls.role),
        }
    }

    /// Only the user this process runs as, and root.
    pub fn own() -> Self {
        let mut uids = vec![0, nix::unistd::Uid::effective().as_raw()];
        uids.dedup();
        Self {
            read_write: Who {
                uids: Ids(uids),
                gids: Ids::default(),
            },
            read_only: Who::default(),
            tls: Role::ReadOnly,
        }
    }

    fn role_of(&self, peer: &Peer) -> Option<Role> {
        if self.read_write.has(peer) {
            Some(Role::ReadWrite)
        } else {
            self.read_only.has(peer).then_some(Role::ReadOnly)
        }
    }
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Unix,
    Tls,
    /// This process.
    Embedded,
}

/// Who calls; handlers find it in the extensions of their request.
#[derive(Clone)]
pub struct Caller {
    /// The name in audit rows.
    pub actor: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// The port layer in its name.
    pub(super) layer: PortLayer,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("actor", &self.actor)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Who is behind a connection and what they may do.
pub(super) fn identify(
    origin: Origin,
    extensions: &Extensions,
    access: &Access,
) -> (String, Option<Role>) {
    match origin {
        Origin::Embedded => {
            let actor = format!("uid {}", nix::unistd::Uid::effective());
            (actor, Some(Role::ReadWrite))
        }
        Origin::Unix => match extensions.get::<Option<Peer>>().and_then(Option::as_ref) {
            Some(peer) => (format!("uid {}", peer.uid), access.role_of(peer)),
            None => ("unknown peer".to_owned(), None),
        },
        Origin::Tls => {
            let info = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
            let certificates = info.and_then(TlsConnectInfo::peer_certs);
            let leaf = certificates.as_ref().and_then(|all| all.first());
            let actor = match leaf {
                Some(leaf) => format!("tls sha256:{}", hex::encode(Sha256::digest(leaf))),
                None => "tls anonymous".to_owned(),
            };
            (actor, Some(access.tls))
        }
    }
}

/// The calls that change nothing on the node. All others need [`Role::ReadWrite`]; a test holds this list against the
/// descriptors, so that a new call is put on one side or the other.
pub(super) const LOOKING: [&str; 34] = [
    "/portlayer.v1.DiegoService/DesiredTask",
    "/portlayer.v1.DiegoService/DesiredTasks",
    "/portlayer.v1.DiegoService/FollowTasks",
    "/portlayer.v1.DiegoService/TaskLines",
    "/portlayer.v1.DiegoService/Domains",
    "/portlayer.v1.ElementsService/Read",
    "/portlayer.v1.ElementsService/Export",
    "/portlayer.v1.ElementsService/CopyOut",
    "/portlayer.v1.ElementsService/List",
    "/portlayer.v1.ElementsService/History",
    "/portlayer.v1.CompositionsService/Open",
    "/portlayer.v1.CompositionsService/Join",
    "/portlayer.v1.CompositionsService/Bind",
    "/portlayer.v1.CompositionsService/Unbind",
    "/portlayer.v1.CompositionsService/Leave",
    "/portlayer.v1.CompositionsService/Plan",
    "/portlayer.v1.CompositionsService/Security",
    "/portlayer.v1.TasksService/Wait",
    "/portlayer.v1.TasksService/Logs",
    "/portlayer.v1.TasksService/LogProgress",
    "/portlayer.v1.TasksService/Stats",
    "/portlayer.v1.EventsService/Subscribe",
    "/portlayer.v1.EventsService/Fetch",
    "/portlayer.v1.NodeService/Info",
    "/portlayer.v1.NodeService/Diagnostics",
    "/portlayer.v1.NodeService/Verify",
    "/portlayer.v1.NodeService/Audit",
    "/portlayer.v1.NodeService/Exits",
    "/portlayer.v1.NodeService/Settle",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.health.v1.Health/List",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Whether a role is enough for a call; the refusal otherwise.
pub(super) fn check(path: &str, actor: &str, role: Option<Role>) -> Result<Role, Fault> {
    let refuse = |reason, text| Err(Fault::new(ErrorKind::PermissionDenied, reason, text));
    match role {
        None => refuse(
            "peer_not_allowed",
            format!("{actor} is on no allow-list of this daemon"),
        ),
        Some(Role::ReadOnly) if !LOOKING.contains(&path) => refuse(
            "read_only_peer",
            format!("{actor} may look and change nothing"),
        ),
        Some(role) => Ok(role),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gids: &[u32]) -> Peer {
        Peer {
            uid,
            gids: gids.into(),
        }
    }

    #[test]
    fn users_and_all_their_groups_count() {
        let access = Access {
            read_write: Who {
                uids: Ids(vec![0]),
                gids: Ids(vec![50]),
            },
            read_only: Who {
                uids: Ids(vec![7]),
                gids: Ids::default(),
            },
            tls: Role::ReadOnly,
        };
        assert_eq!(access.role_of(&peer(0, &[])), Some(Role::ReadWrite));
        assert_eq!(access.role_of(&peer(9, &[1, 50])), Some(Role::ReadWrite));
        assert_eq!(access.role_of(&peer(7, &[7])), Some(Role::ReadOnly));
        assert_eq!(access.role_of(&peer(8, &[8])), None);
    }

    #[test]
    fn who_may_look_may_not_change_and_strangers_may_nothing() {
        let denied = |path, role| check(path, "uid 7", role).err().map(|fault| fault.reason);
        let (read, delete) = (
            "/portlayer.v1.ElementsService/Read",
            "/portlayer.v1.ElementsService/Delete",
        );
        assert_eq!(denied(read, Some(Role::ReadOnly)), None);
        assert_eq!(denied(delete, Some(Role::ReadWrite)), None);
        assert_eq!(
            denied(delete, Some(Role::ReadOnly)).as_deref(),
            Some("read_only_peer")
        );
        assert_eq!(denied(read, None).as_deref(), Some("peer_not_allowed"));
    }

    /// A new call stands here or in [`LOOKING`].
    const CHANGING: [&str; 19] = [
        "/portlayer.v1.CompositionsService/Commit",
        "/portlayer.v1.DiegoService/CancelTask",
        "/portlayer.v1.DiegoService/DeleteTask",
        "/portlayer.v1.DiegoService/DesireTask",
        "/portlayer.v1.DiegoService/ResolveTask",
        "/portlayer.v1.DiegoService/UpsertDomain",
        "/portlayer.v1.ElementsService/CopyIn",
        "/portlayer.v1.ElementsService/Create",
        "/portlayer.v1.ElementsService/Delete",
        "/portlayer.v1.ElementsService/EnsureFreespace",
        "/portlayer.v1.ElementsService/Import",
        "/portlayer.v1.ElementsService/Pull",
        "/portlayer.v1.ElementsService/Update",
        "/portlayer.v1.NodeService/Sweep",
        "/portlayer.v1.TasksService/Attach",
        "/portlayer.v1.TasksService/Exec",
        "/portlayer.v1.TasksService/Interrupt",
        "/portlayer.v1.TasksService/Resize",
        "/portlayer.v1.TasksService/Run",
    ];

    #[test]
    fn every_call_looks_or_changes() {
        use prost::Message;
        let set = prost_types::FileDescriptorSet::decode(portlayer_proto::DESCRIPTORS).unwrap();
        let mut changing = Vec::new();
        let mut looking = 0;
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    if LOOKING.contains(&path.as_str()) {
                        looking += 1;
                    } else {
                        changing.push(path);
                    }
                }
            }
        }
        changing.sort();
        assert_eq!(changing, CHANGING);
        let ours = LOOKING
            .iter()
            .filter(|path| path.starts_with("/portlayer.v1."));
        assert_eq!(looking, ours.count(), "a path that is no call");
    }
}
