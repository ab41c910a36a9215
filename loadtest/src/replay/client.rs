//! A keep-alive connection to the gateway that does not give up. Like a device, it repeats requests that are
//! refused for the moment or get no response.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::stop::Stop;
use crate::target::Target;

/// The first wait after a connection error. Each further error doubles it.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest wait between two attempts, and so the longest delay until a restarted gateway is noticed.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How long a response may take: longer than the gateway itself waits for `ack=committed`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A final response: accepted or rejected for good.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON, or null.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The status and the beginning of the body, for a message.
    pub(crate) fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        format!(
            "{} {}",
            self.status,
            text.chars().take(300).collect::<String>()
        )
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("stopped")]
    Stopped,
    #[error("given up after {seconds} s without success: {last}")]
    GivenUp { seconds: u64, last: String },
    #[error("the request is invalid: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the gateway refuses: {0}")]
    Refused(String),
}

/// How often requests were repeated.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Repeats {
    /// Responses of 503, 429 and other 5xx.
    pub(crate) refused: u64,
    /// Connections that were refused, reset, or silent for too long.
    pub(crate) broken: u64,
}

/// A connection to the gateway. It is opened when first needed, and reopened when it breaks.
#[derive(Debug)]
pub(crate) struct Client {
    target: Target,
    authorization: Option<HeaderValue>,
    stop: Stop,
    give_up_after: Option<Duration>,
    connection: Option<SendRequest<Full<Bytes>>>,
    pub(crate) repeats: Repeats,
}

/// Why an attempt must be repeated.
enum Failure {
    Refused {
        status: StatusCode,
        wait: Option<Duration>,
    },
    Broken(String),
}

impl Client {
    pub(crate) fn new(
        target: Target,
        authorization: Option<HeaderValue>,
        stop: Stop,
        give_up_after: Option<Duration>,
    ) -> Self {
        Client {
            target,
            authorization,
            stop,
            give_up_after,
            connection: None,
            repeats: Repeats::default(),
        }
    }

    /// A client for the same gateway with its own connection and stop signal.
    pub(crate) fn fork(&self, stop: Stop) -> Self {
        Client::new(
            self.target.clone(),
            self.authorization.clone(),
            stop,
            self.give_up_after,
        )
    }

    /// The same, keeping the count of repeats.
    pub(crate) fn fork_counted(&self, stop: Stop) -> Self {
        Client {
            repeats: self.repeats,
            ..self.fork(stop)
        }
    }

    /// The stop signal.
    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Sends a request until it gets a final response: anything but 408, 429 and 5xx.
    ///
    /// Blocks: until the response; forever while the gateway is down, unless there is a time to give up
    /// Cancel: safe; the connection and the outstanding response are dropped
    ///
    /// # Errors
    /// [`CallError::Stopped`] and [`CallError::GivenUp`]: the request may have been accepted.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let began = Instant::now();
        let mut backoff = BACKOFF_FIRST;
        loop {
            if self.stop.is_set() {
                return Err(CallError::Stopped);
            }
            let request = self.request(&method, path, content_type, body.clone())?;
            let stop = self.stop.clone();
            let outcome = tokio::select! {
                outcome = self.attempt(request) => outcome,
                () = stop.wait() => return Err(CallError::Stopped),
            };
            let failure = match outcome {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let (wait, last) = match failure {
                Failure::Refused { status, wait } => {
                    self.repeats.refused += 1;
                    (wait, status.to_string())
                }
                Failure::Broken(error) => {
                    self.repeats.broken += 1;
                    self.connection = None;
                    (None, error)
                }
            };
            let wait = wait.unwrap_or_else(|| {
                backoff = (backoff * 2).min(BACKOFF_MAX);
                backoff / 2
            });
            if self
                .give_up_after
                .is_some_and(|limit| began.elapsed() + wait > limit)
            {
                let seconds = began.elapsed().as_secs();
                return Err(CallError::GivenUp { seconds, last });
            }
            self.stop.sleep(wait).await;
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.base))
            .header(header::HOST, &self.target.authority)
            .header(header::CONTENT_TYPE, content_type);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request.body(Full::new(body))
    }

    async fn attempt(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Broken("no response in time".to_owned())),
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let broken = |error: hyper::Error| Failure::Broken(error.to_string());
        let mut connection = match self.connection.take() {
            // The gateway closes idle connections, so a closed one is not an error.
            Some(connection) if !connection.is_closed() => connection,
            _ => self.connect().await?,
        };
        connection.ready().await.map_err(broken)?;
        let response = connection.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(broken)?.to_bytes();
        self.connection = Some(connection);
        let status = head.status;
        let again = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT;
        if again {
            let wait = retry_after(head.headers.get(header::RETRY_AFTER));
            return Err(Failure::Refused { status, wait });
        }
        Ok(Answer { status, body })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let broken = |error: std::io::Error| Failure::Broken(error.to_string());
        let socket = TcpStream::connect(&self.target.authority)
            .await
            .map_err(broken)?;
        socket.set_nodelay(true).map_err(broken)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| Failure::Broken(error.to_string()))?;
        // A connection error shows up in the request that uses the connection.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Parses a Retry-After in whole seconds.
fn retry_after(value: Option<&HeaderValue>) -> Option<Duration> {
    let seconds = value?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
