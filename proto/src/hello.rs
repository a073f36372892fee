//! (under construction)

/// Hello.
#[derive(Debug)]
pub struct Hello;
/// Hello error.
#[derive(Debug)]
pub struct HelloError;
/// Which directory a store is: its device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}
