//! The workflows of seed 003 and those that follow from them, on a real containerd. The fourteen and the library example
//! are the code of `docs/examples`, word for word; the tests here look at what they left: elements, events, audit rows,
//! and what the kernel and the engine hold.

mod composed;
mod ends;
#[allow(
    dead_code,
    reason = "of an example that is no program here only the workflow is used"
)]
mod example;
mod images;
mod library;
mod live;
mod lost;
mod restart;
mod shared;
mod story;
mod volumes;
