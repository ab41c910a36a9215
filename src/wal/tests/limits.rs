//! Bounds: the size limit, a full disk, and which segments are kept or retired.

use super::disk::Death;
use super::*;
use crate::wal::retired_runs::SLOT_BYTES;

/// The size of the log's files other than segments.
const BESIDE_BYTES: u64 = 2 * SLOT_BYTES as u64;

/// Appends one reading at a time until there is no space; returns the last serial.
fn fill(log: &mut Stepped, mut serial: u64) -> u64 {
    while log.append(&[serial + 1]) {
        serial += 1;
        assert!(serial < 10_000_000, "it is never full");
        if serial.is_multiple_of(16) {
            // What the housekeeper does meanwhile. On a full disk it fails.
            drop(log.parts.housekeeper.work());
        }
    }
    serial
}

fn next_request_bytes() -> u64 {
    let mut records = RequestRecords::new(1);
    records.push(&Made::new(1).reading());
    records.log_bytes_max()
}

#[test]
fn a_full_log_refuses_until_readings_are_stored() {
    let disk = Disk::new(1);
    let options = options(1);
    let mut log = Stepped::open(disk.mount(), options).unwrap();
    let serial = fill(&mut log, 0);
    assert!(disk.used_bytes() <= options.limit_bytes + BESIDE_BYTES);
    assert!(disk.used_bytes() > options.limit_bytes - SEGMENT_BYTES);
    assert!(log.parts.budget.free_bytes() < next_request_bytes() + 1024);
    assert_eq!(log.serials().len() as u64, serial);
    // Restarted while it is full, the log opens, refuses requests, and holds everything.
    disk.die(Death::Kill);
    let mut log = Stepped::open(disk.mount(), options).unwrap();
    assert_eq!(log.serials().len() as u64, serial);
    fill(&mut log, serial);
    log.store_everything();
    log.keep_house();
    assert!(log.append(&[serial + 1000]));
}

#[test]
fn a_full_disk_refuses_requests_and_heals_when_there_is_room() {
    let disk = Disk::new(1);
    disk.set_capacity(Some(3 * SEGMENT_BYTES));
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    let serial = fill(&mut log, 0);
    assert!(
        log.parts.housekeeper.work().is_err(),
        "the disk is not full"
    );
    assert!(
        !disk.names().iter().any(|n| n.starts_with("spare")),
        "left behind"
    );
    assert!(!log.parts.progress.has_failed());
    assert_eq!(log.serials().len() as u64, serial);
    disk.set_capacity(None);
    log.keep_house();
    assert!(log.append(&[serial + 1]));
    assert_eq!(log.serials().len() as u64, serial + 1);
}

#[test]
fn a_segment_is_on_disk_before_its_room_is_promised() {
    let disk = Disk::new(1);
    let log = Stepped::open(disk.mount(), options(1)).unwrap();
    let reserved = log.parts.budget.free_bytes();
    disk.fail_sync_after(Some(0));
    assert!(log.parts.housekeeper.make_spare().is_err());
    assert_eq!(log.parts.budget.free_bytes(), reserved);
    log.parts.housekeeper.make_spare().unwrap();
    assert!(log.parts.budget.free_bytes() > reserved);
}

#[test]
fn beside_a_database_the_log_leaves_room_to_store_readings() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    let database = 3 * SEGMENT_BYTES;
    let leave_free = Arc::clone(&log.parts.housekeeper.leave_free_bytes);
    leave_free.store(database, std::sync::atomic::Ordering::Relaxed);
    let capacity = database + 10 * SEGMENT_BYTES;
    disk.set_capacity(Some(capacity));
    let serial = fill(&mut log, 0);
    // There is space for the log, three times the log, and what the database needs by itself.
    let taken = disk.used_bytes();
    assert!(taken >= 2 * SEGMENT_BYTES && 4 * taken + database <= capacity);
    assert!(log.parts.housekeeper.work().is_err());
    // Once the readings are stored, their segments are retired and the log accepts readings again.
    log.store_everything();
    drop(log.parts.housekeeper.work());
    assert!(log.append(&[serial + 1]));
    // Other programs fill the disk: no segment is recycled, and retired ones free space.
    let serial = fill(&mut log, serial + 1);
    disk.set_capacity(Some(disk.used_bytes() + database));
    log.store_everything();
    drop(log.parts.housekeeper.work());
    assert!(disk.used_bytes() < taken);
    disk.set_capacity(None);
    drop(log.parts.housekeeper.work());
    assert!(log.append(&[serial + 1]));
}

#[test]
fn a_log_opens_on_a_full_disk() {
    let disk = Disk::new(1);
    disk.set_capacity(Some(2 * SEGMENT_BYTES + BESIDE_BYTES));
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    log.keep_house();
    assert!(log.append(&[1, 2, 3]));
    disk.die(Death::Kill);
    disk.set_capacity(Some(disk.used_bytes()));
    // There is no space to copy the tail, so a spare segment is removed.
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert_eq!(log.serials(), [1, 2, 3]);
    // Killed again, with no spare left: the run is ended in place, durably, and can be read and stored.
    let serial = fill(&mut log, 3);
    disk.set_capacity(Some(disk.used_bytes()));
    disk.die(Death::Kill);
    let log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert_eq!(log.serials().len() as u64, serial);
    disk.die(Death::PowerCut);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert_eq!(log.serials().len() as u64, serial);
    assert!(
        log.submit(&[9], false).is_none(),
        "there is no room to reserve"
    );
    disk.set_capacity(None);
    log.keep_house();
    assert!(log.append(&[100_000]));
}

#[test]
fn retained_segments_make_room_on_a_full_disk() {
    let disk = Disk::new(1);
    disk.set_capacity(Some(3 * SEGMENT_BYTES + BESIDE_BYTES));
    let options = LogOptions {
        retain_bytes: 2 * SEGMENT_BYTES,
        ..options(1)
    };
    let mut log = Stepped::open(disk.mount(), options).unwrap();
    let serial = fill(&mut log, 0);
    assert!(!log.append(&[serial + 1]));
    log.store_everything();
    drop(log.parts.housekeeper.work());
    assert!(log.append(&[serial + 1]), "it refuses, and has room");
}

#[test]
fn every_mode_of_acknowledgement_reserves_its_room_before() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    // The space is reserved but not written, because no appender runs here. The disk is full from now on.
    disk.set_capacity(Some(disk.used_bytes()));
    let mut serials = Vec::new();
    while log.submit(&[serials.len() as u64 + 1], true).is_some() {
        serials.push(serials.len() as u64 + 1);
    }
    assert!(serials.len() > 10);
    assert!(log.parts.budget.free_bytes() < next_request_bytes() + 1024);
    log.parts.appender.write_what_waits().unwrap();
    assert_eq!(log.serials(), serials, "a reservation had no room");
}

#[test]
fn only_stored_and_unretained_segments_are_retired() {
    let disk = Disk::new(1);
    let retained = 2 * SEGMENT_BYTES;
    let options = LogOptions {
        retain_bytes: retained,
        ..options(2)
    };
    let mut log = Stepped::open(disk.mount(), options).unwrap();
    let serial = fill(&mut log, 0);
    let source = log.source();
    let run = source.runs().pop().unwrap();
    let segments = |log: &Stepped| log.source().runs()[0].segments.len();
    let all = segments(&log);
    assert!(all >= 6);
    let frames: Vec<_> = (0..2)
        .map(|s| read_shard(&source, &run, s, Position::START).unwrap().0)
        .collect();
    let last = |shard: usize| frames[shard].last().unwrap();
    // One shard is stored, the other is not: all segments stay.
    log.store(run.sequence, 0, last(0).end, last(0).after);
    log.keep_house();
    assert_eq!(segments(&log), all);
    // Stored in history, but live status is behind: all segments stay.
    let of_run = RunShard {
        run: run.sequence,
        shard: 1,
    };
    let mut stored = Stored {
        position: last(1).end,
        tally: Tally {
            stored: last(1).after,
            ..Tally::default()
        },
        ..Stored::NOTHING
    };
    log.parts.progress.stored(of_run, stored);
    log.keep_house();
    assert_eq!(segments(&log), all);
    // Stored up to the third segment: two are passed, and both are retained.
    stored.live_position = Position::start_of(2);
    log.parts.progress.stored(of_run, stored);
    log.keep_house();
    assert_eq!(segments(&log), all);
    // Stored up to the fourth segment: one is retired.
    stored.live_position = Position::start_of(3);
    log.parts.progress.stored(of_run, stored);
    log.keep_house();
    assert_eq!(segments(&log), all - 1);
    // Everything is stored: two passed segments are retained, and the one being written stays.
    stored.live_position = last(1).end;
    log.parts.progress.stored(of_run, stored);
    log.keep_house();
    assert_eq!(segments(&log), 3);
    // A database that was restored finds everything that is retained.
    let kept = log.serials();
    assert_eq!(kept.last(), Some(&serial));
    assert!(kept.windows(2).all(|w| w[0] + 1 == w[1]));
    disk.die(Death::PowerCut);
    assert_eq!(
        Stepped::open(disk.mount(), options).unwrap().serials(),
        kept
    );
}

#[test]
fn a_quarter_of_the_limit_is_retained_at_most() {
    let disk = Disk::new(1);
    let options = LogOptions {
        retain_bytes: u64::MAX,
        ..options(1)
    };
    let mut log = Stepped::open(disk.mount(), options).unwrap();
    fill(&mut log, 0);
    log.store_everything();
    log.keep_house();
    let kept = log.source().runs()[0].segments.len() as u64;
    assert!((kept - 1) * SEGMENT_BYTES <= options.limit_bytes / 4);
    assert!(
        log.append(&[1_000_000]),
        "a log that retains too much takes nothing"
    );
    for limit in [1, 64 << 20, 1 << 30, 10 << 30] {
        let disk = tempfile::tempdir().unwrap();
        let storage = crate::wal::storage::Directory::open(disk.path()).unwrap();
        // Only the sizes are compared, because zero-filling gigabytes would take too long.
        let options = LogOptions {
            limit_bytes: limit,
            ..options
        };
        if limit <= 64 << 20 {
            let log = crate::wal::Log::open(Arc::new(storage), options).unwrap();
            assert_eq!(log.limit_bytes(), 64 << 20);
            assert!(log.source().catalog.segment_bytes <= log.limit_bytes() / 8);
            log.close().stop();
        }
    }
}

#[test]
fn a_recycled_segment_never_shows_its_old_frames() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    let mut serial = 0;
    for _ in 0..12 {
        log.append_until(&mut serial, 2);
        log.store_everything();
        log.keep_house();
        // The bytes on disk do not grow: there are two spares and the segments in use.
        assert!(disk.used_bytes() <= 4 * SEGMENT_BYTES);
    }
    // If a write to a recycled file is torn, old frames follow the tear.
    disk.die(Death::Kill);
    let name = last_segment(&disk);
    let mut bytes = disk.bytes(&name);
    bytes[4096..8192].fill(0);
    disk.put(&name, &bytes);
    let log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert!(log.serials().len() < 2, "old frames were read");
}

#[test]
fn a_power_cut_in_a_recycled_segment_leaves_a_good_log() {
    for seed in 0..12 {
        let disk = Disk::new(seed);
        let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
        let mut serial = 0;
        log.append_until(&mut serial, 3);
        // The first two segments are stored, and one of them becomes a spare.
        let run = log.source().runs().pop().unwrap();
        let (frames, _) = read_shard(&log.source(), &run, 0, Position::START).unwrap();
        let stored = frames.iter().rev().find(|f| f.end.segment() == 1).unwrap();
        log.store(run.sequence, 0, stored.end, stored.after);
        let (source, cut) = (log.source(), disk.clone());
        disk.on_sync(Some(Arc::new(move || {
            let last = source.runs().pop().unwrap().segments.pop_back();
            // The power fails during the sync of a later segment's first write.
            if last.is_some_and(|s| s.number >= 3 && s.number % 3 == seed as u32 % 3) {
                cut.die(Death::PowerCut);
            }
        })));
        loop {
            if log.submit(&[serial + 1, serial + 2], true).is_none() {
                log.keep_house();
                continue;
            }
            if log.parts.appender.write_what_waits().is_err() {
                break;
            }
            serial += 2;
            drop(log.parts.housekeeper.work());
        }
        disk.on_sync(None);
        let log = Stepped::open(disk.mount(), options(1)).unwrap_or_else(|e| panic!("{e}"));
        let stored = stored.after.sum();
        let waiting = log
            .serials()
            .into_iter()
            .filter(|s| *s > stored && *s <= serial);
        assert_eq!(waiting.count() as u64, serial - stored, "seed {seed}");
    }
}

#[test]
fn repeated_restarts_do_not_fill_the_log() {
    let disk = Disk::new(1);
    for n in 1..=50 {
        let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
        assert!(log.append(&[n]), "full after {n} starts");
        if n % 2 == 0 {
            log.close();
        }
        disk.die(Death::Kill);
    }
    let log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert_eq!(log.serials(), (1..=50).collect::<Vec<_>>());
}

#[test]
fn a_reader_of_a_retired_segment_reports_that_it_is_gone() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    let source = log.source();
    let mut serial = 0;
    log.append_until(&mut serial, 3);
    let run = source.runs().pop().unwrap();
    let mut reader = source.reader(&run, 0, Position::START);
    assert!(matches!(reader.next_frame(), Ok(Next::Frame(_))));
    log.store_everything();
    log.keep_house();
    fill(&mut log, serial);
    // The reader may still return what it has buffered, and then reports that the segment is gone.
    let error = loop {
        match reader.next_frame() {
            Ok(Next::Frame(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::Retired { .. }), "{error}");
}

#[test]
fn a_changed_size_limit_loses_nothing() {
    let disk = Disk::new(1);
    let mut serial = 0;
    let smallest = SEGMENT_BYTES / 2;
    for segment_bytes in [SEGMENT_BYTES, smallest, 2 * SEGMENT_BYTES, smallest] {
        let options = LogOptions {
            limit_bytes: 8 * segment_bytes,
            ..options(1)
        };
        let mut log = Stepped::open_sized(disk.mount(), options, segment_bytes).unwrap();
        log.keep_house();
        if log.append(&[serial + 1]) {
            serial += 1;
            serial = fill(&mut log, serial);
        } else {
            // The log is larger than the new limit, so old segments are retired first.
            assert!(disk.used_bytes() + segment_bytes > options.limit_bytes);
        }
        assert_eq!(log.serials().last(), Some(&serial));
        log.store_everything();
        log.keep_house();
        serial += 1;
        assert!(log.append(&[serial]), "it takes readings again");
        disk.die(Death::PowerCut);
    }
}

/// A reopened log. Its older run has some segments, and all of it is stored.
fn with_a_stored_run(disk: &Disk) -> Stepped {
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    log.append_until(&mut 0, 3);
    log.close();
    disk.die(Death::Kill);
    let log = Stepped::open(disk.mount(), options(1)).unwrap();
    log.store_everything();
    log
}

/// A rename or an unlink fails while segments are retired. Whether or not it took effect, the log keeps the
/// segment in its catalog and repeats the step.
#[test]
fn a_failed_rename_or_unlink_is_tried_again() {
    for changes in 0..6 {
        let disk = Disk::new(u64::from(changes));
        let log = with_a_stored_run(&disk);
        disk.fail_change_after(Some(changes));
        let turns: Vec<bool> = (0..3)
            .map(|_| log.parts.housekeeper.work().is_ok())
            .collect();
        assert!(!log.parts.progress.has_failed(), "{changes}: {turns:?}");
        let runs = log.source().runs();
        assert_eq!(runs.len(), 1, "{changes}: {turns:?}");
        disk.die(Death::Kill);
        Stepped::open(disk.mount(), options(1)).unwrap();
    }
}

/// The process dies between two changes, the first of which failed. The log must open again.
#[test]
fn a_failed_rename_or_unlink_leaves_no_hole_in_the_log() {
    let mut failed = 0;
    for (first, second, seed) in (0..6)
        .flat_map(|first| (0..7).map(move |second| (first, (second < 6).then_some(second))))
        .flat_map(|(first, second)| (0..2).map(move |seed| (first, second, seed)))
    {
        let disk = Disk::new(seed);
        let log = with_a_stored_run(&disk);
        disk.fail_change_after(Some(first));
        let turn = log.parts.housekeeper.work();
        failed += u32::from(turn.is_err());
        if second.is_some() {
            disk.fail_change_after(second);
            drop(log.parts.housekeeper.work());
        }
        assert!(!log.parts.progress.has_failed(), "{first}, {second:?}");
        disk.die(Death::Kill);
        let opened = Stepped::open(disk.mount(), options(1));
        opened.unwrap_or_else(|why| {
            panic!("changes {first} and {second:?} failed, seed {seed}: it does not open: {why}")
        });
    }
    assert!(failed > 30, "of 84 turns only {failed} failed");
}
