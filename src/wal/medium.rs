//! Checks the log's file system. In-memory and network file systems are refused unless a flag allows them, because
//! a sync there may return before the data is on a disk.

use std::path::Path;

/// File systems on which a sync guarantees nothing: in memory, or on another machine that may reply before its
/// disk has written. The overlays of containers are not listed, because they lie on a disk.
///
/// Source: statfs(2), linux/magic.h
#[cfg(target_os = "linux")]
const UNSAFE: [(u32, &str); 10] = [
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "kafs"),
];

/// Returns the kind of a directory's file system if a log is not safe on it.
///
/// Shape:  `None` if no risk is known, and always on systems other than Linux
pub fn unsafe_kind(directory: &Path) -> std::io::Result<Option<&'static str>> {
    #[cfg(target_os = "linux")]
    {
        let found = rustix::fs::statfs(directory)?.f_type as u32;
        let known = UNSAFE.iter().find(|(kind, _)| *kind == found);
        Ok(known.map(|(_, name)| *name))
    }
    #[cfg(not(target_os = "linux"))]
    {
        std::fs::metadata(directory).map(|_| None)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_in_memory_is_recognised() {
        // /proc/mounts is the reference, because tmpfs may not be mounted in its usual place.
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let is_tmpfs = mounts
            .lines()
            .any(|l| l.split(' ').nth(1) == Some("/dev/shm"));
        if is_tmpfs {
            assert_eq!(unsafe_kind(Path::new("/dev/shm")).unwrap(), Some("tmpfs"));
        }
        assert_eq!(unsafe_kind(Path::new("/proc")).unwrap(), None);
        assert!(unsafe_kind(Path::new("/nowhere/at/all")).is_err());
    }
}
