//! Points at which the process can end itself as a kill would, so that a test stops the gateway between
//! exactly two steps.
//!
//! `--panic-in` makes a part of the gateway panic.
//!
//! Only a development build has failpoints, and only `--end-at` or `--panic-in` arms them. In a release
//! build [`reach`] is empty and the flags are unknown.

use std::future::Future;

/// Runs a part of the gateway. If `--panic-in` names it, it panics as soon as the file of `--panic-when`
/// exists.
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

/// The same for a thread, called from its loop.
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
    /// A segment has its name in a run; it is still empty.
    SegmentBegun,
    /// A frame is written, but not synced.
    Append,
    /// The frame is synced, but not acknowledged.
    Fsync,
    /// Its requests are acknowledged.
    Ack,
    /// New devices have their ids; the batch is not sent.
    Registered,
    /// History and the checkpoint are sent; the transaction is open.
    CopyEnd,
    /// COMMIT is sent, but not answered.
    CommitSent,
    /// COMMIT is answered, but the writer has not acted on it.
    CommitAnswered,
    /// The cursor has moved.
    CursorMoved,
    /// A segment is deleted or has become a spare; the directory is not synced.
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

    /// Arms a point: the process ends when it is reached for the n-th time.
    pub fn arm(point: Point, times: u32) {
        // Set once, because the command line names one point.
        ARMED.set((point, AtomicU32::new(times))).ok();
    }

    static PANIC: OnceLock<(String, PathBuf)> = OnceLock::new();

    /// Arms a part: it panics once a file exists.
    pub fn arm_panic(part: String, file: PathBuf) {
        // Set once, because the command line names one part.
        PANIC.set((part, file)).ok();
    }

    fn file_of(part: &str) -> Option<&'static PathBuf> {
        let (armed, file) = PANIC.get()?;
        (armed == part).then_some(file)
    }

    /// Panics if the part is armed and its file exists.
    pub(super) fn panic_if_due(part: &str) {
        assert!(
            !file_of(part).is_some_and(|file| file.exists()),
            "a test makes {part} panic"
        );
    }

    /// Panics as soon as the file of an armed part exists.
    pub(super) async fn panic_of(part: &str) -> Infallible {
        if file_of(part).is_none() {
            return std::future::pending().await;
        }
        loop {
            panic_if_due(part);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Whether the process must end here, now.
    pub(super) fn is_due(point: Point) -> bool {
        let Some((armed, left)) = ARMED.get() else {
            return false;
        };
        *armed == point && left.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Ends the process at once: no destructor, signal handler or other thread runs after it.
    pub(super) fn end() -> ! {
        let own = rustix::process::getpid();
        // If the system refuses the kill, the abort has the same effect.
        rustix::process::kill_process(own, rustix::process::Signal::KILL).ok();
        std::process::abort();
    }
}

#[cfg(debug_assertions)]
pub use armed::{arm, arm_panic};

/// Ends the process if the point is due.
#[inline]
pub fn reach(point: Point) {
    #[cfg(debug_assertions)]
    if armed::is_due(point) {
        armed::end();
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}

/// Does some work. If the point is due, the process ends while the work is under way.
pub async fn during<T>(point: Point, work: impl Future<Output = T>) -> T {
    #[cfg(debug_assertions)]
    if armed::is_due(point) {
        /// Long enough to send a request, too short for an answer that waits for a disk.
        const SENT_AFTER: std::time::Duration = std::time::Duration::from_micros(500);
        // An answer that wins the race is dropped unread, as a kill would drop it.
        drop(tokio::time::timeout(SENT_AFTER, work).await);
        armed::end();
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
    work.await
}
