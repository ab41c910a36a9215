//! The file layer of the log: real files, or a simulated disk that loses unsynced writes.
//!
//! The log reaches the disk only through [`Storage`] and [`SegmentFile`]. So a test can replace the disk with one
//! that loses or tears whatever was not synced.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOCK_NAME: &str = "lock";
/// Only the gateway's user may enter it, because readings reveal where vehicles charge.
const DIRECTORY_MODE: u32 = 0o700;
/// The files are private too, because a copy of the directory may not be.
const FILE_MODE: u32 = 0o600;

/// A directory that holds the files of one log.
pub trait Storage: Send + Sync + 'static {
    /// Lists the names of all files in the directory, in no particular order.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file for reading and writing. An existing file of that name is truncated.
    ///
    /// # Errors
    /// I/O errors, including a full disk.
    fn create(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>>;

    /// Renames a file and replaces any file of the new name; durable after [`Storage::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; durable after [`Storage::sync`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// Blocks: until the directory's fsync
    ///
    /// # Errors
    /// I/O errors. The caller must treat one as final.
    fn sync(&self) -> io::Result<()>;

    /// The free bytes available to an unprivileged process.
    ///
    /// Units:  bytes
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file of a log.
pub trait SegmentFile: Send + Sync + 'static {
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// I/O errors; some of the bytes may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads up to `bytes.len()` bytes at an offset; fewer only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Makes all writes to this file durable.
    ///
    /// Blocks: until fdatasync
    ///
    /// # Errors
    /// I/O errors. An error is final: what was written may be lost (invariant 11).
    fn sync_data(&self) -> io::Result<()>;

    /// Truncates the file to a length; durable after [`SegmentFile::sync_data`].
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// The file's length in bytes.
    fn size_bytes(&self) -> io::Result<u64>;
}

/// Whether an error means a full disk. It goes away once there is free space.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A real directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
    /// Held until the value is dropped, because two processes on one log would overwrite each other's data.
    _lock: File,
}

/// Why a log's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process holds it.
    #[error("{0} is in use by another gateway")]
    InUse(PathBuf),
    /// An I/O error.
    #[error("cannot use {path} for the write-ahead log: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
}

impl Directory {
    /// Creates the directory if needed, and locks it until the value is dropped.
    ///
    /// Blocks: never for the lock
    ///
    /// # Errors
    /// [`DirectoryError::InUse`] if another process holds the lock; otherwise [`DirectoryError::Io`].
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let io_error = |source| DirectoryError::Io {
            path: path.to_owned(),
            source,
        };
        create_private(path).map_err(io_error)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(path.join(LOCK_NAME))
            .map_err(io_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        let handle = File::open(path).map_err(io_error)?;
        // The directory's own name must survive a power cut too.
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent)
                .and_then(|p| p.sync_all())
                .map_err(io_error)?;
        }
        Ok(Directory {
            path: path.to_owned(),
            handle,
            _lock: lock,
        })
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Restricts a directory to its owner, and creates it if it is missing. Missing parents get the default mode,
/// because the embedded server's user must be able to pass through them.
fn create_private(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut private = DirBuilder::new();
    private.recursive(true).mode(DIRECTORY_MODE).create(path)?;
    // An existing directory may hold files that others could read, and segments are recycled.
    fs::set_permissions(path, fs::Permissions::from_mode(DIRECTORY_MODE))
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.path)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.handle)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// A read-only view of a log's directory.
#[derive(Debug)]
pub struct DirectoryView {
    path: PathBuf,
}

impl DirectoryView {
    /// Views a directory that exists.
    ///
    /// # Errors
    /// It is missing, or is not a directory.
    pub fn new(path: &Path) -> io::Result<Self> {
        fs::read_dir(path)?;
        Ok(DirectoryView {
            path: path.to_owned(),
        })
    }

    /// Lists the names of all files, in no particular order.
    pub fn list(&self) -> io::Result<Vec<String>> {
        list(&self.path)
    }

    /// Opens a file for reading.
    pub fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(RealFile(File::open(self.path.join(name))?)))
    }

    /// Keeps gateways from opening the log until the value is dropped, without writing to it.
    ///
    /// Blocks: never
    ///
    /// # Errors
    /// [`DirectoryError::InUse`] if a gateway holds the lock.
    pub fn hold(&self) -> Result<Option<File>, DirectoryError> {
        let io_error = |source| DirectoryError::Io {
            path: self.path.clone(),
            source,
        };
        let lock = match File::open(self.path.join(LOCK_NAME)) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(e)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(self.path.clone())),
            Err(TryLockError::Error(source)) => Err(io_error(source)),
        }
    }
}

fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

struct RealFile(File);

impl SegmentFile for RealFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            match FileExt::read_at(&self.0, &mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
