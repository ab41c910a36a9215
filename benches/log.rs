//! The CPU's part of the log: encoding readings as records by shard, framing them, and decoding them again.
//!
//! `cargo bench --bench log`. Each is shown with its baseline from the same run: memory bandwidth (copying the
//! same bytes), and the checksum alone, which reads each byte once. The disk's part is one fdatasync per frame,
//! which no code here can shorten. `log` shows what a writer pays: a real log of many frames is read from start to
//! end, next to a plain read of the same files.

#![expect(clippy::unwrap_used, reason = "what is benched is known to succeed")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use tokio::sync::oneshot;
use uuid::Uuid;
use wattgate::reading::{
    Details, Energy, EnergyKind, ExternalId, Reading, StreamCounts, Timestamp, shard_of,
};
use wattgate::wal::append::{Append, Message, RequestRecords, Reservation};
use wattgate::wal::catalog::segment_name;
use wattgate::wal::frame::{Frame, FrameHead, FrameKind, Position, Salt, Section, encode_frame};
use wattgate::wal::reader::Next;
use wattgate::wal::storage::Directory;
use wattgate::wal::{Log, LogOptions, SyncMode, record};

const READINGS: usize = 500;
const SHARDS: u16 = 2;

fn ids() -> Vec<String> {
    (0..READINGS).map(|n| format!("VEH-{n:05}")).collect()
}

fn readings(ids: &[String]) -> Vec<Reading<'_>> {
    ids.iter()
        .enumerate()
        .map(|(n, id)| Reading {
            device: ExternalId::new(id).unwrap(),
            at: Timestamp::from_micros(1_707_492_600_000_000 + n as i64),
            energy: Energy {
                kwh: n as f64 / 100.0,
                kind: EnergyKind::Interval,
            },
            details: Details::Vehicle {
                soc: 80.5,
                battery_temp: 31.5,
                place: None,
            },
        })
        .collect()
}

/// The baseline of everything here: copying the same bytes once.
fn copy_of(group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>, bytes: &[u8]) {
    let mut out = Vec::with_capacity(bytes.len());
    group.bench_function("limit_copy_the_bytes", |bencher| {
        bencher.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(bytes));
            black_box(&out);
        });
    });
}

fn records(criterion: &mut Criterion) {
    let ids = ids();
    let readings = readings(&ids);
    let mut bytes = Vec::new();
    readings.iter().for_each(|r| record::encode(r, &mut bytes));
    let mut group = criterion.benchmark_group("records");
    group.throughput(Throughput::Elements(READINGS as u64));
    group.bench_function("hash_to_shards", |bencher| {
        bencher.iter(|| {
            let shard = |r: &Reading<'_>| u64::from(shard_of(r.stream(), r.device, SHARDS));
            black_box(&readings).iter().map(shard).sum::<u64>()
        });
    });
    group.bench_function("hash_encode_and_group", |bencher| {
        bencher.iter(|| {
            let mut request = RequestRecords::new(SHARDS);
            black_box(&readings).iter().for_each(|r| request.push(r));
            request
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(bytes.as_slice());
            while !rest.is_empty() {
                black_box(record::decode(&mut rest).unwrap());
            }
        });
    });
    copy_of(&mut group, &bytes);
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let ids = ids();
    let mut request = RequestRecords::new(SHARDS);
    readings(&ids).iter().for_each(|r| request.push(r));
    let mut sections = vec![Section::default(); usize::from(SHARDS)];
    for chunk in request.into_chunks() {
        let section = &mut sections[usize::from(chunk.shard)];
        section.bytes.extend_from_slice(&chunk.bytes);
        section.readings += chunk.readings;
    }
    let salt = Salt::of(Uuid::from_u128(7));
    let before = [StreamCounts::ZERO; SHARDS as usize];
    let head = FrameHead {
        kind: FrameKind::Data,
        salt,
        at: Position::START,
        appended_at: Timestamp::from_micros(1_707_492_600_000_000),
    };
    let encode = |out: &mut Vec<u8>| encode_frame(&head, &sections, &before, out);
    let mut frame = Vec::new();
    encode(&mut frame);
    let mut group = criterion.benchmark_group("frames");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    let mut out = Vec::new();
    group.bench_function("append", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&mut out));
        });
    });
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let found = Frame::decode(black_box(&frame), salt, Position::START, SHARDS).unwrap();
            black_box(found.section(0).records.len())
        });
    });
    group.bench_function("limit_checksum_alone", |bencher| {
        bencher.iter(|| crc32c::crc32c(black_box(&frame)));
    });
    copy_of(&mut group, &frame);
    group.finish();
}

/// The number of requests in the log.
const REQUESTS: usize = 400;

/// Fills a log with one request per frame, and waits until it is on disk.
fn filled(log: &Log) {
    let ids = ids();
    let readings = readings(&ids);
    for _ in 0..REQUESTS {
        let mut request = RequestRecords::new(SHARDS);
        readings.iter().for_each(|r| request.push(r));
        let (reply, answer) = oneshot::channel();
        let room = log.budget().try_reserve(request.log_bytes_max());
        let append = Append {
            chunks: request.into_chunks(),
            reservation: room.unwrap(),
            memory: Reservation::nothing(log.budget()),
            wants_places: false,
            reply: Some(reply),
        };
        log.sender().send(Message::Append(append)).unwrap();
        answer.blocking_recv().unwrap().unwrap();
    }
}

fn log(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        shards: SHARDS,
        limit_bytes: 256 << 20,
        retain_bytes: 0,
        sync: SyncMode::Always,
    };
    let log = Log::open(Arc::new(Directory::open(dir.path()).unwrap()), options).unwrap();
    filled(&log);
    let source = log.source();
    let run = source.runs().pop().unwrap();
    let read_all = || {
        let mut reader = source.reader(&run, 0, run.first_position());
        let mut bytes = 0;
        while let Next::Frame(item) = reader.next_frame().unwrap() {
            bytes += item.section.records.len();
        }
        (bytes, reader.cursor())
    };
    let (records, end) = read_all();
    // A shard's reader also reads and verifies the other shards' bytes.
    let bytes = end.offset() as usize;
    assert!(records > 0 && end.segment() == run.first_position().segment());
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("read_one_shard", |bencher| bencher.iter(read_all));
    let mut out = vec![0; bytes];
    let segment = run.first_position().segment();
    let name = segment_name(run.sequence, run.id, segment);
    let file = std::fs::File::open(dir.path().join(name)).unwrap();
    group.bench_function("limit_read_the_file", |bencher| {
        bencher.iter(|| {
            std::os::unix::fs::FileExt::read_exact_at(&file, black_box(&mut out), 0).unwrap();
        });
    });
    group.finish();
    log.close().stop();
}

criterion_group!(benches, records, frames, log);
criterion_main!(benches);
