//! The keys of a data directory, in one file that is replaced as a whole.
//!
//! A reader sees the file before a change or after it, never half of it. A change is on disk when its
//! command ends. A lock serialises commands.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::key::Record;

/// The most keys of a gateway, revoked ones included.
pub const KEYS_MAX: usize = 10_000;
/// The largest file that is read: about 800 bytes per key, for [`KEYS_MAX`] keys.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// The format of the file.
const VERSION: u32 = 1;

/// Why keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system refused a call.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file does not have the format of this program.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong. The file holds no secret, so this repeats none.
        why: String,
    },
    /// The requested change is not possible.
    #[error("{0}")]
    Refused(String),
}

/// The file of a data directory that holds its keys.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

/// Distinguishes one state of the file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// The state of a file; `None` means that there is no file.
    pub fn of(path: &Path) -> io::Result<Option<Stamp>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(Stamp {
                inode: found.ino(),
                bytes: found.len(),
                changed: (found.ctime(), found.ctime_nsec()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    keys: Vec<Record>,
}

impl KeyFile {
    /// The file of a data directory; neither needs to exist.
    pub fn of(data_dir: &Path) -> Self {
        KeyFile {
            path: data_dir.join("keys.json"),
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state of the file; `None` means that there is no file.
    ///
    /// Blocks: for one call of the file system
    ///
    /// # Errors
    /// [`KeyFileError::Io`]: the system's own error.
    pub fn stamp(&self) -> Result<Option<Stamp>, KeyFileError> {
        Stamp::of(&self.path).map_err(|error| self.io(error))
    }

    /// Reads every key, revoked ones included. Without a file there are none.
    ///
    /// # Errors
    /// [`KeyFileError`]: use the keys read before, or none.
    pub fn read(&self) -> Result<Vec<Record>, KeyFileError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.io(error)),
        };
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut text)
            .map_err(|error| self.io(error))?;
        let document: Document = if text.len() as u64 > FILE_BYTES_MAX {
            return Err(self.malformed(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
        } else {
            serde_json::from_slice(&text).map_err(|error| self.malformed(error.to_string()))?
        };
        if document.version != VERSION {
            let why = format!(
                "its format has version {}, but this program reads version {VERSION}; use the \
                 program that wrote it",
                document.version
            );
            return Err(self.malformed(why));
        }
        if document.keys.len() > KEYS_MAX {
            return Err(self.malformed(format!("it holds more than {KEYS_MAX} keys")));
        }
        Ok(document.keys)
    }

    /// Changes the keys, and returns once the change is on disk.
    ///
    /// Blocks: until another change has ended, then for two fsyncs
    ///
    /// # Errors
    /// [`KeyFileError`]: nothing was changed. If the last fsync fails, a power cut may undo the change: list
    /// the keys, and change them again.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Record>) -> Result<T, KeyFileError>,
    ) -> Result<T, KeyFileError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| KeyFileError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(at(dir))?;
        let lock_path = self.path.with_extension("lock");
        let lock = private(OpenOptions::new().create(true), &lock_path).map_err(at(&lock_path))?;
        lock.lock().map_err(at(&lock_path))?;
        let mut keys = self.read()?;
        let changed = change(&mut keys)?;
        if keys.len() > KEYS_MAX {
            let why = format!(
                "there are already {KEYS_MAX} keys; remove revoked ones from {}",
                self.path.display()
            );
            return Err(KeyFileError::Refused(why));
        }
        let version = VERSION;
        let mut text = serde_json::to_vec_pretty(&Document { version, keys })
            .map_err(|error| self.malformed(error.to_string()))?;
        text.push(b'\n');
        let next = self.path.with_extension("json.next");
        replace(dir, &next, &self.path, &text).map_err(at(&self.path))?;
        drop(lock);
        Ok(changed)
    }

    fn io(&self, source: io::Error) -> KeyFileError {
        KeyFileError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn malformed(&self, why: String) -> KeyFileError {
        KeyFileError::Malformed {
            path: self.path.clone(),
            why,
        }
    }
}

/// Opens a file that only its owner may read.
fn private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.write(true).mode(0o600).open(path)
}

fn replace(dir: &Path, next: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = private(OpenOptions::new().create(true).truncate(true), next)?;
    file.write_all(text)?;
    // If root creates a key for another user's gateway, that user must be able to read the file. Users other than root
    // already own both, or cannot change owners.
    let owner = fs::metadata(dir)?;
    if file.metadata()?.uid() != owner.uid() {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid())).ok();
    }
    file.sync_all()?;
    fs::rename(next, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::key::{Rights, Secret};
    use std::os::unix::fs::PermissionsExt;

    fn record(name: &str) -> Record {
        let secret = Secret::generate().unwrap();
        Record {
            id: secret.id(),
            name: name.to_owned(),
            sha256: secret.hash(),
            rights: Rights::INGEST,
            prefix: None,
            rate: Some(5),
            certificate: None,
            created_at: Some(crate::reading::Timestamp::Y2000),
            expires_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn the_file_is_read_back_and_only_its_owner_can() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(&dir.path().join("data"));
        assert!(file.read().unwrap().is_empty());
        assert_eq!(file.stamp().unwrap(), None);
        for name in ["a", "b"] {
            let added = file.change(|keys| {
                keys.push(record(name));
                Ok(keys.len())
            });
            assert!(added.is_ok());
        }
        let keys = file.read().unwrap();
        assert_eq!((keys.len(), keys[1].name.as_str()), (2, "b"));
        assert_eq!(keys[1].rate, Some(5));
        assert_eq!(keys[0].created_at, Some(crate::reading::Timestamp::Y2000));
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_change_that_is_refused_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(dir.path());
        file.change(|keys| {
            keys.push(record("a"));
            Ok(())
        })
        .unwrap();
        let before = file.stamp().unwrap();
        let refused: Result<(), _> = file.change(|keys| {
            keys.clear();
            Err(KeyFileError::Refused("no".to_owned()))
        });
        assert!(refused.is_err());
        assert_eq!(file.stamp().unwrap(), before);
    }

    #[test]
    fn a_file_of_another_kind_is_reported_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(dir.path());
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":2,"keys":[]}"#,
            r#"{"version":1}"#,
        ] {
            fs::write(file.path(), text).unwrap();
            assert!(file.read().is_err(), "{text}");
            assert!(file.change(|_| Ok(())).is_err());
            assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
        }
    }
}
