//! Which database a log may be stored in.
//!
//! A log is bound to the first database that it is stored in, by that database's random id. With a wrong
//! `DATABASE_URL`, the log must not drain into another database.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use super::session::SessionError;

/// The name of the file that holds the id, in the log's directory.
pub const FILE_NAME: &str = "database";

/// A file of the right size, created in advance. The first binding overwrites it and renames it to [`FILE_NAME`].
const RESERVED: &str = "database.new";

/// The binding of one log.
#[derive(Debug)]
pub struct Binding {
    directory: PathBuf,
    bound: Mutex<Option<Uuid>>,
}

impl Binding {
    /// Reads the binding of the log in a directory.
    ///
    /// # Errors
    /// The system's own errors; `InvalidData` if the file holds no id.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let bound = read(directory)?;
        Ok(Binding {
            directory: directory.to_owned(),
            bound: Mutex::new(bound),
        })
    }

    /// The database that the log is bound to; `None` before it has stored anything.
    pub fn bound(&self) -> Option<Uuid> {
        *self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds the log to another database at an operator's request. A running gateway picks it up when its writers
    /// retry.
    ///
    /// Blocks: until the binding is durable
    ///
    /// # Errors
    /// I/O errors. The old binding stays in place, unless only the last fsync failed: then the new one is in
    /// place, but a power cut may undo it. Adopt the database again.
    pub fn adopt(&self, id: Uuid) -> io::Result<()> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(id)?;
        *bound = Some(id);
        Ok(())
    }

    /// Checks that the log belongs to this database. A log without a binding is bound to it.
    ///
    /// Blocks: the first time, until the binding is durable
    ///
    /// # Errors
    /// [`SessionError::WrongDatabase`], [`SessionError::Binding`]: store nothing.
    pub fn check(&self, found: Uuid) -> Result<(), SessionError> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        match *bound {
            Some(bound) if bound == found => Ok(()),
            Some(before) => {
                // An operator may have adopted the database since it was read.
                let now = read(&self.directory).map_err(SessionError::Binding)?;
                *bound = now.or(Some(before));
                match now {
                    Some(now) if now == found => Ok(()),
                    now => Err(SessionError::WrongDatabase {
                        found,
                        bound: now.unwrap_or(before),
                    }),
                }
            }
            None => {
                self.write(found).map_err(SessionError::Binding)?;
                *bound = Some(found);
                Ok(())
            }
        }
    }

    /// Reserves disk space for a log's first binding. On a full disk the log can then still be bound. This matters
    /// because only storing its readings frees space.
    ///
    /// Blocks: until it is durable
    ///
    /// # Errors
    /// I/O errors, including a full disk.
    pub fn reserve(&self) -> io::Result<()> {
        if self.bound().is_some() || self.directory.join(RESERVED).exists() {
            return Ok(());
        }
        self.fill(Uuid::nil())?;
        File::open(&self.directory)?.sync_all()
    }

    fn write(&self, id: Uuid) -> io::Result<()> {
        self.fill(id)?;
        let reserved = self.directory.join(RESERVED);
        fs::rename(reserved, self.directory.join(FILE_NAME))?;
        File::open(&self.directory)?.sync_all()
    }

    /// Writes the id over the reserved file. It fits, because every id has the same length.
    fn fill(&self, id: Uuid) -> io::Result<()> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.directory.join(RESERVED))?;
        writeln!(file, "{id}")?;
        file.sync_all()
    }
}

fn read(directory: &Path) -> io::Result<Option<Uuid>> {
    match fs::read_to_string(directory.join(FILE_NAME)) {
        Ok(text) => Uuid::parse_str(text.trim()).map(Some).map_err(|_| {
            let what = format!("the file {FILE_NAME} in the log's directory contains no id");
            io::Error::new(io::ErrorKind::InvalidData, what)
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_binding_needs_no_more_room() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let binding = Binding::load(directory.path()).unwrap();
        binding.reserve().unwrap();
        binding.reserve().unwrap();
        assert_eq!(binding.bound(), None);
        let at = |name| fs::metadata(directory.path().join(name)).unwrap();
        let reserved = at(RESERVED);
        assert_eq!(Binding::load(directory.path()).unwrap().bound(), None);
        let id = Uuid::from_u128(1);
        binding.check(id).unwrap();
        let bound = at(FILE_NAME);
        // The same inode: the reserved file was overwritten. The campaign `disk` relies on this on a full disk.
        assert_eq!((bound.ino(), bound.len()), (reserved.ino(), reserved.len()));
        let again = Binding::load(directory.path()).unwrap();
        assert_eq!(again.bound(), Some(id));
        again.reserve().unwrap();
        assert!(!directory.path().join(RESERVED).exists());
    }

    #[test]
    fn a_log_stores_into_the_first_database_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (first, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let binding = Binding::load(directory.path()).unwrap();
        binding.check(first).unwrap();
        assert!(matches!(
            binding.check(other),
            Err(SessionError::WrongDatabase { .. })
        ));
        let again = Binding::load(directory.path()).unwrap();
        again.check(first).unwrap();
        assert!(again.check(other).is_err());
        // An operator adopts the other database, and a running gateway picks it up.
        Binding::load(directory.path())
            .unwrap()
            .adopt(other)
            .unwrap();
        again.check(other).unwrap();
        assert!(again.check(first).is_err());
        fs::write(directory.path().join(FILE_NAME), "rubbish").unwrap();
        assert!(Binding::load(directory.path()).is_err());
    }
}
