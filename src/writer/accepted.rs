//! Gaps that an operator has accepted as lost.
//!
//! The checkpoints still count them, so that the accounting stays exact. An accepted gap no longer makes a gateway
//! unready. The file has one line per gap: the run's id, the shard, and the number of readings.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use uuid::Uuid;

use crate::wal::progress::Gap;

/// The file's name, in the log's directory.
pub const FILE_NAME: &str = "gap-accepted";

/// Accepts gaps. They replace the gaps that were accepted before.
///
/// Blocks: until they are durable
///
/// # Errors
/// I/O errors. The earlier list stays in place, unless only the last fsync failed: then the new list is in place,
/// but a power cut may undo it. Accept the gaps again.
pub fn accept(directory: &Path, gaps: &[Gap]) -> io::Result<()> {
    let new = directory.join("gap-accepted.new");
    let mut file = File::create(&new)?;
    for gap in gaps {
        writeln!(file, "{} {} {}", gap.run, gap.shard, gap.readings)?;
    }
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE_NAME))?;
    File::open(directory)?.sync_all()
}

/// The number of readings in these gaps that are not accepted. If the file cannot be read, none are accepted.
pub fn not_accepted(directory: &Path, gaps: &[Gap]) -> u64 {
    if gaps.is_empty() {
        return 0;
    }
    let text = fs::read_to_string(directory.join(FILE_NAME)).unwrap_or_default();
    let accepted: HashMap<(Uuid, u16), u64> = text.lines().filter_map(parse).collect();
    let left = |gap: &Gap| {
        let accepted = accepted.get(&(gap.run, gap.shard)).copied();
        gap.readings.saturating_sub(accepted.unwrap_or(0))
    };
    gaps.iter().map(left).sum()
}

fn parse(line: &str) -> Option<((Uuid, u16), u64)> {
    let mut parts = line.split(' ');
    let run = Uuid::parse_str(parts.next()?).ok()?;
    let shard = parts.next()?.parse().ok()?;
    let readings = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(((run, shard), readings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_accepted_counts_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let gap = |run, shard, readings| Gap {
            run: Uuid::from_u128(run),
            shard,
            readings,
        };
        let gaps = [gap(1, 0, 10), gap(1, 1, 5), gap(2, 0, 7)];
        assert_eq!(not_accepted(directory.path(), &gaps), 22);
        accept(directory.path(), &gaps[..2]).unwrap();
        assert_eq!(not_accepted(directory.path(), &gaps), 7);
        // A gap that has grown since then is no longer fully accepted.
        assert_eq!(not_accepted(directory.path(), &[gap(1, 0, 12)]), 2);
        fs::write(directory.path().join(FILE_NAME), "rubbish\n").unwrap();
        assert_eq!(not_accepted(directory.path(), &gaps), 22);
    }
}
