//! Compares times with jiff, and tests the choices that RFC 3339 leaves open.

use proptest::prelude::*;

use super::reference::by_jiff;
use super::timestamp::parse;

fn ours(text: &str) -> Option<i64> {
    parse(text).map(|at| at.as_micros())
}

fn any_time() -> impl Strategy<Value = String> {
    // Each number may be just outside its range.
    let civil = (
        1990u32..2110,
        0u32..14,
        0u32..33,
        0u32..25,
        0u32..61,
        0u32..62,
    );
    let tail = (
        "[Tt ]",
        "(\\.[0-9]{0,12})?",
        "Z|z|[+-][0-2][0-9]:[0-6][0-9]|",
    );
    (civil, tail).prop_map(|((y, mo, d, h, mi, s), (t, fraction, offset))| {
        format!("{y:04}-{mo:02}-{d:02}{t}{h:02}:{mi:02}:{s:02}{fraction}{offset}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_time_is_what_jiff_says(text in any_time()) {
        prop_assert_eq!(ours(&text), by_jiff(&text), "{}", text);
    }

    #[test]
    fn a_broken_time_is_what_jiff_says(
        text in any_time(), at in 0usize..30, with in "[0-9TZ:.+ -]|é|", cut in 0usize..2,
    ) {
        let at = at.min(text.len());
        let broken = format!("{}{with}{}", &text[..at], &text[(at + cut).min(text.len())..]);
        prop_assert_eq!(ours(&broken), by_jiff(&broken), "{}", broken);
    }

    #[test]
    fn no_text_makes_the_time_parser_panic(text in "\\PC{0,40}") {
        prop_assert_eq!(ours(&text), by_jiff(&text));
    }
}

#[test]
fn every_day_of_four_centuries_is_where_jiff_has_it() {
    let mut day = jiff::civil::date(1799, 12, 31);
    while day.year() < 2201 {
        let text = format!("{day}T00:00:00Z");
        assert_eq!(ours(&text), by_jiff(&text), "{text}");
        assert!(ours(&text).is_some(), "{text}");
        day = day.tomorrow().unwrap();
    }
}

#[test]
fn digits_beyond_the_microsecond_are_cut() {
    let whole = ours("2024-02-09T15:30:00Z").unwrap();
    for (fraction, micros) in [
        (".9999999999999999999999", 999_999),
        (".0000019", 1),
        (".5", 500_000),
    ] {
        assert_eq!(
            ours(&format!("2024-02-09T15:30:00{fraction}Z")),
            Some(whole + micros)
        );
    }
}

#[test]
fn a_leap_second_is_the_second_before_it() {
    assert_eq!(ours("2016-12-31T23:59:60Z"), ours("2016-12-31T23:59:59Z"));
    assert_eq!(ours("2016-12-31T23:59:61Z"), None);
}

#[test]
fn times_outside_rfc_3339_are_refused() {
    for text in [
        "",
        "2024-02-09T15:30:00",
        "2024-02-09T15:30Z",
        "20240209T153000Z",
        "2024-02-09",
        "2024-02-09T15:30:00,5Z",
        "2024-02-09T15:30:00+05",
        "2024-02-09T15:30:00+0530",
        "2024-02-09T15:30:00Z[UTC]",
        " 2024-02-09T15:30:00Z",
        "2024-02-09T15:30:00Z ",
        "+002024-02-09T15:30:00Z",
        "2024-02-09T24:00:00Z",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2024-W06-5T15:30:00Z",
        "1707492600",
    ] {
        assert_eq!(ours(text), None, "{text}");
    }
    assert!(ours("2000-02-29T00:00:00-00:00").is_some());
}
