//! One request, from its head to its answer: what all routes have in common.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};
use tracing::Instrument;

use super::access_log::{NO_ROUTE, Story};
use super::auth::{Caller, Peer};
use super::body::{Limits, Received, Upload};
use super::decompress::unfold;
use super::query::Query;
use super::request_id::{RequestId, X_REQUEST_ID};
use super::router;
use super::router::{Ask, Endpoint, Lost, Route};
use super::{client_ip, cors, host, negotiate};
use crate::auth::key::KeyId;
use crate::http::api::events::Live;
use crate::http::api::{
    alerts, export, fleet, history, ingestion, live, meters, operations, performance, sessions,
};
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::http::response::revocable;
use crate::http::server::deferred::{Promise, Promises};
use crate::http::{Context, ui};
use crate::ingest::admission::Admitted;

/// What requests share: the context, and what the edge makes of it.
pub(crate) struct Shared {
    pub(crate) context: Arc<Context>,
    /// Live changes, for those who listen.
    pub(crate) live: Live,
}

/// Answers one request. Where the connection takes `promises`, the answer may be given before the
/// readings are durable: it must be held until its promise is kept.
///
/// Cancel: as the route's handler
pub(crate) async fn answer(
    shared: Arc<Shared>,
    peer: Peer,
    promises: Option<&Promises>,
    request: Request<Incoming>,
) -> Reply {
    let began = Instant::now();
    let (parts, incoming) = request.into_parts();
    let mut upload = Upload::new(incoming, &parts.headers);
    let mut notes = Notes {
        id: RequestId::of(&parts.headers),
        label: NO_ROUTE,
        key: None,
        may_promise: promises.is_some_and(Promises::have_room),
        promised: None,
    };
    let mut reply = match handle(&shared, peer, &parts, &mut upload, &mut notes).await {
        Ok(reply) => reply,
        Err(problem) => problem.into_reply(),
    };
    upload.discard();
    let headers = reply.headers_mut();
    headers.insert(X_REQUEST_ID, notes.id.header());
    cors::decorate(&shared.context.settings.cors_origins, &parts, headers);
    if parts.version == Version::HTTP_2 {
        // It is a stream that ends there, and the header is not allowed (RFC 9113 §8.2.2).
        headers.remove(CONNECTION);
    }
    let story = Story {
        id: notes.id,
        label: notes.label,
        method: method_label(&parts.method),
        status: reply.status().as_u16(),
        key: notes.key,
        client: client(&shared.context, peer, &parts),
        began,
    };
    match (notes.promised, promises) {
        (Some(admitted), Some(promises)) => promises.make(Promise { admitted, story }),
        _ => story.told(),
    }
    reply
}

/// The client's address, where requests are logged at all.
fn client(context: &Context, peer: Peer, parts: &Parts) -> Option<IpAddr> {
    let trusted = &context.settings.trusted_proxies;
    tracing::enabled!(tracing::Level::DEBUG)
        .then(|| client_ip::client(trusted, peer.address, &parts.headers))
}

/// What is known of a request besides its answer, for the metrics and the log.
struct Notes {
    id: RequestId,
    /// The route's pattern.
    label: &'static str,
    key: Option<KeyId>,
    /// Whether the answer may be made before the readings are durable, to be held back until then.
    may_promise: bool,
    /// Readings for whose sake the answer must be held back.
    promised: Option<Admitted>,
}

async fn handle(
    shared: &Arc<Shared>,
    peer: Peer,
    parts: &Parts,
    upload: &mut Upload,
    notes: &mut Notes,
) -> Result<Reply, Problem> {
    check_head(parts)?;
    if shared.context.settings.local_hosts_only {
        host::check(parts)?;
    }
    if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
        return Ok(options("GET, HEAD, POST, PUT, DELETE, OPTIONS"));
    }
    let (route, id) = router::find(parts.uri.path()).map_err(|lost| match lost {
        Lost::Unknown => Problem::new(Kind::NotFound, "there is nothing at this path"),
        Lost::Encoding => Problem::new(Kind::BadParameter, "the path is not percent-encoded UTF-8"),
    })?;
    notes.label = route.pattern;
    if parts.method == Method::OPTIONS {
        return options_of(shared, parts, route);
    }
    let endpoint = endpoint(route, &parts.method)?;
    let context = &*shared.context;
    let caller = Caller::admit(context, peer, endpoint, &parts.headers)?;
    notes.key = caller.key();
    if answers_json(endpoint) && !negotiate::accepts_json(&parts.headers) {
        let detail = "answers are application/json or application/problem+json";
        return Err(Problem::new(Kind::NotAcceptable, detail));
    }
    match endpoint {
        Endpoint::Ingest(stream) => {
            let taken = ingestion::ingest(context, &caller, stream, parts, upload).await?;
            if taken.is_on_its_way() && notes.may_promise {
                let (reply, admitted) = taken.promised();
                notes.promised = Some(admitted);
                return Ok(reply);
            }
            taken.when_safe(context).await
        }
        Endpoint::HealthLive => Ok(operations::health_live()),
        Endpoint::HealthReady => operations::health_ready(context),
        Endpoint::Metrics => no_query(parts).map(|()| operations::metrics(context)),
        Endpoint::OpenapiJson => operations::openapi_json(),
        Endpoint::OpenapiYaml => Ok(operations::openapi_yaml()),
        Endpoint::Dashboard => ui::page(&parts.headers),
        Endpoint::Docs => ui::docs(&parts.headers),
        Endpoint::Asset => ui::file(id.as_deref().unwrap_or_default(), &parts.headers),
        // Boxed, so that the future of a reading stays small.
        Endpoint::Ask(asked) => {
            let id = id.as_deref().unwrap_or_default();
            caller.may_ask(asked, id)?;
            // What a question logs carries its id; one that is denied or malformed logs nothing.
            let span = tracing::error_span!("request", id = %notes.id);
            let asking = ask(shared, &caller, asked, parts, id, upload).instrument(span);
            let reply = Box::pin(asking).await?;
            Ok(match (&context.keys, caller.key()) {
                (Some(keys), Some(key)) => revocable::bind(reply, keys, key),
                _ => reply,
            })
        }
    }
}

/// The largest body of what is no reading.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Answers what needs the database.
async fn ask(
    shared: &Shared,
    caller: &Caller,
    asked: Ask,
    parts: &Parts,
    id: &str,
    upload: &mut Upload,
) -> Result<Reply, Problem> {
    let pool = &shared.context.reads;
    let prefix = caller.prefix();
    let query = parts.uri.query();
    if !matches!(
        asked,
        Ask::LiveList(_)
            | Ask::LiveStream
            | Ask::History(_)
            | Ask::SessionList
            | Ask::Performance
            | Ask::Ranking
            | Ask::Fleet
            | Ask::Alerts
            | Ask::Export(_)
    ) {
        no_query(parts)?;
    }
    match asked {
        Ask::LiveList(stream) => live::list(pool, stream, query).await,
        Ask::LiveOne(stream) => live::one(pool, stream, id).await,
        Ask::History(stream) => history::page(pool, stream, id, query).await,
        Ask::LiveStream => shared.live.open(&parts.method, &parts.headers, query).await,
        Ask::SessionList => sessions::list(pool, prefix, query).await,
        Ask::SessionGet => sessions::get(&shared.context, prefix, id).await,
        Ask::Performance => performance::one(&shared.context, id, query).await,
        Ask::Ranking => fleet::ranking(&shared.context, query).await,
        Ask::Fleet => fleet::fleet(&shared.context, query).await,
        Ask::Alerts => alerts::list(&shared.context, query).await,
        Ask::Export(stream) => export::export(&shared.context, stream, query).await,
        Ask::SessionDelete => sessions::delete(pool, prefix, id).await,
        Ask::SessionPost => {
            let document = document(shared, caller, parts, upload).await?;
            sessions::post(pool, prefix, &document.bytes).await
        }
        Ask::SessionEnd => {
            let document = document(shared, caller, parts, upload).await?;
            sessions::end(pool, prefix, id, &document.bytes).await
        }
        Ask::MeterPut => {
            meters::put(
                pool,
                id,
                &document(shared, caller, parts, upload).await?.bytes,
            )
            .await
        }
    }
}

/// Receives a JSON document.
async fn document(
    shared: &Shared,
    caller: &Caller,
    parts: &Parts,
    upload: &mut Upload,
) -> Result<Received, Problem> {
    let context = &*shared.context;
    negotiate::expect_json(&parts.headers)?;
    let encoding = negotiate::encoding(&parts.headers)?;
    let limits = Limits {
        bytes_max: DOCUMENT_BYTES_MAX,
        share: caller.share(),
        timeout: context.settings.body_timeout,
    };
    let (gate, cores) = (context.pipeline.gate(), context.pipeline.cores());
    let received = upload.receive(gate, limits).await?;
    unfold(gate, cores, encoding, received, limits).await
}

/// Checks what HTTP demands of a head and hyper does not.
///
/// Where a request has both lengths, hyper follows RFC 9112 §6.3: Transfer-Encoding counts, and
/// Content-Length is not even shown. Of several transfer codings hyper undoes the last, chunked,
/// and shows what the others made as if it were the body.
///
/// Source: RFC 9112 §3.2 and §6.1, RFC 9113 §8.3.1
fn check_head(parts: &Parts) -> Result<(), Problem> {
    let headers = &parts.headers;
    let mut hosts = headers.get_all(HOST).iter();
    let one = hosts.next().is_some() && hosts.next().is_none();
    if !one && (parts.version == Version::HTTP_11 || headers.contains_key(HOST)) {
        let detail = "a request has exactly one Host";
        return Err(Problem::new(Kind::BadRequest, detail).close());
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !codings.next().is_none_or(is_chunked) || codings.next().is_some() {
        let detail = "the Transfer-Encoding must be chunked, and nothing else";
        return Err(Problem::new(Kind::BadRequest, detail).close());
    }
    let named = headers.get(HOST).map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    if ![named, authority].into_iter().flatten().all(is_host) {
        let detail = "the Host header is not a valid host";
        return Err(Problem::new(Kind::BadRequest, detail).close());
    }
    // HTTP/2 has both; where they differ, a proxy and this gateway may read different ones.
    if parts.version == Version::HTTP_2
        && let (Some(host), Some(authority)) = (headers.get(HOST), parts.uri.authority())
        && !host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        let detail = "Host and :authority must be the same";
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    Ok(())
}

/// Whether a text can be a host with a port, or nothing: no user, no path, no space.
///
/// Source: RFC 3986 §3.2.2; RFC 9110 §4.2.4 on users in it
fn is_host(text: &[u8]) -> bool {
    let known = |b: &u8| b.is_ascii_alphanumeric() || b".-_~%!$&'()*+,;=:[]".contains(b);
    text.iter().all(known)
}

fn endpoint(route: &Route, method: &Method) -> Result<Endpoint, Problem> {
    // A HEAD is a GET whose body hyper does not send.
    let name = if *method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    let found = route.methods.iter().find(|(known, _)| *known == name);
    found.map(|(_, endpoint)| *endpoint).ok_or_else(|| {
        let detail = format!("this path has {}", route.allow);
        Problem::new(Kind::MethodNotAllowed, detail).allow(route.allow)
    })
}

fn answers_json(endpoint: Endpoint) -> bool {
    // Monitoring and documentation are read by whatever program there is.
    !matches!(
        endpoint,
        Endpoint::Metrics
            | Endpoint::OpenapiYaml
            | Endpoint::HealthLive
            | Endpoint::HealthReady
            | Endpoint::Dashboard
            | Endpoint::Docs
            | Endpoint::Asset
            | Endpoint::Ask(Ask::LiveStream)
            | Endpoint::Ask(Ask::Export(_))
    )
}

fn no_query(parts: &Parts) -> Result<(), Problem> {
    Query::parse(parts.uri.query(), &[]).map(drop)
}

fn options(allow: &'static str) -> Reply {
    let mut reply = reply::empty(StatusCode::NO_CONTENT);
    reply
        .headers_mut()
        .insert(hyper::header::ALLOW, HeaderValue::from_static(allow));
    reply
}

/// What a route answers to OPTIONS: nothing but what it allows.
///
/// A route of health answers as to GET: OPTIONS is the method of HAProxy's checks unless another is
/// configured, and decides whether a gateway gets requests. A browser's question about CORS must
/// be answered with 2xx (the Fetch standard, "CORS-preflight fetch").
fn options_of(shared: &Shared, parts: &Parts, route: &Route) -> Result<Reply, Problem> {
    let mut reply = match route.methods {
        _ if parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) => {
            return Ok(options(route.allow));
        }
        [("GET", Endpoint::HealthLive)] => operations::health_live(),
        [("GET", Endpoint::HealthReady)] => operations::health_ready(&shared.context)?,
        _ => return Ok(options(route.allow)),
    };
    let allow = HeaderValue::from_static(route.allow);
    reply.headers_mut().insert(hyper::header::ALLOW, allow);
    Ok(reply)
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        // Any text can be a method: none becomes a label of its own.
        _ => "other",
    }
}
