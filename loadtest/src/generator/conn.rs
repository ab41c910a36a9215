//! One keep-alive connection that sends requests, several of them in flight at once, and reads the responses in
//! order. HTTP is written by hand, because a client library would cost more than the gateway's own work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::body::Bodies;
use super::gzip::Gzip;
use super::response::{self, Answer};
use super::stats::{Sent, Shared, Stats};

/// How long a response may take before the connection counts as broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest sleep, so that a stop takes effect soon.
const NAP: Duration = Duration::from_millis(100);

/// The pause between two attempts to connect.
pub(super) const RECONNECT: Duration = Duration::from_millis(100);

/// How far ahead of the clock readings may be: a minute less than the gateway allows.
const AHEAD_US_MAX: i64 = 9 * 60 * 1_000_000;

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Schedule {
    /// As soon as the pipeline has room: a closed loop.
    Asap,
    /// At fixed times, whenever the responses come: an open loop.
    At {
        /// When this connection's first request is due.
        first: Instant,
        /// The time between two of its requests.
        every: Duration,
    },
}

/// One stream of readings on a connection.
#[derive(Debug)]
pub(crate) struct Source {
    /// The complete head of a request. It is the same for every uncompressed body, because all have one length.
    pub(crate) head: Vec<u8>,
    /// The same for HTTP/2.
    pub(crate) template: hyper::http::request::Parts,
    /// Compresses the bodies. `None` leaves them uncompressed.
    pub(crate) gzip: Option<Gzip>,
    pub(crate) bodies: Bodies,
    pub(crate) sent: Sent,
}

/// A request without a response yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) source: usize,
    position: u64,
    since: Instant,
}

/// The plan and the state of one connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) authority: String,
    /// One or two streams, which send in turns.
    pub(crate) sources: Vec<Source>,
    pub(crate) readings: u32,
    /// The run ends once each source has sent this many readings, or slightly more.
    pub(crate) positions: Option<u64>,
    pub(crate) pipeline: usize,
    pub(crate) schedule: Schedule,
    /// Notified when a request of an open loop is due.
    pub(crate) is_due: Arc<Notify>,
    pub(crate) until: Instant,
    pub(crate) stats: Stats,
    pub(crate) shared: Arc<Shared>,
    pub(crate) progress: Progress,
}

/// The progress of a connection.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    requests: u64,
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) output: Vec<u8>,
    input: Vec<u8>,
    paused_until: Option<Instant>,
    /// When the server last sent something, or should have begun to respond.
    heard: Option<Instant>,
}

impl Conn {
    /// Sends until the time is over, then waits for the outstanding responses.
    pub(crate) async fn run(mut self) -> Stats {
        while !self.is_over() {
            let outcome = match TcpStream::connect(&self.authority).await {
                Ok(mut socket) => self.drive(&mut socket).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                self.broken(error.to_string());
                tokio::time::sleep(RECONNECT).await;
            }
        }
        self.stats.sent = self.sources.iter().map(|source| source.sent).collect();
        self.stats
    }

    pub(super) fn is_over(&self) -> bool {
        self.stats.exhausted
            || self.shared.is_stopped()
            || self.is_sent()
            || Instant::now() >= self.until
    }

    /// Whether all rounds have been sent. The sources take turns, so the last one decides.
    fn is_sent(&self) -> bool {
        let sent = self
            .sources
            .last()
            .map_or(0, |source| source.sent.positions);
        self.positions.is_some_and(|positions| sent >= positions)
    }

    /// Counts the requests in flight as unknown, because the gateway may have accepted them.
    pub(super) fn broken(&mut self, error: String) {
        self.stats.breaks += 1;
        self.stats.error = Some(error);
        let progress = &mut self.progress;
        progress.output.clear();
        progress.input.clear();
        for request in progress.in_flight.drain(..) {
            self.sources[request.source].sent.unknown += u64::from(self.readings);
            let lost = u64::from(self.readings);
            self.shared.not_acked.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Uses one connection for as long as it works.
    async fn drive(&mut self, socket: &mut TcpStream) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        loop {
            let over = self.is_over();
            if over && self.progress.in_flight.is_empty() {
                return Ok(());
            }
            if !over {
                self.fill();
            }
            if !self.progress.output.is_empty() {
                socket.write_all(&self.progress.output).await?;
                self.progress.output.clear();
            }
            if self.progress.in_flight.is_empty() {
                self.rest().await;
                continue;
            }
            if !self.read(socket, over).await? {
                return Ok(());
            }
            // If responses always came at once, this connection would block all others on the thread.
            tokio::task::yield_now().await;
        }
    }

    /// Waits until there may be something to send.
    pub(super) async fn rest(&self) {
        tokio::select! {
            () = self.is_due.notified() => {}
            () = tokio::time::sleep_until(self.wake().into()) => {}
        }
    }

    /// When there may be something to send: the next scheduled request, or the end of a pause.
    fn wake(&self) -> Instant {
        let soon = Instant::now() + NAP;
        let due = self.due().unwrap_or(soon);
        let due = self
            .progress
            .paused_until
            .map_or(due, |pause| due.max(pause));
        due.min(soon)
    }

    /// When the next request is scheduled. `None` means that there is no schedule.
    fn due(&self) -> Option<Instant> {
        match self.schedule {
            Schedule::Asap => None,
            Schedule::At { first, every } => {
                // `Duration` can only be multiplied by a u32, which a long run exceeds.
                let after = every.as_nanos() * u128::from(self.progress.requests);
                Some(first + Duration::from_nanos(u64::try_from(after).unwrap_or(u64::MAX)))
            }
        }
    }

    /// Renders every request that is due and fits the pipeline.
    pub(super) fn fill(&mut self) {
        let now = Instant::now();
        if self.progress.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.progress.paused_until = None;
        while self.progress.in_flight.len() < self.pipeline && !self.is_sent() {
            let since = match self.due() {
                None => now,
                Some(due) if due <= now => due,
                Some(_) => return,
            };
            let source = self.progress.requests as usize % self.sources.len();
            let Source {
                head,
                gzip,
                bodies,
                sent,
                ..
            } = &mut self.sources[source];
            if bodies.next_at_us() > now_us() + AHEAD_US_MAX {
                self.stats.exhausted = true;
                return;
            }
            let position = bodies.position();
            let output = &mut self.progress.output;
            match gzip {
                None => {
                    output.extend_from_slice(head);
                    bodies.render(self.readings, output);
                }
                Some(gzip) => gzip.append(head, |out| bodies.render(self.readings, out), output),
            }
            sent.positions = bodies.position();
            if self.progress.in_flight.is_empty() {
                self.progress.heard = Some(now);
            }
            self.progress.in_flight.push_back(InFlight {
                source,
                position,
                since,
            });
            self.progress.requests += 1;
            self.stats.first_send.get_or_insert(now);
        }
    }

    /// Reads once and counts every complete response. `false` means that the server closes the connection.
    async fn read(&mut self, socket: &mut TcpStream, over: bool) -> std::io::Result<bool> {
        let room = !over && self.progress.in_flight.len() < self.pipeline;
        // In an open loop with room, the next request may be due before a response arrives.
        let wait = match self.due() {
            Some(due) if room => due.saturating_duration_since(Instant::now()).min(NAP),
            _ => ANSWER_TIMEOUT,
        };
        let read = async {
            tokio::select! {
                outcome = socket.read_buf(&mut self.progress.input) => Some(outcome),
                () = self.is_due.notified(), if room => None,
            }
        };
        match tokio::time::timeout(wait, read).await {
            Ok(None) => return Ok(true),
            Ok(Some(Ok(0))) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(Some(outcome)) => drop(outcome?),
            Err(_) if self.is_silent() => return Err(std::io::ErrorKind::TimedOut.into()),
            Err(_) => return Ok(true),
        }
        self.progress.heard = Some(Instant::now());
        let mut taken = 0;
        let mut open = true;
        let now = Instant::now();
        while let Some(answer) =
            response::parse(&self.progress.input[taken..]).map_err(std::io::Error::other)?
        {
            taken += answer.bytes;
            open &= !answer.closes;
            self.count(answer, now)?;
        }
        self.progress.input.drain(..taken);
        if !open && !self.progress.in_flight.is_empty() {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        Ok(open)
    }

    /// Whether a response has been outstanding for too long.
    fn is_silent(&self) -> bool {
        let heard = self.progress.heard;
        heard.is_some_and(|heard| heard.elapsed() >= ANSWER_TIMEOUT)
    }

    /// Counts one response towards the oldest request in flight, to which it belongs.
    pub(super) fn count(&mut self, answer: Answer, now: Instant) -> std::io::Result<()> {
        let Some(request) = self.progress.in_flight.pop_front() else {
            return Err(std::io::Error::other("an answer to no request"));
        };
        let readings = u64::from(self.readings);
        let accepted = answer.accepted.min(readings);
        let stats = &mut self.stats;
        let sent = &mut self.sources[request.source].sent;
        *stats.statuses.entry(answer.status).or_default() += 1;
        stats.requests += 1;
        stats.last_answer = Some(now);
        let latency = now.saturating_duration_since(request.since).as_micros();
        stats
            .latency_us
            .saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        match answer.status {
            200..=299 => {
                sent.acked += accepted;
                stats.rejected += readings - accepted;
                if accepted == readings {
                    sent.last_acked = Some((request.position, self.readings));
                }
                self.shared.acked.fetch_add(accepted, Ordering::Relaxed);
                return Ok(());
            }
            500..=599 => sent.unknown += readings,
            _ => stats.rejected += readings,
        }
        self.shared.not_acked.fetch_add(readings, Ordering::Relaxed);
        // A closed loop waits as long as the gateway asks; an open loop does not.
        if let (Some(wait), Schedule::Asap) = (answer.retry_after, self.schedule) {
            self.progress.paused_until = Some(now + wait);
        }
        Ok(())
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}
