//! Creates a cluster, whole or not at all, and its configuration files.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::error::{At, EmbeddedError};
use super::find::Programs;
use super::user::ServerUser;
use super::{DATABASE, USER};

const SETTINGS_FILE: &str = "postgresql.wattgate.conf";
const OPERATOR_FILE: &str = "postgresql.operator.conf";
const UNFINISHED: &str = "cluster.new";
/// How many files of a new cluster are synced at once, each by a waiting thread.
const SYNCS_AT_ONCE: usize = 32;

/// Which users may connect: root and the server's own user, identified by the kernel.
///
/// The rights of the socket's directory already exclude all other users. This still holds if an operator
/// widens those rights by mistake.
const HBA: &str = "\
# Who may connect. The gateway wrote this file when it created the cluster. Change it as you need.
# The map is in pg_ident.conf.
local   all           wattgate   peer map=wattgate
local   replication   wattgate   peer map=wattgate
local   all           all        peer
";

const OPERATOR_SETTINGS: &str = "\
# Settings of your own. This file is read last and never written by the gateway.
";

/// Reads which major version made a cluster. `None` means that there is no cluster yet.
pub(super) fn version(cluster: &Path) -> Result<Option<u32>, EmbeddedError> {
    let bad = |problem: &str| EmbeddedError::BadCluster {
        path: cluster.to_owned(),
        problem: problem.to_owned(),
    };
    match fs::read_to_string(cluster.join("PG_VERSION")) {
        Ok(text) => text
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| bad("its PG_VERSION contains no version")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let empty = fs::read_dir(cluster).map_or(true, |mut entries| entries.next().is_none());
            if empty {
                Ok(None)
            } else {
                Err(bad("it holds other files, but no PG_VERSION"))
            }
        }
        Err(error) => Err(error).at("read", &cluster.join("PG_VERSION")),
    }
}

/// Creates the cluster in `<home>/cluster`.
///
/// All work happens in a directory beside it, which is synced and then renamed. So a kill at any moment
/// leaves either no cluster or a whole one.
///
/// Blocks: never; the programs run as children
/// Cancel: safe; the programs are killed, and the next start removes their files
pub(super) async fn create(
    home: &Path,
    user: &ServerUser,
    programs: &Programs,
) -> Result<(), EmbeddedError> {
    let new = home.join(format!("{UNFINISHED}-{}", std::process::id()));
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&new)
        .at("create", &new)?;
    user.own(&new).at("give away", &new)?;

    // No step is synced, because one pass over all files at the end makes the cluster durable.
    let mut initdb = user.command(&programs.path("initdb"));
    initdb.arg("-D").arg(&new).args([
        "--username",
        USER,
        "--encoding=UTF8",
        "--no-locale",
        "--data-checksums",
        "--auth=peer",
        "--no-sync",
    ]);
    run("initdb", initdb, "").await?;
    write(&new.join("pg_hba.conf"), HBA, user)?;
    write(&new.join(OPERATOR_FILE), OPERATOR_SETTINGS, user)?;

    let mut single = user.command(&programs.path("postgres"));
    single
        .args(["--single", "-F", "-c", "exit_on_error=on", "-D"])
        .arg(&new)
        .arg("postgres");
    run(
        "postgres --single",
        single,
        &format!("CREATE DATABASE {DATABASE}\n"),
    )
    .await?;

    sync_all(&new).await?;

    let cluster = home.join("cluster");
    fs::rename(&new, &cluster).at("rename to", &cluster)?;
    for directory in home.ancestors().take(2) {
        File::open(directory)
            .and_then(|file| file.sync_all())
            .at("sync", directory)?;
    }
    Ok(())
}

/// Syncs every file and directory of a new cluster, many at a time.
///
/// There are a thousand files. One by one (`initdb --sync-only`), each waits for a commit of the file
/// system's journal, which takes seconds on a busy disk. In parallel they share commits. A sync of the
/// whole file system would also wait for the writes of other programs.
async fn sync_all(cluster: &Path) -> Result<(), EmbeddedError> {
    let mut paths = vec![cluster.to_owned()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        let directory = fs::symlink_metadata(&path).at("look at", &path)?.is_dir();
        if directory {
            for entry in fs::read_dir(&path).at("list", &path)? {
                paths.push(entry.at("list", &path)?.path());
            }
        }
    }
    let sync = move || {
        std::thread::scope(|scope| {
            let share = paths.len().div_ceil(SYNCS_AT_ONCE).max(1);
            let threads: Vec<_> = paths
                .chunks(share)
                .map(|part| {
                    scope.spawn(move || {
                        part.iter().try_for_each(|path| {
                            File::open(path)
                                .and_then(|file| file.sync_all())
                                .at("sync", path)
                        })
                    })
                })
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| match thread.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })
    };
    match tokio::task::spawn_blocking(sync).await {
        Ok(result) => result,
        Err(error) => Err(std::io::Error::other(error)).at("sync", cluster),
    }
}

/// How long the programs of an interrupted start may continue writing. They are killed with it, but their own
/// children end a moment later.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// Removes the files of a killed start. The caller must hold the home's lock.
pub(super) async fn remove_unfinished(home: &Path) -> Result<(), EmbeddedError> {
    for entry in fs::read_dir(home).at("list", home)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let path = entry.path();
            tracing::info!(
                "removing {}, which an interrupted initdb left",
                path.display()
            );
            let began = Instant::now();
            loop {
                match fs::remove_dir_all(&path) {
                    Ok(()) => break,
                    // A program created a file meanwhile.
                    Err(error)
                        if error.kind() == ErrorKind::DirectoryNotEmpty
                            && began.elapsed() < LAST_WRITES =>
                    {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    error => return error.at("remove", &path),
                }
            }
        }
    }
    Ok(())
}

/// Writes the settings of this version of the gateway, and which users may connect.
pub(super) fn configure(
    cluster: &Path,
    user: &ServerUser,
    settings: &str,
) -> Result<(), EmbeddedError> {
    write(&cluster.join(SETTINGS_FILE), settings, user)?;
    write(&cluster.join("pg_ident.conf"), &ident(user), user)?;
    let path = cluster.join("postgresql.conf");
    let text = fs::read_to_string(&path).at("read", &path)?;
    // A line that the operator commented out counts as present.
    if !text.contains(SETTINGS_FILE) {
        let with = format!(
            "{text}\n# The gateway's settings, and then the operator's.\n\
             include_if_exists '{SETTINGS_FILE}'\ninclude_if_exists '{OPERATOR_FILE}'\n"
        );
        write(&path, &with, user)?;
    }
    Ok(())
}

fn ident(user: &ServerUser) -> String {
    let mut text = String::from(
        "# Which users of this machine may connect as the gateway's database user. The gateway \
         writes this file at each start.\n",
    );
    let quoted = user.name.replace('"', "\"\"");
    for name in ["root", quoted.as_str()] {
        text.push_str(&format!("wattgate  \"{name}\"  {USER}\n"));
    }
    text
}

/// Replaces a file in one step.
///
/// Root writes into a directory of the server's user. So the file is created new and renamed over the old
/// one, which follows no link.
fn write(path: &Path, text: &str, user: &ServerUser) -> Result<(), EmbeddedError> {
    // Most starts change nothing and need no sync.
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let temporary = path.with_extension("wattgate-new");
    if let Err(error) = fs::remove_file(&temporary)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).at("remove", &temporary);
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            fchown(&file, Some(user.uid), Some(user.gid))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .at("write", &temporary)?;
    fs::rename(&temporary, path).at("rename to", path)
}

/// Runs a program to its end. Its last line becomes the message of the error.
async fn run(name: &str, command: Command, input: &str) -> Result<(), EmbeddedError> {
    let failed = |status: String, message: String| EmbeddedError::Program {
        program: name.to_owned(),
        status,
        message,
    };
    let mut command = tokio::process::Command::from(command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        failed(
            "not started".to_owned(),
            format!("{error}; can the server's user read it?"),
        )
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // If a program ends early, its exit status says why.
        if let Err(error) = stdin.write_all(input.as_bytes()).await {
            tracing::debug!("{name} did not read its input: {error}");
        }
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| failed("lost".to_owned(), error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(output.status.to_string(), last_words(&output)))
}

/// Returns the line with the error, or else the last few lines.
fn last_words(output: &Output) -> String {
    const LINES: usize = 4;
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let error = lines
        .iter()
        .find(|line| line.contains("FATAL") || line.contains("error:"));
    match error {
        Some(line) => (*line).to_owned(),
        None if lines.is_empty() => "it printed nothing".to_owned(),
        None => lines[lines.len().saturating_sub(LINES)..].join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_becomes_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(version(dir.path()).unwrap(), None);
        fs::write(dir.path().join("precious"), "").unwrap();
        assert!(version(dir.path()).is_err());
        fs::write(dir.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(version(dir.path()).unwrap(), Some(15));
    }

    #[test]
    fn the_operators_own_lines_survive_and_the_settings_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let user = ServerUser::choose(None).unwrap();
        fs::write(dir.path().join("postgresql.conf"), "work_mem = '9MB'\n").unwrap();
        fs::write(dir.path().join(OPERATOR_FILE), "jit = on\n").unwrap();
        configure(dir.path(), &user, "jit = off\n").unwrap();
        configure(dir.path(), &user, "jit = off # newer\n").unwrap();
        let main = fs::read_to_string(dir.path().join("postgresql.conf")).unwrap();
        assert!(main.starts_with("work_mem = '9MB'\n"));
        assert_eq!(main.matches(SETTINGS_FILE).count(), 1);
        assert!(main.find(SETTINGS_FILE) < main.find(OPERATOR_FILE));
        let read = |name| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read(OPERATOR_FILE), "jit = on\n");
        assert_eq!(read(SETTINGS_FILE), "jit = off # newer\n");
    }
}
