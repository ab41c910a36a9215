//! The machine on which results were measured, without anything that identifies it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// A machine, as described in results.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    cores: usize,
    memory_gib: u64,
    processor: String,
    kernel: String,
    gateway: String,
}

/// Reads the machine's properties, and the versions of the programs.
///
/// # Errors
/// The gateway cannot be run.
pub(crate) fn describe(gateway: &Path) -> std::io::Result<Machine> {
    let version = Command::new(gateway).arg("--version").output()?.stdout;
    let first = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or_else(String::new, |rest| {
            rest.trim_start_matches([':', '\t', ' ']).to_owned()
        })
    };
    let memory = first("/proc/meminfo", "MemTotal");
    let kib: u64 = memory
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    Ok(Machine {
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        memory_gib: (kib + (1 << 19)) >> 20,
        processor: first("/proc/cpuinfo", "model name"),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        gateway: String::from_utf8_lossy(&version).trim().to_owned(),
    })
}

impl Machine {
    pub(crate) fn to_text(&self, postgresql: &str) -> String {
        format!(
            "{} cores ({}), {} GiB of memory, Linux {}, PostgreSQL {postgresql}, {}",
            self.cores, self.processor, self.memory_gib, self.kernel, self.gateway
        )
    }

    pub(crate) fn to_json(&self, postgresql: &str) -> Value {
        json!({
            "cores": self.cores,
            "processor": self.processor,
            "memoryGib": self.memory_gib,
            "kernel": self.kernel,
            "postgresql": postgresql,
            "gateway": self.gateway,
        })
    }
}
