//! The file that keeps the lineage of servers across restarts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::lineage::Lineage;

/// The file in the log's directory, beside the id of the database.
const FILE_NAME: &str = "server";
/// The file that is renamed to it. It keeps room for the next move, which may come on a full disk.
const RESERVED: &str = "server.new";
/// The size of both files: every lineage fits.
const FILE_BYTES: usize = 4096;

/// Where a lineage is kept.
#[derive(Debug)]
pub(super) struct LineageFile {
    directory: PathBuf,
}

impl LineageFile {
    pub(super) fn new(directory: &Path) -> Self {
        LineageFile {
            directory: directory.to_owned(),
        }
    }

    /// Reads the lineage; an empty one if there is no file.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` if the file is damaged.
    pub(super) fn read(&self) -> io::Result<Lineage> {
        match fs::read_to_string(self.directory.join(FILE_NAME)) {
            Ok(text) => text.parse().map_err(|()| {
                let what = format!(
                    "the file {FILE_NAME} in the log's directory is damaged; remove it, and make \
                     sure that no old primary is running"
                );
                io::Error::new(io::ErrorKind::InvalidData, what)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lineage::default()),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a file. An operator clears it by its content; a missing file means nothing.
    pub(super) fn exists(&self) -> bool {
        self.directory.join(FILE_NAME).exists()
    }

    /// Replaces the lineage.
    ///
    /// Blocks: until it is durable
    ///
    /// # Errors
    /// I/O errors. The lineage is then unchanged, unless only the last fsync failed: then the new one is in place, but
    /// a power cut may undo it.
    pub(super) fn write(&self, lineage: &Lineage) -> io::Result<()> {
        self.fill(lineage)?;
        fs::rename(
            self.directory.join(RESERVED),
            self.directory.join(FILE_NAME),
        )?;
        File::open(&self.directory)?.sync_all()
    }

    /// Reserves room for the next move.
    ///
    /// # Errors
    /// I/O errors, including a full disk.
    pub(super) fn reserve(&self) -> io::Result<()> {
        let reserved = fs::metadata(self.directory.join(RESERVED));
        if reserved.is_ok_and(|found| found.len() == FILE_BYTES as u64) {
            return Ok(());
        }
        self.fill(&Lineage::default())?;
        File::open(&self.directory)?.sync_all()
    }

    fn fill(&self, lineage: &Lineage) -> io::Result<()> {
        let mut content = lineage.to_string().into_bytes();
        content.resize(FILE_BYTES, b'\n');
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.directory.join(RESERVED))?;
        file.write_all(&content)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::lineage::Server;
    use super::*;

    #[test]
    fn a_move_is_kept_in_reserved_room() {
        let directory = tempfile::tempdir().unwrap();
        let file = LineageFile::new(directory.path());
        assert_eq!(file.read().unwrap(), Lineage::default());
        file.reserve().unwrap();
        let at = |name| fs::metadata(directory.path().join(name)).unwrap();
        let reserved = at(RESERVED);
        let mut lineage = Lineage::default();
        for system in (0..200).map(|n| i64::MIN + n) {
            let timeline = u32::MAX;
            lineage = lineage.moved_to(Server { system, timeline });
        }
        file.write(&lineage).unwrap();
        let written = at(FILE_NAME);
        assert_eq!(
            (written.ino(), written.len()),
            (reserved.ino(), reserved.len())
        );
        assert_eq!(file.read().unwrap(), lineage);
        file.reserve().unwrap();
        assert_eq!(file.read().unwrap(), lineage);
        fs::write(directory.path().join(FILE_NAME), "rubbish").unwrap();
        assert!(file.read().is_err());
    }
}
