//! How opening handles what a crash, a bad disk or another version left behind.

use super::disk::{Death, SECTOR};
use super::*;
use crate::wal::frame::{Frame, Salt};
use crate::wal::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::wal::recovery::RecoveryError;

const GROUPS: [&[u64]; 3] = [&[1, 2, 3, 4], &[5, 6], &[7, 8, 9, 10, 11]];

fn reopened(disk: &Disk) -> Result<Stepped, OpenError> {
    Stepped::open(disk.mount(), options(2))
}

/// Where the frames of a segment begin, and where the last one ends.
fn frame_starts(bytes: &[u8]) -> Vec<usize> {
    let header = SegmentHeader::decode(bytes).unwrap();
    let mut at = SEGMENT_HEADER_BYTES as usize;
    let mut starts = vec![at];
    loop {
        let place = Position::new(header.segment, at as u32);
        let salt = Salt::of(header.run_id);
        match Frame::decode(&bytes[at..], salt, place, header.shards) {
            Ok(frame) => at += frame.len_bytes() as usize,
            Err(_) => return starts,
        }
        starts.push(at);
    }
}

fn damage_of(result: Result<Stepped, OpenError>) -> (String, u64, String) {
    match result.err() {
        Some(OpenError::Recovery(error @ RecoveryError::Damaged { .. })) => {
            let text = error.to_string();
            let RecoveryError::Damaged {
                segment, offset, ..
            } = error
            else {
                unreachable!()
            };
            (segment, offset, text)
        }
        other => panic!("not refused as damaged: {other:?}"),
    }
}

#[test]
fn a_log_that_was_closed_is_read_back_whole() {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(2)).unwrap();
    for group in GROUPS {
        assert!(log.append(group));
    }
    log.close();
    // The unused part of the last segment is given back.
    assert!(disk.bytes(&last_segment(&disk)).len() < SEGMENT_BYTES as usize / 8);
    let log = reopened(&disk).unwrap();
    assert_eq!(log.serials(), (1..=11).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_cut_without_acknowledged_readings() {
    let disk = disk_with_groups(&GROUPS, 2);
    let name = last_segment(&disk);
    let whole = disk.bytes(&name);
    let starts = frame_starts(&whole);
    let [.., last, end] = starts[..] else {
        panic!("{starts:?}")
    };
    // The last group was never synced: any of its sectors may be missing, and any of its bytes wrong.
    let sectors = (last / SECTOR..=end / SECTOR).map(|s| s * SECTOR);
    let holes = sectors.map(|s| s.max(last)..(s + SECTOR).min(end));
    let bytes = (last..end).map(|at| at..at + 1);
    let tails = (last..end).step_by(7).map(|at| at..end);
    for torn in holes.chain(bytes).chain(tails) {
        let mut segment = whole.clone();
        segment[torn.clone()].iter_mut().for_each(|b| *b ^= 0xff);
        disk.put(&name, &segment);
        let log = reopened(&disk).unwrap_or_else(|e| panic!("{torn:?}: {e}"));
        assert_eq!(log.serials(), [1, 2, 3, 4, 5, 6], "{torn:?}");
        // The result is final: the next opening finds an end frame and the same readings.
        let again = reopened(&disk).unwrap();
        assert_eq!(again.serials(), [1, 2, 3, 4, 5, 6], "{torn:?}");
    }
    // A truncated file is a torn tail too.
    for len in (last..end).step_by(16) {
        disk.put(&name, &whole[..len]);
        assert_eq!(reopened(&disk).unwrap().serials(), [1, 2, 3, 4, 5, 6]);
    }
    disk.put(&name, &whole);
    assert_eq!(reopened(&disk).unwrap().serials().len(), 11);
}

#[test]
fn damage_before_intact_data_is_refused_with_its_place() {
    let disk = disk_with_groups(&GROUPS, 2);
    let name = last_segment(&disk);
    let whole = disk.bytes(&name);
    let starts = frame_starts(&whole);
    for at in (starts[0]..starts[2]).step_by(13) {
        let mut segment = whole.clone();
        segment[at] ^= 1;
        disk.put(&name, &segment);
        let frame = starts.iter().rev().find(|start| **start <= at).unwrap();
        let (segment_name, offset, text) = damage_of(reopened(&disk));
        assert_eq!((&segment_name, offset), (&name, *frame as u64));
        for part in [name.as_str(), "wattgate wal verify", "wattgate wal repair"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(disk.bytes(&name), segment, "a refused log was changed");
    }
    // A header is written with its first frame. If a second frame follows, the header was once intact.
    let mut segment = whole;
    segment[20] ^= 1;
    disk.put(&name, &segment);
    assert_eq!(damage_of(reopened(&disk)).1, 0);
}

#[test]
fn a_torn_first_write_leaves_no_run() {
    let disk = disk_with_groups(&[&[1, 2, 3]], 2);
    let name = last_segment(&disk);
    let mut segment = disk.bytes(&name);
    segment[..SECTOR].fill(0);
    disk.put(&name, &segment);
    let log = reopened(&disk).unwrap();
    assert_eq!(log.serials(), [] as [u64; 0]);
    assert!(!disk.names().contains(&name));
}

/// A log whose run has two segments, the second one with one frame.
///
/// Shape:  the disk, and the serials in the first segment
fn second_segment_begun() -> (Disk, Vec<u64>) {
    let disk = Disk::new(1);
    let mut log = Stepped::open(disk.mount(), options(2)).unwrap();
    let mut serial = 0;
    log.append_until(&mut serial, 2);
    let source = log.source();
    let run = source.runs().pop().unwrap();
    let shards_of_run = (0..2).map(|s| read_shard(&source, &run, s, Position::START).unwrap().0);
    let first = shards_of_run
        .flatten()
        .filter(|frame| frame.end.segment() == 0);
    let mut serials: Vec<u64> = first.flat_map(|frame| frame.serials).collect();
    serials.sort_unstable();
    disk.die(Death::Kill);
    (disk, serials)
}

#[test]
fn a_torn_second_segment_costs_the_first_nothing() {
    let (disk, serials) = second_segment_begun();
    let name = last_segment(&disk);
    let whole = disk.bytes(&name);
    // Only the header, only the frame, or nothing of the write has reached the disk.
    let header = SEGMENT_HEADER_BYTES as usize;
    for lost in [header..header + SECTOR, 0..SECTOR, 0..whole.len()] {
        let mut segment = whole.clone();
        segment[lost].fill(0);
        disk.put(&name, &segment);
        let log = reopened(&disk).unwrap();
        assert!(log.serials() == serials, "not what the first segment holds");
        for run in log.source().runs().iter().filter(|r| r.end.is_some()) {
            for shard in 0..run.shards {
                log.store(run.sequence, shard, Position::START, StreamCounts::ZERO);
            }
        }
        let waiting = log.parts.progress.snapshot().waiting();
        assert_eq!(
            waiting,
            serials.len() as u64,
            "what waits is counted wrongly"
        );
    }
}

#[test]
fn a_missing_segment_and_one_of_another_log_are_refused() {
    let (disk, _) = second_segment_begun();
    let second = last_segment(&disk);
    let first = second.replace("-0000000001.wal", "-0000000000.wal");
    let third = second.replace("-0000000001.wal", "-0000000002.wal");
    let (first_bytes, second_bytes) = (disk.bytes(&first), disk.bytes(&second));
    disk.take(&second);
    disk.put(&third, &second_bytes);
    assert_eq!(damage_of(reopened(&disk)).0, third);
    disk.take(&third);
    disk.put(&second, &second_bytes);
    // The same number, but another run: two logs in one directory.
    let other = first.replacen(&first[11..43], &"a".repeat(32), 1);
    disk.put(&other, &first_bytes);
    damage_of(reopened(&disk));
    disk.take(&other);
    // A run's first segments are retired once they are stored, so their absence is not damage.
    disk.take(&first);
    assert!(!reopened(&disk).unwrap().serials().is_empty());
}

#[test]
fn a_log_of_another_version_is_refused_and_not_touched() {
    let disk = disk_with_groups(&GROUPS, 2);
    let name = last_segment(&disk);
    let mut segment = disk.bytes(&name);
    for version in [0u8, 2] {
        segment[8] = version;
        disk.put(&name, &segment);
        let error = reopened(&disk).err().unwrap().to_string();
        assert!(error.contains(&name), "{error}");
        assert!(error.contains(&format!("version {version}")), "{error}");
        assert_eq!(disk.bytes(&name), segment);
    }
}

#[test]
fn each_opening_begins_a_run_and_never_appends_to_an_older_one() {
    let disk = Disk::new(1);
    let mut ids = std::collections::BTreeSet::new();
    for n in 0..5u64 {
        let before: Vec<(String, usize)> = old_segments(&disk);
        let mut log = reopened(&disk).unwrap();
        assert!(log.append(&[2 * n + 1, 2 * n + 2]));
        let runs = log.source().runs();
        assert!(ids.insert(runs.last().unwrap().id), "an id was used again");
        assert!(runs.windows(2).all(|w| w[0].sequence < w[1].sequence));
        assert_eq!(log.serials(), (1..=2 * n + 2).collect::<Vec<_>>());
        if n % 2 == 0 {
            log.close();
        }
        for (name, used) in before {
            let now = frame_starts(&disk.bytes(&name)).pop().unwrap();
            assert!(
                now == used || n > 0 && now <= used + 200,
                "{name} was appended to"
            );
        }
        disk.die(Death::Kill);
    }
}

fn old_segments(disk: &Disk) -> Vec<(String, usize)> {
    let names = disk.names().into_iter().filter(|n| n.ends_with(".wal"));
    names
        .map(|n| {
            let used = frame_starts(&disk.bytes(&n)).pop().unwrap();
            (n, used)
        })
        .collect()
}

#[test]
fn the_position_of_a_lost_reading_is_never_reused() {
    // A reader has seen an unsynced reading at a position. Then the power failed, and the tail was dropped.
    let disk = disk_with_groups(&GROUPS[..2], 1);
    let name = last_segment(&disk);
    let mut segment = disk.bytes(&name);
    let starts = frame_starts(&segment);
    let seen_by_the_database = starts[2];
    segment[starts[1]..].fill(0);
    disk.put(&name, &segment);
    let mut log = Stepped::open(disk.mount(), options(1)).unwrap();
    assert!(log.append(&[20, 21]));
    let source = log.source();
    let [old, new] = &source.runs()[..] else {
        panic!("two runs")
    };
    assert!(old.end.unwrap() < Position::new(0, seen_by_the_database as u32));
    // The checkpoint of the old run is past its end, so the run is finished. It says nothing about the new run.
    let past = Position::new(0, seen_by_the_database as u32);
    log.store(old.sequence, 0, past, StreamCounts::ZERO);
    assert!(log.parts.progress.is_run_done(old.sequence));
    let (frames, _) = read_shard(&source, new, 0, Position::START).unwrap();
    assert_eq!(frames[0].serials, [20, 21]);
}

#[test]
fn a_changed_number_of_shards_needs_no_operator() {
    let disk = Disk::new(1);
    let mut serial = 0;
    for shards in [3, 1, 64, 2] {
        let mut log = Stepped::open(disk.mount(), options(shards)).unwrap();
        let serials: Vec<u64> = (serial + 1..=serial + 20).collect();
        assert!(log.append(&serials));
        serial += 20;
        assert_eq!(log.serials(), (1..=serial).collect::<Vec<_>>());
        let runs = log.source().runs();
        assert_eq!(runs.last().unwrap().shards, shards);
        disk.die(Death::Kill);
    }
    for shards in [0, 65] {
        let refused = Stepped::open(disk.mount(), options(shards));
        assert!(matches!(refused.err(), Some(OpenError::Shards(n)) if n == shards));
    }
}
