//! Networks on the real kernel, between network namespaces of the tests' own.

mod egress;
mod life;
mod publish;
mod world;
