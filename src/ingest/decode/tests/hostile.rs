//! Bodies made to break the decoder. It must stay within its limits and keep working.

use super::*;

const LARGEST: usize = 8 * 1024 * 1024;
/// Eight pieces for the quick parser: enough to take every path, and quick enough in a debug build.
const LARGE: usize = 8 * TEXT_BYTES_MAX;

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn nesting_is_accepted_up_to_the_limit() {
    let (_, outcome) = decode(Stream::Meter, Format::Json, nested(DEPTH_MAX)).unwrap();
    assert_eq!(outcome.errors[0].code, Code::NotAnObject);
    assert_eq!(
        decode(Stream::Meter, Format::Json, nested(DEPTH_MAX + 1)),
        Err(BodyError::TooDeep { offset: DEPTH_MAX })
    );
    for (depth, code) in [
        (DEPTH_MAX, Code::NotAnObject),
        (DEPTH_MAX + 1, Code::TooDeep),
    ] {
        let body = format!("{}\n{}", nested(depth), meter("", ""));
        let (taken, outcome) = decode(Stream::Meter, Format::Ndjson, body).unwrap();
        assert_eq!((taken.len(), outcome.errors[0].code), (1, code));
    }
    let quoted = meter("meterId", &format!("\"{}\\\"[\"", "[".repeat(40)));
    let (taken, _) = decode(
        Stream::Meter,
        Format::Json,
        format!("[{quoted},{{\"soc\":1e309}}]"),
    )
    .unwrap();
    assert_eq!(taken.len(), 1, "brackets in a string do not nest");
}

#[test]
fn a_broken_key_after_many_others_is_still_valid_json() {
    // Found by fuzzing: fields after the last one that matters were read as text.
    let many: String = (0..30).map(|n| format!("\"k{n}\":1,")).collect();
    let body = format!("[{{{many}\"\\ud800\":1}},{}]", meter("", ""));
    let (taken, outcome) = decode(Stream::Meter, Format::Json, body).unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(outcome.errors[0].code, Code::UnknownField);
}

#[test]
fn large_bodies_of_one_byte_give_their_memory_back() {
    let mut decoder = Decoder::new();
    for unit in [
        "[",
        "{",
        "\"",
        "\\",
        ",",
        "]",
        "1",
        " ",
        "\n",
        "\0",
        "{\"a\":",
        "[1,",
        "[],",
        "{},",
        "1,",
        "1\n",
        "{}\n",
        "\"a\",",
        "\"\\u0041",
        "\u{1F50B}",
    ] {
        let units = unit.repeat(LARGE / unit.len());
        let array = format!("[{units}1]");
        for body in [units, array] {
            for format in [Format::Json, Format::Ndjson] {
                // Only two things are guaranteed: a result, and how much memory is kept.
                drop(decode_with(
                    &mut decoder,
                    Stream::Meter,
                    format,
                    body.as_bytes(),
                ));
                assert!(decoder.parser.kept_nodes() <= tape::KEPT_NODES_MAX);
            }
        }
    }
    let (taken, _) = decode_with(
        &mut decoder,
        Stream::Meter,
        Format::Json,
        meter("", "").as_bytes(),
    )
    .unwrap();
    assert_eq!(taken.len(), 1);
}

#[test]
fn the_largest_body_of_brackets_is_too_deep() {
    assert_eq!(
        decode(Stream::Meter, Format::Json, "[".repeat(LARGEST)),
        Err(BodyError::TooDeep { offset: DEPTH_MAX })
    );
    let (_, outcome) = decode(Stream::Meter, Format::Ndjson, "[".repeat(LARGEST)).unwrap();
    assert_eq!(outcome.errors[0].code, Code::TooDeep);
}

#[test]
fn truncated_and_changed_bodies_are_always_answered() {
    let body = format!(
        "[{},{}]",
        vehicle("meterId", r#""\u00e9\n🔋""#),
        vehicle("soc", "1.5e1")
    );
    for end in 0..body.len() {
        let error = decode(Stream::Vehicle, Format::Json, &body.as_bytes()[..end]).unwrap_err();
        assert!(
            ["malformed", "empty", "not_utf8"].contains(&error.code()),
            "{end}"
        );
    }
    let mut decoder = Decoder::new();
    for at in 0..body.len() {
        for byte in 0..=255 {
            let mut changed = body.clone().into_bytes();
            changed[at] = byte;
            for format in [Format::Json, Format::Ndjson] {
                drop(decode_with(&mut decoder, Stream::Vehicle, format, &changed));
            }
        }
    }
}

#[test]
fn a_decoder_remembers_nothing_of_the_body_before() {
    let mut decoder = Decoder::new();
    let good = meter("", "");
    for bad in ["[", "[{\"meterId\":\"", "{\"a\":1e309}", "\u{feff}", "[[[["] {
        drop(decode_with(
            &mut decoder,
            Stream::Meter,
            Format::Json,
            bad.as_bytes(),
        ));
        for format in [Format::Json, Format::Ndjson] {
            let kept = decode_with(&mut decoder, Stream::Meter, format, good.as_bytes());
            assert_eq!(kept, decode(Stream::Meter, format, &good));
        }
    }
}

#[test]
fn a_decoder_can_be_sent_to_a_worker() {
    fn sent<T: Send + 'static>() {}
    sent::<Decoder>();
}
