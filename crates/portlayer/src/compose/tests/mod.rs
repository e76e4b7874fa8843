//! Composition on the fake engine: no root, no containerd.

mod faults;
mod hostile;
mod life;
mod networks;
mod oci;
mod races;
mod recovery;
mod support;
