//! Composition on the fake engine: no root, no containerd.

mod support;

mod life;
