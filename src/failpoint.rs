//! Places on the way of a reading at which the process can end itself, as a kill would end it: so a
//! test stops the gateway between any two steps, and not somewhere near.
//!
//! A part of the gateway can also be made to panic (`--panic-in`).
//!
//! Only a build for development has them, and only one that is started with `--end-at` or `--panic-in`.
//! In a release build [`reach`] is empty and the flags are unknown.

use std::future::Future;

/// Runs a part of the gateway, and panics in its place if `--panic-in` names it, as soon as the file of
/// `--panic-when` is there.
pub async fn part<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    #[cfg(debug_assertions)]
    {
        tokio::select! {
            never = armed::panic_of(name) => match never {},
            out = work => out,
        }
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        work.await
    }
}

/// The same for a thread, at a place that it comes by again and again.
#[inline]
pub fn thread(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::panic_if_due(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

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
    use std::convert::Infallible;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Point;

    static ARMED: OnceLock<(Point, AtomicU32)> = OnceLock::new();

    /// Ends the process when a place is reached so many times.
    pub fn arm(point: Point, times: u32) {
        // Once: the command line names one place.
        ARMED.set((point, AtomicU32::new(times))).ok();
    }

    static PANIC: OnceLock<(String, PathBuf)> = OnceLock::new();

    /// Lets a part panic once a file is there.
    pub fn arm_panic(part: String, file: PathBuf) {
        // Once: the command line names one part.
        PANIC.set((part, file)).ok();
    }

    fn file_of(part: &str) -> Option<&'static PathBuf> {
        let (armed, file) = PANIC.get()?;
        (armed == part).then_some(file)
    }

    /// Panics when it is time.
    pub(super) fn panic_if_due(part: &str) {
        assert!(
            !file_of(part).is_some_and(|file| file.exists()),
            "a test lets {part} panic"
        );
    }

    /// Panics as soon as it is time.
    pub(super) async fn panic_of(part: &str) -> Infallible {
        if file_of(part).is_none() {
            return std::future::pending().await;
        }
        loop {
            panic_if_due(part);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
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
pub use armed::{arm, arm_panic};

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
