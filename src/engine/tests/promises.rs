//! The engine's promises by name.

use super::rig::{Rig, pair};

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let rig = Rig::buffered();
    rig.put("a", "k", "1");
    rig.put("w/b", "k", "2");
    let rig = rig.killed();
    assert_eq!(rig.all("a"), [pair("k", "1")]);
    assert_eq!(rig.all("w/b"), [pair("k", "2")]);
}
