//! The server's settings, for ingestion on this machine.

use std::fs;
use std::path::Path;

use super::error::{At, EmbeddedError};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The machine's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) memory_bytes: u64,
    /// Free bytes on the cluster's file system, the cluster's own WAL included.
    pub(super) disk_bytes: u64,
}

impl Machine {
    /// Reads the resources of the machine, or of the container.
    pub(super) fn read(cluster: &Path) -> Result<Self, EmbeddedError> {
        let disk = rustix::fs::statvfs(cluster).at("look at the file system of", cluster)?;
        let wal: u64 = fs::read_dir(cluster.join("pg_wal"))
            .map(|entries| entries.flatten().filter_map(|entry| entry.metadata().ok()))
            .map_or(0, |entries| entries.map(|meta| meta.len()).sum());
        let limit = [
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
        Ok(Self {
            memory_bytes: memory_bytes().min(limit.unwrap_or(u64::MAX)),
            disk_bytes: disk
                .f_bavail
                .saturating_mul(disk.f_frsize)
                .saturating_add(wal),
        })
    }

    /// The size of WAL that starts a checkpoint.
    ///
    /// After a checkpoint, the first change of each page writes the whole page to the WAL, which costs a
    /// third of the rate. So checkpoints are as rare as the disk allows. More than 8 GiB gains no more, and
    /// a crash recovery must read it.
    pub(super) fn max_wal_bytes(self) -> u64 {
        (self.disk_bytes / 8).clamp(256 * MIB, 8 * GIB) / MIB * MIB
    }

    /// A quarter of memory, as PostgreSQL's manual advises, up to 2 GiB.
    ///
    /// Ingestion reuses the newest part of each index, which fits well below that. The rest of memory is better used as
    /// the system's cache, which the log shares. A larger pool makes every checkpoint longer, including the last one
    /// before a stop.
    fn shared_buffers_bytes(self) -> u64 {
        (self.memory_bytes / 4).clamp(128 * MIB, 2 * GIB)
    }

    fn maintenance_bytes(self) -> u64 {
        (self.memory_bytes / 16).clamp(64 * MIB, 512 * MIB)
    }
}

#[cfg(target_os = "linux")]
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}

/// Other systems are assumed to have 4 GiB, like the smallest such machines.
#[cfg(not(target_os = "linux"))]
fn memory_bytes() -> u64 {
    4 * GIB
}

/// Writes the settings file.
pub(super) fn text(machine: Machine) -> String {
    let mib = |bytes: u64| format!("{}MB", bytes / MIB);
    let max_wal = machine.max_wal_bytes();
    TEMPLATE
        .replace("@shared_buffers@", &mib(machine.shared_buffers_bytes()))
        .replace("@maintenance_work_mem@", &mib(machine.maintenance_bytes()))
        .replace("@max_wal_size@", &mib(max_wal))
        .replace("@min_wal_size@", &mib((max_wal / 4).max(80 * MIB)))
}

const TEMPLATE: &str = include_str!("settings.conf");

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Machine = Machine {
        memory_bytes: 64 * GIB,
        disk_bytes: 1024 * GIB,
    };
    const SMALL: Machine = Machine {
        memory_bytes: 256 * MIB,
        disk_bytes: GIB,
    };

    #[test]
    fn the_sizes_follow_the_machine_within_bounds() {
        assert_eq!(LARGE.max_wal_bytes(), 8 * GIB);
        assert_eq!(LARGE.shared_buffers_bytes(), 2 * GIB);
        assert_eq!(SMALL.max_wal_bytes(), 256 * MIB);
        assert_eq!(SMALL.shared_buffers_bytes(), 128 * MIB);
        let middle = Machine {
            memory_bytes: 4 * GIB,
            disk_bytes: 16 * GIB,
        };
        assert_eq!(middle.max_wal_bytes(), 2 * GIB);
        assert_eq!(middle.shared_buffers_bytes(), GIB);
    }

    #[test]
    fn the_embedded_server_never_trades_durability_for_speed() {
        for machine in [LARGE, SMALL] {
            let text = text(machine);
            for line in [
                "fsync = on",
                "synchronous_commit = on",
                "full_page_writes = on",
            ] {
                assert!(text.lines().any(|it| it == line), "{line}");
            }
            assert!(!text.contains('@'), "a value was left out:\n{text}");
        }
    }

    #[test]
    fn every_setting_has_its_reason_before_it() {
        let mut explained = false;
        for line in TEMPLATE.lines() {
            match line.trim() {
                "" => explained = false,
                line if line.starts_with('#') => explained = true,
                line => assert!(explained, "{line} has no reason"),
            }
        }
    }
}
