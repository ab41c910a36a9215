//! Lists of charging sessions, in pages.

use deadpool_postgres::Client;
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;

use super::ids::known;
use super::sessions::{Session, session};
use super::{Page, limit_of};
use crate::postgres::ReadError;
use crate::postgres::registry::Registry;
use crate::reading::{ExternalId, Timestamp};

/// Which sessions to list.
#[derive(Debug)]
pub struct Filter<'a> {
    /// Only sessions of this vehicle.
    pub vehicle: Option<ExternalId<'a>>,
    /// Only sessions at this meter.
    pub meter: Option<ExternalId<'a>>,
    /// Only open sessions, or only ended ones.
    pub active: Option<bool>,
    /// The sort order, and where the page begins.
    pub order: Order<'a>,
    /// The most sessions to return.
    pub limit: usize,
}

/// The sort order, and where the page begins.
#[derive(Debug, Clone, Copy)]
pub enum Order<'a> {
    /// By the bytes of their ids.
    Id {
        /// Only sessions after this id.
        after: Option<ExternalId<'a>>,
    },
    /// The latest start first. Sessions with the same start are in descending order of their ids.
    Newest {
        /// Only sessions that are open or ended after this time.
        from: Option<Timestamp>,
        /// Only sessions that started before this time, or at this time with a lower id. With an empty id, only
        /// those before it.
        before: (Timestamp, &'a str),
    },
}

/// Lists sessions.
///
/// Order:  that of the filter
///
/// # Errors
/// [`ReadError`]
pub async fn list(client: &Client, filter: &Filter<'_>) -> Result<Page<Session>, ReadError> {
    let mut devices = [None; 2];
    let wanted = [
        (filter.vehicle, Registry::Vehicles),
        (filter.meter, Registry::Meters),
    ];
    for (device, (id, registry)) in devices.iter_mut().zip(wanted) {
        let Some(id) = id else { continue };
        *device = known(client, registry, id.as_str()).await?;
        if device.is_none() {
            return Ok(Page::of(Vec::new(), filter.limit));
        }
    }
    let [vehicle_id, meter_id] = devices;
    let limit = limit_of(filter.limit);
    let active = filter.active;
    let rows = match filter.order {
        Order::Id { after } => {
            let after = after.map_or("", ExternalId::as_str);
            let list = client.prepare_cached(sql!("sessions")).await?;
            let wanted: [&(dyn ToSql + Sync); 5] =
                [&after, &vehicle_id, &meter_id, &active, &limit];
            client.query(&list, &wanted).await?
        }
        Order::Newest { from, before } if active == Some(true) => {
            let list = client.prepare_cached(sql!("sessions_open")).await?;
            let (at, id) = before;
            let wanted: [&(dyn ToSql + Sync); 6] =
                [&at, &id, &vehicle_id, &meter_id, &from, &limit];
            client.query(&list, &wanted).await?
        }
        Order::Newest { from, before } => {
            let list = client.prepare_cached(sql!("sessions_newest")).await?;
            let (at, id) = before;
            let wanted: [&(dyn ToSql + Sync); 7] =
                [&at, &id, &vehicle_id, &meter_id, &active, &from, &limit];
            client.query(&list, &wanted).await?
        }
    };
    let sessions: Result<Vec<_>, Error> = rows.iter().map(session).collect();
    Ok(Page::of(sessions?, filter.limit))
}
