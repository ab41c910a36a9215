//! The integer ids that every table uses in place of text ids.

use deadpool_postgres::Client;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::postgres::registry::Registry;
use crate::postgres::sequences;

const fn find_sql(registry: Registry) -> &'static str {
    match registry {
        Registry::Vehicles => sql!("vehicle_find"),
        Registry::Meters => sql!("meter_find"),
        Registry::Sessions => sql!("session_name_find"),
    }
}

const fn register_sql(registry: Registry) -> &'static str {
    match registry {
        Registry::Vehicles => sql!("vehicle_register"),
        Registry::Meters => sql!("meter_register"),
        Registry::Sessions => sql!("session_name_register"),
    }
}

/// The integer id of a text id, if it is registered.
pub(super) async fn known(
    client: &Client,
    registry: Registry,
    id: &str,
) -> Result<Option<i32>, Error> {
    let find = client.prepare_cached(find_sql(registry)).await?;
    client
        .query_opt(&find, &[&id])
        .await?
        .map(|row| row.try_get(0))
        .transpose()
}

/// The integer id of a text id, which is registered if necessary. Each statement is its own transaction, so that
/// no lock is held during a wait for another.
pub(super) async fn registered(
    client: &Client,
    registry: Registry,
    id: &str,
) -> Result<i32, Error> {
    let register = client.prepare_cached(register_sql(registry)).await?;
    // Ids are never removed. If the insert found another session's row, the next lookup returns it.
    let mut is_repaired = false;
    loop {
        if let Some(found) = known(client, registry, id).await? {
            return Ok(found);
        }
        match client.query_opt(&register, &[&id]).await {
            Ok(Some(row)) => return row.try_get(0),
            Ok(None) => {}
            // The sequence has produced an id that is already taken.
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) && !is_repaired => {
                sequences::repair(client).await?;
                is_repaired = true;
            }
            Err(error) => return Err(error),
        }
    }
}
