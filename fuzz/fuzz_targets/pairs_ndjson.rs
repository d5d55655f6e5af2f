#![no_main]
libfuzzer_sys::fuzz_target!(init: kith_fuzz::report_panics(), |bytes: &[u8]| {
    kith_fuzz::pairs_ndjson(bytes);
});
