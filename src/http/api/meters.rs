//! `PUT /v1/meters/{meterId}`: whether several vehicles may be at a meter at once.

use deadpool_postgres::Pool;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::sessions::store;
use crate::http::request::query;
use crate::http::response::database;
use crate::http::response::database::WORK_TIMEOUT;
use crate::http::response::problem::Problem;
use crate::http::response::reply;
use crate::http::response::reply::Reply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody {
    shared: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    meter_id: &'a str,
    shared: bool,
}

/// Declares a meter shared, or not shared; taken back only while no sessions overlap there.
pub(crate) async fn put(pool: &Pool, id: &str, body: &[u8]) -> Result<Reply, Problem> {
    let id = query::new_path_id(id)?;
    let PutBody { shared } = reply::parse(body)?;
    let mut client = database::client(pool).await?;
    let done = timeout(WORK_TIMEOUT, store::share(&mut client, id, shared)).await;
    database::finish(client, done)?;
    reply::json(
        StatusCode::OK,
        &View {
            meter_id: id.as_str(),
            shared,
        },
    )
}
