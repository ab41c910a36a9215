//! Slices as the database has them. It alone knows where they go on, so that the next step, a roller that begins anew,
//! and another gateway go on from there.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Transaction};

use super::readings::Place;
use super::slice::Slice;
use crate::reading::{PerStream, Timestamp};

/// Which hours a slice has. The database keeps one slice of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those that have passed since the last step.
    New,
    /// Those before the rolled-up ones.
    Older,
}

impl Kind {
    const fn is_new(self) -> bool {
        matches!(self, Kind::New)
    }
}

/// Reads the slice that is under way.
pub(super) async fn load(client: &Client, kind: Kind) -> Result<Option<Slice>, Error> {
    let text = sql!("hours_slice");
    let row = client.query_opt(text, &[&kind.is_new()]).await?;
    row.map(|row| slice(&row)).transpose()
}

fn slice(row: &Row) -> Result<Slice, Error> {
    let place = |at: usize| {
        let both: (Option<i32>, Option<Timestamp>) = (row.try_get(at)?, row.try_get(at + 1)?);
        let place = both.0.zip(both.1);
        Ok::<_, Error>(place.map(|(device, from)| Place { device, from }))
    };
    Ok(Slice {
        hours: row.try_get(0)?..row.try_get(1)?,
        next: PerStream {
            meter: place(2)?,
            vehicle: place(4)?,
        },
    })
}

/// Records where a slice goes on.
pub(super) async fn put(work: &Transaction<'_>, kind: Kind, slice: &Slice) -> Result<(), Error> {
    let devices = slice.next.map(|place| place.map(|place| place.device));
    let hours = slice.next.map(|place| place.map(|place| place.from));
    let parameters: [&(dyn ToSql + Sync); 7] = [
        &kind.is_new(),
        &slice.hours.start,
        &slice.hours.end,
        &devices.meter,
        &hours.meter,
        &devices.vehicle,
        &hours.vehicle,
    ];
    work.execute(sql!("hours_slice_put"), &parameters).await?;
    Ok(())
}

/// Forgets the slice: it is done.
pub(super) async fn end(work: &Transaction<'_>, kind: Kind) -> Result<(), Error> {
    let end = sql!("hours_slice_end");
    work.execute(end, &[&kind.is_new()]).await?;
    Ok(())
}
