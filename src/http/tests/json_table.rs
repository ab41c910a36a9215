//! Well-formed, malformed and meaningless JSON, sent to the ingestion endpoint.
//!
//! The classes are those of public test suites for parsers. Most texts are sent three ways: as the whole body, in an
//! array with a valid reading, and as an NDJSON line beside one.

use super::{Edge, METER, PATH, eventually};

/// Texts that RFC 8259 allows and that are not readings.
const WELL_FORMED: &[(&str, &[u8])] = &[
    ("array_arrays_with_spaces", b"[[]   ]"),
    ("array_ending_with_newline", b"[\"a\"\n]"),
    ("array_false", b"[false]"),
    ("array_heterogeneous", b"[null, 1, \"1\", {}]"),
    ("array_null", b"[null]"),
    ("array_several_null", b"[1,null,null,null,2]"),
    ("array_leading_space", b" [1]"),
    ("array_trailing_space", b"[2] "),
    ("number", b"123e65"),
    ("number_0e+1", b"0e+1"),
    ("number_0e1", b"0e1"),
    ("number_after_space", b" 4"),
    (
        "number_close_to_zero",
        b"-0.000000000000000000000000000000000000000000000000000000000000000000000000000001",
    ),
    ("number_int_with_exp", b"20e1"),
    ("number_minus_zero", b"-0"),
    ("number_negative_one", b"-1"),
    ("number_real_capital_e", b"1E22"),
    ("number_real_capital_e_neg_exp", b"1E-2"),
    ("number_real_fraction_exponent", b"123.456e78"),
    ("number_subnormal", b"5e-324"),
    ("number_23_digits", b"12345678901234567890123"),
    ("object_basic", b"{\"asd\":\"sdf\"}"),
    ("object_duplicated_key", b"{\"a\":\"b\",\"a\":\"c\"}"),
    ("object_empty", b"{}"),
    ("object_empty_key", b"{\"\":0}"),
    ("object_escaped_null_in_key", b"{\"foo\\u0000bar\": 42}"),
    (
        "object_long_strings",
        b"{\"x\":[{\"id\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}]}",
    ),
    ("object_with_newlines", b"{\n\"a\": \"b\"\n}"),
    ("string_1_2_3_byte_sequences", b"\"\\u0060\\u012a\\u12AB\""),
    ("string_surrogate_pair", b"\"\\uD801\\udc37\""),
    ("string_allowed_escapes", b"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
    ("string_backslash_and_u_escaped_zero", b"\"\\\\u0000\""),
    ("string_comments", b"\"a/*b*/c/*d//e\""),
    ("string_double_escape_n", b"\"\\\\n\""),
    ("string_escaped_control_character", b"\"\\u0012\""),
    ("string_escaped_noncharacter", b"\"\\uFFFF\""),
    ("string_noncharacter_in_utf8", "\"\u{ffff}\"".as_bytes()),
    ("string_u2028", "\"\u{2028}\"".as_bytes()),
    ("string_del", b"\"\x7f\""),
    ("string_4_byte", "\"\u{1F50B}\"".as_bytes()),
    ("string_empty", b"\"\""),
    ("true", b"true"),
    ("false", b"false"),
    ("null", b"null"),
    ("white_space_of_all_kinds", b"\t\n\r 1 \r\n\t"),
];

/// Texts that the JSON grammar allows, but whose value depends on the parser.
const OPEN: &[(&str, &[u8])] = &[
    ("number_double_huge_neg_exp", b"123.456e-789"),
    (
        "number_huge_exp",
        b"0.4e00669999999999999999999999999999999999999999999999969999999006",
    ),
    ("number_neg_overflow", b"-123123e100000"),
    ("number_overflow", b"123123e100000"),
    ("number_1e309", b"1e309"),
    (
        "number_very_big_int",
        b"-237462374673276894279832749832423479823246327846",
    ),
    ("string_lone_first_surrogate", b"\"\\uDADA\""),
    ("string_lone_second_surrogate", b"\"\\uDFAA\""),
    ("string_first_surrogate_then_escape", b"\"\\uD800\\n\""),
    ("string_inverted_surrogates", b"\"\\uDd1e\\uD834\""),
    ("string_incomplete_surrogate_pair", b"\"\\uD800abc\""),
];

/// Texts that are not JSON, neither alone nor as an array element.
const MALFORMED: &[(&str, &[u8])] = &[
    ("array_1_true_without_comma", b"[1 true]"),
    ("array_colon_instead_of_comma", b"[\"\": 1]"),
    ("array_comma_after_close", b"[\"\"],,"),
    ("array_comma_and_number", b"[,1]"),
    ("array_double_comma", b"[1,,2]"),
    ("array_double_extra_comma", b"[\"x\",,]"),
    ("array_extra_comma", b"[\"\",]"),
    ("array_incomplete", b"[\"x\""),
    ("array_inner_without_comma", b"[3[4]]"),
    ("array_just_comma", b"[,]"),
    ("array_just_minus", b"[-]"),
    ("array_newlines_unclosed", b"[\"a\",\n4\n,1,"),
    ("array_spaces_vertical_tab", b"[\"\x0ba\"\\f]"),
    ("array_star_inside", b"[*]"),
    ("array_unclosed_trailing_comma", b"[1,"),
    ("array_unclosed_with_object_inside", b"[{}"),
    ("incomplete_false", b"[fals]"),
    ("incomplete_null", b"[nul]"),
    ("incomplete_true", b"[tru]"),
    ("capitalized_true", b"True"),
    ("number_plus_plus", b"++1234"),
    ("number_plus", b"+1"),
    ("number_plus_inf", b"+Inf"),
    ("number_minus_01", b"-01"),
    ("number_minus_1_0_dot", b"-1.0."),
    ("number_minus_2_dot", b"-2."),
    ("number_minus_nan", b"-NaN"),
    ("number_dot_minus_1", b".-1"),
    ("number_dot_2e_minus_3", b".2e-3"),
    ("number_0_1_2", b"0.1.2"),
    ("number_0_3e", b"0.3e"),
    ("number_0_3e_plus", b"0.3e+"),
    ("number_0_capital_e", b"0E"),
    ("number_0e", b"0e"),
    ("number_0_dot_e1", b"0.e1"),
    ("number_1_0e_minus", b"1.0e-"),
    ("number_1_000", b"1 000.0"),
    ("number_1ee2", b"1eE2"),
    ("number_2_dot_e_3", b"2.e3"),
    ("number_9_dot_e_plus", b"9.e+"),
    ("number_inf", b"Inf"),
    ("number_infinity", b"Infinity"),
    ("number_nan", b"NaN"),
    ("number_fullwidth_digit", "\u{ff11}".as_bytes()),
    ("number_expression", b"1+2"),
    ("number_hex_1_digit", b"0x1"),
    ("number_hex_2_digits", b"0x42"),
    ("number_invalid_plus_minus", b"0e+-1"),
    ("number_minus_infinity", b"-Infinity"),
    ("number_minus_sign_with_trailing_garbage", b"-foo"),
    ("number_minus_space_1", b"- 1"),
    ("number_neg_with_garbage", b"-1x"),
    ("number_real_garbage_after_e", b"1ea"),
    ("number_real_without_fraction", b"1."),
    ("number_starting_with_dot", b".123"),
    ("number_then_00", b"012"),
    ("number_underscore", b"1_0"),
    ("object_bad_value", b"{\"x\": truth}"),
    ("object_bracket_key", b"{[: \"x\"}"),
    ("object_comma_instead_of_colon", b"{\"x\", null}"),
    ("object_double_colon", b"{\"x\"::\"b\"}"),
    ("object_emoji", "{\u{1F1E8}}".as_bytes()),
    ("object_garbage_at_end", b"{\"a\":\"a\" 123}"),
    ("object_key_with_single_quotes", b"{key: 'value'}"),
    ("object_missing_colon", b"{\"a\" b}"),
    ("object_missing_key", b"{:\"b\"}"),
    ("object_missing_semicolon", b"{\"a\" \"b\"}"),
    ("object_missing_value", b"{\"a\":"),
    ("object_no_colon", b"{\"a\""),
    ("object_non_string_key", b"{1:1}"),
    ("object_repeated_null_null", b"{null:null,null:null}"),
    ("object_several_trailing_commas", b"{\"id\":0,,,,,}"),
    ("object_single_quote", b"{'a':0}"),
    ("object_trailing_comma", b"{\"id\":0,}"),
    ("object_trailing_comment", b"{\"a\":\"b\"}/**/"),
    ("object_trailing_comment_slash", b"{\"a\":\"b\"}//"),
    ("object_two_commas_in_a_row", b"{\"a\":\"b\",,\"c\":\"d\"}"),
    ("object_unquoted_key", b"{a: \"b\"}"),
    ("object_unterminated_value", b"{\"a\":\"a"),
    ("object_lone_continuation_byte_in_key", b"{\"\xb9\":\"0\",}"),
    ("single_space_in_quotes_unclosed", b"\" "),
    ("string_escaped_emoji", "\"\\\u{1F300}\"".as_bytes()),
    ("string_escape_x", b"\"\\x00\""),
    ("string_escaped_backslash_bad", b"\"\\\\\\\""),
    ("string_escaped_ctrl_char_tab", b"\"\\\t\""),
    ("string_incomplete_escape", b"\"\\\""),
    ("string_incomplete_escaped_character", b"\"\\u00A\""),
    ("string_incomplete_surrogate_escape", b"\"\\uD800\\u\""),
    ("string_invalid_backslash_esc", b"\"\\a\""),
    ("string_invalid_unicode_escape", b"\"\\uqqqq\""),
    ("string_no_quotes_with_bad_escape", b"\\n"),
    ("string_single_quote", b"'single quote'"),
    ("string_single_string_no_double_quotes", b"abc"),
    ("string_unescaped_newline", b"\"new\nline\""),
    ("string_unescaped_tab", b"\"\t\""),
    ("string_unescaped_nul", b"\"a\0a\""),
    ("string_with_trailing_garbage", b"\"\"x"),
    ("string_invalid_utf8", b"\"\xff\""),
    ("string_overlong_slash", b"\"\xc0\xaf\""),
    ("string_surrogate_in_utf8", b"\"\xed\xa0\x80\""),
    ("string_truncated_utf8", b"\"\xe0\xff\""),
    ("string_beyond_unicode", b"\"\xf4\xbf\xbf\xbf\""),
    ("structure_angle_bracket", b"<.>"),
    ("structure_ascii_unicode_identifier", "a\u{e5}".as_bytes()),
    ("structure_capitalized", b"[True]"),
    ("structure_comment", b"{\"a\":/*comment*/\"b\"}"),
    ("structure_end_array_twice", b"1]]"),
    ("structure_lone_open_bracket", b"["),
    ("structure_nul_byte_outside_of_a_string", b"[\0]"),
    ("structure_object_followed_by_closing", b"{}}"),
    (
        "structure_object_with_trailing_garbage",
        b"{\"a\": true} \"x\"",
    ),
    ("structure_open_object", b"{"),
    ("structure_open_object_open_array", b"{["),
    ("structure_open_object_string", b"{\"a"),
    ("structure_single_star", b"*"),
    ("structure_uescaped_line_feed", b"\\u000A\"\""),
    ("structure_unicode_identifier", "\u{e5}".as_bytes()),
    ("structure_word_joiner", "\u{2060}".as_bytes()),
    ("structure_byte_order_mark_inside", b"\xef\xbb\xbf1"),
    ("structure_no_break_space", "\u{a0}1".as_bytes()),
    ("structure_form_feed", b"\x0c1"),
];

/// Malformed texts that are sent only as the whole body. In an array `1,2` would be valid.
const MALFORMED_ALONE: &[(&str, &[u8])] = &[
    ("array_extra_close", b"[\"x\"]]"),
    ("array_without_brackets", b"1,2"),
    ("structure_double_array", b"[][]"),
    ("structure_close_unopened_array", b"1]"),
    ("structure_array_trailing_garbage", b"[1]x"),
    ("structure_number_with_trailing_garbage", b"2@"),
    ("structure_two_values", b"{} {}"),
    ("structure_byte_order_mark", b"\xef\xbb\xbf{}"),
    ("structure_utf16_mark", b"\xff\xfe[\0]\0"),
    ("structure_utf16_without_mark", b"[\0\"\0\xe9\0\"\0]\0"),
    ("structure_nothing", b""),
    ("structure_only_space", b" "),
];

async fn send(edge: &Edge, kind: &str, body: &[u8]) -> super::Answer {
    let length = body.len();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut client = edge.connect().await;
    client.write(&[head.as_bytes(), body].concat()).await;
    client.answer().await
}

fn beside_a_reading(text: &[u8]) -> Vec<u8> {
    [b"[", METER.as_bytes(), b",", text, b"]"].concat()
}

#[tokio::test]
async fn json_without_a_reading_costs_only_itself() {
    let edge = Edge::start();
    let mut taken = 0;
    for (name, text) in WELL_FORMED.iter().chain(OPEN) {
        let alone = send(&edge, "application/json", text).await;
        let problem = alone.assert_problem(400);
        assert_eq!(
            problem["type"], "urn:wattgate:problem:no-valid-reading",
            "{name}"
        );
        let beside = send(&edge, "application/json", &beside_a_reading(text)).await;
        assert_eq!(beside.status, 202, "{name}: {beside:?}");
        let summary = beside.json();
        assert_eq!(
            (&summary["accepted"], &summary["rejected"]),
            (&1.into(), &1.into()),
            "{name}"
        );
        taken += 1;
    }
    eventually("only the good are in the log", || edge.accepted() == taken).await;
}

#[tokio::test]
async fn malformed_json_is_refused_whole() {
    let edge = Edge::start();
    for (name, text) in MALFORMED.iter().chain(MALFORMED_ALONE) {
        let alone = send(&edge, "application/json", text).await;
        let problem = alone.assert_problem(400);
        assert_eq!(
            problem["type"], "urn:wattgate:problem:unreadable-body",
            "{name}"
        );
    }
    for (name, text) in MALFORMED {
        let beside = send(&edge, "application/json", &beside_a_reading(text)).await;
        let problem = beside.assert_problem(400);
        assert_eq!(
            problem["type"], "urn:wattgate:problem:unreadable-body",
            "{name}"
        );
    }
    assert_eq!(edge.accepted(), 0);
}

#[tokio::test]
async fn a_malformed_line_costs_only_itself() {
    let edge = Edge::start();
    let mut taken = 0;
    let all = WELL_FORMED.iter().chain(OPEN).chain(MALFORMED);
    for (name, text) in all.filter(|(_, text)| !text.contains(&b'\n')) {
        let body = [text, b"\n".as_slice(), METER.as_bytes()].concat();
        let answer = send(&edge, "application/x-ndjson", &body).await;
        if text.starts_with(b"\xef\xbb\xbf") || std::str::from_utf8(text).is_err() {
            assert!([202, 400].contains(&answer.status), "{name}: {answer:?}");
        } else {
            assert_eq!(answer.status, 202, "{name}: {answer:?}");
            assert_eq!(answer.json()["rejected"], 1, "{name}");
        }
        taken += u64::from(answer.status == 202);
    }
    eventually("only the good are in the log", || edge.accepted() == taken).await;
}

#[tokio::test]
async fn nesting_without_end_is_refused() {
    let edge = Edge::start();
    for unit in ["[", "{\"a\":", "[{\"\":"] {
        let body = unit.repeat(100_000 / unit.len());
        for kind in ["application/json", "application/x-ndjson"] {
            send(&edge, kind, body.as_bytes()).await.assert_problem(400);
        }
    }
}
