//! The end of the primary's WAL, and whether the primary in use holds what a client has seen.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::{Client, Error};

use super::position::{WalPosition, Written, lsn_of};
use super::{Replicas, lock};
use crate::postgres::read_pool::ReadError;
use crate::postgres::route::{HIDES, first_row, server_of};

/// How long a query waits for a look at all hosts of the primary, and how often there is one.
const LOOK_FOR_NEWER_WITHIN: Duration = Duration::from_secs(2);
const LOOK_FOR_NEWER_EVERY: Duration = Duration::from_secs(1);
/// How long the position of what was written may take. The answer that carries it waits.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// The primary, and how far its WAL is durable. A standby gives no row.
const END_OF_WAL: &str = "\
select c.system_identifier, pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()),
    pg_catalog.pg_current_wal_flush_lsn()
from pg_catalog.pg_control_system() as c
where not pg_catalog.pg_is_in_recovery()";

impl Replicas {
    /// Whether the primary's WAL has reached a position, as far as that can be found out.
    pub(super) async fn is_written(&self, position: WalPosition) -> bool {
        if lock(&self.known_end).is_some_and(|end| end.contains(&position)) {
            return true;
        }
        match self.written().await {
            Written::Before(end) => end.contains(&position),
            Written::Unknown => false,
        }
    }

    /// Looks at every host of the primary, because a client has seen a newer one. Callers share a look.
    ///
    /// Blocks: at most 2 s
    pub(super) async fn look_for_newer(&self) {
        let looking = async {
            let mut last = self.looked_for_newer.lock().await;
            if last.is_none_or(|last| last.elapsed() >= LOOK_FOR_NEWER_EVERY) {
                let look = self.route.look_at_all(&self.watcher);
                drop(timeout(LOOK_FOR_NEWER_WITHIN, look).await);
                *last = Some(Instant::now());
            }
        };
        drop(timeout(LOOK_FOR_NEWER_WITHIN, looking).await);
    }

    /// The end of the primary's WAL: everything that was committed before the call lies before it.
    ///
    /// Callers that wait at the same time share one query.
    ///
    /// Blocks: at most 1 s
    /// Cancel: safe
    pub(in crate::postgres) async fn written(&self) -> Written {
        let called = Instant::now();
        let asking = async {
            let mut last = self.written.lock().await;
            match *last {
                Some((began, written)) if began > called => written,
                _ => {
                    let began = Instant::now();
                    let written = self.end_of_wal().await;
                    let written = written.map_or(Written::Unknown, Written::Before);
                    *last = Some((began, written));
                    written
                }
            }
        };
        let asked = timeout(WRITTEN_WITHIN, asking).await;
        asked.unwrap_or(Written::Unknown)
    }

    pub(super) async fn end_of_wal(&self) -> Option<WalPosition> {
        let client = lock(&self.primary).clone()?;
        let End::At(end) = end_of_wal(&client).await.ok()? else {
            return None;
        };
        let mut known = lock(&self.known_end);
        if known.is_none_or(|known| !known.contains(&end)) {
            *known = Some(end);
        }
        Some(end)
    }

    /// Prepares a query on a session of the primary: returns the end of its WAL. What was acknowledged before is in the
    /// answer. `None` means that the server hides it.
    ///
    /// # Errors
    /// [`ReadError::NotReached`] and [`ReadError::NeverWritten`] if this server cannot hold what the answer must hold.
    pub(in crate::postgres) async fn begin_on_primary(
        &self,
        client: &Client,
        at_least: Option<Written>,
    ) -> Result<Option<WalPosition>, ReadError> {
        let after = match at_least {
            Some(Written::Before(position)) => Some(position),
            Some(Written::Unknown) | None => None,
        };
        // A session is open, so a server is known unless it hides itself.
        if after.is_some_and(|after| self.route.servers().may_be_newer(after.server)) {
            return Err(ReadError::NotReached);
        }
        match end_of_wal(client).await? {
            End::At(end) => match after {
                Some(after) if after.server == end.server && !end.contains(&after) => {
                    Err(ReadError::NeverWritten)
                }
                _ => Ok(Some(end)),
            },
            // A standby is used while no primary can be reached.
            End::OfStandby if at_least.is_some() => Err(ReadError::NotReached),
            End::OfStandby | End::Hidden => Ok(None),
        }
    }
}

/// What a server shows of the end of its WAL.
enum End {
    At(WalPosition),
    /// It has none of its own.
    OfStandby,
    Hidden,
}

/// Reads the end of the durable WAL of a session's server.
async fn end_of_wal(client: &Client) -> Result<End, Error> {
    let answer = match client.simple_query(END_OF_WAL).await {
        Ok(answer) => answer,
        Err(error) => {
            let hides = error
                .as_db_error()
                .is_some_and(|db| HIDES.contains(db.code()));
            return if hides { Ok(End::Hidden) } else { Err(error) };
        }
    };
    let Some(row) = first_row(&answer) else {
        return Ok(End::OfStandby);
    };
    let end = || {
        Some(WalPosition {
            server: server_of(row)?,
            lsn: lsn_of(row.get(2)?)?,
        })
    };
    Ok(end().map_or(End::Hidden, End::At))
}
