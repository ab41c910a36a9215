//! Random operations on the log, checked against a model of what it must keep, with kills, power cuts, failing
//! syncs and full disks at any disk call.
//!
//! Everything runs on one thread and depends only on the seed, so that a failure can be repeated:
//! `WATTGATE_SEED=n WATTGATE_POWER_CUTS=1 cargo test --lib wal::tests::power_cuts`. With
//! `WATTGATE_POWER_CUTS=1000` alone, each run prints a new seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::disk::Death;
use super::*;
use crate::wal::storage::is_full;

/// A segment is little larger than the largest chunk, so that a run needs several.
const SEGMENT_BYTES: u64 = 192 << 10;
const SEGMENTS: u64 = 16;
/// Power cuts of one disk before the test continues with a fresh one.
const CUTS_OF_A_DISK: u64 = 20;

/// One reading that was passed to the log.
struct Entry {
    serial: u64,
    /// Acknowledged as durable, or seen by a reader: it must never be lost.
    must_keep: bool,
}

/// What the database holds of one shard of one run.
#[derive(Clone, Copy, Default)]
struct Checkpoint {
    position: Option<Position>,
    stored: StreamCounts,
}

impl Checkpoint {
    fn readings(&self) -> usize {
        self.stored.sum() as usize
    }
}

struct ModelShard {
    entries: Vec<Entry>,
    checkpoint: Checkpoint,
}

type ModelRun = Vec<ModelShard>;

/// How many readings of each shard of the current run a reader has seen during a sync.
type Seen = Arc<Mutex<Vec<usize>>>;

struct World {
    disk: Disk,
    random: Random,
    runs: BTreeMap<Uuid, ModelRun>,
    log: Option<Stepped>,
    replies: Vec<(Reply, Vec<(u16, usize)>)>,
    seen: Seen,
    next_serial: u64,
    full: u64,
    retired: u64,
    rotated: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        World {
            disk: Disk::new(seed ^ 0x5eed),
            random: Random(seed),
            runs: BTreeMap::new(),
            log: None,
            replies: Vec::new(),
            seen: Seen::default(),
            next_serial: 1,
            full: 0,
            retired: 0,
            rotated: 0,
        }
    }

    fn run(&mut self) {
        self.reopen();
        while self.disk.power_cuts() < CUTS_OF_A_DISK {
            let life = self.disk.life();
            match self.random.below(100) {
                0..63 => self.append(),
                63..74 => self.read_and_store(),
                74..84 => self.arm(),
                84..87 => self.disk.fail_sync_after(Some(self.random.below(6) as u32)),
                87..93 => self.fill_or_free(),
                93..94 => self.disk.die(Death::PowerCut),
                94..96 => self.disk.die(Death::Kill),
                _ => self.close(),
            }
            if self.disk.life() != life || self.log.is_none() {
                self.reopen();
            }
        }
    }

    /// Lets the process die within one of the next disk calls.
    fn arm(&mut self) {
        let death = if self.random.percent(70) {
            Death::PowerCut
        } else {
            Death::Kill
        };
        let fate = Some((self.random.below(80) as u32, death));
        self.disk.set_fate(fate);
    }

    fn fill_or_free(&mut self) {
        let room = self.random.percent(50).then(|| {
            let more = self.random.below(2 * SEGMENT_BYTES);
            self.disk.used_bytes() + more
        });
        self.disk.set_capacity(room);
    }

    /// Sends some requests and writes them as one group.
    fn append(&mut self) {
        let Some(mut log) = self.log.take() else {
            return;
        };
        let run = log.run_id();
        for _ in 0..=self.random.below(4) {
            let many = self.random.percent(30);
            let count = 1 + self.random.below(if many { 100 } else { 12 });
            let serials: Vec<u64> = (self.next_serial..).take(count as usize).collect();
            let buffered = self.random.percent(30);
            let Some(reply) = log.submit(&serials, buffered) else {
                self.full += 1;
                continue;
            };
            self.next_serial += count;
            let model = self.runs.entry(run).or_default();
            let mut places = Vec::new();
            for serial in serials {
                let shard = Made::new(serial).shard(log.shards);
                let entries = &mut model[usize::from(shard)].entries;
                places.push((shard, entries.len()));
                let must_keep = false;
                entries.push(Entry { serial, must_keep });
            }
            if !buffered {
                self.replies.push((reply, places));
            }
        }
        let life = self.disk.life();
        let written = log.parts.appender.write_what_waits();
        self.count_replies(run);
        match written {
            Ok(()) => {
                assert!(self.replies.is_empty(), "a request was forgotten");
                self.log = Some(log);
            }
            // A failed disk ends the process (invariant 11).
            Err(error) => {
                assert!(error.kind() == std::io::ErrorKind::Other, "{error}");
                if self.disk.life() == life {
                    self.disk.die(Death::Kill);
                }
            }
        }
    }

    /// Marks the readings that were acknowledged or that a reader has seen.
    fn count_replies(&mut self, run: Uuid) {
        let model = self.runs.entry(run).or_default();
        self.replies.retain_mut(|(reply, places)| {
            let answer = reply.try_recv();
            if matches!(answer, Ok(Ok(_))) {
                for (shard, at) in places {
                    model[usize::from(*shard)].entries[*at].must_keep = true;
                }
            }
            answer == Err(tokio::sync::oneshot::error::TryRecvError::Empty)
        });
        let seen = self.seen.lock().unwrap();
        for (shard, seen) in model.iter_mut().zip(seen.iter()) {
            for entry in shard.entries.iter_mut().take(*seen) {
                entry.must_keep = true;
            }
        }
    }

    /// Reads shards as the writers do, stores up to some position, and retires segments.
    fn read_and_store(&mut self) {
        let Some(log) = &self.log else { return };
        let source = log.source();
        let life = self.disk.life();
        for run in source.runs() {
            let model = self.runs.entry(run.id).or_default();
            for (shard, model) in (0u16..).zip(model) {
                if self.random.percent(30) {
                    continue;
                }
                let from = model.checkpoint.position.unwrap_or(Position::START);
                let Ok((frames, ended)) = read_shard(&source, &run, shard, from) else {
                    assert_ne!(self.disk.life(), life, "what was stored cannot be read on");
                    return;
                };
                let most = self.random.below(frames.len() as u64 + 1) as usize;
                let all = most == frames.len();
                let mut at = model.checkpoint.readings();
                for frame in frames.iter().take(most) {
                    assert_eq!(frame.before as usize, at, "a reader has skipped readings");
                    for serial in &frame.serials {
                        assert_eq!(model.entries[at].serial, *serial, "not in order");
                        model.entries[at].must_keep = true;
                        at += 1;
                    }
                    model.checkpoint.position = Some(frame.end);
                    model.checkpoint.stored = frame.after;
                }
                if all && ended {
                    model.checkpoint.position = run.end;
                }
                let position = model.checkpoint.position.unwrap_or(Position::START);
                log.store(run.sequence, shard, position, model.checkpoint.stored);
            }
        }
        let last = source.runs().pop();
        self.rotated += u64::from(last.is_some_and(|run| run.segments.len() > 1));
        let before = log.parts.catalog.total_bytes();
        // A failed rename or unlink does no harm here, because the step is repeated. If the appender's rename
        // fails, the process ends, as after a failed sync.
        let changes = Random(self.next_serial).below(12) as u32;
        self.disk
            .fail_change_after((changes < 3).then_some(changes));
        let turn = log.parts.housekeeper.work();
        self.disk.fail_change_after(None);
        self.retired += u64::from(log.parts.catalog.total_bytes() < before);
        if let Err(error) = turn
            && !is_full(&error)
            && log.parts.progress.has_failed()
            && self.disk.life() == life
        {
            // The gateway would end itself.
            self.disk.die(Death::Kill);
        }
    }

    fn close(&mut self) {
        let Some(mut log) = self.log.take() else {
            return;
        };
        let run = log.run_id();
        let life = self.disk.life();
        let ended = log.parts.appender.end_run();
        self.count_replies(run);
        if ended.is_ok() && self.disk.life() == life {
            assert!(log.source().current_has_ended());
        }
        self.disk.die(Death::Kill);
    }

    /// Starts the next process, which must find every marked reading.
    fn reopen(&mut self) {
        self.disk.on_sync(None);
        if let Some(log) = self.log.take() {
            let run = log.run_id();
            drop(log);
            self.count_replies(run);
        }
        self.replies.clear();
        self.seen.lock().unwrap().clear();
        let shards = 1 + self.random.below(3) as u16;
        let retain_bytes = self.random.below(3) * SEGMENT_BYTES;
        loop {
            let life = self.disk.life();
            let storage = self.disk.mount();
            let options = LogOptions {
                retain_bytes,
                limit_bytes: SEGMENTS * SEGMENT_BYTES,
                ..options(shards)
            };
            let opened = Stepped::open_sized(storage, options, SEGMENT_BYTES)
                .map_err(|e| e.to_string())
                .and_then(|log| self.compare(&log).map(|()| log));
            match opened {
                Ok(log) => {
                    self.watch_syncs(&log);
                    self.log = Some(log);
                    return;
                }
                // Killed while it was opening.
                Err(_) if self.disk.life() != life => {}
                Err(error) if error.contains("the disk does not") => self.disk.die(Death::Kill),
                Err(error) if error.contains("no storage space") => self.disk.set_capacity(None),
                Err(error) => panic!("the log does not open again: {error}"),
            }
        }
    }

    /// Compares a reopened log with the model.
    fn compare(&mut self, log: &Stepped) -> Result<(), String> {
        let source = log.source();
        let runs = source.runs();
        let current = log.run_id();
        for (id, model) in &self.runs {
            if !runs.iter().any(|run| run.id == *id) {
                for shard in model {
                    let must_keep = shard.entries.iter().rposition(|e| e.must_keep);
                    let stored = shard.checkpoint.readings();
                    assert!(
                        must_keep.is_none_or(|last| last < stored),
                        "a run was retired with readings that must be kept and were not stored"
                    );
                }
            }
        }
        let mut waiting = 0;
        for run in runs.iter().filter(|run| run.id != current) {
            let model = self.runs.get_mut(&run.id);
            let model = model.unwrap_or_else(|| panic!("a run was invented: {run:?}"));
            assert_eq!(model.len(), usize::from(run.shards));
            for (shard, model) in (0u16..).zip(model) {
                let of_run = read_shard(&source, run, shard, run.first_position());
                let (frames, ended) = of_run.map_err(|e| e.to_string())?;
                assert!(ended, "an old run has no end");
                let appended = run.appended[usize::from(shard)].sum();
                waiting += compare_shard(model, &frames, appended as usize);
                let end = run.end.unwrap_or(Position::START);
                let position = model
                    .checkpoint
                    .position
                    .unwrap_or(Position::START)
                    .min(end);
                log.store(run.sequence, shard, position, model.checkpoint.stored);
            }
        }
        let counted = log.parts.progress.snapshot().waiting();
        assert_eq!(counted, waiting, "what waits is counted wrongly");
        self.runs
            .retain(|id, _| runs.iter().any(|run| run.id == *id));
        let empty = || ModelShard {
            entries: Vec::new(),
            checkpoint: Checkpoint::default(),
        };
        let model = (0..log.shards).map(|_| empty()).collect();
        self.runs.insert(current, model);
        Ok(())
    }

    /// Reads during a group's sync: a reader must not see the group yet.
    fn watch_syncs(&mut self, log: &Stepped) {
        let source = log.source();
        let seen = Arc::clone(&self.seen);
        let random = Mutex::new(Random(self.random.next()));
        let shards = log.shards;
        *seen.lock().unwrap() = vec![0; usize::from(shards)];
        self.disk.on_sync(Some(Arc::new(move || {
            if random.lock().unwrap().percent(90) {
                return;
            }
            let runs = source.runs();
            let Some(run) = runs.last().filter(|r| r.end.is_none()) else {
                return;
            };
            for shard in 0..shards {
                let of_run = read_shard(&source, run, shard, run.first_position());
                if let Some(last) = of_run.ok().and_then(|(mut frames, _)| frames.pop()) {
                    let count = last.before as usize + last.serials.len();
                    let mut seen = seen.lock().unwrap();
                    seen[usize::from(shard)] = seen[usize::from(shard)].max(count);
                }
            }
        })));
    }
}

/// Compares one shard of an ended run, whose content must not change any more.
///
/// Shape:  how many of its readings still wait to be stored
fn compare_shard(model: &mut ModelShard, frames: &[ReadFrame], appended: usize) -> u64 {
    let mut at = frames.first().map_or(appended, |f| f.before as usize);
    let stored = model.checkpoint.readings();
    assert!(
        at <= stored,
        "readings were retired before they were stored"
    );
    for frame in frames {
        assert_eq!(
            frame.before as usize, at,
            "readings are missing in the middle"
        );
        for serial in &frame.serials {
            let entry = model.entries.get(at);
            assert_eq!(
                entry.map(|e| e.serial),
                Some(*serial),
                "not what was handed in"
            );
            at += 1;
        }
    }
    assert_eq!(at, appended, "the end counts other readings than there are");
    let must_keep = model.entries.iter().rposition(|e| e.must_keep);
    assert!(
        must_keep.is_none_or(|last| last < at),
        "{} readings that must be kept are lost",
        must_keep.unwrap_or(0) + 1 - at
    );
    model.entries.truncate(at);
    model.entries.iter_mut().for_each(|e| e.must_keep = true);
    (at - stored) as u64
}

impl Stepped {
    fn run_id(&self) -> Uuid {
        self.source().runs().last().unwrap().id
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no command line of its own"
)]
fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn acknowledged_requests_survive_kills_and_power_cuts() {
    let cuts = number_from_environment("WATTGATE_POWER_CUTS");
    let random_seed = || getrandom::u32().map_or(1, u64::from);
    let seed = number_from_environment("WATTGATE_SEED");
    let seed = seed.unwrap_or_else(|| cuts.map_or(1, |_| random_seed()));
    let cuts = cuts.unwrap_or(60);
    let (mut done, mut full, mut retired, mut rotated, mut readings) = (0, 0, 0, 0, 0);
    for seed in seed.. {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.run();
        done += world.disk.power_cuts();
        full += world.full;
        retired += world.retired;
        rotated += world.rotated;
        readings += world.next_serial;
        if done >= cuts {
            break;
        }
    }
    println!(
        "{done} power cuts, {readings} readings; {full} times full, {retired} times retired, \
         {rotated} times in a second segment"
    );
    assert!(cuts < 60 || (full > 0 && retired > 0 && rotated > 3 && readings > 1000));
}
