//! The commands other than `serve`.

pub(crate) mod check;
pub(crate) mod erase;
pub(crate) mod gap;
pub mod keys;
pub(crate) mod quarantine;
pub(crate) mod wal;

pub use self::check::check;
pub use self::erase::erase;
pub use self::quarantine::quarantine;
pub use self::wal::wal;
