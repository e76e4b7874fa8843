#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portlayer_fuzz::url(bytes));
