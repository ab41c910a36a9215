//! When the log acknowledges, and what readers may see.

use std::sync::Mutex;

use super::disk::{Death, SECTOR};
use super::*;
use crate::wal::frame::FRAME_BYTES_MAX;

#[test]
fn one_sync_carries_all_requests_that_wait() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(2)).unwrap();
    let before = disk.syncs();
    let replies: Vec<Reply> = (1..=50).map(|n| log.submit(&[n], false).unwrap()).collect();
    log.parts.appender.write_what_waits().unwrap();
    assert_eq!(disk.syncs(), before + 1);
    for mut reply in replies {
        assert!(reply.try_recv().unwrap().is_ok());
    }
}

#[test]
fn nothing_is_acknowledged_or_read_before_its_sync() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert!(log.append(&[1]));
    let reply = Arc::new(Mutex::new(log.submit(&[2, 3], false).unwrap()));
    let looked = Arc::new(Mutex::new(0));
    let (source, waits, looks) = (log.source(), Arc::clone(&reply), Arc::clone(&looked));
    disk.on_sync(Some(Arc::new(move || {
        let run = source.runs().pop().unwrap();
        let (frames, _) = read_shard(&source, &run, 0, Position::START).unwrap();
        assert_eq!(frames.len(), 1, "a reader has passed what is synced");
        assert!(waits.lock().unwrap().try_recv().is_err(), "acknowledged");
        *looks.lock().unwrap() += 1;
    })));
    log.parts.appender.write_what_waits().unwrap();
    disk.on_sync(None);
    assert_eq!(*looked.lock().unwrap(), 1);
    assert!(reply.lock().unwrap().try_recv().unwrap().is_ok());
    assert_eq!(log.serials(), [1, 2, 3]);
}

#[test]
fn the_first_reading_of_a_segment_waits_for_the_directory_too() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    // The segment's own sync succeeds, then that of the directory fails.
    disk.fail_sync_after(Some(1));
    assert!(!log.append(&[1]));
}

#[test]
fn a_failed_sync_is_final_and_loses_nothing_acknowledged() {
    let disk = Disk::new(3);
    let mut log = Stepped::open(disk.mount(), options(2)).unwrap();
    assert!(log.append(&[1, 2, 3]));
    disk.fail_sync_after(Some(0));
    let first = log.submit(&[4], false).unwrap();
    let sender = log.parts.sender.clone();
    let budget = Arc::clone(&log.parts.budget);
    let progress = Arc::clone(&log.parts.progress);
    let Stepped { parts, .. } = log;
    let appender = std::thread::spawn(move || parts.appender.run());
    let answer = first.blocking_recv();
    assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");
    let mut failed = progress.watch_failed();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let reason = runtime.block_on(failed.wait_for(Option::is_some)).unwrap();
    let reason = reason.clone().unwrap();
    assert!(reason.contains("does not sync"), "{reason}");
    // The disk could sync again, but the log no longer trusts it.
    for serial in 5..10 {
        let mut records = RequestRecords::new(2);
        records.push(&Made::new(serial).reading());
        let (reply, answer) = oneshot::channel();
        let append = Append {
            reservation: budget.try_reserve(records.log_bytes_max()).unwrap(),
            chunks: records.into_chunks(),
            memory: Reservation::nothing(&Arc::default()),
            wants_places: false,
            reply: Some(reply),
        };
        sender.send(Message::Append(append)).unwrap();
        assert_eq!(answer.blocking_recv(), Ok(Err(AppendError::Failed)));
    }
    sender.send(Message::Close).unwrap();
    appender.join().unwrap();
    disk.die(Death::PowerCut);
    let log = Stepped::open(disk.mount(), options(2)).unwrap();
    let serials = log.serials();
    assert!(serials.starts_with(&[1, 2, 3]), "{serials:?}");
    assert!(serials.iter().all(|s| *s <= 4), "{serials:?}");
}

#[test]
fn a_tail_left_by_a_failed_sync_is_copied_first() {
    // The group can be read from the page cache, but the disk never got it, and no later sync writes it.
    let group: Vec<u64> = (2..=60).collect();
    for seed in 0..5 {
        let disk = Disk::new(seed);
        let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
        assert!(log.append(&[1]));
        disk.fail_sync_after(Some(0));
        assert!(!log.append(&group));
        disk.die(Death::Kill);
        let log = Stepped::open(disk.mount(), options(1)).unwrap();
        let stored = log.serials();
        assert_eq!(stored.len(), 60, "a reader stores it now");
        disk.die(Death::PowerCut);
        let log = Stepped::open(disk.mount(), options(1)).unwrap();
        assert_eq!(log.serials(), stored, "stored readings have left the log");
    }
}

#[test]
fn a_directory_that_does_not_sync_stops_acknowledging_too() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    let mut serial = 0;
    log.append_until(&mut serial, 2);
    log.store_everything();
    disk.fail_sync_after(Some(0));
    assert!(log.parts.housekeeper.work().is_err());
    assert!(log.parts.progress.has_failed());
    assert!(!log.append(&[serial + 1]));
}

#[test]
fn a_request_larger_than_a_frame_is_acknowledged_whole() {
    let disk = Disk::new(1);
    let options = LogOptions {
        limit_bytes: 64 << 20,
        ..options(2)
    };
    let parts = Parts::assemble(disk.mount(), options, 8 << 20).unwrap();
    let mut log = Stepped { parts, shards: 2 };
    let serials: Vec<u64> = (1..=12_000).collect();
    assert!(log.append(&serials));
    let run = log.source().runs().pop().unwrap();
    assert!(disk.bytes(&run.segments[0].name).len() > FRAME_BYTES_MAX);
    let (frames, _) = read_shard(&log.source(), &run, 0, Position::START).unwrap();
    assert!(frames.len() > 1);
    disk.die(Death::PowerCut);
    let log = Stepped::open(disk.mount(), options).unwrap();
    assert_eq!(log.serials(), serials);
}

#[test]
fn a_reader_of_an_old_segment_says_where_it_is_damaged() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    let mut serial = 0;
    log.append_until(&mut serial, 2);
    let name = log.source().runs()[0].segments[0].name.clone();
    log.close();
    let mut bytes = disk.bytes(&name);
    bytes[4096 + 3 * SECTOR] ^= 1;
    disk.put(&name, &bytes);
    // Opening reads only the last segment, to be quick. The reader finds the damage in earlier ones.
    let log = Stepped::open(disk.mount(), options(1)).unwrap();
    let source = log.source();
    let Err(error) = read_shard(&source, &source.runs()[0], 0, Position::START) else {
        panic!("damage was read");
    };
    let text = error.to_string();
    assert!(
        text.contains(&name) && text.contains("wattgate wal verify"),
        "{text}"
    );
}

#[test]
fn a_request_without_readings_is_answered() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert!(log.append(&[]));
    assert!(log.append(&[1]));
    assert_eq!(log.serials(), [1]);
}
