//! `GET /v1/history/{meter,vehicle}/{id}`: the readings of one device, as they were ingested.

use hyper::StatusCode;
use serde::Serialize;

use super::performance::window_of;
use super::reading_view::ReadingView;
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::Reply;
use crate::ingest::decode::timestamp;
use crate::reading::{Stream, Timestamp};
use crate::store::history::{self, Wanted};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    items: Vec<ReadingView<'a>>,
    next: Option<String>,
    time_window_start: String,
    time_window_end: String,
}

/// Responds with a device's readings in a window, oldest first, in pages; 404 for an unknown device.
///
/// The cursor is the time of the page's last reading. No other reading of the device has that time.
pub(crate) async fn page(call: Call<'_>, stream: Stream) -> Result<Reply, Problem> {
    let (reads, query) = (call.reads(), &call.query);
    let device = query::path_id(call.id)?;
    let window = window_of(query, Timestamp::now())?;
    let wanted = Wanted {
        stream,
        device,
        after: after(query)?.map_or(window.start(), |after| after.max(window.start())),
        to: window.end(),
        limit: query.limit()?,
    };
    let found = reads
        .ask(async |client| history::page(client, wanted).await)
        .await?;
    let Some(found) = found else {
        let detail = format!("no reading of this {stream} is stored");
        return Err(Problem::new(Kind::NotFound, detail));
    };
    let view = |reading| ReadingView {
        device: device.as_str(),
        reading,
    };
    let page = Page {
        items: found.items.iter().map(view).collect(),
        next: found.last_before_more().map(|last| last.at.to_string()),
        time_window_start: window.start().to_string(),
        time_window_end: window.end().to_string(),
    };
    json::reply(StatusCode::OK, &page)
}

/// The time after which the page begins.
fn after(query: &Query<'_>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = query.get("after") else {
        return Ok(None);
    };
    let at = timestamp::parse(text).filter(|at| at.is_writable());
    at.map(Some)
        .ok_or_else(|| query::bad("after is not a cursor that this endpoint returned"))
}
