//! The energy of a list of sessions when time or memory runs out.

use std::time::{Duration, Instant};

use deadpool_postgres::Client;

use super::database::{BASE, Store};
use super::reference::MINUTE;
use crate::analytics::{Analyst, AskError, Charge, Judgement, Patience, Uncharged};
use crate::energy::interval::Interval;
use crate::postgres::{QueryError, ReadError, ReadServers};
use crate::reading::{ExternalId, Timestamp};

const LONG: Duration = Duration::from_secs(60);

/// The result for each session.
fn outcomes(charges: &[Result<Charge, Uncharged>]) -> Vec<Option<Uncharged>> {
    charges
        .iter()
        .map(|charge| charge.as_ref().err().copied())
        .collect()
}

/// One reading of each of three vehicles.
async fn readings(client: &Client, at: Timestamp) {
    let sql = format!(
        "insert into vehicles (id, external_id) overriding system value
        select n, 'V' || n from generate_series(1, 3) as n;
        insert into vehicle_telemetry_history (vehicle_id, ts, soc, kwh_delivered_dc, battery_temp)
        select n, timestamptz 'epoch' + interval '1 microsecond' * {}, 50, 1, 20
        from generate_series(1, 3) as n",
        at.as_micros()
    );
    client.batch_execute(&sql).await.unwrap();
}

#[test]
fn a_list_ends_in_time_and_explains_missing_energy() {
    let store = Store::start();
    let analyst = Analyst::new(2, Judgement::default());
    let at = |minutes: i64| Timestamp::from_micros(BASE + minutes * MINUTE);
    let window = Interval::new(at(0), at(30)).unwrap();
    let sessions = ["V1", "V2", "V3", "V9"].map(|id| (ExternalId::new(id).unwrap(), window));
    let reads = ReadServers::primary_alone(store.pool.clone()).begin(None);
    store.runtime.block_on(async {
        let client = store.pool.get().await.unwrap();
        readings(&client, at(10)).await;
        let charges = async |list: Duration, session: Duration| {
            let patience = Patience { list, session };
            analyst.charges(&reads, &sessions, at(60), patience).await
        };
        let all = charges(LONG, LONG).await.unwrap();
        let unknown = Some(Uncharged::Unknown);
        assert_eq!(outcomes(&all), [None, None, None, unknown]);
        // Even if the time is over at once, the first session is answered, so that a client that pages through the
        // list makes progress.
        let one = charges(Duration::ZERO, LONG).await.unwrap();
        assert_eq!(outcomes(&one), [None]);

        let lock = "begin; lock table vehicle_telemetry_history in access exclusive mode";
        client.batch_execute(lock).await.unwrap();
        let until = Instant::now() + LONG;
        let slow = loop {
            match charges(Duration::ZERO, Duration::from_secs(1)).await {
                // A busy machine may not open a connection in time.
                Err(AskError::Read(ReadError::AllBusy)) if Instant::now() < until => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!(outcomes(&slow), [Some(Uncharged::TooSlow)]);
        client.batch_execute("rollback").await.unwrap();
        let all = charges(LONG, LONG).await.unwrap();
        assert_eq!(outcomes(&all), [None, None, None, unknown]);
    });
}

#[test]
fn a_session_of_too_many_readings_says_so() {
    let store = Store::start();
    let analyst = Analyst::new(2, Judgement::default()).without_memory();
    let at = |minutes: i64| Timestamp::from_micros(BASE + minutes * MINUTE);
    let window = Interval::new(at(0), at(30)).unwrap();
    let id = ExternalId::new("V1").unwrap();
    let reads = ReadServers::primary_alone(store.pool.clone()).begin(None);
    store.runtime.block_on(async {
        let mut client = store.pool.get().await.unwrap();
        readings(&client, at(10)).await;
        // If the session is requested alone, the problem in the response says what to do.
        let alone = analyst.charge(&mut client, id, window, at(60)).await;
        assert!(matches!(alone, Err(AskError::TooManyReadings)), "{alone:?}");
        let sessions = [(id, window), (id, window)];
        let patience = Patience {
            list: LONG,
            session: LONG,
        };
        let listed = analyst.charges(&reads, &sessions, at(60), patience).await;
        let listed = listed.unwrap();
        assert_eq!(outcomes(&listed), [Some(Uncharged::TooManyReadings); 2]);
    });
}

#[test]
fn a_statement_that_took_too_long_is_no_fault_of_its_server() {
    let store = Store::start();
    store.runtime.block_on(async {
        let client = store.pool.get().await.unwrap();
        let set = "set statement_timeout = '1ms'";
        client.batch_execute(set).await.unwrap();
        let fails = async || {
            client
                .batch_execute("select pg_sleep(60)")
                .await
                .unwrap_err()
        };
        assert!(!AskError::from(fails().await).is_of_server());
        let error = ReadError::from(fails().await);
        assert!(matches!(error, ReadError::OutOfTime(_)) && !error.is_of_server());
        let missing = client.batch_execute("select 1 from missing").await;
        assert!(ReadError::from(missing.unwrap_err()).is_of_server());
        client
            .batch_execute("reset statement_timeout")
            .await
            .unwrap();
    });
}
