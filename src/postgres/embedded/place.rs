//! Where the cluster, its log and its socket live.
//!
//! ```text
//! <data-dir>/postgres/    the home, or a link to it
//!     cluster/            the server's data directory, 0700, the server's user's
//!     run/                the socket, 0700, the server's user's (or a short directory elsewhere)
//!     server.log          the server's log, and the previous one in server.log.1
//!     lock                locked by the gateway for as long as it may start the server
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::{At, EmbeddedError};
use super::user::ServerUser;

/// The longest path of a socket that every system takes: `sun_path` holds 104 bytes with its end
/// on macOS, 108 on Linux.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// The name that the server adds to the directory; the port is fixed, see [`super::PORT`].
const SOCKET_NAME: &str = "/.s.PGSQL.5432";

/// The home of a cluster, and the user of its server.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) home: PathBuf,
    pub(super) user: ServerUser,
    /// Locked until the server has ended. The system unlocks it if the gateway is killed.
    pub(super) lock: File,
}

impl Place {
    /// Finds the home of an existing cluster, or chooses one for a new cluster, and locks it.
    ///
    /// An existing cluster always wins. If the rights of directories change later, a second and empty cluster
    /// would look as if all data were lost.
    pub(super) fn settle(data_dir: &Path, elsewhere: &Path) -> Result<Self, EmbeddedError> {
        fs::create_dir_all(data_dir).at("create", data_dir)?;
        let data_dir = data_dir.canonicalize().at("resolve", data_dir)?;
        let inside = data_dir.join("postgres");
        let outside = elsewhere.join(hash_name(&data_dir)).join("postgres");
        for home in [&inside, &outside] {
            if has_cluster(home) {
                let home = home.canonicalize().at("resolve", home)?;
                return Self::existing(home, &inside);
            }
        }
        let user = ServerUser::choose(None)?;
        let reach = inside.canonicalize().unwrap_or_else(|_| data_dir.clone());
        let home = if user.can_enter(&reach) {
            make_home(&inside)?
        } else {
            let home = make_home(&outside)?;
            link(&inside, &home);
            tracing::warn!(
                "the user {} cannot enter {}: the embedded PostgreSQL is in {} instead",
                user.name,
                reach.display(),
                home.display()
            );
            if !user.can_enter(&home) {
                return Err(unreachable(&home, &user));
            }
            home
        };
        let lock = lock(&home)?;
        Ok(Self { home, user, lock })
    }

    fn existing(home: PathBuf, inside: &Path) -> Result<Self, EmbeddedError> {
        let user = ServerUser::choose(Some(&home.join("cluster")))?;
        if !user.can_enter(&home) {
            return Err(unreachable(&home, &user));
        }
        if !inside.canonicalize().is_ok_and(|path| path == home) {
            link(inside, &home);
            // An operator who removed the data directory to start empty must learn about these remains.
            tracing::warn!(
                "using the embedded PostgreSQL in {}, which was created for this data directory \
                 before; to start empty, stop the gateway and remove that directory too",
                home.display()
            );
        }
        let lock = lock(&home)?;
        Ok(Self { home, user, lock })
    }

    /// The server's data directory.
    pub(super) fn cluster(&self) -> PathBuf {
        self.home.join("cluster")
    }

    /// Creates the directory of the socket: in the home, or elsewhere if that path is too long.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, EmbeddedError> {
        let inside = self.home.join("run");
        if inside.as_os_str().len() + SOCKET_NAME.len() <= SOCKET_PATH_BYTES_MAX {
            make_private(&inside, &self.user, Existing::Own)?;
            return Ok(inside);
        }
        let name = format!("wattgate-{}", hash_name(&self.home));
        // Only root writes to /run, so no other user can create the name there. In /tmp the sticky bit protects our
        // directory, and a directory of another user is refused.
        let in_run = Path::new("/run").join(&name);
        if make_private(&in_run, &self.user, Existing::Check).is_ok() {
            return Ok(in_run);
        }
        let in_tmp = Path::new("/tmp").join(&name);
        make_private(&in_tmp, &self.user, Existing::Check)?;
        Ok(in_tmp)
    }
}

impl Place {
    /// Removes the socket's directory if it is outside the home, and unlocks the home.
    pub(super) fn release(self, socket_dir: &Path) {
        if !socket_dir.starts_with(&self.home)
            && let Err(error) = fs::remove_dir(socket_dir)
        {
            tracing::debug!("cannot remove {}: {error}", socket_dir.display());
        }
        drop(self.lock);
    }
}

/// Whether a data directory has a cluster, inside it or elsewhere.
pub(super) fn exists(data_dir: &Path, elsewhere: &Path) -> bool {
    data_dir.canonicalize().is_ok_and(|data_dir| {
        let outside = elsewhere.join(hash_name(&data_dir)).join("postgres");
        has_cluster(&data_dir.join("postgres")) || has_cluster(&outside)
    })
}

/// Whether a home has a cluster. One that cannot be read counts as a cluster.
fn has_cluster(home: &Path) -> bool {
    match fs::metadata(home.join("cluster/PG_VERSION")) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

fn unreachable(home: &Path, user: &ServerUser) -> EmbeddedError {
    EmbeddedError::BadCluster {
        path: home.to_owned(),
        problem: format!(
            "its user {} cannot reach it: make every directory above it searchable (chmod o+x)",
            user.name
        ),
    }
}

fn make_home(home: &Path) -> Result<PathBuf, EmbeddedError> {
    fs::create_dir_all(home).at("create", home)?;
    let home = home.canonicalize().at("resolve", home)?;
    // The server's user must pass through; the files inside have rights of their own.
    fs::set_permissions(&home, fs::Permissions::from_mode(0o711)).at("set the rights of", &home)?;
    Ok(home)
}

/// Links the data directory to the home, so that a moved data directory finds its cluster.
fn link(inside: &Path, home: &Path) {
    let made = match fs::symlink_metadata(inside) {
        Ok(meta) if meta.is_symlink() => fs::remove_file(inside),
        Ok(_) => fs::remove_dir(inside),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
    .and_then(|()| std::os::unix::fs::symlink(home, inside));
    if let Err(error) = made {
        tracing::warn!(
            "cannot link {} to {}: {error}",
            inside.display(),
            home.display()
        );
    }
}

fn lock(home: &Path) -> Result<File, EmbeddedError> {
    let path = home.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .at("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(error).at("lock", &path),
    }
}

/// What to do with a directory that exists already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    /// It is given to the server's user: only the gateway writes where it is.
    Own,
    /// It must belong to the server's user: others could have made it.
    Check,
}

/// Makes a directory that only the server's user can enter, or uses an existing one.
fn make_private(path: &Path, user: &ServerUser, existing: Existing) -> Result<(), EmbeddedError> {
    let refused = |problem: String| EmbeddedError::SocketPlace {
        path: path.to_owned(),
        problem,
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => user.own(path).at("give away", path)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && existing == Existing::Own => {
            user.own(path).at("give away", path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(refused(format!("cannot be created: {error}"))),
    }
    let meta = fs::symlink_metadata(path).at("look at", path)?;
    if !meta.is_dir() || meta.uid() != user.uid {
        return Err(refused("belongs to another user".to_owned()));
    }
    if meta.mode() & 0o777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .at("set the rights of", path)?;
    }
    Ok(())
}

/// Names a directory after a path: 64 bits of FNV-1a, which stay the same in every version.
fn hash_name(path: &Path) -> String {
    let hash = path
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directorys_name_never_changes_between_versions() {
        assert_eq!(hash_name(Path::new("a")), "af63dc4c8601ec8c");
        assert_eq!(
            hash_name(Path::new("/srv/wattgate")),
            hash_name(Path::new("/srv/wattgate"))
        );
    }

    #[test]
    fn a_socket_directory_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::write(&taken, "").unwrap();
        let user = ServerUser::choose(None).unwrap();
        let error = make_private(&taken, &user, Existing::Check).unwrap_err();
        assert!(
            error.to_string().contains("belongs to another user"),
            "{error}"
        );
    }
}
