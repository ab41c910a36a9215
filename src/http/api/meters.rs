//! `PUT /v1/meters/{meterId}`: whether several vehicles may charge at a meter at the same time.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::response::json;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::store::sessions;

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

/// Declares a meter shared or single-use. Single-use is refused if sessions overlap at the meter.
pub(crate) async fn put(mut call: Call<'_>) -> Result<Reply, Problem> {
    let document = call.document().await?;
    let id = query::new_path_id(call.id)?;
    let PutBody { shared } = json::parse(&document.bytes)?;
    let reads = call.context.reads.primary();
    reads
        .ask(async |client| sessions::share(client, id, shared.into()).await)
        .await?;
    json::reply(
        StatusCode::OK,
        &View {
            meter_id: id.as_str(),
            shared,
        },
    )
}
