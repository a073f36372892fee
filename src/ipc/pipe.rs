//! What a store's pipe is called on Windows, and who may open it: text made of text, so that every platform tests it.

/// The name of the pipe of the store whose canonical path has these bytes.
///
/// Names of pipes are one flat list for the whole machine, without `\` in them, so the path goes in as a hash. Two stores
/// of one hash would meet in one pipe, and the handshake, which tells the store's identity, would keep them apart.
pub(super) fn pipe_name(canonical_path: &[u8]) -> String {
    format!(r"\\.\pipe\commonhold-{:032x}", fnv1a_128(canonical_path))
}

/// The 128-bit FNV-1a hash: it needs no crate in the client, is the same in every version, and guards no secret.
fn fnv1a_128(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// The security descriptor, as Windows writes it, of a pipe that only its owner may open.
pub(super) fn owner_only() -> String {
    // `OW` is whoever owns the object: the user as whom the daemon runs, or the administrators if it runs as one.
    descriptor(&["OW"])
}

/// A security descriptor that lets these in with all rights, and nobody over the network. A right is denied before others
/// are allowed, for Windows takes the first entry that fits; nothing is inherited (`P`).
fn descriptor(allowed: &[&str]) -> String {
    let mut text = "D:P(D;;GA;;;NU)".to_owned();
    for who in allowed {
        text += "(A;;GA;;;";
        text += who;
        text += ")";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that the hash's authors publish.
    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a_128(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a_128(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(fnv1a_128(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }

    /// Clients and daemons of different versions must find each other.
    #[test]
    fn the_name_of_a_path_never_changes() {
        let name = pipe_name(br"\\?\C:\rag_storage");
        assert_eq!(name, r"\\.\pipe\commonhold-a92daf4284abc394d36eb01719fd072b");
    }

    #[test]
    fn a_name_is_one_that_windows_takes_whatever_the_path() {
        for path in [&b""[..], br"\\server\share\x", "C:\\Übung\\文档".as_bytes(), &[b'x'; 10_000]] {
            let name = pipe_name(path);
            assert!(name.len() <= 256, "{name}");
            let own = name.strip_prefix(r"\\.\pipe\").expect("it is a local pipe");
            assert!(own.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{name}");
        }
        assert_ne!(pipe_name(br"C:\a"), pipe_name(br"C:\b"));
    }

    #[test]
    fn only_the_owner_is_let_in_and_nobody_from_another_machine() {
        let text = owner_only();
        assert_eq!(text, "D:P(D;;GA;;;NU)(A;;GA;;;OW)");
        let allowed: Vec<_> = text.split('(').filter(|entry| entry.starts_with("A;")).collect();
        assert_eq!(allowed, ["A;;GA;;;OW)"], "everyone, users and anonymous (WD, BU, AN) are in no entry");
    }

    #[test]
    fn what_is_denied_comes_before_what_is_allowed() {
        assert_eq!(descriptor(&["OW", "S-1-5-21-7"]), "D:P(D;;GA;;;NU)(A;;GA;;;OW)(A;;GA;;;S-1-5-21-7)");
        assert_eq!(
            descriptor(&[]),
            "D:P(D;;GA;;;NU)",
            "an empty list lets nobody in, while none at all lets everybody in"
        );
    }
}
