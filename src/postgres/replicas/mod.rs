//! Read replicas: standbys that answer queries, so that the primary need not.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod` | the replicas, how they are watched, and which one is asked |
//! | `position` | a position in the WAL, and the token of what was written before it |
//! | `samples` | up to which moment a replica holds everything |
//! | `look` | looking at the replicas, and at the end of the primary's WAL |
//! | `primary` | the end of the primary's WAL, and whether the primary in use holds what a client has seen |
//! | `report` | the replicas, for metrics |
//! | `standby` | sessions on a standby, admitted by the guard against two primaries |
//! | `trial` | one look at a replica, for `wattgate check` |
//!
//! # Rules
//!
//! - **When in doubt, the primary.** A replica is asked only if it follows the primary in use, holds everything up to a
//!   known moment that is not too long ago, and has replayed what the client has written.
//! - **The session that is asked shows how far it is.** A standby that restarts may be behind what it had replayed
//!   before, and a host name may stand for several servers. So what was seen in another session only chooses
//!   the replica.
//! - **A client that waits holds no session.** A paused replica would soon have none left.
//! - **An answer may be read from a standby only if it rests on one snapshot, or on the order of cause and effect.** A
//!   standby makes commits visible in the order of their records in the WAL. Two transactions that did not see each
//!   other may have become visible on the primary in the other order. But what a transaction saw committed has
//!   its record before the transaction's own, so that no state of a standby holds an effect without its cause.
//!   This is what the answers need:
//!   - Live status, a reading and its dirty mark are one transaction's. So are a rollup's rows and the marks that it
//!     deletes, and it saw every batch that its rows hold. So each state of a standby is one in which rollups are valid
//!     ([`rollups`](crate::rollups)).
//!   - A rollup commits asynchronously. The primary shows it before it is durable, and a standby after.
//!   - Answers over windows read one snapshot. Pages continue after a time or an id, never after a commit.
//!   - The live stream compares states. It asks no server that is behind the last one it has asked.
//!   - A standby may show a commit before the primary does, which still waits for another synchronous standby.

mod look;
mod position;
mod primary;
mod report;
mod samples;
mod standby;
mod trial;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{BuildError, Client, Object};
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use super::hosts::host_name;
use super::read_pool::{ReadError, ReadPool};
use super::route::Route;
use crate::reading::Timestamp;
pub use position::{NotAToken, WalPosition, Written};
pub use report::{Leaves, ReplicaReport, ReplicasReport};
use samples::{Moment, Samples};
use standby::{Opener, replayed};
pub use trial::TriedReplica;
pub(super) use trial::try_replica;

/// How long a query waits for a replica that has not replayed what the client has written.
const REPLAY_WITHIN: Duration = Duration::from_secs(1);
/// How long a query waits for a session on a replica, and for how far it is.
const SESSION_WITHIN: Duration = Duration::from_secs(2);
/// A replica that is further behind is not waited for: it hardly replays within [`REPLAY_WITHIN`] what is newer. Each
/// of them is seen up to a second late.
const LAG_WAITED_FOR: Duration = Duration::from_secs(2);
/// The least lag that may be allowed. Why: the WAL is looked at twice a second.
pub(super) const MAX_LAG_LEAST: Duration = Duration::from_secs(2);
/// The greatest: samples of the WAL are kept for so long.
pub(super) const MAX_LAG_MOST: Duration = Duration::from_secs(3600);

/// What the replicas of a database are made of.
pub(super) struct Ways {
    /// The way to the primary, and its guard.
    pub(super) route: Arc<Route>,
    /// The way to each replica.
    pub(super) replicas: Vec<Route>,
    /// The names of sessions that ask replicas, and of those that look at them.
    pub(super) names: [String; 2],
    /// A replica that is further behind is not asked.
    pub(super) max_lag: Duration,
}

/// What the last look at a replica has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Follows(WalPosition),
    NotAsked,
}

/// One replica.
struct Replica {
    name: String,
    route: Arc<Route>,
    pool: ReadPool,
    standing: Mutex<Standing>,
    /// Up to when it was seen to hold everything; at first the start.
    complete_to: Mutex<Instant>,
}

/// The replicas of a database.
pub(super) struct Replicas {
    /// The way to the primary, and its guard.
    route: Arc<Route>,
    /// A session on the primary. Why not one of the pool: if queries used them all, no sample could be taken, so that
    /// all queries would go to the primary.
    primary: Mutex<Option<Arc<tokio_postgres::Client>>>,
    replicas: Vec<Replica>,
    max_lag: Duration,
    /// The name of sessions that look at replicas.
    watcher: String,
    samples: Mutex<Samples>,
    /// The highest end of the primary's WAL that was seen.
    known_end: Mutex<Option<WalPosition>>,
    /// When the end of the WAL was last asked for, and what it was.
    written: tokio::sync::Mutex<Option<(Instant, Written)>>,
    /// When a newer primary was last looked for.
    looked_for_newer: tokio::sync::Mutex<Option<Instant>>,
    /// Clients that wait for a replica.
    waiting: watch::Sender<usize>,
    /// Moves with each look that finds something new.
    looked: watch::Sender<u64>,
    /// The replica that is asked next.
    next: AtomicUsize,
    answered: AtomicU64,
    left: [AtomicU64; Leaves::ALL.len()],
}

/// A session on a replica that may be asked.
pub(super) struct Asked {
    pub(super) client: Client,
    /// What it holds.
    pub(super) position: WalPosition,
    /// Up to which moment it holds everything.
    pub(super) complete_to: Timestamp,
}

/// The choices of one query.
pub(super) struct Choices {
    /// The replica that is asked first.
    first: usize,
    /// What the answer must hold.
    after: Option<WalPosition>,
    /// The replicas that have failed.
    tried: Vec<usize>,
    /// Until when the query may wait for replay.
    wait_until: tokio::time::Instant,
}

impl Choices {
    pub(super) fn new(first: usize, after: Option<WalPosition>) -> Self {
        Choices {
            first,
            after,
            tried: Vec::new(),
            wait_until: tokio::time::Instant::now() + REPLAY_WITHIN,
        }
    }
}

impl Replicas {
    /// Makes the pools; opens no session.
    ///
    /// # Errors
    /// The errors of the pool's builder.
    pub(super) fn new(ways: Ways, size: usize) -> Result<Self, BuildError> {
        let [reads, watcher] = ways.names;
        let replica = |route: Route| {
            let route = Arc::new(route);
            let opener = Opener {
                route: Arc::clone(&route),
                name: reads.clone(),
            };
            Ok(Replica {
                name: route.standby().as_ref().map(host_name).unwrap_or_default(),
                pool: ReadPool::open(opener, size, SESSION_WITHIN)?,
                route,
                standing: Mutex::new(Standing::NotAsked),
                complete_to: Mutex::new(Instant::now()),
            })
        };
        let replicas = ways.replicas.into_iter().map(replica);
        Ok(Replicas {
            replicas: replicas.collect::<Result<_, BuildError>>()?,
            primary: Mutex::default(),
            route: ways.route,
            max_lag: ways.max_lag,
            watcher,
            samples: Mutex::default(),
            known_end: Mutex::default(),
            written: tokio::sync::Mutex::default(),
            looked_for_newer: tokio::sync::Mutex::default(),
            waiting: watch::Sender::new(0),
            looked: watch::Sender::new(0),
            next: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            left: Default::default(),
        })
    }

    /// Opens a session on a replica that may be asked, that holds what the answer must hold, and that was not tried
    /// before.
    ///
    /// Blocks: at most 1 s for replay, for all calls with the same choices together, and 4 s for the session
    ///
    /// # Errors
    /// Why no replica can be asked.
    pub(super) async fn session(&self, choices: &mut Choices) -> Result<Asked, Leaves> {
        let mut why = None;
        loop {
            // The reason of a replica that was tried says more than that no other is left.
            let at = self.choose(choices).await.map_err(|it| why.unwrap_or(it))?;
            choices.tried.push(at);
            match self.session_on(&self.replicas[at], choices.after).await {
                Ok(asked) => return Ok(asked),
                Err(found) => why = Some(found),
            }
        }
    }

    async fn session_on(
        &self,
        replica: &Replica,
        after: Option<WalPosition>,
    ) -> Result<Asked, Leaves> {
        let client = match timeout(SESSION_WITHIN, replica.pool.get()).await {
            Ok(Ok(client)) => client,
            Ok(Err(ReadError::AllBusy)) | Err(_) => return Err(Leaves::Busy),
            Ok(Err(_)) => {
                // The next look may find otherwise.
                *lock(&replica.standing) = Standing::NotAsked;
                return Err(Leaves::Unavailable);
            }
        };
        let Some(position) = self.position(&client).await else {
            // If it does not answer, no other query must wait behind this one.
            drop(Object::take(client));
            *lock(&replica.standing) = Standing::NotAsked;
            return Err(Leaves::Unavailable);
        };
        if after.is_some_and(|after| !position.contains(&after)) {
            return Err(Leaves::Written);
        }
        let complete_to = self.complete_to(position).ok_or(Leaves::Lag)?.at;
        Ok(Asked {
            client,
            position,
            complete_to,
        })
    }

    /// How far a session's standby has replayed; `None` if it does not answer, or does not follow the primary in use
    /// any more.
    pub(super) async fn position(&self, client: &Client) -> Option<WalPosition> {
        // The session was admitted as one of this server, and no answer arrives after a move.
        let server = self.route.servers().current()?;
        let found = timeout(SESSION_WITHIN, replayed(client, server)).await;
        let found = found.ok()?.ok()?.ok()?;
        (self.route.servers().current() == Some(server)).then_some(found)
    }

    /// The replica that the queries of the next request ask first.
    pub(super) fn next(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Chooses a replica that holds what the answer must hold, as far as the last look shows, or waits for it.
    async fn choose(&self, choices: &Choices) -> Result<usize, Leaves> {
        if let Some(after) = choices.after
            && self.route.servers().may_be_newer(after.server)
        {
            self.look_for_newer().await;
        }
        let why = match self.candidate(choices) {
            Ok(replica) => return Ok(replica),
            Err(why) => why,
        };
        if why != Leaves::Written || !self.is_worth_waiting(choices).await {
            return Err(why);
        }
        let _waiter = Waiter::new(&self.waiting);
        let mut looked = self.looked.subscribe();
        let waited = timeout_at(choices.wait_until, async {
            loop {
                looked.borrow_and_update();
                match self.candidate(choices) {
                    // Its sender is part of this.
                    Err(Leaves::Written) => drop(looked.changed().await),
                    found => return found,
                }
            }
        });
        waited.await.unwrap_or(Err(Leaves::Written))
    }

    /// Whether a replica may replay in time what the answer must hold.
    async fn is_worth_waiting(&self, choices: &Choices) -> bool {
        let current = self.route.servers().current();
        let Some(after) = choices.after.filter(|it| Some(it.server) == current) else {
            // A position of another server is never reached.
            return false;
        };
        let is_near = |at: usize| {
            let Standing::Follows(position) = *lock(&self.replicas[at].standing) else {
                return false;
            };
            let complete_to = lock(&self.samples).complete_to(position);
            complete_to.is_some_and(|moment| moment.instant.elapsed() <= LAG_WAITED_FOR)
        };
        (0..self.replicas.len()).any(|at| !choices.tried.contains(&at) && is_near(at))
            && self.is_written(after).await
    }

    fn candidate(&self, choices: &Choices) -> Result<usize, Leaves> {
        let current = self.route.servers().current();
        let mut why = Leaves::Unavailable;
        for n in 0..self.replicas.len() {
            let at = choices.first.wrapping_add(n) % self.replicas.len();
            let Standing::Follows(position) = *lock(&self.replicas[at].standing) else {
                continue;
            };
            if current != Some(position.server) || choices.tried.contains(&at) {
                continue;
            }
            if self.complete_to(position).is_none() {
                if why == Leaves::Unavailable {
                    why = Leaves::Lag;
                }
                continue;
            }
            match choices.after {
                Some(after) if !position.contains(&after) => why = Leaves::Written,
                _ => return Ok(at),
            }
        }
        Err(why)
    }

    /// Up to which moment a position holds everything; `None` if that is too long ago.
    fn complete_to(&self, position: WalPosition) -> Option<Moment> {
        let found = lock(&self.samples).complete_to(position);
        found.filter(|moment| moment.instant.elapsed() <= self.max_lag)
    }

    /// Counts an answer of a replica.
    pub(super) fn count_answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a query that is asked at the primary.
    pub(super) fn count_left(&self, why: Leaves) {
        self.left[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn report(&self) -> ReplicasReport {
        let current = self.route.servers().current();
        let replica = |replica: &Replica| ReplicaReport {
            name: replica.name.clone(),
            follows: match *lock(&replica.standing) {
                Standing::Follows(position) => Some(position.server) == current,
                Standing::NotAsked => false,
            },
            lag: lock(&replica.complete_to).elapsed(),
        };
        ReplicasReport {
            replicas: self.replicas.iter().map(replica).collect(),
            answered: self.answered.load(Ordering::Relaxed),
            left: self.left.each_ref().map(|n| n.load(Ordering::Relaxed)),
        }
    }
}

/// A client that waits for a replica.
struct Waiter<'a>(&'a watch::Sender<usize>);

impl<'a> Waiter<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|clients| *clients += 1);
        Waiter(waiting)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|clients| *clients -= 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
