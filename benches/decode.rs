//! Compares decoding with serde_json's typed parse, which validates only types.
//!
//! `cargo bench --bench decode`. Only ratios within one run are meaningful.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use wattgate::ingest::decode::{Bounds, Decoder, Format};
use wattgate::reading::{Stream, Timestamp};

const SIZES: [usize; 3] = [1, 500, 5000];

/// The struct into which a plain service would parse a reading.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Typed<'a> {
    #[serde(borrow)]
    vehicle_id: std::borrow::Cow<'a, str>,
    soc: f64,
    kwh_delivered_dc: f64,
    battery_temp: f64,
    timestamp: std::borrow::Cow<'a, str>,
}

fn readings(count: usize) -> Vec<String> {
    let reading = |n: usize| {
        format!(
            concat!(
                r#"{{"vehicleId":"VEH-{:05}","soc":{}.5,"kwhDeliveredDc":{}.{},"#,
                r#""batteryTemp":31.{},"timestamp":"2024-02-09T15:{:02}:{:02}.{:03}Z"}}"#
            ),
            n,
            n % 100,
            n % 60,
            n % 97,
            n % 10,
            n / 60 % 60,
            n % 60,
            n % 1000
        )
    };
    (0..count).map(reading).collect()
}

fn decode(criterion: &mut Criterion) {
    let bounds = Bounds::at(Timestamp::now(), None);
    for size in SIZES {
        let readings = readings(size);
        let mut group = criterion.benchmark_group(format!("{size}_readings"));
        group.throughput(Throughput::Elements(size as u64));
        let bodies = [
            ("array", Format::Json, format!("[{}]", readings.join(","))),
            ("ndjson", Format::Ndjson, readings.join("\n")),
            // The quick parser refuses one line, but each line is parsed by itself.
            (
                "ndjson_one_bad_line",
                Format::Ndjson,
                readings.join("\n") + "\n{\"soc\":1e309}",
            ),
            // Only the slow parser can handle one of the values.
            (
                "array_one_impossible",
                Format::Json,
                format!("[{},{{\"soc\":1e309}}]", readings.join(",")),
            ),
        ];
        for (name, format, body) in &bodies {
            let mut decoder = Decoder::new();
            group.bench_function(*name, |bencher| {
                bencher.iter(|| {
                    let body = black_box(body.as_bytes());
                    decoder.decode(Stream::Vehicle, *format, body, &bounds, |reading| {
                        black_box(reading);
                    })
                });
            });
        }
        group.bench_function("serde_json_typed", |bencher| {
            bencher.iter(|| {
                let parsed = serde_json::from_str::<Vec<Typed<'_>>>(black_box(&bodies[0].2));
                for reading in parsed.into_iter().flatten() {
                    let numbers = [reading.soc, reading.kwh_delivered_dc, reading.battery_temp];
                    let at = reading.timestamp.parse::<jiff::Timestamp>();
                    black_box((reading.vehicle_id, numbers, at.ok()));
                }
            });
        });
        group.finish();
    }
}

/// The fast path of RFC 3339 against a whole time library. The baseline looks at each byte once.
fn timestamp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timestamp");
    let texts = [
        ("utc_seconds", "2024-02-09T15:30:00Z"),
        ("utc_millis", "2024-02-09T15:30:00.123Z"),
        ("offset", "2024-02-09T15:30:00.123456+05:30"),
    ];
    for (name, text) in texts {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| wattgate::ingest::decode::timestamp::parse(black_box(text)));
        });
        group.bench_function(format!("{name}_jiff"), |bencher| {
            bencher.iter(|| black_box(text).parse::<jiff::Timestamp>());
        });
        group.bench_function(format!("{name}_limit_every_byte"), |bencher| {
            bencher.iter(|| black_box(text).bytes().map(u32::from).sum::<u32>());
        });
    }
    group.finish();
}

criterion_group!(benches, decode, timestamp);
criterion_main!(benches);
