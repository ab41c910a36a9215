//! Retired runs: what the database must hold of each.
//!
//! If a database was restored to an older state, the writers store again whatever the log still holds. But
//! readings missing from a run that was retired as a whole would go unnoticed. So the log records where each such
//! run ended and how many readings each shard had.
//!
//! ```text
//! file      slot (65536 bytes) · slot
//! slot      header (48 bytes) · entry · entry · … · leftovers
//! header    "WATTGONE" · version u16 · entries u16 · entries' bytes u32 · generation u64
//!           · store [16] · crc32c u32 · 0 u32
//! entry     run id [16] · run sequence u64 · end u64 · shards u16 · 0 [6]
//!           · shards × readings [u64; 2]
//! ```
//!
//! All numbers are little-endian. The checksum covers the header, except itself, and the entries. The slots are
//! written alternately, so that a torn write leaves the other slot intact. Of two intact slots, the one with the
//! higher generation counts. The file is zero-filled when the log is created and never grows, so that a run can be
//! recorded on a full disk too.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::bytes::{array, u16_at, u32_at, u64_at};
use super::catalog::Run;
use super::frame::Position;
use super::recovery::RecoveryError;
use super::storage::{SegmentFile, Storage, is_full};
use crate::reading::{PerStream, StreamCounts};

/// The file's name, in the log's directory.
pub const FILE_NAME: &str = "gone";
/// The size of a slot: some 600 runs of four shards, or 61 runs of 64 shards.
pub const SLOT_BYTES: usize = 64 << 10;
const MAGIC: [u8; 8] = *b"WATTGONE";
/// The version that this code writes. Other versions are refused, never misread.
const FORMAT_VERSION: u16 = 1;
const HEADER_BYTES: usize = 48;
const CRC_AT: usize = 40;
const ENTRY_FIXED: usize = 40;
const ENTRY_SHARD: usize = 16;

/// A run that was stored completely and whose segments were retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredRun {
    /// Its id, the key of its checkpoints.
    pub id: Uuid,
    /// Its number in the order of this log's runs.
    pub sequence: u64,
    /// Where it ended.
    pub end: Position,
    /// How many readings each shard had.
    pub appended: Vec<StreamCounts>,
}

impl RetiredRun {
    fn of(run: &Run, end: Position) -> Self {
        RetiredRun {
            id: run.id,
            sequence: run.sequence,
            end,
            appended: run.appended.clone(),
        }
    }

    fn bytes(&self) -> usize {
        ENTRY_FIXED + ENTRY_SHARD * self.appended.len()
    }
}

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    generation: u64,
    /// The id of the database that the runs were stored in.
    store: Option<Uuid>,
    /// Oldest first.
    pub runs: VecDeque<RetiredRun>,
}

impl Remembered {
    /// Reads the file. Without an intact slot there are no runs.
    ///
    /// # Errors
    /// I/O errors; [`RecoveryError::Version`] if the file has another version.
    pub fn read(file: &dyn SegmentFile) -> Result<Self, RecoveryError> {
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        let filled = file.read_at(&mut bytes, 0)?;
        let mut newest = Remembered::default();
        let mut intact = false;
        for slot in bytes.chunks_exact(SLOT_BYTES) {
            if slot.starts_with(&MAGIC) {
                let version = u16_at(slot, 8);
                if version != FORMAT_VERSION {
                    return Err(RecoveryError::Version {
                        segment: FILE_NAME.to_owned(),
                        what: format!(
                            "its format has version {version}, but this program reads version \
                             {FORMAT_VERSION}"
                        ),
                    });
                }
            }
            if let Some(found) = Remembered::decode(slot) {
                intact = true;
                if found.generation >= newest.generation {
                    newest = found;
                }
            }
        }
        if !intact && bytes[..filled].iter().any(|byte| *byte != 0) {
            tracing::error!(
                "the file {FILE_NAME} in the log's directory is damaged: gaps in the runs that it \
                 listed cannot be detected"
            );
        }
        Ok(newest)
    }

    /// The runs, if they were stored in this database; otherwise none.
    pub fn into_stored_into(self, store: Uuid) -> Vec<RetiredRun> {
        if self.store.is_some_and(|bound| bound != store) {
            return Vec::new();
        }
        self.runs.into()
    }

    fn encode(&self) -> Vec<u8> {
        let entries: usize = self.runs.iter().map(RetiredRun::bytes).sum();
        let mut out = Vec::with_capacity(HEADER_BYTES + entries);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&(self.runs.len() as u16).to_le_bytes());
        out.extend_from_slice(&(entries as u32).to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(self.store.unwrap_or_default().as_bytes());
        out.extend_from_slice(&[0; 8]);
        for run in &self.runs {
            out.extend_from_slice(run.id.as_bytes());
            out.extend_from_slice(&run.sequence.to_le_bytes());
            out.extend_from_slice(&run.end.to_i64().to_le_bytes());
            out.extend_from_slice(&(run.appended.len() as u16).to_le_bytes());
            out.extend_from_slice(&[0; 6]);
            for counts in &run.appended {
                out.extend_from_slice(&counts.meter.to_le_bytes());
                out.extend_from_slice(&counts.vehicle.to_le_bytes());
            }
        }
        let crc = checksum(&out);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes a slot; `None` if it is not intact.
    fn decode(slot: &[u8]) -> Option<Self> {
        if !slot.starts_with(&MAGIC) {
            return None;
        }
        let entries = u32_at(slot, 12) as usize;
        let used = slot.get(..HEADER_BYTES.checked_add(entries)?)?;
        if checksum(used) != u32_at(used, CRC_AT) {
            return None;
        }
        let store = Uuid::from_bytes(array(used, 24));
        let mut rest = &used[HEADER_BYTES..];
        let mut runs = VecDeque::new();
        for _ in 0..u16_at(used, 10) {
            let fixed = rest.get(..ENTRY_FIXED)?;
            let shards = usize::from(u16_at(fixed, 32));
            let bytes = ENTRY_FIXED + ENTRY_SHARD * shards;
            let counts = rest.get(ENTRY_FIXED..bytes)?;
            runs.push_back(RetiredRun {
                id: Uuid::from_bytes(array(fixed, 0)),
                sequence: u64_at(fixed, 16),
                end: Position::from_i64(u64_at(fixed, 24) as i64),
                appended: counts
                    .chunks_exact(ENTRY_SHARD)
                    .map(|counts| PerStream {
                        meter: u64_at(counts, 0),
                        vehicle: u64_at(counts, 8),
                    })
                    .collect(),
            });
            rest = &rest[bytes..];
        }
        Some(Remembered {
            generation: u64_at(used, 16),
            store: (!store.is_nil()).then_some(store),
            runs,
        })
    }

    fn bytes(&self) -> usize {
        HEADER_BYTES + self.runs.iter().map(RetiredRun::bytes).sum::<usize>()
    }
}

/// The checksum of everything but the checksum itself.
fn checksum(used: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&used[..CRC_AT]), &used[CRC_AT + 4..])
}

struct State {
    /// `None` until there was space for the file.
    file: Option<Arc<dyn SegmentFile>>,
    remembered: Remembered,
    /// Runs that the file still holds, until the next write removes them.
    leaving: Vec<Uuid>,
    /// Runs that the file no longer holds. Their checkpoints may be deleted.
    forgotten: Vec<Uuid>,
}

/// The retired runs of one log, kept in a file in its directory.
pub(super) struct RetiredRuns {
    storage: Arc<dyn Storage>,
    state: Mutex<State>,
}

impl RetiredRuns {
    /// Reads the file. A run that still has segments is not retired, even if the file lists it, because the file
    /// is written before the run's last segment is removed.
    ///
    /// # Errors
    /// As [`Remembered::read`].
    pub(super) fn load(
        storage: Arc<dyn Storage>,
        present: &VecDeque<Run>,
    ) -> Result<Self, RecoveryError> {
        let mut state = State {
            file: None,
            remembered: Remembered::default(),
            leaving: Vec::new(),
            forgotten: Vec::new(),
        };
        if storage.list()?.iter().any(|name| name == FILE_NAME) {
            let file = storage.open(FILE_NAME)?;
            state.remembered = Remembered::read(&*file)?;
            let whole = file.size_bytes()? >= 2 * SLOT_BYTES as u64;
            // If a crash left the file incomplete, it is made again.
            state.file = whole.then_some(file);
            let runs = &mut state.remembered.runs;
            runs.retain(|retired| present.iter().all(|run| run.id != retired.id));
        }
        Ok(RetiredRuns {
            storage,
            state: Mutex::new(state),
        })
    }

    /// Creates the file if it does not exist.
    ///
    /// Blocks: until it is durable
    ///
    /// # Errors
    /// I/O errors, including a full disk.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.file.is_none() {
            state.file = Some(self.make()?);
        }
        Ok(())
    }

    fn make(&self) -> io::Result<Arc<dyn SegmentFile>> {
        let made = self.storage.create(FILE_NAME).and_then(|file| {
            file.write_all_at(&[0; 2 * SLOT_BYTES], 0)?;
            file.sync_data()?;
            self.storage.sync()?;
            Ok(file)
        });
        if made.is_err() {
            // Frees the space of the partial file. If the removal fails too, it is ignored.
            drop(self.storage.remove(FILE_NAME));
        }
        made
    }

    /// Records a run as retired, before its last segment is removed. If the file is full, the oldest runs are
    /// forgotten.
    ///
    /// Blocks: until it is durable
    ///
    /// # Errors
    /// I/O errors, except for a full disk: the run is then recorded only in memory, because retiring segments is
    /// what frees space.
    pub(super) fn remember(&self, run: &Run, end: Position) -> io::Result<()> {
        let mut guard = self.lock();
        let state = &mut *guard;
        // It is listed already if an earlier attempt failed to remove its segment.
        state.remembered.runs.retain(|retired| retired.id != run.id);
        state.remembered.runs.push_back(RetiredRun::of(run, end));
        while state.remembered.bytes() > SLOT_BYTES {
            let oldest = state.remembered.runs.pop_front();
            state.leaving.extend(oldest.map(|retired| retired.id));
        }
        match self.write(state) {
            Err(error) if is_full(&error) => {
                tracing::warn!(run = %run.id, "the disk has no room to record a retired run");
                Ok(())
            }
            result => result,
        }
    }

    fn write(&self, state: &mut State) -> io::Result<()> {
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => self.make()?,
        };
        state.file = Some(Arc::clone(&file));
        let next = Remembered {
            generation: state.remembered.generation + 1,
            ..state.remembered.clone()
        };
        let slot = (next.generation % 2) * SLOT_BYTES as u64;
        file.write_all_at(&next.encode(), slot)?;
        file.sync_data()?;
        state.remembered.generation = next.generation;
        // Until this write, the next start would still have needed their checkpoints.
        state.forgotten.append(&mut state.leaving);
        Ok(())
    }

    /// The runs that were stored in this database and then retired, oldest first.
    ///
    /// If an operator has bound the log to another database since, the runs recorded before are dropped.
    pub(super) fn stored_into(&self, store: Uuid) -> Vec<RetiredRun> {
        let remembered = &mut self.lock().remembered;
        if remembered.store.is_some_and(|before| before != store) {
            remembered.runs.clear();
        }
        remembered.store = Some(store);
        remembered.runs.iter().cloned().collect()
    }

    /// Takes the ids of runs that were forgotten since the last call.
    pub(super) fn take_forgotten(&self) -> Vec<Uuid> {
        std::mem::take(&mut self.lock().forgotten)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
