//! Reads the sessions of a CSV file as they were recorded.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use jiff::civil::Date;

/// The longest id that the gateway accepts, in characters.
const ID_CHARS_MAX: usize = 64;

/// How much longer ids are in a live replay: `@` and the start in seconds since 1970.
const ID_SUFFIX_CHARS: usize = 11;

/// The highest plausible mean power of a charging stay, in kW, which is above any AC charger. A row with more is a
/// recording error.
const MEAN_KW_MAX: f64 = 50.0;

/// One stay at a charging station, as measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Stay {
    /// The session's id in the data.
    pub session_id: String,
    /// The charging station's id in the data.
    pub station_id: String,
    /// Microseconds since 1970 UTC.
    pub start_us: i64,
    /// Microseconds since 1970 UTC, after the start.
    pub end_us: i64,
    /// The local date of the arrival, by the offset in the file.
    pub day: Date,
    /// AC energy measured by the station's meter, kWh, as written.
    pub energy_kwh: f64,
}

impl Stay {
    /// The energy in millionths of a kWh, rounded half away from zero. The readings add up to exactly this.
    pub fn energy_micro_kwh(&self) -> i64 {
        (self.energy_kwh * 1e6).round() as i64
    }

    /// The length of the stay, in seconds.
    pub fn seconds(&self) -> f64 {
        (self.end_us - self.start_us) as f64 / 1e6
    }
}

/// The sessions of a file, and the ones left out with their reasons.
#[derive(Debug, Default)]
pub struct Recording {
    /// By start. No two overlap at one station, and no id occurs twice.
    pub stays: Vec<Stay>,
    /// The session id and the reason.
    pub left_out: Vec<(String, String)>,
}

/// Why a file of sessions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It is not CSV.
    #[error("the file of sessions: {0}")]
    Csv(#[from] csv::Error),
    /// A column is missing.
    #[error("the file of sessions has no column `{0}`")]
    Column(&'static str),
    /// A value cannot be parsed.
    #[error("line {line}: `{value}` is not a {what}")]
    Value {
        /// The line of the file, from 1.
        line: u64,
        /// The expected kind of value.
        what: &'static str,
        /// The value.
        value: String,
    },
}

/// Reads every row, in the order of the file.
///
/// # Errors
/// [`DataError`]: the file has another format.
pub fn parse(input: impl Read) -> Result<Vec<Stay>, DataError> {
    let mut reader = csv::Reader::from_reader(input);
    let headers = reader.headers()?.clone();
    let column = |name: &'static str| {
        headers
            .iter()
            .position(|header| header.trim() == name)
            .ok_or(DataError::Column(name))
    };
    let arrival = column("arrival")?;
    let departure = column("departure")?;
    let energy = column("delivered_energy (kWh)")?;
    let station = column("station_id")?;
    let session = column("session_id")?;
    let mut stays = Vec::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let text = |index: usize| record.get(index).unwrap_or_default().trim();
        let wrong = |what, index| DataError::Value {
            line,
            what,
            value: text(index).to_owned(),
        };
        let instant = |index| {
            text(index)
                .parse::<jiff::Timestamp>()
                .map(jiff::Timestamp::as_microsecond)
                .map_err(|_| wrong("time with an offset", index))
        };
        stays.push(Stay {
            session_id: text(session).to_owned(),
            station_id: text(station).to_owned(),
            start_us: instant(arrival)?,
            end_us: instant(departure)?,
            day: text(arrival)
                .get(..10)
                .and_then(|date| date.parse().ok())
                .ok_or_else(|| wrong("date", arrival))?,
            energy_kwh: text(energy)
                .parse()
                .ok()
                .filter(|kwh: &f64| kwh.is_finite())
                .ok_or_else(|| wrong("number of kWh", energy))?,
        });
    }
    Ok(stays)
}

/// Sorts the stays by start. Leaves out those that overlap at a meter or are implausible, each with its reason.
pub fn select(mut stays: Vec<Stay>) -> Recording {
    stays.sort_by(|a, b| (a.start_us, &a.session_id).cmp(&(b.start_us, &b.session_id)));
    let mut recording = Recording::default();
    let mut busy_until: HashMap<String, (i64, String)> = HashMap::new();
    let mut known: HashSet<String> = HashSet::new();
    for stay in stays {
        let reason = refusal(&stay).or_else(|| {
            if known.contains(&stay.session_id) {
                return Some("its session id occurs twice in the file".to_owned());
            }
            busy_until
                .get(&stay.station_id)
                .filter(|(until_us, _)| *until_us > stay.start_us)
                .map(|(_, other)| format!("overlaps {other} at {}", stay.station_id))
        });
        if let Some(reason) = reason {
            recording.left_out.push((stay.session_id, reason));
            continue;
        }
        known.insert(stay.session_id.clone());
        busy_until.insert(
            stay.station_id.clone(),
            (stay.end_us, stay.session_id.clone()),
        );
        recording.stays.push(stay);
    }
    recording
}

/// Why a stay cannot be replayed, apart from overlaps. `None` means that it can.
fn refusal(stay: &Stay) -> Option<String> {
    let id_fits = |id: &str, max: usize| (1..=max).contains(&id.chars().count());
    if !id_fits(&stay.session_id, ID_CHARS_MAX - ID_SUFFIX_CHARS) {
        return Some("its session id is empty or too long".to_owned());
    }
    if !id_fits(&stay.station_id, ID_CHARS_MAX) {
        return Some("its station id is empty or too long".to_owned());
    }
    if stay.end_us <= stay.start_us {
        return Some("it ends before it starts".to_owned());
    }
    if stay.energy_kwh < 0.0 {
        return Some("its energy is negative".to_owned());
    }
    let mean_kw = stay.energy_kwh * 3600.0 / stay.seconds();
    if mean_kw > MEAN_KW_MAX {
        return Some(format!("a mean power of {mean_kw:.0} kW is not plausible"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "arrival,departure,delivered_energy (kWh),station_id,session_id\n";

    #[test]
    fn the_day_holds_86_sessions_at_52_stations() {
        let recording = select(parse(crate::DAY_OF_JPL).unwrap());
        assert_eq!(recording.stays.len(), 86);
        assert!(recording.left_out.is_empty());
        let mut stations: HashMap<&str, u32> = HashMap::new();
        for stay in &recording.stays {
            *stations.entry(&stay.station_id).or_default() += 1;
            assert_eq!(stay.day.to_string(), "2019-05-03");
        }
        assert_eq!(stations.len(), 52);
        assert_eq!(stations.values().filter(|n| **n > 1).count(), 27);
        let micro: i64 = recording.stays.iter().map(Stay::energy_micro_kwh).sum();
        assert_eq!(micro, 1_157_065_000);
    }

    #[test]
    fn times_are_read_with_their_own_offset() {
        let rows = format!("{HEAD}2019-11-03 00:30:00-07:00,2019-11-03 01:30:00-08:00,1.5,S1,a\n");
        let stays = parse(rows.as_bytes()).unwrap();
        assert_eq!(stays[0].seconds(), 7200.0);
        assert_eq!(stays[0].day.to_string(), "2019-11-03");
    }

    #[test]
    fn what_cannot_be_replayed_is_left_out_with_a_reason() {
        let rows = format!(
            "{HEAD}2019-05-03 08:00:00-07:00,2019-05-03 09:00:00-07:00,1.5,S1,first\n\
             2019-05-03 09:00:00-07:00,2019-05-03 10:00:00-07:00,1.5,S1,touches\n\
             2019-05-03 09:30:00-07:00,2019-05-03 11:00:00-07:00,1.5,S1,overlaps\n\
             2019-05-03 12:00:00-07:00,2019-05-03 11:00:00-07:00,1.5,S2,backward\n\
             2019-05-03 12:00:00-07:00,2019-05-03 12:00:30-07:00,9,S3,too strong\n\
             2019-05-03 14:00:00-07:00,2019-05-03 15:00:00-07:00,1.5,S4,first\n"
        );
        let recording = select(parse(rows.as_bytes()).unwrap());
        let kept: Vec<_> = recording.stays.iter().map(|s| &s.session_id).collect();
        assert_eq!(kept, ["first", "touches"]);
        assert_eq!(recording.left_out.len(), 4);
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        let rows = format!("{HEAD}yesterday,2019-05-03 09:00:00-07:00,1.5,S1,a\n");
        let error = parse(rows.as_bytes()).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("yesterday"),
            "{error}"
        );
    }
}
