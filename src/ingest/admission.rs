//! Admission: the only place that sheds load.
//!
//! A request reserves memory from one budget as its bytes arrive, then space in the log once it is decoded, and
//! then a slot in the channel to the log. Nothing here waits. If there is no room the request is refused at once,
//! so that slow clients cannot hold what others need.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;

use crate::wal::append::{
    Append, AppendError, ByteBudget, Message, RequestRecords, Reservation, Stretch,
};

use crate::wal::progress::Progress;

/// For a moment each received byte is in memory twice: as received, and in a record.
const HELD_TIMES: u64 = 2;

/// One sender may hold one part in this many of the memory while its bodies arrive. So a fleet that sends slowly,
/// or too much, leaves memory for others.
const SHARE_OF_ONE: u64 = 2;

/// The memory that may be configured for readings in transit.
///
/// Units:  bytes
pub const MEMORY_BYTES: RangeInclusive<u64> = 16 << 20..=1 << 40;

/// The least memory with which one sender's share is enough for the largest body. During decompression, the
/// compressed and the decompressed bytes are both held.
///
/// Units:  bytes
pub const fn memory_least(body_bytes_max: usize) -> u64 {
    let (compressed, decompressed) = (body_bytes_max as u64, body_bytes_max as u64);
    (compressed + decompressed) * HELD_TIMES * SHARE_OF_ONE
}

/// The memory that one sender holds for all its requests.
#[derive(Debug, Default)]
pub struct Share {
    bytes: AtomicU64,
}

/// Why a request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// The memory for readings in transit is exhausted.
    #[error("too many readings are in progress")]
    Memory,
    /// The log has no space: the database lags behind, or the disk is full.
    #[error("the write-ahead log is full")]
    LogFull,
    /// The channel to the log is full.
    #[error("too many requests are in progress")]
    Queue,
    /// The gateway is stopping, or the log has failed.
    #[error("the gateway is stopping")]
    Closed,
}

impl Shed {
    /// The `reason` label of `http_shed_total`.
    pub fn reason(self) -> &'static str {
        match self {
            Shed::Memory => "memory",
            Shed::LogFull => "log_full",
            Shed::Queue => "queue",
            Shed::Closed => "closed",
        }
    }
}

/// When a request is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// Once it is accepted. A crash of the gateway may lose it.
    Buffered,
    /// Once it is durable in the log.
    #[default]
    Durable,
    /// Once it is in PostgreSQL.
    Committed,
}

impl AckMode {
    /// The name in the query and in responses.
    pub fn name(self) -> &'static str {
        match self {
            AckMode::Buffered => "buffered",
            AckMode::Durable => "durable",
            AckMode::Committed => "committed",
        }
    }
}

/// Memory that a request holds while its body arrives. It is released when dropped.
#[derive(Debug)]
pub struct Memory {
    held: Reservation,
    of_sender: Option<HeldOfSender>,
}

/// What a request holds of its sender's share. It is released when dropped.
#[derive(Debug)]
struct HeldOfSender {
    share: Arc<Share>,
    bytes: u64,
    bytes_max: u64,
}

impl HeldOfSender {
    /// Holds this many bytes. `None` means that the share is exhausted; what was held before is still held.
    fn resize(&mut self, bytes: u64) -> Option<()> {
        let all = &self.share.bytes;
        match bytes.checked_sub(self.bytes) {
            Some(more) => {
                if all.fetch_add(more, Ordering::Relaxed) + more > self.bytes_max {
                    all.fetch_sub(more, Ordering::Relaxed);
                    return None;
                }
            }
            None => {
                all.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            }
        }
        self.bytes = bytes;
        Some(())
    }
}

impl Drop for HeldOfSender {
    fn drop(&mut self) {
        self.share.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Memory {
    /// Reserves memory for this many further bytes.
    ///
    /// Blocks: never
    ///
    /// # Errors
    /// [`Shed::Memory`]: the memory is exhausted. Refuse the request and drop it.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Shed> {
        self.resize(self.held.bytes() + bytes as u64 * HELD_TIMES)
    }

    /// Releases everything beyond this many bytes.
    ///
    /// Blocks: never
    pub fn shrink_to(&mut self, bytes: usize) {
        let fewer = self.held.bytes().min(bytes as u64 * HELD_TIMES);
        let released = self.resize(fewer);
        debug_assert!(released.is_ok(), "releasing never fails");
    }

    fn resize(&mut self, bytes: u64) -> Result<(), Shed> {
        let before = self.held.bytes();
        if let Some(of_sender) = &mut self.of_sender {
            of_sender.resize(bytes).ok_or(Shed::Memory)?;
        }
        if self.held.resize(bytes).is_none() {
            if let Some(of_sender) = &mut self.of_sender {
                of_sender.resize(before);
            }
            return Err(Shed::Memory);
        }
        Ok(())
    }
}

/// Admits readings to the log. Cloning is cheap.
#[derive(Clone)]
pub struct Gate {
    memory: Arc<ByteBudget>,
    log_room: Arc<ByteBudget>,
    sender: Sender<Message>,
    progress: Arc<Progress>,
    share_bytes_max: u64,
}

/// A request that was handed to the log.
pub struct Admitted {
    reply: Option<oneshot::Receiver<Result<Vec<Stretch>, AppendError>>>,
    waits_for_commit: bool,
}

impl Admitted {
    /// Polls until the request is durable in the log. A `buffered` request is ready at once.
    ///
    /// Order:  requests submitted in sequence by one caller become durable in that order
    ///
    /// # Errors
    /// [`AppendError`]: the disk failed. The readings may or may not be stored.
    pub fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AppendError>> {
        let Some(reply) = &mut self.reply else {
            return Poll::Ready(Ok(()));
        };
        let kept = std::task::ready!(Pin::new(reply).poll(cx));
        Poll::Ready(kept.map_err(|_| AppendError::Failed).flatten().map(drop))
    }
}

impl Gate {
    /// Makes a gate in front of a log, with a budget of memory.
    pub fn new(
        memory_limit_bytes: u64,
        log_room: Arc<ByteBudget>,
        sender: Sender<Message>,
        progress: Arc<Progress>,
    ) -> Self {
        Gate {
            memory: Arc::new(ByteBudget::of(memory_limit_bytes)),
            share_bytes_max: memory_limit_bytes / SHARE_OF_ONE,
            log_room,
            sender,
            progress,
        }
    }

    /// The number of shards by which a request's records are grouped.
    pub fn shards(&self) -> u16 {
        self.progress.shards()
    }

    /// Begins to account for a request's memory, within its sender's share if one is given.
    ///
    /// Dropping the [`Memory`] releases the share. The memory of submitted readings belongs to the log.
    pub fn memory(&self, share: Option<&Arc<Share>>) -> Memory {
        Memory {
            of_sender: share.map(|share| HeldOfSender {
                share: Arc::clone(share),
                bytes: 0,
                bytes_max: self.share_bytes_max,
            }),
            held: Reservation::nothing(&self.memory),
        }
    }

    /// Hands a request's records to the log.
    ///
    /// Blocks: never
    ///
    /// # Errors
    /// [`Shed`]: nothing was accepted. Respond with 503.
    pub fn submit(
        &self,
        records: RequestRecords,
        memory: Memory,
        ack: AckMode,
    ) -> Result<Admitted, Shed> {
        let reservation = self
            .log_room
            .try_reserve(records.log_bytes_max())
            .ok_or(Shed::LogFull)?;
        let waits_for_commit = ack == AckMode::Committed;
        let (sender, receiver) = oneshot::channel();
        let wanted = ack != AckMode::Buffered;
        let append = Append {
            chunks: records.into_chunks(),
            reservation,
            memory: memory.held,
            wants_places: waits_for_commit,
            reply: wanted.then_some(sender),
        };
        match self.sender.try_send(Message::Append(append)) {
            Ok(()) => Ok(Admitted {
                reply: wanted.then_some(receiver),
                waits_for_commit,
            }),
            Err(TrySendError::Full(_)) => Err(Shed::Queue),
            Err(TrySendError::Disconnected(_)) => Err(Shed::Closed),
        }
    }

    /// Waits until a request is as safe as its mode requires.
    ///
    /// Shape:  how many of the readings are in quarantine; `None` if the mode is not `committed`, or if the number
    ///         is no longer known
    /// Blocks: never for `buffered`; until the fsync for `durable`; until the commit for `committed`, which has no
    ///         time limit here
    /// Cancel: safe; the readings are still stored
    ///
    /// # Errors
    /// [`AppendError`]: the disk failed. The readings may or may not be stored.
    pub async fn acknowledge(&self, admitted: Admitted) -> Result<Option<u64>, AppendError> {
        let Some(reply) = admitted.reply else {
            return Ok(None);
        };
        let places = reply.await.map_err(|_| AppendError::Failed)??;
        if !admitted.waits_for_commit {
            return Ok(None);
        }
        self.progress.wait_stored(&places).await;
        Ok(self.progress.quarantined_at(&places))
    }

    /// How many seconds a refused client should wait before it retries, from 1 to 60. With a full log, the writers
    /// drain about a sixteenth of it in that time.
    pub fn retry_after_seconds(&self, shed: Shed) -> u64 {
        match shed {
            Shed::Memory | Shed::Queue | Shed::Closed => 1,
            Shed::LogFull => {
                let waiting = self.progress.snapshot().waiting();
                room_comes_in_seconds(waiting, self.progress.drain_rate())
            }
        }
    }
}

/// How many seconds it takes to drain a sixteenth of a full log, by the readings that wait and those stored per
/// second. 30 s while nothing is stored.
fn room_comes_in_seconds(waiting: u64, drained_per_second: f64) -> u64 {
    if drained_per_second < 1.0 {
        return 30;
    }
    ((waiting as f64 / 16.0 / drained_per_second).ceil() as u64).clamp(1, 60)
}

#[cfg(test)]
mod tests;
