//! Deliveries to the receiver: a signed HTTP POST, repeated until the receiver accepts it.
//!
//! A delivery is sent at least once. If the answer is lost, it is sent again with the same
//! `Wattgate-Delivery`. Deliveries are sent one at a time, in the order in which they are due.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderName;
use ring::hmac;
use tokio_postgres::Client;

use super::{AlertError, Message};
use crate::http_client::{PostError, Receiver, UrlError, WEB};
use crate::reading::Timestamp;

const DELIVERY: HeaderName = HeaderName::from_static("wattgate-delivery");
const SIGNATURE: HeaderName = HeaderName::from_static("wattgate-signature");
/// How long the receiver may take for one delivery.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait before a delivery is tried again.
const WAIT_SECONDS_MAX: i64 = 300;
/// How often a delivery is tried, which takes a day. Why not a deadline: a clock that jumps must not end it.
const TRIES_MAX: i32 = 296;
/// The most deliveries of one call.
const AT_ONCE: usize = 50;

/// The receiver of alerts.
#[derive(Clone)]
pub struct Webhook {
    receiver: Receiver,
    message: Message,
    secret: Option<Arc<hmac::Key>>,
}

impl Webhook {
    /// Takes a URL, how deliveries are written, and the secret that signs them.
    pub fn new(url: &str, message: Message, secret: Option<&[u8]>) -> Result<Self, UrlError> {
        Ok(Webhook {
            receiver: Receiver::new(url, WEB)?,
            message,
            secret: secret.map(|secret| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret))),
        })
    }

    /// Sends one delivery. A status of 2xx accepts it.
    async fn post(&self, id: i64, body: String, now: Timestamp) -> Result<(), PostError> {
        let body = self.message.body(body);
        let mut headers = vec![(DELIVERY, id.to_string())];
        if let Some(key) = &self.secret {
            let seconds = now.as_micros() / 1_000_000;
            let signed = format!("{seconds}.{body}");
            let tag = hmac::sign(key, signed.as_bytes());
            let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            headers.push((SIGNATURE, format!("t={seconds},v1={hex}")));
        }
        self.receiver.post_json(&headers, body, TIMEOUT).await
    }
}

/// Sends the deliveries that are due. After a failure the rest waits for the next call, because it has the same
/// receiver.
///
/// Blocks: at most for [`AT_ONCE`] answers, or for [`TIMEOUT`] without one
pub(super) async fn deliver(
    client: &Client,
    webhook: &Webhook,
    now: Timestamp,
) -> Result<(), AlertError> {
    for _ in 0..AT_ONCE {
        let Some(row) = client
            .query_opt(sql!("alert_delivery_next"), &[&now])
            .await?
        else {
            return Ok(());
        };
        let (id, body): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let attempts: i32 = row.try_get(2)?;
        let Err(error) = webhook.post(id, body, Timestamp::now()).await else {
            client.execute(sql!("alert_delivery_done"), &[&id]).await?;
            continue;
        };
        if attempts + 1 >= TRIES_MAX {
            tracing::error!(
                delivery = id,
                %error,
                "gave up the delivery of an alert after a day of failures"
            );
            client.execute(sql!("alert_delivery_done"), &[&id]).await?;
            return Ok(());
        }
        tracing::warn!(
            delivery = id,
            %error,
            "the alert webhook failed; trying again"
        );
        let again = Timestamp::now().plus_micros(wait_seconds(attempts) * 1_000_000);
        client
            .execute(sql!("alert_delivery_again"), &[&id, &again])
            .await?;
        return Ok(());
    }
    Ok(())
}

/// How long a delivery waits after this many failures: 1 s, 2 s, 4 s, up to 5 minutes.
fn wait_seconds(attempts: i32) -> i64 {
    let doubled = 1_i64.checked_shl(attempts.clamp(0, 30).unsigned_abs());
    doubled.unwrap_or(WAIT_SECONDS_MAX).min(WAIT_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_receiver_is_tried_less_and_less_often() {
        let waits: Vec<i64> = (0..11).map(wait_seconds).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(wait_seconds(i32::MAX), 300);
    }
}
