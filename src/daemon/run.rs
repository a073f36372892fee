//! One daemon from start to end, as `commonhold serve` runs it: with signals, in the foreground.
//!
//! The main thread waits, in a small tokio runtime, for whatever comes first: a signal, or a client's request to stop.
//! SIGTERM and SIGINT stop cleanly; a second one skips the flush, which the exit code tells: the journal holds everything,
//! the files may not. Signals in the same moment are one wish: `timeout`, a supervisor or a terminal that signals a process
//! and its group sends several, and nobody who does so means the second.

use std::future::pending;
use std::pin::pin;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::{Daemon, Error, ServeOptions};

/// A further signal within this time of the first is the same wish.
const SAME_WISH: Duration = Duration::from_millis(500);

/// What makes a daemon stop, other than its clients.
#[derive(Debug)]
pub struct Shutdown(Source);

#[derive(Debug)]
enum Source {
    Signals,
    Hand(UnboundedReceiver<()>),
}

/// Stops a daemon by hand, where a test or an embedding program decides.
#[derive(Clone, Debug)]
pub struct Stopper(UnboundedSender<()>);

impl Shutdown {
    /// SIGTERM and SIGINT of this process.
    pub fn on_signals() -> Self {
        Self(Source::Signals)
    }

    /// A [`Stopper`], and what it acts on.
    pub fn by_hand() -> (Stopper, Self) {
        let (sender, receiver) = unbounded_channel();
        (Stopper(sender), Self(Source::Hand(receiver)))
    }
}

impl Stopper {
    /// Stops the daemon, as a signal does; a second time, however soon, without the flush.
    pub fn stop(&self) {
        // A daemon that has ended needs no stopping.
        let _ = self.0.send(());
    }
}

/// The same, once the runtime is there to listen with.
enum Waiting {
    Signals { terminate: Signal, interrupt: Signal },
    Hand(UnboundedReceiver<()>),
}

impl Waiting {
    fn begin(shutdown: Shutdown) -> Result<Self, Error> {
        Ok(match shutdown.0 {
            Source::Hand(receiver) => Self::Hand(receiver),
            Source::Signals => {
                let listen = |kind| signal(kind).map_err(Error::system("listen for signals"));
                Self::Signals {
                    terminate: listen(SignalKind::terminate())?,
                    interrupt: listen(SignalKind::interrupt())?,
                }
            }
        })
    }

    /// Completes at the first wish that says: never mind the flush. `asked` is when the end was asked for.
    async fn hurry(&mut self, asked: Instant) -> &'static str {
        loop {
            let signal = self.next().await;
            if matches!(self, Self::Hand(_)) || asked.elapsed() >= SAME_WISH {
                return signal;
            }
            tracing::info!(signal, "it comes with the first wish to stop: the flush goes on");
        }
    }

    async fn next(&mut self) -> &'static str {
        match self {
            Self::Signals { terminate, interrupt } => select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                else => pending().await,
            },
            // When the stopper is gone, only clients can stop the daemon.
            Self::Hand(receiver) => match receiver.recv().await {
                Some(()) => "by hand",
                None => pending().await,
            },
        }
    }
}

/// Serves a store until it is told to stop, and stops cleanly. Raises this process's soft limit of open files.
///
/// Call [`install_panic_hook`](super::install_panic_hook) before it, where the process is the daemon's own.
///
/// # Errors
/// [`Error`] when the daemon did not start, or ended with namespaces whose files lack something.
pub fn run(options: ServeOptions, shutdown: Shutdown) -> Result<(), Error> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Error::system("start the runtime that waits for signals"))?;
    runtime.block_on(serve(options, shutdown))
}

async fn serve(options: ServeOptions, shutdown: Shutdown) -> Result<(), Error> {
    let mut shutdown = Waiting::begin(shutdown)?;
    let gate = options.gate.clone();
    let mut starting = pin!(on_a_thread("start", move || Daemon::start(options)));
    let (mut running, early) = select! {
        biased;
        started = &mut starting => (started??, None),
        signal = shutdown.next() => {
            if gate.gives_up() {
                // Opening can end anywhere: what a start has done is either whole or not there.
                tracing::info!(signal, "stopped before the store was open");
                return Ok(());
            }
            // Clients may have been answered already: what they wrote is flushed as at any end.
            (starting.await??, Some(signal))
        }
    };
    let told = |signal| {
        tracing::info!(signal, "told to stop");
        Vec::new()
    };
    let mut askers = if let Some(signal) = early {
        told(signal)
    } else {
        select! {
            signal = shutdown.next() => told(signal),
            asker = running.stop_requested() => Vec::from_iter(asker),
        }
    };
    let asked = Instant::now();
    select! {
        ended = on_a_thread("stop", move || running.end(&mut askers)) => ended?,
        signal = shutdown.hurry(asked) => {
            tracing::warn!(signal, "the flush is skipped: files may lack what the journal holds, until the next flush");
            Err(Error::FlushSkipped)
        }
    }
}

/// Does something that blocks, while signals are still heard. When the caller goes on before it is done, it ends with
/// the process.
async fn on_a_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        // The one who waited may have gone on; the outcome then matters to nobody.
        .spawn(move || drop(sender.send(work())))
        .map_err(Error::system("start a thread"))?;
    match receiver.await {
        Ok(outcome) => Ok(outcome),
        Err(_) => Err(Error::System { action: "finish a thread's work", source: std::io::ErrorKind::Other.into() }),
    }
}

/// Each session needs a descriptor; the soft limit of 1,024 that most systems give is for programs that use `select`.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit of open files stays at {current:?}: {errno}");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Raised, getpid, kill_process};
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_signal_hurries_the_end_only_when_it_comes_later_than_the_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            // Signals that the harness does without.
            let listen = |kind| signal(kind).expect("signals can be heard");
            let (terminate, interrupt) = (listen(SignalKind::user_defined1()), listen(SignalKind::user_defined2()));
            let mut shutdown = Waiting::Signals { terminate, interrupt };
            let raise = |signal| kill_process(getpid(), signal).expect("signalled");
            // However slow the machine is, no time has passed since then.
            let just_now = Instant::now() + Duration::from_hours(1);
            raise(Raised::USR1);
            raise(Raised::USR2);
            assert!(timeout(Duration::from_millis(200), shutdown.hurry(just_now)).await.is_err());
            let earlier = Instant::now().checked_sub(SAME_WISH).expect("the machine runs for longer");
            raise(Raised::USR2);
            assert_eq!(timeout(Duration::from_secs(30), shutdown.hurry(earlier)).await, Ok("SIGINT"));
        });
    }
}
