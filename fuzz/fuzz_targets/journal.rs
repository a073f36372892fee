//! The journal reader, a start of the store, and `check`. What must hold is told in `src/fuzzing/journal.rs`.
#![no_main]

#[global_allocator]
static ALLOCATOR: commonhold::fuzzing::Counting = commonhold::fuzzing::Counting;

libfuzzer_sys::fuzz_target!(
    init: assert!(commonhold::fuzzing::is_counting(), "the targets find memory that is too much"),
    |data: &[u8]| commonhold::fuzzing::journal(data)
);
