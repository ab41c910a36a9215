//! A request as a handler gets it: authorized, with its query parsed.

use std::sync::OnceLock;

use hyper::http::request::Parts;

use super::auth::Caller;
use super::body::{Limits, Received, Upload};
use super::decompress::decompress;
use super::fields::Fields;
use super::negotiate;
use super::negotiate::Encoding;
use super::query::Query;
use crate::http::context::Context;
use crate::http::response::problem::Problem;
use crate::postgres::{Reads, Written};

/// The largest body other than readings.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// One request of a route.
pub(crate) struct Call<'a> {
    pub(crate) context: &'a Context,
    pub(crate) caller: &'a Caller,
    pub(crate) parts: &'a Parts,
    pub(crate) fields: &'a Fields<'a>,
    /// The decoded path segment that the pattern names; empty if it names none.
    pub(crate) id: &'a str,
    /// The parameters that the route accepts.
    pub(crate) query: Query<'a>,
    pub(crate) upload: &'a mut Upload,
    /// What the client has written, which its queries must see.
    pub(crate) after: Option<Written>,
    /// The queries of this request, once there is one.
    pub(crate) reads: &'a OnceLock<Reads>,
}

impl Call<'_> {
    /// The queries of this request.
    pub(crate) fn reads(&self) -> &Reads {
        self.reads
            .get_or_init(|| self.context.reads.begin(self.after))
    }

    /// Receives and decompresses the body.
    ///
    /// Shape:  at most `bytes_max` bytes
    /// Cancel: the body is lost
    pub(crate) async fn body(
        &mut self,
        encoding: Encoding,
        bytes_max: usize,
    ) -> Result<Received, Problem> {
        let limits = Limits {
            bytes_max,
            share: self.caller.share(),
            timeout: self.context.settings.body_timeout,
        };
        let (gate, cores) = (self.context.pipeline.gate(), self.context.pipeline.cores());
        let received = self.upload.receive(gate, limits).await?;
        if encoding == Encoding::Identity {
            return Ok(received);
        }
        // Boxed, so that the task of a connection with uncompressed bodies stays small.
        Box::pin(decompress(gate, cores, encoding, received, limits)).await
    }

    /// Receives a JSON document.
    pub(crate) async fn document(&mut self) -> Result<Received, Problem> {
        negotiate::expect_json(self.fields)?;
        let encoding = negotiate::encoding(self.fields)?;
        self.body(encoding, DOCUMENT_BYTES_MAX).await
    }
}
