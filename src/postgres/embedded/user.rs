//! The user of the server.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::EmbeddedError;

/// The users of a new cluster if root runs the gateway, the most private first.
const UNPRIVILEGED: [&str; 4] = ["wattgate", "postgres", "_postgres", "nobody"];

/// The server's programs get a new environment. So they see no secrets of the gateway, and no `PG…` variable
/// of a shell changes their behaviour.
const PROGRAM_PATH: &str =
    "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/run/current-system/sw/bin";

/// The user that runs the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) name: String,
    /// Whether the gateway is root and changes to this user.
    switch: bool,
}

impl ServerUser {
    /// Chooses the gateway's own user. Root uses the owner of an existing cluster, or an unprivileged user.
    pub(super) fn choose(existing_cluster: Option<&Path>) -> Result<Self, EmbeddedError> {
        let own = rustix::process::geteuid().as_raw();
        let owner = existing_cluster.and_then(|path| fs::metadata(path).ok().zip(Some(path)));
        if own != 0 {
            return match owner {
                Some((meta, path)) if meta.uid() != own => Err(EmbeddedError::BadCluster {
                    path: path.to_owned(),
                    problem: format!(
                        "it belongs to {}: run the gateway as that user or as root",
                        name_of(meta.uid())
                    ),
                }),
                _ => Ok(Self {
                    uid: own,
                    gid: rustix::process::getegid().as_raw(),
                    name: name_of(own),
                    switch: false,
                }),
            };
        }
        match owner {
            Some((meta, path)) if meta.uid() == 0 => Err(EmbeddedError::BadCluster {
                path: path.to_owned(),
                problem:
                    "it belongs to root, but PostgreSQL refuses to run as root: chown it to another user"
                        .to_owned(),
            }),
            Some((meta, _)) => {
                let (uid, gid, name) = (meta.uid(), meta.gid(), name_of(meta.uid()));
                let gid = by_name(&name).map_or(gid, |(_, own_gid)| own_gid);
                Ok(Self {
                    uid,
                    gid,
                    name,
                    switch: true,
                })
            }
            None => unprivileged(),
        }
    }

    /// Makes a command that runs as this user, outside the gateway's process group.
    ///
    /// A Ctrl-C at the terminal reaches only the gateway's group. Changing the user also drops root's
    /// supplementary groups. The working directory is `/`, which every user may enter.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", PROGRAM_PATH)
            .env("LC_ALL", "C")
            // Otherwise initdb compares the system's time zone with every zone that it knows.
            .env("TZ", "UTC")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives a file or directory of the gateway to this user.
    pub(super) fn own(&self, path: &Path) -> std::io::Result<()> {
        if self.switch {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))?;
        }
        Ok(())
    }

    /// Whether this user can enter a directory. It tries to enter, because every parent, access lists and mounts
    /// matter.
    pub(super) fn can_enter(&self, directory: &Path) -> bool {
        !self.switch
            || self
                .command(Path::new("/bin/sh"))
                .args(["-c", "cd -- \"$0\""])
                .arg(directory)
                .status()
                .is_ok_and(|status| status.success())
    }
}

fn unprivileged() -> Result<ServerUser, EmbeddedError> {
    for name in UNPRIVILEGED {
        if let Some((uid, gid)) = by_name(name).filter(|&(uid, _)| uid != 0) {
            if name == "nobody" {
                tracing::warn!(
                    "the embedded PostgreSQL runs as the user nobody, whose rights other services may \
                     share; create a user named postgres or wattgate"
                );
            }
            return Ok(ServerUser {
                uid,
                gid,
                name: name.to_owned(),
                switch: true,
            });
        }
    }
    Err(EmbeddedError::NoUser {
        tried: UNPRIVILEGED.join(", "),
    })
}

fn name_of(uid: u32) -> String {
    passwd(|entry| (entry.1 == uid).then(|| entry.0.to_owned()))
        .or_else(|| id(&["-un", &uid.to_string()]))
        .unwrap_or_else(|| uid.to_string())
}

fn by_name(name: &str) -> Option<(u32, u32)> {
    passwd(|entry| (entry.0 == name).then_some((entry.1, entry.2))).or_else(|| {
        Some((
            id(&["-u", name])?.parse().ok()?,
            id(&["-g", name])?.parse().ok()?,
        ))
    })
}

/// Searches the local users, and those of a directory service with `id`.
fn passwd<T>(pick: impl Fn((&str, u32, u32)) -> Option<T>) -> Option<T> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| pick(passwd_entry(line)?))
}

fn passwd_entry(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((name, uid, gid))
}

fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id")
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_gives_name_user_and_group() {
        assert_eq!(
            passwd_entry("postgres:x:101:104:,,,:/var/lib:/bin/bash"),
            Some(("postgres", 101, 104))
        );
        assert_eq!(passwd_entry("# a comment"), None);
    }

    #[test]
    fn root_is_known_by_number_and_name() {
        assert_eq!(name_of(0), "root");
        assert_eq!(by_name("root").map(|(uid, _)| uid), Some(0));
        assert_eq!(by_name("no-such-user-here"), None);
    }
}
