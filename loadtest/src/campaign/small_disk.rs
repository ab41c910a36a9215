//! A small in-memory file system that can be filled up. Only root can mount it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

const FILLER: &str = "filler";
const PIECE_BYTES: usize = 64 << 10;

/// A mounted file system. Dropping it unmounts it and deletes its files.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Creates a directory and mounts a file system there.
    pub(crate) fn mount(at: PathBuf, mebibytes: u64) -> io::Result<Self> {
        fs::create_dir_all(&at)?;
        let size = format!("size={mebibytes}m,mode=0755");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&at))?;
        Ok(SmallDisk(at))
    }

    /// Fills up the free space.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut file = File::create(self.0.join(FILLER))?;
        loop {
            match file.write_all(&[0; PIECE_BYTES]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Frees the space again.
    pub(crate) fn free(&self) -> io::Result<()> {
        fs::remove_file(self.0.join(FILLER))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a killed process may still have open files. `run` reports a failure.
        drop(run(Command::new("umount").arg("-l").arg(&self.0)));
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{command:?}: {status}"))),
    }
}
