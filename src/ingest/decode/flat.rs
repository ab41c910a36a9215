//! The fastest parser, for a text that is one valid reading without escapes.
//!
//! Most devices send one reading per request. Its text is read once, from start to end, straight into a [`Draft`].
//! Anything invalid, or in an unusual spelling, is left to the other parsers. This parser never reports an error.

use super::Rules;
use super::fields::{Draft, Value};
use crate::reading::{Reading, Stream};

/// The longest text that is tried. Why 1 KiB: that is enough for 8 fields with two long ids.
pub(super) const TEXT_BYTES_MAX: usize = 1024;

/// The most digits of a number. Up to here the digits and the power of ten that divides them are exact doubles, so
/// their quotient is the nearest double.
///
/// Source: Clinger, "How to Read Floating Point Numbers Accurately" (1990)
const DIGITS_MAX: usize = 15;
const POWERS_OF_TEN: [f64; DIGITS_MAX + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Whether a text has neither escapes nor control characters such as line ends, so that every byte stands for
/// itself even within strings. It always checks all bytes, so that the compiler can vectorise the loop.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, &byte| {
        plain & (byte >= b' ') & (byte != b'\\')
    })
}

/// Parses a valid reading. `None` means that another parser must parse the text.
///
/// Shape:  `text` is trimmed
pub(super) fn reading<'a>(stream: Stream, text: &'a [u8], rules: &Rules) -> Option<Reading<'a>> {
    if !is_plain(text) {
        return None;
    }
    let mut rest = Rest {
        text: std::str::from_utf8(text).ok()?,
        at: 0,
    };
    let mut draft = Draft::new(stream);
    rest.skip(b'{')?;
    loop {
        rest.skip_space();
        let key = rest.string()?;
        rest.skip_space();
        rest.skip(b':')?;
        rest.skip_space();
        let value = match rest.peek()? {
            b'"' => Value::Text(rest.string()?),
            _ => Value::Number(rest.number()?),
        };
        draft.field(key, value, rules).ok()?;
        rest.skip_space();
        match rest.peek()? {
            b',' => rest.at += 1,
            b'}' if rest.at + 1 == text.len() => return draft.finish(rules).ok(),
            _ => return None,
        }
    }
}

/// The rest of the text.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    #[inline]
    fn skip_space(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    /// A string without escapes.
    #[inline]
    fn string(&mut self) -> Option<&'a str> {
        self.skip(b'"')?;
        let rest = self.text.get(self.at..)?;
        let length = memchr::memchr(b'"', rest.as_bytes())?;
        self.at += length + 1;
        rest.get(..length)
    }

    /// A short number without an exponent.
    #[inline]
    fn number(&mut self) -> Option<f64> {
        let negative = self.skip(b'-').is_some();
        let mut digits = 0;
        let whole = self.digits(&mut digits);
        let leads_with_zero = self.text.as_bytes().get(self.at - whole) == Some(&b'0');
        if whole == 0 || (whole > 1 && leads_with_zero) {
            return None;
        }
        let mut after_point = 0;
        if self.skip(b'.').is_some() {
            after_point = self.digits(&mut digits);
            if after_point == 0 {
                return None;
            }
        }
        if whole + after_point > DIGITS_MAX || matches!(self.peek(), Some(b'e' | b'E')) {
            return None;
        }
        let number = digits as f64 / POWERS_OF_TEN[after_point];
        Some(if negative { -number } else { number })
    }

    /// Appends the next digits to `number` and returns how many there were. With more than [`DIGITS_MAX`] digits
    /// the number is meaningless.
    #[inline]
    fn digits(&mut self, number: &mut u64) -> usize {
        let from = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            *number = number
                .wrapping_mul(10)
                .wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        self.at - from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::decode::{Bounds, Dialect};
    use crate::reading::{Details, Timestamp};

    fn strict(now: Timestamp) -> Rules {
        Rules::new(Bounds::at(now, None), Dialect::default())
    }

    fn read(text: &str) -> Option<Reading<'_>> {
        let now = Timestamp::Y2000.plus_micros(86_400_000_000);
        reading(Stream::Meter, text.as_bytes(), &strict(now))
    }

    fn with_voltage(text: &str) -> String {
        format!(
            r#"{{"meterId":"M","kwhConsumedAc":1,"voltage":{text},"timestamp":"2000-01-01T12:00:00Z"}}"#
        )
    }

    #[test]
    fn a_reading_is_read_whatever_its_order_and_space() {
        let text = r#"{ "timestamp" : "2000-01-01T12:00:00.5Z" ,  "voltage":230.25,
            "kwhConsumedAc":0 , "meterId":"Zähler 7" }"#;
        assert!(read(text).is_none(), "several lines");
        let text = text.replace('\n', "");
        let found = read(&text).unwrap();
        assert_eq!(found.device.as_str(), "Zähler 7");
        assert_eq!(found.details, Details::Meter { voltage: 230.25 });
        assert_eq!(found.at.as_micros() % 60_000_000, 500_000);
    }

    #[test]
    fn a_number_is_the_nearest_double_of_its_text() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "0.1",
            "0.3",
            "1.005",
            "230.4",
            "999.999999999999",
            "0.1234567890123",
            "123.456789012345",
            "0.00000000000001",
            "7",
        ] {
            let text = with_voltage(text);
            let Some(found) = read(&text) else {
                panic!("{text}")
            };
            let Details::Meter { voltage } = found.details else {
                panic!("{text}")
            };
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let expected = json["voltage"].to_string().parse::<f64>().unwrap() + 0.0;
            assert_eq!(voltage.to_bits(), expected.to_bits(), "{text}");
        }
    }

    #[test]
    fn only_plain_valid_readings_are_read() {
        for number in [
            "",
            "-",
            "01",
            "-01",
            "1.",
            ".5",
            "1e2",
            "1E2",
            "+1",
            "0x1",
            "1 2",
            "NaN",
            "null",
            "true",
            "\"1\"",
            "[1]",
            "1001",
            "-1",
            "0.1234567890123456",
            "1.0000000000000000000000000",
        ] {
            assert!(read(&with_voltage(number)).is_none(), "{number}");
        }
        let good = with_voltage("1");
        assert!(read(&good).is_some());
        for other in [
            "",
            "{",
            "{}",
            "[]",
            "7",
            "{,",
            "{\"",
            &good[..good.len() - 1],
            &format!("{good}}}"),
            &format!("{good} "),
            &good.replace(":1,", ":1,,"),
            &good.replace("\"}", "\",}"),
            &good.replace('{', "{\"voltage\":1,"),
            &good.replace('{', "{\"more\":1,"),
            &good.replace("\"M\"", "\"\\u004d\""),
            &good.replace("\"M\"", "\"a\nb\""),
            &good.replace("\"M\"", "M"),
            &good.replace("meterId", "vehicleId"),
            &good.replace("Z", ""),
        ] {
            assert!(read(other).is_none(), "{other}");
        }
        let not_unicode = good.replace('M', "\u{1}").into_bytes();
        let not_unicode: Vec<u8> = not_unicode
            .into_iter()
            .map(|b| if b == 1 { 0xff } else { b })
            .collect();
        let rules = strict(Timestamp::now());
        assert!(reading(Stream::Meter, &not_unicode, &rules).is_none());
    }
}
