//! The guarantees of the log, on disks that lose writes, tear them, and fill up.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`disk`] | a disk in memory that forgets what was not synced |
//! | [`power_cuts`] | random operations, kills and power cuts against a model |
//! | [`recovery`] | what opening does with torn tails, damage, other versions |
//! | [`acknowledgements`] | acknowledgement, failing disks, readers |
//! | [`retired`] | what is recorded of retired runs |
//! | [`limits`] | full disks, the size limit, retention, recycling |
//! | [`directories`] | real directories and the log's own threads |

mod acknowledgements;
mod directories;
mod disk;
mod limits;
mod power_cuts;
mod recovery;
mod retired;

use std::sync::Arc;

use tokio::sync::oneshot;

use super::append::{Append, AppendError, Message, RequestRecords, Reservation, Stretch};
use super::frame::Position;
use super::opening::Parts;
use super::progress::{RunShard, Stored, Tally};
use super::reader::{Next, ReadError};
use super::storage::Storage;
use super::{LogOptions, LogSource, OpenError, Run, SyncMode, record};
use crate::reading::{
    Details, Energy, EnergyKind, ExternalId, Place, Reading, StreamCounts, Timestamp, shard_of,
};
use disk::Disk;

/// Small segments, so that a test rotates often. A segment reserves only three quarters of its size.
const SEGMENT_BYTES: u64 = 512 << 10;

fn options(shards: u16) -> LogOptions {
    LogOptions {
        shards,
        limit_bytes: 8 * SEGMENT_BYTES,
        retain_bytes: 0,
        sync: SyncMode::Always,
    }
}

/// Pseudo-random numbers that depend only on the seed (SplitMix64).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// The reading of a serial number. The number is its time and determines all its other fields.
struct Made {
    serial: u64,
    device: String,
    place: String,
    random: Random,
}

impl Made {
    fn new(serial: u64) -> Self {
        let mut random = Random(serial);
        let mut device = format!("D{:02}", random.below(13));
        let mut place = format!("P{}", random.below(5));
        if random.percent(60) {
            // The longest possible records.
            device.extend(std::iter::repeat_n('\u{1F50B}', 61));
            place.extend(std::iter::repeat_n('\u{1F50C}', 62));
        }
        Made {
            serial,
            device,
            place,
            random,
        }
    }

    fn reading(&self) -> Reading<'_> {
        let mut random = self.random.clone();
        let place = ExternalId::new(&self.place).unwrap();
        let details = match random.below(4) {
            0 | 1 => Details::Meter {
                voltage: random.below(1000) as f64,
            },
            n => Details::Vehicle {
                soc: random.below(100) as f64,
                battery_temp: random.below(100) as f64 - 50.0,
                place: (n == 3).then_some(Place::Meter(place)),
            },
        };
        Reading {
            device: ExternalId::new(&self.device).unwrap(),
            at: Timestamp::Y2000.plus_micros(self.serial as i64),
            energy: Energy {
                kwh: random.below(1_000_000) as f64 / 7.0,
                kind: EnergyKind::Interval,
            },
            details,
        }
    }

    fn shard(&self, shards: u16) -> u16 {
        let reading = self.reading();
        shard_of(reading.stream(), reading.device, shards)
    }
}

type Reply = oneshot::Receiver<Result<Vec<Stretch>, AppendError>>;

/// An open log without threads. The test does the work of both.
struct Stepped {
    parts: Parts,
    shards: u16,
}

impl Stepped {
    fn open(storage: Arc<dyn Storage>, options: LogOptions) -> Result<Self, OpenError> {
        Stepped::open_sized(storage, options, SEGMENT_BYTES)
    }

    fn open_sized(
        storage: Arc<dyn Storage>,
        options: LogOptions,
        segment_bytes: u64,
    ) -> Result<Self, OpenError> {
        let shards = options.shards;
        Parts::assemble(storage, options, segment_bytes).map(|parts| Stepped { parts, shards })
    }

    fn source(&self) -> LogSource {
        LogSource {
            catalog: Arc::clone(&self.parts.catalog),
            progress: Arc::clone(&self.parts.progress),
            retired: Arc::clone(&self.parts.retired),
        }
    }

    /// Sends a request to the log as admission does. `None` means that there is not enough space.
    fn submit(&self, serials: &[u64], buffered: bool) -> Option<Reply> {
        let mut records = RequestRecords::new(self.shards);
        for serial in serials {
            records.push(&Made::new(*serial).reading());
        }
        let reservation = self.parts.budget.try_reserve(records.log_bytes_max())?;
        let (sender, reply) = oneshot::channel();
        let append = Append {
            chunks: records.into_chunks(),
            reservation,
            memory: Reservation::nothing(&Arc::default()),
            wants_places: false,
            reply: (!buffered).then_some(sender),
        };
        self.parts
            .sender
            .try_send(Message::Append(append))
            .ok()
            .map(|()| reply)
    }

    /// Sends a request and writes it. Returns whether it was acknowledged.
    fn append(&mut self, serials: &[u64]) -> bool {
        let Some(mut reply) = self.submit(serials, false) else {
            return false;
        };
        let written = self.parts.appender.write_what_waits();
        let acknowledged = matches!(reply.try_recv(), Ok(Ok(_)));
        assert_eq!(acknowledged, written.is_ok());
        acknowledged
    }

    /// Appends groups of eight readings until the current run has this many segments.
    fn append_until(&mut self, serial: &mut u64, segments: usize) {
        while self.source().runs().last().unwrap().segments.len() < segments {
            let serials: Vec<u64> = (*serial + 1..=*serial + 8).collect();
            assert!(self.append(&serials));
            self.keep_house();
            *serial += 8;
        }
    }

    fn close(mut self) {
        self.parts.appender.end_run().unwrap();
    }

    /// All readings in the log, run by run and shard by shard.
    fn serials(&self) -> Vec<u64> {
        let source = self.source();
        let mut all = Vec::new();
        for run in source.runs() {
            for shard in 0..run.shards {
                let (frames, _) = read_shard(&source, &run, shard, run.first_position()).unwrap();
                all.extend(frames.into_iter().flat_map(|f| f.serials));
            }
        }
        all.sort_unstable();
        all
    }

    /// Reports a shard of a run as stored up to a position.
    fn store(&self, run: u64, shard: u16, position: Position, stored: StreamCounts) {
        let now = Stored {
            position,
            live_position: position,
            tally: Tally {
                stored,
                ..Tally::default()
            },
            gap: StreamCounts::ZERO,
        };
        self.parts.progress.stored(RunShard { run, shard }, now);
    }

    /// Reports everything that can be read as stored.
    fn store_everything(&self) {
        let source = self.source();
        for run in source.runs() {
            for shard in 0..run.shards {
                let (frames, _) = read_shard(&source, &run, shard, run.first_position()).unwrap();
                let end = run.end.or(frames.last().map(|f| f.end));
                let counts = frames
                    .last()
                    .map_or(run.appended[usize::from(shard)], |f| f.after);
                self.store(run.sequence, shard, end.unwrap_or(Position::START), counts);
            }
        }
    }

    fn keep_house(&self) {
        self.parts.housekeeper.work().unwrap();
    }
}

/// A frame as seen by one shard.
struct ReadFrame {
    end: Position,
    /// Readings of this run and shard before the frame.
    before: u64,
    /// Readings up to the frame's end, by stream.
    after: StreamCounts,
    serials: Vec<u64>,
}

/// Reads a shard to its end and checks each reading against its serial number.
///
/// Shape:  the frames, and whether the run ends after them
fn read_shard(
    source: &LogSource,
    run: &Run,
    shard: u16,
    from: Position,
) -> Result<(Vec<ReadFrame>, bool), ReadError> {
    let mut reader = source.reader(run, shard, from);
    let mut frames = Vec::new();
    loop {
        let item = match reader.next_frame()? {
            Next::Frame(item) => item,
            Next::CaughtUp => return Ok((frames, false)),
            Next::Ended => return Ok((frames, true)),
        };
        let mut records = item.section.records;
        let mut serials = Vec::new();
        let mut after = item.section.before;
        while !records.is_empty() {
            let reading = record::decode(&mut records).unwrap();
            let serial = reading.at.as_micros() - Timestamp::Y2000.as_micros();
            let made = Made::new(serial as u64);
            assert_eq!(reading, made.reading(), "a reading has changed in the log");
            let own = shard_of(reading.stream(), reading.device, run.shards);
            assert_eq!(own, shard, "a reading of another shard");
            after[reading.stream()] += 1;
            serials.push(made.serial);
        }
        assert_eq!(after, item.section.after());
        frames.push(ReadFrame {
            end: item.end,
            before: item.section.before.sum(),
            after,
            serials,
        });
    }
}

/// A disk with a closed log of some readings, written as these groups.
fn disk_with_groups(groups: &[&[u64]], shards: u16) -> Disk {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(shards)).unwrap();
    for group in groups {
        assert!(log.append(group));
    }
    disk.die(disk::Death::Kill);
    disk
}

/// The name of the newest segment on a disk.
fn last_segment(disk: &Disk) -> String {
    let segments = disk.names().into_iter().filter(|n| n.ends_with(".wal"));
    segments.max().unwrap()
}
