//! The speed of the replay's time.

use std::time::{Duration, Instant};

/// The shortest wait. Events due within it share a request.
const TICK: Duration = Duration::from_millis(100);

/// The longest wait, so that progress is shown regularly.
const LOOK: Duration = Duration::from_secs(1);

/// Simulated seconds per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Speed {
    /// As fast as the gateway accepts it.
    Max,
    /// This many times as fast as the clock.
    Times(f64),
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        match text.parse::<f64>() {
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Speed::Times(times)),
            _ => Err("must be a number above 0, or `max`".to_owned()),
        }
    }
}

/// The replay's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    speed: Speed,
    from_us: i64,
    since: Instant,
}

impl Pace {
    /// A clock that starts now at a given time and runs at a given speed.
    pub(crate) fn new(speed: Speed, from_us: i64) -> Self {
        Pace {
            speed,
            from_us,
            since: Instant::now(),
        }
    }

    /// The same clock, moved past all events.
    pub(crate) fn at_once(self) -> Self {
        Pace {
            speed: Speed::Max,
            ..self
        }
    }

    /// The real clock, which shows `now_us`.
    pub(crate) fn real_time(now_us: i64) -> Self {
        Pace::new(Speed::Times(1.0), now_us)
    }

    /// The time on the clock, in microseconds since 1970 UTC. At speed `max` it is past all events.
    pub(crate) fn now_us(&self) -> i64 {
        match self.speed {
            Speed::Max => i64::MAX,
            Speed::Times(times) => {
                let passed_us = self.since.elapsed().as_secs_f64() * times * 1e6;
                self.from_us.saturating_add(passed_us as i64)
            }
        }
    }

    /// How long to wait until a time. `None` means that it has passed.
    pub(crate) fn wait_for(&self, at_us: i64) -> Option<Duration> {
        let Speed::Times(times) = self.speed else {
            return None;
        };
        let ahead_us = at_us.saturating_sub(self.now_us());
        if ahead_us <= 0 {
            return None;
        }
        let wait = Duration::from_secs_f64(ahead_us as f64 / 1e6 / times);
        Some(wait.clamp(TICK, LOOK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_number_over_0_or_max() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("600".parse(), Ok(Speed::Times(600.0)));
        assert!("0".parse::<Speed>().is_err() && "inf".parse::<Speed>().is_err());
    }

    #[test]
    fn past_events_are_due_and_future_events_are_waited_for() {
        let pace = Pace::new(Speed::Times(60.0), 1_000_000_000);
        assert_eq!(pace.wait_for(1_000_000_000), None);
        assert_eq!(pace.wait_for(1_000_100_000), Some(TICK));
        assert_eq!(pace.wait_for(9_000_000_000), Some(LOOK));
        assert_eq!(Pace::new(Speed::Max, 0).wait_for(i64::MAX - 1), None);
    }
}
