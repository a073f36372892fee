//! A session with a thread of its own: what it waits for, it waits for here. A lone `get` costs one `read`, one look-up
//! and one `write`, and no hand-over to any other thread; a lone write takes the writer's turn itself.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::WriteRequest;
use crate::ipc::Stream;

use super::Daemon;
use super::fault::timed_out;
use super::handshake::{Greeting, greet};
use super::inbox::{Inbox, THREAD_BYTES};
use super::registry::Guest;
use super::running::RELIEF;
use super::session::{Committing, Session, Want};

/// Serves a connection from its first byte to its last.
pub(super) fn serve(daemon: &Arc<Daemon>, guest: &Arc<Guest>) {
    let outbox = &guest.outbox;
    let stream = outbox.stream();
    let span = tracing::debug_span!("session", number = outbox.session);
    let _in_span = span.enter();
    match greet(stream, daemon.host(), |agreed| daemon.session_begins(guest, agreed)) {
        Greeting::Welcome => {
            if stream.set_write_timeout(Some(daemon.options().stall_timeout)).is_err() {
                return;
            }
            run(daemon, guest, stream);
            tracing::debug!("session ends");
        }
        Greeting::Unwanted(fault) => guest.refuse(fault),
        Greeting::Nobody(error) => tracing::debug!("a connection ended before its hello: {error}"),
    }
}

/// The client is told why its session ends.
fn give_up_large_frame(inbox: &Inbox, session: &mut Session, outbox: &super::outbox::Outbox) {
    session.close(timed_out(inbox.large_for(), "the rest of a large frame"));
    // The session ends in any case.
    let _ = outbox.write(&session.replies.bytes);
}

fn run(daemon: &Arc<Daemon>, guest: &Arc<Guest>, stream: &Stream) {
    let outbox = &guest.outbox;
    let mut session = Session::new(daemon, guest, false);
    let mut inbox = Inbox::new(Arc::clone(daemon.large_frames()), THREAD_BYTES);
    // When a read ends without a byte: only a large frame is looked at again.
    let mut limit = None;
    let mut frees = false;
    while !outbox.is_closed() {
        match session.step(&mut inbox) {
            Want::Read => {
                inbox.make_room_or_wait();
                if inbox.is_over() {
                    // Also for one that sends a byte now and then: the limit below counts from each read.
                    give_up_large_frame(&inbox, &mut session, outbox);
                    break;
                }
                let look = inbox.look();
                if (limit.is_some() || look.is_some()) && limit_reading(stream, look).is_err() {
                    break;
                }
                limit = look;
                let begun = look.map(|_| Instant::now());
                let read = inbox.fill(stream);
                if let Some(begun) = begun {
                    inbox.waited(begun.elapsed());
                }
                match read {
                    Ok(0) => break,
                    Ok(_) => session.has_read(),
                    // Nothing came until it was to be looked at again.
                    Err(error) if limit.is_some() && error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => {
                        tracing::debug!("the connection broke: {error}");
                        break;
                    }
                }
            }
            Want::Commit => {
                let Some(requests) = session.take_queue() else { continue };
                match session.find_committer(daemon, requests) {
                    Committing::Left => {}
                    Committing::Alone(requests) => {
                        frees |= requests.iter().any(WriteRequest::may_replace_many);
                        session.committed(daemon.commit(requests));
                    }
                    Committing::Leads(mut lead, requests) => {
                        session.committed(lead.commit(requests));
                        let sent = outbox.write_at_once(&mut session.replies);
                        lead.answer_others();
                        if !sent && outbox.write(&[]).is_err() {
                            break;
                        }
                    }
                }
            }
            Want::Send => {
                if outbox.write(&session.replies.bytes).is_err() {
                    break;
                }
                session.replies.sent();
                session.replies.pull();
                if std::mem::take(&mut frees) {
                    daemon.store().free_replaced();
                }
            }
            Want::Settle => outbox.wait_until(|| session.may_go_on()),
            Want::Relief => {
                daemon.bell.call();
                std::thread::sleep(RELIEF);
            }
            Want::Pause => {}
            Want::Close(fault) => {
                session.close(fault);
                // The session ends in any case.
                let _ = outbox.write(&session.replies.bytes);
                break;
            }
        }
    }
    session.wait_for_commit();
    if guest.outlives_its_connection(daemon) {
        outbox.wait_until_closed();
    }
    outbox.close();
    outbox.wait_for_late_writer();
}

/// Makes a read end when the frame that is being received is to be looked at.
fn limit_reading(stream: &Stream, look: Option<Instant>) -> io::Result<()> {
    // Not 0, which would be no limit.
    let least = Duration::from_millis(1);
    stream.set_read_timeout(look.map(|look| look.saturating_duration_since(Instant::now()).max(least)))
}
