//! `docs/storage.md` shows two journal segments byte by byte, for those who read them without this code. The same store
//! is made here, and must come out as the text has it.

use super::rig::Rig;

const TEXT: &str = include_str!("../../../docs/storage.md");

/// The bytes of the fenced block `hex NAME`: what stands left of the bar in its lines.
fn shown(name: &str) -> Vec<u8> {
    let (_, block) = TEXT.split_once(&format!("```hex {name}\n")).expect("the text has the block");
    let (block, _) = block.split_once("```").expect("a block has an end");
    let left_of_bar = block.lines().map(|line| line.split('|').next().expect("split gives at least one piece"));
    let byte = |pair| u8::from_str_radix(pair, 16).expect("left of the bar stand pairs of hex digits");
    left_of_bar.flat_map(str::split_whitespace).map(byte).collect()
}

fn in_hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_storage_text_shows_segments_as_they_are_written() {
    let rig = Rig::buffered();
    rig.put("notes", "k1", r#"{"a":1}"#);
    rig.flush("notes").expect("the flush is done");
    rig.put("notes", "k2", "2");
    let first = rig.disk.read_file(&rig.segments()[0]);
    let rig = rig.killed();
    let [_, second] = &rig.segments()[..] else {
        panic!("the first segment waits for a flush, and a start makes a second")
    };
    let written = [("segment-1", first), ("segment-2", rig.disk.read_file(second))];
    let wrong: Vec<_> = written.iter().filter(|(name, bytes)| shown(name) != *bytes).collect();
    let told: Vec<_> = wrong.iter().map(|(name, bytes)| format!("{name} is:\n{}", in_hex(bytes))).collect();
    assert!(wrong.is_empty(), "{}", told.join("\n"));
}
