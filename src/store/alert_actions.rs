//! What operators do about alerts: they acknowledge one, or mute a device for some time.
//!
//! Both are stored in the database, so every gateway shows them, and the gateway that delivers alerts obeys them.

use deadpool_postgres::Client;
use tokio_postgres::Error;

use super::alerts::{Action, Mute, StoredAlert, by_ids};
use super::ids::known;
use super::{Page, limit_of};
use crate::postgres::ReadError;
use crate::postgres::registry::Registry;
use crate::reading::{ExternalId, Stream, Timestamp};

/// The alerts that a mute covers: those of a device, of one kind or of all.
#[derive(Debug, Clone, Copy)]
pub struct MuteScope<'a> {
    /// The kind of device.
    pub stream: Stream,
    /// The device.
    pub device: ExternalId<'a>,
    /// The name of the kind of alert; `None` means every kind.
    pub kind: Option<&'a str>,
}

/// A mute with its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMute {
    /// Its number; later mutes have higher ones, but one that replaces an earlier mute keeps that one's.
    pub id: i64,
    /// The kind of its device.
    pub stream: Stream,
    /// Its device; `None` if it was erased.
    pub device: Option<String>,
    /// The mute.
    pub mute: Mute,
}

/// Finds one alert.
///
/// # Errors
/// [`ReadError`]
pub async fn find(
    client: &Client,
    id: i64,
    now: Timestamp,
) -> Result<Option<StoredAlert>, ReadError> {
    Ok(by_ids(client, &[id], now).await?.pop())
}

/// Acknowledges an open alert. An alert that is already acknowledged or closed does not change. Returns the alert;
/// `None` means that no alert has this id.
///
/// Blocks: until COMMIT
/// Cancel: acknowledged or not; the same request again returns which
///
/// # Errors
/// [`ReadError`]
pub async fn acknowledge(
    client: &Client,
    id: i64,
    action: &Action,
) -> Result<Option<StoredAlert>, ReadError> {
    let update = client.prepare_cached(sql!("alert_acknowledge")).await?;
    let Action {
        at,
        key,
        name,
        note,
    } = action;
    client.execute(&update, &[&id, at, key, name, note]).await?;
    find(client, id, *at).await
}

/// Withdraws an acknowledgement. Returns whether there was one.
///
/// # Errors
/// [`ReadError`]
pub async fn unacknowledge(client: &Client, id: i64) -> Result<bool, ReadError> {
    let update = client.prepare_cached(sql!("alert_unacknowledge")).await?;
    Ok(client.execute(&update, &[&id]).await? > 0)
}

/// Mutes alerts, in place of an earlier mute of the same. Returns whether the device is known.
///
/// Blocks: until COMMIT
/// Cancel: muted or not; repeating it is safe
///
/// # Errors
/// [`ReadError`]
pub async fn mute(
    client: &Client,
    scope: MuteScope<'_>,
    until: Timestamp,
    action: &Action,
) -> Result<bool, ReadError> {
    let Some(device) = device_of(client, scope).await? else {
        return Ok(false);
    };
    let put = client.prepare_cached(sql!("alert_mute_put")).await?;
    let stream = scope.stream.name();
    let Action {
        at,
        key,
        name,
        note,
    } = action;
    client
        .execute(
            &put,
            &[&stream, &device, &scope.kind, &until, at, key, name, note],
        )
        .await?;
    Ok(true)
}

/// Ends a mute. Returns whether one was in force.
///
/// # Errors
/// [`ReadError`]
pub async fn unmute(
    client: &Client,
    scope: MuteScope<'_>,
    now: Timestamp,
) -> Result<bool, ReadError> {
    let Some(device) = device_of(client, scope).await? else {
        return Ok(false);
    };
    let delete = client.prepare_cached(sql!("alert_mute_delete")).await?;
    let stream = scope.stream.name();
    let ended = client
        .query_opt(&delete, &[&stream, &device, &scope.kind, &now])
        .await?;
    Ok(ended.is_some())
}

/// Lists the mutes in force, of all devices or of one.
///
/// Order:  the highest numbers first, below the number `before`
///
/// # Errors
/// [`ReadError`]
pub async fn mutes(
    client: &Client,
    device: Option<(Stream, ExternalId<'_>)>,
    (before, limit): (i64, usize),
    now: Timestamp,
) -> Result<Page<StoredMute>, ReadError> {
    let list = client.prepare_cached(sql!("alert_mutes")).await?;
    let of = device.map(|(stream, id)| (stream.name(), id.as_str()));
    let (stream, id) = of.unzip();
    let most = limit_of(limit);
    let rows = client
        .query(&list, &[&before, &now, &most, &stream, &id])
        .await?;
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(mute) = Mute::decode(row, 0)? else {
            continue;
        };
        items.push(StoredMute {
            id: row.try_get(6)?,
            stream: match row.try_get(7)? {
                "vehicle" => Stream::Vehicle,
                _ => Stream::Meter,
            },
            device: row.try_get(8)?,
            mute,
        });
    }
    Ok(Page::of(items, limit))
}

async fn device_of(client: &Client, scope: MuteScope<'_>) -> Result<Option<i32>, Error> {
    let registry = match scope.stream {
        Stream::Meter => Registry::Meters,
        Stream::Vehicle => Registry::Vehicles,
    };
    known(client, registry, scope.device.as_str()).await
}
