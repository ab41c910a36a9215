//! Reads the CPU time of other processes from `/proc`.

use std::fs;

/// The fields of `/proc/PID/stat` are counted from the name in brackets, because the name may contain spaces.
const PARENT: usize = 1;
const USER: usize = 11;
const SYSTEM: usize = 12;
const ENDED_CHILDREN_USER: usize = 13;
const ENDED_CHILDREN_SYSTEM: usize = 14;

/// The CPU time of a process so far, in seconds; 0 if it is not running.
pub(crate) fn of(pid: i32) -> f64 {
    seconds(&stat(pid), &[USER, SYSTEM])
}

/// The same, including all its children. For a PostgreSQL server, pass the postmaster.
pub(crate) fn of_family(pid: i32) -> f64 {
    let children = children_of(pid).unwrap_or_default();
    let children: f64 = children.into_iter().map(of).sum();
    let own = [USER, SYSTEM, ENDED_CHILDREN_USER, ENDED_CHILDREN_SYSTEM];
    children + seconds(&stat(pid), &own)
}

/// The parent of a process, if it is running and has this name.
pub(crate) fn parent_named(pid: i32, name: &str) -> Option<i32> {
    let parent = field(&stat(pid), PARENT)?;
    let parent = i32::try_from(parent).ok()?;
    let comm = fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
    (comm.trim() == name).then_some(parent)
}

/// The running children of a process.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn children_of(parent: i32) -> std::io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if field(&stat(pid), PARENT) == u64::try_from(parent).ok() {
            children.push(pid);
        }
    }
    Ok(children)
}

fn stat(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()
}

fn field(stat: &str, index: usize) -> Option<u64> {
    let (_, after) = stat.rsplit_once(") ")?;
    after.split(' ').nth(index)?.parse().ok()
}

fn seconds(stat: &str, fields: &[usize]) -> f64 {
    let ticks: u64 = fields.iter().filter_map(|at| field(stat, *at)).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_move_the_fields() {
        let stat = "7 (a) (b c) S 3 7 7 0 -1 0 0 0 0 0 250 50 1000 2000 20";
        assert_eq!(field(stat, PARENT), Some(3));
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(seconds(stat, &[USER, SYSTEM]), 300.0 / ticks);
    }

    #[test]
    fn a_child_belongs_to_its_parent() {
        let me = i32::try_from(std::process::id()).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(children_of(me).unwrap().contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of(pid), 0.0);
    }
}
