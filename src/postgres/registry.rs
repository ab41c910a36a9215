//! The short ids that history holds for the texts that devices send.
//!
//! A session caches its own ids, because after a failover the same text may have another id. An unknown text is
//! looked up first, and inserted only if it is missing. Missing texts are sorted bytewise, and committed
//! in a statement of their own before their ids are used.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio_postgres::{Client, Error};

use super::sequences;

/// The most texts in one statement.
const TEXTS_PER_STATEMENT: usize = 10_000;
/// What a cached text costs in addition to its bytes: its box, its slot, its id.
const ENTRY_BYTES: usize = 40;

/// A table of texts and their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Registry {
    /// `meters`
    Meters,
    /// `vehicles`
    Vehicles,
    /// `session_names`
    Sessions,
}

impl Registry {
    /// All registries, in the order of [`Registry::index`].
    pub const ALL: [Registry; 3] = [Registry::Meters, Registry::Vehicles, Registry::Sessions];

    /// The index in an array of three.
    pub const fn index(self) -> usize {
        match self {
            Registry::Meters => 0,
            Registry::Vehicles => 1,
            Registry::Sessions => 2,
        }
    }

    /// The table's name.
    pub const fn table(self) -> &'static str {
        match self {
            Registry::Meters => "meters",
            Registry::Vehicles => "vehicles",
            Registry::Sessions => "session_names",
        }
    }
}

/// Chooses which entries a full cache forgets: each time another eighth, however much they are used.
///
/// Why not the least recently used: a fleet that reports in a fixed order and does not fit would never find an entry.
/// Why not all of them: a fleet that nearly fits would not find them either.
#[derive(Debug, Default)]
pub struct Thinner {
    rounds: u64,
}

/// One eighth to forget.
#[derive(Debug, Clone, Copy)]
pub struct Thinning(u64);

impl Thinner {
    /// The next eighth.
    pub fn next_round(&mut self) -> Thinning {
        self.rounds += 1;
        Thinning(self.rounds)
    }
}

impl Thinning {
    /// Whether the entry of an id stays.
    pub fn keeps(self, id: i32) -> bool {
        // The finalizer of SplitMix64 makes neighbouring ids and rounds independent.
        let mut mixed = (self.0 << 32) | u64::from(id.cast_unsigned());
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 7 != 0
    }
}

/// The ids that one database session knows, bounded in bytes.
#[derive(Debug)]
pub struct IdCache {
    maps: [HashMap<Box<str>, i32, RandomState>; 3],
    bytes: usize,
    bytes_max: usize,
    thinner: Thinner,
}

impl IdCache {
    /// Makes an empty cache of about `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        IdCache {
            maps: Default::default(),
            bytes: 0,
            bytes_max,
            thinner: Thinner::default(),
        }
    }

    /// The id of a text, if it is cached.
    pub fn get(&self, registry: Registry, text: &str) -> Option<i32> {
        self.maps[registry.index()].get(text).copied()
    }

    /// Caches an id. A full cache forgets an eighth of its ids first, so that a flood of new ids costs time
    /// instead of memory.
    fn insert(&mut self, registry: Registry, text: &str, id: i32) {
        if self.bytes >= self.bytes_max {
            self.thin();
        }
        if self.maps[registry.index()]
            .insert(text.into(), id)
            .is_none()
        {
            self.bytes += text.len() + ENTRY_BYTES;
        }
    }

    /// Forgets an eighth of the ids, or all of them if the cache is still full.
    fn thin(&mut self) {
        let thinning = self.thinner.next_round();
        let mut kept_bytes = 0;
        for map in &mut self.maps {
            map.retain(|text, id| {
                let keeps = thinning.keeps(*id);
                kept_bytes += if keeps { text.len() + ENTRY_BYTES } else { 0 };
                keeps
            });
        }
        self.bytes = kept_bytes;
        if self.bytes >= self.bytes_max {
            self.maps = Default::default();
            self.bytes = 0;
        }
    }
}

/// Why texts have no ids.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// PostgreSQL's own errors.
    #[error(transparent)]
    Database(#[from] Error),
    /// A committed id cannot be read back, because a rule or policy of the operator hides it.
    #[error("a registered id cannot be read back from {0}")]
    Hidden(&'static str),
}

/// Returns the ids of texts, registers new texts, and caches the ids.
///
/// Shape:  one id per text, in the order of `texts`; `texts` must have no repeats
/// Blocks: until the registration is committed
///
/// # Errors
/// [`ResolveError`]; only committed ids are cached.
pub async fn resolve(
    client: &Client,
    cache: &mut IdCache,
    registry: Registry,
    texts: &[String],
) -> Result<Vec<i32>, ResolveError> {
    let table = registry.table();
    let select = format!("select external_id, id from {table} where external_id = any($1)");
    let insert = format!(
        "insert into {table} (external_id) select unnest($1::text[]) on conflict do nothing"
    );
    let mut ids: HashMap<String, i32, RandomState> = HashMap::default();
    for part in texts.chunks(TEXTS_PER_STATEMENT) {
        let mut missing = look_up(client, &select, part.to_vec(), &mut ids).await?;
        if missing.is_empty() {
            continue;
        }
        missing.sort_unstable();
        client.execute(&insert, &[&missing]).await?;
        let mut still = look_up(client, &select, missing, &mut ids).await?;
        if !still.is_empty() {
            // The ids from the sequence may already be taken.
            sequences::repair(client).await?;
            client.execute(&insert, &[&still]).await?;
            still = look_up(client, &select, still, &mut ids).await?;
        }
        if !still.is_empty() {
            return Err(ResolveError::Hidden(table));
        }
    }
    for (text, id) in &ids {
        cache.insert(registry, text, *id);
    }
    texts
        .iter()
        .map(|text| ids.get(text).copied().ok_or(ResolveError::Hidden(table)))
        .collect()
}

/// Looks texts up and returns the missing ones.
async fn look_up(
    client: &Client,
    select: &str,
    texts: Vec<String>,
    ids: &mut HashMap<String, i32, RandomState>,
) -> Result<Vec<String>, Error> {
    for row in client.query(select, &[&texts]).await? {
        ids.insert(row.get(0), row.get(1));
    }
    Ok(texts
        .into_iter()
        .filter(|text| !ids.contains_key(text))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_in_bytes() {
        let mut cache = IdCache::new(10_000);
        for n in 0..100_000 {
            cache.insert(Registry::Meters, &format!("device-{n}"), n);
            assert!(cache.bytes <= 10_000 + 64 + ENTRY_BYTES);
            assert_eq!(cache.get(Registry::Meters, &format!("device-{n}")), Some(n));
        }
        assert_eq!(cache.get(Registry::Vehicles, "device-99999"), None);
    }

    #[test]
    fn a_fleet_that_reports_in_turns_finds_most_of_its_ids() {
        // A fifth more devices than the cache holds.
        let text = |n: i32| format!("device-{n:06}");
        let mut cache = IdCache::new(10_000 * (13 + ENTRY_BYTES));
        let mut found = 0;
        for round in 0..5 {
            for n in 0..12_000 {
                match cache.get(Registry::Meters, &text(n)) {
                    Some(id) if round > 0 => {
                        assert_eq!(id, n);
                        found += 1;
                    }
                    Some(_) => {}
                    None => cache.insert(Registry::Meters, &text(n), n),
                }
            }
        }
        // A cache that is emptied when full, or forgets the least recently used, would find none.
        assert!(found > 4 * 12_000 / 2, "{found}");
    }
}
