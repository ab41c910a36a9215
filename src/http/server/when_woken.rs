//! Polls a future only if it was woken.
//!
//! A connection waits for its socket, the log, timers and the signal to stop. All of them wake the same task.
//! Without a waker of its own for each, every one of these futures would be polled whenever any of them wakes the
//! task.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::http::request::poll;

/// A future that is polled only after it was woken.
pub(super) struct WhenWoken<F> {
    future: Pin<Box<F>>,
    /// `None` means that the next poll must poll it, woken or not.
    flag: Option<Flagged>,
}

/// A flag, and the waker that sets it.
struct Flagged {
    flag: Arc<Flag>,
    waker: Waker,
}

struct Flag {
    woken: AtomicBool,
    task: Waker,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<F: Future> WhenWoken<F> {
    pub(super) fn new(future: F) -> Self {
        WhenWoken {
            future: Box::pin(future),
            flag: None,
        }
    }

    /// The future, read-only.
    pub(super) fn get(&self) -> &F {
        &self.future
    }

    /// The future, mutable. The next poll will poll it whether or not it was woken.
    pub(super) fn change(&mut self) -> Pin<&mut F> {
        self.flag = None;
        self.future.as_mut()
    }

    /// Polls the future if it was woken since the last poll, or if this is the first poll. As with any future, do
    /// not poll it after it was ready.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let task = cx.waker();
        let known = self
            .flag
            .take_if(|flagged| !flagged.flag.task.will_wake(task));
        drop(known);
        let flagged = match &self.flag {
            Some(flagged) => {
                // Nearly always it was not woken. A load, unlike a swap, does not write to a shared cache line.
                let woken = flagged.flag.woken.load(Ordering::Acquire)
                    && flagged.flag.woken.swap(false, Ordering::AcqRel);
                if !woken {
                    return Poll::Pending;
                }
                flagged
            }
            None => {
                let flag = Arc::new(Flag {
                    woken: AtomicBool::new(false),
                    task: task.clone(),
                });
                let waker = Waker::from(Arc::clone(&flag));
                self.flag.insert(Flagged { flag, waker })
            }
        };
        let waker = &flagged.waker;
        self.future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

/// The waker of a connection's task. It leaves out wakes that a request withholds.
#[derive(Default)]
pub(super) struct ConnectionWaker(Option<(Arc<Passed>, Waker)>);

struct Passed {
    task: Waker,
}

impl Wake for Passed {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !poll::withholds_wake() {
            self.task.wake_by_ref();
        }
    }
}

impl ConnectionWaker {
    /// The waker to poll the connection with.
    pub(super) fn of(&mut self, task: &Waker) -> &Waker {
        if self
            .0
            .as_ref()
            .is_some_and(|(passed, _)| !passed.task.will_wake(task))
        {
            self.0 = None;
        }
        let (_, waker) = self.0.get_or_insert_with(|| {
            let passed = Arc::new(Passed { task: task.clone() });
            let waker = Waker::from(Arc::clone(&passed));
            (passed, waker)
        });
        waker
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_future_is_polled_once_and_then_when_woken() {
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut cx = Context::from_waker(&waker);
        let (notify, polls) = (Notify::new(), AtomicUsize::new(0));
        let mut notified = Box::pin(notify.notified());
        let mut future = WhenWoken::new(poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            notified.as_mut().poll(cx)
        }));
        for _ in 0..3 {
            assert!(future.poll(&mut cx).is_pending());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        // Another task takes over and must be woken from now on.
        let other = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&other));
        let mut cx = Context::from_waker(&waker);
        assert!(future.poll(&mut cx).is_pending());
        assert_eq!(polls.load(Ordering::Relaxed), 2);
        notify.notify_one();
        assert_eq!(other.0.load(Ordering::Relaxed), 1);
        assert_eq!(counter.0.load(Ordering::Relaxed), 0);
        assert!(future.poll(&mut cx).is_ready());
        assert_eq!(polls.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_connection_is_woken_unless_a_request_withholds_it() {
        let counter = Arc::new(Counter::default());
        let task = Waker::from(Arc::clone(&counter));
        let mut connection = ConnectionWaker::default();
        let waker = connection.of(&task).clone();
        assert!(connection.of(&task).will_wake(&waker));
        waker.wake_by_ref();
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        let ((), withheld) = poll::withhold_wakes(|| waker.wake_by_ref());
        assert!(withheld);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        // A wake by another thread, such as the log's, is never withheld.
        let elsewhere =
            || std::thread::scope(|threads| threads.spawn(|| waker.wake_by_ref()).join());
        let (joined, withheld) = poll::withhold_wakes(elsewhere);
        assert!(joined.is_ok() && !withheld);
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    }
}
