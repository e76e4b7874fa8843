//! Networks on the real kernel, between network namespaces of the tests' own.

mod command;
mod egress;
mod life;
mod made;
mod publish;
mod world;
