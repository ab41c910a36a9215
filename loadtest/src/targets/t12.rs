//! T12: what late readings cost the server when their hours are already rolled up.

use super::TargetsError;
use super::cases::{RATE, Run};
use super::gateway::Gateway;
use super::loaded::Loaded;
use super::t7::{instant, wait_rolled_up};
use super::table::{Row, Target};

/// How late they are: slightly more than a day, so that they fall into one or two hours.
const LATE_US: i64 = 24 * 3600 * 1_000_000;

/// How often both kinds are sent, in turns.
const TURNS: usize = 2;

/// Devices of the load.
const DEVICES: u32 = 20_000;

impl Run<'_> {
    pub(super) fn t12(&mut self) -> Result<(), TargetsError> {
        let gateway = self.fresh()?;
        let late_us = jiff::Timestamp::now().as_microsecond() - LATE_US;
        // Creates the hours and lets them be rolled up.
        self.dated(&gateway, late_us, &["--rounds", "1"])?;
        wait_rolled_up(&gateway, late_us)?;
        let (mut now, mut late) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let now_us = jiff::Timestamp::now().as_microsecond();
            now.push(self.costs(&gateway, now_us, late_us)?);
            late.push(self.costs(&gateway, now_us - LATE_US, late_us)?);
        }
        gateway.stop()?;
        let is_right = now.iter().chain(&late).all(|cost| cost.loaded.is_right());
        let detail = |costs: &[Cost]| costs.iter().map(|cost| cost.loaded.to_json()).collect();
        self.push(Row {
            unit: "µs/reading",
            limit: Some(("readings of now".to_owned(), mean_us(&now))),
            target: Target::RatioAtMost(1.2),
            is_right,
            detail: serde_json::json!({
                "now": serde_json::Value::Array(detail(&now)),
                "late": serde_json::Value::Array(detail(&late)),
            }),
            ..self.row(
                "T12",
                format!(
                    "readings a day old of rolled-up hours, {RATE:.0}/s, until they are rolled up again: server's \
                     processor time"
                ),
                mean_us(&late),
            )
        });
        Ok(())
    }

    fn dated(&self, gateway: &Gateway, at_us: i64, more: &[&str]) -> Result<Loaded, TargetsError> {
        let (start, rate, devices) = (instant(at_us), RATE.to_string(), DEVICES.to_string());
        // A round in real time.
        let round_ms = (f64::from(DEVICES) / RATE * 1000.0).to_string();
        let mut arguments = vec![
            "--devices",
            &devices,
            "--order",
            "random",
            "--start",
            &start,
            "--interval-ms",
            &round_ms,
            "--rate",
            &rate,
        ];
        arguments.extend(more);
        self.load(gateway, self.seconds(), &arguments)
    }

    /// The server's CPU time for a load, until the hours that it made dirty are rolled up again.
    fn costs(&self, gateway: &Gateway, at_us: i64, since_us: i64) -> Result<Cost, TargetsError> {
        let loaded = self.dated(gateway, at_us, &[])?;
        let before = gateway.spent().server;
        wait_rolled_up(gateway, since_us)?;
        let after = gateway.spent().server;
        Ok(Cost {
            seconds: loaded.spent().server + after - before,
            loaded,
        })
    }
}

struct Cost {
    loaded: Loaded,
    /// CPU time of the server.
    seconds: f64,
}

fn mean_us(costs: &[Cost]) -> f64 {
    let seconds: f64 = costs.iter().map(|cost| cost.seconds).sum();
    let readings: u64 = costs.iter().map(|cost| cost.loaded.acked()).sum();
    seconds * 1e6 / readings.max(1) as f64
}
