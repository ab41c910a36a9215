//! Live status: the newest reading of each device, gathered between two upserts.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio_postgres::{Client, Error, Statement};

use super::newest_seen::NewestSeen;
use super::rows::{Columns, HistoryRow, MeterRow, VehicleRow, as_params};
use crate::reading::PerStream;

/// The most devices that may wait before an upsert is due. Why 100,000: an upsert holds some 150 bytes per device
/// for its columns and its message. Only the batch that makes it due can add more devices.
pub(super) const DEVICES_PER_STATEMENT: usize = 100_000;

/// The newest reading of each device, for one stream.
pub type Held<R> = HashMap<i32, R, RandomState>;

/// The newest reading of each device since the last upsert.
#[derive(Debug, Default)]
pub struct Newest {
    meters: Held<MeterRow>,
    vehicles: Held<VehicleRow>,
}

/// A row of history that becomes live status.
pub trait LiveRow: HistoryRow {
    /// The readings of this row's stream.
    fn held(newest: &Newest) -> &Held<Self>;
    /// The same, mutable.
    fn held_mut(newest: &mut Newest) -> &mut Held<Self>;
    /// The columns of the upsert.
    fn live_columns(rows: &[&Self]) -> Columns;
}

impl Newest {
    /// Adds rows, except those that are no newer than live status already is.
    ///
    /// Order:  each device's rows next to each other, unless they lie in several partitions; no two with the same
    ///         time
    pub fn fold<R: LiveRow>(&mut self, rows: &[R], seen: &NewestSeen) {
        let held = R::held_mut(self);
        for of_device in rows.chunk_by(|a, b| a.key().0 == b.key().0) {
            let Some(row) = of_device.iter().max_by_key(|row| row.key().1) else {
                continue;
            };
            let (device, at) = row.key();
            if seen.is_live(device, at) {
                continue;
            }
            let newest = held.entry(device).or_insert(*row);
            if at > newest.key().1 {
                *newest = *row;
            }
        }
    }

    /// How many devices it holds.
    pub fn devices(&self) -> usize {
        self.meters.len() + self.vehicles.len()
    }

    /// How many devices it would hold after adding these rows. A device whose rows are not next to each other may
    /// count more than once.
    pub fn devices_with(&self, meters: &[MeterRow], vehicles: &[VehicleRow]) -> usize {
        self.devices() + self.added(meters) + self.added(vehicles)
    }

    /// How many devices of these rows are new to it. Neighbouring rows of one device count once.
    fn added<R: LiveRow>(&self, rows: &[R]) -> usize {
        let held = R::held(self);
        let devices = rows.chunk_by(|a, b| a.key().0 == b.key().0);
        let devices = devices.filter_map(|of_device| of_device.first());
        devices
            .filter(|row| !held.contains_key(&row.key().0))
            .count()
    }

    /// Forgets everything, after an upsert was committed or the session was lost.
    pub fn clear(&mut self) {
        self.meters.clear();
        self.vehicles.clear();
    }

    /// Upserts it, together with a batch's newest readings, sorted by device. Older readings replace nothing.
    ///
    /// # Errors
    /// PostgreSQL's own errors.
    pub async fn upsert_with(
        &self,
        batch: &Newest,
        client: &Client,
        statements: PerStream<&Statement>,
    ) -> Result<(), Error> {
        upsert(
            &self.newest_with::<MeterRow>(batch),
            client,
            statements.meter,
        )
        .await?;
        upsert(
            &self.newest_with::<VehicleRow>(batch),
            client,
            statements.vehicle,
        )
        .await
    }

    /// The newer reading of each device from both sets, sorted by device.
    fn newest_with<'a, R: LiveRow>(&'a self, batch: &'a Newest) -> Vec<&'a R> {
        let (held, added) = (R::held(self), R::held(batch));
        let time = |held: &Held<R>, row: &R| held.get(&row.key().0).map(|other| other.key().1);
        let of_held = held
            .values()
            .filter(|row| time(added, row).is_none_or(|at| at <= row.key().1));
        let of_added = added
            .values()
            .filter(|row| time(held, row).is_none_or(|at| at < row.key().1));
        let mut rows: Vec<&R> = of_held.chain(of_added).collect();
        rows.sort_unstable_by_key(|row| row.key().0);
        rows
    }
}

async fn upsert<R: LiveRow>(
    rows: &[&R],
    client: &Client,
    statement: &Statement,
) -> Result<(), Error> {
    for some in rows.chunks(DEVICES_PER_STATEMENT) {
        let columns = R::live_columns(some);
        client.execute(statement, &as_params(&columns)).await?;
    }
    Ok(())
}

impl LiveRow for MeterRow {
    fn held(newest: &Newest) -> &Held<Self> {
        &newest.meters
    }

    fn held_mut(newest: &mut Newest) -> &mut Held<Self> {
        &mut newest.meters
    }

    fn live_columns(rows: &[&Self]) -> Columns {
        vec![
            Box::new(rows.iter().map(|r| r.id).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.at).collect::<Vec<_>>()),
            Box::new(
                rows.iter()
                    .map(|r| r.origin.received_at)
                    .collect::<Vec<_>>(),
            ),
            Box::new(rows.iter().map(|r| r.energy.interval()).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.energy.total()).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.voltage).collect::<Vec<_>>()),
        ]
    }
}

impl LiveRow for VehicleRow {
    fn held(newest: &Newest) -> &Held<Self> {
        &newest.vehicles
    }

    fn held_mut(newest: &mut Newest) -> &mut Held<Self> {
        &mut newest.vehicles
    }

    fn live_columns(rows: &[&Self]) -> Columns {
        vec![
            Box::new(rows.iter().map(|r| r.id).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.at).collect::<Vec<_>>()),
            Box::new(
                rows.iter()
                    .map(|r| r.origin.received_at)
                    .collect::<Vec<_>>(),
            ),
            Box::new(rows.iter().map(|r| r.energy.interval()).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.energy.total()).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.soc).collect::<Vec<_>>()),
            Box::new(rows.iter().map(|r| r.battery_temp).collect::<Vec<_>>()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Timestamp;

    fn meter(id: i32) -> MeterRow {
        MeterRow::for_test(id, Timestamp::Y2000, 1.0)
    }

    #[test]
    fn of_two_readings_of_a_device_the_newer_one_is_written() {
        let at = |id, micros| MeterRow::for_test(id, Timestamp::from_micros(micros), 1.0);
        let (mut held, mut batch) = (Newest::default(), Newest::default());
        let seen = NewestSeen::default();
        held.fold(&[at(1, 10), at(2, 10), at(3, 10), at(4, 10)], &seen);
        batch.fold(&[at(2, 9), at(3, 11), at(4, 10), at(5, 1)], &seen);
        let both = held.newest_with::<MeterRow>(&batch);
        let both: Vec<MeterRow> = both.into_iter().copied().collect();
        assert_eq!(both, [at(1, 10), at(2, 10), at(3, 11), at(4, 10), at(5, 1)]);
    }

    #[test]
    fn a_device_that_reports_again_is_not_counted_again() {
        let mut newest = Newest::default();
        newest.fold(&[1, 2].map(meter), &NewestSeen::default());
        assert_eq!(newest.devices(), 2);
        assert_eq!(newest.devices_with(&[1, 1, 2, 3, 3].map(meter), &[]), 3);
        assert_eq!(newest.devices_with(&[], &[]), 2);
    }
}
