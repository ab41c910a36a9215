//! Kills of the server, the gateway, the watcher, and starts and stops cut short.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tokio_postgres::NoTls;
use wattgate::postgres::embedded::{State, Stopped, start};

use crate::support::*;

#[tokio::test]
async fn a_server_that_is_killed_is_started_again() {
    let dir = open_dir();
    let embedded = start(config(dir.path())).await.unwrap();
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
    assert_eq!(
        ask(embedded.connection(), "SELECT 'back'").await.unwrap(),
        "back"
    );
    assert_eq!(stop(embedded).await, Stopped::Clean);
    assert_eq!(*state.borrow(), State::Stopped);
}

#[tokio::test]
async fn a_gateway_that_is_killed_leaves_no_server_and_no_watcher() {
    let dir = open_dir();
    let mut owner = Owner::start(dir.path(), &[], &std::env::current_exe().unwrap());
    let server = server_pid(&dir.path().join("postgres/cluster")).unwrap();
    let watchers = || {
        // Each holds the gateway's pipe and is named for what it does.
        let list = Command::new("ps")
            .args(["-eo", "ppid=,pid=,args="])
            .output()
            .unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        let watcher = list.lines().filter(|line| line.contains("wattgate-watch"));
        watcher
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((
                    words.next()?.parse::<u32>().ok()?,
                    words.next()?.parse::<u32>().ok()?,
                ))
            })
            .collect::<Vec<_>>()
    };
    let mine: Vec<u32> = watchers()
        .into_iter()
        .filter_map(|(parent, pid)| (parent == owner.process.id()).then_some(pid))
        .collect();
    assert_eq!(mine.len(), 1, "one watcher");
    // A Ctrl-C at the terminal goes to the gateway's group, and to neither of them.
    let groups = [owner.process.id(), server, mine[0]].map(group);
    assert!(
        groups[0] != groups[1] && groups[0] != groups[2],
        "{groups:?}"
    );
    assert!(alive(server));
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    let gone = until("the server goes", || !alive(server)).await;
    println!("the server was gone {gone:?} after the gateway");
    until("the watcher goes", || !alive(mine[0])).await;
}

#[tokio::test]
async fn a_start_right_after_a_kill_succeeds() {
    let dir = open_dir();
    let program = std::env::current_exe().unwrap();
    for _ in 0..3 {
        let mut owner = Owner::start(dir.path(), &[], &program);
        owner.process.kill().unwrap();
        owner.process.wait().unwrap();
    }
    let embedded = start(config(dir.path())).await.unwrap();
    assert_eq!(
        ask(embedded.connection(), "SELECT 'up'").await.unwrap(),
        "up"
    );
    // The watchers of those before leave this server alone.
    assert_eq!(stop(embedded).await, Stopped::Clean);
}

#[tokio::test]
async fn a_server_and_gateway_killed_together_are_recovered_from() {
    let dir = open_dir();
    let mut owner = Owner::start(dir.path(), &[], &std::env::current_exe().unwrap());
    let server = server_pid(&dir.path().join("postgres/cluster")).unwrap();
    signal(server, "KILL");
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    let embedded = start(config(dir.path())).await.unwrap();
    assert_eq!(
        ask(embedded.connection(), "SELECT 'up'").await.unwrap(),
        "up"
    );
    stop(embedded).await;
}

#[tokio::test]
async fn a_dropped_handle_and_a_cut_start_leave_no_server() {
    let dir = open_dir();
    let embedded = start(config(dir.path())).await.unwrap();
    let server = server_pid(embedded.cluster_dir()).unwrap();
    drop(embedded);
    until("the server goes", || !alive(server)).await;
    let cluster = dir.path().join("postgres/cluster");
    for wait_ms in [0, 5, 15, 30, 60] {
        let cut = tokio::time::timeout(Duration::from_millis(wait_ms), start(config(dir.path())));
        drop(cut.await);
        until("no server is left", || server_pid(&cluster).is_none()).await;
    }
    // Cut short in the making of a cluster as well.
    let fresh = open_dir();
    for wait_ms in [10, 100, 250] {
        let cut = tokio::time::timeout(Duration::from_millis(wait_ms), start(config(fresh.path())));
        drop(cut.await);
    }
    // What was cut short may hold the lock until its last writes are done.
    let lock = fresh.path().join("postgres/lock");
    until("the lock is let go", || {
        fs::File::open(&lock).is_ok_and(|lock| lock.try_lock().is_ok())
    })
    .await;
    let embedded = start(config(fresh.path())).await.unwrap();
    assert_eq!(
        ask(embedded.connection(), "SELECT 'whole'").await.unwrap(),
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
    let dir = open_dir();
    let half = dir.path().join("postgres/cluster.new-77");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("0"), "").unwrap();
    let written = half.clone();
    let writer = std::thread::spawn(move || {
        let began = std::time::Instant::now();
        let mut files = 0;
        // Until the directory is gone, as initdb's server does; or for a while.
        while began.elapsed() < Duration::from_millis(300)
            && fs::write(written.join(files.to_string()), "").is_ok()
        {
            files += 1;
        }
    });
    let embedded = start(config(dir.path())).await.unwrap();
    writer.join().unwrap();
    assert!(!half.exists());
    stop(embedded).await;
}

#[tokio::test]
async fn a_cluster_half_made_by_a_killed_start_is_made_anew() {
    let dir = open_dir();
    let half = dir.path().join("postgres/cluster.new-77");
    fs::create_dir_all(half.join("base")).unwrap();
    fs::write(half.join("PG_VERSION"), "15\n").unwrap();
    let embedded = start(config(dir.path())).await.unwrap();
    assert!(!half.exists());
    assert_eq!(
        ask(embedded.connection(), "SELECT 'whole'").await.unwrap(),
        "whole"
    );
    stop(embedded).await;
}

#[tokio::test]
async fn a_watcher_that_is_killed_is_replaced() {
    let dir = open_dir();
    let mut owner = Owner::start(dir.path(), &[], &std::env::current_exe().unwrap());
    let server = server_pid(&dir.path().join("postgres/cluster")).unwrap();
    let watcher = |parent: u32| {
        let list = Command::new("ps")
            .args(["-eo", "ppid=,pid=,args="])
            .output()
            .unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        list.lines()
            .filter(|line| line.contains("wattgate-watch"))
            .find_map(|line| {
                let mut words = line.split_whitespace();
                let found: u32 = words.next()?.parse().ok()?;
                (found == parent)
                    .then(|| words.next()?.parse::<u32>().ok())
                    .flatten()
            })
    };
    let parent = owner.process.id();
    let first = watcher(parent).unwrap();
    signal(first, "KILL");
    until("another watcher", || {
        watcher(parent).is_some_and(|pid| pid != first)
    })
    .await;
    assert!(alive(server));
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    until("the server goes", || !alive(server)).await;
}

#[tokio::test]
async fn a_forced_stop_loses_nothing_committed() {
    let dir = open_dir();
    let embedded = start(config(dir.path())).await.unwrap();
    let (client, driver) = embedded.connection().config().connect(NoTls).await.unwrap();
    tokio::spawn(driver);
    client
        .batch_execute("CREATE TABLE kept AS SELECT 'committed' AS it")
        .await
        .unwrap();
    assert_eq!(embedded.stop(Duration::ZERO).await, Stopped::Forced);
    let embedded = start(config(dir.path())).await.unwrap();
    assert_eq!(
        ask(embedded.connection(), "SELECT it FROM kept")
            .await
            .unwrap(),
        "committed"
    );
    stop(embedded).await;
}
