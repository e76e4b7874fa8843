//! The allocator of our programs.
//!
//! glibc keeps an arena for each few threads and hands little of what they free back: with a dozen subscribers beside a
//! busy ledger a daemon held 377 MiB where it holds 181 MiB with jemalloc, which has a thread of its own that returns what
//! was not used for a second; changes and events are faster by a third (`./dev bench --only serve`). A library that embeds
//! the port layer keeps the allocator it has.

/// What [`allocator!`] makes the global allocator.
#[doc(hidden)]
pub use tikv_jemallocator::Jemalloc;

/// Makes jemalloc the allocator of the program whose root it stands in, set as its module says.
#[macro_export]
macro_rules! allocator {
    () => {
        #[global_allocator]
        static ALLOCATOR: $crate::memory::Jemalloc = $crate::memory::Jemalloc;

        /// Read by jemalloc when the program starts; ends with a zero, as it is a C string.
        #[allow(unsafe_code, reason = "jemalloc finds its settings by this name")]
        #[unsafe(export_name = "_rjem_malloc_conf")]
        pub static ALLOCATOR_SETTINGS: &[u8; 60] =
            b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";
    };
}
