//! Whole bodies: arrays, lines, bodies that are refused, and bodies that are split into pieces.

use super::*;

fn numbered(count: usize, separator: &str) -> String {
    let readings: Vec<String> = (0..count)
        .map(|n| meter("meterId", &format!("\"M{n}\"")))
        .collect();
    readings.join(separator)
}

fn ids(taken: &[Owned]) -> Vec<&str> {
    taken
        .iter()
        .map(|reading| reading.device.as_str())
        .collect()
}

#[test]
fn a_body_without_readings_is_empty() {
    for body in ["", " \r\n\t", "[]", " [ ] "] {
        assert_eq!(
            decode(Stream::Meter, Format::Json, body),
            Err(BodyError::Empty),
            "{body:?}"
        );
    }
    let spaces = format!("[{}]", " ".repeat(TEXT_BYTES_MAX));
    assert_eq!(
        decode(Stream::Meter, Format::Json, spaces),
        Err(BodyError::Empty)
    );
    for body in ["", "\n", "\r\n \t\r\n"] {
        assert_eq!(
            decode(Stream::Meter, Format::Ndjson, body),
            Err(BodyError::Empty),
            "{body:?}"
        );
    }
}

#[test]
fn a_byte_order_mark_is_refused() {
    for format in [Format::Json, Format::Ndjson] {
        for mark in [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"] {
            let body = [mark, meter("", "").as_bytes()].concat();
            assert_eq!(
                decode(Stream::Meter, format, body),
                Err(BodyError::ByteOrderMark)
            );
        }
    }
}

#[test]
fn a_body_that_is_not_json_is_refused_with_the_place() {
    let good = meter("", "");
    for bad in [
        "[{}",
        "{",
        "[1,]",
        "nul",
        "{'a':1}",
        "{}{}",
        "[1] x",
        "\u{c}1",
        "[01]",
        "[+1]",
        "[.5]",
        "[1.]",
        "[NaN]",
        "[Infinity]",
        "{\"a\":1,}",
        "\"a\nb\"",
        "\"\\x\"",
        "\"\\u12\"",
    ] {
        let error = decode(Stream::Meter, Format::Json, bad).unwrap_err();
        assert_eq!(error.code(), "malformed", "{bad}");
    }
    let body = format!("[{good},\n{good}\n{good}]");
    let error = decode(Stream::Meter, Format::Json, body).unwrap_err();
    let BodyError::Malformed {
        line: 3, column: 1, ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(
        error.to_string(),
        "the body is not valid JSON: expected `,` or `]` (line 3, column 1)"
    );
    let body = [b"[\"a\xff\"]", good.as_bytes()].concat();
    assert_eq!(
        decode(Stream::Meter, Format::Json, body),
        Err(BodyError::NotUtf8 { offset: 3 })
    );
    let late = format!("[{},{{\"a\":1e309}},{{]", numbered(3000, ","));
    assert_eq!(
        decode(Stream::Meter, Format::Json, late)
            .unwrap_err()
            .code(),
        "malformed"
    );
}

#[test]
fn a_bad_reading_costs_none_of_its_neighbours() {
    for bad in [
        r#"{"voltage":1e309}"#,
        r#"{"meterId":"\ud800"}"#,
        r#"{"voltage":"1"}"#,
        "7",
    ] {
        let good = numbered(3, ",");
        let (taken, outcome) = decode(
            Stream::Meter,
            Format::Json,
            format!("[{good},{bad},{good}]"),
        )
        .unwrap();
        assert_eq!(ids(&taken), ["M0", "M1", "M2", "M0", "M1", "M2"]);
        assert_eq!((outcome.rejected, outcome.errors[0].index), (1, 3), "{bad}");
    }
}

#[test]
fn a_bad_line_costs_only_itself() {
    let good = meter("", "");
    for bad in [
        &b"{"[..],
        b"{\"a\":1",
        b"\"b\":2}",
        b"{},{}",
        b"[",
        b"]",
        b"\xff",
        b"\"",
        b"{\"meterId\":\"\xc3\"}",
        b"\xef\xbb\xbf{}",
        b",",
        b"1 2",
    ] {
        let body = [good.as_bytes(), b"\n", bad, b"\r\n\r\n \n", good.as_bytes()].concat();
        let (taken, outcome) = decode(Stream::Meter, Format::Ndjson, body).unwrap();
        assert_eq!(
            (taken.len(), outcome.rejected),
            (2, 1),
            "{}",
            bad.escape_ascii()
        );
        assert_eq!(
            (outcome.errors[0].index, outcome.errors[0].code),
            (1, Code::Malformed)
        );
        assert!(
            outcome.errors[0]
                .message
                .starts_with("the line is not valid")
        );
    }
}

#[test]
fn lines_never_complete_each_other() {
    let good = meter("", "");
    let (head, tail) = good.split_at(good.find("\"voltage").unwrap());
    let head = head.trim_end_matches(',');
    for (body, accepted) in [
        // One object over two lines, and two objects on one line: there are as many elements as lines.
        (format!("{head}\n{tail}\n{good},{good}"), 0),
        (format!("{good},{good}\n{head}\n{tail}"), 0),
        (format!("{head}\n{tail},{good}"), 0),
        (format!("{good}\n{head}\n{tail},{good}\n{good}"), 2),
        // A string over two lines.
        (good.replace("M1", "M\n1") + &format!("\n{good},{good}"), 0),
        (
            good.replace("M1", "\\u004d\n1") + &format!("\n{good},{good}"),
            0,
        ),
        // Brackets that close the array and open another one.
        (format!("{good}]\n[{good}"), 0),
        (format!("[{good}\n{good}]"), 0),
        (format!("{good},\n{good}"), 1),
        (format!("{good}\n,{good}"), 1),
    ] {
        let (taken, outcome) = decode(Stream::Meter, Format::Ndjson, &body).unwrap();
        assert_eq!(taken.len(), accepted, "{body}");
        assert_eq!(
            taken.len() as u64 + outcome.rejected,
            body.lines().count() as u64
        );
    }
}

#[test]
fn large_bodies_are_cut_and_lose_nothing() {
    let count = 5000;
    let expected: Vec<String> = (0..count).map(|n| format!("M{n}")).collect();
    for separator in [",", "\n , \r\n"] {
        let body = format!(" [ {} ]\n", numbered(count, separator));
        assert!(body.len() > 3 * TEXT_BYTES_MAX);
        let (taken, _) = decode(Stream::Meter, Format::Json, body).unwrap();
        assert_eq!(ids(&taken), expected);
    }
    for separator in ["\n", "\r\n", "\n\n"] {
        let (taken, _) = decode(Stream::Meter, Format::Ndjson, numbered(count, separator)).unwrap();
        assert_eq!(ids(&taken), expected);
    }
}

#[test]
fn a_cut_inside_a_string_or_nested_value_is_not_used() {
    // Every comma near the end of the first piece is misleading: in the first case those in ids, in the second
    // those in nested arrays.
    for lie in [r#""},{},{""#, r#"[[{},{},{}],{},{}]"#] {
        let liar = meter("meterId", lie);
        let body = format!("[{},{liar}]", vec![liar.as_str(); 3000].join(","));
        assert!(body.len() > 2 * TEXT_BYTES_MAX);
        let (taken, outcome) = decode(Stream::Meter, Format::Json, body).unwrap();
        assert_eq!(taken.len() as u64 + outcome.rejected, 3001);
        assert!(taken.iter().all(|reading| reading.device == "},{},{"));
    }
    let padded = meter("meterId", &format!("\"{}\"", "},{".repeat(TEXT_BYTES_MAX)));
    let (_, outcome) = decode(Stream::Meter, Format::Json, format!("[{padded},{{}}]")).unwrap();
    assert_eq!(
        [0, 1].map(|n| outcome.errors[n].code),
        [Code::InvalidId, Code::Missing]
    );
}

#[test]
fn a_trailing_comma_of_a_large_array_is_refused() {
    for end in [",", ",{}", "]", "}", "},{"] {
        let body = format!("[{}{end}]", numbered(3000, ","));
        let error = decode(Stream::Meter, Format::Json, &body).map(|(_, outcome)| outcome.rejected);
        match end {
            ",{}" => assert_eq!(error, Ok(1)),
            _ => assert_eq!(error.unwrap_err().code(), "malformed", "{end}"),
        }
    }
}

#[test]
fn at_most_a_hundred_errors_are_listed_and_all_are_counted() {
    for format in [Format::Json, Format::Ndjson] {
        for count in [ERRORS_MAX, ERRORS_MAX + 1] {
            let wrong = vehicle("soc", "");
            let body = match format {
                Format::Json => format!("[{}]", vec![wrong; count].join(",")),
                Format::Ndjson => vec![wrong; count].join("\n"),
            };
            let (_, outcome) = decode(Stream::Vehicle, format, body).unwrap();
            assert_eq!(outcome.rejected, count as u64);
            assert_eq!(
                outcome.rejected_by_code[Code::Missing.index()],
                count as u64
            );
            assert_eq!(outcome.errors_truncated, count > ERRORS_MAX);
            assert_eq!(outcome.errors[99].index, 99);
        }
    }
}
