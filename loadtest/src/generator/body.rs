//! Makes bodies of unique readings at little cost. A reading is rendered once, with digits of fixed width, and
//! each copy of it is patched with its own device and values.

use jiff::fmt::temporal::DateTimePrinter;

use super::order::{Devices, mix};

/// The two kinds of readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Meter,
    Vehicle,
}

impl Stream {
    /// Both, in the order of arrays indexed by [`Stream::index`].
    pub(crate) const ALL: [Stream; 2] = [Stream::Meter, Stream::Vehicle];

    pub(crate) const fn index(self) -> usize {
        match self {
            Stream::Meter => 0,
            Stream::Vehicle => 1,
        }
    }

    /// The name in paths.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Stream::Meter => "meter",
            Stream::Vehicle => "vehicle",
        }
    }

    /// The prefix of this generator's device ids. Six digits follow.
    pub(crate) const fn device_prefix(self) -> &'static str {
        match self {
            Stream::Meter => "LOAD-M-",
            Stream::Vehicle => "LOAD-V-",
        }
    }
}

/// The id of a device.
pub(crate) fn device_id(stream: Stream, device: u32) -> String {
    format!("{}{device:06}", stream.device_prefix())
}

/// The most devices of a stream: six digits.
pub(crate) const DEVICES_MAX: u32 = 1_000_000;

/// The format in which a body holds its readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One reading per line
    Ndjson,
    /// A JSON array
    Array,
    /// One reading, a JSON object
    Single,
}

impl Format {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Format::Ndjson => "application/x-ndjson",
            Format::Array | Format::Single => "application/json",
        }
    }
}

/// The times of readings. The first is at `start_us`, and each device's next one is an interval later.
///
/// The seed shifts the start by less than an interval, in microseconds. So two runs with different seeds never
/// send the same device and time, even if they overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) start_us: i64,
    pub(crate) interval_us: i64,
}

impl Clock {
    /// The clock of a run. The start is rounded down to a whole interval and shifted by the seed.
    pub(crate) fn new(start_us: i64, interval_us: i64, seed: u64) -> Self {
        let offset = i64::try_from(seed % interval_us.unsigned_abs().max(1)).unwrap_or(0);
        Clock {
            start_us: start_us - start_us.rem_euclid(interval_us) + offset,
            interval_us,
        }
    }

    pub(crate) fn at_us(&self, step: u64) -> i64 {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.start_us
            .saturating_add(step.saturating_mul(self.interval_us))
    }
}

/// The readings of a range of devices.
#[derive(Debug)]
pub(crate) struct Bodies {
    devices: Devices,
    clock: Clock,
    format: Format,
    seed: u64,
    /// A reading with the time of the last rendered step. All readings have the same width.
    line: Vec<u8>,
    line_step: Option<u64>,
    layout: Layout,
    /// How many readings were rendered since the start.
    position: u64,
}

/// The positions of the digits that change in a line.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Six digits.
    device: usize,
    /// Five digits after `0.0`, in kWh.
    energy: usize,
    /// Two digits of the voltage or the state of charge.
    value: usize,
    stamp: usize,
}

/// The form of all times: microseconds, UTC.
const STAMP_WIDTH: usize = "2026-01-01T00:00:00.000000Z".len();

/// A placeholder for patched digits. `#` occurs nowhere else in a line.
const ENERGY_MARK: &str = "#####";
const VALUE_MARK: &str = "##";

impl Bodies {
    /// Renders the line of which all readings are copies.
    pub(crate) fn new(
        stream: Stream,
        devices: Devices,
        clock: Clock,
        format: Format,
        seed: u64,
    ) -> Self {
        let line = template(stream, format);
        Bodies {
            devices,
            clock,
            format,
            seed,
            layout: Layout::of(stream, &line),
            line: line.into_bytes(),
            line_step: None,
            position: 0,
        }
    }

    /// The length in bytes of any body with this many readings.
    pub(crate) fn length(&self, readings: u32) -> usize {
        let lines = readings as usize * self.line.len();
        // In an array, the last comma becomes the closing bracket.
        lines + usize::from(self.format == Format::Array)
    }

    /// The position of the next reading in the sequence.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The time of the next reading.
    pub(crate) fn next_at_us(&self) -> i64 {
        self.clock.at_us(self.devices.at(self.position).1)
    }

    /// Appends a body with the next `readings` readings.
    ///
    /// Shape:  exactly [`Bodies::length`] bytes
    /// Order:  by time, then in the order of the devices
    pub(crate) fn render(&mut self, readings: u32, out: &mut Vec<u8>) {
        if self.format == Format::Array {
            out.push(b'[');
        }
        for _ in 0..readings {
            let (device, step) = self.devices.at(self.position);
            self.append(device, step, out);
            self.position += 1;
        }
        if self.format == Format::Array
            && let Some(last) = out.last_mut()
        {
            *last = b']';
        }
    }

    fn append(&mut self, device: u32, step: u64, out: &mut Vec<u8>) {
        let Layout {
            device: id,
            energy,
            value,
            stamp: time,
        } = self.layout;
        if self.line_step != Some(step) {
            self.line[time..time + STAMP_WIDTH].copy_from_slice(&stamp(self.clock.at_us(step)));
            self.line_step = Some(step);
        }
        let from = out.len();
        out.extend_from_slice(&self.line);
        let line = &mut out[from..];
        for (pair, number) in [device / 10_000, device / 100 % 100, device % 100]
            .into_iter()
            .enumerate()
        {
            let at = id + 2 * pair;
            line[at..at + 2].copy_from_slice(&PAIRS[number as usize]);
        }
        let random = mix(self.seed ^ step << 20 ^ u64::from(device));
        let [a, b, c] = [random % 100, random / 100 % 100, random / 10_000 % 10];
        line[energy] = b'0' + c as u8;
        line[energy + 1..energy + 3].copy_from_slice(&PAIRS[a as usize]);
        line[energy + 3..energy + 5].copy_from_slice(&PAIRS[b as usize]);
        // Without a leading zero, which JSON forbids.
        line[value..value + 2].copy_from_slice(&PAIRS[10 + (random >> 40) as usize % 90]);
    }
}

impl Layout {
    fn of(stream: Stream, line: &str) -> Self {
        let prefix = stream.device_prefix();
        let energy = line.find(ENERGY_MARK).unwrap_or(0);
        let after = energy + ENERGY_MARK.len();
        // The other value comes before or after the energy, depending on the stream.
        let value = line[..energy]
            .find(VALUE_MARK)
            .or_else(|| line[after..].find(VALUE_MARK).map(|at| at + after));
        Layout {
            device: line.find(prefix).unwrap_or(0) + prefix.len(),
            energy,
            value: value.unwrap_or(0),
            stamp: line
                .find("T#")
                .unwrap_or(0)
                .saturating_sub("2026-01-01".len()),
        }
    }
}

fn template(stream: Stream, format: Format) -> String {
    let device = device_id(stream, 0);
    let end = match format {
        Format::Ndjson => "\n",
        Format::Array => ",",
        Format::Single => "",
    };
    let time = "0000-00-00T#0:00:00.000000Z";
    match stream {
        Stream::Meter => format!(
            r#"{{"meterId":"{device}","kwhConsumedAc":0.0{ENERGY_MARK},"voltage":2{VALUE_MARK}.5,"timestamp":"{time}"}}{end}"#
        ),
        Stream::Vehicle => format!(
            r#"{{"vehicleId":"{device}","soc":{VALUE_MARK}.5,"kwhDeliveredDc":0.0{ENERGY_MARK},"batteryTemp":31.5,"timestamp":"{time}"}}{end}"#
        ),
    }
}

fn stamp(at_us: i64) -> Vec<u8> {
    let at = jiff::Timestamp::from_microsecond(at_us).unwrap_or_default();
    DateTimePrinter::new()
        .precision(Some(6))
        .timestamp_to_string(&at)
        .into_bytes()
}

/// The digits of 0 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::super::order::Order;
    use super::*;
    use serde_json::Value;
    use std::collections::HashMap;

    const START_US: i64 = 1_795_494_123_000_000;

    fn bodies(stream: Stream, count: u32, format: Format, seed: u64) -> Bodies {
        let clock = Clock::new(START_US, 1_000_000, seed);
        let devices = Devices::new(40, count, Order::Random, seed);
        Bodies::new(stream, devices, clock, format, seed)
    }

    fn readings(bodies: &mut Bodies, count: u32) -> Vec<Value> {
        let mut out = Vec::new();
        bodies.render(count, &mut out);
        assert_eq!(out.len(), bodies.length(count));
        match bodies.format {
            Format::Ndjson => out
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect(),
            Format::Array => serde_json::from_slice(&out).unwrap(),
            Format::Single => vec![serde_json::from_slice(&out).unwrap()],
        }
    }

    #[test]
    fn generated_readings_are_within_the_gateways_bounds() {
        for format in [Format::Ndjson, Format::Array, Format::Single] {
            let count = if format == Format::Single { 1 } else { 25 };
            let meter = readings(&mut bodies(Stream::Meter, 10, format, 7), count);
            assert_eq!(meter.len(), count as usize);
            let mut ids: Vec<&str> = meter[..(count as usize).min(10)]
                .iter()
                .filter_map(|reading| reading["meterId"].as_str())
                .collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), (count as usize).min(10));
            assert!(("LOAD-M-000040".."LOAD-M-000050").contains(&ids[0]));
            assert!((200.0..300.0).contains(&meter[0]["voltage"].as_f64().unwrap()));
            let vehicle = readings(&mut bodies(Stream::Vehicle, 10, format, 7), count);
            let of = |name: &str| vehicle[0][name].as_f64().unwrap();
            assert!(
                (0.0..=100.0).contains(&of("soc")) && (0.0..0.1).contains(&of("kwhDeliveredDc"))
            );
        }
    }

    #[test]
    fn no_device_and_time_comes_twice_and_times_increase() {
        let mut bodies = bodies(Stream::Meter, 7, Format::Ndjson, 7);
        let mut last: HashMap<String, jiff::Timestamp> = HashMap::new();
        for _ in 0..20 {
            for reading in readings(&mut bodies, 5) {
                let at: jiff::Timestamp = reading["timestamp"].as_str().unwrap().parse().unwrap();
                let device = reading["meterId"].as_str().unwrap().to_owned();
                let before = last.insert(device, at);
                assert!(before.is_none_or(|before| before < at));
            }
        }
        assert_eq!(last.len(), 7);
        assert_eq!(bodies.position(), 100);
    }

    #[test]
    fn a_position_determines_the_next_reading() {
        let mut bodies = bodies(Stream::Meter, 7, Format::Ndjson, 7);
        drop(readings(&mut bodies, 10));
        let position = bodies.position();
        let at_us = bodies.next_at_us();
        let next = readings(&mut bodies, 1).remove(0);
        let (device, step) = bodies.devices.at(position);
        assert_eq!(next["meterId"], device_id(Stream::Meter, device).as_str());
        let at: jiff::Timestamp = next["timestamp"].as_str().unwrap().parse().unwrap();
        assert_eq!(at.as_microsecond(), at_us);
        assert_eq!(at_us, bodies.clock.at_us(step));
    }

    #[test]
    fn runs_with_different_seeds_share_no_time() {
        let one = Clock::new(START_US, 1_000_000, 1);
        let two = Clock::new(START_US + 5_400_000, 1_000_000, 2);
        let times: Vec<i64> = (0..100).map(|step| one.at_us(step)).collect();
        assert!((0..100).all(|step| !times.contains(&two.at_us(step))));
    }
}
