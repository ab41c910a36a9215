//! Sessions on a standby: admitted by the guard against two primaries, as those on a primary are.
//!
//! A standby of an old primary shows that primary's rows. So a session is admitted only if the standby is of the
//! timeline in use, and ends with the next move of the database, as every session does.
//!
//! A standby may follow a newer primary before the gateway knows of that one, in the middle of a session. Then its
//! positions are of another timeline. So each look at how far it has replayed shows the timeline too.
//!
//! No function shows the timeline that a standby replays. `pg_stat_wal_receiver` shows the one that it receives, which
//! is never lower: what is replayed has been received before. The timelines in the control file are only
//! those of the last restartpoint. So a standby that receives nothing at this moment, or that hides what it receives,
//! is not asked: it might replay another timeline from an archive.

use std::sync::Arc;

use futures_util::future::{BoxFuture, join};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, SimpleQueryMessage, SimpleQueryRow};

use super::super::hosts::{addresses, host_name};
use super::super::lineage::{Refusal, Server};
use super::super::refused::refused;
use super::super::route::{HIDES, Opened, Route, first_row};
use super::super::settings::{Use, settings};
use super::position::{WalPosition, lsn_of};

/// The cluster of a server.
const SYSTEM: &str = "\
select c.system_identifier from pg_catalog.pg_control_system() as c;";

/// How far a standby has replayed, and then the timeline that it receives, in this order: a timeline that it switches
/// to later begins after the position. The first has no row once it is promoted.
const REPLAYED: &str = "\
select coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0') where pg_catalog.pg_is_in_recovery();
select w.received_tli from pg_catalog.pg_stat_wal_receiver as w;";

/// Why a server is not asked: the rest of a sentence that names it.
pub(super) type Why = String;

/// Reads which cluster a standby is of, and how far it has replayed.
///
/// # Errors
/// The reason why the server cannot be used as a replica.
pub(super) async fn state(client: &Client) -> Result<Result<WalPosition, Why>, Error> {
    let answer = match client.simple_query(&format!("{SYSTEM}\n{REPLAYED}")).await {
        Ok(answer) => answer,
        Err(error) => {
            let hides = error.as_db_error().filter(|db| HIDES.contains(db.code()));
            let why = hides.map(|db| {
                format!(
                    "does not show its cluster ({}); grant execute on pg_control_system() to the gateway's user",
                    db.message()
                )
            });
            return why.map(Err).ok_or(error);
        }
    };
    let mut rows = rows(&answer);
    let system = rows
        .next()
        .flatten()
        .and_then(|row| row.get(0)?.parse().ok());
    let Some(system) = system else {
        return Ok(Err("does not show its cluster".to_owned()));
    };
    Ok(replayed_of(rows).map(|(timeline, lsn)| WalPosition {
        server: Server { system, timeline },
        lsn,
    }))
}

/// How far the standby of an admitted session has replayed, of the server that it must follow.
///
/// # Errors
/// Why it cannot be asked any more.
pub(super) async fn replayed(
    client: &Client,
    server: Server,
) -> Result<Result<WalPosition, Why>, Error> {
    let answer = client.simple_query(REPLAYED).await?;
    Ok(replayed_of(rows(&answer)).and_then(|(timeline, lsn)| {
        let system = server.system;
        let found = WalPosition {
            server: Server { system, timeline },
            lsn,
        };
        follows(&found, Some(server)).map(|()| found)
    }))
}

/// The first row of each statement.
fn rows(answer: &[SimpleQueryMessage]) -> impl Iterator<Item = Option<&SimpleQueryRow>> {
    let is_end =
        |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::CommandComplete(_));
    answer.split(is_end).map(first_row)
}

/// The timeline that a standby receives, and how far it has replayed.
fn replayed_of<'a>(
    mut rows: impl Iterator<Item = Option<&'a SimpleQueryRow>>,
) -> Result<(u32, u64), Why> {
    let replayed = rows.next().flatten().and_then(|row| row.get(0));
    let lsn = replayed
        .and_then(lsn_of)
        .ok_or("accepts writes, so it is not a standby")?;
    let receiver = rows
        .next()
        .flatten()
        .ok_or("receives nothing from a primary at the moment")?;
    let timeline = receiver.get(0).and_then(|text| text.parse().ok()).ok_or(
        "hides the timeline that it receives; grant pg_read_all_stats to the gateway's user",
    )?;
    Ok((timeline, lsn))
}

/// Compares a standby with the primary in use.
///
/// # Errors
/// Why it is not asked.
pub(super) fn follows(found: &WalPosition, primary: Option<Server>) -> Result<(), Why> {
    let Some(primary) = primary else {
        return Err("is not asked while the primary does not show its timeline".to_owned());
    };
    let found = found.server;
    if found.system != primary.system {
        return Err(format!(
            "belongs to cluster {}, and the database to cluster {}; correct --read-database-url",
            found.system, primary.system
        ));
    }
    if found.timeline == primary.timeline {
        return Ok(());
    }
    Err(format!(
        "is on timeline {}, and the primary in use on timeline {}; it is asked again once it follows that primary",
        found.timeline, primary.timeline
    ))
}

/// Opens the sessions of the pool of one replica.
pub(super) struct Opener {
    pub(super) route: Arc<Route>,
    pub(super) name: String,
}

impl deadpool_postgres::Connect for Opener {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(async move {
            let opened = open(&self.route, &self.name).await?;
            Ok((opened.client, opened.connection))
        })
    }
}

/// Opens a session on the first address of a replica that may be asked.
async fn open(route: &Route, name: &str) -> Result<Opened, Error> {
    let Some(config) = route.standby() else {
        return Err(refused(Refusal::NoHost).await);
    };
    let mut failure = None;
    for mut config in addresses(&config).await {
        config.application_name(name);
        match open_at(route, &config).await {
            Ok(opened) => return Ok(opened),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Err(refused(Refusal::NoHost).await),
    }
}

async fn open_at(route: &Route, config: &Config) -> Result<Opened, Error> {
    let opened = route.connect(config).await?;
    let settings = settings(Use::Question);
    let (set, found) = join(
        opened.client.batch_execute(&settings),
        state(&opened.client),
    )
    .await;
    set?;
    let servers = route.servers();
    let host = host_name(config);
    let why = match found? {
        Ok(found) if servers.admit_current(&host, found.server, &opened.place) => {
            return Ok(opened);
        }
        Ok(found) => match follows(&found, servers.current()) {
            // The database is moving to another server at this moment.
            Ok(()) => "is not asked while the database moves to another server".to_owned(),
            Err(why) => why,
        },
        Err(why) => why,
    };
    Err(refused(Refusal::Replica { host, why }).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_standby_of_the_primary_in_use_is_asked() {
        let server = |system, timeline| Server { system, timeline };
        let at = |system, timeline| WalPosition {
            server: server(system, timeline),
            lsn: 1,
        };
        let primary = Some(server(7, 3));
        assert_eq!(follows(&at(7, 3), primary), Ok(()));
        for (found, primary, part) in [
            (at(7, 2), primary, "is on timeline 2"),
            (at(7, 4), primary, "is on timeline 4"),
            (at(8, 3), primary, "cluster 8"),
            (at(7, 3), None, "does not show its timeline"),
        ] {
            let why = follows(&found, primary).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
