//! Clients that wait for a commit: a writer that knows of them does not linger.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Progress;

/// Counts a waiting client for as long as it waits.
pub(super) struct Waiting<'a> {
    progress: &'a Progress,
    shards: &'a [u16],
}

impl<'a> Waiting<'a> {
    pub(super) fn new(progress: &'a Progress, shards: &'a [u16]) -> Self {
        let waiting = Waiting { progress, shards };
        waiting.each(|n| {
            n.fetch_add(1, Ordering::AcqRel);
        });
        waiting
    }

    fn each(&self, change: impl Fn(&AtomicU32)) {
        for shard in self.shards {
            if let Some(n) = self.progress.waiters.get(usize::from(*shard)) {
                change(n);
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.each(|n| {
            n.fetch_sub(1, Ordering::AcqRel);
        });
    }
}
