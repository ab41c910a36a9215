//! One request, from its head to its response: what all routes have in common.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use hyper::body::Incoming;
use hyper::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};
use tracing::Instrument;

use super::api::ingestion;
use super::api::ingestion::Ingested;
use super::context::Context;
use super::request::access_log::{AccessRecord, NO_ROUTE};
use super::request::auth::{Access, Caller, Peer};
use super::request::body::Upload;
use super::request::call::Call;
use super::request::fields::Fields;
use super::request::request_id::{RequestId, X_REQUEST_ID};
use super::request::router::{Accept, Handler, Lost, PathRoutes, Route};
use super::request::{client_ip, consistency, cors, head, host, negotiate, poll};
use super::response::problem::{Kind, Problem};
use super::response::reply::Reply;
use super::response::{reply, revocable};
use super::routes::PATHS;
use super::server::deferred::{Deferred, DeferredResponses};
use super::server::service::Service;
use crate::auth::key::KeyId;
use crate::ingest::admission::Admitted;
use crate::postgres::{Reads, Written};

/// Serves requests by the table of routes.
pub(crate) struct Dispatcher {
    context: Arc<Context>,
}

impl Dispatcher {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Dispatcher { context }
    }
}

impl Service for Dispatcher {
    fn context(&self) -> &Context {
        &self.context
    }

    /// Responds to one request.
    ///
    /// Cancel: like the route's handler
    async fn answer(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
        deferred: Option<&DeferredResponses>,
    ) -> Reply {
        let began = poll::moment();
        let context = &*self.context;
        let (parts, incoming) = request.into_parts();
        let fields = Fields::of(&parts.headers);
        let mut upload = Upload::new(incoming, &fields);
        let mut notes = Notes {
            id: RequestId::of(fields.request_id),
            label: NO_ROUTE,
            ack: None,
            key: None,
            may_defer: deferred.is_some_and(DeferredResponses::has_room),
            admitted: None,
        };
        let mut reply =
            match handle(context, peer, (&parts, &fields), &mut upload, &mut notes).await {
                Ok(reply) => reply,
                Err(problem) => problem.into_reply(),
            };
        upload.discard();
        let headers = reply.headers_mut();
        headers.insert(X_REQUEST_ID, notes.id.header());
        cors::decorate(&context.settings.cors_origins, &parts, headers);
        if parts.version == Version::HTTP_2 {
            // Over HTTP/2 the stream ends instead, and the header is not allowed (RFC 9113 §8.2.2).
            headers.remove(CONNECTION);
        }
        let record = AccessRecord {
            id: notes.id,
            label: notes.label,
            method: method_label(&parts.method),
            status: reply.status().as_u16(),
            ack: notes.ack,
            key: notes.key,
            client: client(context, peer, &parts),
            began,
        };
        match (notes.admitted, deferred) {
            (Some(admitted), Some(deferred)) => deferred.push(Deferred { admitted, record }),
            _ => record.write(),
        }
        reply
    }
}

/// The client's address, if requests are logged.
fn client(context: &Context, peer: &Peer, parts: &Parts) -> Option<IpAddr> {
    let trusted = &context.settings.trusted_proxies;
    tracing::enabled!(tracing::Level::DEBUG)
        .then(|| client_ip::client(trusted, peer.address, &parts.headers))
}

/// What the metrics and the log record besides the response.
struct Notes {
    id: RequestId,
    /// The route's pattern.
    label: &'static str,
    /// The requested ack mode, once the readings are admitted.
    ack: Option<&'static str>,
    key: Option<KeyId>,
    /// Whether the response may be made before the readings are durable, and be held back until then.
    may_defer: bool,
    /// The readings that the response must wait for.
    admitted: Option<Admitted>,
}

async fn handle(
    context: &Context,
    peer: &Peer,
    (parts, fields): (&Parts, &Fields<'_>),
    upload: &mut Upload,
    notes: &mut Notes,
) -> Result<Reply, Problem> {
    head::check(parts, fields)?;
    host::check(parts, fields, context.settings.local_hosts_only, &peer.host)?;
    if parts.method == Method::OPTIONS && parts.uri.path() == "*" {
        return Ok(options(&PATHS.allow));
    }
    let (path, id) = PATHS.find(parts.uri.path()).map_err(|lost| match lost {
        Lost::Unknown => Problem::new(Kind::NotFound, "there is nothing at this path"),
        Lost::Encoding => {
            Problem::new(Kind::BadParameter, "the path must be percent-encoded UTF-8")
        }
    })?;
    notes.label = path.pattern;
    let Some(route) = route_of(path, parts)? else {
        return Ok(options(&path.allow));
    };
    let caller = Caller::admit(context, peer, route.access, fields)?;
    notes.key = caller.key();
    if route.accept == Accept::Json && !negotiate::accepts_json(fields) {
        let detail =
            "responses are application/json or application/problem+json; change the Accept header";
        return Err(Problem::new(Kind::NotAcceptable, detail));
    }
    let id = id.as_deref().unwrap_or_default();
    if let Access::Key(_, scope) = route.access {
        caller.check_scope(scope, id)?;
    }
    let reads = OnceLock::new();
    let call = Call {
        context,
        caller: &caller,
        parts,
        fields,
        id,
        query: route.parameters.parse(parts.uri.query())?,
        upload,
        after: after(route, context, fields)?,
        reads: &reads,
    };
    let mut reply = match route.handler {
        Handler::Ingest(stream) => {
            let ingested = ingestion::ingest(call, stream).await?;
            notes.ack = Some(ingested.ack());
            if notes.may_defer && ingested.waits_for_the_log_alone() {
                let (reply, admitted) = ingested.deferred();
                notes.admitted = Some(admitted);
                return Ok(reply);
            }
            // Boxed like the other handlers, because a large future is moved for each request.
            return Box::pin(when_safe(ingested, context)).await;
        }
        Handler::Boxed(handler) => {
            // Adds the request's id to whatever a handler logs.
            let span = tracing::error_span!("request", id = %notes.id);
            let answered = Box::pin(handler(call).instrument(span)).await;
            match context.reads.has_replicas() {
                true => Box::pin(with_freshness(answered, route, context, &reads)).await,
                false => answered?,
            }
        }
    };
    if parts.method == Method::OPTIONS {
        reply
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static(&path.allow));
    }
    Ok(match (&context.keys, caller.key()) {
        (Some(keys), Some(key)) => revocable::bind(reply, keys, key),
        _ => reply,
    })
}

/// What the answer must hold, if there are replicas.
fn after(
    route: &Route,
    context: &Context,
    fields: &Fields<'_>,
) -> Result<Option<Written>, Problem> {
    match route.access {
        Access::Key(..) if context.reads.has_replicas() && !route.changes() => {
            consistency::read_after(fields)
        }
        _ => Ok(None),
    }
}

/// The answer to an ingestion, with the token of what was committed.
async fn when_safe(ingested: Ingested, context: &Context) -> Result<Reply, Problem> {
    let mut reply = ingested.when_safe(context).await?;
    if reply.status() == StatusCode::CREATED {
        consistency::add_written(&mut reply, &context.reads).await;
    }
    Ok(reply)
}

/// An answer with how old it is, or with the token of what was changed.
async fn with_freshness(
    answered: Result<Reply, Problem>,
    route: &Route,
    context: &Context,
    reads: &OnceLock<Reads>,
) -> Reply {
    // That something is not found depends on the moment too.
    let mut reply = answered.unwrap_or_else(Problem::into_reply);
    consistency::add_as_of(&mut reply, reads);
    if route.changes() && reply.status().is_success() {
        consistency::add_written(&mut reply, &context.reads).await;
    }
    reply
}

/// The route of a request. `None` means OPTIONS, which only lists the allowed methods.
///
/// Health routes respond to OPTIONS like to GET, because HAProxy's checks send OPTIONS by default and decide by
/// the response whether a gateway gets requests. A browser's preflight always needs a 2xx response (the Fetch
/// standard, "CORS-preflight fetch").
fn route_of(path: &'static PathRoutes, parts: &Parts) -> Result<Option<&'static Route>, Problem> {
    if parts.method == Method::OPTIONS {
        let is_preflight = parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        return Ok(path.options().filter(|_| !is_preflight));
    }
    path.route(&parts.method).map(Some).ok_or_else(|| {
        let detail = format!("this path allows {}", path.allow);
        Problem::new(Kind::MethodNotAllowed, detail).allow(&path.allow)
    })
}

fn options(allow: &'static str) -> Reply {
    let mut reply = reply::empty(StatusCode::NO_CONTENT);
    let headers = reply.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allow));
    reply
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
        // Any text can be a method, so unknown ones share a label.
        _ => "other",
    }
}
