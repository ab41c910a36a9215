//! The gateway's part of storing a batch: sorting rows and encoding them for COPY BINARY.
//!
//! `cargo bench --bench copy`. The baselines, measured in the same run, are sorting bare 8-byte keys and copying
//! the bytes that COPY sends. PostgreSQL itself takes 2 to 3 µs per row, so both parts must stay far below that.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use wattgate::postgres::partitions::Partitions;
use wattgate::reading::Timestamp;
use wattgate::wal::frame::Position;
use wattgate::writer::batch::arrange;
use wattgate::writer::rows::{HistoryRow, Origin, RowEnergy, VehicleRow};

const ROWS: usize = 50_000;
const DEVICES: usize = 20_000;

/// Rows in the order of the log: by time of arrival, with devices mixed.
fn rows() -> Vec<VehicleRow> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..ROWS)
        .map(|n| VehicleRow {
            id: (random() % DEVICES as u64) as i32 + 1,
            at: Timestamp::from_micros(1_707_492_600_000_000 + n as i64 * 10),
            energy: RowEnergy {
                kwh: n as f64 / 100.0,
                register: false,
            },
            soc: 80.5,
            battery_temp: 31.5,
            named_meter: 0,
            named_session: 0,
            origin: Origin {
                position: Position::START,
                index: n as u32,
                received_at: Timestamp::from_micros(1_707_492_600_000_000),
            },
        })
        .collect()
}

fn sort(criterion: &mut Criterion) {
    let rows = rows();
    let partitions = Partitions::default();
    let keys: Vec<u64> = rows
        .iter()
        .map(|row| ((row.id as u64) << 32) | (row.at.as_micros() as u64 & 0xffff_ffff))
        .collect();
    let mut group = criterion.benchmark_group("sort");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("arrange", |bencher| {
        let again = || rows.clone();
        bencher.iter_batched(
            again,
            |rows| arrange(rows, &partitions),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("limit_sort_bare_keys", |bencher| {
        let again = || keys.clone();
        let sort = |mut keys: Vec<u64>| {
            keys.sort_unstable();
            keys
        };
        bencher.iter_batched(again, sort, BatchSize::LargeInput);
    });
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let rows = rows();
    let mut out = BytesMut::new();
    rows.iter().for_each(|row| row.encode(&mut out));
    let bytes = out.to_vec();
    let mut group = criterion.benchmark_group("copy_binary");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&rows).iter().for_each(|row| row.encode(&mut out));
        });
    });
    group.bench_function("limit_copy_the_bytes", |bencher| {
        bencher.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&bytes));
        });
    });
    group.finish();
}

criterion_group!(benches, sort, encode);
criterion_main!(benches);
