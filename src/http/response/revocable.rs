//! Ends long responses when their key is revoked or expires.
//!
//! The key is checked when a request arrives. A live stream or an export continues long after that, and a revoked
//! key must lose access within seconds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::reply::Reply;
use crate::auth::Keyring;
use crate::auth::key::KeyId;
use crate::reading::Timestamp;

/// How often the key of a long response is checked. Why 1 s: the key file is read that often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A streamed body that fails once its key is no longer valid. The failure closes the connection.
struct Revocable {
    body: UnsyncBoxBody<Bytes, io::Error>,
    keys: Arc<Keyring>,
    key: KeyId,
    every: Interval,
}

/// Binds a streamed response to its key. Other responses are returned unchanged.
pub(crate) fn bind(reply: Reply, keys: &Arc<Keyring>, key: KeyId) -> Reply {
    reply.map(|body| match body {
        Either::Left(whole) => Either::Left(whole),
        Either::Right(body) => {
            let mut every = interval(LOOK_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let keys = Arc::clone(keys);
            let bound = Revocable {
                body,
                keys,
                key,
                every,
            };
            Either::Right(bound.boxed_unsync())
        }
    })
}

impl HttpBody for Revocable {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        while self.every.poll_tick(cx).is_ready() {
            if !self.keys.is_usable(self.key, Timestamp::now()) {
                let why = "the key was revoked or has expired";
                return Poll::Ready(Some(Err(io::Error::other(why))));
            }
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
