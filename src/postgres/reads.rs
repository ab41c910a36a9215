//! Which server answers a query: a replica if one may, or else the primary.
//!
//! [`ReadServers`] is shared by all. Each request begins [`Reads`] of its own: its queries see nothing older than the
//! query before them, whichever servers they ask.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{Client, Object};
use tokio::time::timeout;

use super::read_pool::{ReadError, ReadPool, WORK_WITHIN};
use super::replicas::{Asked, Choices, Leaves, Replicas, ReplicasReport, WalPosition, Written};
use crate::reading::Timestamp;

/// The error of a query, as far as the choice of a server depends on it.
pub trait QueryError: From<ReadError> {
    /// Whether another server may answer all the same: the server has failed, and not the query.
    fn is_of_server(&self) -> bool;
}

impl QueryError for ReadError {
    fn is_of_server(&self) -> bool {
        match self {
            // Another server would take as long, and the client's token stays what it is.
            ReadError::TooSlow
            | ReadError::OutOfTime(_)
            | ReadError::NotReached
            | ReadError::NeverWritten => false,
            ReadError::AllBusy
            | ReadError::Unreachable(_)
            | ReadError::Ended(_)
            | ReadError::NotMigrated
            | ReadError::Refused(_) => true,
        }
    }
}

/// The servers that answer queries.
#[derive(Clone)]
pub struct ReadServers {
    primary: ReadPool,
    replicas: Option<Arc<Replicas>>,
}

impl ReadServers {
    /// The primary alone.
    pub const fn primary_alone(primary: ReadPool) -> Self {
        ReadServers {
            primary,
            replicas: None,
        }
    }

    pub(super) fn with_replicas(primary: ReadPool, replicas: Replicas) -> Self {
        ReadServers {
            primary,
            replicas: Some(Arc::new(replicas)),
        }
    }

    /// The sessions on the primary, for changes and for what they depend on.
    pub const fn primary(&self) -> &ReadPool {
        &self.primary
    }

    /// Begins the queries of a request. They see what the client has written.
    pub fn begin(&self, after: Option<Written>) -> Reads {
        let replicas = self.replicas.as_ref().map(|replicas| OfRequest {
            first: replicas.next(),
            never_behind: false,
            replicas: Arc::clone(replicas),
            seen: Arc::new(Mutex::new(Seen {
                at_least: after,
                ..Seen::default()
            })),
        });
        Reads {
            primary: self.primary.clone(),
            replicas,
        }
    }

    /// Whether there are replicas.
    pub const fn has_replicas(&self) -> bool {
        self.replicas.is_some()
    }

    /// The token of everything that is committed now; `None` without replicas, where no token is needed.
    ///
    /// Blocks: at most 1 s
    /// Cancel: safe
    pub async fn written(&self) -> Option<Written> {
        match &self.replicas {
            Some(replicas) => Some(replicas.written().await),
            None => None,
        }
    }

    /// The replicas, for metrics; `None` without any.
    pub fn replicas(&self) -> Option<ReplicasReport> {
        self.replicas.as_ref().map(|replicas| replicas.report())
    }

    /// Watches the replicas.
    ///
    /// Blocks: for ever
    /// Cancel: safe
    pub async fn watch_replicas(&self) {
        match &self.replicas {
            Some(replicas) => replicas.watch().await,
            None => std::future::pending().await,
        }
    }
}

/// The queries of one request.
#[derive(Clone)]
pub struct Reads {
    primary: ReadPool,
    replicas: Option<OfRequest>,
}

#[derive(Clone)]
struct OfRequest {
    replicas: Arc<Replicas>,
    /// All of its queries ask the same replica, as long as it can be asked.
    first: usize,
    /// Whether a query that has begun on a replica is begun again on the primary only.
    never_behind: bool,
    seen: Arc<Mutex<Seen>>,
}

/// What the queries of a request have seen.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// What the next query must see.
    at_least: Option<Written>,
    answer: Provenance,
}

/// Where an answer comes from, as the server that gave it showed: never what a client has asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Up to when everything is in it; `None` means that the primary has answered, so that nothing is missing.
    pub complete_to: Option<Timestamp>,
    /// The position up to which everything is in it, if it is known.
    pub position: Option<WalPosition>,
}

impl Provenance {
    /// Whether the answer holds what a client requires. A client that requires the primary, and no position, gets what
    /// is kept: nothing tells whether it holds what that client has written.
    pub fn holds(&self, written: Option<Written>) -> bool {
        match written {
            None | Some(Written::Unknown) => true,
            Some(Written::Before(written)) => self
                .position
                .is_some_and(|position| position.contains(&written)),
        }
    }
}

impl Reads {
    /// Asks a query of a replica if one may be asked, or else of the primary.
    ///
    /// If a replica fails, the next one is asked, and at last the primary, within the same time. So the query may begin
    /// more than once: what it has changed outside must be right for that.
    ///
    /// Blocks: at most 5 s for a session and 35 s for the query
    /// Cancel: safe; an open transaction is rolled back
    ///
    /// # Errors
    /// [`ReadError`] if there is no session or the query takes too long; otherwise the query's own.
    pub async fn ask<T, E: QueryError>(
        &self,
        query: impl AsyncFnOnce(&mut Client) -> Result<T, E> + Clone,
    ) -> Result<T, E> {
        self.ask_within(WORK_WITHIN, query).await
    }

    /// Asks a query with a time limit of its own.
    ///
    /// # Errors
    /// As those of [`Reads::ask`].
    pub async fn ask_within<T, E: QueryError>(
        &self,
        within: Duration,
        query: impl AsyncFnOnce(&mut Client) -> Result<T, E> + Clone,
    ) -> Result<T, E> {
        let Some(of_request) = &self.replicas else {
            return self.primary.ask_within(within, query).await;
        };
        let began = Instant::now();
        let why = match of_request.ask_replicas(within, query.clone()).await {
            Ok(answer) => return answer,
            Err(why) => why,
        };
        of_request.replicas.count_left(why);
        let left = within.saturating_sub(began.elapsed());
        of_request.ask_primary(&self.primary, left, query).await
    }

    /// Checks that a query can be asked.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn check(&self) -> Result<(), ReadError> {
        match &self.replicas {
            None => self.primary.check().await,
            Some(_) => self.ask(async |_| Ok(())).await,
        }
    }

    /// What the next query must see.
    pub fn at_least(&self) -> Option<Written> {
        self.replicas.as_ref().and_then(|it| it.seen().at_least)
    }

    /// Where the answers come from: the oldest of them.
    pub fn provenance(&self) -> Provenance {
        let of_request = self.replicas.as_ref();
        of_request.map_or_else(Provenance::default, |it| it.seen().answer)
    }

    /// Adds the provenance of an answer that was kept.
    pub fn add(&self, kept: Provenance) {
        if let Some(of_request) = &self.replicas {
            of_request.seen().answer.add(kept);
        }
    }

    /// The same queries, for state that a failed query leaves half updated: none is begun again on another replica,
    /// which may be behind the one that has failed.
    #[must_use]
    pub fn never_behind(mut self) -> Self {
        if let Some(of_request) = &mut self.replicas {
            of_request.never_behind = true;
        }
        self
    }

    /// Queries of their own, which must see what the next query of these must see.
    #[must_use]
    pub fn apart(&self) -> Self {
        let replicas = self.replicas.as_ref().map(|of_request| OfRequest {
            replicas: Arc::clone(&of_request.replicas),
            first: of_request.first,
            never_behind: of_request.never_behind,
            seen: Arc::new(Mutex::new(Seen {
                at_least: of_request.seen().at_least,
                ..Seen::default()
            })),
        });
        Reads {
            primary: self.primary.clone(),
            replicas,
        }
    }
}

impl OfRequest {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the replicas, each at most once, until one answers.
    ///
    /// # Errors
    /// Why the primary must be asked.
    async fn ask_replicas<T, E: QueryError>(
        &self,
        within: Duration,
        query: impl AsyncFnOnce(&mut Client) -> Result<T, E> + Clone,
    ) -> Result<Result<T, E>, Leaves> {
        let began = Instant::now();
        let after = match self.seen().at_least {
            None => None,
            Some(Written::Before(position)) => Some(position),
            Some(Written::Unknown) => return Err(Leaves::Written),
        };
        let mut choices = Choices::new(self.first, after);
        let mut failed = None;
        loop {
            let left = within.saturating_sub(began.elapsed());
            let asked = timeout(left, self.replicas.session(&mut choices)).await;
            let asked = asked.unwrap_or(Err(Leaves::Busy));
            let asked = asked.map_err(|why| failed.unwrap_or(why))?;
            let left = within.saturating_sub(began.elapsed());
            match self.ask_replica(asked, left, query.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(why) if self.never_behind => return Err(why),
                Err(why) => failed = Some(why),
            }
        }
    }

    async fn ask_replica<T, E: QueryError>(
        &self,
        asked: Asked,
        within: Duration,
        query: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<Result<T, E>, Leaves> {
        let Asked {
            mut client,
            position,
            complete_to,
        } = asked;
        match timeout(within, query(&mut client)).await {
            Ok(Ok(answer)) => {
                // What the query has seen lies before this. Without it, the server has left the primary meanwhile.
                let Some(seen) = self.replicas.position(&client).await else {
                    drop(Object::take(client));
                    return Err(Leaves::Failed);
                };
                self.replicas.count_answer();
                let mut state = self.seen();
                state.at_least = Some(Written::Before(seen));
                state.answer.add(Provenance {
                    complete_to: Some(complete_to),
                    position: Some(position),
                });
                Ok(Ok(answer))
            }
            Ok(Err(error)) if error.is_of_server() => {
                tracing::debug!("a replica has not answered a query; another server is asked");
                Err(Leaves::Failed)
            }
            Ok(Err(error)) => Ok(Err(error)),
            Err(_) => {
                // Its statements still run, so no other query must wait behind them.
                drop(Object::take(client));
                Ok(Err(ReadError::TooSlow.into()))
            }
        }
    }

    async fn ask_primary<T, E: QueryError>(
        &self,
        primary: &ReadPool,
        within: Duration,
        query: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<T, E> {
        let at_least = self.seen().at_least;
        let (answer, end) = primary
            .ask_within(within, async |client| {
                let end = self.replicas.begin_on_primary(client, at_least).await?;
                Ok::<_, E>((query(client).await?, end))
            })
            .await?;
        let mut state = self.seen();
        // A replica may not hold yet what the primary has shown.
        state.at_least = Some(Written::Unknown);
        state.answer.add(Provenance {
            complete_to: None,
            position: end.map(WalPosition::before_end),
        });
        Ok(answer)
    }
}

impl Provenance {
    fn add(&mut self, answer: Provenance) {
        let before = self.complete_to.into_iter();
        self.complete_to = before.chain(answer.complete_to).min();
        // The first is the oldest.
        self.position = self.position.or(answer.position);
    }
}
