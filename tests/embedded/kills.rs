//! Kills of the server, the gateway and its watcher, and interrupted starts and stops.

use std::fs;
use std::time::Duration;

use tokio_postgres::NoTls;
use wattgate::postgres::embedded::{State, Stopped, start};

use crate::support::*;

#[tokio::test]
async fn a_server_that_is_killed_is_started_again() {
    let dir = data_dir();
    let embedded = started(dir.path()).await;
    let mut state = embedded.state();
    assert_eq!(*state.borrow_and_update(), State::Up);
    let killed = server_pid(embedded.cluster_dir()).unwrap();
    signal(killed, "KILL");
    let died = |state: &State| matches!(state, State::Restarting { .. });
    match &*tokio::time::timeout(LIMIT, state.wait_for(died))
        .await
        .unwrap()
        .unwrap()
    {
        State::Restarting { reason, .. } => assert!(reason.contains('9'), "{reason}"),
        other => panic!("{other:?}"),
    }
    tokio::time::timeout(LIMIT, state.wait_for(|it| *it == State::Up))
        .await
        .unwrap()
        .unwrap();
    assert_ne!(server_pid(embedded.cluster_dir()), Some(killed));
    assert_eq!(query(embedded.connection(), "SELECT 'back'").await, "back");
    assert_eq!(stop(embedded).await, Stopped::Clean);
    assert_eq!(*state.borrow(), State::Stopped);
}

#[tokio::test]
async fn a_gateway_that_is_killed_leaves_no_server_and_no_watcher() {
    let dir = data_dir();
    let mut owner = Owner::start(dir.path(), &[], &std::env::current_exe().unwrap());
    let server = server_pid(&dir.path().join("postgres/cluster")).unwrap();
    let mine = watchers_of(owner.process.id());
    assert_eq!(mine.len(), 1, "one watcher");
    // A Ctrl-C in the terminal goes to the gateway's process group, so it must not reach either of them.
    let groups = [owner.process.id(), server, mine[0]].map(group);
    assert!(
        groups[0] != groups[1] && groups[0] != groups[2],
        "{groups:?}"
    );
    assert!(alive(server));
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    let ended = until("the server ends", || !alive(server)).await;
    println!("the server ended {ended:?} after the gateway");
    until("the watcher ends", || !alive(mine[0])).await;
}

#[tokio::test]
async fn a_start_right_after_a_kill_succeeds() {
    let dir = data_dir();
    let program = std::env::current_exe().unwrap();
    for _ in 0..3 {
        let mut owner = Owner::start(dir.path(), &[], &program);
        owner.process.kill().unwrap();
        owner.process.wait().unwrap();
    }
    let embedded = started(dir.path()).await;
    assert_eq!(query(embedded.connection(), "SELECT 'up'").await, "up");
    // The watchers of earlier servers must leave this one alone.
    assert_eq!(stop(embedded).await, Stopped::Clean);
}

#[tokio::test]
async fn a_server_and_gateway_killed_together_are_recovered_from() {
    let dir = data_dir();
    let mut owner = Owner::start(dir.path(), &[], &std::env::current_exe().unwrap());
    let server = server_pid(&dir.path().join("postgres/cluster")).unwrap();
    signal(server, "KILL");
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    let embedded = started(dir.path()).await;
    assert_eq!(query(embedded.connection(), "SELECT 'up'").await, "up");
    stop(embedded).await;
}

#[tokio::test]
async fn a_dropped_handle_and_a_cut_start_leave_no_server() {
    let dir = data_dir();
    let embedded = started(dir.path()).await;
    let server = server_pid(embedded.cluster_dir()).unwrap();
    drop(embedded);
    until("the server ends", || !alive(server)).await;
    let cluster = dir.path().join("postgres/cluster");
    for wait_ms in [0, 5, 15, 30, 60] {
        let cut = tokio::time::timeout(Duration::from_millis(wait_ms), start(config(dir.path())));
        drop(cut.await);
        until("no server is left", || server_pid(&cluster).is_none()).await;
    }
    // Also when interrupted while it creates a cluster.
    let fresh = data_dir();
    for wait_ms in [10, 100, 250] {
        let cut = tokio::time::timeout(Duration::from_millis(wait_ms), start(config(fresh.path())));
        drop(cut.await);
    }
    // An interrupted start may hold the lock until it has finished its last writes.
    let lock = fresh.path().join("postgres/lock");
    until("the lock is free", || {
        fs::File::open(&lock).is_ok_and(|lock| lock.try_lock().is_ok())
    })
    .await;
    let embedded = started(fresh.path()).await;
    assert_eq!(
        query(embedded.connection(), "SELECT 'whole'").await,
        "whole"
    );
    stop(embedded).await;
    let left: Vec<_> = fs::read_dir(fresh.path().join("postgres"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("cluster.new"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn a_start_waits_until_the_last_one_has_stopped_writing() {
    let dir = data_dir();
    let half = dir.path().join("postgres/cluster.new-77");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("0"), "").unwrap();
    let written = half.clone();
    let writer = std::thread::spawn(move || {
        let began = std::time::Instant::now();
        let mut files = 0;
        // Keeps running until the directory is deleted, like initdb's server, or for a while.
        while began.elapsed() < Duration::from_millis(300)
            && fs::write(written.join(files.to_string()), "").is_ok()
        {
            files += 1;
        }
    });
    let embedded = started(dir.path()).await;
    writer.join().unwrap();
    assert!(!half.exists());
    stop(embedded).await;
}

#[tokio::test]
async fn a_cluster_half_made_by_a_killed_start_is_made_anew() {
    let dir = data_dir();
    let half = dir.path().join("postgres/cluster.new-77");
    fs::create_dir_all(half.join("base")).unwrap();
    fs::write(half.join("PG_VERSION"), "15\n").unwrap();
    let embedded = started(dir.path()).await;
    assert!(!half.exists());
    assert_eq!(
        query(embedded.connection(), "SELECT 'whole'").await,
        "whole"
    );
    stop(embedded).await;
}

#[tokio::test]
async fn a_watcher_that_is_killed_is_replaced() {
    let dir = data_dir();
    let mut owner = Owner::start(dir.path(), &[], &std::env::current_exe().unwrap());
    let server = server_pid(&dir.path().join("postgres/cluster")).unwrap();
    let watchers = || watchers_of(owner.process.id());
    let first = watchers()[0];
    signal(first, "KILL");
    until("another watcher", || {
        watchers().first().is_some_and(|pid| *pid != first)
    })
    .await;
    assert!(alive(server));
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    until("the server ends", || !alive(server)).await;
}

#[tokio::test]
async fn a_forced_stop_loses_nothing_committed() {
    let dir = data_dir();
    let embedded = started(dir.path()).await;
    let (client, driver) = embedded.connection().config().connect(NoTls).await.unwrap();
    tokio::spawn(driver);
    client
        .batch_execute("CREATE TABLE kept AS SELECT 'committed' AS it")
        .await
        .unwrap();
    assert_eq!(embedded.stop(Duration::ZERO).await, Stopped::Forced);
    let embedded = started(dir.path()).await;
    assert_eq!(
        query(embedded.connection(), "SELECT it FROM kept").await,
        "committed"
    );
    stop(embedded).await;
}
