//! The keys in memory, renewed when their file changes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hashbrown::HashMap;

use super::bucket::Bucket;
use super::certificate::Fingerprint;
use super::file::{KeyFile, KeyFileError, Stamp};
use super::key::{Hash, KeyId, Record};
use crate::ingest::admission::Share;
use crate::reading::Timestamp;

/// A usable key, and how much of its rate is left.
#[derive(Debug)]
pub struct Key {
    /// Its stored record.
    pub record: Record,
    /// Its rate. `None` means no limit.
    pub bucket: Option<Arc<Bucket>>,
    /// The memory for readings that its requests use.
    pub share: Arc<Share>,
}

/// The keys, by id and by certificate.
#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<KeyId, Arc<Key>>,
    by_certificate: HashMap<Fingerprint, Arc<Key>>,
}

/// The key of a verified certificate.
#[derive(Debug)]
pub enum Certified {
    /// No key names it.
    Unmapped,
    /// The key that names it was revoked or has expired.
    Refused,
    /// A usable key.
    As(Arc<Key>),
}

/// Every key of a data directory, as the file was last read.
///
/// A look-up holds a lock only while it copies a pointer.
#[derive(Debug)]
pub struct Keyring {
    file: KeyFile,
    /// Locked while the file is read, so that an older state never replaces a newer one.
    seen: Mutex<Option<Stamp>>,
    table: RwLock<Arc<Table>>,
}

impl Keyring {
    /// Reads the keys of a data directory. There may be none yet.
    ///
    /// # Errors
    /// [`KeyFileError`]: the file exists and cannot be read.
    pub fn open(data_dir: &Path) -> Result<Self, KeyFileError> {
        let file = KeyFile::of(data_dir);
        let seen = file.stamp()?;
        let table = RwLock::new(Arc::new(table(file.read()?, &Table::default())));
        Ok(Keyring {
            file,
            seen: Mutex::new(seen),
            table,
        })
    }

    /// Reads the file again if it has changed, and returns whether it had.
    ///
    /// A deleted file means that there are no keys. If it cannot be read, the known keys stay, because a
    /// mistake in the file must not stop every device.
    ///
    /// Blocks: for a few calls of the file system
    ///
    /// # Errors
    /// [`KeyFileError`]: the keys are unchanged; try again later.
    pub fn refresh(&self) -> Result<bool, KeyFileError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // The stamp is taken before the file is read, so that the next call sees a change in between.
        let stamp = self.file.stamp()?;
        if stamp == *seen {
            return Ok(false);
        }
        let records = self.file.read()?;
        let next = Arc::new(table(records, &self.table()));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = next;
        *seen = stamp;
        Ok(true)
    }

    /// Finds the key of a text, if it is usable now.
    ///
    /// The id in the text, which is not secret, finds the record. The hash of the whole text is then compared
    /// in constant time.
    ///
    /// Blocks: never; a SHA-256 of 76 bytes, well under a microsecond
    pub fn find(&self, text: &[u8], now: Timestamp) -> Option<Arc<Key>> {
        let id = KeyId::of(text)?;
        let key = Arc::clone(self.table().by_id.get(&id)?);
        let same = key.record.sha256.is(&Hash::of(text));
        (same && key.record.is_usable(now)).then_some(key)
    }

    /// Finds the key of a certificate that the TLS handshake has verified.
    ///
    /// Blocks: never
    pub fn certified(&self, certificate: Fingerprint, now: Timestamp) -> Certified {
        match self.table().by_certificate.get(&certificate) {
            None => Certified::Unmapped,
            Some(key) if key.record.is_usable(now) => Certified::As(Arc::clone(key)),
            Some(_) => Certified::Refused,
        }
    }

    /// Whether a key that was found before is still usable: it may have been removed or revoked, or have
    /// expired.
    ///
    /// Blocks: never
    pub fn is_usable(&self, id: KeyId, now: Timestamp) -> bool {
        let table = self.table();
        let known = table.by_id.get(&id);
        known.is_some_and(|key| key.record.is_usable(now))
    }

    /// How many keys are usable now.
    pub fn usable(&self, now: Timestamp) -> usize {
        let table = self.table();
        table
            .by_id
            .values()
            .filter(|key| key.record.is_usable(now))
            .count()
    }

    /// The path of the keys' file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes the table of records. A key whose rate has not changed keeps its debt.
fn table(records: Vec<Record>, before: &Table) -> Table {
    let mut next = Table::default();
    for record in records {
        let known = before.by_id.get(&record.id);
        let bucket = match known.filter(|known| known.record.rate == record.rate) {
            Some(known) => known.bucket.clone(),
            None => record.rate.map(|rate| Arc::new(Bucket::new(rate))),
        };
        let share = known.map(|known| Arc::clone(&known.share));
        let key = Arc::new(Key {
            record,
            bucket,
            share: share.unwrap_or_default(),
        });
        if let Some(certificate) = key.record.certificate {
            // A revoked key must not hide a newer key of the same certificate.
            let shown = next.by_certificate.get(&certificate);
            if key.record.revoked_at.is_none() || shown.is_none() {
                next.by_certificate.insert(certificate, Arc::clone(&key));
            }
        }
        next.by_id.insert(key.record.id, key);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::key::{Rights, Secret};

    fn add(file: &KeyFile, rate: Option<u32>, expires_at: Option<Timestamp>) -> Secret {
        let secret = Secret::generate().unwrap();
        let record = Record {
            id: secret.id(),
            name: secret.id().to_string(),
            sha256: secret.hash(),
            rights: Rights::READ,
            prefix: None,
            rate,
            certificate: None,
            created_at: Some(Timestamp::now()),
            expires_at,
            revoked_at: None,
        };
        file.change(|keys| {
            keys.push(record);
            Ok(())
        })
        .unwrap();
        secret
    }

    #[test]
    fn a_key_works_until_it_is_revoked_or_expires() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let ring = Keyring::open(dir.path()).unwrap();
        let file = KeyFile::of(dir.path());
        let text = |secret: &Secret| secret.reveal().as_bytes().to_vec();
        let key = text(&add(&file, None, None));
        assert!(ring.find(&key, now).is_none(), "not read yet");
        assert!(ring.refresh().unwrap());
        assert!(!ring.refresh().unwrap());
        assert!(ring.find(&key, now).is_some());
        let other = text(&Secret::generate().unwrap());
        assert!(ring.find(&other, now).is_none());
        // The id of one key with the secret of another.
        let mixed = [&key[..12], &other[12..]].concat();
        assert!(ring.find(&mixed, now).is_none());

        let short = text(&add(&file, None, Some(now.plus_micros(10))));
        ring.refresh().unwrap();
        assert!(ring.find(&short, now.plus_micros(9)).is_some());
        assert!(ring.find(&short, now.plus_micros(10)).is_none());
        assert_eq!(ring.usable(now), 2);

        file.change(|keys| {
            keys[0].revoked_at = Some(now);
            Ok(())
        })
        .unwrap();
        ring.refresh().unwrap();
        assert!(ring.find(&key, now).is_none());
        std::fs::remove_file(ring.path()).unwrap();
        ring.refresh().unwrap();
        assert_eq!(ring.usable(now), 0);
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_the_keys_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(dir.path());
        let key = add(&file, None, None);
        let ring = Keyring::open(dir.path()).unwrap();
        let good = std::fs::read(ring.path()).unwrap();
        std::fs::write(ring.path(), "{").unwrap();
        assert!(ring.refresh().is_err());
        assert!(ring.refresh().is_err(), "it is tried again");
        let now = Timestamp::now();
        assert!(ring.find(key.reveal().as_bytes(), now).is_some());
        std::fs::write(ring.path(), good).unwrap();
        assert!(ring.refresh().unwrap());
    }

    #[test]
    fn changing_other_keys_does_not_refill_a_rate() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(dir.path());
        let key = add(&file, Some(10), None);
        let ring = Keyring::open(dir.path()).unwrap();
        let now = Timestamp::now();
        let debt = || {
            let key = ring.find(key.reveal().as_bytes(), now).unwrap();
            key.bucket.as_ref().unwrap().debt(std::time::Instant::now())
        };
        let found = ring.find(key.reveal().as_bytes(), now).unwrap();
        let bucket = found.bucket.as_ref().unwrap();
        bucket.charge(std::time::Instant::now(), 1000).unwrap();
        add(&file, None, None);
        assert!(ring.refresh().unwrap());
        assert!(debt().is_some());
    }
}
