//! Which servers have held the database, and which of them may be used.
//!
//! PostgreSQL raises the timeline with each promotion. Of two servers with one system identifier, the one on the
//! higher timeline was promoted later. Another system identifier means another cluster, such as one that was
//! restored from a dump.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The most clusters that are remembered as left. A cluster is left once a major upgrade or a restore.
const LEFT_MAX: usize = 64;

/// The server that a session has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// The system identifier, which `initdb` makes and all standbys share.
    pub system: i64,
    /// The timeline, which each promotion raises.
    pub timeline: u32,
}

/// Why a server may not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Another server was promoted after it.
    #[error(
        "the server {host} is an old primary: it is on timeline {found}, and timeline {highest} was \
         seen; shut it down, and make it a standby with pg_rewind; or, after a restore of this \
         server, run 'wattgate wal adopt'"
    )]
    OldPrimary {
        /// The server.
        host: String,
        /// Its timeline.
        found: u32,
        /// The highest timeline that was seen.
        highest: u32,
    },
    /// The database has moved to another cluster.
    #[error(
        "the server {host} belongs to cluster {system}, which the database has left for another one; \
         remove it from the connection string, or run 'wattgate wal adopt' to return to it"
    )]
    Left {
        /// The server.
        host: String,
        /// Its system identifier.
        system: i64,
    },
    /// A server was seen that shows its timeline, and this one does not.
    #[error(
        "the server {host} does not show its timeline ({why}), so that it cannot be told from an old \
         primary: grant execute on pg_control_system() and pg_walfile_name(pg_lsn) to the gateway's \
         user; or, to use it without that guard, run 'wattgate wal adopt'"
    )]
    Hidden {
        /// The server.
        host: String,
        /// The error of the server.
        why: String,
    },
    /// The log is bound to another database.
    #[error(
        "the server {host} holds {}, but the log is bound to database {bound}: nothing is written; \
         correct DATABASE_URL; or, to store into this database, run 'wattgate migrate' and \
         'wattgate wal adopt'",
        .found.map_or("no database of the gateway".to_owned(), |id| format!("database {id}"))
    )]
    OtherDatabase {
        /// The server.
        host: String,
        /// The id of its database.
        found: Option<Uuid>,
        /// The id that the log is bound to.
        bound: Uuid,
    },
    /// It is not a replica that may be asked.
    #[error("the replica {host} {why}")]
    Replica {
        /// The server.
        host: String,
        /// Why, as the rest of a sentence.
        why: String,
    },
    /// The connection string names no host.
    #[error("the connection string names no host; write postgres://user@host:5432/database")]
    NoHost,
}

/// What a server is, compared with those that were used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server in use, or one as new.
    Current,
    /// Promoted later, or the first.
    Newer,
    /// Of an unknown cluster. Whether it holds the database must be looked up.
    OtherCluster,
    /// It may not be used.
    Refused(Refusal),
}

/// The servers that have held the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    /// The newest; `None` before the first.
    pub(super) current: Option<Server>,
    /// The clusters that the database has left, the oldest first.
    pub(super) left: Vec<i64>,
}

impl Lineage {
    /// Compares a server with those that were used before.
    pub(super) fn judge(&self, host: &str, found: Server) -> Verdict {
        let Some(current) = self.current else {
            return Verdict::Newer;
        };
        if found.system == current.system {
            return match found.timeline.cmp(&current.timeline) {
                std::cmp::Ordering::Equal => Verdict::Current,
                std::cmp::Ordering::Greater => Verdict::Newer,
                std::cmp::Ordering::Less => Verdict::Refused(Refusal::OldPrimary {
                    host: host.to_owned(),
                    found: found.timeline,
                    highest: current.timeline,
                }),
            };
        }
        if self.left.contains(&found.system) {
            return Verdict::Refused(Refusal::Left {
                host: host.to_owned(),
                system: found.system,
            });
        }
        Verdict::OtherCluster
    }

    /// Whether a server may be newer than the one in use, as far as is known.
    pub(super) fn may_be_newer(&self, server: Server) -> bool {
        self.current.is_some_and(|current| {
            if server.system == current.system {
                server.timeline > current.timeline
            } else {
                !self.left.contains(&server.system)
            }
        })
    }

    /// The servers after the database has moved to this one.
    pub(super) fn moved_to(&self, server: Server) -> Self {
        let mut left = self.left.clone();
        if let Some(before) = self.current
            && before.system != server.system
        {
            left.push(before.system);
        }
        left.retain(|system| *system != server.system);
        let surplus = left.len().saturating_sub(LEFT_MAX);
        left.drain(..surplus);
        Lineage {
            current: Some(server),
            left,
        }
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Server { system, timeline }) = self.current {
            writeln!(f, "cluster {system} timeline {timeline}")?;
        }
        self.left
            .iter()
            .try_for_each(|system| writeln!(f, "left {system}"))
    }
}

impl FromStr for Lineage {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut lineage = Lineage::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["cluster", system, "timeline", timeline] if lineage.current.is_none() => {
                    lineage.current = Some(Server {
                        system: system.parse().map_err(drop)?,
                        timeline: timeline.parse().map_err(drop)?,
                    });
                }
                ["left", system] => lineage.left.push(system.parse().map_err(drop)?),
                _ => return Err(()),
            }
        }
        Ok(lineage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(system: i64, timeline: u32) -> Server {
        Server { system, timeline }
    }

    #[test]
    fn only_the_newest_timeline_of_a_cluster_is_used() {
        let none = Lineage::default();
        assert_eq!(none.judge("h", server(7, 3)), Verdict::Newer);
        let at = none.moved_to(server(7, 3));
        assert_eq!(at.judge("h", server(7, 3)), Verdict::Current);
        assert_eq!(at.judge("h", server(7, 4)), Verdict::Newer);
        let Verdict::Refused(why) = at.judge("h:1", server(7, 2)) else {
            panic!("an old primary is used");
        };
        let why = why.to_string();
        assert!(why.contains("h:1") && why.contains("timeline 2") && why.contains("timeline 3"));
    }

    #[test]
    fn a_new_cluster_is_followed_and_the_old_one_left() {
        let at = Lineage::default().moved_to(server(7, 9));
        assert_eq!(at.judge("h", server(8, 1)), Verdict::OtherCluster);
        let at = at.moved_to(server(8, 1));
        assert_eq!(at.judge("h", server(8, 1)), Verdict::Current);
        for timeline in [9, 10] {
            let verdict = at.judge("h", server(7, timeline));
            assert!(matches!(verdict, Verdict::Refused(Refusal::Left { .. })));
        }
        // An operator returns to it.
        let at = at.moved_to(server(7, 9));
        assert_eq!(at.left, [8]);
        let many = (0..200).fold(at, |at, system| at.moved_to(server(system, 1)));
        assert_eq!(many.left.len(), LEFT_MAX);
        assert_eq!(many.left.last(), Some(&198));
    }

    #[test]
    fn an_unknown_cluster_and_a_later_timeline_may_be_newer() {
        assert!(!Lineage::default().may_be_newer(server(7, 3)));
        let at = Lineage::default()
            .moved_to(server(8, 5))
            .moved_to(server(7, 3));
        for (system, timeline, expected) in [
            (7, 2, false),
            (7, 3, false),
            (7, 4, true),
            (8, 9, false),
            (9, 1, true),
        ] {
            let found = at.may_be_newer(server(system, timeline));
            assert_eq!(found, expected, "{system}, {timeline}");
        }
    }

    #[test]
    fn a_lineage_is_read_as_it_was_written() {
        let mut lineage = Lineage::default();
        assert_eq!(lineage.to_string().parse(), Ok(lineage.clone()));
        lineage = lineage.moved_to(server(i64::MIN, u32::MAX));
        lineage = lineage.moved_to(server(1, 1));
        assert_eq!(lineage.to_string().parse(), Ok(lineage));
        for wrong in ["cluster 1", "left x", "cluster 1 timeline -1", "rubbish"] {
            assert_eq!(wrong.parse::<Lineage>(), Err(()), "{wrong}");
        }
    }
}
