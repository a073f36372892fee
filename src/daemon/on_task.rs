//! A session on the runtime: many share a few threads, so nothing here waits for the turn, a sync, a disk or a load.
//!
//! Its writes are committed by the [committer](super::committer), what may take long is carried out by helpers, and its
//! answers leave as the client takes them. While it is idle it holds no buffer.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::time::{sleep, timeout, timeout_at};

use crate::ipc::{AsyncStream, Stream};

use super::Daemon;
use super::fault::timed_out;
use super::handshake::{Greeting, greet_later};
use super::inbox::{Inbox, TASK_BYTES};
use super::outbox::Outbox;
use super::posting::Pushed;
use super::registry::Guest;
use super::running::RELIEF;
use super::session::{Session, Want};

/// Serves a connection from its first byte to its last.
pub(super) async fn serve(daemon: &Arc<Daemon>, guest: &Arc<Guest>) {
    let session = guest.outbox.session;
    let stream = match AsyncStream::new(Arc::clone(guest.outbox.stream())) {
        Ok(stream) => stream,
        Err(error) => return tracing::error!(session, "a connection was closed, it cannot be waited for: {error}"),
    };
    match greet_later(&stream, daemon.host(), |agreed| daemon.session_begins(guest, agreed)).await {
        Greeting::Welcome => {
            Task::new(daemon, guest, stream).run().await;
            if guest.outlives_its_connection(daemon) {
                while !guest.outbox.is_closed() {
                    guest.outbox.woken().await;
                }
            }
            guest.outbox.close();
            tracing::debug!(session, "session ends");
        }
        Greeting::Unwanted(fault) => guest.refuse(fault),
        Greeting::Nobody(error) => tracing::debug!(session, "a connection ended before its hello: {error}"),
    }
}

struct Task<'a> {
    daemon: &'a Arc<Daemon>,
    outbox: &'a Arc<Outbox>,
    stream: AsyncStream,
    session: Session,
    inbox: Inbox,
}

impl<'a> Task<'a> {
    fn new(daemon: &'a Arc<Daemon>, guest: &'a Arc<Guest>, stream: AsyncStream) -> Self {
        let inbox = Inbox::new(Arc::clone(daemon.large_frames()), TASK_BYTES);
        Self { daemon, outbox: &guest.outbox, stream, session: Session::new(daemon, guest, true), inbox }
    }

    async fn run(mut self) {
        while !self.outbox.is_closed() {
            match self.session.step(&mut self.inbox) {
                Want::Read => match self.read().await {
                    Ok(0) => break,
                    Ok(_) => self.session.has_read(),
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        self.session.close(timed_out(self.inbox.large_for(), "the rest of a large frame"));
                        let _ = self.send().await;
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(session = self.outbox.session, "the connection broke: {error}");
                        break;
                    }
                },
                Want::Commit => {
                    if let Some(requests) = self.session.take_queue() {
                        let outcomes = self.daemon.committer().commit(self.daemon, requests).await;
                        self.session.committed(outcomes);
                    }
                }
                Want::Send => {
                    if self.send().await.is_err() {
                        break;
                    }
                    self.session.replies.pull();
                    // Who is served fast is served often: the others get their turn in between.
                    tokio::task::yield_now().await;
                }
                Want::Settle => {
                    // Sends after each time that it was woken: what it was woken for may be an answer, of which it is told once.
                    while self.send().await.is_ok() && !self.outbox.is_closed() && !self.session.may_go_on() {
                        // Woken when something was answered; should that have been just before, it is seen soon.
                        let _ = timeout(RELIEF, self.outbox.woken()).await;
                    }
                }
                Want::Relief => {
                    self.daemon.bell.call();
                    // Its own part of it can leave only here.
                    if self.send().await.is_err() {
                        break;
                    }
                    sleep(RELIEF).await;
                }
                Want::Pause => tokio::task::yield_now().await,
                Want::Close(fault) => {
                    self.session.close(fault);
                    // The session ends in any case.
                    let _ = self.send().await;
                    break;
                }
            }
        }
    }

    /// Waits for bytes, and meanwhile sends what is answered later. 0 is the end of the stream or of the session.
    async fn read(&mut self) -> io::Result<usize> {
        self.session.replies.bytes = Vec::new();
        self.inbox.rest();
        while !self.outbox.is_closed() {
            let Self { inbox, outbox, .. } = &mut *self;
            select! {
                () = inbox.make_room_later() => break,
                () = outbox.woken() => {}
            }
            self.send().await?;
        }
        if self.outbox.is_closed() {
            return Ok(0);
        }
        loop {
            if self.inbox.is_over() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let look = self.inbox.look();
            let begun = look.map(|_| Instant::now());
            let Self { stream, inbox, outbox, .. } = &mut *self;
            let read = async {
                match look {
                    None => read_some(stream, inbox).await.map(Some),
                    // Large, and rare: its timer is not part of every idle session.
                    Some(look) => Box::pin(timeout_at(look.into(), read_some(stream, inbox))).await.ok().transpose(),
                }
            };
            let read = select! {
                read = read => read,
                () = outbox.woken() => Ok(None),
            };
            if let Some(begun) = begun {
                self.inbox.waited(begun.elapsed());
            }
            match read {
                Ok(None) => {}
                Ok(Some(read)) => return Ok(read),
                Err(error) => return Err(error),
            }
            if self.outbox.is_closed() {
                return Ok(0);
            }
            self.send().await?;
        }
    }

    /// Sends the session's answers, and late ones; waits for the client as long as one may be waited for.
    async fn send(&mut self) -> io::Result<()> {
        let Self { stream, session, outbox, .. } = self;
        if outbox.push(&mut session.replies)? == Pushed::All {
            return Ok(());
        }
        let stall_timeout = self.daemon.options().stall_timeout;
        // Only where a client does not take all at once: its timer is not part of every session.
        Box::pin(async {
            loop {
                let patience = stall_timeout.saturating_sub(outbox.stalled()).max(Duration::from_millis(1));
                let write = stream.write_with(|| match outbox.push(&mut session.replies)? {
                    Pushed::All => Ok(true),
                    Pushed::Full => Ok(false),
                });
                match timeout(patience, write).await {
                    Ok(outcome) => return outcome,
                    Err(_) if outbox.stalled() < stall_timeout => {}
                    Err(_) => return outbox.give_up(),
                }
            }
        })
        .await
    }
}

async fn read_some(stream: &AsyncStream, inbox: &mut Inbox) -> io::Result<usize> {
    let read = |stream: &Stream| {
        let read = inbox.fill_with(|space| stream.read_now(space));
        if read.is_err() {
            // Woken for nothing: it goes on waiting without a buffer.
            inbox.rest();
        }
        Ok((read?, inbox.is_full()))
    };
    stream.read_with(read).await
}
