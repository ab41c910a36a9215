//! The HTTP client for pushes to other systems: one POST per connection, over HTTP/1.1, with or without TLS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Why a URL cannot be used. The operator must correct the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is not a URL of HTTP.
    #[error("must be a URL that begins with http:// or https://")]
    Url,
    /// It holds a user or a password, which the client does not send.
    #[error(
        "must not contain a user or a password, because they are not sent; put a token into the \
         path"
    )]
    User,
    /// The system's certificates cannot be read.
    #[error("cannot be verified: the system has no trusted certificates; install ca-certificates")]
    Certificates,
}

/// Why a POST was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The receiver cannot be reached, or breaks the protocol.
    #[error("{0}")]
    Connection(String),
    /// The receiver answered with another status than 2xx.
    #[error("the receiver answers {0}")]
    Refused(StatusCode),
    /// The receiver did not answer in time.
    #[error("no answer within {0:?}")]
    TooSlow(Duration),
}

/// The ports of a URL without one.
#[derive(Debug, Clone, Copy)]
pub struct DefaultPorts {
    /// For `http`.
    pub plain: u16,
    /// For `https`.
    pub tls: u16,
}

/// The ports of the web.
pub const WEB: DefaultPorts = DefaultPorts {
    plain: 80,
    tls: 443,
};

/// A receiver of POSTs.
#[derive(Clone)]
pub struct Receiver {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
}

impl Receiver {
    /// Takes a URL.
    pub fn new(url: &str, ports: DefaultPorts) -> Result<Self, UrlError> {
        let uri: Uri = url.parse().map_err(|_| UrlError::Url)?;
        // An IPv6 address has brackets in a URL, but not for the system.
        let host = uri.host().map(|host| host.trim_matches(['[', ']']));
        let host = host.filter(|host| !host.is_empty()).ok_or(UrlError::Url)?;
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (None, ports.plain),
            Some("https") => (Some(connector()?), ports.tls),
            _ => return Err(UrlError::Url),
        };
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(UrlError::User);
        }
        Ok(Receiver {
            port: uri.port_u16().unwrap_or(port),
            host: host.to_owned(),
            tls,
            uri,
        })
    }

    /// The target of the request line. A URL may have a query but no path.
    pub fn target(&self) -> String {
        let target = self.uri.path_and_query().map_or("", |path| path.as_str());
        let slash = if target.starts_with('/') { "" } else { "/" };
        format!("{slash}{target}")
    }

    /// The host and the port to connect to.
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Sends JSON. A status of 2xx accepts it.
    ///
    /// Blocks: at most `within`
    /// Cancel: the receiver may have accepted it
    pub async fn post_json(
        &self,
        headers: &[(HeaderName, String)],
        body: String,
        within: Duration,
    ) -> Result<(), PostError> {
        let mut request = Request::post(self.target())
            .header(HOST, self.uri.authority().map_or("", |a| a.as_str()))
            .header(USER_AGENT, concat!("wattgate/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(failed)?;
        timeout(within, self.send(request))
            .await
            .map_err(|_| PostError::TooSlow(within))?
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(), PostError> {
        let socket = TcpStream::connect(self.address()).await.map_err(failed)?;
        match &self.tls {
            None => exchange(socket, request).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(failed)?;
                exchange(tls.connect(name, socket).await.map_err(failed)?, request).await
            }
        }
    }
}

async fn exchange<S>(socket: S, request: Request<Full<Bytes>>) -> Result<(), PostError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = handshake.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let answered = sender.send_request(request).await;
    // The body of the answer is not needed.
    connection.abort();
    let status = answered.map_err(failed)?.status();
    match status.is_success() {
        true => Ok(()),
        false => Err(PostError::Refused(status)),
    }
}

fn failed(error: impl std::fmt::Display) -> PostError {
    PostError::Connection(error.to_string())
}

fn connector() -> Result<TlsConnector, UrlError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(UrlError::Certificates);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| UrlError::Certificates)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_without_a_user_are_accepted() {
        let refused = |url| Receiver::new(url, WEB).err();
        for wrong in ["", "example.org/hook", "ftp://example.org/", "http://"] {
            assert_eq!(refused(wrong), Some(UrlError::Url), "{wrong}");
        }
        for user in [
            "http://user@example.org/",
            "http://user:word@example.org/hook",
        ] {
            assert_eq!(refused(user), Some(UrlError::User), "{user}");
        }
    }

    #[test]
    fn a_url_gives_the_address_and_the_target() {
        for (url, address, target) in [
            ("http://example.org", ("example.org", 80), "/"),
            (
                "http://example.org?token=x",
                ("example.org", 80),
                "/?token=x",
            ),
            (
                "http://example.org:8080/hook?x=1",
                ("example.org", 8080),
                "/hook?x=1",
            ),
            ("http://[::1]/base", ("::1", 80), "/base"),
        ] {
            let receiver = Receiver::new(url, WEB).unwrap();
            assert_eq!(receiver.address(), address, "{url}");
            assert_eq!(receiver.target(), target, "{url}");
        }
    }
}
