//! Taking connections: who gets a thread, who waits, who is shown out.

use std::sync::Arc;
use std::time::Duration;

use crate::ipc::{Listener, Stream};
use crate::proto::Fault;

use super::fault::with_causes;
use super::handshake::{Agreed, check_user};
use super::outbox::{Outbox, STACK_BYTES};
use super::registry::Guest;
use super::running::{Daemon, most_sessions, unix_ms};
use super::{on_task, on_thread};

/// Most connections of users who may not come in that are being told so.
const MOST_STRANGERS: usize = 16;

/// How often it is seen whether the limit of open files was raised.
const LIMIT_LOOK: Duration = Duration::from_secs(1);

/// Counts one of them, for as long as it is kept.
pub(super) type Stranger = Arc<()>;

struct TooMany;

impl Daemon {
    /// The thread of a listener: ends when that is woken.
    pub(super) fn accept(self: &Arc<Self>, listener: &Listener) {
        while self.wait_for_room() {
            match listener.accept() {
                Ok(Some(stream)) => self.begin_session(stream),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!("no more connections can be taken, the daemon stops: {}", with_causes(&error));
                    // The receiver lives as long as the daemon can be stopped.
                    let _ = self.stop_requests.send(None);
                    return;
                }
            }
        }
    }

    /// Waits until there may be one more session; false when there will be none.
    fn wait_for_room(&self) -> bool {
        let mut sessions = self.sessions.lock();
        while sessions.count() + self.deaths.descriptors() >= most_sessions() && !sessions.closed {
            if !std::mem::replace(&mut sessions.told_full, true) {
                let most = most_sessions();
                tracing::warn!(sessions = most, "further connections wait: raise the limit of open files");
            }
            // For a time: the limit may be raised, and no session end.
            self.session_ended.wait_for(&mut sessions, LIMIT_LOOK);
        }
        !sessions.closed
    }

    /// The first sessions have a thread each, and so has whoever comes when one of those has ended. All others, and those
    /// for whom no thread can be had, share the runtime. Nobody changes from one to the other.
    fn begin_session(self: &Arc<Self>, stream: Stream) {
        let stream = Arc::new(stream);
        let mut sessions = self.sessions.lock();
        if sessions.closed {
            return;
        }
        let Ok(stranger) = self.count_stranger(&stream) else { return };
        let number = sessions.next_number();
        let on_thread = sessions.on_threads < self.options().thread_sessions;
        let guest = self.guest(number, &stream, !on_thread, stranger.clone());
        sessions.on_threads += usize::from(on_thread);
        sessions.add(Arc::clone(&guest));
        drop(sessions);
        if !on_thread {
            return self.serve_on_task(guest, number);
        }
        let daemon = Arc::clone(self);
        let serve = move || {
            on_thread::serve(&daemon, &guest);
            guest.outbox.close();
            // The descriptor first: whoever takes the place needs one.
            drop(guest);
            daemon.end_session(number, true);
        };
        if let Err(error) = self.crew.spawn(format!("session-{number}"), STACK_BYTES, serve) {
            tracing::warn!("no thread could be started for a connection, it shares one with others: {error}");
            let guest = self.guest(number, &stream, true, stranger);
            let mut sessions = self.sessions.lock();
            sessions.on_threads -= 1;
            sessions.add(Arc::clone(&guest));
            drop(sessions);
            self.serve_on_task(guest, number);
        }
    }

    /// Whoever may not come in is told so, which takes a place among the sessions for a moment, or for as long as a
    /// handshake may take. So that they cannot take them all, only some of them are heard at once; the others are hung up on.
    fn count_stranger(&self, stream: &Stream) -> Result<Option<Stranger>, TooMany> {
        match check_user(stream, &self.host) {
            Ok(()) => Ok(None),
            Err(_) if Arc::strong_count(&self.strangers) > MOST_STRANGERS => Err(TooMany),
            Err(_) => Ok(Some(Arc::clone(&self.strangers))),
        }
    }

    fn guest(&self, number: u64, stream: &Arc<Stream>, on_task: bool, stranger: Option<Stranger>) -> Arc<Guest> {
        let (stall_timeout, queued) = (self.options().stall_timeout, Arc::clone(&self.queued));
        let outbox = Outbox::new(number, Arc::clone(stream), stall_timeout, queued, on_task);
        Arc::new(Guest::new(Arc::new(outbox), unix_ms(), stranger))
    }

    fn serve_on_task(self: &Arc<Self>, guest: Arc<Guest>, number: u64) {
        let counted = self.crew.enter();
        let daemon = Arc::clone(self);
        self.runtime().spawn(async move {
            on_task::serve(&daemon, &guest).await;
            guest.outbox.close();
            drop(guest);
            daemon.end_session(number, false);
            drop(daemon);
            // The last: from here on nothing of the store is held.
            drop(counted);
        });
    }

    fn end_session(&self, number: u64, on_thread: bool) {
        let pid = self.sessions.lock().remove(number, on_thread);
        if let Some(pid) = pid {
            self.deaths.forget(pid, number);
        }
        self.watches.session_ended(number);
        self.session_ended.notify_all();
    }

    /// A client may come in, and is about to be told so.
    pub(super) fn session_begins(self: &Arc<Self>, guest: &Guest, agreed: Agreed) {
        self.sessions.lock().begins(guest, agreed);
        if let Some(pid) = guest.pid() {
            self.deaths.watch(self, pid, &guest.outbox);
        }
    }

    pub(super) fn stop_accepting(&self, listeners: &[Arc<Listener>]) {
        self.sessions.lock().closed = true;
        self.session_ended.notify_all();
        for listener in listeners {
            listener.wake();
        }
    }

    /// How many connections are open, those in their handshake included.
    pub fn session_count(&self) -> usize {
        self.sessions.lock().count()
    }

    /// Bytes of answers that clients have not taken, of all sessions together.
    pub fn answers_waiting(&self) -> u64 {
        self.queued.used() as u64
    }

    /// Who is connected.
    pub(super) fn guests(&self) -> Vec<Arc<Guest>> {
        self.sessions.lock().all()
    }

    /// Who has session `number`; none once it has ended.
    pub(super) fn guest_of(&self, number: u64) -> Option<Arc<Guest>> {
        self.sessions.lock().guest(number)
    }

    /// Ends a session for an operator; what it held is free when its connection is closed.
    pub(super) fn end_session_of(&self, number: u64) -> Result<(), Fault> {
        let outbox = self.sessions.lock().find(number).ok_or(Fault::NoSuchSession { id: number })?;
        tracing::info!(session = number, "ended by an operator");
        outbox.say_closing(Fault::SessionEnded);
        outbox.close();
        Ok(())
    }

    /// Whether there has been no session for as long as the daemon was told to wait for one. Then none is taken any more.
    pub(super) fn has_been_idle(&self) -> bool {
        let Some(patience) = self.options().idle_exit else { return false };
        let mut sessions = self.sessions.lock();
        let idle = !sessions.closed && sessions.idle().is_some_and(|idle| idle >= patience);
        sessions.closed |= idle;
        idle
    }
}
