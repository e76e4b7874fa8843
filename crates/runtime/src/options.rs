//! Messages containerd-client does not have: options of the runc shim, and the envelopes of OCI documents.

use portlayer::runtime::IdRange;
use prost::Message;
use prost_types::Any;
use serde::Serialize;

const OPTIONS_TYPE: &str = "containerd.runc.v1.Options";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// `containerd.runc.v1.Options`, the fields we set (containerd:runtime/v2/runc/options/oci.proto).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RuncOptions {
    /// Who owns the pipes of standard streams, so that a process can open its own again by /proc/self/fd.
    #[prost(uint32, tag = "4")]
    io_uid: u32,
    #[prost(uint32, tag = "5")]
    io_gid: u32,
    /// The OCI runtime to call.
    #[prost(string, tag = "6")]
    binary_name: String,
    /// Where it keeps its state; by default one directory for all containerds of the host.
    #[prost(string, tag = "7")]
    root: String,
}

impl RuncOptions {
    pub(crate) fn any(binary_name: &str, root: &std::path::Path, ids: Option<IdRange>) -> Any {
        let owner = ids.map_or(0, |ids| ids.first);
        let options = RuncOptions {
            io_uid: owner,
            io_gid: owner,
            binary_name: binary_name.to_owned(),
            root: root.to_string_lossy().into_owned(),
        };
        Any {
            type_url: OPTIONS_TYPE.to_owned(),
            value: options.encode_to_vec(),
        }
    }
}

/// The specification of a container.
pub(crate) fn spec_any(spec: &oci_spec::runtime::Spec) -> serde_json::Result<Any> {
    json(SPEC_TYPE, spec)
}

/// The specification of one more process.
pub(crate) fn process_any(process: &oci_spec::runtime::Process) -> serde_json::Result<Any> {
    json(PROCESS_TYPE, process)
}

fn json(type_url: &str, value: &impl Serialize) -> serde_json::Result<Any> {
    Ok(Any {
        type_url: type_url.to_owned(),
        value: serde_json::to_vec(value)?,
    })
}
