//! Listeners on the live stream, to measure how much they slow down ingestion.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::output::{report, say};
use crate::stop::Stop;
use crate::target::Target;

/// How long a listener waits before it reconnects; the dashboard waits as long.
const AGAIN: Duration = Duration::from_millis(500);

/// Open the live stream many times, and count what arrives.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The gateway
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    url: Target,
    /// The number of listeners; a gateway accepts at most 1,024
    #[arg(long, default_value_t = 1000)]
    listeners: usize,
    /// The query of each listener, such as `kind=alert` or `id=M1`; `{}` stands for the listener's number
    #[arg(long, default_value = "")]
    query: String,
    /// How many seconds to listen [default: until Ctrl-C]
    #[arg(long)]
    seconds: Option<u64>,
    /// Sent as `Authorization: Bearer`
    #[arg(long, env = "WATTGATE_KEY", hide_env_values = true)]
    key: Option<String>,
}

/// What was counted so far.
#[derive(Debug, Default)]
struct Seen {
    opened: AtomicU64,
    failed: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
}

/// Listens on one thread until it is stopped, and reports what it received.
///
/// # Errors
/// The runtime cannot start, or the report cannot be written.
pub(crate) fn run(options: Options) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(listen(options))
}

async fn listen(options: Options) -> io::Result<()> {
    let stop = Stop::on_ctrl_c();
    let seen = Arc::new(Seen::default());
    for number in 0..options.listeners {
        let head = head(&options, number);
        let (authority, seen) = (options.url.authority.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                if one(&authority, &head, &seen).await.is_err() {
                    seen.failed.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
    match options.seconds {
        Some(seconds) => stop.sleep(Duration::from_secs(seconds)).await,
        None => stop.wait().await,
    }
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (opened, failed) = (of(&seen.opened), of(&seen.failed));
    if failed > 0 {
        say(&format!("{failed} streams failed or were refused"));
    }
    let (events, bytes) = (of(&seen.events), of(&seen.bytes));
    report(&format!(
        "{opened} streams opened, {events} events, {bytes} bytes\n"
    ))
}

fn head(options: &Options, number: usize) -> String {
    let query = options.query.replace("{}", &number.to_string());
    let question = if query.is_empty() { "" } else { "?" };
    let key = options.key.as_ref();
    let key = key.map_or_else(String::new, |key| {
        format!("Authorization: Bearer {key}\r\n")
    });
    format!(
        "GET {}/v1/live/stream{question}{query} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{key}\r\n",
        options.url.base, options.url.authority
    )
}

/// One stream, from its start to its end.
async fn one(authority: &str, head: &str, seen: &Seen) -> io::Result<()> {
    let mut socket = TcpStream::connect(authority).await?;
    socket.write_all(head.as_bytes()).await?;
    let mut buffer = vec![0; 16 * 1024];
    let mut first = true;
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let part = &buffer[..read];
        if std::mem::take(&mut first) {
            if !part.starts_with(b"HTTP/1.1 200") {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            seen.opened.fetch_add(1, Ordering::Relaxed);
        }
        // An event that is split at the end of the buffer is missed, so the count is approximate.
        let events = part.windows(7).filter(|word| *word == b"event: ").count();
        seen.events.fetch_add(events as u64, Ordering::Relaxed);
        seen.bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
}
