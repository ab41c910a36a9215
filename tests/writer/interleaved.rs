//! Late readings between the parts of a rollup: whatever the order, and whatever ends the roller, a rollup without a mark
//! holds each reading of its hour.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::dirty::{Rolling, WRONG};
use crate::support::*;

/// More devices than the first transaction of a pass takes, so that a pass needs several.
const METERS: usize = 60;
/// How many hours of readings, one every ten minutes, are there at first.
const HOURS: i64 = 3;
/// The time at which the roller works at first in the random test. The watermark is past the hours that are there.
const EARLY: i64 = NOON + HOURS * 3600 + 1_800;

/// One event.
#[derive(Debug, Clone)]
enum Event {
    /// A gateway stores `count` readings of a meter, one per minute from a minute on, each at the same second. Behind the
    /// last of the hours comes the first.
    Late {
        gateway: usize,
        meter: usize,
        minute: i64,
        second: i64,
        count: i64,
        waits: bool,
    },
    /// A gateway stores a reading of each meter in each hour.
    Burst { gateway: usize, second: i64 },
    /// The rollup takes some steps.
    Steps(usize),
    /// The rollup is killed after its step has waited this many times.
    Killed(u32),
    /// A gateway's writers lose their sessions.
    Lost,
    /// A step of the roller is ended by the server in the middle of a statement, or not.
    Cancelled,
    /// All hours must be rolled up again, as older hours.
    Again,
    /// Time goes on by so many hours, and the meters send their readings of them or not.
    Later { hours: i64, are_sent: bool },
}

fn event() -> impl Strategy<Value = Event> {
    let late = (
        0..2usize,
        // A few meters, which a pass reaches first or last.
        proptest::prop_oneof![0..2usize, METERS - 2..METERS],
        0..100_000i64,
        0..60i64,
        1..40i64,
        proptest::bool::ANY,
    );
    let late = late.prop_map(
        |(gateway, meter, minute, second, count, waits)| Event::Late {
            gateway,
            meter,
            minute,
            second,
            count,
            waits,
        },
    );
    let burst =
        (0..2usize, 1..60i64).prop_map(|(gateway, second)| Event::Burst { gateway, second });
    proptest::prop_oneof![
        8 => late,
        2 => burst,
        9 => (1..4usize).prop_map(Event::Steps),
        3 => (0..40u32).prop_map(Event::Killed),
        2 => proptest::strategy::Just(Event::Cancelled),
        1 => proptest::strategy::Just(Event::Lost),
        1 => proptest::strategy::Just(Event::Again),
        2 => (1..4i64, proptest::bool::ANY)
            .prop_map(|(hours, are_sent)| Event::Later { hours, are_sent }),
    ]
}

/// Two gateways and one rollup on one database.
struct World {
    database: Database,
    gateways: [Gateway; 2],
    rolling: Rolling,
    names: Vec<String>,
    /// How many hours of readings there are.
    hours: i64,
}

impl World {
    /// A world with readings every ten minutes, all rolled up.
    async fn new() -> Self {
        let database = Database::new().await;
        let gateways = [database.gateway(2), database.gateway(1)];
        let names = ids("M", METERS);
        for name in &names {
            let readings: Vec<_> = (0..HOURS * 60)
                .step_by(10)
                .map(|minute| meter(name, minute * 60, 0.25))
                .collect();
            gateways[0].store(&readings).await;
        }
        let mut rolling = Rolling::at(&database, EARLY).await;
        while rolling.step().await {}
        assert!(database.count("select count(*) from meter_hours").await >= METERS as i64);
        World {
            database,
            gateways,
            rolling,
            names,
            hours: HOURS,
        }
    }

    /// The time goes on. Readings that are sent come before it.
    async fn later(&mut self, hours: i64, are_sent: bool) {
        let minutes = self.hours * 60..(self.hours + hours) * 60;
        let all = minutes.step_by(10).filter(|_| are_sent);
        let readings: Vec<_> = all
            .flat_map(|minute| each(&self.names, minute * 60, 0.25))
            .collect();
        if are_sent {
            self.gateways[0].store(&readings).await;
        }
        self.hours += hours;
        self.rolling.now += hours * 3_600;
    }

    async fn happens(mut self, event: &Event) -> Self {
        match event {
            Event::Late {
                gateway,
                meter: at,
                minute,
                second,
                count,
                waits,
            } => {
                let name = &self.names[*at];
                let readings: Vec<_> = (0..*count)
                    .map(|n| (minute + n) % (self.hours * 60) * 60 + second)
                    .map(|at| meter(name, at, 0.125))
                    .collect();
                self.gateways[*gateway].send(&readings).await;
                if *waits {
                    self.gateways[*gateway].drained().await;
                }
            }
            Event::Burst { gateway, second } => {
                let hours = (0..HOURS).map(|hour| hour * 3_600 + 1_800 + second);
                let readings: Vec<_> = hours.flat_map(|at| each(&self.names, at, 0.5)).collect();
                self.gateways[*gateway].store(&readings).await;
            }
            Event::Steps(steps) => {
                for _ in 0..*steps {
                    self.rolling.step().await;
                }
            }
            Event::Killed(waits) => {
                let now = self.rolling.now;
                self.rolling.kill(&self.database, *waits).await;
                self.rolling = Rolling::at(&self.database, now).await;
            }
            Event::Cancelled => self.rolling.cancelled().await,
            Event::Later { hours, are_sent } => self.later(*hours, *are_sent).await,
            Event::Lost => {
                self.database.end_sessions().await;
            }
            Event::Again => {
                let again =
                    "update hours_progress set built_from = sealed_to, built_to = sealed_to";
                self.database.run(again).await;
            }
        }
        self
    }

    async fn is_right(&self, when: &str) {
        let wrong = self.database.count(WRONG).await;
        assert_eq!(wrong, 0, "rollups that are valid and wrong, {when}");
    }
}

/// Lets all events happen. Returns how many of them happened between two parts of a slice.
async fn all_happen(case: usize, events: &[Event]) -> usize {
    const SLICES: &str = "select count(*) from hours_slices";
    let (mut world, mut between) = (World::new().await, 0);
    for (n, event) in events.iter().enumerate() {
        between += usize::from(world.database.count(SLICES).await > 0);
        world = world.happens(event).await;
        let when = format!("case {case}, after event {n} of {events:?}");
        world.is_right(&when).await;
    }
    for gateway in &world.gateways {
        gateway.drained().await;
    }
    world.is_right("stored").await;
    while world.rolling.step().await {}
    world.is_right("rolled up again").await;
    let database = &world.database;
    assert_eq!(
        database
            .count("select count(*) from meter_hour_marks")
            .await,
        0
    );
    // The readings are rolled up: each hour has its row.
    let rows = database.count("select count(*) from meter_hours").await;
    assert!(rows >= METERS as i64 * HOURS, "{rows} rows");
    let older = format!("{SLICES} where not is_new");
    assert_eq!(database.count(&older).await, 0);
    for gateway in world.gateways {
        gateway.stop().await;
    }
    between
}

#[tokio::test(flavor = "multi_thread")]
async fn late_readings_beside_passes_and_kills_leave_no_wrong_rollup() {
    const CASES: usize = 8;
    let mut runner = TestRunner::default();
    let events = proptest::collection::vec(event(), 20..40);
    let mut between = 0;
    for case in 0..CASES {
        let events = events.new_tree(&mut runner).unwrap().current();
        between += all_happen(case, &events).await;
    }
    assert!(between >= CASES, "{between} events between two parts");
}
