//! Live status: the newest reading of each device, gathered between two upserts.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio_postgres::{Client, Error, Statement};

use super::rows::{Columns, MeterRow, VehicleRow, as_params};
use crate::reading::PerStream;

/// The most devices of one upsert. Why: an upsert holds its columns and its message, some 150 bytes a device,
/// and more than these devices wait only if the batch that made them due has brought them.
pub(super) const DEVICES_PER_STATEMENT: usize = 100_000;

/// The newest reading of each device since the last upsert.
#[derive(Debug, Default)]
pub struct Newest {
    meters: HashMap<i32, MeterRow, RandomState>,
    vehicles: HashMap<i32, VehicleRow, RandomState>,
}

impl Newest {
    /// Adds rows; of two with the same time the first stays.
    pub fn fold(&mut self, meters: &[MeterRow], vehicles: &[VehicleRow]) {
        for row in meters {
            let newest = self.meters.entry(row.id).or_insert(*row);
            if row.at > newest.at {
                *newest = *row;
            }
        }
        for row in vehicles {
            let newest = self.vehicles.entry(row.id).or_insert(*row);
            if row.at > newest.at {
                *newest = *row;
            }
        }
    }

    /// How many devices it holds.
    pub fn devices(&self) -> usize {
        self.meters.len() + self.vehicles.len()
    }

    /// How many devices it would hold with these rows too; a device whose rows are not next to each other may
    /// count more than once.
    pub fn devices_with(&self, meters: &[MeterRow], vehicles: &[VehicleRow]) -> usize {
        self.devices()
            + added(&self.meters, meters.iter().map(|row| row.id))
            + added(&self.vehicles, vehicles.iter().map(|row| row.id))
    }

    /// Forgets everything, after an upsert was committed or the session lost.
    pub fn clear(&mut self) {
        self.meters.clear();
        self.vehicles.clear();
    }

    /// Writes it into the live tables, sorted by device; older readings replace nothing.
    ///
    /// # Errors
    /// PostgreSQL's own errors.
    pub async fn upsert(
        &self,
        client: &Client,
        statements: PerStream<&Statement>,
    ) -> Result<(), Error> {
        if !self.meters.is_empty() {
            let mut rows: Vec<&MeterRow> = self.meters.values().collect();
            rows.sort_unstable_by_key(|row| row.id);
            for some in rows.chunks(DEVICES_PER_STATEMENT) {
                let columns = meter_columns(some);
                client
                    .execute(statements.meter, &as_params(&columns))
                    .await?;
            }
        }
        if !self.vehicles.is_empty() {
            let mut rows: Vec<&VehicleRow> = self.vehicles.values().collect();
            rows.sort_unstable_by_key(|row| row.id);
            for some in rows.chunks(DEVICES_PER_STATEMENT) {
                let columns = vehicle_columns(some);
                client
                    .execute(statements.vehicle, &as_params(&columns))
                    .await?;
            }
        }
        Ok(())
    }
}

/// How many of these devices are not held; of equal neighbours, one counts.
fn added<R>(held: &HashMap<i32, R, RandomState>, ids: impl Iterator<Item = i32>) -> usize {
    let mut last = None;
    ids.filter(|id| last.replace(*id) != Some(*id) && !held.contains_key(id))
        .count()
}

fn meter_columns(rows: &[&MeterRow]) -> Columns {
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

fn vehicle_columns(rows: &[&VehicleRow]) -> Columns {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Timestamp;

    fn meter(id: i32) -> MeterRow {
        MeterRow::for_test(id, Timestamp::Y2000, 1.0)
    }

    #[test]
    fn a_device_that_reports_again_is_not_counted_again() {
        let mut newest = Newest::default();
        newest.fold(&[1, 2].map(meter), &[]);
        assert_eq!(newest.devices(), 2);
        assert_eq!(newest.devices_with(&[1, 1, 2, 3, 3].map(meter), &[]), 3);
        assert_eq!(newest.devices_with(&[], &[]), 2);
    }
}
