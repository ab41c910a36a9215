//! `POST /v1/sessions`: registers a session, or a list of them.

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::session_body::SessionBody;
use super::session_bulk;
use super::session_bulk::LIST_BYTES_MAX;
use super::sessions::{View, redacted};
use crate::http::request::auth::{not_your_device, owns_session};
use crate::http::request::body::too_large;
use crate::http::request::call::{Call, DOCUMENT_BYTES_MAX};
use crate::http::request::negotiate;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::Reply;
use crate::ingest::decode::Format;
use crate::store::sessions::{self, Posted};

/// Registers a session, or the sessions of a list: 201, or 200 if all of them exist already.
pub(crate) async fn post(mut call: Call<'_>) -> Result<Reply, Problem> {
    let format = negotiate::readings_format(call.fields)?;
    let encoding = negotiate::encoding(call.fields)?;
    let bytes_max = LIST_BYTES_MAX.min(call.context.settings.body_bytes_max);
    let document = call.body(encoding, bytes_max).await?;
    let is_array = document.bytes.trim_ascii_start().first() == Some(&b'[');
    if format == Format::Ndjson || is_array {
        return session_bulk::post(&call, format, &document.bytes).await;
    }
    if document.bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(too_large(DOCUMENT_BYTES_MAX));
    }
    post_one(&call, &document.bytes).await
}

async fn post_one(call: &Call<'_>, text: &[u8]) -> Result<Reply, Problem> {
    let body = SessionBody::parse(text).map_err(|faults| match faults.into_iter().next() {
        Some(first) => Problem::from(first),
        None => Problem::new(Kind::InvalidContent, "the body is not a session"),
    })?;
    let (reads, prefix) = (call.context.reads.primary(), call.caller.prefix());
    if !owns_session(prefix, &body.vehicle, &body.meter) {
        return Err(not_your_device());
    }
    let wanted = body.wanted()?;
    let posted = reads.ask(async |client| sessions::post(client, &wanted).await);
    match posted.await.map_err(|refused| redacted(refused, prefix))? {
        Posted::Same(session) => json::reply(StatusCode::OK, &View::from(&session)),
        Posted::New(session) => {
            let mut reply = json::reply(StatusCode::CREATED, &View::from(&session))?;
            let id = utf8_percent_encode(&session.session, NON_ALPHANUMERIC);
            if let Ok(path) = HeaderValue::try_from(format!("/v1/sessions/{id}")) {
                reply.headers_mut().insert(LOCATION, path);
            }
            Ok(reply)
        }
    }
}
