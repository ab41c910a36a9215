//! T11: a fleet. Each device sends once per round, in random order, so that each batch has devices from all over
//! the fleet.

use super::TargetsError;
use super::cases::{RATE, Run};
use super::gateway::Gateway;
use super::loaded::Loaded;
use super::table::{Row, Target};
use crate::limits::copy::Shape;

/// Devices of the smallest fleet, with which the others are compared.
const SMALL: u32 = 20_000;

/// Devices of the fleets.
const FLEETS: [u32; 2] = [100_000, 1_000_000];

/// About how many devices per millisecond the gateway accepts at full speed. It determines the length of a round, so
/// that the readings' timestamps are close to the present.
const DEVICES_PER_MS: u32 = 400;

impl Run<'_> {
    pub(super) fn t11(&mut self) -> Result<(), TargetsError> {
        let (gateway, small) = self.fleet(SMALL)?;
        gateway.stop()?;
        self.push(Row {
            unit: "committed/s",
            is_right: small.is_right(),
            detail: small.to_json(),
            ..self.row("T11", what(SMALL), small.committed())
        });
        for devices in FLEETS {
            let (gateway, loaded) = self.fleet(devices)?;
            self.open_loop(&gateway, devices)?;
            gateway.stop()?;
            let shape = Shape::fleet(devices);
            let copied = self.copied(shape, loaded.acked())?;
            let row = Row {
                unit: "committed/s",
                is_right: loaded.is_right(),
                detail: loaded.to_json(),
                ..self.row("T11", what(devices), loaded.committed())
            };
            if devices == FLEETS[1] {
                self.push(Row {
                    limit: Some((format!("at {SMALL}"), small.committed())),
                    target: Target::RatioAtLeast(0.7),
                    ..row.clone()
                });
            }
            self.push(Row {
                limit: Some((shape.name(), copied.per_second())),
                target: Target::RatioAtLeast(1.1),
                ..row
            });
            self.push_server_time("T11", what(devices), &loaded, Target::Shown);
        }
        Ok(())
    }

    /// Lets a fleet send as fast as possible. A first round, which does not count, registers its devices.
    fn fleet(&mut self, devices: u32) -> Result<(Gateway, Loaded), TargetsError> {
        let gateway = self.fresh()?;
        let interval = (devices / DEVICES_PER_MS).to_string();
        let load = |run: &Self, more: &[&str]| {
            let count = devices.to_string();
            let fleet = ["--devices", &count, "--order", "random"];
            let dated = ["--start", "now", "--interval-ms", &interval];
            let arguments: Vec<&str> = fleet.iter().chain(&dated).chain(more).copied().collect();
            run.load(&gateway, run.seconds(), &arguments)
        };
        load(self, &["--rounds", "1"])?;
        let loaded = load(self, &[])?;
        Ok((gateway, loaded))
    }

    /// Lets the same fleet send at a fixed rate, each reading with the time of sending.
    fn open_loop(&mut self, gateway: &Gateway, devices: u32) -> Result<(), TargetsError> {
        let rate = RATE.to_string();
        let round_ms = (f64::from(devices) / RATE * 1000.0).to_string();
        let count = devices.to_string();
        let arguments = [
            "--devices",
            &count,
            "--order",
            "random",
            "--start",
            "now",
            "--interval-ms",
            &round_ms,
            "--rate",
            &rate,
        ];
        let lag = gateway.lag();
        let loaded = self.load(gateway, self.seconds(), &arguments)?;
        let lag = gateway.lag().since(lag);
        let what = format!("{}, {RATE:.0} readings/s", what(devices));
        let targets = [Target::Shown, Target::AtLeast(100.0)];
        self.push_open_loop("T11", &what, &loaded, lag, targets);
        Ok(())
    }
}

fn what(devices: u32) -> String {
    format!("{devices} devices once per round in random order, 500 per request")
}
