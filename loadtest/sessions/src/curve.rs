//! Derives what the data lacks: a plausible minute-by-minute trace of a charging stay.
//!
//! Only the AC energy of the whole stay was measured. Everything else is derived from the stay and a hash of its
//! session id, so it is the same in each run:
//!
//! - **Power**: constant, then falling linearly over the last 15% of the energy, then zero until the vehicle
//!   leaves. The constant power is 3.3 or 6.6 kW (typical for cars of that time at a 208 V, 32 A station). If the
//!   stay is too short for that, it is the stay's mean power throughout.
//! - **DC**: AC times an efficiency that rises with power, from 0.85 near zero to 0.95 at full power, less up to
//!   0.04 that depends on the vehicle, but never below 0.85; alternatively, one fixed efficiency.
//! - **State of charge** from the DC energy and a battery of 24 to 90 kWh, **temperature** from the power with a
//!   lag of half an hour, **voltage** from the power and a slow variation around 208 V.

use crate::data::Stay;

/// The meter and the vehicle report once a minute.
pub const STEP_US: i64 = 60_000_000;

/// The efficiency of an onboard charger near zero power.
const EFFICIENCY_LOW: f64 = 0.85;
/// The efficiency that it approaches at full power.
const EFFICIENCY_HIGH: f64 = 0.95;
/// How far the least efficient vehicle is below the curve.
const EFFICIENCY_SPREAD: f64 = 0.04;
/// The power of a 208 V, 32 A station, kW.
const STATION_KW: f64 = 6.6;
/// Up to this power, battery temperature and voltage follow it, kW. Only implausible rows exceed it.
const FELT_KW_MAX: f64 = 11.0;
/// The share of the energy that is drawn at falling power.
const TAPER_SHARE: f64 = 0.15;
/// The power at the end of the taper, as a share of the constant power.
const TAPER_END: f64 = 0.1;

/// What the meter and the vehicle report at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Microseconds since 1970 UTC, in the data's own time.
    pub at_us: i64,
    /// AC energy since the previous sample, millionths of a kWh.
    pub ac_micro_kwh: i64,
    /// DC energy since the previous sample, millionths of a kWh; at most the AC energy.
    pub dc_micro_kwh: i64,
    /// State of charge, hundredths of a percent.
    pub soc_centi: i64,
    /// Battery temperature, tenths of a °C.
    pub temp_deci: i64,
    /// Voltage at the meter, tenths of a V.
    pub volt_deci: i64,
}

/// Spreads a stay's energy over its minutes.
///
/// Shape:  a sample each minute after the start, and the last exactly at the end, all in (start, end]; only the
///         last if the stay is shorter than a minute
/// Units:  the AC energies add up exactly to the stay's energy in millionths of a kWh
/// Order:  by time
pub fn trace(stay: &Stay, efficiency: Option<f64>) -> Vec<Sample> {
    let traits = Traits::of(&stay.session_id);
    let power = Power::of(stay, traits.power_kw);
    let total_micro = stay.energy_micro_kwh();
    let drawn_micro = |at_us: i64| {
        if at_us >= stay.end_us {
            return total_micro;
        }
        let share = power.share_drawn((at_us - stay.start_us) as f64 / 3.6e9);
        ((total_micro as f64 * share).round() as i64).clamp(0, total_micro)
    };
    let mut body = Body::new(&traits, stay.energy_kwh);
    let mut samples = Vec::with_capacity((stay.seconds() / 60.0) as usize + 1);
    let (mut before_us, mut before_micro) = (stay.start_us, 0);
    while before_us < stay.end_us {
        let at_us = (before_us + STEP_US).min(stay.end_us);
        let drawn = drawn_micro(at_us).max(before_micro);
        let ac_micro_kwh = drawn - before_micro;
        let hours = (at_us - before_us) as f64 / 3.6e9;
        let kw = ac_micro_kwh as f64 / 1e6 / hours;
        let share = efficiency.unwrap_or_else(|| traits.efficiency_at(kw));
        // Truncated, not rounded, because DC must never exceed AC.
        let dc_micro_kwh = (ac_micro_kwh as f64 * share) as i64;
        samples.push(body.sample(&Step {
            at_us,
            hours,
            kw,
            ac_micro_kwh,
            dc_micro_kwh,
        }));
        (before_us, before_micro) = (at_us, drawn);
    }
    samples
}

/// The power during a stay: constant, falling, zero.
#[derive(Debug, Clone, Copy)]
struct Power {
    /// The share of the energy that is drawn at falling power.
    taper_share: f64,
    /// Hours of constant power.
    flat_h: f64,
    /// Hours of falling power after that.
    taper_h: f64,
}

impl Power {
    fn of(stay: &Stay, nominal_kw: f64) -> Self {
        let stay_h = stay.seconds() / 3600.0;
        // Energy = kW × flat + kW × (1 + end) / 2 × taper, where the taper draws its share of the energy.
        let taper_factor = TAPER_SHARE / ((1.0 + TAPER_END) / 2.0);
        for kw in [nominal_kw, STATION_KW] {
            let power = Power {
                taper_share: TAPER_SHARE,
                flat_h: (1.0 - TAPER_SHARE) * stay.energy_kwh / kw,
                taper_h: taper_factor * stay.energy_kwh / kw,
            };
            if power.flat_h + power.taper_h <= stay_h {
                return power;
            }
        }
        // Too short for a taper: the vehicle left while still charging.
        Power {
            taper_share: 0.0,
            flat_h: stay_h,
            taper_h: 0.0,
        }
    }

    /// The share of the energy that was drawn up to this many hours after the start, 0 to 1.
    fn share_drawn(self, hours: f64) -> f64 {
        if hours >= self.flat_h + self.taper_h {
            return 1.0;
        }
        if hours <= self.flat_h {
            return (1.0 - self.taper_share) * hours / self.flat_h;
        }
        let x = (hours - self.flat_h) / self.taper_h;
        // The integral of a line from 1 to TAPER_END, divided by its total.
        let part = (x - (1.0 - TAPER_END) / 2.0 * x * x) / ((1.0 + TAPER_END) / 2.0);
        (1.0 - self.taper_share) + self.taper_share * part
    }
}

/// Properties of a vehicle, derived from its id.
#[derive(Debug, Clone, Copy)]
struct Traits {
    power_kw: f64,
    efficiency_less: f64,
    battery_kwh: f64,
    ambient_c: f64,
    phase: f64,
    fullness: f64,
}

impl Traits {
    fn of(session_id: &str) -> Self {
        let hash = hash(session_id);
        // Each trait uses its own bits.
        let unit = |shift: u32| ((hash >> shift) & 0x3ff) as f64 / 1024.0;
        let batteries = [24.0, 30.0, 40.0, 60.0, 75.0, 90.0];
        Traits {
            power_kw: if unit(0) < 0.3 { 3.3 } else { STATION_KW },
            efficiency_less: EFFICIENCY_SPREAD * unit(10),
            battery_kwh: batteries[(unit(20) * batteries.len() as f64) as usize],
            ambient_c: 17.0 + 8.0 * unit(30),
            phase: unit(40),
            fullness: 0.4 + 0.55 * unit(50),
        }
    }

    /// The charger's efficiency at a power: the documented curve less this vehicle's loss.
    fn efficiency_at(&self, kw: f64) -> f64 {
        let rise = (EFFICIENCY_HIGH - EFFICIENCY_LOW) * (1.0 - (-kw / 1.5).exp());
        (EFFICIENCY_LOW + rise - self.efficiency_less).clamp(EFFICIENCY_LOW, EFFICIENCY_HIGH)
    }
}

/// The energy between two samples.
struct Step {
    at_us: i64,
    hours: f64,
    kw: f64,
    ac_micro_kwh: i64,
    dc_micro_kwh: i64,
}

/// The state of the vehicle's battery during the stay.
#[derive(Debug)]
struct Body {
    battery_kwh: f64,
    soc: f64,
    temp_c: f64,
    ambient_c: f64,
    phase: f64,
    elapsed_h: f64,
}

impl Body {
    fn new(traits: &Traits, energy_kwh: f64) -> Self {
        // The battery must hold the charged energy, with room for an initial charge.
        let battery_kwh = traits.battery_kwh.max(energy_kwh * 1.1);
        let gain = energy_kwh / battery_kwh;
        Body {
            battery_kwh,
            soc: 100.0 * (traits.fullness.max(gain) - gain).min(1.0),
            temp_c: traits.ambient_c,
            ambient_c: traits.ambient_c,
            phase: traits.phase,
            elapsed_h: 0.0,
        }
    }

    fn sample(&mut self, step: &Step) -> Sample {
        let dc_kwh = step.dc_micro_kwh as f64 / 1e6;
        self.elapsed_h += step.hours;
        self.soc = (self.soc + 100.0 * dc_kwh / self.battery_kwh).min(100.0);
        let kw = step.kw.min(FELT_KW_MAX);
        // Approaches 1.5 °C per kW above the ambient temperature, with a lag of half an hour.
        let towards = self.ambient_c + 1.5 * kw;
        self.temp_c += (towards - self.temp_c) * (1.0 - (-step.hours / 0.5).exp());
        let swing = (std::f64::consts::TAU * (self.elapsed_h / 2.0 + self.phase)).sin();
        let volts = 208.5 + 1.5 * swing - 0.45 * kw;
        Sample {
            at_us: step.at_us,
            ac_micro_kwh: step.ac_micro_kwh,
            dc_micro_kwh: step.dc_micro_kwh,
            soc_centi: (self.soc * 100.0).round() as i64,
            temp_deci: (self.temp_c * 10.0).round() as i64,
            volt_deci: (volts * 10.0).round() as i64,
        }
    }
}

/// FNV-1a with SplitMix64's finalizer, so that ids that differ in one digit differ in every trait.
fn hash(text: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{parse, select};

    fn stay(seconds: i64, energy_kwh: f64) -> Stay {
        Stay {
            session_id: format!("s-{seconds}"),
            station_id: "S1".to_owned(),
            start_us: 1_556_886_149_000_000,
            end_us: 1_556_886_149_000_000 + seconds * 1_000_000,
            day: "2019-05-03".parse().unwrap(),
            energy_kwh,
        }
    }

    fn check(stay: &Stay, samples: &[Sample]) {
        let ac: i64 = samples.iter().map(|s| s.ac_micro_kwh).sum();
        assert_eq!(ac, stay.energy_micro_kwh(), "{}", stay.session_id);
        assert_eq!(samples.last().map(|s| s.at_us), Some(stay.end_us));
        assert_eq!(samples[0].at_us, stay.end_us.min(stay.start_us + STEP_US));
        assert!(samples.windows(2).all(|w| w[0].at_us < w[1].at_us));
        for sample in samples {
            assert!(sample.ac_micro_kwh >= 0);
            assert!((0..=sample.ac_micro_kwh).contains(&sample.dc_micro_kwh));
            assert!((0..=10_000).contains(&sample.soc_centi), "{sample:?}");
            assert!((0..=600).contains(&sample.temp_deci), "{sample:?}");
            assert!((1_000..=2_500).contains(&sample.volt_deci), "{sample:?}");
        }
    }

    #[test]
    fn the_minutes_of_every_real_session_add_up_to_its_energy() {
        let day = select(parse(crate::DAY_OF_JPL).unwrap());
        for stay in &day.stays {
            let samples = trace(stay, None);
            check(stay, &samples);
            let dc: i64 = samples.iter().map(|s| s.dc_micro_kwh).sum();
            let ratio = dc as f64 / stay.energy_micro_kwh() as f64;
            assert!((0.849..=0.95).contains(&ratio), "{ratio}");
            // A 208 V, 32 A station delivers 6.7 kW, so a minute is at most that, plus rounding.
            let most = samples.iter().map(|s| s.ac_micro_kwh).max().unwrap();
            assert!(most <= 112_000, "{most}");
        }
    }

    #[test]
    fn stays_of_any_length_and_energy_add_up() {
        for seconds in [1, 30, 59, 60, 61, 119, 120, 3_600, 100_000] {
            for energy in [0.0, 0.000_001, 0.01, 0.123_456_5] {
                let stay = stay(seconds, energy);
                check(&stay, &trace(&stay, None));
            }
        }
        // A value with more digits than are sent.
        let long = stay(25_166, 46.676_831_666_666_665);
        check(&long, &trace(&long, None));
    }

    #[test]
    fn a_fixed_efficiency_is_kept() {
        let stay = stay(7_200, 12.0);
        let samples = trace(&stay, Some(0.9));
        let dc: i64 = samples.iter().map(|s| s.dc_micro_kwh).sum();
        assert!((dc - 10_800_000).abs() <= samples.len() as i64, "{dc}");
    }

    #[test]
    fn the_trace_is_the_same_each_time() {
        let stay = stay(7_200, 12.0);
        assert_eq!(trace(&stay, None), trace(&stay, None));
    }
}
