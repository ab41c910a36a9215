//! What a route is, and how a request's route is found.
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

/// The future of a handler's response.
pub(crate) type ReplyFuture<'a> = Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send + 'a>>;

/// The handler of a route.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handler {
    /// Ingests a stream's readings. It has its own variant because its future is not boxed.
    Ingest(Stream),
    /// Any other handler.
    Boxed(BoxedHandler),
}

/// The methods of routes, in the order of `Allow`. HEAD exists wherever GET does, and OPTIONS everywhere.
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

/// Whether a route checks `Accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// It responds with JSON. A client that does not accept JSON gets 406.
    Json,
    /// It responds with something else, or with JSON for programs that may send any `Accept`.
    Any,
}

/// How OPTIONS is answered, except for a browser's preflight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionsReply {
    /// With the allowed methods only.
    Allow,
    /// Like GET.
    AsGet,
}

/// One method of one path: a row in the table of routes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// One of [`METHODS`].
    pub(crate) method: &'static str,
    /// The path; `{name}` stands for any one segment.
    pub(crate) pattern: &'static str,
    pub(crate) access: Access,
    pub(crate) parameters: Parameters,
    pub(crate) accept: Accept,
    options: OptionsReply,
    pub(crate) handler: Handler,
}

/// A route without a decision on access. Only [`Unguarded::public`] and [`Unguarded::needs`] turn it into a
/// [`Route`].
#[must_use]
pub(crate) struct Unguarded {
    method: &'static str,
    pattern: &'static str,
    handler: Handler,
}

/// A handler as written in a row.
pub(crate) type BoxedHandler = for<'a> fn(Call<'a>) -> ReplyFuture<'a>;

/// A GET route, which serves HEAD too.
pub(crate) const fn get(pattern: &'static str, handler: BoxedHandler) -> Unguarded {
    Unguarded::new("GET", pattern, Handler::Boxed(handler))
}

/// A POST route.
pub(crate) const fn post(pattern: &'static str, handler: BoxedHandler) -> Unguarded {
    Unguarded::new("POST", pattern, Handler::Boxed(handler))
}

/// A PUT route.
pub(crate) const fn put(pattern: &'static str, handler: BoxedHandler) -> Unguarded {
    Unguarded::new("PUT", pattern, Handler::Boxed(handler))
}

/// A DELETE route.
pub(crate) const fn delete(pattern: &'static str, handler: BoxedHandler) -> Unguarded {
    Unguarded::new("DELETE", pattern, Handler::Boxed(handler))
}

/// A POST route that accepts readings.
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

    /// Makes the route public.
    pub(crate) const fn public(self) -> Route {
        self.guarded(Access::Public)
    }

    /// Requires a key with any of these rights, within a scope.
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
    /// Sets the accepted parameters. Without this, the route accepts none.
    pub(crate) const fn query(self, parameters: Parameters) -> Self {
        Route { parameters, ..self }
    }

    /// Whether the route changes what is stored.
    pub(crate) fn changes(&self) -> bool {
        self.method != "GET"
    }

    /// Responds whatever the client's `Accept` is.
    pub(crate) const fn any_accept(self) -> Self {
        let accept = Accept::Any;
        Route { accept, ..self }
    }

    /// Responds to OPTIONS like to GET.
    pub(crate) const fn options_as_get(self) -> Self {
        let options = OptionsReply::AsGet;
        Route { options, ..self }
    }
}

/// A path pattern and its routes.
#[derive(Debug)]
pub(crate) struct PathRoutes {
    pub(crate) pattern: &'static str,
    /// The rows of the path, one per method.
    routes: &'static [Route],
    /// The value of `Allow`.
    pub(crate) allow: String,
}

impl PathRoutes {
    /// The route for a method. HEAD uses that of GET, and hyper leaves out the body.
    pub(crate) fn route(&self, method: &Method) -> Option<&'static Route> {
        let name = match method.as_str() {
            "HEAD" => "GET",
            name => name,
        };
        self.routes.iter().find(|route| route.method == name)
    }

    /// The route that responds to OPTIONS, if there is one.
    pub(crate) fn options(&self) -> Option<&'static Route> {
        let mut routes = self.routes.iter();
        routes.find(|route| route.options == OptionsReply::AsGet)
    }
}

/// The table of routes, by path.
#[derive(Debug)]
pub(crate) struct Routes {
    paths: Vec<PathRoutes>,
    /// The `Allow` of `OPTIONS *`.
    pub(crate) allow: String,
}

/// Why no route was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// No pattern matches the path.
    Unknown,
    /// The id in the path is not percent-encoded UTF-8.
    Encoding,
}

impl Routes {
    /// Groups rows by path. All rows of a path must be adjacent.
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

    /// Finds the routes of a path, and decodes the id in it, if the pattern has one.
    ///
    /// Literal segments are compared without decoding. So an encoded slash is part of an id, never a separator,
    /// and each route has only one spelling.
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

/// The value of `Allow` for these routes.
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

/// The segment of the path at the place of `{name}` in the pattern.
fn captured<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let (before, rest) = pattern.split_once('{')?;
    let (_, after) = rest.split_once('}')?;
    let middle = path.strip_prefix(before)?.strip_suffix(after)?;
    (!middle.is_empty() && !middle.contains('/')).then_some(middle)
}
