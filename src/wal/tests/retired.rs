//! What the log records of retired runs.

use super::disk::Death;
use super::*;
use crate::wal::retired_runs::{FILE_NAME, SLOT_BYTES};

const DATABASE: uuid::Uuid = uuid::Uuid::from_u128(7);

/// Writes a run of one group and stores it. The next opening retires it.
fn let_a_run_go(disk: &Disk, serials: &[u64]) -> Run {
    let mut log = Stepped::open(disk.mount(), options(2)).unwrap();
    assert!(log.append(serials));
    log.close();
    disk.die(Death::PowerCut);
    let log = Stepped::open(disk.mount(), options(2)).unwrap();
    let run = log.source().runs()[0].clone();
    log.store_everything();
    log.keep_house();
    assert_eq!(log.source().runs().len(), 1, "it is still there");
    run
}

#[test]
fn a_retired_run_is_remembered_across_power_cuts() {
    let disk = Disk::new(1);
    let first = let_a_run_go(&disk, &[1, 2, 3]);
    disk.die(Death::PowerCut);
    let second = let_a_run_go(&disk, &[4, 5]);
    disk.die(Death::PowerCut);
    let log = Stepped::open(disk.mount(), options(2)).unwrap();
    let retired = log.source().retired_into(DATABASE);
    assert_eq!(retired.len(), 2);
    for (retired, run) in retired.iter().zip([first, second]) {
        assert_eq!((retired.id, retired.sequence), (run.id, run.sequence));
        assert_eq!(Some(retired.end), run.end);
        assert_eq!(retired.appended, run.appended);
    }
    assert_eq!(retired[0].appended.iter().map(|n| n.sum()).sum::<u64>(), 3);
    // If the log is bound to another database, nothing is missing there.
    assert_eq!(log.source().retired_into(uuid::Uuid::from_u128(8)), []);
}

#[test]
fn a_run_is_remembered_wherever_its_retirement_is_cut_off() {
    for calls in 0..40 {
        let disk = Disk::new(u64::from(calls));
        let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
        assert!(log.append(&[1, 2, 3]));
        log.close();
        disk.die(Death::PowerCut);
        let log = Stepped::open(disk.mount(), options(1)).unwrap();
        log.keep_house();
        log.store_everything();
        disk.set_fate(Some((calls, Death::PowerCut)));
        drop(log.parts.housekeeper.work());
        disk.set_fate(None);
        disk.die(Death::PowerCut);
        let log = Stepped::open(disk.mount(), options(1)).unwrap();
        let there = log.source().runs().len() == 2;
        let remembered = log.source().retired_into(DATABASE).len() == 1;
        assert!(
            there != remembered,
            "after {calls} calls: {there}, {remembered}"
        );
    }
}

#[test]
fn a_torn_slot_leaves_the_other_and_another_version_is_refused() {
    let disk = Disk::new(1);
    let_a_run_go(&disk, &[1]);
    let_a_run_go(&disk, &[2]);
    let whole = disk.bytes(FILE_NAME);
    let remembered = |bytes: &[u8]| {
        disk.put(FILE_NAME, bytes);
        Stepped::open(disk.mount(), options(2)).map(|log| log.source().retired_into(DATABASE).len())
    };
    assert_eq!(remembered(&whole).unwrap(), 2);
    // The second slot was written first.
    let mut torn = whole.clone();
    torn[60] ^= 1;
    assert_eq!(remembered(&torn).unwrap(), 1);
    torn[SLOT_BYTES + 60] ^= 1;
    assert_eq!(remembered(&torn).unwrap(), 0);
    let mut newer = whole;
    newer[8] = 2;
    let error = remembered(&newer).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
}

#[test]
fn the_oldest_retired_runs_are_forgotten_for_newer_ones() {
    let disk = Disk::new(1);
    let shards = crate::wal::header::SHARDS_MAX;
    let mut known = Vec::new();
    for serial in 0..70 {
        let mut log = Stepped::open(disk.mount(), options(shards)).unwrap();
        assert!(log.append(&[serial]));
        known.push(log.source().runs()[0].id);
        log.close();
        disk.die(Death::Kill);
        let log = Stepped::open(disk.mount(), options(shards)).unwrap();
        log.store_everything();
        log.keep_house();
        let forgotten = log.source().take_forgotten();
        let retired: Vec<_> = log
            .source()
            .retired_into(DATABASE)
            .iter()
            .map(|g| g.id)
            .collect();
        assert!(known.ends_with(&retired), "not the newest");
        assert_eq!(
            forgotten.is_empty(),
            retired.len() as u64 == serial + 1 || serial < 61
        );
        disk.die(Death::Kill);
    }
    let log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert_eq!(log.source().retired_into(DATABASE).len(), 61);
    assert_eq!(disk.bytes(FILE_NAME).len(), 2 * SLOT_BYTES);
}

/// Fills the disk of a closed log, opens it, stores everything, and retires its run.
fn opened_full(disk: &Disk) -> Stepped {
    disk.die(Death::Kill);
    disk.set_capacity(Some(disk.used_bytes()));
    let log = Stepped::open(disk.mount(), options(1)).unwrap();
    log.store_everything();
    drop(log.parts.housekeeper.work());
    assert_eq!(log.source().runs().len(), 1);
    log
}

#[test]
fn a_retired_run_is_remembered_on_a_full_disk() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    log.keep_house();
    assert!(log.append(&[1, 2]));
    log.close();
    opened_full(&disk);
    disk.die(Death::PowerCut);
    let log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert_eq!(log.source().retired_into(DATABASE).len(), 1);
    // Segments are retired even if there is no space for the file of retired runs.
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert!(log.append(&[1, 2]));
    log.close();
    let log = opened_full(&disk);
    assert!(!log.parts.progress.has_failed());
}
