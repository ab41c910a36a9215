//! The feed of changes, between the poll that publishes and the listeners that read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::filter::Filter;
use super::ring::{At, Event, FIRST, Ring, number_text, parse_number};
use crate::http::response::problem::{Kind, Problem};
use crate::metrics;
use crate::postgres::Written;

/// The most listeners at once. Why 1024: each takes a connection and a share of every event. A thousand were
/// measured.
pub(super) const LISTENERS_MAX: usize = 1024;
/// The memory for the latest events. Why 16 MiB: it holds a few minutes of 10,000 devices that report once a
/// minute, or three full passes over 20,000 devices under the highest load.
const RING_BYTES_MAX: usize = 16 << 20;
/// How long a new listener waits for the first poll.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a refused client should retry.
const RETRY_SECONDS: u64 = 5;

/// Whether the poll sees changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// It has not polled yet.
    Unknown,
    /// It sees every change from now on.
    Clear,
    /// It cannot reach the database.
    Blocked,
}

/// The state of the feed, watched by listeners that wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    epoch: u64,
    next: u64,
    sight: Sight,
}

/// The latest changes and their listeners.
pub(crate) struct Feed {
    ring: Mutex<Ring>,
    head: watch::Sender<Head>,
    room: Arc<Semaphore>,
    wanted: Notify,
    stopped: watch::Sender<bool>,
    ready_timeout: Duration,
}

impl Default for Feed {
    fn default() -> Self {
        Feed::with(RING_BYTES_MAX, READY_TIMEOUT)
    }
}

impl Feed {
    fn with(bytes_max: usize, ready_timeout: Duration) -> Self {
        let epoch = new_epoch();
        let head = Head {
            epoch,
            next: FIRST,
            sight: Sight::Unknown,
        };
        Feed {
            ring: Mutex::new(Ring::new(epoch, bytes_max)),
            head: watch::channel(head).0,
            room: Arc::new(Semaphore::new(LISTENERS_MAX)),
            wanted: Notify::new(),
            stopped: watch::channel(false).0,
            ready_timeout,
        }
    }

    /// The number of listeners.
    pub(super) fn listeners(&self) -> usize {
        LISTENERS_MAX - self.room.available_permits()
    }

    /// Waits until there is a listener.
    ///
    /// Cancel: safe
    pub(super) async fn wanted(&self) {
        while self.listeners() == 0 {
            self.wanted.notified().await;
        }
    }

    /// Sets whether the poll sees changes from now on.
    pub(super) fn set_sight(&self, sight: Sight) {
        self.head.send_if_modified(|head| {
            let changed = head.sight != sight;
            head.sight = sight;
            changed
        });
    }

    /// Discards all events. No listener can resume after one of them. Later events are changes of the state with this
    /// token.
    pub(super) fn restart(&self, seen: Option<Written>) {
        let epoch = new_epoch();
        let mut ring = self.ring();
        ring.restart(epoch);
        ring.set_seen(seen);
        self.head.send_modify(|head| {
            head.epoch = epoch;
            head.next = FIRST;
        });
    }

    /// Publishes events to the listeners that want them. They lead to the state with this token.
    pub(super) fn publish(&self, events: Vec<Event>, seen: Option<Written>) {
        let mut ring = self.ring();
        ring.set_seen(seen);
        if events.is_empty() {
            return;
        }
        ring.push(events);
        let next = ring.next();
        self.head.send_modify(|head| head.next = next);
    }

    /// Ends every listener's stream, now and later.
    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// Begins to listen, after the event `last` or from now on.
    ///
    /// Blocks: until the first poll, for at most [`READY_TIMEOUT`]
    ///
    /// # Errors
    /// 503: there are [`LISTENERS_MAX`] listeners, or the poll cannot reach the database.
    pub(super) async fn listen(
        self: &Arc<Self>,
        filter: Filter,
        last: Option<&str>,
    ) -> Result<Listener, Problem> {
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            metrics::http_shed("listeners");
            let detail = format!("the live stream has {LISTENERS_MAX} listeners; retry later");
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
            let detail = "the database cannot be reached, so there are no live changes";
            return Err(Problem::new(Kind::DatabaseUnavailable, detail).retry_after(RETRY_SECONDS));
        }
        let ring = self.ring();
        let (epoch, next, seen) = (ring.epoch(), ring.next(), ring.seen());
        let resumed = last.map(|text| match parse_number(text) {
            Some((of, number)) if of == epoch => {
                let cursor = number.checked_add(1);
                cursor.filter(|cursor| !matches!(ring.at(*cursor), At::Lost))
            }
            _ => None,
        });
        drop(ring);
        Ok(Listener {
            feed: Arc::clone(self),
            filter,
            epoch,
            cursor: resumed.flatten().unwrap_or(next),
            seen,
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

/// One of the [`LISTENERS_MAX`] permits, returned when dropped.
struct Counted(#[expect(dead_code, reason = "kept for its drop")] OwnedSemaphorePermit);

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

/// Why a listener has lost events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// It resumed after an event that is no longer in the ring.
    Unknown,
    /// It read events more slowly than they were published. Its stream ends.
    TooSlow,
    /// The gateway itself may have missed changes.
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

/// What to send to a listener next.
#[derive(Debug)]
pub(super) enum Next {
    /// Events, as text.
    Events(Bytes),
    /// It must reload. The number of the event to resume after is the listener's.
    Reset(Reset),
    /// The gateway is stopping.
    End,
}

/// One listener.
pub(super) struct Listener {
    feed: Arc<Feed>,
    filter: Filter,
    epoch: u64,
    /// The number of the next event.
    cursor: u64,
    /// The token of the state that the events from the cursor on change, when it began to listen or had to reload.
    seen: Option<Written>,
    lost: bool,
    head: watch::Receiver<Head>,
    stopped: watch::Receiver<bool>,
    _counted: Counted,
}

impl Listener {
    /// The number of the event before the cursor.
    pub(super) fn number(&self) -> String {
        number_text(self.epoch, self.cursor - 1)
    }

    /// The token with which a list shows the state that the following events change; `None` without read replicas.
    pub(super) fn seen(&self) -> Option<Written> {
        self.seen
    }

    /// Waits until there is something to send.
    ///
    /// Cancel: safe; nothing is lost, because the cursor moves only when this returns
    pub(super) async fn next(&mut self) -> Next {
        loop {
            if *self.stopped.borrow() {
                return Next::End;
            }
            if let Some(next) = self.look() {
                return next;
            }
            // A change between this look and the wait is not missed, because the head is marked as seen before the
            // ring is read.
            tokio::select! {
                changed = self.head.changed() => if changed.is_err() { return Next::End },
                _ = self.stopped.changed() => return Next::End,
            }
        }
    }

    /// What the ring already has for this listener. `None` means nothing new.
    fn look(&mut self) -> Option<Next> {
        self.head.borrow_and_update();
        loop {
            let ring = self.feed.ring();
            let (epoch, next, seen) = (ring.epoch(), ring.next(), ring.seen());
            let why = match ring.at(self.cursor) {
                // What a client loads before the first look of the new epoch may be older than that look.
                _ if epoch != self.epoch && self.head.borrow().sight != Sight::Clear => {
                    return None;
                }
                _ if epoch != self.epoch => Reset::Interrupted,
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
                    return Some(Next::Events(text));
                }
            };
            drop(ring);
            metrics::stream_reset(why.name());
            (self.epoch, self.cursor, self.lost) = (epoch, next, false);
            self.seen = seen;
            return Some(Next::Reset(why));
        }
    }
}

/// The number of a new epoch. It is random, so that it differs from earlier ones.
fn new_epoch() -> u64 {
    // Without random bytes, the clock distinguishes epochs well enough.
    let micros = || crate::reading::Timestamp::now().as_micros().unsigned_abs();
    getrandom::u64().unwrap_or_else(|_| micros())
}

#[cfg(test)]
mod tests;
