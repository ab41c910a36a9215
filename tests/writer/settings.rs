//! What a session sets whatever the database's settings are, how many round trips it needs until it is ready, and
//! what a batch sees of other sessions.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::Client;
use wattgate::postgres::Use;
use wattgate::writer::session::WriterSession;

use crate::support::{Database, LIMIT, NOON, dir, meter, until};

/// A setting, an operator's value, and the value that a session must have nevertheless.
const SET: &[(&str, &str, &str)] = &[
    (
        "default_transaction_isolation",
        "serializable",
        "read committed",
    ),
    ("default_transaction_deferrable", "on", "off"),
    ("idle_session_timeout", "1s", "0"),
    ("transaction_timeout", "1s", "0"),
    ("jit", "on", "off"),
    ("plan_cache_mode", "force_generic_plan", "force_custom_plan"),
    ("max_parallel_workers_per_gather", "8", "0"),
    ("enable_indexscan", "off", "on"),
    ("enable_partition_pruning", "off", "on"),
    ("geqo_threshold", "2", "12"),
    ("random_page_cost", "1000", "1.1"),
    ("cpu_tuple_cost", "1000", "0.01"),
    ("join_collapse_limit", "1", "8"),
    ("effective_cache_size", "8kB", "4GB"),
    ("work_mem", "64kB", "16MB"),
    ("timezone", "Asia/Kathmandu", "UTC"),
    ("datestyle", "German, DMY", "ISO, YMD"),
    ("intervalstyle", "iso_8601", "postgres"),
    ("bytea_output", "escape", "hex"),
    ("extra_float_digits", "-15", "1"),
    ("quote_all_identifiers", "on", "off"),
    ("standard_conforming_strings", "off", "on"),
    ("transform_null_equals", "on", "off"),
    ("array_nulls", "off", "on"),
    ("exit_on_error", "on", "off"),
    ("row_security", "off", "on"),
    ("session_replication_role", "replica", "origin"),
    ("client_min_messages", "debug1", "warning"),
    // Quoted, because another of these settings makes PostgreSQL quote all names when the path is set.
    ("search_path", "nowhere", "\"public\""),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_session_has_its_own_settings() {
    let database = Database::new().await;
    let name = database.text("current_database()").await;
    let mut known = Vec::new();
    for (setting, hostile, own) in SET {
        let sql = format!("select count(*) from pg_settings where lower(name) = '{setting}'");
        if database.count(&sql).await == 1 {
            let alter = format!("alter database {name} set {setting} = '{hostile}'");
            let alter = alter.replace("'German, DMY'", "German, DMY");
            database.run(&alter).await;
            known.push((*setting, *own));
        }
    }
    let pool = database.target.pool(1).unwrap();
    let question = pool.get().await.unwrap();
    has(&question, &known, "a question").await;
    for purpose in [
        Use::Writer,
        Use::Rollup,
        Use::Alerts,
        Use::Maintenance,
        Use::Migration,
        Use::Command,
    ] {
        let session = database.target.connect("test", purpose).await.unwrap();
        has(session.client(), &known, &format!("{purpose:?}")).await;
    }
}

async fn has(client: &Client, known: &[(&str, &str)], session: &str) {
    for (setting, own) in known {
        let row = client.query_one(&format!("show {setting}"), &[]).await;
        assert_eq!(
            row.unwrap().get::<_, &str>(0),
            *own,
            "{setting} of {session}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_is_ready_after_few_exchanges() {
    let database = Database::new().await;
    let between = dir();
    let exchanges = count(&database.socket(), between.path());
    let target = database.through(between.path());
    let session = WriterSession::open(&target, "wattgate writer 0", LIMIT).await;
    drop(session.unwrap());
    // It connects, asks whether the server accepts writes, sets its settings, and prepares: four round trips. A
    // busy machine may split what is sent together. One statement at a time would take 27.
    let exchanges = exchanges.load(Ordering::Relaxed);
    assert!((4..=8).contains(&exchanges), "{exchanges}");
}

/// Forwards one connection to a server's socket. Counts how often the client sends again after a response.
fn count(server: &Path, between: &Path) -> Arc<AtomicU32> {
    let listener = UnixListener::bind(between.join(".s.PGSQL.5432")).unwrap();
    let server = server.to_owned();
    let exchanges = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&exchanges);
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = UnixStream::connect(server).unwrap();
        let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        // The rest of the client's round trip arrives before the server's whole response.
        let answered = Arc::new(AtomicU32::new(1));
        let ready = Arc::clone(&answered);
        std::thread::spawn(move || {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(read @ 1..) = down.read(&mut bytes) {
                ready.store(1, Ordering::SeqCst);
                if client.write_all(&bytes[..read]).is_err() {
                    break;
                }
            }
            client.shutdown(Shutdown::Both).ok();
        });
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = up.read(&mut bytes) {
            counted.fetch_add(answered.swap(0, Ordering::SeqCst), Ordering::Relaxed);
            if server.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
    });
    exchanges
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sees_a_watermark_that_moved_while_it_waited() {
    let database = Database::new().await;
    let name = database.text("current_database()").await;
    database
        .run(&format!(
            "alter database {name} set default_transaction_isolation = 'repeatable read'"
        ))
        .await;
    let gateway = database.gateway(1);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    // The batch has begun and waits for its checkpoint.
    let operator = database.session().await;
    operator
        .batch_execute("begin; select 1 from wal_checkpoints for update")
        .await
        .unwrap();
    gateway.send(&[meter("M1", 60, 1.0)]).await;
    until("a batch that waits", || async {
        database.waiting("Lock").await == 1
    })
    .await;
    let watermark = format!("update hours_progress set sealed_to = to_timestamp({NOON} + 7200)");
    database.run(&watermark).await;
    operator.batch_execute("rollback").await.unwrap();
    gateway.drained().await;
    assert_eq!(
        database
            .count("select count(*) from meter_hour_marks")
            .await,
        1
    );
    gateway.stop().await;
}
