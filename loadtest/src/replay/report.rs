//! The comparison: each session's AC energy in the data and in the gateway.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use serde_json::{Value, json};

use super::DERIVED;
use super::client::{CallError, Client, Repeats};
use super::send::{Entry, Sender, Tally, escape, get};
use crate::verdict::Verdict;
use wattgate_sessions::body::rfc3339;

/// How far the gateway's energy may be off, kWh.
const TOLERANCE_KWH: f64 = 0.001;

/// How often to ask the gateway while its result differs.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// One session, with the data's energy and the gateway's.
#[derive(Debug, Clone)]
struct Row {
    station: String,
    vehicle: String,
    session: String,
    /// The local date of the arrival, and by how much it was moved.
    day: (Date, i64),
    start_us: i64,
    /// The session's end or, if it is open, its last reading.
    until_us: i64,
    running: bool,
    data_kwh: f64,
    /// `None` means that the gateway has no result.
    gateway_kwh: Option<f64>,
    dc_kwh: Option<f64>,
    ratio: Option<f64>,
    status: String,
    quality: Value,
}

impl Row {
    fn difference_kwh(&self) -> f64 {
        (self.gateway_kwh.unwrap_or(0.0) - self.data_kwh).abs()
    }

    fn is_right(&self) -> bool {
        self.gateway_kwh.is_some() && self.difference_kwh() <= TOLERANCE_KWH
    }
}

/// All sessions by station and start, and the counts of the replay.
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    tally: Tally,
    repeats: Repeats,
}

/// Asks the gateway for the energy of every replayed session.
///
/// Blocks: until all results agree, or for at most `settle` plus one request per session
pub(crate) async fn ask(
    client: &mut Client,
    sender: &Sender,
    settle: Duration,
) -> Result<Report, CallError> {
    let deadline = Instant::now() + settle;
    let mut rows = Vec::new();
    for entry in sender.entries() {
        let Some(mut row) = Row::of(entry) else {
            continue;
        };
        loop {
            row.ask(client).await?;
            if row.is_right() || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        rows.push(row);
    }
    rows.sort_by(|a, b| (&a.station, a.start_us).cmp(&(&b.station, b.start_us)));
    Ok(Report {
        rows,
        tally: sender.tally().clone(),
        repeats: sender.repeats(),
    })
}

impl Row {
    /// A session's row as far as the data goes. `None` means that it has no reading yet.
    fn of(entry: &Entry) -> Option<Self> {
        let booking = &entry.booking;
        let last = entry.last?;
        let data_kwh = if entry.ended {
            booking.stay.energy_kwh
        } else {
            entry.ac_micro_kwh as f64 / 1e6
        };
        Some(Row {
            station: booking.stay.station_id.clone(),
            vehicle: booking.vehicle_id.clone(),
            session: booking.session_id.clone(),
            day: (booking.stay.day, booking.shift_us),
            start_us: booking.start_us(),
            until_us: last.at_us + booking.shift_us,
            running: !entry.ended,
            data_kwh,
            gateway_kwh: None,
            dc_kwh: None,
            ratio: None,
            status: String::new(),
            quality: Value::Null,
        })
    }

    async fn ask(&mut self, client: &mut Client) -> Result<(), CallError> {
        let path = format!(
            "/v1/analytics/performance/{}?from={}&to={}",
            escape(&self.vehicle),
            escape(&rfc3339(self.start_us)),
            escape(&rfc3339(self.until_us)),
        );
        let answer = get(client, &path).await?;
        if !answer.status.is_success() {
            self.gateway_kwh = None;
            self.status = answer.status.as_str().to_owned();
            return Ok(());
        }
        let json = answer.json();
        self.gateway_kwh = json["totalEnergyConsumedAc"].as_f64();
        self.dc_kwh = json["totalEnergyDeliveredDc"].as_f64();
        self.ratio = json["efficiencyRatio"].as_f64();
        self.status = json["efficiencyStatus"].as_str().unwrap_or("?").to_owned();
        self.quality = json["quality"].clone();
        Ok(())
    }
}

/// The sums over all rows.
struct Totals {
    data_kwh: f64,
    gateway_kwh: f64,
    /// The energy if each session were credited with everything that its station delivered on the day of its
    /// arrival.
    whole_days_kwh: f64,
    stations: usize,
    shared: usize,
    wrong: usize,
    running: usize,
    max_difference_kwh: f64,
}

impl Totals {
    /// By how many percent an energy exceeds the data's.
    fn off_percent(&self, kwh: f64) -> f64 {
        if self.data_kwh > 0.0 {
            100.0 * (kwh - self.data_kwh) / self.data_kwh
        } else {
            0.0
        }
    }
}

impl Report {
    /// Right if every session's energy agrees and no reading or session was rejected.
    pub(crate) fn verdict(&self) -> Verdict {
        let agrees = self.rows.iter().all(Row::is_right) && !self.rows.is_empty();
        if agrees && self.tally.rejected == 0 && self.tally.conflicts == 0 {
            Verdict::Right
        } else {
            Verdict::Wrong
        }
    }

    fn totals(&self) -> Totals {
        let mut stations: HashMap<&str, u32> = HashMap::new();
        for row in &self.rows {
            *stations.entry(&row.station).or_default() += 1;
        }
        let mut days: HashMap<_, f64> = HashMap::new();
        for row in &self.rows {
            *days.entry((&row.station, row.day)).or_default() += row.data_kwh;
        }
        let of_day = |row: &Row| days.get(&(&row.station, row.day)).copied();
        Totals {
            whole_days_kwh: self.rows.iter().filter_map(of_day).sum(),
            data_kwh: self.rows.iter().map(|row| row.data_kwh).sum(),
            gateway_kwh: self.rows.iter().filter_map(|row| row.gateway_kwh).sum(),
            stations: stations.len(),
            shared: stations.values().filter(|sessions| **sessions > 1).count(),
            wrong: self.rows.iter().filter(|row| !row.is_right()).count(),
            running: self.rows.iter().filter(|row| row.running).count(),
            max_difference_kwh: self
                .rows
                .iter()
                .map(Row::difference_kwh)
                .fold(0.0, f64::max),
        }
    }

    /// The report as JSON.
    pub(crate) fn to_json(&self, left_out: &[(String, String)]) -> Value {
        let totals = self.totals();
        let row = |row: &Row| {
            json!({
                "station": row.station,
                "vehicle": row.vehicle,
                "session": row.session,
                "from": rfc3339(row.start_us),
                "to": rfc3339(row.until_us),
                "stillCharging": row.running,
                "dataAcKwh": row.data_kwh,
                "gatewayAcKwh": row.gateway_kwh,
                "gatewayDcKwh": row.dc_kwh,
                "efficiencyRatio": row.ratio,
                "efficiencyStatus": row.status,
                "quality": row.quality,
                "differenceKwh": row.difference_kwh(),
                "right": row.is_right(),
            })
        };
        json!({
            "right": self.verdict() == Verdict::Right,
            "derived": DERIVED,
            "totals": {
                "sessions": self.rows.len(),
                "stations": totals.stations,
                "stationsShared": totals.shared,
                "dataAcKwh": totals.data_kwh,
                "gatewayAcKwh": totals.gateway_kwh,
                "differencePercent": totals.off_percent(totals.gateway_kwh),
                "wholeStationDaysKwh": totals.whole_days_kwh,
                "wholeStationDaysPercent": totals.off_percent(totals.whole_days_kwh),
                "maxDifferenceKwh": totals.max_difference_kwh,
                "sessionsWrong": totals.wrong,
                "readingsSent": self.tally.sent,
                "readingsAccepted": self.tally.accepted,
                "readingsRefused": self.tally.rejected,
                "sessionsRefused": self.tally.conflicts,
                "repeatedAfterRefusal": self.repeats.refused,
                "repeatedAfterBreak": self.repeats.broken,
            },
            "sessions": self.rows.iter().map(row).collect::<Vec<_>>(),
            "leftOut": left_out
                .iter()
                .map(|(session, reason)| json!({"session": session, "reason": reason}))
                .collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    /// The table, its totals, and a note on derived values.
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |cell: fn(&Row) -> &str, least: usize| {
            let widest = self.rows.iter().map(|row| cell(row).chars().count()).max();
            widest.unwrap_or(0).max(least)
        };
        let station = width(|row| &row.station, 7);
        let vehicle = width(|row| &row.vehicle, 7);
        writeln!(
            text,
            "{:station$}  {:vehicle$}  {:>12}  {:>12}  {:>10}  {:>12}  {:>6}  status",
            "station", "vehicle", "data AC kWh", "gateway AC", "difference", "gateway DC", "ratio",
        )?;
        for row in &self.rows {
            let mark = if row.is_right() { "" } else { "  WRONG" };
            let running = if row.running { ", still charging" } else { "" };
            writeln!(
                text,
                "{:station$}  {:vehicle$}  {:>12.6}  {:>12}  {:>10.6}  {:>12}  {:>6}  {}{running}{mark}",
                row.station,
                row.vehicle,
                row.data_kwh,
                number(row.gateway_kwh, 6),
                row.difference_kwh(),
                number(row.dc_kwh, 6),
                number(row.ratio, 2),
                row.status,
            )?;
        }
        self.fmt_totals(text)
    }
}

impl Report {
    fn fmt_totals(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = self.totals();
        writeln!(
            text,
            "\n{} sessions at {} stations, {} of them shared by several vehicles{}\n\
             AC of the data {:.6} kWh, of the gateway {:.6} kWh ({:+.4}%), largest difference of a \
             session {:.6} kWh\n\
             if each session were credited with its station's whole day: {:.6} kWh ({:+.1}%)\n\
             {} readings sent, {} accepted, {} refused; {} sessions refused; requests repeated after \
             a refusal {}, after a broken connection {}",
            self.rows.len(),
            totals.stations,
            totals.shared,
            match totals.running {
                0 => String::new(),
                running => format!("; {running} still charging"),
            },
            totals.data_kwh,
            totals.gateway_kwh,
            totals.off_percent(totals.gateway_kwh),
            totals.max_difference_kwh,
            totals.whole_days_kwh,
            totals.off_percent(totals.whole_days_kwh),
            self.tally.sent,
            self.tally.accepted,
            self.tally.rejected,
            self.tally.conflicts,
            self.repeats.refused,
            self.repeats.broken,
        )?;
        writeln!(text, "{DERIVED}")?;
        let verdict = match (self.verdict(), totals.wrong) {
            (Verdict::Right, _) => "every session agrees".to_owned(),
            (Verdict::Wrong, 0) => "WRONG: readings or sessions were refused".to_owned(),
            (Verdict::Wrong, wrong) => {
                format!("WRONG: {wrong} sessions differ by more than {TOLERANCE_KWH} kWh")
            }
        };
        writeln!(text, "{verdict}")
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
