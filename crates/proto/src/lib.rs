//! The gRPC interface, generated from `proto/portlayer/v1` (the documentation is there). No logic: the conversions to
//! and from the domain types are in `portlayer_client::wire`.

/// Package `portlayer.v1`: messages, clients and servers.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::all,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("portlayer.v1");
}

impl std::fmt::Debug for v1::RegistryCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistryCredentials(***)")
    }
}

/// The descriptors of the package and of all it imports, encoded: for reflection and for checks.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
