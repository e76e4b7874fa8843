//! What a test that fails leaves behind is removed when its thread ends: until then tasks of its runtime still have the
//! engine, and only after them nobody does.

use std::cell::RefCell;
use std::path::PathBuf;

/// Work of the end of a thread, run in the order it came.
struct Later(RefCell<Vec<Box<dyn FnOnce()>>>);

impl Drop for Later {
    fn drop(&mut self) {
        for work in self.0.take() {
            work();
        }
    }
}

thread_local! {
    static LATER: Later = const { Later(RefCell::new(Vec::new())) };
}

/// Removes the engine directory `engine` and then `directory`, which it is or is in, and lets `surroundings` go. Through
/// the engine alone: what it cannot end is told and stays, because nothing may be deleted through a live mount. At once
/// where that is possible, else when the calling thread ends.
pub(crate) fn remove(engine: PathBuf, directory: PathBuf, surroundings: impl Sized + 'static) {
    let work = move || {
        match portlayer_node::clean(&engine) {
            Ok(()) => match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    eprintln!("left behind: {}: {error}", directory.display());
                }
                _ => {}
            },
            Err(error) => eprintln!("left behind in {}: {error}", engine.display()),
        }
        drop(surroundings);
    };
    match std::thread::panicking() {
        false => work(),
        true => LATER.with(|later| later.0.borrow_mut().push(Box::new(work))),
    }
}
