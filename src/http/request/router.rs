//! What a route is, and finding the route of a request.
//!
//! Metrics are labelled with the pattern of a route, never with the requested path.

use std::borrow::Cow;
use std::pin::Pin;

use hyper::Method;

use super::auth::{Access, Scope};
use super::call::Call;
use super::query::{Parameters, percent_decode};
use crate::auth::Rights;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::reading::Stream;

/// The answer of a handler, on its way.
pub(crate) type ReplyFuture<'a> = Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send + 'a>>;

/// The handler of a route.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handler {
    /// Ingestion of a stream's readings. A variant of its own, because its future is not boxed.
    Ingest(Stream),
    /// Anything else.
    Boxed(BoxedHandler),
}

/// The methods of routes, as `Allow` orders them. HEAD exists where GET does, OPTIONS everywhere.
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

/// Whether a route checks the `Accept` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// It answers JSON: a client that does not accept it gets 406.
    Json,
    /// It answers something other than JSON, or JSON to programs that may send any `Accept`.
    Any,
}

/// What OPTIONS answers, except to a browser's preflight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionsReply {
    /// Only what the path allows.
    Allow,
    /// The same as GET.
    AsGet,
}

/// One method of one path: a row of the table of routes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// One of [`METHODS`].
    pub(crate) method: &'static str,
    /// Segments; `{name}` stands for any one.
    pub(crate) pattern: &'static str,
    pub(crate) access: Access,
    pub(crate) parameters: Parameters,
    pub(crate) accept: Accept,
    options: OptionsReply,
    pub(crate) handler: Handler,
}

/// A route whose access is not decided: only [`Unguarded::public`] and
/// [`Unguarded::needs`] make a [`Route`] of it.
#[must_use]
pub(crate) struct Unguarded {
    method: &'static str,
    pattern: &'static str,
    handler: Handler,
}

/// A handler as a row names it.
pub(crate) type BoxedHandler = for<'a> fn(Call<'a>) -> ReplyFuture<'a>;

/// A route of GET, and so of HEAD.
pub(crate) const fn get(pattern: &'static str, handler: BoxedHandler) -> Unguarded {
    Unguarded::new("GET", pattern, Handler::Boxed(handler))
}

/// A route of POST.
pub(crate) const fn post(pattern: &'static str, handler: BoxedHandler) -> Unguarded {
    Unguarded::new("POST", pattern, Handler::Boxed(handler))
}

/// A route of PUT.
pub(crate) const fn put(pattern: &'static str, handler: BoxedHandler) -> Unguarded {
    Unguarded::new("PUT", pattern, Handler::Boxed(handler))
}

/// A route of DELETE.
pub(crate) const fn delete(pattern: &'static str, handler: BoxedHandler) -> Unguarded {
    Unguarded::new("DELETE", pattern, Handler::Boxed(handler))
}

/// A route of POST that takes readings.
pub(crate) const fn ingest(pattern: &'static str, stream: Stream) -> Unguarded {
    Unguarded::new("POST", pattern, Handler::Ingest(stream))
}

impl Unguarded {
    const fn new(method: &'static str, pattern: &'static str, handler: Handler) -> Self {
        Unguarded {
            method,
            pattern,
            handler,
        }
    }

    /// Opens the route to all, without a key.
    pub(crate) const fn public(self) -> Route {
        self.guarded(Access::Public)
    }

    /// Opens the route to keys with any of these rights, for the devices of a scope.
    pub(crate) const fn needs(self, rights: Rights, scope: Scope) -> Route {
        self.guarded(Access::Key(rights, scope))
    }

    const fn guarded(self, access: Access) -> Route {
        Route {
            method: self.method,
            pattern: self.pattern,
            access,
            parameters: Parameters::Once(&[]),
            accept: Accept::Json,
            options: OptionsReply::Allow,
            handler: self.handler,
        }
    }
}

impl Route {
    /// Sets what the route reads of a query; unless set, it accepts no parameter.
    pub(crate) const fn query(self, parameters: Parameters) -> Self {
        Route { parameters, ..self }
    }

    /// Answers whatever the client accepts.
    pub(crate) const fn any_accept(self) -> Self {
        let accept = Accept::Any;
        Route { accept, ..self }
    }

    /// Answers OPTIONS as GET.
    pub(crate) const fn options_as_get(self) -> Self {
        let options = OptionsReply::AsGet;
        Route { options, ..self }
    }
}

/// A path pattern with its routes.
#[derive(Debug)]
pub(crate) struct PathRoutes {
    pub(crate) pattern: &'static str,
    /// The rows of the path, one for each method.
    routes: &'static [Route],
    /// The value of `Allow`.
    pub(crate) allow: String,
}

impl PathRoutes {
    /// The route of a method: HEAD is a GET whose body hyper does not send.
    pub(crate) fn route(&self, method: &Method) -> Option<&'static Route> {
        let name = match method.as_str() {
            "HEAD" => "GET",
            name => name,
        };
        self.routes.iter().find(|route| route.method == name)
    }

    /// The route that answers OPTIONS, if one does.
    pub(crate) fn options(&self) -> Option<&'static Route> {
        let mut routes = self.routes.iter();
        routes.find(|route| route.options == OptionsReply::AsGet)
    }
}

/// The table of routes, by path.
#[derive(Debug)]
pub(crate) struct Routes {
    paths: Vec<PathRoutes>,
    /// What `OPTIONS *` allows.
    pub(crate) allow: String,
}

/// Why a path has no route.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// No route has this form.
    Unknown,
    /// The id in the path is not percent-encoded UTF-8.
    Encoding,
}

impl Routes {
    /// Groups rows by path. The rows of a path must follow each other.
    pub(crate) fn new(rows: &'static [Route]) -> Self {
        let paths = rows.chunk_by(|one, next| one.pattern == next.pattern);
        let paths = paths.map(|routes| PathRoutes {
            pattern: routes[0].pattern,
            routes,
            allow: allow(routes),
        });
        Routes {
            paths: paths.collect(),
            allow: allow(rows),
        }
    }

    /// Finds the routes of a path, and the decoded id in it, if the pattern has one.
    ///
    /// Literal segments are compared without decoding: an encoded slash is part of an id and never a separator, and
    /// each route has one spelling.
    pub(crate) fn find<'p>(
        &self,
        path: &'p str,
    ) -> Result<(&PathRoutes, Option<Cow<'p, str>>), Lost> {
        for known in &self.paths {
            if known.pattern == path {
                return Ok((known, None));
            }
            if let Some(raw) = captured(known.pattern, path) {
                return Ok((known, Some(percent_decode(raw).ok_or(Lost::Encoding)?)));
            }
        }
        Err(Lost::Unknown)
    }
}

/// The value of `Allow` for some routes.
fn allow(routes: &[Route]) -> String {
    let mut names = Vec::new();
    for method in METHODS {
        if routes.iter().any(|route| route.method == method) {
            names.push(method);
            names.extend((method == "GET").then_some("HEAD"));
        }
    }
    names.push("OPTIONS");
    names.join(", ")
}

/// The segment of the path in the position of the pattern's `{name}`.
fn captured<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let (before, rest) = pattern.split_once('{')?;
    let (_, after) = rest.split_once('}')?;
    let middle = path.strip_prefix(before)?.strip_suffix(after)?;
    (!middle.is_empty() && !middle.contains('/')).then_some(middle)
}
