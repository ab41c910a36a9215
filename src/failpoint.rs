//! Places on the way of a reading at which the process can end itself, as a kill would end it: so a
//! test stops the gateway between any two steps, and not somewhere near.
//!
//! Only a build for development has them, and only one that is started with `--end-at`. In a release
//! build [`reach`] is empty and the flag is unknown.

use std::future::Future;

/// A boundary between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(debug_assertions, derive(clap::ValueEnum))]
pub enum Point {
    /// A segment has its name in a run; nothing is written to it yet.
    SegmentBegun,
    /// A frame is written, and not synced.
    Append,
    /// It is synced, and nobody was told.
    Fsync,
    /// Its requests are acknowledged.
    Ack,
    /// New devices have their ids; nothing of the batch is sent.
    Registered,
    /// History and the checkpoint are sent, the transaction is open.
    CopyEnd,
    /// COMMIT is sent, its answer has not come.
    CommitSent,
    /// COMMIT is answered, and nobody knows.
    CommitAnswered,
    /// The cursor has moved.
    CursorMoved,
    /// A segment has gone or has become a spare; the directory is not synced.
    SegmentGone,
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Point;

    static ARMED: OnceLock<(Point, AtomicU32)> = OnceLock::new();

    /// Ends the process when a place is reached so many times.
    pub fn arm(point: Point, times: u32) {
        // Once: the command line names one place.
        ARMED.set((point, AtomicU32::new(times))).ok();
    }

    /// Whether this is the time.
    pub(super) fn is_due(point: Point) -> bool {
        let Some((armed, left)) = ARMED.get() else {
            return false;
        };
        *armed == point && left.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Nothing runs behind this: no destructor, no signal handler, no other thread.
    pub(super) fn end() -> ! {
        let own = rustix::process::getpid();
        // If the system refuses, the abort has the same end.
        rustix::process::kill_process(own, rustix::process::Signal::KILL).ok();
        std::process::abort();
    }
}

#[cfg(debug_assertions)]
pub use armed::arm;

/// Ends the process, if it is to end here.
#[inline]
pub fn reach(point: Point) {
    #[cfg(debug_assertions)]
    if armed::is_due(point) {
        armed::end();
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}

/// Does some work, and ends the process while it is under way, if it is to end here.
pub async fn during<T>(point: Point, work: impl Future<Output = T>) -> T {
    #[cfg(debug_assertions)]
    if armed::is_due(point) {
        /// Long enough for a request to be on its way, too short for an answer that waits for a disk.
        const SENT_AFTER: std::time::Duration = std::time::Duration::from_micros(500);
        // The answer may win: then it is dropped unread, which is the same to everybody else.
        drop(tokio::time::timeout(SENT_AFTER, work).await);
        armed::end();
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
    work.await
}
