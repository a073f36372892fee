//! The floors: a process that answers a socket and does nothing else, or writes what came, or writes and syncs it. What
//! a store with a daemon does cannot be faster than that on the same machine in the same minute.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, fallocate};

use super::super::ours::{Helper, until};

/// About what a `get` and the answer of an upsert weigh on the socket, and an upsert and the answer of a `get`.
const SMALL: usize = 72;
const LARGE: usize = 900;
/// Where in the file the writes begin anew; all of it is set aside before.
const ROOM: u64 = 64 << 20;

const GET: u8 = b'g';
const WRITE: u8 = b'w';
const SYNC: u8 = b's';

/// The other end, until the socket is closed. The first byte of a message tells what to do.
pub fn serve(socket: &Path, file: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    let file = File::create(file)?;
    fallocate(&file, FallocateFlags::empty(), 0, ROOM).context("room for the floor's file")?;
    file.sync_all()?;
    let (mut stream, _) = listener.accept()?;
    let mut buffer = [0; LARGE];
    let mut offset = 0;
    while stream.read_exact(&mut buffer[..SMALL]).is_ok() {
        let command = buffer[0];
        if command != GET {
            stream.read_exact(&mut buffer[SMALL..])?;
            file.write_all_at(&buffer, offset)?;
            offset = (offset + LARGE as u64) % (ROOM - LARGE as u64);
        }
        if command == SYNC {
            file.sync_data()?;
        }
        stream.write_all(&buffer[..if command == GET { LARGE } else { SMALL }])?;
    }
    Ok(())
}

/// A bare peer and the way to it.
pub struct Bare {
    stream: UnixStream,
    _process: Helper,
}

impl Bare {
    pub fn start(directory: &Path) -> Result<Self> {
        let (socket, file) = (directory.join("bare.sock"), directory.join("bare.data"));
        let own = std::env::current_exe()?;
        let process = Helper::start(std::process::Command::new(own).arg("bare").args([&socket, &file]))?;
        let stream = until("the bare peer", || UnixStream::connect(&socket).ok())?;
        Ok(Self { stream, _process: process })
    }

    /// A ping-pong of a `get`'s bytes.
    pub fn get(&mut self) -> Result<()> {
        self.ping(GET, SMALL, LARGE)
    }

    /// A ping-pong of an upsert's bytes, and a write of the record in between.
    pub fn write(&mut self) -> Result<()> {
        self.ping(WRITE, LARGE, SMALL)
    }

    /// The same with an `fdatasync` after the write, which overwrites what was set aside.
    pub fn write_and_sync(&mut self) -> Result<()> {
        self.ping(SYNC, LARGE, SMALL)
    }

    fn ping(&mut self, command: u8, out: usize, back: usize) -> Result<()> {
        let mut buffer = [command; LARGE];
        self.stream.write_all(&buffer[..out])?;
        self.stream.read_exact(&mut buffer[..back])?;
        Ok(())
    }
}

/// Writes `bytes` to a new file, synced if asked for, and answers the seconds. The file is removed.
pub fn write_file(directory: &Path, bytes: u64, synced: bool) -> Result<f64> {
    let path = directory.join("bare.file");
    let block = vec![b'x'; 1 << 20];
    let began = Instant::now();
    let mut file = File::create(&path)?;
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len() as u64);
        file.write_all(&block[..now as usize])?;
        left -= now;
    }
    if synced {
        file.sync_data()?;
    }
    let took = began.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(took)
}
