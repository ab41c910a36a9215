//! Telling the receiver: HTTP POST, signed, again and again until it is taken.
//!
//! A delivery is sent at least once: where the answer is lost it is sent again, with the same
//! `Wattgate-Delivery`. Deliveries are sent in the order in which they are due, one at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_rustls::TlsConnector;

use super::AlertError;
use crate::reading::Timestamp;

/// How long the receiver may take for one delivery.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait before a delivery is tried again.
const WAIT_SECONDS_MAX: i64 = 300;
/// How often a delivery is tried: for a day, at the waits between. Why not until a time: no clock that
/// jumps gives one up.
const TRIES_MAX: i32 = 296;
/// Deliveries that are sent before alerts are looked for again.
const AT_ONCE: usize = 50;

/// Why a webhook cannot be used; the operator has to mend the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// It is no URL of HTTP.
    #[error("must be a URL that begins with http:// or https://")]
    Url,
    /// It holds a user, who would not be told to the receiver.
    #[error("must hold no user or password, because they are not sent; put a token into the path")]
    User,
    /// The system's certificates cannot be read.
    #[error("cannot be verified: the system has no trusted certificates; install ca-certificates")]
    Certificates,
}

/// Who is told of alerts.
#[derive(Clone)]
pub struct Webhook {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    secret: Option<Arc<hmac::Key>>,
}

impl Webhook {
    /// Takes a URL, and the secret that signs what is sent there.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub fn new(url: &str, secret: Option<&[u8]>) -> Result<Self, WebhookError> {
        let uri: Uri = url.parse().map_err(|_| WebhookError::Url)?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => Some(connector()?),
            _ => return Err(WebhookError::Url),
        };
        let host = uri.host().ok_or(WebhookError::Url)?.to_owned();
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(WebhookError::User);
        }
        let default = if tls.is_some() { 443 } else { 80 };
        Ok(Webhook {
            port: uri.port_u16().unwrap_or(default),
            host,
            tls,
            secret: secret.map(|secret| Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret))),
            uri,
        })
    }

    /// What the request line asks for. Behind the host a URL may go on with its query.
    fn target(&self) -> String {
        let target = self.uri.path_and_query().map_or("", |path| path.as_str());
        let slash = if target.starts_with('/') { "" } else { "/" };
        format!("{slash}{target}")
    }

    /// Sends one delivery; whoever answers 2xx has taken it.
    async fn post(&self, id: i64, body: String, now: Timestamp) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        // An IPv6 address stands in brackets in a URL, and without them for the system.
        let host = self.host.trim_matches(['[', ']']);
        let socket = TcpStream::connect((host, self.port))
            .await
            .map_err(|e| text(&e))?;
        match &self.tls {
            None => self.send(socket, id, body, now).await,
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned()).map_err(|e| text(&e))?;
                let socket = tls.connect(name, socket).await.map_err(|e| text(&e))?;
                self.send(socket, id, body, now).await
            }
        }
    }

    async fn send<S>(&self, socket: S, id: i64, body: String, now: Timestamp) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let host = self.uri.authority().map_or("", |a| a.as_str());
        let seconds = now.as_micros() / 1_000_000;
        let mut request = Request::post(self.target())
            .header(HOST, host)
            .header(USER_AGENT, concat!("wattgate/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("wattgate-delivery", id.to_string());
        if let Some(key) = &self.secret {
            let signed = format!("{seconds}.{body}");
            let tag = hmac::sign(key, signed.as_bytes());
            let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            request = request.header("wattgate-signature", format!("t={seconds},v1={hex}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(connection);
        let answered = sender.send_request(request).await;
        // The answer's body is of no interest.
        connection.abort();
        let status = answered.map_err(|e| e.to_string())?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("the receiver answers {status}")),
        }
    }
}

fn connector() -> Result<TlsConnector, WebhookError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(WebhookError::Certificates);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| WebhookError::Certificates)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends what is due. After the first that fails the rest waits for the next time: it is the same
/// receiver.
///
/// Blocks: for at most [`AT_ONCE`] answers, and for [`TIMEOUT`] where there is none
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
        let posted = timeout(TIMEOUT, webhook.post(id, body, Timestamp::now())).await;
        let why = match posted {
            Ok(Ok(())) => {
                client.execute(sql!("alert_delivery_done"), &[&id]).await?;
                continue;
            }
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        if attempts + 1 >= TRIES_MAX {
            tracing::error!(
                delivery = id,
                why,
                "the alerts' webhook was tried for a day: given up"
            );
            client.execute(sql!("alert_delivery_done"), &[&id]).await?;
            return Ok(());
        }
        tracing::warn!(
            delivery = id,
            why,
            "the alerts' webhook fails; trying again"
        );
        let again = Timestamp::now().plus_micros(wait_seconds(attempts) * 1_000_000);
        client
            .execute(sql!("alert_delivery_again"), &[&id, &again])
            .await?;
        return Ok(());
    }
    Ok(())
}

/// How long a delivery waits after so many failures: 1 s, 2 s, 4 s, up to 5 minutes.
fn wait_seconds(attempts: i32) -> i64 {
    let doubled = 1_i64.checked_shl(attempts.clamp(0, 30).unsigned_abs());
    doubled.unwrap_or(WAIT_SECONDS_MAX).min(WAIT_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_fails_is_asked_less_and_less_often() {
        let waits: Vec<i64> = (0..11).map(wait_seconds).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(wait_seconds(i32::MAX), 300);
    }

    #[test]
    fn only_urls_of_http_are_taken() {
        for wrong in ["", "example.org/hook", "ftp://example.org/", "http://"] {
            assert_eq!(
                Webhook::new(wrong, None).err(),
                Some(WebhookError::Url),
                "{wrong}"
            );
        }
        for user in [
            "http://user@example.org/",
            "http://user:word@example.org/hook",
        ] {
            let refused = Webhook::new(user, None).err();
            assert_eq!(refused, Some(WebhookError::User), "{user}");
        }
        for (url, target) in [
            ("http://example.org", "/"),
            ("http://example.org?token=x", "/?token=x"),
            ("http://example.org/hook?token=x", "/hook?token=x"),
        ] {
            assert_eq!(Webhook::new(url, None).unwrap().target(), target);
        }
        let webhook = Webhook::new("http://example.org:8080/hook?x=1", Some(b"s")).unwrap();
        assert_eq!((webhook.host.as_str(), webhook.port), ("example.org", 8080));
    }
}
