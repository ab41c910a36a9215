//! Decodes and admits one body of any protocol, and waits until it is safe.
//!
//! A protocol receives a body, reserves memory for it from [`Pipeline::gate`], and calls [`Pipeline::admit`].
//! [`Pipeline::safe`] returns when the body can be acknowledged. The protocol turns a refusal into its own
//! response.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::admission::{AckMode, Admitted, Gate, Memory, Shed};
use super::age::AgeLimit;
use super::decode::{BodyError, Bounds, Code, Decoder, Dialect, Expected, Format, Outcome, Rules};
use super::plausible_time;
use crate::metrics;
use crate::reading::{Reading, Stream};
use crate::wal::append::{AppendError, RequestRecords};

/// Bodies up to this size are decoded on the worker that received them. Why 256 KiB: that takes about as long as a
/// round trip to another thread under load, and blocks the async worker for at most a millisecond.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// The sender of a body, as the pipeline sees it.
pub trait Sender: Clone + Send + Sync + 'static {
    /// Why a body exceeds the sender's rate.
    type Refusal: Send;

    /// The prefix that the ids of its devices must have.
    fn prefix(&self) -> Option<&str>;

    /// Counts readings towards its rate, whether or not they are accepted.
    ///
    /// # Errors
    /// The rate is exceeded. Nothing was counted.
    fn charge(&self, readings: u64) -> Result<(), Self::Refusal>;
}

/// A body that was received and decompressed.
pub struct Body {
    /// The stream of its readings.
    pub stream: Stream,
    /// Its format.
    pub format: Format,
    /// What its sender may write differently.
    pub dialect: Dialect,
    /// When its last byte was received.
    pub received_at: Instant,
    /// The bytes.
    pub bytes: Bytes,
    /// The memory reserved for the bytes. The log releases it.
    pub memory: Memory,
}

/// The readings of a request that the log has admitted.
pub struct AcceptedBody {
    /// What the log will acknowledge.
    pub admitted: Admitted,
    /// Which readings were accepted and which were not.
    pub outcome: Outcome,
}

/// Why nothing of a body was accepted.
pub enum Refused<R> {
    /// The sender's rate is exceeded.
    Rate(R),
    /// The body is not in its declared format.
    Unreadable(BodyError),
    /// No reading of the body is valid.
    NothingValid(Box<Outcome>),
    /// The gateway has no room.
    Shed(Shed),
    /// A defect: decoding panicked.
    Failed,
}

/// Why it is not known that accepted readings are safe. They may still be stored.
#[derive(Debug, thiserror::Error)]
pub enum NotSafe {
    /// The database did not confirm them in time.
    #[error("the database did not confirm the readings in time")]
    CommitTimeout,
    /// The log has failed.
    #[error(transparent)]
    Log(#[from] AppendError),
}

/// The limits of the pipeline.
#[derive(Debug, Clone, Copy)]
pub struct PipelineLimits {
    /// Older readings are refused. `None` accepts all readings since 2000 that are within the database's
    /// retention.
    pub age_max: Option<Duration>,
    /// How long to wait for a commit.
    pub commit_within: Duration,
    /// How many large bodies may be decoded or decompressed at once.
    pub cores: usize,
}

/// Passes bodies to the log.
pub struct Pipeline {
    gate: Gate,
    cores: Arc<Semaphore>,
    limits: PipelineLimits,
    age: Arc<AgeLimit>,
}

thread_local! {
    /// One per thread, because a decoder keeps its buffers.
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new());
}

impl Pipeline {
    /// Makes a pipeline in front of a log's gate.
    pub fn new(gate: Gate, limits: PipelineLimits) -> Self {
        Pipeline {
            gate,
            cores: Arc::new(Semaphore::new(limits.cores.max(1))),
            limits,
            age: Arc::new(AgeLimit::new(limits.age_max)),
        }
    }

    /// How old a reading may be.
    pub const fn age(&self) -> &Arc<AgeLimit> {
        &self.age
    }

    /// The gate that reserves memory for bodies.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Permits for work on large bodies, off the async workers; one per core.
    pub const fn cores(&self) -> &Arc<Semaphore> {
        &self.cores
    }

    /// Decodes a body and admits its valid readings to the log.
    ///
    /// Blocks: at most a millisecond; a large body waits for a free core
    /// Cancel: before admission nothing is accepted; after it the readings are stored
    ///
    /// # Errors
    /// [`Refused`]: nothing was accepted.
    pub async fn admit<S: Sender>(
        &self,
        sender: &S,
        body: Body,
        ack: AckMode,
    ) -> Result<AcceptedBody, Refused<S::Refusal>> {
        let Body {
            stream,
            format,
            dialect,
            received_at,
            bytes,
            memory,
        } = body;
        let (earliest, latest) = plausible_time::at(received_at);
        let job = Job {
            stream,
            format,
            rules: Rules::new(Bounds::between(earliest, latest, self.age.get()), dialect),
            shards: self.gate.shards(),
        };
        let (decoded, records) = if bytes.len() <= INLINE_BYTES_MAX {
            job.run(sender.prefix(), &bytes)
        } else {
            // Boxed because large bodies are rare, and every request's future would otherwise be larger.
            Box::pin(self.decode_elsewhere(sender.clone(), job, bytes)).await?
        };
        let outcome = match decoded {
            Ok(outcome) => outcome,
            Err(error) => {
                sender.charge(1).map_err(Refused::Rate)?;
                metrics::readings_rejected(stream, error.code(), 1);
                return Err(Refused::Unreadable(error));
            }
        };
        let readings = outcome.accepted + outcome.rejected;
        sender.charge(readings).map_err(Refused::Rate)?;
        if outcome.accepted == 0 {
            count_rejected(stream, &outcome);
            return Err(Refused::NothingValid(Box::new(outcome)));
        }
        let admitted = self
            .gate
            .submit(records, memory, ack)
            .map_err(Refused::Shed)?;
        if outcome.rejected > 0 {
            count_rejected(stream, &outcome);
        }
        if outcome.fields_ignored > 0 {
            metrics::fields_ignored(stream, outcome.fields_ignored);
        }
        Ok(AcceptedBody { admitted, outcome })
    }

    /// Waits until the readings are as safe as their mode requires. Returns how many went into quarantine, like
    /// [`Gate::acknowledge`].
    ///
    /// Blocks: as [`AckMode`] requires; for a commit, at most as long as the limits allow
    /// Cancel: safe; the readings are still stored
    pub async fn safe(&self, admitted: Admitted, ack: AckMode) -> Result<Option<u64>, NotSafe> {
        let safe = self.gate.acknowledge(admitted);
        if ack != AckMode::Committed {
            return Ok(safe.await?);
        }
        match tokio::time::timeout(self.limits.commit_within, safe).await {
            Ok(safe) => Ok(safe?),
            Err(_) => Err(NotSafe::CommitTimeout),
        }
    }

    /// Decodes a large body on a blocking thread, at most one body per core.
    async fn decode_elsewhere<S: Sender>(
        &self,
        sender: S,
        job: Job,
        body: Bytes,
    ) -> Result<Decoded, Refused<S::Refusal>> {
        let permit = Arc::clone(&self.cores)
            .acquire_owned()
            .await
            .map_err(|_| Refused::Shed(Shed::Closed))?;
        let work = move || {
            // Held until the work ends, even if no client waits any more.
            let _permit = permit;
            job.run(sender.prefix(), &body)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Refused::Failed)
    }
}

/// What decoding needs besides the body.
struct Job {
    stream: Stream,
    format: Format,
    rules: Rules,
    shards: u16,
}

/// The result for a body, and the records of its valid readings.
type Decoded = (Result<Outcome, BodyError>, RequestRecords);

impl Job {
    fn run(&self, prefix: Option<&str>, body: &[u8]) -> Decoded {
        let mut records = RequestRecords::new(self.shards);
        let decoded = DECODER.with_borrow_mut(|decoder| {
            let take = |reading: Reading<'_>| records.push(&reading);
            let expected = Expected {
                prefix,
                stream: self.stream,
                format: self.format,
                rules: &self.rules,
            };
            decoder.decode_of(&expected, body, take)
        });
        (decoded, records)
    }
}

fn count_rejected(stream: Stream, outcome: &Outcome) {
    for code in Code::ALL {
        let readings = outcome.rejected_by_code[code.index()];
        if readings > 0 {
            metrics::readings_rejected(stream, code.as_str(), readings);
        }
    }
}
