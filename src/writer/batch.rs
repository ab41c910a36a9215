//! A micro-batch: readings of one shard as sorted rows, without exact repeats.

use std::collections::HashMap;
use std::mem;

use super::order;
use super::rows::{HistoryRow, MeterRow, Origin, RowEnergy, VehicleRow};
use crate::postgres::partitions::Partitions;
use crate::postgres::registry::{IdCache, Registry};
use crate::reading::{Details, EnergyKind, Place, Reading, StreamCounts};
use crate::wal::frame::Position;
use crate::wal::reader::{Item, Next, ReadError, Reader};
use crate::wal::record;

/// Rows of one shard, between two positions in the log.
#[derive(Debug)]
pub struct Batch {
    /// The position of its start.
    pub from: Position,
    /// The position of its end, which is the checkpoint after it.
    pub to: Position,
    /// How many readings it covers, including dropped repeats.
    pub readings: StreamCounts,
    /// Meter rows.
    pub meters: Vec<MeterRow>,
    /// Vehicle rows.
    pub vehicles: Vec<VehicleRow>,
    /// The earliest time at which one of its readings was received.
    pub oldest_received: Option<crate::reading::Timestamp>,
    unknown: [Unknown; 3],
    /// Whether the run has ended at `to`.
    pub run_ended: bool,
}

/// The allocations of a batch's rows, reused by the next batch. Why: large allocations that are made and freed for
/// each batch stay resident in the heaps of several threads. Each allocation is shrunk to the rows that it held.
/// Otherwise the two would grow to the most meters and the most vehicles of any batch.
#[derive(Debug, Default)]
pub(super) struct Spare {
    meters: Vec<MeterRow>,
    vehicles: Vec<VehicleRow>,
}

impl Spare {
    /// Takes over the allocations of rows that are stored.
    pub(super) fn of(mut meters: Vec<MeterRow>, mut vehicles: Vec<VehicleRow>) -> Self {
        let taken = (meters.len(), vehicles.len());
        meters.clear();
        vehicles.clear();
        meters.shrink_to(taken.0);
        vehicles.shrink_to(taken.1);
        Spare { meters, vehicles }
    }
}

/// Texts whose ids are not cached, in order of first sight.
#[derive(Debug, Default)]
struct Unknown {
    texts: Vec<String>,
    places: HashMap<String, usize>,
}

impl Unknown {
    /// A placeholder for the id: negative, so that no registry assigns it.
    fn stand_in(&mut self, text: &str) -> i32 {
        let next = self.texts.len();
        let place = match self.places.get(text) {
            Some(place) => *place,
            None => {
                self.texts.push(text.to_owned());
                self.places.insert(text.to_owned(), next);
                next
            }
        };
        -(place as i32) - 1
    }
}

impl Batch {
    /// Makes an empty batch that begins at `from` and reuses an earlier batch's allocations.
    pub(super) fn new(from: Position, spare: Spare) -> Self {
        Batch {
            from,
            to: from,
            readings: StreamCounts::ZERO,
            meters: spare.meters,
            vehicles: spare.vehicles,
            oldest_received: None,
            unknown: Default::default(),
            run_ended: false,
        }
    }

    /// Adds frames until the batch is full, the log has no more, or `until` is reached.
    ///
    /// Shape:  whole frames, so it may exceed `rows_max` by one frame
    /// Blocks: on the disk if the log is not in the page cache; do not call it on an async worker
    ///
    /// # Errors
    /// [`ReadError`]: drop the batch and read again from its start.
    pub fn fill(
        &mut self,
        reader: &mut Reader,
        ids: &IdCache,
        rows_max: usize,
        until: Option<Position>,
    ) -> Result<(), ReadError> {
        while self.rows() < rows_max && until.is_none_or(|until| self.to < until) {
            match reader.next_frame()? {
                Next::Frame(item) => self.add(&item, ids)?,
                Next::CaughtUp => break,
                Next::Ended => {
                    self.run_ended = true;
                    break;
                }
            }
        }
        // An end frame between two segments moves the cursor without returning an item.
        self.to = self.to.max(reader.cursor());
        Ok(())
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.meters.len() + self.vehicles.len()
    }

    fn add(&mut self, item: &Item<'_>, ids: &IdCache) -> Result<(), ReadError> {
        let mut records = item.section.records;
        let mut index = 0;
        while !records.is_empty() {
            let reading = record::decode(&mut records).map_err(|_| ReadError::Damaged {
                segment: format!("segment {}", item.position.segment()),
                offset: item.position.offset(),
            })?;
            let origin = Origin {
                position: item.position,
                index,
                received_at: item.received_at,
            };
            self.add_reading(&reading, origin, ids);
            index += 1;
        }
        if index > 0 {
            self.oldest_received.get_or_insert(item.received_at);
        }
        self.to = item.end;
        Ok(())
    }

    fn add_reading(&mut self, reading: &Reading<'_>, origin: Origin, ids: &IdCache) {
        self.readings[reading.stream()] += 1;
        let energy = RowEnergy {
            kwh: reading.energy.kwh,
            register: reading.energy.kind == EnergyKind::Register,
        };
        let unknown = &mut self.unknown;
        let mut id_of = |registry: Registry, text: &str| {
            ids.get(registry, text)
                .unwrap_or_else(|| unknown[registry.index()].stand_in(text))
        };
        match reading.details {
            Details::Meter { voltage } => {
                let id = id_of(Registry::Meters, reading.device.as_str());
                self.meters.push(MeterRow {
                    id,
                    at: reading.at,
                    energy,
                    voltage,
                    origin,
                });
            }
            Details::Vehicle {
                soc,
                battery_temp,
                place,
            } => {
                let id = id_of(Registry::Vehicles, reading.device.as_str());
                let (named_meter, named_session) = match place {
                    None => (0, 0),
                    Some(Place::Meter(meter)) => (id_of(Registry::Meters, meter.as_str()), 0),
                    Some(Place::Session(name)) => (0, id_of(Registry::Sessions, name.as_str())),
                };
                self.vehicles.push(VehicleRow {
                    id,
                    at: reading.at,
                    energy,
                    soc,
                    battery_temp,
                    named_meter,
                    named_session,
                    origin,
                });
            }
        }
    }

    /// Removes and returns the texts whose ids are not known.
    pub fn take_unknown(&mut self, registry: Registry) -> Vec<String> {
        mem::take(&mut self.unknown[registry.index()]).texts
    }

    /// Replaces one registry's placeholders with ids, given in the order of [`Batch::take_unknown`].
    pub fn put_ids(&mut self, registry: Registry, ids: &[i32]) {
        let settle = |id: &mut i32| {
            if *id < 0
                && let Some(known) = ids.get((-(*id + 1)) as usize)
            {
                *id = *known;
            }
        };
        match registry {
            Registry::Meters => {
                self.meters.iter_mut().for_each(|row| settle(&mut row.id));
                self.vehicles
                    .iter_mut()
                    .for_each(|row| settle(&mut row.named_meter));
            }
            Registry::Vehicles => self.vehicles.iter_mut().for_each(|row| settle(&mut row.id)),
            Registry::Sessions => {
                self.vehicles
                    .iter_mut()
                    .for_each(|row| settle(&mut row.named_session));
            }
        }
    }
}

/// Rows that are ready to be stored, and those that were left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Arranged<R> {
    /// Sorted by (partition, device, time), one per key.
    pub rows: Vec<R>,
    /// How many were left out because they repeat an earlier row.
    pub duplicates: u64,
    /// Rows that contradict an earlier row.
    pub conflicts: Vec<R>,
}

impl<R: HistoryRow> Arranged<R> {
    /// The most devices that the rows can belong to: a device with rows in two partitions counts twice.
    pub fn devices(&self) -> usize {
        self.rows.chunk_by(|a, b| a.key().0 == b.key().0).count()
    }
}

/// Sorts rows by (partition, device, time) and leaves out repeats. Of several rows with one key, the first in the
/// log stays.
///
/// All gateways use this order. Two that store the same readings then wait for each other instead of deadlocking.
/// Neighbouring keys are also the fastest to insert into an index.
///
/// Order:  sorted by (partition, device, time); rows without a known partition last
pub fn arrange<R: HistoryRow>(mut rows: Vec<R>, partitions: &Partitions) -> Arranged<R> {
    // A batch is read in the log's order, but rows from the quarantine are not.
    if !rows.is_sorted_by_key(HistoryRow::origin) {
        rows.sort_by_key(HistoryRow::origin);
    }
    let at = |place: u32| rows[place as usize].key().1;
    let partition = |place: u32| partitions.find(at(place));
    let sorted = order::sort(rows.iter().map(|row| row.key().0), partition, at);
    order::place(&mut rows, sorted);
    let (mut duplicates, mut conflicts) = (0, Vec::new());
    rows.dedup_by(|row, first| {
        if first.key() != row.key() {
            return false;
        }
        if first.same_values(row) {
            duplicates += 1;
        } else {
            conflicts.push(*row);
        }
        true
    });
    Arranged {
        rows,
        duplicates,
        conflicts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Timestamp;
    use proptest::prelude::*;

    fn row(id: i32, at: i64, kwh: f64, index: u32) -> MeterRow {
        MeterRow {
            id,
            at: Timestamp::from_micros(at),
            energy: RowEnergy {
                kwh,
                register: false,
            },
            voltage: 230.0,
            origin: Origin {
                position: Position::START,
                index,
                received_at: Timestamp::from_micros(0),
            },
        }
    }

    #[test]
    fn the_first_of_two_contradicting_readings_stays() {
        let rows = vec![row(1, 5, 2.0, 1), row(1, 5, 1.0, 0), row(1, 5, 1.0, 2)];
        let arranged = arrange(rows, &Partitions::default());
        assert_eq!(arranged.rows, [row(1, 5, 1.0, 0)]);
        assert_eq!(arranged.duplicates, 1);
        assert_eq!(arranged.conflicts, [row(1, 5, 2.0, 1)]);
    }

    #[test]
    fn spare_memory_is_that_of_one_batch_whatever_came_before() {
        let meter = row(1, 0, 1.0, 0);
        let vehicle = VehicleRow {
            id: 1,
            at: meter.at,
            energy: meter.energy,
            soc: 50.0,
            battery_temp: 25.0,
            named_meter: 0,
            named_session: 0,
            origin: meter.origin,
        };
        let Spare { meters, vehicles } = Spare::of(vec![meter; 1_000], Vec::new());
        assert_eq!((meters.capacity(), vehicles.capacity()), (1_000, 0));
        // A batch of vehicles follows one of meters.
        let Spare { meters, vehicles } = Spare::of(meters, vec![vehicle; 900]);
        assert_eq!((meters.capacity(), vehicles.capacity()), (0, 900));
    }

    proptest! {
        #[test]
        fn every_row_is_kept_dropped_as_a_repeat_or_set_aside(
            input in proptest::collection::vec((0..4i32, 0..4i64, 0..3u8), 0..60)
        ) {
            let rows: Vec<MeterRow> = (0..)
                .zip(&input)
                .map(|(n, (id, at, kwh))| row(*id, *at, f64::from(*kwh), n))
                .collect();
            let arranged = arrange(rows.clone(), &Partitions::default());
            let sum = arranged.rows.len() + arranged.conflicts.len();
            prop_assert_eq!(sum as u64 + arranged.duplicates, rows.len() as u64);
            prop_assert!(arranged.rows.windows(2).all(|w| w[0].key() < w[1].key()));
            for kept in &arranged.rows {
                let first = rows.iter().find(|r| r.key() == kept.key()).unwrap();
                prop_assert_eq!(kept, first);
            }
            for conflict in &arranged.conflicts {
                let kept = arranged.rows.iter().find(|r| r.key() == conflict.key()).unwrap();
                prop_assert!(!kept.same_values(conflict));
            }
        }
    }
}
