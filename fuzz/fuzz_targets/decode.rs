//! Bodies: the gateway accepts and refuses what the reference does, reading by reading.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wattgate::ingest::decode::{
    Decoder, Dialect, ERRORS_MAX, Expected, Format, Rules, TimeForm, UnknownFields,
};
use wattgate::reading::Stream;
use wattgate_fuzz::decode::{Owned, body, bounds};

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let stream = Stream::ALL[usize::from(first & 1)];
    let mut decoder = Decoder::new();
    let mut taken: Vec<Owned> = Vec::new();
    let whole = decoder.decode(stream, Format::Json, data, &bounds(), |r| {
        taken.push(r.into())
    });
    let accepted = whole.as_ref().ok().map(|outcome| outcome.accepted);
    match (whole, body(stream, data)) {
        (Err(_), None) => assert!(taken.is_empty(), "a refused body passed readings on"),
        (Ok(outcome), Some(expected)) => {
            assert_eq!(outcome.accepted + outcome.rejected, expected.len() as u64);
            let (good, bad): (Vec<_>, Vec<_>) = expected.into_iter().partition(Result::is_ok);
            assert_eq!(taken, good.into_iter().flatten().collect::<Vec<_>>());
            let found = outcome.errors.iter().map(|error| error.code);
            let codes: Vec<_> = bad
                .into_iter()
                .filter_map(Result::err)
                .flatten()
                .take(ERRORS_MAX)
                .collect();
            assert_eq!(found.collect::<Vec<_>>(), codes);
        }
        (got, expected) => panic!("{got:?}, the reference has {expected:?}"),
    }
    // A sender that may write more differently loses nothing: the same body is refused, and no reading that was
    // accepted is rejected.
    let dialect = Dialect {
        unknown: UnknownFields::Ignore,
        time: TimeForm::UnixMillis,
    };
    let rules = Rules::new(bounds(), dialect);
    let expected = Expected {
        prefix: None,
        stream,
        format: Format::Json,
        rules: &rules,
    };
    let mut lenient: Vec<Owned> = Vec::new();
    let decoded = decoder.decode_of(&expected, data, |r| lenient.push(r.into()));
    assert_eq!(decoded.is_ok(), accepted.is_some());
    let mut rest = lenient.iter();
    assert!(
        taken
            .iter()
            .all(|reading| rest.any(|other| other == reading))
    );
    // As lines: each gives the same result as alone.
    if [&b"\xef\xbb\xbf"[..], b"\xfe\xff", b"\xff\xfe"]
        .iter()
        .any(|prefix| data.starts_with(prefix))
    {
        return;
    }
    taken.clear();
    let lines = decoder.decode(stream, Format::Ndjson, data, &bounds(), |r| {
        taken.push(r.into())
    });
    let alone = data
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii_start().starts_with(b"["));
    let alone: Vec<Owned> = alone
        .filter_map(|line| body(stream, line))
        .flatten()
        .flatten()
        .collect();
    assert_eq!(taken, alone);
    assert_eq!(
        lines.map_or(0, |outcome| outcome.accepted),
        alone.len() as u64
    );
});
