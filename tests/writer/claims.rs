//! Only the newest session moves a checkpoint; several gateways share a database.

use std::time::{Duration, Instant};

use wattgate::wal::frame::Position;
use wattgate::wal::progress::Stored;
use wattgate::writer::batch::{Arranged, arrange};
use wattgate::writer::live::Newest;
use wattgate::writer::rows::{MeterRow, Origin, RowEnergy};
use wattgate::writer::session::{SessionError, WriterSession};
use wattgate::writer::store::{LiveWrite, Work, store};
use wattgate::writer::strategy::Strategy;

use crate::proxy::{Fault, Proxy};
use crate::support::*;

/// A batch of one reading, as a writer has it after gathering.
fn work(session: &WriterSession, id: i32, to: Position) -> Work {
    let reading = meter("M1", 0, 1.0);
    let row = MeterRow {
        id,
        at: reading.at,
        energy: RowEnergy {
            kwh: 1.0,
            register: false,
        },
        voltage: 230.0,
        origin: Origin {
            position: Position::START,
            index: 0,
            received_at: reading.at,
        },
    };
    let known = &session.partitions.meter;
    Work {
        to,
        meters: arrange(vec![row], known),
        vehicles: Arranged {
            rows: Vec::new(),
            duplicates: 0,
            conflicts: Vec::new(),
        },
        live: LiveWrite::Later,
        looked_up_max: usize::MAX,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_superseded_can_store_nothing() {
    let database = Database::new().await;
    database
        .run("insert into meters (external_id) values ('M1')")
        .await;
    let open = || WriterSession::open(&database.target, "wattgate writer 0", LIMIT);
    let (mut old, mut new) = (open().await.unwrap(), open().await.unwrap());
    let run = uuid::Uuid::from_u128(7);
    let mut old_claim = old.claim(run, 0).await.unwrap();
    let mut new_claim = new.claim(run, 0).await.unwrap();
    assert_eq!(old_claim.stored, Stored::NOTHING);
    assert_eq!(new_claim.stored, Stored::NOTHING);
    let to = Position::START.plus(64);
    // Both are at the same position. Only the epoch differs.
    let batch = work(&old, 1, to);
    let (mut newest, mut strategy) = (Newest::default(), Strategy::Copy);
    let refused = store(&mut old, &mut old_claim, &batch, &mut newest, &mut strategy).await;
    assert!(matches!(refused, Err(SessionError::Fenced)), "{refused:?}");
    drop(old);
    assert_eq!(database.rows().await, 0);
    let (mut newest, mut strategy) = (Newest::default(), Strategy::Copy);
    let mut before = new_claim;
    store(&mut new, &mut new_claim, &batch, &mut newest, &mut strategy)
        .await
        .unwrap();
    assert_eq!(database.sums().await, [1, 0, 0]);
    // Even the newest session can move a checkpoint only from its current position.
    let (mut newest, mut strategy) = (Newest::default(), Strategy::Careful);
    let refused = store(&mut new, &mut before, &batch, &mut newest, &mut strategy).await;
    assert!(matches!(refused, Err(SessionError::Fenced)), "{refused:?}");
    assert_eq!(database.sums().await, [1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_on_a_log_and_its_copy_store_it_once() {
    let database = Database::new().await;
    let (original, copy) = (dir(), dir());
    let ids = ids("M", 20);
    let at = |second| each(&ids, second, 1.0);
    let mut one = Gateway::open(original.path(), 2);
    one.send(&at(0)).await;
    one.send(&at(1)).await;
    // Copied while the gateway writes to it, as a backup would be.
    for entry in std::fs::read_dir(original.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    one.send(&at(2)).await;
    let mut other = Gateway::open(copy.path(), 2);
    other.send(&at(3)).await;
    // The gateways take the common run's checkpoints from each other until the run is stored.
    one.write(&database, OPTIONS);
    other.write(&database, OPTIONS);
    one.send(&at(4)).await;
    until("all of it", || async { database.rows().await == 100 }).await;
    until("the end of both logs", || async {
        let waits = |gateway: &Gateway| gateway.progress().snapshot().waiting() > 0;
        !waits(&one) && !waits(&other)
    })
    .await;
    assert_eq!(database.sums().await, [100, 0, 0]);
    one.stop().await;
    other.stop().await;
    assert_eq!(database.sums().await, [100, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_commits_durably_whatever_the_server_is_set_to() {
    let database = Database::new().await;
    for setting in [
        "synchronous_commit = off",
        "lock_timeout = 0",
        "statement_timeout = 0",
    ] {
        let name = "format('alter database %I set ', current_database())";
        database
            .run(&format!(
                "do $$ begin execute {name} || '{setting}'; end $$"
            ))
            .await;
    }
    let open = WriterSession::open(&database.target, "wattgate writer 0", LIMIT);
    let session = open.await.unwrap();
    session.claim(uuid::Uuid::from_u128(7), 0).await.unwrap();
    let mut settings = Vec::new();
    for name in ["synchronous_commit", "lock_timeout", "statement_timeout"] {
        let show = format!("show {name}");
        let row = session.client().query_one(&show, &[]).await.unwrap();
        settings.push(row.get::<_, String>(0));
    }
    assert_eq!(settings, ["on", "10s", "1min"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_keeps_its_snapshot_for_half_a_minute_at_most() {
    let database = Database::new().await;
    let pool = database.target.pool(1).unwrap();
    let client = pool.get().await.unwrap();
    for name in ["statement_timeout", "idle_in_transaction_session_timeout"] {
        let show = format!("show {name}");
        let row = client.query_one(&show, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "30s", "{name}");
    }
}

/// A gateway with one reading, whose COMMIT is held back by a proxy.
async fn held_commit() -> (Database, Proxy, Gateway) {
    let database = Database::new().await;
    let proxy = Proxy::start(&database.socket());
    let mut gateway = Gateway::fresh(1);
    gateway.send(&[meter("M1", 0, 1.0)]).await;
    proxy.set(Fault::HoldCommit);
    gateway.write_through(&proxy, &database, OPTIONS);
    proxy.commits(1).await;
    (database, proxy, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_left_with_an_open_transaction_is_ended() {
    let (database, proxy, gateway) = held_commit().await;
    // The client's side is closed. The server's side waits for the COMMIT and holds the checkpoint.
    proxy.set(Fault::CutClient);
    gateway.drained().await;
    assert_eq!(database.sums().await, [1, 0, 0]);
    let epoch = "select max(epoch) from wal_checkpoints";
    assert_eq!(database.count(epoch).await, 2);
    // The COMMIT finally arrives, in a session that has ended.
    proxy.set(Fault::None);
    gateway.store(&[meter("M1", 1, 1.0)]).await;
    assert_eq!(database.sums().await, [2, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_arrives_while_its_successor_waits_counts() {
    let (database, proxy, gateway) = held_commit().await;
    proxy.set(Fault::CutClient);
    until("the next session waits for the checkpoint", || async {
        database.waiting("Lock").await > 0
    })
    .await;
    proxy.set(Fault::None);
    gateway.drained().await;
    // The lost session has stored it: the next one found that the checkpoint had moved.
    assert_eq!(database.sums().await, [1, 0, 0]);
    assert_eq!(database.rows().await, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_whose_checkpoint_is_locked_fails_alone() {
    let database = Database::new().await;
    let gateway = database.gateway(2);
    let ids = ids("M", 40);
    let readings = each(&ids, 0, 1.0);
    gateway.store(&readings).await;
    let of_shard_1 = "select meter_stored from wal_checkpoints where shard = 1";
    let before = database.count(of_shard_1).await;
    assert!(before > 0 && before < 40);
    let operator = database.session().await;
    operator
        .batch_execute("begin; select 1 from wal_checkpoints where shard = 0 for update")
        .await
        .unwrap();
    let readings = each(&ids, 60, 1.0);
    gateway.send(&readings).await;
    until("the other shard's readings", || async {
        database.count(of_shard_1).await == 2 * before
    })
    .await;
    assert_eq!(database.rows().await, 40 + before);
    operator.batch_execute("rollback").await.unwrap();
    gateway.drained().await;
    assert_eq!(database.sums().await, [80, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_waits_for_a_row_delays_no_other() {
    let database = Database::new().await;
    let gateway = database.gateway(2);
    let ids = ids("M", 40);
    gateway.store(&each(&ids, 0, 1.0)).await;
    // One shard's batch waits for a row of live status.
    let operator = database.session().await;
    let locked = "begin; select 1 from meter_live_status
        where meter_id = (select id from meters where external_id = 'M0') for update";
    operator.batch_execute(locked).await.unwrap();
    let readings = each(&ids, 60, 1.0);
    gateway.send(&readings[..1]).await;
    until("the batch waits for the row", || async {
        database.waiting("Lock").await > 0
    })
    .await;
    let began = Instant::now();
    gateway.send(&readings[1..]).await;
    until("the other shard's readings", || async {
        database.rows().await > 40
    })
    .await;
    // The session's lock_timeout would end the batch after ten seconds.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(database.rows().await < 80);
    operator.batch_execute("rollback").await.unwrap();
    gateway.drained().await;
    assert_eq!(database.sums().await, [80, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_learned_anew_with_every_session() {
    let database = Database::new().await;
    let proxy = Proxy::start(&database.socket());
    let mut gateway = Gateway::fresh(1);
    gateway.write_through(&proxy, &database, OPTIONS);
    gateway
        .store(&[meter("M1", 0, 1.0), meter("M2", 0, 2.0)])
        .await;
    // A replica takes over in which the ids were assigned in the opposite order.
    proxy.set(Fault::Refuse);
    gateway.reports("").await;
    database
        .run(
            "truncate meter_telemetry_history;
             update meters set external_id = 'x' where external_id = 'M1';
             update meters set external_id = 'M1' where external_id = 'M2';
             update meters set external_id = 'M2' where external_id = 'x'",
        )
        .await;
    proxy.set(Fault::None);
    gateway
        .store(&[meter("M1", 60, 1.0), meter("M2", 60, 2.0)])
        .await;
    let right = "select string_agg(meter_id || '=' || kwh_consumed_ac, ' ' order by meter_id)
        from meter_readings";
    assert_eq!(database.text(right).await, "M1=1 M2=2");
    // The repeated readings' devices were already registered, so the repeats used up no ids.
    gateway.store(&[meter("M3", 0, 1.0)]).await;
    let next = "select id::bigint from meters where external_id = 'M3'";
    assert_eq!(database.count(next).await, 3);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_devices_are_registered_in_one_order_by_all_gateways() {
    let database = Database::new().await;
    database.watch_inserts("meters", "new.external_id").await;
    let mut gateway = Gateway::fresh(1);
    let ids = ["M2", "b", "M10", "a", "\u{e9}", "Z", "M1"];
    let readings = each(&ids, 0, 1.0);
    gateway.send(&readings).await;
    gateway.write(&database, OPTIONS);
    gateway.drained().await;
    let order = "select string_agg(value, ' ' order by place) from inserted";
    assert_eq!(database.text(order).await, "M1 M10 M2 Z a b \u{e9}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_that_get_the_same_readings_store_them_once() {
    let database = Database::new().await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    let (one, other) = (database.gateway(2), database.gateway(3));
    let ids = ids("D", 200);
    for round in 0..15 {
        // A batch with two partitions. One gateway sends it forwards, the other backwards.
        let mut readings = Vec::new();
        for id in &ids {
            readings.push(meter(id, round, 1.0));
            readings.push(meter(id, round - 30 * DAY, 1.0));
            readings.push(vehicle(id, round, 50.0));
        }
        let mut backwards = readings.clone();
        backwards.reverse();
        tokio::join!(one.send(&readings), other.send(&backwards));
    }
    one.drained().await;
    other.drained().await;
    assert_eq!(database.rows().await, 9000);
    assert_eq!(database.sums().await, [9000, 9000, 0]);
    one.stop().await;
    other.stop().await;
    assert_eq!(database.count(deadlocks).await, 0);
}
