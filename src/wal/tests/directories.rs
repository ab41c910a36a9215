//! The log as the gateway runs it: a real directory, its own threads, many clients at once.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::wal::Log;
use crate::wal::storage::{Directory, DirectoryError};

fn open(path: &Path, shards: u16) -> Log {
    let directory = Directory::open(path).unwrap();
    Log::open(Arc::new(directory), options(shards)).unwrap()
}

fn send(log: &Log, shards: u16, serials: &[u64]) -> Reply {
    let mut records = RequestRecords::new(shards);
    for serial in serials {
        records.push(&Made::new(*serial).reading());
    }
    let (sender, reply) = oneshot::channel();
    let append = Append {
        reservation: log.budget().try_reserve(records.log_bytes_max()).unwrap(),
        chunks: records.into_chunks(),
        memory: Reservation::nothing(&Arc::default()),
        wants_places: false,
        reply: Some(sender),
    };
    log.sender().send(Message::Append(append)).unwrap();
    reply
}

fn serials(log: &Log) -> Vec<u64> {
    let source = log.source();
    let mut all = Vec::new();
    for run in source.runs() {
        for shard in 0..run.shards {
            let (frames, _) = read_shard(&source, &run, shard, run.first_position()).unwrap();
            all.extend(frames.into_iter().flat_map(|f| f.serials));
        }
    }
    all.sort_unstable();
    all
}

#[test]
fn only_its_owner_can_read_the_log() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("between").join("wal");
    let log = open(&path, 1);
    assert!(send(&log, 1, &[1]).blocking_recv().unwrap().is_ok());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = std::fs::read_dir(&path).unwrap().collect();
    assert!(files.len() > 1);
    for file in files {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn concurrent_clients_find_every_acknowledged_request() {
    let dir = tempfile::tempdir().unwrap();
    let next = AtomicU64::new(1);
    let log = open(&dir.path().join("wal"), 3);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let first = next.fetch_add(3, Ordering::Relaxed);
                    let reply = send(&log, 3, &[first, first + 1, first + 2]);
                    assert!(reply.blocking_recv().unwrap().is_ok());
                }
            });
        }
    });
    assert_eq!(serials(&log), (1..=1200).collect::<Vec<_>>());
    log.close().stop();
    let log = open(&dir.path().join("wal"), 2);
    assert_eq!(serials(&log), (1..=1200).collect::<Vec<_>>());
    log.close().stop();
}

#[test]
fn requests_before_a_close_are_written_and_later_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 2);
    let sender = log.sender();
    let replies: Vec<Reply> = (1..=100).map(|n| send(&log, 2, &[n])).collect();
    let source = log.source();
    let closed = log.close();
    for reply in replies {
        assert!(reply.blocking_recv().unwrap().is_ok());
    }
    assert!(source.current_has_ended());
    assert!(sender.try_send(Message::Close).is_err());
    let run = source.runs().pop().unwrap();
    let counts = (0..2).map(|shard| {
        let (frames, ended) = read_shard(&source, &run, shard, Position::START).unwrap();
        assert!(ended);
        frames.iter().map(|f| f.serials.len()).sum::<usize>()
    });
    assert_eq!(counts.sum::<usize>(), 100);
    closed.stop();
}

#[test]
fn only_one_process_opens_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 1);
    let second = Directory::open(dir.path());
    assert!(matches!(second, Err(DirectoryError::InUse(path)) if path == dir.path()));
    log.close().stop();
    open(dir.path(), 1).close().stop();
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Directory::open(&file.join("wal")).unwrap_err().to_string();
    assert!(error.contains("file/wal"), "{error}");
}

#[test]
fn a_copy_of_an_open_log_holds_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (first, copy) = (dir.path().join("first"), dir.path().join("copy"));
    let log = open(&first, 2);
    for n in 1..=40 {
        assert!(send(&log, 2, &[n]).blocking_recv().unwrap().is_ok());
    }
    // The state that a kill leaves.
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(&first).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let again = open(&copy, 1);
    assert_eq!(serials(&again), (1..=40).collect::<Vec<_>>());
    let ids = |log: &Log| log.source().runs().last().unwrap().id;
    assert_ne!(ids(&again), ids(&log), "two logs with one run's id");
    again.close().stop();
    log.close().stop();
}
