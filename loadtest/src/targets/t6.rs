//! T6: the database stops under load, and then the gateway catches up.

#![expect(
    clippy::disallowed_methods,
    reason = "this tool polls another process, on threads of its own that delay no stop"
)]

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::TargetsError;
use super::cases::{RATE, Run};
use super::gateway::Gateway;
use super::plot;
use super::table::{Row, Target};
use crate::generator;

/// The gateway has caught up when fewer readings wait than arrive in a second.
const CAUGHT_UP_READINGS: f64 = RATE;

impl Run<'_> {
    /// Stops the database for a while under load, and measures how the gateway catches up.
    pub(super) fn t6(&mut self) -> Result<(), TargetsError> {
        let gateway = self.fresh()?;
        gateway.take_memory();
        let outage = Duration::from_secs(self.options().outage_seconds);
        // Enough time to catch up at twice the arrival rate, and a margin to see it.
        let seconds = 2 + self.options().outage_seconds * 2 + 5;
        let (loaded, caught) = std::thread::scope(|scope| {
            let load = scope.spawn(|| self.load(&gateway, seconds, &["--rate", &RATE.to_string()]));
            let caught = catch_up(&gateway, outage, Duration::from_secs(seconds) - outage);
            let loaded = load.join();
            let loaded = loaded.map_err(|_| TargetsError::Load(generator::RunError::Thread))?;
            Ok::<_, TargetsError>((loaded?, caught?))
        })?;
        gateway.wait_stored()?;
        let memory = gateway.take_memory();
        gateway.stop()?;
        let Caught {
            stopped,
            went_on,
            stored,
            took,
        } = caught;
        let not_taken = loaded.not_taken();
        let what = format!(
            "{} s without the database under {RATE:.0} readings/s, {not_taken} not accepted: stored while catching up for {:.1} s",
            outage.as_secs(),
            took.as_secs_f64()
        );
        self.push(Row {
            unit: "stored/s",
            limit: Some(("arrivals".to_owned(), RATE)),
            target: Target::RatioAtLeast(2.5),
            is_right: loaded.is_right() && not_taken == 0,
            detail: loaded.to_json(),
            ..self.row("T6", what, stored / took.as_secs_f64())
        });
        self.push_memory("with the database stopped, and catching up", &memory);
        let title = format!("Resident memory under {RATE:.0} readings/s");
        if self.is_embedded() {
            self.set_plot(plot::memory(&title, &memory, stopped..went_on));
        }
        Ok(())
    }
}

/// The measurements of an outage.
struct Caught {
    stopped: Instant,
    went_on: Instant,
    /// Readings stored while catching up.
    stored: f64,
    took: Duration,
}

/// Stops the database for a while, resumes it, and waits until the gateway has caught up.
fn catch_up(gateway: &Gateway, outage: Duration, within: Duration) -> Result<Caught, TargetsError> {
    let sleep = |time| std::thread::sleep(time);
    // The measurement needs these periods: a second of calm, then the outage.
    sleep(Duration::from_secs(1));
    gateway.signal_database(Signal::STOP)?;
    let stopped = Instant::now();
    sleep(outage);
    let before = gateway.metric("wattgate_readings_stored_total", "");
    gateway.signal_database(Signal::CONT)?;
    let began = Instant::now();
    while gateway.metric("wattgate_wal_readings", "") > CAUGHT_UP_READINGS
        && began.elapsed() < within
    {
        sleep(Duration::from_millis(50));
    }
    let took = began.elapsed();
    let after = gateway.metric("wattgate_readings_stored_total", "");
    Ok(Caught {
        stopped,
        went_on: began,
        stored: after - before,
        took,
    })
}
