//! Where threads meet without a lock: every order of their steps, and every value that the memory model lets them see, tried
//! by loom. The files are those of the engine, with loom's atomics in the place of std's.
#![expect(unreachable_pub, dead_code, reason = "it takes single files of the library, not the library")]

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

    /// As the usual one: nobody panics with it in hand.
    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("nobody panics")
        }
    }
}

use atomic as sync;

mod error {
    /// What of the engine's errors these files name.
    #[derive(Debug)]
    pub(super) enum Error {
        TokenNotLive { token: u64 },
    }
}

#[path = "../src/engine/grant.rs"]
mod grant;
#[path = "../src/engine/news.rs"]
mod news;
#[path = "../src/daemon/untaken.rs"]
mod untaken;
#[path = "../src/daemon/watch_line.rs"]
mod watch_line;

use std::sync::Arc;

use atomic::Mutex;
use grant::Grant;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use news::{Mark, News, Newsworthy};
use untaken::Untaken;
use watch_line::WatchLine;

/// Two writes and the end of the grant that they depend on. The key is free when the end finds no write, or when the last
/// write is done: exactly once, and after it no write is seen, and what was written is.
#[test]
fn a_key_is_free_once_and_after_the_last_write_under_its_grant() {
    loom::model(|| {
        // What is written, and what whoever gets the key next finds.
        let written = Arc::new(AtomicUsize::new(0));
        let freed = Arc::new(AtomicUsize::new(0));
        let found = Arc::new(AtomicUsize::new(0));
        let free = {
            let (written, freed, found) = (Arc::clone(&written), Arc::clone(&freed), Arc::clone(&found));
            move || {
                freed.fetch_add(1, Ordering::Relaxed);
                // A plain look: only what the grant orders is to be seen.
                found.store(written.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        };
        let settled = free.clone();
        let grant = Grant::new(7, Arc::new(move |_| settled()));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (grant, written) = (grant.clone(), Arc::clone(&written));
                thread::spawn(move || {
                    if let Ok(under) = grant.enter() {
                        written.fetch_add(1, Ordering::Relaxed);
                        drop(under);
                    }
                })
            })
            .collect();
        if !grant.end() {
            free();
        }
        for writer in writers {
            writer.join().expect("it does not panic");
        }
        assert_eq!(freed.load(Ordering::Relaxed), 1, "the key is freed once");
        // No write came after it was free, and none before it was overlooked.
        assert_eq!(found.load(Ordering::Relaxed), written.load(Ordering::Relaxed));
    });
}

/// A namespace that is watched, as the engine's channel: what was written, and how many watch.
struct Channel {
    written: Mutex<usize>,
    watchers: AtomicUsize,
    mark: Mark,
}

impl Newsworthy for Arc<Channel> {
    fn mark(&self) -> &Mark {
        &self.mark
    }
}

struct Feed {
    news: News<Arc<Channel>>,
    /// Who begins to watch and who lets go of what nobody watches have it.
    channels: Mutex<()>,
    channel: Arc<Channel>,
}

impl Feed {
    fn new(watchers: usize) -> Arc<Self> {
        let (written, watchers) = (Mutex::new(0), AtomicUsize::new(watchers));
        let channel = Arc::new(Channel { written, watchers, mark: Mark::new() });
        Arc::new(Self { news: News::new(), channels: Mutex::new(()), channel })
    }

    fn write(&self) {
        *self.channel.written.lock() += 1;
        self.news.add(Arc::clone(&self.channel));
    }

    fn tick(&self) {
        let channels = self.channels.lock();
        self.news.keep_only(|channel| channel.watchers.load(Ordering::Relaxed) > 0);
        drop(channels);
    }

    /// One who comes back looks first, and rests then.
    fn watch(&self) -> usize {
        let channels = self.channels.lock();
        self.channel.watchers.fetch_add(1, Ordering::Relaxed);
        drop(channels);
        *self.channel.written.lock()
    }
}

/// A tick finds news of a namespace that nobody watches, while one comes back to watch it and another write comes: what the
/// watcher has not seen when it rests is news, and so is whatever comes then.
#[test]
fn a_watcher_that_returns_while_a_tick_forgets_old_news_is_told_what_it_has_not_seen() {
    loom::model(|| {
        let feed = Feed::new(0);
        feed.write();
        let (ticking, writing) = (Arc::clone(&feed), Arc::clone(&feed));
        let tick = thread::spawn(move || ticking.tick());
        let write = thread::spawn(move || writing.write());
        let seen = feed.watch();
        tick.join().expect("it does not panic");
        write.join().expect("it does not panic");
        let news = feed.news.take().len();
        assert!(seen == 2 || news == 1, "it has seen {seen} of 2 writes and {news} is news");
        feed.write();
        assert_eq!((feed.news.is_any(), feed.news.take().len()), (true, 1), "what comes then is news");
    });
}

/// Two writes, and one who takes the news and looks: what came after the look is news.
#[test]
fn what_comes_after_a_look_is_news_again() {
    loom::model(|| {
        let feed = Feed::new(1);
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let feed = Arc::clone(&feed);
                thread::spawn(move || feed.write())
            })
            .collect();
        let seen = feed.news.take().first().map_or(0, |channel| *channel.written.lock());
        for writer in writers {
            writer.join().expect("it does not panic");
        }
        assert!(seen == 2 || feed.news.is_any() && feed.news.take().len() == 1, "it has seen {seen} of 2 writes");
    });
}

/// A session that watches: who stands in line, what waits for its client, who serves, and how many were served.
struct Session {
    line: WatchLine<()>,
    untaken: Untaken,
    is_served: AtomicBool,
    served: AtomicUsize,
}

impl Session {
    fn serve(&self) {
        assert!(!self.is_served.swap(true, Ordering::SeqCst), "one serves at a time");
        loop {
            if !self.untaken.is_none_or_tells() {
                // Before another one may begin.
                self.is_served.store(false, Ordering::SeqCst);
                if self.line.rests() {
                    return;
                }
                assert!(!self.is_served.swap(true, Ordering::SeqCst), "one serves at a time");
            } else if self.line.next().is_some() {
                self.served.fetch_add(1, Ordering::SeqCst);
            } else {
                self.is_served.store(false, Ordering::SeqCst);
                if self.line.is_done() {
                    return;
                }
                assert!(!self.is_served.swap(true, Ordering::SeqCst), "one serves at a time");
            }
        }
    }
}

/// Two watches have something to do while the client takes the last of what waited for it: both are served, by one at a time.
#[test]
fn no_watch_is_left_standing_when_its_client_has_taken_what_waited() {
    loom::model(|| {
        let session = Arc::new(Session {
            line: WatchLine::default(),
            untaken: Untaken::new(),
            is_served: AtomicBool::new(false),
            served: AtomicUsize::new(0),
        });
        session.untaken.add(1);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let session = Arc::clone(&session);
                thread::spawn(move || {
                    if session.line.join(()) {
                        session.serve();
                    }
                })
            })
            .collect();
        if session.untaken.take(1) && session.line.is_called() {
            session.serve();
        }
        for thread in threads {
            thread.join().expect("it does not panic");
        }
        assert_eq!(session.served.load(Ordering::SeqCst), 2, "both are served");
    });
}
