//! What a request hands to the log: its readings as records grouped by shard, its reservation, and the channel for
//! its reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::oneshot;

use super::frame::{CHUNK_BYTES_MAX, Position, frame_overhead_bytes};
use super::record::{RECORD_BYTES_MAX, encode};
use crate::reading::{PerStream, Reading, shard_of};

/// The first allocation of a chunk. Why 64: it fits one reading with an id of usual length, which is all that most
/// requests hold. Without it the chunk would reallocate four times to reach that size.
const FIRST_BYTES: usize = 64;

/// Part of a request: records of one shard that go into one frame.
#[derive(Debug)]
pub struct Chunk {
    /// The shard.
    pub shard: u16,
    /// The number of records of each stream.
    pub readings: PerStream<u32>,
    /// The records, at most [`CHUNK_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// The readings of one request, as records grouped by shard.
#[derive(Debug)]
pub struct RequestRecords {
    shards: u16,
    /// The index in `chunks` of the chunk that is being filled, by shard; `u32::MAX` means none yet. Empty until
    /// there are two chunks, because most requests have one.
    filling: Vec<u32>,
    chunks: Vec<Chunk>,
}

impl RequestRecords {
    /// Makes an empty request for a log with this many shards.
    pub fn new(shards: u16) -> Self {
        RequestRecords {
            shards,
            filling: Vec::new(),
            chunks: Vec::new(),
        }
    }

    /// Adds one reading.
    ///
    /// Order:  kept within a shard, and therefore within a device
    pub fn push(&mut self, reading: &Reading<'_>) {
        let shard = shard_of(reading.stream(), reading.device, self.shards);
        let mut index = match self.filling.get(usize::from(shard)) {
            Some(index) => *index as usize,
            // No table yet. The first chunk, if any, serves only its own shard.
            None => usize::from(self.chunks.first().is_some_and(|c| c.shard != shard)),
        };
        let full = self
            .chunks
            .get(index)
            .is_none_or(|chunk| chunk.bytes.len() + RECORD_BYTES_MAX > CHUNK_BYTES_MAX);
        if full {
            index = self.begin_chunk(shard);
        }
        let chunk = &mut self.chunks[index];
        encode(reading, &mut chunk.bytes);
        chunk.readings[reading.stream()] += 1;
    }

    /// Begins a new chunk for a shard and returns its index.
    fn begin_chunk(&mut self, shard: u16) -> usize {
        let index = self.chunks.len();
        if let (Some(first), true) = (self.chunks.first(), self.filling.is_empty()) {
            self.filling = vec![u32::MAX; usize::from(self.shards)];
            self.filling[usize::from(first.shard)] = 0;
        }
        if let Some(filling) = self.filling.get_mut(usize::from(shard)) {
            *filling = index as u32;
        }
        self.chunks.push(Chunk {
            shard,
            readings: PerStream::default(),
            bytes: Vec::with_capacity(FIRST_BYTES),
        });
        index
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The most bytes that the request can take in the log, if each chunk needs a frame of its own.
    pub fn log_bytes_max(&self) -> u64 {
        let records: usize = self.chunks.iter().map(|c| c.bytes.len()).sum();
        (records + self.chunks.len() * frame_overhead_bytes(self.shards)) as u64
    }

    /// Returns the chunks.
    pub fn into_chunks(self) -> Vec<Chunk> {
        self.chunks
    }
}

/// Why the log did not write a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk failed, and the gateway stops. The readings may or may not be stored.
    #[error("the write-ahead log has failed")]
    Failed,
}

/// One request on its way into the log. It owns its memory, its reservation and its reply channel, so that nothing
/// leaks if the client disconnects.
#[derive(Debug)]
pub struct Append {
    /// The readings.
    pub chunks: Vec<Chunk>,
    /// The space reserved in the log.
    pub reservation: Reservation,
    /// The memory reserved for it.
    pub memory: Reservation,
    /// Whether the reply lists the positions of the readings. Only `ack=committed` needs them.
    pub wants_places: bool,
    /// Sent once the whole request is durable.
    pub reply: Option<oneshot::Sender<Result<Vec<Stretch>, AppendError>>>,
}

/// Consecutive readings of one request: those in one shard's section of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The shard.
    pub shard: u16,
    /// Where the frame begins. A checkpoint past this position covers the readings.
    pub at: Position,
    /// The index of the first reading in the section.
    pub first: u32,
    /// The number of readings.
    pub readings: u32,
}

/// A message to the appender.
#[derive(Debug)]
pub enum Message {
    /// A request's readings.
    Append(Append),
    /// The end: the appender writes all earlier messages and then ends the run.
    Close,
}

/// A budget of bytes that requests reserve from: space in preallocated segments, or memory for readings in
/// transit.
///
/// Space in the log is reserved before anything is acknowledged, so that a full disk refuses requests and never
/// breaks an acknowledgement. The appender moves the bytes that it used from reserved to written.
#[derive(Debug, Default)]
pub struct ByteBudget {
    free: AtomicI64,
}

/// Bytes that one request has reserved; released when dropped.
#[derive(Debug)]
pub struct Reservation {
    bytes: i64,
    budget: Arc<ByteBudget>,
}

impl ByteBudget {
    /// Makes a budget of this many bytes.
    pub fn of(bytes: u64) -> Self {
        ByteBudget {
            free: AtomicI64::new(i64::try_from(bytes).unwrap_or(i64::MAX)),
        }
    }

    /// Reserves bytes. `None` means that not enough are free.
    ///
    /// Blocks: never
    pub fn try_reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let bytes = self.try_take(bytes)?;
        Some(Reservation {
            bytes,
            budget: Arc::clone(self),
        })
    }

    fn try_take(&self, bytes: u64) -> Option<i64> {
        let bytes = i64::try_from(bytes).ok()?;
        let take = |free: i64| (free >= bytes).then(|| free - bytes);
        self.free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .ok()?;
        Some(bytes)
    }

    /// Adds bytes (a segment became available) or removes them (bytes were written).
    pub fn change(&self, bytes: i64) {
        self.free.fetch_add(bytes, Ordering::AcqRel);
    }

    /// The free bytes.
    pub fn free_bytes(&self) -> u64 {
        u64::try_from(self.free.load(Ordering::Acquire)).unwrap_or(0)
    }
}

impl Reservation {
    /// Makes an empty reservation.
    pub fn nothing(of: &Arc<ByteBudget>) -> Self {
        Reservation {
            bytes: 0,
            budget: Arc::clone(of),
        }
    }

    /// The reserved bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Changes the reservation to this many bytes in all. `None` means that not enough are free; the reservation
    /// is then unchanged.
    ///
    /// Blocks: never
    pub fn resize(&mut self, bytes: u64) -> Option<()> {
        match bytes.checked_sub(self.bytes()) {
            Some(more) => self.bytes += self.budget.try_take(more)?,
            None => {
                let fewer = self.bytes - bytes as i64;
                self.bytes -= fewer;
                self.budget.change(fewer);
            }
        }
        Some(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.change(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Details, Energy, EnergyKind, ExternalId, Timestamp};

    #[test]
    fn a_reservation_is_released_when_dropped() {
        let budget = Arc::new(ByteBudget::default());
        budget.change(100);
        let first = budget.try_reserve(60).unwrap();
        assert!(budget.try_reserve(41).is_none());
        let second = budget.try_reserve(40).unwrap();
        assert_eq!(budget.free_bytes(), 0);
        drop(first);
        assert_eq!(budget.free_bytes(), 60);
        drop(second);
        assert_eq!(budget.free_bytes(), 100);
    }

    #[test]
    fn a_reservation_grows_only_within_its_budget() {
        let budget = Arc::new(ByteBudget::of(100));
        let mut first = Reservation::nothing(&budget);
        assert_eq!(first.resize(60), Some(()));
        assert_eq!(first.resize(101), None);
        assert_eq!((first.bytes(), budget.free_bytes()), (60, 40));
        assert_eq!(first.resize(10), Some(()));
        assert_eq!((first.bytes(), budget.free_bytes()), (10, 90));
        drop(first);
        assert_eq!(budget.free_bytes(), 100);
    }

    #[test]
    fn a_giant_request_is_split_into_chunks_that_fit_a_frame() {
        let mut request = RequestRecords::new(3);
        let ids: Vec<String> = (0..50_000).map(|n| format!("meter-{n:08}")).collect();
        for (n, id) in ids.iter().enumerate() {
            request.push(&Reading {
                device: ExternalId::new(id).unwrap(),
                at: Timestamp::from_micros(n as i64),
                energy: Energy {
                    kwh: 1.0,
                    kind: EnergyKind::Interval,
                },
                details: Details::Meter { voltage: 230.0 },
            });
        }
        let most = request.log_bytes_max();
        let chunks = request.into_chunks();
        assert!(chunks.iter().all(|c| c.bytes.len() <= CHUNK_BYTES_MAX));
        assert_eq!(chunks.iter().map(|c| c.readings.meter).sum::<u32>(), 50_000);
        assert!(chunks.len() > 3);
        assert!(most > chunks.iter().map(|c| c.bytes.len() as u64).sum::<u64>());
    }
}
