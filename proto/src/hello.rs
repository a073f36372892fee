//! The first 64 bytes that each side sends: who it is, which store it means, and which versions of the wire it speaks.
//!
//! This layout is fixed for ever, because it is read before a version is agreed upon.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `COMNHOLD` |
//! | 8 | 2 | lowest protocol version spoken, u16 |
//! | 10 | 2 | highest protocol version spoken, u16 |
//! | 12 | 4 | flags, u32: 0 when sent, not looked at when read |
//! | 16 | 8 | device of the store's directory, u64 |
//! | 24 | 8 | inode of the store's directory, u64; device and inode both 0 from a client mean whatever store answers |
//! | 32 | 16 | client id, u128: chosen at random by the client, repeated by the daemon |
//! | 48 | 8 | nonce of the daemon's version table, u64; 0 is no table; 0 from a client |
//! | 56 | 8 | boot number of the daemon, u64: another one after each start; 0 from a client |
//!
//! All integers are little-endian. The client sends first; the daemon always answers with its own hello, and where the
//! two do not agree follows it with [`Event::Closing`](crate::Event::Closing) and closes.

use crate::fault::Fault;

/// The newest version of the wire that this crate speaks.
///
/// | version | what came with it |
/// |---|---|
/// | 1 | reads, writes of put, delete and clear, commit, flush, status, stop |
/// | 2 | `get_all`, drop, workspaces, sessions; merge, increment, append and stamped puts; volatile namespaces |
/// | 3 | writes and drops that are sent again are done once |
/// | 4 | update flags, elections, locks, slots, watches |
pub const PROTOCOL_VERSION: u16 = 4;

/// The oldest version of the wire that this crate still speaks.
pub const LOWEST_VERSION: u16 = 1;

/// Bytes of a hello.
pub const HELLO_BYTES: usize = 64;

/// The first bytes of every connection, in both directions.
pub const MAGIC: [u8; 8] = *b"COMNHOLD";

/// Which directory a store is: a copy of it is another store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StoreIdentity {
    /// The file system's device number.
    pub device: u64,
    /// The directory's inode number on it.
    pub inode: u64,
}

impl StoreIdentity {
    /// From a client: whatever store the daemon owns.
    pub const ANY: Self = Self { device: 0, inode: 0 };
}

/// Who speaks, for which store, in which versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest protocol version spoken.
    pub lowest: u16,
    /// The highest protocol version spoken.
    pub highest: u16,
    /// For later use: 0 when sent, not looked at when read.
    pub flags: u32,
    /// The store that the client means, or that the daemon owns.
    pub identity: StoreIdentity,
    /// The client's id: random, the same for all connections of one `Client`; repeated by the daemon.
    pub client: u128,
    /// The nonce of the version table, 0 where there is none and from a client.
    pub table_nonce: u64,
    /// The daemon's boot number, 0 from a client. Another one than before tells that the daemon was restarted.
    pub boot: u64,
}

/// Why 64 bytes are no hello. There is nothing to answer to: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The first bytes are not [`MAGIC`].
    #[error("the other side does not speak Commonhold's protocol: its first bytes are {found:02x?}")]
    Magic {
        /// The bytes in the magic's place.
        found: [u8; 8],
    },
    /// The range of versions is empty.
    #[error("the other side's hello is damaged: it speaks versions from {lowest} to {highest}")]
    Versions {
        /// The lowest version.
        lowest: u16,
        /// The highest version.
        highest: u16,
    },
}

impl Hello {
    /// What a client of this crate says.
    pub const fn of_client(client: u128, identity: StoreIdentity) -> Self {
        Self { lowest: LOWEST_VERSION, highest: PROTOCOL_VERSION, flags: 0, identity, client, table_nonce: 0, boot: 0 }
    }

    /// What a daemon of this crate says to the client of this id.
    pub const fn of_daemon(client: u128, identity: StoreIdentity, table_nonce: u64, boot: u64) -> Self {
        Self { table_nonce, boot, ..Self::of_client(client, identity) }
    }

    /// The bytes of this hello.
    pub fn to_bytes(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.lowest.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.highest.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.identity.device.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.identity.inode.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.client.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.table_nonce.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.boot.to_le_bytes());
        bytes
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`HelloError`] when the other side is something else than Commonhold; no answer would be understood.
    pub fn from_bytes(bytes: &[u8; HELLO_BYTES]) -> Result<Self, HelloError> {
        let magic = piece(bytes, 0);
        if magic != MAGIC {
            return Err(HelloError::Magic { found: magic });
        }
        let (lowest, highest) = (u16::from_le_bytes(piece(bytes, 8)), u16::from_le_bytes(piece(bytes, 10)));
        if lowest > highest {
            return Err(HelloError::Versions { lowest, highest });
        }
        Ok(Self {
            lowest,
            highest,
            flags: u32::from_le_bytes(piece(bytes, 12)),
            identity: StoreIdentity {
                device: u64::from_le_bytes(piece(bytes, 16)),
                inode: u64::from_le_bytes(piece(bytes, 24)),
            },
            client: u128::from_le_bytes(piece(bytes, 32)),
            table_nonce: u64::from_le_bytes(piece(bytes, 48)),
            boot: u64::from_le_bytes(piece(bytes, 56)),
        })
    }

    /// The version that both sides will speak: the highest that both know. Which hello
    /// is whose is said by the place, so that both sides come to the same answer and the same words.
    ///
    /// # Errors
    /// [`Fault::Version`] when there is no such version; [`Fault::OtherStore`] when the client means another directory
    /// than the daemon owns.
    pub fn agree(client: &Self, daemon: &Self) -> Result<u16, Fault> {
        let version = client.highest.min(daemon.highest);
        if version < client.lowest.max(daemon.lowest) {
            return Err(Fault::Version {
                client_lowest: client.lowest,
                client_highest: client.highest,
                daemon_lowest: daemon.lowest,
                daemon_highest: daemon.highest,
            });
        }
        if client.identity != StoreIdentity::ANY && client.identity != daemon.identity {
            let StoreIdentity { device, inode } = daemon.identity;
            return Err(Fault::OtherStore { device, inode });
        }
        Ok(version)
    }
}

/// The `N` bytes at `offset`, which the map above keeps inside the hello.
fn piece<const N: usize>(bytes: &[u8; HELLO_BYTES], offset: usize) -> [u8; N] {
    let mut piece = [0; N];
    piece.copy_from_slice(&bytes[offset..offset + N]);
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: StoreIdentity = StoreIdentity { device: 3, inode: 9 };

    #[test]
    fn what_was_said_is_what_is_heard() {
        let hello = Hello {
            lowest: 0x0102,
            highest: 0x0304,
            flags: 0x0506_0708,
            identity: StoreIdentity { device: u64::MAX - 1, inode: 0x1122_3344_5566_7788 },
            client: u128::MAX / 3,
            table_nonce: 5,
            boot: u64::MAX,
        };
        assert_eq!(Hello::from_bytes(&hello.to_bytes()), Ok(hello));
    }

    #[test]
    fn any_other_magic_is_refused() {
        let bytes = Hello::of_client(1, HERE).to_bytes();
        for place in 0..MAGIC.len() {
            let mut other = bytes;
            other[place] ^= 0x20;
            assert!(matches!(Hello::from_bytes(&other), Err(HelloError::Magic { .. })));
        }
    }

    #[test]
    fn an_empty_range_of_versions_is_refused() {
        let bytes = Hello { lowest: 3, highest: 2, ..Hello::of_client(1, HERE) }.to_bytes();
        assert_eq!(Hello::from_bytes(&bytes), Err(HelloError::Versions { lowest: 3, highest: 2 }));
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        let speaks = |lowest, highest| Hello { lowest, highest, ..Hello::of_client(1, HERE) };
        assert_eq!(Hello::agree(&speaks(1, 4), &speaks(2, 3)), Ok(3));
        assert_eq!(Hello::agree(&speaks(2, 3), &speaks(1, 4)), Ok(3));
        assert_eq!(Hello::agree(&speaks(1, 2), &speaks(2, 5)), Ok(2));
        let none = Fault::Version { client_lowest: 1, client_highest: 2, daemon_lowest: 3, daemon_highest: 4 };
        assert_eq!(Hello::agree(&speaks(1, 2), &speaks(3, 4)), Err(none));
    }

    #[test]
    fn a_copied_directory_is_not_taken_for_the_original() {
        let daemon = Hello::of_daemon(1, HERE, 0, 1);
        assert_eq!(Hello::agree(&Hello::of_client(1, HERE), &daemon), Ok(PROTOCOL_VERSION));
        assert_eq!(Hello::agree(&Hello::of_client(1, StoreIdentity::ANY), &daemon), Ok(PROTOCOL_VERSION));
        let copy = StoreIdentity { inode: 10, ..HERE };
        assert_eq!(Hello::agree(&Hello::of_client(1, copy), &daemon), Err(Fault::OtherStore { device: 3, inode: 9 }));
    }
}
