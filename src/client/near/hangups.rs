//! One parked thread a process, which learns from the system when a connection has hung up: a client that makes no request
//! would not notice that its daemon is gone, and would serve for ever what it has read.
//!
//! It reads and writes nothing. A socket is watched for its end only, once; what it is watched for is forgotten with the
//! link that it belongs to. The thread begins with the first client that keeps values, and a forked child begins its own.

#[cfg(target_os = "linux")]
pub(super) use linux::{Watched, watch};

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Weak};
    use std::time::Duration;

    use parking_lot::Mutex;
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    use rustix::io::Errno;

    use crate::client::process::Process;
    use crate::ipc::Stream;

    /// It calls the system and looks into a map.
    const STACK_BYTES: usize = 128 * 1024;

    /// Who has the lock has it for a moment, unless it was held when this process was forked.
    const PATIENCE: Duration = Duration::from_secs(1);

    #[derive(Debug)]
    struct Hangups {
        process: Process,
        epoll: OwnedFd,
        watched: Mutex<Links>,
    }

    #[derive(Debug, Default)]
    struct Links {
        last: u64,
        up: HashMap<u64, Weak<AtomicBool>>,
    }

    /// A connection is watched until this is dropped.
    #[derive(Debug)]
    pub(in crate::client::near) struct Watched {
        hangups: Arc<Hangups>,
        number: u64,
    }

    /// From here on `up` becomes false when the stream hangs up, or has. None where nobody can see to that.
    pub(in crate::client::near) fn watch(stream: &Stream, up: &Arc<AtomicBool>) -> Option<Watched> {
        let hangups = of_this_process()?;
        let number = {
            let mut links = hangups.watched.lock();
            links.last += 1;
            let number = links.last;
            links.up.insert(number, Arc::downgrade(up));
            number
        };
        let watched = Watched { hangups, number };
        // One event is enough, and a socket that a child holds open would give no end of them.
        let flags = EventFlags::RDHUP | EventFlags::ONESHOT;
        epoll::add(&watched.hangups.epoll, stream, EventData::new_u64(number), flags).ok()?;
        Some(watched)
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            // In a forked child the lock may be held by a thread that does not exist there.
            if self.hangups.process.is_this() {
                self.hangups.watched.lock().up.remove(&self.number);
            }
        }
    }

    fn of_this_process() -> Option<Arc<Hangups>> {
        static HANGUPS: Mutex<Option<Arc<Hangups>>> = Mutex::new(None);
        let mut hangups = HANGUPS.try_lock_for(PATIENCE)?;
        if let Some(own) = hangups.as_ref().filter(|hangups| hangups.process.is_this()) {
            return Some(Arc::clone(own));
        }
        let epoll = epoll::create(CreateFlags::CLOEXEC).ok()?;
        let own = Arc::new(Hangups { process: Process::this(), epoll, watched: Mutex::default() });
        let watching = Arc::clone(&own);
        let thread = std::thread::Builder::new().name("commonhold-hangup".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || watching.run()).ok()?;
        *hangups = Some(Arc::clone(&own));
        Some(own)
    }

    impl Hangups {
        fn run(&self) {
            let mut room = [const { MaybeUninit::uninit() }; 32];
            loop {
                match epoll::wait(&self.epoll, &mut room, None) {
                    Ok((events, _)) => {
                        for event in events {
                            self.hung_up(event.data.u64());
                        }
                    }
                    Err(Errno::INTR) => {}
                    // Nobody watches any more: nothing may be served.
                    Err(_) => return self.watched.lock().up.values().for_each(end),
                }
            }
        }

        fn hung_up(&self, number: u64) {
            if let Some(up) = self.watched.lock().up.remove(&number) {
                end(&up);
            }
        }
    }

    fn end(up: &Weak<AtomicBool>) {
        if let Some(up) = up.upgrade() {
            up.store(false, Ordering::Release);
        }
    }
}

/// Nobody watches elsewhere, and nothing is kept.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) enum Watched {}

#[cfg(not(target_os = "linux"))]
pub(super) fn watch(_: &crate::ipc::Stream, _: &std::sync::Arc<std::sync::atomic::AtomicBool>) -> Option<Watched> {
    None
}
