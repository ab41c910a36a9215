//! What a sender may write differently, on every path that a reading can take.

use super::*;

const IGNORES: Dialect = Dialect {
    unknown: UnknownFields::Ignore,
    time: TimeForm::Rfc3339,
};
const MILLIS: Dialect = Dialect {
    unknown: UnknownFields::Refuse,
    time: TimeForm::UnixMillis,
};

/// The result for a reading alone, in an array, in arrays that the slow parser and the parser of large texts read, and
/// as a line. It must always be the same.
fn everywhere(dialect: Dialect, reading: &str) -> Result<(Owned, u64), Vec<Code>> {
    let impossible = r#"{"timestamp":"\ud800"}"#;
    let padding = " ".repeat(TEXT_BYTES_MAX);
    let bodies = [
        (Format::Json, reading.to_owned()),
        (Format::Json, format!("[{reading}]")),
        (Format::Json, format!("[{impossible},{reading}]")),
        (Format::Json, format!("[{reading},{padding}{impossible}]")),
        (Format::Json, format!("[{reading}{padding}]")),
        (Format::Ndjson, format!("{reading}\n")),
        (Format::Ndjson, format!("{{broken\n{reading}")),
    ];
    let mut results = bodies.map(|(format, body)| {
        let mut decoder = Decoder::new();
        let decoded = decode_as(
            &mut decoder,
            Stream::Meter,
            format,
            dialect,
            body.as_bytes(),
        );
        let (taken, outcome) = decoded.unwrap();
        match taken.into_iter().next() {
            Some(reading) => Ok((reading, outcome.fields_ignored)),
            None => {
                let errors = outcome.errors.iter();
                let own = errors.filter(|error| !error.message.contains("surrogate"));
                let own = own.filter(|error| error.code != Code::Malformed);
                Err(own.map(|error| error.code).collect::<Vec<_>>())
            }
        }
    });
    let first = results[0].clone();
    for (n, result) in results.iter_mut().enumerate() {
        if n == 2 || n == 3 {
            // The impossible reading has faults of its own.
            assert_eq!(result.is_ok(), first.is_ok(), "{reading}");
        } else {
            assert_eq!(*result, first, "{reading}");
        }
    }
    first
}

#[test]
fn unknown_fields_are_dropped_and_counted_if_the_sender_asks_for_it() {
    let plain = everywhere(IGNORES, &meter("", "")).unwrap();
    assert_eq!(plain.1, 0);
    for (more, ignored) in [
        (r#""power":7.4,"#, 1),
        (r#""power":1,"power":2,"energykind":"register","#, 3),
        (
            r#""a":null,"b":[1,{"meterId":"M2"}],"c":{"voltage":1},"d":true,"#,
            4,
        ),
        (r#""\u0061\"":1e400,"text":"\ud800","#, 2),
        (r#""\ud800":1,"#, 1),
        (r#""vehicleId":"V1","soc":80,"#, 2),
    ] {
        let reading = meter("", "").replace('{', &format!("{{{more}"));
        assert_eq!(
            everywhere(IGNORES, &reading),
            Ok((plain.0.clone(), ignored)),
            "{reading}"
        );
        let strict = everywhere(Dialect::default(), &reading);
        assert!(strict.unwrap_err().contains(&Code::UnknownField));
    }
}

#[test]
fn known_fields_are_checked_behind_any_number_of_unknown_ones() {
    let many: String = (0..200).map(|n| format!(r#""more{n}":{n},"#)).collect();
    let with_many = |reading: String| reading.replace('{', &format!("{{{many}"));
    let found = everywhere(IGNORES, &with_many(meter("", "")));
    assert_eq!(found.unwrap().1, 200);
    for (field, value, code) in [
        ("voltage", "-1", Code::OutOfRange),
        ("voltage", "", Code::Missing),
        ("meterId", "7", Code::WrongType),
        ("timestamp", "1707492600000", Code::WrongType),
    ] {
        let errors = everywhere(IGNORES, &with_many(meter(field, value)));
        assert_eq!(errors, Err(vec![code]), "{field}");
    }
    let twice = with_many(meter("", "")).replace('}', r#","voltage":1}"#);
    assert_eq!(everywhere(IGNORES, &twice), Err(vec![Code::DuplicateField]));
}

#[test]
fn a_rejected_reading_adds_nothing_to_what_is_counted() {
    let body = r#"[{"more":1,"meterId":"M1"},{"more":1,"meterId":"M1","kwhConsumedAc":1,"voltage":1,"timestamp":"2024-02-09T15:30:00Z"}]"#;
    let mut decoder = Decoder::new();
    let decode = |decoder: &mut Decoder| {
        let decoded = decode_as(
            decoder,
            Stream::Meter,
            Format::Json,
            IGNORES,
            body.as_bytes(),
        );
        decoded.unwrap().1
    };
    for _ in 0..2 {
        let outcome = decode(&mut decoder);
        assert_eq!((outcome.accepted, outcome.rejected), (1, 1));
        assert_eq!(outcome.fields_ignored, 1);
    }
}

#[test]
fn a_time_in_milliseconds_is_the_same_instant() {
    let at = |time: &str| everywhere(MILLIS, &meter("timestamp", time)).map(|found| found.0.at);
    let now = NOW.as_micros();
    for (time, expected) in [
        ("1707492600000", now),
        ("1707492600000.0", now),
        ("1.7074926e12", now),
        ("946684800000", Timestamp::Y2000.as_micros()),
        (r#""2024-02-09T15:30:00Z""#, now),
    ] {
        assert_eq!(at(time), Ok(expected), "{time}");
    }
    for (time, code) in [
        // Seconds.
        ("1707492600", Code::TooOld),
        // Microseconds.
        ("1707492600000000", Code::InFuture),
        ("0", Code::TooOld),
        ("-1707492600000", Code::TooOld),
        ("1e300", Code::InFuture),
        ("-1e300", Code::TooOld),
        ("1e400", Code::InvalidTimestamp),
        ("1707492600000.5", Code::InvalidTimestamp),
        ("1707492600123.456789", Code::InvalidTimestamp),
        (r#""1707492600000""#, Code::InvalidTimestamp),
        ("null", Code::WrongType),
        ("true", Code::WrongType),
    ] {
        assert_eq!(at(time), Err(vec![code]), "{time}");
    }
    let strict = everywhere(Dialect::default(), &meter("timestamp", "1707492600000"));
    assert_eq!(strict, Err(vec![Code::WrongType]));
}
