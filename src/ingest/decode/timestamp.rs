//! Converts RFC 3339 times to microseconds since 1970 UTC.
//!
//! The whole grammar of RFC 3339 §5.6 is parsed by hand, because every reading has a time, nearly always in the
//! same form. A test compares the result with jiff on random and broken times.

use crate::reading::Timestamp;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// The length of `YYYY-MM-DDTHH:MM:SS`.
const CIVIL_LEN: usize = 19;

/// Parses an RFC 3339 time with an offset.
///
/// Where the RFC leaves a choice: `t`, `z` and a space in place of `T` are accepted, and `-00:00` is UTC. Digits
/// after the microsecond are dropped. A leap second (`:60`) in any minute is read as the second before it (`:59`),
/// because there is no table of leap seconds. Forms of ISO 8601 that the RFC does not have (no offset, no seconds,
/// a comma, a week date) are refused.
///
/// Shape:  ASCII text; years 0000 to 9999
/// Units:  microseconds since 1970 UTC
/// Blocks: never
///
/// Source: RFC 3339 §5.6; Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let (civil, rest) = bytes.split_first_chunk::<CIVIL_LEN>()?;
    let separators = civil[4] == b'-'
        && civil[7] == b'-'
        && matches!(civil[10], b'T' | b't' | b' ')
        && civil[13] == b':'
        && civil[16] == b':';
    if !separators {
        return None;
    }
    let year = two(civil[0], civil[1])? * 100 + two(civil[2], civil[3])?;
    let month = two(civil[5], civil[6])?;
    let day = two(civil[8], civil[9])?;
    let hour = two(civil[11], civil[12])?;
    let minute = two(civil[14], civil[15])?;
    let second = two(civil[17], civil[18])?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, rest) = fraction(rest)?;
    let seconds = days_from_civil(year, month, day) * SECONDS_PER_DAY
        + i64::from(hour * 3600 + minute * 60 + second.min(59))
        - offset_seconds(rest)?;
    Some(Timestamp::from_micros(seconds * MICROS_PER_SECOND + micros))
}

/// The value of two digits.
fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

/// The microseconds of an optional fraction, and the rest of the text.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits)) = rest.split_first() else {
        return Some((0, rest));
    };
    let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(len);
    let mut micros = 0;
    for place in 0..6 {
        let digit = digits.get(place).map_or(0, |b| b - b'0');
        micros = micros * 10 + i64::from(digit);
    }
    Some((micros, rest))
}

/// The offset from UTC at the end of the text, in seconds, positive in the east.
fn offset_seconds(rest: &[u8]) -> Option<i64> {
    match *rest {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours * 3600 + minutes * 60);
            Some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date in the proleptic Gregorian calendar.
fn days_from_civil(year: u32, month: u32, day: u32) -> i64 {
    // Years are counted from March, so that the leap day is the last day of a year.
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}
