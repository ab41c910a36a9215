//! The guard against two primaries: sessions live on the newest server alone.
//!
//! A promotion does not end the old primary by itself. If it still runs, or comes back, it accepts sessions and
//! readings that the new primary never gets. So each connect reads the server's timeline and system
//! identifier ([`lineage`](super::lineage)), and refuses a server that is older than one that was seen. A
//! newer one ends all sessions on older servers at once.
//!
//! # Rules
//!
//! - **A move is durable before a session uses the new server**, so that a restart does not forget it.
//! - **A session belongs to the move under which it was admitted.** The task of its connection looks for a newer
//!   move before it reads from its socket, so that no answer of an old server arrives after the move.
//! - **A commit is acknowledged under the lock of moves** ([`Place::while_current`]). So nothing is acknowledged on
//!   an old server once a newer one was seen.
//! - **A server that hides its timeline is used**, with a warning: some hosting services allow neither function.
//! - **Another cluster is followed only if it holds the log's database**, and the old one is then left for ever.
//!
//! Two standbys that are promoted from one primary may both choose one timeline, if they share no archive of
//! timelines. The guard cannot tell them apart.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;
use uuid::Uuid;

use super::lineage::{Lineage, Refusal, Server, Verdict};
use super::lineage_file::LineageFile;

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

/// Where the lineage is kept over restarts.
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
    /// Held while a move is decided and made durable.
    moving: Mutex<()>,
    kept: Option<Kept>,
}

#[derive(Default)]
struct State {
    lineage: Lineage,
    moves: u64,
    /// The servers that are refused now, and why.
    refused: BTreeMap<String, Refusal>,
    has_warned_of_hiding: bool,
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
    /// It is of another cluster. Whether it holds the database must be looked up.
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
        ServersReport {
            timeline: state.lineage.current.map(|server| server.timeline),
            refused: state.refused.values().map(Refusal::to_string).collect(),
        }
    }

    /// The server in use.
    pub(super) fn current(&self) -> Option<Server> {
        self.read().lineage.current
    }

    /// Whether a database is the one that the log is bound to, or could be.
    pub(super) fn is_bound_to(&self, found: Option<Uuid>) -> bool {
        let bound = self.kept.as_ref().and_then(|kept| (kept.bound)());
        bound.is_none_or(|bound| found == Some(bound))
    }

    /// Records that a server hides its timeline: it is used without a guard.
    pub(super) fn admit_hidden(&self, host: &str, place: &Place, why: &str) {
        let mut state = self.write();
        place.enter(state.moves);
        if !std::mem::replace(&mut state.has_warned_of_hiding, true) {
            tracing::warn!(
                host,
                error = why,
                "the server does not show its timeline: it cannot be told from an old primary; grant \
                 execute on pg_control_system() and pg_walfile_name(pg_lsn)"
            );
        }
    }

    /// Admits a session of the server in use, which is what nearly all sessions are.
    pub(super) fn admit_current(&self, host: &str, found: Server, place: &Place) -> bool {
        let state = self.read();
        let is_current = state.lineage.current == Some(found);
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
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdict = self.read().lineage.judge(host, found);
        if matches!(verdict, Verdict::Refused(_) | Verdict::OtherCluster) && self.reload() {
            verdict = self.read().lineage.judge(host, found);
        }
        // A log that is bound to a database takes no first server without it.
        if verdict == Verdict::Newer && self.current().is_none() && !self.is_bound_to(None) {
            verdict = Verdict::OtherCluster;
        }
        if verdict == Verdict::OtherCluster && entry.follows {
            verdict = Verdict::Newer;
        }
        match verdict {
            Verdict::Newer => self.move_to(host, found, entry.place),
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
                let before = self.write().refused.insert(host.to_owned(), why.clone());
                if before.as_ref() != Some(&why) {
                    tracing::warn!(host, "{why}");
                }
                return Admission::Refused(why);
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

    /// Takes a lineage that an operator has changed meanwhile; `true` means that there was one.
    fn reload(&self) -> bool {
        let Some(Ok(lineage)) = self.kept.as_ref().map(|kept| kept.file.read()) else {
            return false;
        };
        let is_new = lineage.current.is_some() && lineage != self.read().lineage;
        if is_new {
            self.replace(lineage, None);
        }
        is_new
    }

    fn move_to(&self, host: &str, server: Server, place: Option<&Place>) {
        let before = self.read().lineage.clone();
        let lineage = before.moved_to(server);
        if let Some(kept) = self.kept.as_ref()
            && kept.keeping == Keeping::Writes
            && let Err(error) = kept.file.write(&lineage)
        {
            // Without it readings would wait for ever on a full disk, which only storing them empties.
            tracing::error!(
                %error,
                "cannot record the server in use: after a restart, an old primary would not be recognised"
            );
        }
        self.replace(lineage, place);
        self.write().refused.remove(host);
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
        if let Some(kept) = &self.kept
            && kept.keeping == Keeping::Writes
        {
            kept.file.reserve().ok();
        }
    }

    /// Ends the sessions of earlier moves.
    fn replace(&self, lineage: Lineage, place: Option<&Place>) {
        let mut state = self.write();
        state.lineage = lineage;
        state.moves += 1;
        if let Some(place) = place {
            place.enter(state.moves);
        }
        self.moves.send_replace(state.moves);
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a server is entered.
pub(super) struct Entry<'a> {
    /// The session. `None` means that the server was only looked at.
    pub(super) place: Option<&'a Place>,
    /// Whether another cluster is followed: it holds the database.
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
mod tests {
    use super::*;

    fn server(system: i64, timeline: u32) -> Server {
        Server { system, timeline }
    }

    fn open(directory: &Path, keeping: Keeping, bound: Option<Uuid>) -> Arc<Servers> {
        Arc::new(Servers::load(directory, keeping, Arc::new(move || bound)).unwrap())
    }

    fn enter(servers: &Arc<Servers>, found: Server) -> (Admission, Place) {
        let place = Place::new(servers);
        let entry = Entry {
            place: Some(&place),
            follows: false,
        };
        (servers.admit("h", found, entry), place)
    }

    #[tokio::test]
    async fn a_move_ends_older_sessions_and_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let servers = open(directory.path(), Keeping::Writes, None);
        let (admission, old) = enter(&servers, server(7, 1));
        assert!(matches!(admission, Admission::Granted));
        let lost = old.lost();
        assert_eq!(old.while_current(|| 1), Some(1));
        let (_, new) = enter(&servers, server(7, 2));
        lost.await;
        assert_eq!(old.while_current(|| 1), None);
        assert_eq!(new.while_current(|| 1), Some(1));
        let again = open(directory.path(), Keeping::Reads, None);
        for servers in [servers, again] {
            let (admission, _) = enter(&servers, server(7, 1));
            assert!(matches!(admission, Admission::Refused(_)));
            assert_eq!(servers.report().timeline, Some(2));
            assert_eq!(servers.report().refused.len(), 1);
            servers.forget_refusal("h");
            assert_eq!(servers.report().refused.len(), 0);
        }
    }

    #[test]
    fn an_operator_returns_to_a_refused_server() {
        let directory = tempfile::tempdir().unwrap();
        let servers = open(directory.path(), Keeping::Writes, None);
        let (_, session) = enter(&servers, server(7, 5));
        adopt(directory.path(), server(7, 2)).unwrap();
        let (admission, _) = enter(&servers, server(7, 2));
        assert!(matches!(admission, Admission::Granted));
        assert_eq!(session.while_current(|| 1), None);
    }

    #[test]
    fn only_a_gateway_records_moves() {
        let directory = tempfile::tempdir().unwrap();
        let command = open(directory.path(), Keeping::Reads, None);
        enter(&command, server(7, 5));
        assert_eq!(command.current(), Some(server(7, 5)));
        let gateway = open(directory.path(), Keeping::Writes, None);
        assert_eq!(gateway.current(), None);
    }

    #[test]
    fn another_cluster_needs_the_database_of_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let servers = open(directory.path(), Keeping::Writes, Some(own));
        let (admission, _) = enter(&servers, server(7, 5));
        assert!(matches!(admission, Admission::OtherCluster));
        let entry = Entry {
            place: None,
            follows: true,
        };
        servers.admit("h", server(7, 5), entry);
        let (admission, _) = enter(&servers, server(8, 1));
        assert!(matches!(admission, Admission::OtherCluster));
        assert!(servers.is_bound_to(Some(own)));
        assert!(!servers.is_bound_to(Some(other)) && !servers.is_bound_to(None));
        let entry = Entry {
            place: None,
            follows: true,
        };
        assert!(matches!(
            servers.admit("h", server(8, 1), entry),
            Admission::Granted
        ));
        let (admission, _) = enter(&servers, server(7, 6));
        assert!(matches!(admission, Admission::Refused(_)));
    }
}
