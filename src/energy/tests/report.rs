//! A fleet's report from a real PostgreSQL is the sum of its vehicles' own answers.

use deadpool_postgres::Client;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::database::{KEYS, Store, worlds};
use super::reference::World;
use crate::analytics::{Analyst, FleetReport, Judgement, Priority, Timeframe};
use crate::energy::answer::Slice;
use crate::energy::device::DeviceEnergy;
use crate::energy::exact::Exact;
use crate::energy::interval::Interval;
use crate::energy::series::{Bucket, buckets};
use crate::energy::window::DAY_MICROS;
use crate::energy::{Printed, StatusBounds};
use crate::reading::{ExternalId, Timestamp};

const WORLDS: usize = 48;

fn parts_of(window: Interval) -> Vec<Interval> {
    let bucket = match window.micros() > i128::from(10 * DAY_MICROS) {
        true => Bucket::Day,
        false => Bucket::Hour,
    };
    buckets(window, bucket, &jiff::tz::TimeZone::UTC)
}

fn printed(of: &FleetReport) -> Vec<Printed> {
    of.vehicles.iter().map(|v| v.printed.clone()).collect()
}

/// The report. It must be the same whether or not its computation yields.
async fn report_of(analyst: &Analyst, client: &mut Client, timeframe: &Timeframe) -> FleetReport {
    let mut compute = async |priority| {
        let report = analyst.compute_report(client, timeframe.clone(), priority);
        report.await.unwrap()
    };
    let report = compute(Priority::Normal).await;
    let gentle = compute(Priority::Yields).await;
    assert_eq!(printed(&gentle), printed(&report), "one that yields");
    report
}

pub(super) async fn check(store: &Store, fleet: &[World], window: Interval, now: Timestamp) {
    let analyst = Analyst::new(2, Judgement::default());
    let parts = parts_of(window);
    let mut client = store.pool.get().await.unwrap();
    let timeframe = Timeframe { window, parts, now };
    let report = report_of(&analyst, &mut client, &timeframe).await;
    let mut known = 0;
    let mut whole = Slice::empty(window);
    for id in (0..fleet.len()).flat_map(|n| (0..KEYS).map(move |v| (n as i32 + 1) * KEYS + v)) {
        let id = format!("V{id}");
        let ranked = report.vehicles.iter().find(|v| *v.rank.vehicle_id == *id);
        let external = ExternalId::new(&id).unwrap();
        let answer = analyst
            .performance(&mut client, external, timeframe.clone())
            .await
            .unwrap();
        assert_eq!(answer.is_some(), ranked.is_some(), "{id}");
        let Some((answer, ranked)) = answer.zip(ranked) else {
            continue;
        };
        known += 1;
        let of_parts = answer
            .parts
            .iter()
            .fold(Slice::empty(window), |mut sum, part| {
                sum.add(part);
                sum
            });
        let p = &answer.performance;
        assert_eq!(of_parts.consumed_ac, p.consumed_ac, "{id}: the parts' AC");
        assert_eq!(of_parts.delivered_dc, p.delivered_dc, "{id}: the parts' DC");
        assert_eq!(
            of_parts.matched_dc, p.matched_dc,
            "{id}: the parts' matched DC"
        );
        whole.add(&of_parts);
        let bounds = StatusBounds::default();
        let printed = Printed::new(&answer.performance, &id, answer.meter_ids, &bounds);
        assert_eq!(ranked.printed, printed);
        // A report holds every vehicle. A million of them take half a gigabyte.
        assert!(ranked.bytes() <= 512, "{id}: {} bytes", ranked.bytes());
    }
    assert_eq!(report.vehicles.len(), known);
    let mut meters = Exact::default();
    for readings in fleet.iter().flat_map(|world| &world.meters) {
        meters.add(&DeviceEnergy::new(readings.iter().copied(), 1_000_000).energy(window));
    }
    assert_eq!(report.whole.meter_ac, meters, "what all meters measured");
    let mut of_parts = Exact::default();
    report
        .parts
        .iter()
        .for_each(|part| of_parts.add(&part.meter_ac));
    assert_eq!(of_parts, meters, "what all meters measured, by parts");
    for parts in [vec![&report.whole], report.parts.iter().collect()] {
        let sum = parts.iter().fold(Slice::empty(window), |mut sum, part| {
            sum.add(&part.vehicles);
            sum
        });
        assert_eq!(sum.consumed_ac, whole.consumed_ac);
        assert_eq!(sum.delivered_dc, whole.delivered_dc);
        assert_eq!(sum.matched_dc, whole.matched_dc);
    }
}

#[test]
fn a_report_is_the_sum_of_the_vehicles_answers() {
    let store = Store::start();
    let mut runner = TestRunner::default();
    let one = |_| worlds().new_tree(&mut runner).unwrap().current();
    let fleet: Vec<World> = (0..WORLDS).map(one).collect();
    store.runtime.block_on(async {
        for (world, base) in fleet.iter().zip((KEYS..).step_by(KEYS as usize)) {
            store.write(world, base).await;
        }
        for world in fleet.iter().step_by(WORLDS / 4) {
            let at = Timestamp::from_micros;
            let window = Interval::new(at(world.from), at(world.to)).unwrap();
            check(&store, &fleet, window, at(world.now)).await;
        }
    });
}
