//! A disk in memory that forgets what was not synced.
//!
//! It keeps two states of each file and of the directory: what processes see, and what is durable. At a power cut,
//! each unsynced sector is lost, kept or torn, independently of the others. So is each name that was created,
//! renamed or removed since the last sync, except that names are never torn. After a failed sync, the data stays
//! visible but does not become durable, as on Linux. A kill or a power cut can happen before or during any call.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Random;
use crate::wal::storage::{SegmentFile, Storage};

pub(super) const SECTOR: usize = 512;

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// The process is killed. The next one still reads what it wrote.
    Kill,
    /// The power is cut. Everything unsynced may be lost.
    PowerCut,
}

type FileId = u64;

#[derive(Debug, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that changed since the last sync.
    dirty: BTreeSet<usize>,
}

#[derive(Debug)]
enum Change {
    Create(String, FileId),
    Rename(String, String, FileId),
    Remove(String, FileId),
}

#[derive(Default)]
struct State {
    seen: BTreeMap<String, FileId>,
    durable: BTreeMap<String, FileId>,
    changes: Vec<Change>,
    contents: BTreeMap<FileId, Content>,
    next_id: FileId,
    /// The number of the process that may use the disk. Handles of earlier ones fail.
    life: u64,
    random: Option<Random>,
    /// After this many more calls, the process dies in this way.
    fate: Option<(u32, Death)>,
    /// This many syncs succeed, then one fails.
    failing_sync: Option<u32>,
    /// This many creations, renames and removals succeed, then one fails.
    failing_change: Option<u32>,
    capacity: Option<u64>,
    cuts: u64,
    syncs: u64,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

/// The disk; a clone is the same disk.
#[derive(Clone, Default)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
    /// Called after a write, when its sync has begun.
    on_sync: Arc<Mutex<Option<Hook>>>,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let disk = Disk::default();
        disk.lock().random = Some(Random(seed));
        disk
    }

    /// The disk as one process sees it, until that process dies.
    pub(super) fn mount(&self) -> Arc<dyn Storage> {
        Arc::new(Mount {
            disk: self.clone(),
            life: self.lock().life,
        })
    }

    /// Ends every process that uses the disk.
    pub(super) fn die(&self, how: Death) {
        self.lock().die(how);
    }

    /// Lets the process die during a call, after this many more calls.
    pub(super) fn set_fate(&self, fate: Option<(u32, Death)>) {
        self.lock().fate = fate;
    }

    /// Lets a sync fail, after this many that succeed.
    pub(super) fn fail_sync_after(&self, syncs: Option<u32>) {
        self.lock().failing_sync = syncs;
    }

    /// Lets a creation, rename or removal fail, after this many that succeed. Half of the failing ones take effect
    /// anyway.
    pub(super) fn fail_change_after(&self, changes: Option<u32>) {
        self.lock().failing_change = changes;
    }

    /// Limits the bytes of all files together.
    pub(super) fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    pub(super) fn on_sync(&self, hook: Option<Hook>) {
        *self.on_sync.lock().unwrap() = hook;
    }

    pub(super) fn life(&self) -> u64 {
        self.lock().life
    }

    pub(super) fn power_cuts(&self) -> u64 {
        self.lock().cuts
    }

    pub(super) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.lock().used()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.lock().seen.keys().cloned().collect()
    }

    /// A file's bytes, as the next process sees them.
    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.lock();
        state.contents[&state.seen[name]].seen.clone()
    }

    /// Replaces a file durably, to simulate damage or a file from elsewhere.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.lock();
        let id = state.new_id();
        let content = Content {
            seen: bytes.to_vec(),
            durable: bytes.to_vec(),
            dirty: BTreeSet::new(),
        };
        state.contents.insert(id, content);
        state.seen.insert(name.to_owned(), id);
        state.durable.insert(name.to_owned(), id);
    }

    pub(super) fn take(&self, name: &str) {
        let mut state = self.lock();
        state.seen.remove(name);
        state.durable.remove(name);
    }

    fn sync_begins(&self) {
        let hook = self.on_sync.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Counts down to a fault. Returns whether it is due now.
fn is_due(fault: &mut Option<u32>) -> bool {
    let left = fault.take();
    *fault = left.and_then(|left| left.checked_sub(1));
    left == Some(0)
}

fn dead() -> io::Error {
    io::Error::other("the process was killed")
}

impl State {
    fn new_id(&mut self) -> FileId {
        self.next_id += 1;
        self.next_id
    }

    fn random(&mut self) -> &mut Random {
        self.random.get_or_insert(Random(0))
    }

    fn used(&self) -> u64 {
        let sizes = self.seen.values().map(|id| self.contents[id].seen.len());
        sizes.sum::<usize>() as u64
    }

    /// The start of every call. Returns whether the process dies during it.
    fn begin(&mut self, life: u64) -> io::Result<Option<Death>> {
        if life != self.life {
            return Err(dead());
        }
        match &mut self.fate {
            Some((0, death)) => {
                let death = *death;
                self.fate = None;
                Ok(Some(death))
            }
            Some((calls, _)) => {
                *calls -= 1;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// The start of an atomic call: if the process dies in it, the call has no effect.
    fn survive(&mut self, life: u64) -> io::Result<()> {
        match self.begin(life)? {
            Some(how) => {
                self.die(how);
                Err(dead())
            }
            None => Ok(()),
        }
    }

    fn die(&mut self, how: Death) {
        self.life += 1;
        self.fate = None;
        self.failing_sync = None;
        self.failing_change = None;
        if how == Death::Kill {
            return;
        }
        self.cuts += 1;
        let mut random = self.random().clone();
        // Cuts that lose everything or nothing are as likely as those in between.
        let loss = [0, 10, 50, 90, 100][random.below(5) as usize];
        for content in self.contents.values_mut() {
            content.cut(&mut random, loss);
        }
        for change in std::mem::take(&mut self.changes) {
            if !random.percent(loss) {
                change.apply(&mut self.durable);
            }
        }
        self.random = Some(random);
        self.seen = self.durable.clone();
        let kept: BTreeSet<FileId> = self.seen.values().copied().collect();
        self.contents.retain(|id, _| kept.contains(id));
    }

    fn change(&mut self, life: u64, change: Change) -> io::Result<()> {
        let death = self.begin(life)?;
        let fails = death.is_none() && is_due(&mut self.failing_change);
        let happens = death.is_none() && !fails || self.random().percent(50);
        if happens {
            change.apply(&mut self.seen);
            self.changes.push(change);
        }
        match death {
            Some(how) => {
                self.die(how);
                Err(dead())
            }
            None if fails => Err(io::Error::other("the disk does not change a name")),
            None => Ok(()),
        }
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], at: usize) {
        if self.seen.len() < at + bytes.len() {
            self.seen.resize(at + bytes.len(), 0);
        }
        self.seen[at..at + bytes.len()].copy_from_slice(bytes);
        self.dirty
            .extend(at / SECTOR..(at + bytes.len()).div_ceil(SECTOR));
    }

    /// Makes only dirty sectors durable. What an earlier sync failed to write counts as clean, so no later sync
    /// writes it.
    fn sync(&mut self) {
        self.durable.resize(self.seen.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(self.seen.len());
            self.durable[start..end].copy_from_slice(&self.seen[start..end]);
        }
    }

    fn cut(&mut self, random: &mut Random, loss: u64) {
        if self.seen.len() < self.durable.len() && !random.percent(loss) {
            self.durable.truncate(self.seen.len());
        }
        for sector in std::mem::take(&mut self.dirty) {
            if random.percent(loss) {
                continue;
            }
            let start = sector * SECTOR;
            let mut end = (start + SECTOR).min(self.seen.len());
            if random.percent(10) {
                end = start + random.below(SECTOR as u64) as usize;
            }
            let end = end.min(self.seen.len());
            if start < end {
                if self.durable.len() < end {
                    self.durable.resize(end, 0);
                }
                self.durable[start..end].copy_from_slice(&self.seen[start..end]);
            }
        }
        self.seen.clone_from(&self.durable);
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Change::Create(name, id) => {
                names.insert(name.clone(), *id);
            }
            Change::Rename(from, to, id) => {
                if names.get(from) == Some(id) {
                    names.remove(from);
                }
                names.insert(to.clone(), *id);
            }
            Change::Remove(name, id) => {
                if names.get(name) == Some(id) {
                    names.remove(name);
                }
            }
        }
    }
}

struct Mount {
    disk: Disk,
    life: u64,
}

impl Mount {
    fn id(&self, name: &str) -> io::Result<FileId> {
        let state = self.disk.lock();
        let id = state.seen.get(name).copied();
        id.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn file(&self, id: FileId) -> Arc<dyn SegmentFile> {
        Arc::new(Open {
            disk: self.disk.clone(),
            life: self.life,
            id,
        })
    }
}

impl Storage for Mount {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.disk.lock();
        state.survive(self.life)?;
        Ok(state.seen.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let id = {
            let mut state = self.disk.lock();
            let id = state.new_id();
            state.contents.insert(id, Content::default());
            state.change(self.life, Change::Create(name.to_owned(), id))?;
            id
        };
        Ok(self.file(id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(self.file(self.id(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let id = self.id(from)?;
        let change = Change::Rename(from.to_owned(), to.to_owned(), id);
        self.disk.lock().change(self.life, change)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let id = self.id(name)?;
        let change = Change::Remove(name.to_owned(), id);
        self.disk.lock().change(self.life, change)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync_begins();
        let mut state = self.disk.lock();
        state.survive(self.life)?;
        if is_due(&mut state.failing_sync) {
            return Err(io::Error::other("the disk does not sync its directory"));
        }
        for change in std::mem::take(&mut state.changes) {
            change.apply(&mut state.durable);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        let used = state.used();
        Ok(state
            .capacity
            .map_or(u64::MAX, |most| most.saturating_sub(used)))
    }
}

struct Open {
    disk: Disk,
    life: u64,
    id: FileId,
}

impl SegmentFile for Open {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let death = state.begin(self.life)?;
        let at = offset as usize;
        let used = state.used();
        let len = state.contents.get(&self.id).map_or(0, |c| c.seen.len());
        let grows = (at + bytes.len()).saturating_sub(len) as u64;
        if grows > 0 && state.capacity.is_some_and(|most| used + grows > most) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let mut part = bytes.len();
        if death == Some(Death::Kill) {
            part = state.random().below(bytes.len() as u64) as usize;
        }
        let content = state.contents.get_mut(&self.id).ok_or_else(dead)?;
        content.write(&bytes[..part], at);
        match death {
            Some(how) => {
                state.die(how);
                Err(dead())
            }
            None => Ok(()),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        state.survive(self.life)?;
        let content = state.contents.get(&self.id).ok_or_else(dead)?;
        let rest = content.seen.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync_begins();
        let mut state = self.disk.lock();
        state.survive(self.life)?;
        state.syncs += 1;
        let fails = is_due(&mut state.failing_sync);
        let content = state.contents.get_mut(&self.id).ok_or_else(dead)?;
        if fails {
            // The pages count as clean now. Processes see them until the power is cut, but nothing writes them.
            content.dirty.clear();
            return Err(io::Error::other("the disk does not sync"));
        }
        content.sync();
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.survive(self.life)?;
        let content = state.contents.get_mut(&self.id).ok_or_else(dead)?;
        content.seen.truncate(bytes as usize);
        let most = content.seen.len().div_ceil(SECTOR);
        content.dirty.retain(|sector| *sector < most);
        Ok(())
    }

    fn size_bytes(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        if state.life != self.life {
            return Err(dead());
        }
        let content = state.contents.get(&self.id).ok_or_else(dead)?;
        Ok(content.seen.len() as u64)
    }
}
