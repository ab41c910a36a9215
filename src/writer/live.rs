//! Live status: the newest reading of each device, gathered between two upserts.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio_postgres::{Client, Error, Statement};

use super::rows::{Columns, MeterRow, VehicleRow, as_params};
use crate::reading::PerStream;

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

    /// Forgets everything, after an upsert was committed or the session lost.
    pub fn clear(&mut self) {
        self.meters.clear();
        self.vehicles.clear();
    }

    /// Writes it into the live tables, sorted by device; older readings replace nothing.
    ///
    /// # Errors
    /// As PostgreSQL gives them.
    pub async fn upsert(
        &self,
        client: &Client,
        statements: PerStream<&Statement>,
    ) -> Result<(), Error> {
        if !self.meters.is_empty() {
            let mut rows: Vec<&MeterRow> = self.meters.values().collect();
            rows.sort_unstable_by_key(|row| row.id);
            client
                .execute(statements.meter, &as_params(&meter_columns(&rows)))
                .await?;
        }
        if !self.vehicles.is_empty() {
            let mut rows: Vec<&VehicleRow> = self.vehicles.values().collect();
            rows.sort_unstable_by_key(|row| row.id);
            client
                .execute(statements.vehicle, &as_params(&vehicle_columns(&rows)))
                .await?;
        }
        Ok(())
    }
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
