//! Sizes and times as texts.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

const TIMES: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a size: a whole number of bytes, or of a unit, such as `64MiB`, `10GiB` or `500MB`.
///
/// # Errors
/// A sentence with the expected form.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    parse(text, &SIZES, Some(1)).ok_or_else(|| "must be a size, such as 64MiB or 10GiB".to_owned())
}

/// Reads a time: a whole number with a unit, such as `25ms`, `30s`, `10m` or `400d`.
///
/// # Errors
/// A sentence with the expected form.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let millis = parse(text, &TIMES, None).filter(|millis| *millis <= 36_500 * 86_400_000);
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "must be a time, such as 25ms, 30s or 400d".to_owned())
}

/// Writes a size with the largest unit that divides it.
pub(super) fn bytes_text(bytes: u64) -> String {
    let unit = SIZES[..4]
        .iter()
        .rev()
        .find(|(_, n)| bytes >= *n && bytes.is_multiple_of(*n));
    match unit {
        Some((name, n)) => format!("{}{name}", bytes / n),
        None => format!("{bytes}B"),
    }
}

/// Writes a time with the largest unit that divides it.
pub(super) fn duration_text(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ];
    let unit = units
        .iter()
        .find(|(_, n)| millis >= *n && millis.is_multiple_of(*n));
    match unit {
        Some((name, n)) => format!("{}{name}", millis / n),
        None => format!("{millis}ms"),
    }
}

fn parse(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" => bare.or((number == "0").then_some(1))?,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("10GiB", 10 << 30),
            ("5", 5),
            ("2 kB", 2000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for (text, millis) in [
            ("25ms", 25),
            ("0", 0),
            ("2s", 2000),
            ("400d", 400 * 86_400_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for bad in [
            "",
            "MiB",
            "1.5GiB",
            "-1",
            "1 parsec",
            "99999999999999TiB",
            "10mib",
        ] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_duration("5").is_err(), "a time needs its unit");
        assert_eq!(bytes_text(64 << 20), "64MiB");
        assert_eq!(bytes_text(1000), "1000B");
        assert_eq!(duration_text(Duration::from_secs(7200)), "2h");
        assert_eq!(duration_text(Duration::from_millis(1500)), "1500ms");
    }
}
