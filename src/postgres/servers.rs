//! The guard against two primaries: sessions live only on the newest server.
//!
//! A promotion does not end the old primary by itself. If it still runs, or comes back, it accepts sessions and
//! readings that the new primary never gets. So each connect reads the server's timeline and system
//! identifier ([`lineage`](super::lineage)), and refuses a server that is older than one that was seen. A
//! newer one ends all sessions on older servers at once.
//!
//! # Rules
//!
//! - **A move ends old sessions, then is made durable, then admits sessions on the new server**, so that a restart
//!   does not forget it. A move that could not be written is written later.
//! - **A session belongs to the move under which it was admitted.** The task of its connection looks for a newer move
//!   before it reads from its socket, so no answer of an old server arrives after the move.
//! - **A commit is acknowledged under the lock of moves** ([`Place::while_current`]). So nothing is acknowledged on
//!   an old server once a newer one was seen.
//! - **A server that hides its timeline is used**, with a warning, until another one has shown its own: some hosting
//!   services allow neither function.
//! - **Another cluster is followed only if it holds the log's database** and no other host is running. The old cluster
//!   is then left forever.
//!
//! Two standbys that are promoted from one primary may both choose one timeline, if they share no archive of
//! timelines. The guard cannot tell them apart.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::lineage::{Lineage, Refusal, Server, Verdict};
use super::lineage_file::LineageFile;

/// How long a refusal is reported after its last repetition. Writers try again within 5 s, and each host is looked at
/// once a second.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// Returns the database that the log is bound to.
pub type Bound = Arc<dyn Fn() -> Option<Uuid> + Send + Sync>;

/// Whether moves are written to the file of the lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// A gateway records moves.
    Writes,
    /// A command obeys the moves that a gateway has recorded.
    Reads,
}

/// Where the lineage is kept across restarts.
struct Kept {
    file: LineageFile,
    keeping: Keeping,
    bound: Bound,
}

/// The servers of one database.
#[derive(Default)]
pub(super) struct Servers {
    state: RwLock<State>,
    /// The number of moves so far.
    moves: watch::Sender<u64>,
    /// Held while a move is decided and made durable. It guards the lineage that was last read from the file or
    /// written to it: a file that differs was changed by an operator.
    moving: Mutex<Lineage>,
    kept: Option<Kept>,
}

/// What a move calls. It must not wait.
pub(super) type OnMove = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct State {
    lineage: Lineage,
    moves: u64,
    /// A move has begun and is not durable yet: nothing is admitted.
    is_moving: bool,
    /// The servers that are refused now, why, and when that was last found.
    refused: BTreeMap<String, (Refusal, Instant)>,
    /// Whether a server that hides its timeline was used.
    uses_hidden: bool,
    /// Called at each move, once old sessions no longer count.
    on_move: Option<OnMove>,
}

impl State {
    fn refuse(&mut self, host: &str, why: Refusal) -> Refusal {
        let now = (why.clone(), Instant::now());
        let before = self.refused.insert(host.to_owned(), now);
        if before.is_none_or(|(before, _)| before != why) {
            tracing::warn!(host, "{why}");
        }
        why
    }
}

/// The servers of a database, for health and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServersReport {
    /// The timeline of the server in use. `None` means that no server has shown it.
    pub timeline: Option<u32>,
    /// Why servers are refused, a sentence for each.
    pub refused: Vec<String>,
}

/// The outcome for a server that shows its timeline.
pub(super) enum Admission {
    /// The session may be used.
    Granted,
    /// It belongs to another cluster. Whether it holds the database must be looked up.
    OtherCluster,
    /// It must be closed.
    Refused(Refusal),
}

impl Servers {
    /// Reads the lineage that is kept in a directory.
    ///
    /// # Errors
    /// As the system returns them; `InvalidData` if the file is damaged.
    pub(super) fn load(directory: &Path, keeping: Keeping, bound: Bound) -> io::Result<Self> {
        let file = LineageFile::new(directory);
        let lineage = file.read()?;
        if keeping == Keeping::Writes
            && let Err(error) = file.reserve()
            && error.kind() != io::ErrorKind::StorageFull
        {
            return Err(error);
        }
        Ok(Servers {
            moving: Mutex::new(lineage.clone()),
            state: RwLock::new(State {
                lineage,
                ..State::default()
            }),
            kept: Some(Kept {
                file,
                keeping,
                bound,
            }),
            ..Servers::default()
        })
    }

    pub(super) fn report(&self) -> ServersReport {
        let state = self.read();
        let refused = state.refused.values();
        let refused = refused.filter(|(_, found)| found.elapsed() < REFUSED_FOR);
        ServersReport {
            timeline: state.lineage.current.map(|server| server.timeline),
            refused: refused.map(|(why, _)| why.to_string()).collect(),
        }
    }

    /// The server in use.
    pub(super) fn current(&self) -> Option<Server> {
        self.read().lineage.current
    }

    /// Whether a server may be newer than the one in use, as far as is known.
    pub(super) fn may_be_newer(&self, server: Server) -> bool {
        self.read().lineage.may_be_newer(server)
    }

    /// Sets what each move calls; the last call counts.
    pub(super) fn on_move(&self, act: OnMove) {
        self.write().on_move = Some(act);
    }

    /// The database that the log is bound to, if it is not this one.
    pub(super) fn bound_to_other(&self, found: Option<Uuid>) -> Option<Uuid> {
        let bound = self.kept.as_ref().and_then(|kept| (kept.bound)());
        bound.filter(|bound| found != Some(*bound))
    }

    /// Whether a server is in use that hides its timeline.
    pub(super) fn uses_hidden(&self) -> bool {
        let state = self.read();
        state.uses_hidden && state.lineage.current.is_none()
    }

    /// Admits a session of a server that hides its timeline, without a guard; refuses it if a server has shown its
    /// own.
    ///
    /// Blocks: while a move is made durable
    pub(super) fn admit_hidden(&self, host: &str, why: &str, place: Option<&Place>) -> Admission {
        let mut on_file = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.current().is_some() {
            self.reconcile(&mut on_file);
        }
        let mut state = self.write();
        if state.lineage.current.is_some() {
            let (host, why) = (host.to_owned(), why.to_owned());
            let hidden = Refusal::Hidden {
                host: host.clone(),
                why,
            };
            return Admission::Refused(state.refuse(&host, hidden));
        }
        let Some(place) = place else {
            return Admission::Granted;
        };
        place.enter(state.moves);
        state.refused.remove(host);
        if !std::mem::replace(&mut state.uses_hidden, true) {
            tracing::warn!(
                host,
                error = why,
                "the server does not show its timeline, so it cannot be distinguished from an old primary; grant \
                 execute on pg_control_system() and pg_walfile_name(pg_lsn)"
            );
        }
        Admission::Granted
    }

    /// Admits a session of the server in use. Nearly all sessions are.
    pub(super) fn admit_current(&self, host: &str, found: Server, place: &Place) -> bool {
        let state = self.read();
        let is_current = state.lineage.current == Some(found) && !state.is_moving;
        if is_current {
            place.enter(state.moves);
        }
        let was_refused = is_current && state.refused.contains_key(host);
        drop(state);
        if was_refused {
            self.write().refused.remove(host);
        }
        is_current
    }

    /// Admits a session on a server, or refuses it. A newer server is recorded first.
    ///
    /// Blocks: until a move is durable
    pub(super) fn admit(&self, host: &str, found: Server, entry: Entry<'_>) -> Admission {
        let mut on_file = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdict = self.read().lineage.judge(host, found);
        if matches!(verdict, Verdict::Refused(_) | Verdict::OtherCluster)
            && self.reconcile(&mut on_file)
        {
            verdict = self.read().lineage.judge(host, found);
        }
        // A log that is bound to a database does not accept a first server without that database.
        if verdict == Verdict::Newer
            && self.current().is_none()
            && self.bound_to_other(None).is_some()
        {
            verdict = Verdict::OtherCluster;
        }
        if verdict == Verdict::OtherCluster && entry.follows {
            verdict = Verdict::Newer;
        }
        match verdict {
            Verdict::Newer => self.move_to(host, found, entry.place, &mut on_file),
            Verdict::Current => {
                let mut state = self.write();
                state.refused.remove(host);
                if let Some(place) = entry.place {
                    place.enter(state.moves);
                }
            }
            Verdict::OtherCluster => {
                if let Some(place) = entry.place {
                    place.enter(self.read().moves);
                }
                return Admission::OtherCluster;
            }
            Verdict::Refused(why) => {
                return Admission::Refused(self.write().refuse(host, why));
            }
        }
        Admission::Granted
    }

    /// Forgets that a server was refused: it does not answer, or is a standby now.
    pub(super) fn forget_refusal(&self, host: &str) {
        if self.read().refused.contains_key(host) {
            self.write().refused.remove(host);
        }
    }

    /// Writes the lineage again if its last write has failed.
    ///
    /// Blocks: until it is durable
    pub(super) fn keep(&self) {
        let mut on_file = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_recording().is_some() && *on_file != self.read().lineage {
            self.reconcile(&mut on_file);
        }
    }

    fn is_recording(&self) -> Option<&LineageFile> {
        let kept = self.kept.as_ref();
        let kept = kept.filter(|kept| kept.keeping == Keeping::Writes);
        kept.map(|kept| &kept.file)
    }

    /// Takes over a lineage that an operator has changed meanwhile. `true` means that there was one. Otherwise it
    /// writes the lineage again if its last write has failed.
    fn reconcile(&self, on_file: &mut Lineage) -> bool {
        let Some(kept) = &self.kept else {
            return false;
        };
        let Ok(found) = kept.file.read() else {
            return false;
        };
        let own = self.read().lineage.clone();
        if found == own {
            *on_file = found;
            return false;
        }
        if found != *on_file && kept.file.exists() {
            *on_file = found.clone();
            self.begin_move(None);
            self.end_move(found, None);
            return true;
        }
        if let Some(file) = self.is_recording()
            && file.write(&own).is_ok()
        {
            *on_file = own;
            file.reserve().ok();
            tracing::info!("the server in use is recorded now");
        }
        false
    }

    fn move_to(&self, host: &str, server: Server, place: Option<&Place>, on_file: &mut Lineage) {
        let before = self.read().lineage.clone();
        let lineage = before.moved_to(server);
        self.begin_move(Some(host));
        if let Some(file) = self.is_recording() {
            match file.write(&lineage) {
                Ok(()) => *on_file = lineage.clone(),
                // Otherwise readings would wait forever on a full disk, which empties only when they are stored.
                Err(error) => tracing::error!(
                    %error,
                    "cannot record the server in use: until that succeeds, a restart would not recognise \
                     an old primary"
                ),
            }
        }
        self.end_move(lineage, place);
        let Server { system, timeline } = server;
        if before.current.is_some() {
            tracing::warn!(
                host,
                timeline,
                system,
                "the database has moved to another server; all sessions on older ones end"
            );
        }
        // After the move: room for the next one.
        if let Some(file) = self.is_recording() {
            file.reserve().ok();
        }
    }

    /// Ends the sessions of earlier moves. Nothing is admitted until [`Servers::end_move`].
    fn begin_move(&self, host: Option<&str>) {
        let mut state = self.write();
        state.moves += 1;
        state.is_moving = true;
        if let Some(host) = host {
            state.refused.remove(host);
        }
        if let Some(act) = &state.on_move {
            act();
        }
        self.moves.send_replace(state.moves);
    }

    fn end_move(&self, lineage: Lineage, place: Option<&Place>) {
        let mut state = self.write();
        state.lineage = lineage;
        state.is_moving = false;
        if let Some(place) = place {
            place.enter(state.moves);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a session on a server is admitted.
pub(super) struct Entry<'a> {
    /// The session. `None` means that the server was only looked at.
    pub(super) place: Option<&'a Place>,
    /// Whether another cluster may be followed, because it holds the database.
    pub(super) follows: bool,
}

/// Records in a log's directory that a server is the one in use, as an operator requests.
///
/// Blocks: until it is durable
///
/// # Errors
/// As the system returns them.
pub(super) fn adopt(directory: &Path, server: Server) -> io::Result<()> {
    let file = LineageFile::new(directory);
    // A damaged file is replaced: the operator has just said which server is right.
    let before = file.read().unwrap_or_default();
    file.write(&before.moved_to(server))
}

/// Copies the record of servers from one log's directory into another.
///
/// Blocks: until it is durable
///
/// # Errors
/// As the system returns them; `InvalidData` if the file is damaged.
pub fn copy_servers(from: &Path, into: &Path) -> io::Result<()> {
    let lineage = LineageFile::new(from).read()?;
    match lineage.current {
        Some(_) => LineageFile::new(into).write(&lineage),
        None => Ok(()),
    }
}

/// Forgets the servers of a log's directory, because the one that an operator requests hides its timeline.
///
/// Blocks: until it is durable
///
/// # Errors
/// As the system returns them.
pub(super) fn adopt_hidden(directory: &Path) -> io::Result<()> {
    LineageFile::new(directory).write(&Lineage::default())
}

/// The move under which a session was admitted.
#[derive(Clone)]
pub(super) struct Place {
    servers: Arc<Servers>,
    moves: Arc<AtomicU64>,
}

impl Place {
    /// A place that no move ends yet, because the session is not admitted.
    pub(super) fn new(servers: &Arc<Servers>) -> Self {
        Place {
            servers: Arc::clone(servers),
            moves: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// The number of the move.
    pub(super) fn number(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// Called under the lock of the state.
    fn enter(&self, moves: u64) {
        self.moves.store(moves, Ordering::Release);
    }

    /// Waits until the database has moved to a newer server.
    ///
    /// Cancel: safe
    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        // It holds the sender too.
        let place = self.clone();
        let mut moves = self.servers.moves.subscribe();
        async move {
            let is_lost = |now: &u64| *now > place.moves.load(Ordering::Acquire);
            drop(moves.wait_for(is_lost).await);
        }
    }

    /// Does something unless the database has moved to a newer server; no move happens meanwhile.
    pub(super) fn while_current<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let state = self.servers.read();
        let is_current = state.moves <= self.moves.load(Ordering::Acquire);
        is_current.then(act)
    }
}

#[cfg(test)]
mod tests;
