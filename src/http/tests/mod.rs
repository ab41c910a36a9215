//! The edge on a real socket with a real log.

mod access;
mod compression;
mod heads;
mod http2;
mod idle;
mod ingestion;
mod json_table;
mod limits;
mod openapi;
mod operations;
mod smuggling;
mod tls;
mod truncation;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Context, Health, Server, Settings, serve};
use crate::auth::Keyring;
use crate::http::server::tls::Tls;
use crate::ingest::admission::Gate;
use crate::ingest::pipeline::{Pipeline, PipelineLimits};
use crate::postgres::{ReadPool, ReadServers};
use crate::wal::storage::Directory;
use crate::wal::{LIMIT_BYTES_MIN, Log, LogOptions, SyncMode};

/// The deadline of every wait. Anything that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// The path for meter readings.
pub(super) const PATH: &str = "/v1/ingestion/meter";
/// The header of a JSON body.
pub(super) const JSON: &str = "Content-Type: application/json\r\n";
/// A valid reading.
pub(super) const METER: &str =
    r#"{"meterId":"M1","kwhConsumedAc":45.23,"voltage":240.5,"timestamp":"2024-02-09T15:30:00Z"}"#;

/// A gateway's edge with a log and an unreachable database.
pub(super) struct Edge {
    pub(super) addr: SocketAddr,
    pub(super) context: Arc<Context>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    log: Log,
    _dir: TempDir,
}

pub(super) struct Options {
    pub(super) settings: Settings,
    pub(super) commit_within: Duration,
    pub(super) memory_bytes: u64,
    pub(super) metrics: fn() -> String,
    pub(super) keys: Option<Arc<Keyring>>,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Default for Options {
    fn default() -> Self {
        let settings = Settings {
            body_bytes_max: 1 << 20,
            connections_max: 100,
            header_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            body_timeout: PATIENCE,
            write_timeout: PATIENCE,
            drain_timeout: PATIENCE,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            local_hosts_only: false,
        };
        Options {
            settings,
            commit_within: Duration::from_millis(50),
            memory_bytes: 64 << 20,
            metrics: || "# EOF\n".to_owned(),
            keys: None,
            tls: None,
        }
    }
}

impl Edge {
    pub(super) fn start() -> Edge {
        Edge::start_with(Options::default())
    }

    pub(super) fn start_with(options: Options) -> Edge {
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(Directory::open(dir.path()).unwrap());
        let log_options = LogOptions {
            shards: 2,
            limit_bytes: LIMIT_BYTES_MIN,
            retain_bytes: 0,
            sync: SyncMode::Never,
        };
        let log = Log::open(storage, log_options).unwrap();
        let progress = Arc::clone(log.progress());
        let gate = Gate::new(
            options.memory_bytes,
            Arc::clone(log.budget()),
            log.sender(),
            Arc::clone(&progress),
        );
        // Nothing listens on port 1.
        let database = "host=127.0.0.1 port=1 user=nobody".parse().unwrap();
        let manager = Manager::new(database, tokio_postgres::NoTls);
        let limits = PipelineLimits {
            age_max: None,
            commit_within: options.commit_within,
            cores: 2,
        };
        let metrics = options.metrics;
        let context = Arc::new(Context {
            settings: options.settings,
            keys: options.keys,
            tls: options.tls,
            pipeline: Pipeline::new(gate, limits),
            progress,
            reads: ReadServers::primary_alone(ReadPool::new(
                Pool::builder(manager).max_size(1).build().unwrap(),
            )),
            analyst: crate::analytics::Analyst::new(1, crate::analytics::Judgement::default()),
            live: Arc::default(),
            health: Arc::new(Health::default()),
            metrics: Arc::new(metrics),
        });
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(server, Arc::clone(&context), async {
            drop(stopped.await);
        }));
        Edge {
            addr,
            context,
            stop: Some(stop),
            serving: Some(serving),
            log,
            _dir: dir,
        }
    }

    /// The number of readings that the log has accepted.
    pub(super) fn accepted(&self) -> u64 {
        self.log.progress().snapshot().accepted.sum()
    }

    /// Stops the server. The returned task ends when it has stopped.
    pub(super) fn stop(&mut self) -> JoinHandle<()> {
        drop(self.stop.take());
        self.serving.take().unwrap()
    }

    pub(super) async fn connect(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.addr).await.unwrap(),
            read: Vec::new(),
        }
    }

    /// Sends one request on its own connection.
    pub(super) async fn send(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.write(request.as_bytes()).await;
        client.answer().await
    }

    /// Sends one request with a JSON body.
    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(&post(path, "Content-Type: application/json\r\n", body))
            .await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .await
    }
}

/// A POST with headers (each ended by CR LF) and a length.
pub(super) fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// A connection that writes arbitrary bytes and reads responses, without the checks of an HTTP library.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .unwrap()
            .unwrap();
    }

    /// Reads one response that has a Content-Length or no body.
    pub(super) async fn answer(&mut self) -> Answer {
        loop {
            if let Some((answer, length)) = Answer::parse(&self.read) {
                self.read.drain(..length);
                return answer;
            }
            let mut some = [0; 4096];
            let n = timeout(PATIENCE, self.stream.read(&mut some))
                .await
                .unwrap()
                .unwrap();
            assert!(
                n > 0,
                "closed after {:?}",
                String::from_utf8_lossy(&self.read)
            );
            self.read.extend_from_slice(&some[..n]);
        }
    }

    /// Whether the server closes the connection without sending more.
    pub(super) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest))
            .await
            .unwrap();
        read.is_err() || (rest.is_empty() && self.read.is_empty())
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1)?.parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        let length = match status {
            100 | 204 => 0,
            _ => answer
                .header("content-length")
                .map_or(0, |n| n.parse().unwrap()),
        };
        answer.body = String::from_utf8(bytes.get(end..end + length)?.to_vec()).unwrap();
        Some((answer, end + length))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Checks that this is a problem document with this status.
    #[track_caller]
    pub(super) fn assert_problem(&self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(problem[field].is_string(), "{field}: {problem}");
        }
        assert_eq!(
            self.header("retry-after").is_some(),
            status == 503 || status == 429,
            "{self:?}"
        );
        problem
    }
}

/// Waits for a condition, with a deadline.
pub(super) async fn eventually(what: &str, condition: impl Fn() -> bool + Send + Sync) {
    let waited = timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}
