//! What joins the one who looks for changes and those who listen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::filter::Filter;
use super::ring::{At, Event, FIRST, Ring, number_text, parse_number};
use crate::http::response::problem::{Kind, Problem};
use crate::metrics;

/// Listeners at once, at most. Why: each costs a connection and its part of every event; a
/// thousand were measured.
pub(super) const LISTENERS_MAX: usize = 1024;
/// The memory of the latest events: some minutes of a fleet of 10,000 that reports once a minute,
/// or three full passes over 20,000 devices under the highest load.
const RING_BYTES_MAX: usize = 16 << 20;
/// How long a listener waits until changes are looked for.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// When to come again.
const RETRY_SECONDS: u64 = 5;

/// Whether changes are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Nobody has looked yet.
    Unknown,
    /// From now on none is missed.
    Clear,
    /// The database is not reached.
    Blocked,
}

/// How far the feed is, for those who wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    run: u64,
    next: u64,
    sight: Sight,
}

/// The latest changes, and who listens to them.
pub(super) struct Feed {
    ring: Mutex<Ring>,
    head: watch::Sender<Head>,
    room: Arc<Semaphore>,
    wanted: Notify,
    stopped: watch::Sender<bool>,
    ready_timeout: Duration,
}

impl Feed {
    pub(super) fn new() -> Arc<Self> {
        Feed::with(RING_BYTES_MAX, READY_TIMEOUT)
    }

    fn with(bytes_max: usize, ready_timeout: Duration) -> Arc<Self> {
        let run = new_run();
        let head = Head {
            run,
            next: FIRST,
            sight: Sight::Unknown,
        };
        Arc::new(Feed {
            ring: Mutex::new(Ring::new(run, bytes_max)),
            head: watch::channel(head).0,
            room: Arc::new(Semaphore::new(LISTENERS_MAX)),
            wanted: Notify::new(),
            stopped: watch::channel(false).0,
            ready_timeout,
        })
    }

    /// How many listen.
    pub(super) fn listeners(&self) -> usize {
        LISTENERS_MAX - self.room.available_permits()
    }

    /// Ends when somebody listens.
    ///
    /// Cancel: safe
    pub(super) async fn wanted(&self) {
        while self.listeners() == 0 {
            self.wanted.notified().await;
        }
    }

    /// Says whether changes are seen from here on.
    pub(super) fn set_sight(&self, sight: Sight) {
        self.head.send_if_modified(|head| {
            let changed = head.sight != sight;
            head.sight = sight;
            changed
        });
    }

    /// Forgets all events: nobody can go on from one of them.
    pub(super) fn restart(&self) {
        let run = new_run();
        let mut ring = self.ring();
        ring.restart(run);
        self.head.send_modify(|head| {
            head.run = run;
            head.next = FIRST;
        });
    }

    /// Sends events to all who want them.
    pub(super) fn publish(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut ring = self.ring();
        ring.push(events);
        let next = ring.next();
        self.head.send_modify(|head| head.next = next);
    }

    /// Ends every listener's stream, now and later.
    pub(super) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// Begins to listen, after the event named or from now on.
    ///
    /// Blocks: until somebody has looked, at most [`READY_TIMEOUT`]
    ///
    /// # Errors
    /// Too many listen already; the database is not reached.
    pub(super) async fn listen(
        self: &Arc<Self>,
        filter: Filter,
        last: Option<&str>,
    ) -> Result<Listener, Problem> {
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            metrics::http_shed("listeners");
            let detail = "as many listen to the live stream as may";
            Problem::new(Kind::Overloaded, detail).retry_after(RETRY_SECONDS)
        })?;
        self.wanted.notify_one();
        let mut head = self.head.subscribe();
        let looked = head.wait_for(|head| head.sight != Sight::Unknown);
        let sight = match timeout(self.ready_timeout, looked).await {
            Ok(Ok(head)) => head.sight,
            _ => Sight::Blocked,
        };
        if sight == Sight::Blocked {
            let detail = "the database is not reached; nothing can be seen live";
            return Err(Problem::new(Kind::DatabaseUnavailable, detail).retry_after(RETRY_SECONDS));
        }
        let ring = self.ring();
        let (run, next) = (ring.run(), ring.next());
        let resumed = last.map(|text| match parse_number(text) {
            Some((of, number)) if of == run => {
                let cursor = number.checked_add(1);
                cursor.filter(|cursor| !matches!(ring.at(*cursor), At::Lost))
            }
            _ => None,
        });
        drop(ring);
        Ok(Listener {
            feed: Arc::clone(self),
            filter,
            run,
            cursor: resumed.flatten().unwrap_or(next),
            lost: matches!(resumed, Some(None)),
            head,
            stopped: self.stopped.subscribe(),
            _counted: Counted::new(permit),
        })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the listeners, for as long as it is held.
struct Counted(#[expect(dead_code, reason = "held, not used")] OwnedSemaphorePermit);

impl Counted {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::stream_listeners(1);
        Counted(permit)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::stream_listeners(-1);
    }
}

/// Why a listener cannot have all events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// It asked to go on from an event that is gone.
    Unknown,
    /// It took events more slowly than they came. It is ended.
    TooSlow,
    /// The gateway itself may have missed some.
    Interrupted,
}

impl Reset {
    pub(super) fn name(self) -> &'static str {
        match self {
            Reset::Unknown => "unknown_id",
            Reset::TooSlow => "too_slow",
            Reset::Interrupted => "interrupted",
        }
    }
}

/// What a listener is to be sent next.
#[derive(Debug)]
pub(super) enum Heard {
    /// The texts of events.
    Events(Bytes),
    /// It is to load anew; the number to go on from.
    Reset(Reset, String),
    /// The gateway stops.
    End,
}

/// One who listens.
pub(super) struct Listener {
    feed: Arc<Feed>,
    filter: Filter,
    run: u64,
    /// The number of the event that comes next.
    cursor: u64,
    lost: bool,
    head: watch::Receiver<Head>,
    stopped: watch::Receiver<bool>,
    _counted: Counted,
}

impl Listener {
    /// The number of the last event before what comes.
    pub(super) fn number(&self) -> String {
        number_text(self.run, self.cursor - 1)
    }

    /// Waits for what is to be sent next.
    ///
    /// Cancel: safe; nothing is lost, because the cursor moves with the answer only
    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            if *self.stopped.borrow() {
                return Heard::End;
            }
            if let Some(heard) = self.look() {
                return heard;
            }
            // What changes between the look and the wait is seen: the head is marked as read
            // before the ring is.
            tokio::select! {
                changed = self.head.changed() => if changed.is_err() { return Heard::End },
                _ = self.stopped.changed() => return Heard::End,
            }
        }
    }

    /// What is there already.
    fn look(&mut self) -> Option<Heard> {
        self.head.borrow_and_update();
        loop {
            let ring = self.feed.ring();
            let (run, next) = (ring.run(), ring.next());
            let why = match ring.at(self.cursor) {
                _ if run != self.run => Reset::Interrupted,
                _ if self.lost => Reset::Unknown,
                At::Lost => Reset::TooSlow,
                At::CaughtUp => return None,
                At::Chunk(chunk) => {
                    drop(ring);
                    let text = chunk.text(self.cursor, &self.filter);
                    self.cursor = chunk.end();
                    if text.is_empty() {
                        continue;
                    }
                    return Some(Heard::Events(text));
                }
            };
            drop(ring);
            metrics::stream_reset(why.name());
            (self.run, self.cursor, self.lost) = (run, next, false);
            return Some(Heard::Reset(why, self.number()));
        }
    }
}

/// A number that no run had before, as far as chance goes.
fn new_run() -> u64 {
    // Without random bytes the clock tells runs apart well enough.
    let micros = || crate::reading::Timestamp::now().as_micros().unsigned_abs();
    getrandom::u64().unwrap_or_else(|_| micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::events::filter::Kind;
    use crate::reading::Stream;

    fn events(from: u64, to: u64) -> Vec<Event> {
        let event = |n| Event {
            kind: Kind::Status(Stream::Meter),
            id: format!("M{n}"),
            data: format!("{{\"n\":{n}}}"),
        };
        (from..to).map(event).collect()
    }

    fn texts(heard: &Heard) -> Vec<String> {
        let Heard::Events(text) = heard else {
            panic!("{heard:?}");
        };
        let lines = std::str::from_utf8(text).unwrap().lines();
        let data = lines.filter_map(|line| line.strip_prefix("data: "));
        data.map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_listener_goes_on_after_the_event_it_names() {
        let feed = Feed::with(1 << 20, Duration::from_millis(50));
        feed.set_sight(Sight::Clear);
        feed.publish(events(0, 3));
        let run = feed.ring().run();
        let last = number_text(run, FIRST);
        let mut listener = feed.listen(Filter::default(), Some(&last)).await.unwrap();
        assert_eq!(texts(&listener.hear().await), ["{\"n\":1}", "{\"n\":2}"]);
        let mut newest = feed.listen(Filter::default(), None).await.unwrap();
        feed.publish(events(3, 4));
        assert_eq!(texts(&newest.hear().await), ["{\"n\":3}"]);
        assert_eq!(texts(&listener.hear().await), ["{\"n\":3}"]);
        assert_eq!(feed.listeners(), 2);
        drop((listener, newest));
        assert_eq!(feed.listeners(), 0);
    }

    #[tokio::test]
    async fn who_cannot_have_all_events_is_told_why_and_where_to_go_on() {
        let feed = Feed::with(1000, Duration::from_millis(50));
        feed.set_sight(Sight::Clear);
        feed.publish(events(0, 3));
        for unknown in ["nonsense", "0000000000000001-1"] {
            let mut listener = feed.listen(Filter::default(), Some(unknown)).await.unwrap();
            let Heard::Reset(Reset::Unknown, at) = listener.hear().await else {
                panic!("not told");
            };
            assert_eq!(at, number_text(feed.ring().run(), 3));
            feed.publish(events(0, 1));
            assert_eq!(texts(&listener.hear().await), ["{\"n\":0}"]);
            feed.restart();
            feed.publish(events(0, 3));
            let heard = listener.hear().await;
            assert!(
                matches!(heard, Heard::Reset(Reset::Interrupted, _)),
                "{heard:?}"
            );
        }
        let mut slow = feed.listen(Filter::default(), None).await.unwrap();
        for _ in 0..100 {
            feed.publish(events(0, 20));
        }
        let heard = slow.hear().await;
        assert!(
            matches!(heard, Heard::Reset(Reset::TooSlow, _)),
            "{heard:?}"
        );
    }

    #[tokio::test]
    async fn listeners_are_bounded_and_a_stop_ends_them() {
        let feed = Feed::with(1000, Duration::from_millis(50));
        feed.set_sight(Sight::Clear);
        let mut all = Vec::new();
        for _ in 0..LISTENERS_MAX {
            all.push(feed.listen(Filter::default(), None).await.unwrap());
        }
        assert!(feed.listen(Filter::default(), None).await.is_err());
        all.pop();
        all.push(feed.listen(Filter::default(), None).await.unwrap());
        let mut one = all.pop().unwrap();
        let waiting = tokio::spawn(async move { one.hear().await });
        feed.stop();
        assert!(matches!(waiting.await.unwrap(), Heard::End));
        assert!(matches!(all[0].hear().await, Heard::End));
    }

    #[tokio::test]
    async fn a_listener_is_refused_while_nothing_can_be_seen() {
        let feed = Feed::with(1000, Duration::from_millis(50));
        assert!(feed.listen(Filter::default(), None).await.is_err());
        feed.set_sight(Sight::Blocked);
        assert!(feed.listen(Filter::default(), None).await.is_err());
        assert_eq!(feed.listeners(), 0);
    }
}
