//! T13: a long history is rolled up while readings arrive.

#![expect(
    clippy::disallowed_methods,
    reason = "this tool polls another process, on threads of its own that delay no stop"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::TargetsError;
use super::cases::{OPEN_LOOP, RATE, Run};
use super::database::query_pids;
use super::gateway::Gateway;
use super::t7::is_rolled_up;
use super::table::{Row, Target};
use crate::{generator, processor};

/// How long the rollup may take.
const HOUR: Duration = Duration::from_secs(3600);

/// How often to read the progress, and the CPU time of its sessions.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const SESSIONS: &str = include_str!("../../sql/rollup_sessions.sql");

/// The progress of the rollup.
struct Watched {
    /// The time until it had caught up. `None` means that it did not within an hour.
    took: Option<Duration>,
    watched: Duration,
    /// CPU time of its sessions, in seconds.
    spent: f64,
}

impl Run<'_> {
    pub(super) fn t13(&mut self) -> Result<(), TargetsError> {
        let gateway = self.fresh()?;
        let shape = self.fill(&gateway)?;
        let lag = gateway.lag();
        let stop = Arc::new(AtomicBool::new(false));
        let (loaded, watched) = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let rate = RATE.to_string();
                // 20,000 devices at 100,000/s: a round in real time.
                let more = ["--rate", &rate, "--start", "now", "--interval-ms", "200"];
                self.load_until(&gateway, HOUR.as_secs(), &more, &stop)
            });
            let watched = watch(&gateway, shape.start_us(), self.seconds());
            stop.store(true, Ordering::Relaxed);
            let loaded = load.join().map_err(|_| generator::RunError::Thread)?;
            Ok::<_, TargetsError>((loaded?, watched?))
        })?;
        let lag = gateway.lag().since(lag);
        gateway.stop()?;
        let what = format!(
            "{} readings of {} devices rolled up, {RATE:.0} readings/s arriving",
            shape.rows, shape.devices
        );
        let took = watched
            .took
            .map_or(f64::INFINITY, |took| took.as_secs_f64());
        self.push(Row {
            unit: "min",
            target: Target::AtMost(60.0),
            is_right: loaded.is_right(),
            detail: json!({
                "rowsPerSecond": shape.rows as f64 / took,
                "sessionsSeconds": watched.spent,
                "serverSeconds": loaded.spent().server,
            }),
            ..self.row("T13", format!("{what}: caught up"), took / 60.0)
        });
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let all = watched.watched.as_secs_f64() * cores as f64;
        self.push(Row {
            unit: "%",
            target: Target::AtMost(5.0),
            ..self.row(
                "T13",
                format!("{what}: the rollup's share of all processors"),
                100.0 * watched.spent / all,
            )
        });
        self.push_open_loop("T13", &what, &loaded, lag, OPEN_LOOP);
        Ok(())
    }
}

/// Waits until the history is rolled up, for at least `seconds` and at most an hour.
fn watch(gateway: &Gateway, start_us: i64, seconds: u64) -> Result<Watched, TargetsError> {
    let began = Instant::now();
    let mut took = None;
    // A session that has ended keeps the last time that was read.
    let mut sessions: HashMap<i32, (f64, f64)> = HashMap::new();
    while began.elapsed() < HOUR {
        for pid in query_pids(&gateway.database_url, SESSIONS)? {
            let now = processor::of(pid);
            let (_, last) = sessions.entry(pid).or_insert((now, now));
            *last = now;
        }
        if took.is_none() && is_rolled_up(gateway, start_us) {
            took = Some(began.elapsed());
        }
        if took.is_some() && began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(Watched {
        took,
        watched: took.unwrap_or_else(|| began.elapsed()),
        spent: sessions.values().map(|(first, last)| last - first).sum(),
    })
}
