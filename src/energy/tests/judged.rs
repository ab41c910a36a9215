//! Judges each reading of a device for the reference, by a search through all readings.

use crate::energy::device::EnergyReading;
use crate::reading::EnergyKind;

/// One judged reading: its energy over (start, at], either spread or all at its end.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    pub(super) at: i64,
    pub(super) previous: Option<i64>,
    pub(super) spread_from: Option<i64>,
    pub(super) interval: bool,
    pub(super) mwh: i64,
    pub(super) reset: bool,
    pub(super) suspect: bool,
}

/// Converts kWh to mWh, using the decimal text.
fn mwh(kwh: f64) -> i64 {
    let text = format!("{kwh}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{fraction:0<7}");
    let kept: i64 = format!("{whole}{}", &digits[..6]).parse().unwrap();
    kept + i64::from(digits.as_bytes()[6] >= b'5')
}

pub(super) fn judge(readings: &[EnergyReading]) -> Vec<Judged> {
    let value: Vec<i64> = readings.iter().map(|r| mwh(r.energy.kwh)).collect();
    let register = |i: usize| readings[i].energy.kind == EnergyKind::Register;
    let zero = |i: usize| register(i) && value[i] == 0;
    let placeholder = |i: usize| {
        let before = (0..i).rev().find(|&j| !zero(j));
        let after = (i + 1..readings.len()).find(|&j| !zero(j));
        match (before, after) {
            (Some(p), Some(n)) => {
                zero(i)
                    && register(p)
                    && register(n)
                    && value[p] > 0
                    && value[n] >= value[p] - 10_000
            }
            _ => false,
        }
    };
    let at = |i: usize| readings[i].at.as_micros();
    let mut all = Vec::new();
    for i in 0..readings.len() {
        let mut j = Judged {
            at: at(i),
            previous: i.checked_sub(1).map(at),
            spread_from: None,
            interval: !register(i),
            mwh: 0,
            reset: false,
            suspect: false,
        };
        if placeholder(i) {
            j.suspect = true;
        } else if !register(i) {
            j.mwh = value[i];
        } else if let Some(p) = (0..i)
            .rev()
            .find(|&p| !placeholder(p))
            .filter(|&p| register(p))
        {
            let (prev, cur) = (value[p], value[i]);
            j.spread_from = Some(at(p));
            j.previous = Some(at(p));
            j.mwh = cur - prev;
            if cur < prev {
                j.reset = (prev - cur) * 10 > prev && p + 1 == i;
                j.mwh = if j.reset { cur } else { 0 };
                j.suspect = !j.reset && prev - cur > 10_000;
            }
        }
        if let Some(previous) = j.previous {
            let seconds_e6 = i128::from(at(i) - previous).max(1_000_000);
            // kW = kWh × 3600 / s, compared with 1,000 kW.
            j.suspect |= i128::from(j.mwh) * 3_600 > seconds_e6 * 1_000;
        }
        all.push(j);
    }
    all
}
