//! Finds the server's programs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::EmbeddedError;

/// The oldest major version that the schema and the settings work with.
pub(super) const VERSION_MIN: u32 = 15;

/// Where distributions install each major version: a directory, the prefix before the version in its entries, and the
/// path below the entry.
const DEBIAN: (&str, &str, &str) = ("/usr/lib/postgresql", "", "bin");
const OTHERS: [(&str, &str, &str); 8] = [
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/Library/PostgreSQL", "", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];
const UNVERSIONED: [&str; 4] = [
    "/opt/homebrew/opt/postgresql/bin",
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/bin",
];

/// Where the server's programs are looked for.
#[derive(Debug, Clone, Default)]
pub struct ProgramSearch {
    /// The directory of the programs; `None` means that they are searched for.
    pub pg_bin: Option<PathBuf>,
    /// The value of `PATH`, which is searched too.
    pub path: Option<OsString>,
}

/// The server's programs, of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) bin: PathBuf,
    pub(super) major: u32,
}

impl Programs {
    /// The path of one program.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// Finds the programs: those in `pg_bin` if it is set, or else the first usable programs in the usual places.
///
/// A cluster runs only on the major version that made it. `existing` names such a cluster and its version.
pub(super) fn find(
    search: &ProgramSearch,
    existing: Option<(&Path, u32)>,
) -> Result<Programs, EmbeddedError> {
    if let Some(bin) = &search.pg_bin {
        let programs = inspect(bin)
            .and_then(|found| match found.major {
                VERSION_MIN.. => Ok(found),
                old => Err(format!(
                    "it holds PostgreSQL {old}, but the gateway needs {VERSION_MIN} or newer"
                )),
            })
            .map_err(|problem| EmbeddedError::BadPgBin {
                path: bin.to_owned(),
                problem,
            })?;
        return choose([programs], existing);
    }
    let usable = candidates(search.path.as_deref())
        .into_iter()
        .filter_map(|bin| inspect(&bin).ok())
        .filter(|programs| programs.major >= VERSION_MIN);
    choose(usable, existing)
}

fn choose(
    usable: impl IntoIterator<Item = Programs>,
    existing: Option<(&Path, u32)>,
) -> Result<Programs, EmbeddedError> {
    let mut other = Vec::new();
    for programs in usable {
        if existing.is_none_or(|(_, major)| major == programs.major) {
            return Ok(programs);
        }
        if !other.contains(&programs.major) {
            other.push(programs.major);
        }
    }
    match existing {
        Some((cluster, needed)) if !other.is_empty() => Err(EmbeddedError::WrongVersion {
            cluster: cluster.to_owned(),
            needed,
            found: other,
        }),
        _ => Err(EmbeddedError::NotFound {
            minimum: VERSION_MIN,
            hint: hint(),
        }),
    }
}

fn candidates(search_path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut places = versioned(DEBIAN);
    if let Some(path) = search_path {
        places.extend(std::env::split_paths(path).filter(|place| place.is_absolute()));
    }
    places.extend(OTHERS.into_iter().flat_map(versioned));
    places.extend(UNVERSIONED.iter().map(PathBuf::from));
    places
}

/// Lists the versions in one place, newest first. The order is numeric: 9 is older than 15.
fn versioned((place, prefix, suffix): (&str, &str, &str)) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(place) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let version = entry
                .file_name()
                .to_str()?
                .strip_prefix(prefix)?
                .parse()
                .ok()?;
            Some((version, entry.path().join(suffix)))
        })
        .collect();
    found.sort_by_key(|&(version, _)| std::cmp::Reverse(version));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Runs the server in a directory for its version. The error describes what is missing.
fn inspect(bin: &Path) -> Result<Programs, String> {
    for name in ["postgres", "initdb"] {
        if !bin.join(name).is_file() {
            return Err(format!("there is no {name} in it"));
        }
    }
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .output()
        .map_err(|error| format!("its postgres cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match major_of(&text) {
        Some(major) => Ok(Programs {
            bin: bin.to_owned(),
            major,
        }),
        None => Err(format!(
            "its postgres does not print its version: {:?}",
            text.trim()
        )),
    }
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian …)`, `… 18beta1` and the like.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number[..digits].parse().ok()
}

const HINT_MACOS: &str = "install it (brew install postgresql@17)";

/// What to install, in the words of the platform's own package manager.
fn hint() -> String {
    if cfg!(target_os = "macos") {
        return HINT_MACOS.to_owned();
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    hint_for(&release).to_owned()
}

fn hint_for(os_release: &str) -> &'static str {
    let ids: Vec<&str> = os_release
        .lines()
        .filter_map(|line| {
            line.strip_prefix("ID=")
                .or_else(|| line.strip_prefix("ID_LIKE="))
        })
        .flat_map(|ids| ids.trim_matches('"').split_whitespace())
        .collect();
    let known = [
        ("debian", "install it (apt-get install postgresql)"),
        ("ubuntu", "install it (apt-get install postgresql)"),
        ("fedora", "install it (dnf install postgresql-server)"),
        ("rhel", "install it (dnf install postgresql-server)"),
        ("alpine", "install it (apk add postgresql)"),
        ("arch", "install it (pacman -S postgresql)"),
        ("suse", "install it (zypper install postgresql-server)"),
    ];
    known.into_iter().find(|(id, _)| ids.contains(id)).map_or(
        "install the PostgreSQL server, or name its directory with --pg-bin (PG_BIN)",
        |(_, hint)| hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(major: u32) -> Programs {
        Programs {
            bin: PathBuf::from(format!("/{major}")),
            major,
        }
    }

    #[test]
    fn versions_are_read_from_the_servers_output() {
        assert_eq!(
            major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) 9.6.24\n"), Some(9));
        assert_eq!(major_of("mysqld 8.0"), None);
    }

    #[test]
    fn an_existing_cluster_gets_its_own_version_and_not_the_newest() {
        let cluster = Path::new("/data/cluster");
        let found = choose([programs(17), programs(15)], Some((cluster, 15)));
        assert_eq!(found.ok(), Some(programs(15)));
    }

    #[test]
    fn a_cluster_of_another_version_is_refused_by_name() {
        let cluster = Path::new("/data/cluster");
        let error = choose([programs(17), programs(16)], Some((cluster, 15))).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("PostgreSQL 15, but only 17 and 16 are installed"),
            "{text}"
        );
        assert!(!text.contains('\n'));
    }

    #[test]
    fn missing_programs_name_what_to_install_or_set() {
        let text = choose([], None).unwrap_err().to_string();
        assert!(
            text.contains("install") && text.contains("DATABASE_URL"),
            "{text}"
        );
        assert!(!text.contains('\n'));
    }

    #[test]
    fn the_hint_names_the_platforms_package_manager() {
        assert!(hint_for("ID=ubuntu\nID_LIKE=debian\n").contains("apt-get"));
        assert!(hint_for("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n").contains("dnf"));
        assert!(hint_for("").contains("PG_BIN"));
        assert!(HINT_MACOS.contains("brew"));
    }

    #[test]
    fn a_wrong_pg_bin_is_reported_and_nothing_else_is_tried() {
        let empty = tempfile::tempdir().unwrap();
        let search = ProgramSearch {
            pg_bin: Some(empty.path().to_owned()),
            path: None,
        };
        let error = find(&search, None).unwrap_err();
        assert!(matches!(error, EmbeddedError::BadPgBin { .. }), "{error}");
    }
}
