//! Guards against creeping slowness: how many allocations the gateway makes per reading.
//!
//! Times differ between machines; these counts do not. A copy or a string per reading that slips in fails here,
//! even if no benchmark notices it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use allocation_counter::{AllocationInfo, measure};
use bytes::BytesMut;
use uuid::Uuid;
use wattgate::energy::attribution::{MeterKey, NamedPlace, Vehicle, VehicleKey, VehicleReading};
use wattgate::energy::interval::Interval;
use wattgate::energy::{Meter, Question, performance};
use wattgate::ingest::decode::{Bounds, Decoder, Format};
use wattgate::postgres::partitions::Partitions;
use wattgate::reading::{Details, Energy, EnergyKind, Reading, Stream, StreamCounts, Timestamp};
use wattgate::wal::append::RequestRecords;
use wattgate::wal::frame::{Frame, FrameHead, FrameKind, Position, Salt, Section, encode_frame};
use wattgate::wal::record;
use wattgate::writer::batch::arrange;
use wattgate::writer::rows::{HistoryRow, MeterRow, Origin, RowEnergy};

const SHARDS: u16 = 2;
const READINGS: usize = 500;
/// Requests per batch.
const REQUESTS: usize = 40;

fn body(request: usize, readings: usize) -> String {
    let reading = |n: usize| {
        let at = request * readings + n;
        format!(
            concat!(
                r#"{{"meterId":"METER-{:05}","kwhConsumedAc":{}.25,"voltage":230.5,"#,
                r#""timestamp":"2024-02-09T{:02}:{:02}:{:02}Z"}}"#
            ),
            n,
            n % 7,
            at / 3600 % 24,
            at / 60 % 60,
            at % 60
        )
    };
    let lines: Vec<String> = (0..readings).map(reading).collect();
    lines.join("\n")
}

/// Decodes a body into records for the log, as a request does.
fn take(decoder: &mut Decoder, body: &str) -> RequestRecords {
    let bounds = Bounds::at(Timestamp::now(), None);
    let mut records = RequestRecords::new(SHARDS);
    let push = |reading: Reading<'_>| records.push(&reading);
    let (stream, format) = (Stream::Meter, Format::Ndjson);
    let outcome = decoder.decode(stream, format, body.as_bytes(), &bounds, push);
    assert_eq!(outcome.unwrap().rejected, 0);
    records
}

/// The row that a writer makes from a reading. The device's integer id is the number in its text id.
fn row(reading: &Reading<'_>, index: u32) -> MeterRow {
    let Details::Meter { voltage } = reading.details else {
        panic!("only meters were sent")
    };
    MeterRow {
        id: reading.device.as_str()[6..].parse().unwrap(),
        at: reading.at,
        energy: RowEnergy {
            kwh: reading.energy.kwh,
            register: reading.energy.kind == EnergyKind::Register,
        },
        voltage,
        origin: Origin {
            position: Position::START,
            index,
            received_at: reading.at,
        },
    }
}

/// From bodies to the bytes of COPY: decode, frame, read again, sort and encode.
fn all_the_way(decoder: &mut Decoder, bodies: &[String], frame: &mut Vec<u8>, out: &mut BytesMut) {
    let mut sections = vec![Section::default(); usize::from(SHARDS)];
    for body in bodies {
        for chunk in take(decoder, body).into_chunks() {
            let section = &mut sections[usize::from(chunk.shard)];
            section.bytes.extend_from_slice(&chunk.bytes);
            section.readings += chunk.readings;
        }
    }
    let salt = Salt::of(Uuid::from_u128(7));
    let before = [StreamCounts::ZERO; SHARDS as usize];
    frame.clear();
    out.clear();
    let head = FrameHead {
        kind: FrameKind::Data,
        salt,
        at: Position::START,
        appended_at: Timestamp::now(),
    };
    encode_frame(&head, &sections, &before, frame);
    let decoded = Frame::decode(frame, salt, Position::START, SHARDS).unwrap();
    for shard in 0..SHARDS {
        let mut records = decoded.section(shard).records;
        let mut rows = Vec::new();
        while !records.is_empty() {
            let reading = record::decode(&mut records).unwrap();
            rows.push(row(&reading, rows.len() as u32));
        }
        let arranged = arrange(rows, &Partitions::default());
        arranged.rows.iter().for_each(|row| row.encode(out));
    }
}

/// Runs `work` once to fill the reused buffers, and once more to count.
fn counted(mut work: impl FnMut()) -> AllocationInfo {
    work();
    measure(work)
}

#[test]
fn a_reading_of_a_batch_allocates_no_memory_of_its_own() {
    let bodies: Vec<String> = (0..REQUESTS).map(|n| body(n, READINGS)).collect();
    let (mut decoder, mut frame, mut out) = (Decoder::new(), Vec::new(), BytesMut::new());
    let info = counted(|| all_the_way(&mut decoder, &bodies, &mut frame, &mut out));
    let readings = (REQUESTS * READINGS) as f64;
    let (count, bytes) = (
        info.count_total as f64 / readings,
        info.bytes_total as f64 / readings,
    );
    // Buffers double now and then. A string or a box per reading would add 1.
    assert!(count <= 0.06, "{count} allocations a reading");
    assert!(bytes <= 600.0, "{bytes} bytes a reading");
}

#[test]
fn a_request_of_one_reading_allocates_a_few_times() {
    let body = body(0, 1);
    let mut decoder = Decoder::new();
    let info = counted(|| drop(take(&mut decoder, &body)));
    // One for the list of chunks, one for the chunk.
    assert!(info.count_total <= 2, "{} allocations", info.count_total);
}

/// Readings a second apart, each naming another meter.
fn wanderer(second: i64) -> Vec<VehicleReading> {
    let reading = |n: i32| VehicleReading {
        at: Timestamp::Y2000.plus_micros((i64::from(2 * n) + second) * 1_000_000),
        energy: Energy {
            kwh: 1.0,
            kind: EnergyKind::Interval,
        },
        battery_temp: 30.0,
        place: Some(NamedPlace::Meter(MeterKey(n))),
    };
    (0..WANDERINGS).map(reading).collect()
}

const WANDERINGS: i32 = 1_000;

#[test]
fn memory_grows_with_readings_not_with_their_square() {
    let readings = [wanderer(1), wanderer(2)];
    let vehicle = |key: usize| Vehicle {
        key: VehicleKey(key as i32),
        readings: &readings[key],
        rolled_up: &[],
        sessions: &[],
    };
    // There is another vehicle at each meter, which must not be copied for each meter either.
    let others = [vehicle(1)];
    let meter = |n: i32| Meter {
        key: MeterKey(n),
        owner: None,
        readings: &[],
        rolled_up: &[],
        others: &others,
    };
    let meters: Vec<Meter<'_>> = (0..WANDERINGS).map(meter).collect();
    let end = Timestamp::Y2000.plus_micros(86_400_000_000);
    let mut question = Question::new(
        Interval::new(Timestamp::Y2000, end).unwrap(),
        end,
        vehicle(0),
    );
    question.meters = &meters;
    let info = measure(|| {
        let answer = performance(&question).unwrap();
        assert_eq!(answer.meters.len(), WANDERINGS as usize);
    });
    let bytes = info.bytes_max / WANDERINGS as u64;
    assert!(bytes <= 4_000, "{bytes} bytes a reading");
}
