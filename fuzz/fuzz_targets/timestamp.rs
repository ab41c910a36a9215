//! Times: the gateway reads them as jiff does, if RFC 3339 has the form.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let ours = wattgate::ingest::decode::timestamp::parse(text).map(|at| at.as_micros());
    assert_eq!(ours, wattgate_fuzz::decode::time(text));
});
