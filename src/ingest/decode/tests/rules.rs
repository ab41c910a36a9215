//! Each rule for fields, on every path that a reading can take.

use super::*;

/// The result for a reading alone, in an array, in an array that the slow parser reads, and as a line. All four
/// must be the same.
fn everywhere(stream: Stream, reading: &str) -> Result<Owned, ReadingError> {
    let good = match stream {
        Stream::Meter => meter("", ""),
        Stream::Vehicle => vehicle("", ""),
    };
    let impossible = r#"{"timestamp":"\ud800"}"#;
    let bodies = [
        (Format::Json, reading.to_owned(), 0),
        (Format::Json, format!("[{good},{reading},{good}]"), 1),
        (Format::Json, format!("[{impossible},{reading}]"), 1),
        (Format::Ndjson, format!("{good}\n{reading}\n{good}\n"), 1),
        (Format::Ndjson, format!("{{broken\n{reading}"), 1),
    ];
    let mut results = bodies.map(|(format, body, place)| {
        let (taken, outcome) = decode(stream, format, &body).unwrap();
        let error = outcome.errors.iter().find(|error| error.index == place);
        match error {
            Some(error) => Err(ReadingError {
                index: 0,
                ..error.clone()
            }),
            None => Ok(taken[taken.len().min(2) - 1].clone()),
        }
    });
    let first = results[0].clone();
    for result in &mut results {
        assert_eq!(*result, first, "{reading}");
    }
    first
}

#[track_caller]
fn refused(stream: Stream, reading: &str, field: Option<&str>, code: Code, message: &str) {
    let error = everywhere(stream, reading).expect_err(reading);
    assert_eq!(
        (error.field.as_deref(), error.code),
        (field, code),
        "{reading}"
    );
    assert!(
        error.message.contains(message),
        "{reading}: {}",
        error.message
    );
}

#[test]
fn the_documented_readings_are_accepted() {
    let taken = everywhere(Stream::Meter, &meter("energyKind", r#""register""#)).unwrap();
    let mut expected = Owned {
        device: "M1".into(),
        at: NOW.as_micros(),
        kwh: 45.23,
        register: true,
        values: [240.5, 0.0],
        place: None,
    };
    assert_eq!(taken, expected);
    expected.register = false;
    for kind in ["", r#""interval""#] {
        assert_eq!(
            everywhere(Stream::Meter, &meter("energyKind", kind)).unwrap(),
            expected
        );
    }
    let mut expected = Owned {
        device: "VEH-001".into(),
        kwh: 41.3,
        values: [80.5, 31.5],
        ..expected
    };
    assert_eq!(
        everywhere(Stream::Vehicle, &vehicle("", "")).unwrap(),
        expected
    );
    expected.place = Some((false, "M1".into()));
    assert_eq!(
        everywhere(Stream::Vehicle, &vehicle("meterId", r#""M1""#)).unwrap(),
        expected
    );
    expected.place = Some((true, "S1".into()));
    assert_eq!(
        everywhere(Stream::Vehicle, &vehicle("sessionId", r#""S1""#)).unwrap(),
        expected
    );
}

#[test]
fn every_required_field_is_required() {
    for name in ["meterId", "kwhConsumedAc", "voltage", "timestamp"] {
        refused(
            Stream::Meter,
            &meter(name, ""),
            Some(name),
            Code::Missing,
            "is required",
        );
    }
    for name in [
        "vehicleId",
        "soc",
        "kwhDeliveredDc",
        "batteryTemp",
        "timestamp",
    ] {
        refused(
            Stream::Vehicle,
            &vehicle(name, ""),
            Some(name),
            Code::Missing,
            "is required",
        );
    }
    refused(
        Stream::Meter,
        "{}",
        Some("meterId"),
        Code::Missing,
        "meterId is required",
    );
}

#[test]
fn numbers_are_accepted_up_to_their_bounds() {
    type Case<'a> = (Stream, &'a str, [&'a str; 3], [&'a str; 3], &'a str);
    let cases: [Case<'_>; 5] = [
        (
            Stream::Meter,
            "kwhConsumedAc",
            ["0", "1e9", "0.1"],
            ["-1e-9", "1000000000.001", "-1"],
            "kwhConsumedAc must be between 0 and 1000000000",
        ),
        (
            Stream::Meter,
            "voltage",
            ["0", "1000", "1e3"],
            ["-0.1", "1000.0000001", "1e309"],
            "voltage must be between 0 and 1000",
        ),
        (
            Stream::Vehicle,
            "soc",
            ["0", "100", "100.0"],
            ["-1", "100.00001", "-1e309"],
            "soc must be between 0 and 100",
        ),
        (
            Stream::Vehicle,
            "batteryTemp",
            ["-60", "150", "-6e1"],
            ["-60.001", "150.001", "1e999"],
            "batteryTemp must be between -60 and 150",
        ),
        (
            Stream::Vehicle,
            "kwhDeliveredDc",
            ["0", "1e9", "0e999"],
            [
                "18446744073709551616",
                "-9223372036854775809",
                "123456789012345678901234567890",
            ],
            "kwhDeliveredDc must be between 0 and 1000000000",
        ),
    ];
    for (stream, name, good, bad, message) in cases {
        let make = |value| match stream {
            Stream::Meter => meter(name, value),
            Stream::Vehicle => vehicle(name, value),
        };
        for value in good {
            everywhere(stream, &make(value)).expect(value);
        }
        for value in bad {
            refused(stream, &make(value), Some(name), Code::OutOfRange, message);
        }
    }
}

#[test]
fn minus_zero_is_zero() {
    for zero in ["-0", "-0.0", "-0e5", "-1e-400"] {
        let taken = everywhere(Stream::Meter, &meter("voltage", zero)).unwrap();
        assert_eq!(taken.values[0].to_bits(), 0.0f64.to_bits(), "{zero}");
    }
}

#[test]
fn a_value_of_another_type_is_refused() {
    for value in [
        r#""45.23""#,
        "null",
        "true",
        "[]",
        r#"{"a":[1]}"#,
        r#""\ud800""#,
    ] {
        refused(
            Stream::Meter,
            &meter("voltage", value),
            Some("voltage"),
            Code::WrongType,
            "voltage must be a number, not ",
        );
    }
    for name in ["meterId", "timestamp", "energyKind"] {
        for value in ["1", "1e309", "null", "false", "[1]", "{}"] {
            refused(
                Stream::Meter,
                &meter(name, value),
                Some(name),
                Code::WrongType,
                "a string",
            );
        }
    }
    for name in ["sessionId", "meterId"] {
        refused(
            Stream::Vehicle,
            &vehicle(name, "null"),
            Some(name),
            Code::WrongType,
            "not null",
        );
    }
}

#[test]
fn ids_are_1_to_64_printable_characters() {
    let quoted = |n: usize| format!("\"{}\"", "🔋".repeat(n));
    for id in [
        r#""a b/ü""#.to_owned(),
        quoted(64),
        r#""\ud83d\udd0b""#.to_owned(),
    ] {
        everywhere(Stream::Meter, &meter("meterId", &id)).expect(&id);
    }
    let escaped = everywhere(Stream::Meter, &meter("meterId", r#""\u004d\/1""#)).unwrap();
    assert_eq!(escaped.device, "M/1");
    for id in [
        r#""""#,
        &quoted(65),
        r#""a\u0000""#,
        r#""a\n""#,
        r#""\u007f""#,
        r#""\udc00""#,
        r#""\ud800x""#,
        r#""\ud800\ud800""#,
    ] {
        refused(
            Stream::Meter,
            &meter("meterId", id),
            Some("meterId"),
            Code::InvalidId,
            "meterId ",
        );
    }
    let long = format!("\"{}\"", "x".repeat(65));
    refused(
        Stream::Vehicle,
        &vehicle("sessionId", &long),
        Some("sessionId"),
        Code::InvalidId,
        "sessionId must have at most 64 characters",
    );
}

#[test]
fn unknown_and_repeated_fields_are_refused() {
    for name in ["soc", "MeterId", "", "meterid", "sessionId", "x\\ud800"] {
        let reading = meter("", "").replacen('{', &format!("{{\"{name}\":1,"), 1);
        let field = if name.starts_with('x') {
            "\u{fffd}"
        } else {
            name
        };
        refused(
            Stream::Meter,
            &reading,
            Some(field),
            Code::UnknownField,
            "is not a field of a meter reading; \
             its fields are meterId, kwhConsumedAc, voltage, timestamp, energyKind",
        );
    }
    refused(
        Stream::Vehicle,
        &vehicle("voltage", "1e309"),
        Some("voltage"),
        Code::UnknownField,
        "\"voltage\" is not a field of a vehicle reading; its fields are \
         vehicleId, soc, kwhDeliveredDc, batteryTemp, timestamp, energyKind, sessionId, meterId",
    );
    let long = vehicle(&"ü".repeat(50), "1");
    let shown = "ü".repeat(40) + "…";
    let code = Code::UnknownField;
    refused(Stream::Vehicle, &long, Some(&shown), code, &shown);
    let twice = meter("", "").replacen('{', r#"{"voltage":240.5,"#, 1);
    refused(
        Stream::Meter,
        &twice,
        Some("voltage"),
        Code::DuplicateField,
        "once",
    );
    let hidden = meter("", "").replacen('{', r#"{"volt\u0061ge":240.5,"#, 1);
    refused(
        Stream::Meter,
        &hidden,
        Some("voltage"),
        Code::DuplicateField,
        "once",
    );
}

#[test]
fn an_energy_kind_is_interval_or_register() {
    for kind in [r#""Register""#, r#""""#, r#""total""#, r#""\udfff""#] {
        refused(
            Stream::Meter,
            &meter("energyKind", kind),
            Some("energyKind"),
            Code::InvalidValue,
            "must be \"interval\" or \"register\"",
        );
    }
}

#[test]
fn a_reading_names_a_session_or_a_meter_but_not_both() {
    let both = vehicle("sessionId", r#""S1","meterId":"M1""#);
    refused(
        Stream::Vehicle,
        &both,
        None,
        Code::Conflict,
        "must not both be given",
    );
}

#[test]
fn a_time_is_rfc_3339_with_an_offset_and_within_the_bounds() {
    for (time, micros) in [
        ("2024-02-09T15:40:00Z", 600_000_000),
        ("2024-02-09T21:00:00.1234569+05:30", 123_456),
        ("2024-02-09 15:30:00z", 0),
    ] {
        let taken = everywhere(Stream::Meter, &meter("timestamp", &format!("\"{time}\""))).unwrap();
        assert_eq!(taken.at - NOW.as_micros(), micros, "{time}");
    }
    everywhere(
        Stream::Meter,
        &meter("timestamp", r#""2000-01-01T00:00:00Z""#),
    )
    .unwrap();
    for (time, code, message) in [
        (
            "2024-02-09T15:40:00.000001Z",
            Code::InFuture,
            "must not be after 2024-02-09T15:40:00Z",
        ),
        ("9999-12-31T23:59:59Z", Code::InFuture, "must not be after"),
        (
            "1999-12-31T23:59:59.999999Z",
            Code::TooOld,
            "must not be before 2000-01-01T00:00:00Z",
        ),
        ("0000-01-01T00:00:00Z", Code::TooOld, "must not be before"),
        ("2024-02-09T15:30:00", Code::InvalidTimestamp, "RFC 3339"),
        ("2024-02-30T15:30:00Z", Code::InvalidTimestamp, "RFC 3339"),
        ("", Code::InvalidTimestamp, "RFC 3339"),
        ("\\ud800", Code::InvalidTimestamp, "RFC 3339"),
    ] {
        let reading = meter("timestamp", &format!("\"{time}\""));
        refused(Stream::Meter, &reading, Some("timestamp"), code, message);
    }
}

#[test]
fn the_largest_age_moves_the_oldest_time_but_never_before_2000() {
    let day = Duration::from_secs(86_400);
    assert_eq!(
        Bounds::at(NOW, Some(day)).oldest,
        NOW.plus_micros(-86_400_000_000)
    );
    assert_eq!(
        Bounds::at(NOW, Some(day * 100_000)).oldest,
        Timestamp::Y2000
    );
    assert_eq!(
        Bounds::at(NOW, Some(Duration::MAX)).oldest,
        Timestamp::Y2000
    );
    assert_eq!(Bounds::at(NOW, None).oldest, Timestamp::Y2000);
    assert_eq!(Bounds::at(NOW, None).newest, NOW.plus_micros(600_000_000));
}

#[test]
fn new_ids_are_not_dots_which_urls_lose() {
    for (stream, name) in [
        (Stream::Meter, "meterId"),
        (Stream::Vehicle, "vehicleId"),
        (Stream::Vehicle, "sessionId"),
        (Stream::Vehicle, "meterId"),
    ] {
        for dots in [r#"".""#, r#""..""#, r#""\u002e.""#] {
            let reading = match stream {
                Stream::Meter => meter(name, dots),
                Stream::Vehicle => vehicle(name, dots),
            };
            let rule = "must not be . or ..";
            refused(stream, &reading, Some(name), Code::InvalidId, rule);
        }
    }
}

#[test]
fn a_value_that_is_not_an_object_is_one_bad_reading() {
    for text in ["1", "\"x\"", "null", "true", "-1e309", "\"\\ud800\""] {
        refused(
            Stream::Meter,
            text,
            None,
            Code::NotAnObject,
            "must be a JSON object",
        );
    }
    let (_, outcome) = decode(Stream::Meter, Format::Json, "[[],{}]").unwrap();
    assert_eq!(outcome.errors[0].code, Code::NotAnObject);
    let (_, outcome) = decode(Stream::Meter, Format::Ndjson, "[]").unwrap();
    assert_eq!(outcome.errors[0].code, Code::NotAnObject);
}

#[test]
fn codes_are_in_snake_case_and_indexed_in_their_order() {
    for (index, code) in Code::ALL.into_iter().enumerate() {
        assert_eq!(code.index(), index);
        assert!(
            code.as_str()
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_')
        );
    }
}
