//! The cost of repeats. Not run by default, because it measures, and needs a quiet machine and an optimised build:
//! `cargo test --release --test writer -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use wattgate::reading::Timestamp;
use wattgate::wal::frame::Position;
use wattgate::writer::batch::{Arranged, arrange};
use wattgate::writer::live::Newest;
use wattgate::writer::rows::{MeterRow, Origin, RowEnergy};
use wattgate::writer::session::{Claim, WriterSession};
use wattgate::writer::store::{LiveWrite, Work, ensure_partitions, store};
use wattgate::writer::strategy::Strategy;

use crate::support::*;

const DEVICES: i32 = 20_000;
const ROWS: i32 = 10_000;
const BATCHES: i64 = 20;

/// A writer's session with its own shard.
struct Bench {
    session: WriterSession,
    claim: Claim,
    newest: Newest,
    strategy: Strategy,
    at: Position,
}

impl Bench {
    async fn new(database: &Database) -> Self {
        let session = WriterSession::open(&database.target, "wattgate bench", LIMIT)
            .await
            .unwrap();
        let claim = session.claim(uuid::Uuid::from_u128(1), 0).await.unwrap();
        Bench {
            session,
            claim,
            newest: Newest::default(),
            strategy: Strategy::Copy,
            at: Position::START,
        }
    }

    /// Stores a batch as a shard writer does. Returns how long it took.
    async fn store(&mut self, rows: Vec<MeterRow>) -> Duration {
        ensure_partitions(&mut self.session, &rows).await.unwrap();
        let known = self.session.partitions.meter.clone();
        self.at = self.at.plus(64);
        let work = Work {
            to: self.at,
            meters: arrange(rows, &known),
            vehicles: Arranged {
                rows: Vec::new(),
                duplicates: 0,
                conflicts: Vec::new(),
            },
            live: LiveWrite::Later,
            looked_up_max: usize::MAX,
        };
        let begun = Instant::now();
        let Bench {
            session,
            claim,
            newest,
            strategy,
            ..
        } = self;
        store(session, claim, &work, newest, strategy)
            .await
            .unwrap();
        if *strategy != Strategy::Copy {
            *strategy = Strategy::Careful;
        }
        begun.elapsed()
    }
}

/// Readings of half of the devices at one minute.
fn minute(minute: i64) -> Vec<MeterRow> {
    let rows = (0..ROWS).map(|n| MeterRow {
        id: (n * 2 + (minute % 2) as i32) % DEVICES + 1,
        at: Timestamp::from_micros((NOON + minute * 60) * 1_000_000),
        energy: RowEnergy {
            kwh: 1.5,
            register: false,
        },
        voltage: 230.0,
        origin: Origin {
            position: Position::START,
            index: n as u32,
            received_at: Timestamp::from_micros(0),
        },
    });
    rows.collect()
}

/// A minute in which one reading in a hundred repeats one from some minutes earlier.
fn with_repeats(at: i64) -> Vec<MeterRow> {
    let (mut rows, old) = (minute(at), minute(at - 10));
    for n in (0..rows.len()).step_by(100) {
        rows[n] = old[n];
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn repeats_cost_little() {
    let database = Database::new().await;
    let mut bench = Bench::new(&database).await;
    let mut next = 0;
    for _ in 0..100 {
        bench.store(minute(next)).await;
        next += 1;
    }
    let mut took = [Duration::ZERO; 3];
    // Alternating, so that other load on the machine affects all of them equally. Each round begins with COPY.
    for _ in 0..4 {
        bench.strategy = Strategy::Copy;
        for _ in 0..BATCHES {
            took[0] += bench.store(minute(next)).await;
            next += 1;
        }
        for _ in 0..BATCHES {
            took[1] += bench.store(with_repeats(next)).await;
            next += 1;
        }
        bench.strategy = Strategy::Copy;
        for n in 1..=BATCHES {
            took[2] += bench.store(minute(next - BATCHES - 20 - n)).await;
        }
    }
    let rate = |took: Duration| 4.0 * BATCHES as f64 * f64::from(ROWS) / took.as_secs_f64();
    let ratio = |n: usize| took[n].as_secs_f64() / took[0].as_secs_f64();
    println!(
        "clean {:.0} rows/s; 1% repeats {:.0} rows/s ({:.2} times the time); repeats alone {:.0} rows/s ({:.2})",
        rate(took[0]),
        rate(took[1]),
        ratio(1),
        rate(took[2]),
        ratio(2)
    );
    assert!(ratio(1) <= 1.5 && ratio(2) <= 3.0);
}
