//! Compares random bodies with the reference, random numbers with the standard library, and broken bodies with
//! serde_json's grammar.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde::de::IgnoredAny;

use super::reference::{Written, check};
use super::*;
use super::{tape::Elements, tape::Parser, tape::value_of};

fn any_value() -> impl Strategy<Value = String> {
    let odd = vec![
        "null",
        "true",
        "[]",
        "{}",
        r#"{"a":[1,"}"]}"#,
        r#""12""#,
        r#""""#,
        r#""\ud800""#,
        "1e309",
        "-1e999",
        "-0",
        "1E2",
        "99999999999999999999",
        r#""interval""#,
        r#""register""#,
        r#""2024-02-09T15:30:00Z""#,
        r#""2034-02-09T15:30:00Z""#,
        r#""1999-01-01T00:00:00+01:00""#,
        r#""2024-02-09T15:30:00""#,
        r#""a\nb""#,
        r#""\u0041\ud83d\udd0b""#,
        r#""},{""#,
        r#""é🔋""#,
        r#"".""#,
        r#""\u002e.""#,
    ];
    prop_oneof![
        2 => select(odd).prop_map(str::to_owned),
        1 => "(-)?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?",
        1 => "\"[a-zA-Z0-9 ,{}:]{0,70}\"",
    ]
}

/// Usually a valid reading. Otherwise some fields are reordered, replaced or added.
fn any_reading(stream: Stream) -> impl Strategy<Value = Written> {
    let good: &[(&str, &str)] = match stream {
        Stream::Meter => &[
            ("meterId", r#""M1""#),
            ("kwhConsumedAc", "45.23"),
            ("voltage", "240.5"),
            ("timestamp", r#""2024-02-09T15:30:00Z""#),
        ],
        Stream::Vehicle => &[
            ("vehicleId", r#""V1""#),
            ("soc", "80.5"),
            ("kwhDeliveredDc", "41.3"),
            ("batteryTemp", "-3.25"),
            ("timestamp", r#""2024-02-09T15:30:00.5+05:30""#),
        ],
    };
    let good: Written = good
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    let names = vec![
        "meterId",
        "vehicleId",
        "soc",
        "voltage",
        "energyKind",
        "sessionId",
        "timestamp",
        "batteryTemp",
        "kwhConsumedAc",
        "kwhDeliveredDc",
        "other",
        "",
    ];
    let extra = prop::collection::vec((select(names).prop_map(str::to_owned), any_value()), 0..3);
    let size = good.len();
    let kept = prop_oneof![8 => Just(good.clone()), 1 => subsequence(good, size - 1)];
    (kept, extra, any::<bool>()).prop_flat_map(|(mut fields, extra, replace)| {
        for (name, value) in extra {
            match fields.iter_mut().find(|(n, _)| *n == name) {
                Some(found) if replace => found.1 = value,
                _ => fields.push((name, value)),
            }
        }
        Just(fields).prop_shuffle()
    })
}

fn any_readings() -> impl Strategy<Value = (Stream, Vec<Written>)> {
    select(Stream::ALL.to_vec()).prop_flat_map(|stream| {
        (
            Just(stream),
            prop::collection::vec(any_reading(stream), 1..12),
        )
    })
}

fn text_of(written: &Written) -> String {
    let fields: Vec<String> = written
        .iter()
        .map(|(name, value)| format!("\"{name}\" :{value}"))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn readings_are_what_the_reference_says((stream, written) in any_readings()) {
        let texts: Vec<String> = written.iter().map(text_of).collect();
        let checked: Vec<_> = written.iter().map(|reading| check(stream, reading)).collect();
        let mut decoder = Decoder::new();
        for (format, body) in [
            (Format::Json, format!("[{}]", texts.join(","))),
            (Format::Ndjson, texts.join("\n")),
        ] {
            let (taken, outcome) =
                decode_with(&mut decoder, stream, format, body.as_bytes()).unwrap();
            let mut taken = taken.into_iter();
            let mut errors = outcome.errors.into_iter();
            for (index, expected) in checked.iter().enumerate() {
                match expected {
                    Ok(reading) => prop_assert_eq!(taken.next(), Some(reading.clone())),
                    Err(expected) => for (code, field) in expected {
                        let error = errors.next().unwrap();
                        prop_assert_eq!(error.index, index as u64);
                        prop_assert_eq!((error.code, error.field.as_deref()), (*code, field.as_deref()));
                    },
                }
            }
            prop_assert!(taken.next().is_none() && errors.next().is_none());
        }
    }

    #[test]
    fn a_broken_body_is_json_where_serde_json_says_so(
        (stream, written) in any_readings(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0usize..3, "[\\[\\]{},:\"\\\\ 0-9a-fntu.eE+-]{0,2}|\n|\0|é"),
            1..4,
        ),
    ) {
        let texts: Vec<String> = written.iter().map(text_of).collect();
        let mut body = format!("[{}]", texts.join(",")).into_bytes();
        for (at, cut, with) in edits {
            let at = at.index(body.len() + 1);
            body.splice(at..(at + cut).min(body.len()), with.bytes());
        }
        let json = serde_json::from_slice::<IgnoredAny>(&body).is_ok() && str::from_utf8(&body).is_ok();
        match decode(stream, Format::Json, &body) {
            Ok(_) | Err(BodyError::Empty) => prop_assert!(json || body.trim_ascii().is_empty()),
            Err(error) => prop_assert!(!json, "{error}: {}", body.escape_ascii()),
        }
        // As NDJSON, each line gives the same result as alone.
        let lines = decode(stream, Format::Ndjson, &body);
        let alone: u64 = body.split(|b| *b == b'\n')
            .filter_map(|line| decode(stream, Format::Ndjson, line).ok())
            .map(|(_, outcome)| outcome.accepted)
            .sum();
        prop_assert_eq!(lines.map_or(0, |(_, outcome)| outcome.accepted), alone);
    }

    #[test]
    fn a_number_is_the_nearest_double_of_its_text(texts in prop::collection::vec(any_number(), 200)) {
        assert_exact(&texts);
    }
}

fn any_number() -> impl Strategy<Value = String> {
    prop_oneof![
        "(-)?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?",
        "(-)?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,6})?",
        "0\\.0{0,12}[0-9]{1,22}(e-?[0-9]{1,3})?",
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(|f| format!("{f:e}")),
        // Exactly half way between two doubles, and just beside that.
        (0u64..1 << 53, -300i32..300, -1i8..2).prop_map(|(m, e, nudge)| {
            let digits = (1u128 << 54) + u128::from(m) * 2 + 1;
            format!("{}{}e{e}", digits, ["4", "5", "6"][(nudge + 1) as usize])
        }),
        (any::<u64>(), 0u32..3)
            .prop_map(|(n, over)| (u128::from(n) * 10u128.pow(over)).to_string()),
    ]
    .prop_filter("finite", |text| {
        text.parse::<f64>().is_ok_and(f64::is_finite)
    })
}

fn assert_exact<T: AsRef<str>>(texts: &[T]) {
    let mut parser = Parser::new();
    let joined: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    parser
        .text()
        .extend_from_slice(format!("[{}]", joined.join(",")).as_bytes());
    let parsed = parser.parse(|nodes| {
        let numbers = Elements(&nodes[1..]).map(|element| match value_of(&element[0]) {
            fields::Value::Number(number) => number + 0.0,
            other => panic!("{other:?}"),
        });
        numbers.collect::<Vec<f64>>()
    });
    let parsed = parsed.expect("all of them are numbers");
    assert_eq!(parsed.len(), texts.len());
    for (text, number) in joined.iter().zip(parsed) {
        let exact = text.parse::<f64>().unwrap() + 0.0;
        assert_eq!(
            number.to_bits(),
            exact.to_bits(),
            "{text}: {number:e}, not {exact:e}"
        );
    }
}

#[test]
fn nasty_decimals_are_exact() {
    assert_exact(&[
        "9007199254740993",
        "9007199254740992.5",
        "9007199254740993.00000000000000000000001",
        "0.1",
        "0.3",
        "1e23",
        "8.5e22",
        "9.5e-5",
        "2.2250738585072011e-308",
        "2.2250738585072014e-308",
        "4.9e-324",
        "2.4703282292062327e-324",
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "123456789.123456789123456789",
        "0.000000000000000000000000001",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "9223372036854775809",
        "1.00000000000000011102230246251565404",
        "6929495644600919.5",
        "3.7455744005952583e15",
        "0.500000000000000166533453693773481063544750213623046875",
        "179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587207096330286416692887910946555547851940402630657488671505820681908902000708383676273854845817711531764475730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880e0",
    ]);
}
