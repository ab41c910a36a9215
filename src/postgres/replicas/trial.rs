//! One look at a replica, for `wattgate check`.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, Error};

use super::super::explain;
use super::super::hosts::{addresses, host_name};
use super::super::route::Route;
use super::standby::{Why, follows, state};

/// How long connecting may take, and how long the answers.
const TRIAL_WITHIN: Duration = Duration::from_secs(5);

/// The setting with which the primary keeps the rows that queries of the replica may need.
const FEEDBACK: &str = "select pg_catalog.current_setting('hot_standby_feedback') = 'on'";

/// What `wattgate check` has found of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedReplica {
    /// Its host and port.
    pub name: String,
    /// Whether it has `hot_standby_feedback`, or why the gateway would not ask it.
    pub feedback: Result<bool, String>,
}

/// Tries a replica on each address of its host, and returns the first fault.
pub(in crate::postgres) async fn try_replica(route: &Route, name: &str) -> TriedReplica {
    let Some(config) = route.standby() else {
        let feedback = Err("has no host".to_owned());
        let name = String::new();
        return TriedReplica { name, feedback };
    };
    let mut feedback = Ok(true);
    for mut address in addresses(&config).await {
        address.application_name(name);
        match try_address(route, &address).await {
            Ok(has_feedback) => feedback = feedback.map(|all| all && has_feedback),
            Err(why) => {
                feedback = Err(why);
                break;
            }
        }
    }
    TriedReplica {
        name: host_name(&config),
        feedback,
    }
}

async fn try_address(route: &Route, config: &tokio_postgres::Config) -> Result<bool, Why> {
    let silent = |_| "does not answer".to_owned();
    let unreachable = |error: &Error| format!("cannot be reached: {}", explain(error));
    let opened = timeout(TRIAL_WITHIN, route.connect(config)).await;
    let opened = opened.map_err(silent)?.map_err(|e| unreachable(&e))?;
    let found = timeout(TRIAL_WITHIN, state(&opened.client)).await;
    let found = found.map_err(silent)?.map_err(|e| unreachable(&e))??;
    follows(&found, route.servers().current())?;
    let feedback = timeout(TRIAL_WITHIN, feedback(&opened.client)).await;
    feedback.map_err(silent)?.map_err(|e| unreachable(&e))
}

async fn feedback(client: &Client) -> Result<bool, Error> {
    let rows = client.query_typed(FEEDBACK, &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}
