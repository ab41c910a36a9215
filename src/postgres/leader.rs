//! Work that one gateway of a database does at a time: the gateway whose session holds a lock.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::{Target, Use};
use crate::outage::Outage;

/// How long a gateway waits before it tries again: for the lock, and after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The rollup lock of gateways that know no passes over dirty hours (before schema version 6). Their rollup removes
/// every mark that it sees. A writer whose marks must last for a whole pass holds the lock in share mode, which keeps
/// such a rollup out.
pub const ROLLUP_WITHOUT_PASSES: i64 = i64::from_be_bytes(*b"wg-hours");

/// Work for one gateway of a database at a time.
pub struct Role {
    /// The name of the work in the log.
    pub work: &'static str,
    /// The name of the session on the server.
    pub session: &'static str,
    /// What the session is for.
    pub purpose: Use,
    /// The key of the advisory lock; each role has its own.
    pub lock_key: i64,
    /// The key of a lock that the leader shares with other sessions, if the work needs one.
    pub shared_key: Option<i64>,
    /// A table that the work needs. The gateway does not try the lock before the migrations have made it.
    pub table: &'static str,
}

/// What the leader does.
pub trait Work: Sync {
    /// Why the work failed.
    type Error: Display + From<Error>;

    /// Works in the session that holds the lock, until it fails. It is cancelled when that session ends.
    ///
    /// Cancel: must be safe
    fn work(
        &self,
        client: &mut Client,
        success: &Success<'_>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Ends an outage of the work.
pub struct Success<'a> {
    work: &'static str,
    outage: &'a Mutex<Outage>,
}

impl Success<'_> {
    /// Records that a part of the work has succeeded.
    ///
    /// Blocks: for a moment
    pub fn note(&self) {
        if lock(self.outage).ends() {
            tracing::info!("{} works again", self.work);
        }
    }
}

/// Work in parts that run at the same time. An outage ends once each part has succeeded: one may succeed again and again
/// while another fails.
pub struct Parts<'a, const N: usize> {
    success: &'a Success<'a>,
    have_succeeded: [AtomicBool; N],
}

impl<'a, const N: usize> Parts<'a, N> {
    /// No part has succeeded yet.
    pub fn new(success: &'a Success<'a>) -> Self {
        Parts {
            success,
            have_succeeded: [const { AtomicBool::new(false) }; N],
        }
    }

    /// Records that a part has succeeded.
    ///
    /// Blocks: for a moment
    pub fn note(&self, part: usize) {
        if let Some(part) = self.have_succeeded.get(part) {
            part.store(true, Ordering::Relaxed);
        }
        let mut all = self.have_succeeded.iter();
        if all.all(|part| part.load(Ordering::Relaxed)) {
            self.success.note();
        }
    }
}

fn lock(outage: &Mutex<Outage>) -> MutexGuard<'_, Outage> {
    outage.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Role {
    /// Waits for the lock, works in the session that holds it, and begins again when that fails.
    ///
    /// The lock belongs to the session, so another gateway takes over as soon as the server has ended it.
    /// A failure that repeats is logged once.
    ///
    /// Blocks: forever
    /// Cancel: safe; an open transaction is rolled back
    pub async fn lead(&self, target: &Target, work: &impl Work) {
        self.lead_every(RETRY_AFTER, target, work).await;
    }

    async fn lead_every(&self, retry_after: Duration, target: &Target, work: &impl Work) {
        let outage = Mutex::new(Outage::default());
        let success = Success {
            work: self.work,
            outage: &outage,
        };
        loop {
            if let Err(error) = self.lead_once(retry_after, target, work, &success).await {
                let error = error.to_string();
                if lock(&outage).changes(&error) {
                    tracing::warn!(error, "{} has failed; trying again", self.work);
                }
            }
            tokio::time::sleep(retry_after).await;
        }
    }

    async fn lead_once<W: Work>(
        &self,
        retry_after: Duration,
        target: &Target,
        work: &W,
        success: &Success<'_>,
    ) -> Result<(), W::Error> {
        let mut session = target.connect(self.session, self.purpose).await?;
        let ended = session.ended();
        let client = session.client_mut();
        // A lock that is already held is taken again, because a session may hold a lock many times.
        let ready = "select to_regclass($1) is not null and pg_try_advisory_lock($2)
            and ($3::bigint is null or pg_try_advisory_lock_shared($3))";
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.table, &self.lock_key, &self.shared_key];
        while !client
            .query_one(ready, &parameters)
            .await?
            .get::<_, bool>(0)
        {
            // Passing the work to another gateway is not a success.
            tokio::time::sleep(retry_after).await;
        }
        tracing::debug!("this gateway runs {}", self.work);
        // Without its session the lock is free, so another gateway may already lead.
        tokio::select! {
            biased;
            result = work.work(client, success) => result,
            // This statement fails at once, with the error of the lost connection.
            () = ended => client.batch_execute("").await.map_err(W::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::postgres::embedded::{self, EmbeddedConfig};

    const SOON: Duration = Duration::from_millis(20);
    const WITHIN: Duration = Duration::from_secs(60);

    const ROLE: Role = Role {
        work: "the work of a test",
        session: "wattgate test leader",
        purpose: Use::Alerts,
        lock_key: 1,
        shared_key: None,
        table: "work",
    };

    /// The gateways that have begun to work, and the server's process of each one's session.
    #[derive(Default)]
    struct Begun {
        begun: Mutex<Vec<(usize, i32)>>,
        /// Held by each gateway that works.
        working: Arc<()>,
    }

    impl Begun {
        fn all(&self) -> Vec<(usize, i32)> {
            self.begun.lock().unwrap().clone()
        }

        fn working(&self) -> usize {
            Arc::strong_count(&self.working) - 1
        }

        async fn nth(&self, n: usize) -> (usize, i32) {
            let waiting = async {
                loop {
                    if let Some(begun) = self.all().get(n) {
                        return *begun;
                    }
                    tokio::time::sleep(SOON).await;
                }
            };
            tokio::time::timeout(WITHIN, waiting).await.unwrap()
        }
    }

    /// One gateway's work: it records that it has begun, and does not use its session after that.
    struct Gateway(usize, Arc<Begun>);

    impl Work for Gateway {
        type Error = Error;

        async fn work(&self, client: &mut Client, _: &Success<'_>) -> Result<(), Error> {
            let row = client.query_one("select pg_backend_pid()", &[]).await?;
            let _working = Arc::clone(&self.1.working);
            self.1.begun.lock().unwrap().push((self.0, row.get(0)));
            std::future::pending().await
        }
    }

    #[test]
    fn an_outage_ends_once_each_part_has_succeeded() {
        let outage = Mutex::new(Outage::default());
        let success = Success {
            work: ROLE.work,
            outage: &outage,
        };
        for _ in 0..2 {
            assert!(lock(&outage).changes("one part fails"));
            let parts = Parts::<2>::new(&success);
            parts.note(0);
            parts.note(0);
            assert!(!lock(&outage).changes("one part fails"));
            parts.note(1);
        }
        assert!(!lock(&outage).ends());
    }

    /// A gateway that waits for the lock has not succeeded.
    async fn waiting_is_no_success(target: &Target, client: &Client) {
        let outage = Mutex::new(Outage::default());
        assert!(lock(&outage).changes("it failed"));
        let success = Success {
            work: ROLE.work,
            outage: &outage,
        };
        let waiting = Role {
            session: "wattgate test waiting",
            ..ROLE
        };
        let work = Gateway(2, Arc::default());
        let tried = async {
            let sql = "select count(*) from pg_stat_activity
                where application_name = $1 and state = 'idle' and query like '%pg_try_advisory_lock%'";
            while client
                .query_one(sql, &[&waiting.session])
                .await
                .unwrap()
                .get::<_, i64>(0)
                == 0
            {
                tokio::time::sleep(SOON).await;
            }
            tokio::time::sleep(5 * SOON).await;
        };
        tokio::select! {
            result = waiting.lead_once(SOON, target, &work, &success) => panic!("{result:?}"),
            tried = tokio::time::timeout(WITHIN, tried) => tried.unwrap(),
        }
        assert!(!lock(&outage).changes("it failed"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_gateway_leads_once_the_leaders_session_is_lost() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = EmbeddedConfig::new(dir.path());
        config.elsewhere = dir.path().join("elsewhere");
        config.ready_within = WITHIN;
        let server = embedded::start(config).await.unwrap();
        let at = server.connection();
        let target = Target::from_socket(&at.socket_dir, at.port, &at.user, &at.database).unwrap();
        let begun = Arc::new(Begun::default());
        let gateways: Vec<_> = (0..2)
            .map(|gateway| {
                let (target, work) = (target.clone(), Gateway(gateway, Arc::clone(&begun)));
                tokio::spawn(async move { ROLE.lead_every(SOON, &target, &work).await })
            })
            .collect();
        let session = target.connect("test", Use::Command).await.unwrap();
        let client = session.client();

        // Without its table there is no work.
        let sessions = "select count(*) from pg_stat_activity where application_name = $1";
        let connected = async {
            while client
                .query_one(sessions, &[&ROLE.session])
                .await
                .unwrap()
                .get::<_, i64>(0)
                < 2
            {
                tokio::time::sleep(SOON).await;
            }
        };
        tokio::time::timeout(WITHIN, connected).await.unwrap();
        tokio::time::sleep(5 * SOON).await;
        assert_eq!(begun.all(), []);
        client.batch_execute("create table work ()").await.unwrap();
        let (_, leader) = begun.nth(0).await;
        tokio::time::sleep(5 * SOON).await;
        assert_eq!(begun.all().len(), 1, "two gateways work at a time");

        // Each loss of the leader's session passes the work on.
        client
            .execute("select pg_terminate_backend($1)", &[&leader])
            .await
            .unwrap();
        let (_, next) = begun.nth(1).await;
        assert_ne!(next, leader);
        let one_works = async {
            while begun.working() != 1 {
                tokio::time::sleep(SOON).await;
            }
        };
        tokio::time::timeout(WITHIN, one_works).await.unwrap();
        // A gateway that is cancelled gives the lock up.
        let (last, _) = begun.all()[1];
        gateways[last].abort();
        let (other, _) = begun.nth(2).await;
        assert_eq!(other, 1 - last);

        waiting_is_no_success(&target, client).await;

        gateways.iter().for_each(tokio::task::JoinHandle::abort);
        drop(session);
        server.stop(WITHIN).await;
    }
}
