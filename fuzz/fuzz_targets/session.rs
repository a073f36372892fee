//! A whole session of a daemon in this process. What must hold is told in `src/fuzzing/session.rs`.
#![no_main]

#[global_allocator]
static ALLOCATOR: commonhold::fuzzing::Counting = commonhold::fuzzing::Counting;

libfuzzer_sys::fuzz_target!(
    init: assert!(commonhold::fuzzing::is_counting(), "the targets find memory that is too much"),
    |data: &[u8]| commonhold::fuzzing::session(data)
);
