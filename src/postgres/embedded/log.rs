//! The server's log: a file that it appends to, and that the gateway rotates.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The size at which the log is rotated. With the previous log, about twice this stays on disk. A quiet
/// server writes a few KiB per day.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How much of the end is searched for the error of a failed start.
const TAIL_BYTES: u64 = 16 << 10;

/// The file of the server's standard error.
///
/// Why not a pipe: the server never waits for the gateway to read a file, and a file keeps what the server
/// writes after the gateway was killed.
#[derive(Debug, Clone)]
pub(super) struct ServerLog {
    path: PathBuf,
}

impl ServerLog {
    pub(super) fn new(home: &Path) -> Self {
        Self {
            path: home.join("server.log"),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the log for a server that appends to it.
    pub(super) fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)
    }

    /// The length of the log now, so that later lines can be found.
    pub(super) fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |meta| meta.size())
    }

    /// Rotates the log if it is too large.
    ///
    /// The server keeps the file open, so the log is copied and truncated, not renamed. The server appends
    /// and continues at the new end. Lines that it writes between the two steps are lost.
    pub(super) fn rotate(&self) -> io::Result<()> {
        self.rotate_at(LOG_BYTES_MAX)
    }

    fn rotate_at(&self, bytes_max: u64) -> io::Result<()> {
        if self.bytes() <= bytes_max {
            return Ok(());
        }
        let mut end = File::open(&self.path)?;
        let skip = end.metadata()?.size().saturating_sub(bytes_max);
        end.seek(SeekFrom::Start(skip))?;
        let mut old = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(self.path.with_extension("log.1"))?;
        io::copy(&mut end.take(bytes_max), &mut old)?;
        OpenOptions::new().write(true).open(&self.path)?.set_len(0)
    }

    /// Returns the line after the first `from` bytes that best explains why the server ended.
    pub(super) fn last_words(&self, from: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let end = file.metadata()?.size();
            file.seek(SeekFrom::Start(
                from.min(end).max(end.saturating_sub(TAIL_BYTES)),
            ))?;
            let mut text = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        telling_line(&read().unwrap_or_default())
            .unwrap_or_else(|| format!("it logged nothing in {}", self.path.display()))
    }
}

fn telling_line(text: &str) -> Option<String> {
    let last = |marks: &[&str]| {
        text.lines()
            .rfind(|line| marks.iter().any(|mark| line.contains(mark)))
    };
    last(&["PANIC:", "FATAL:"])
        .or_else(|| last(&["ERROR:", "terminated by signal", "error:"]))
        .or_else(|| text.lines().rfind(|line| !line.trim().is_empty()))
        .map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_log_is_kept_to_its_size_and_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let log = ServerLog::new(dir.path());
        let mut server = log.open().unwrap();
        server.write_all(&[b'a'; 70]).unwrap();
        server.write_all(&[b'b'; 50]).unwrap();
        log.rotate_at(100).unwrap();
        server.write_all(b"next\n").unwrap();
        assert_eq!(fs::read(log.path()).unwrap(), b"next\n");
        let old = fs::read(dir.path().join("server.log.1")).unwrap();
        assert_eq!(old.len(), 100);
        assert!(old.ends_with(&[b'b'; 50]));
        log.rotate_at(100).unwrap();
        assert_eq!(fs::read(log.path()).unwrap(), b"next\n");
    }

    #[test]
    fn the_log_line_with_the_reason_is_found() {
        let text =
            "LOG:  starting\nFATAL:  could not map memory\nLOG:  database system is shut down\n";
        assert_eq!(telling_line(text).unwrap(), "FATAL:  could not map memory");
        assert_eq!(telling_line("something\n\n").unwrap(), "something");
        assert_eq!(telling_line(""), None);
    }
}
