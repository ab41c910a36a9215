//! The checks of single values. Each records what is wrong and returns a substitute, so that the rest is
//! checked too.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ConfigErrors, parse_bytes, parse_duration, units};
use crate::http::request::client_ip::Network;
use crate::http::request::cors::is_origin;

/// Collects everything that is wrong.
#[derive(Default)]
pub(super) struct Checks {
    pub(super) errors: Vec<String>,
}

/// The environment variable of a flag.
pub(super) fn variable(flag: &str) -> String {
    match flag.trim_start_matches('-') {
        "database-url" => "DATABASE_URL".to_owned(),
        "pg-bin" => "PG_BIN".to_owned(),
        name => format!("WATTGATE_{}", name.replace('-', "_").to_ascii_uppercase()),
    }
}

/// A flag and its environment variable, as an error names them.
fn named(flag: &str) -> String {
    format!("{flag} ({})", variable(flag))
}

impl Checks {
    /// Records what is wrong with a flag, without its value.
    pub(super) fn wrong(&mut self, flag: &str, rule: impl Display) {
        self.errors.push(format!("{}: {rule}", named(flag)));
    }

    /// Records what is wrong with the value of a flag.
    pub(super) fn wrong_value(&mut self, flag: &str, value: impl Display, rule: impl Display) {
        self.errors.push(format!("{} {value}: {rule}", named(flag)));
    }

    /// Returns the checked value, or everything that is wrong.
    pub(super) fn into_result<T>(self, checked: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            Ok(checked)
        } else {
            Err(ConfigErrors(self.errors))
        }
    }

    fn parse<T>(
        &mut self,
        flag: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(text)
            .map_err(|why| self.wrong_value(flag, text, why))
            .ok()
    }

    pub(super) fn listen(&mut self, text: &str) -> SocketAddr {
        let address = self.parse("--listen", text, |text| {
            text.parse()
                .map_err(|_| "must be an address and a port, such as 127.0.0.1:3000".to_owned())
        });
        address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(super) fn choice<T: Copy>(&mut self, flag: &str, text: &str, known: &[(&str, T)]) -> T {
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return *value;
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        self.wrong_value(flag, text, format_args!("must be {}", names.join(" or ")));
        known[0].1
    }

    /// Checks a whole number.
    pub(super) fn number(&mut self, flag: &str, text: &str, range: RangeInclusive<u64>) -> u64 {
        let number = text.parse().ok().filter(|n| range.contains(n));
        number.unwrap_or_else(|| {
            let rule = format!("must be {} to {}", range.start(), range.end());
            self.wrong_value(flag, text, rule);
            *range.start()
        })
    }

    /// Checks a number with decimals. The error names its unit.
    pub(super) fn decimal(
        &mut self,
        flag: &str,
        text: &str,
        range: RangeInclusive<f64>,
        unit: &str,
    ) -> f64 {
        let number: Option<f64> = text.parse().ok().filter(|n| range.contains(n));
        number.unwrap_or_else(|| {
            let rule = format!("must be {} to {}{unit}", range.start(), range.end());
            self.wrong_value(flag, text, rule);
            *range.start()
        })
    }

    /// Checks a size. `None` means that it is wrong.
    pub(super) fn bytes(
        &mut self,
        flag: &str,
        text: &str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.parse(flag, text, parse_bytes)?;
        if range.contains(&value) {
            return Some(value);
        }
        let [least, most] = [*range.start(), *range.end()].map(units::bytes_text);
        self.wrong_value(flag, text, format_args!("must be {least} to {most}"));
        None
    }

    pub(super) fn duration(&mut self, flag: &str, text: &str, most: Duration) -> Duration {
        let value = self.parse(flag, text, parse_duration).unwrap_or_default();
        if value > most {
            let rule = format!("must be at most {}", units::duration_text(most));
            self.wrong_value(flag, text, rule);
        }
        value
    }

    pub(super) fn timeout(&mut self, flag: &str, text: &str) -> Duration {
        let most = Duration::from_secs(3600);
        let value = self.parse(flag, text, parse_duration);
        if value.is_some_and(|value| value.is_zero() || value > most) {
            let rule = format!("must be 1ms to {}", units::duration_text(most));
            self.wrong_value(flag, text, rule);
        }
        value.unwrap_or_default()
    }

    /// Checks an optional time.
    pub(super) fn span(&mut self, flag: &str, text: Option<&str>) -> Option<Duration> {
        self.parse(flag, given(text)?, parse_duration)
    }

    pub(super) fn networks(&mut self, texts: &[String]) -> Vec<Network> {
        let mut networks = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(why) => self.wrong_value("--trusted-proxies", text, why),
            }
        }
        networks
    }

    pub(super) fn origins(&mut self, origins: &[String]) -> Vec<String> {
        for origin in origins.iter().filter(|origin| !is_origin(origin)) {
            let rule = "must be an origin, such as https://example.org, or *";
            self.wrong_value("--cors-origin", origin, rule);
        }
        origins.to_vec()
    }
}

/// An empty text counts as missing.
pub(super) fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}
