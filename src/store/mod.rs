//! The queries and changes behind the HTTP resources, as typed rows.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`reading`] | a stored reading, and the one decoder of its columns |
//! | [`live`] | the newest reading of each device |
//! | [`history`] | the readings of one device, a page at a time |
//! | [`export`] | the readings of all devices, device by device |
//! | `ids` | the short ids of text ids |
//! | [`sessions`] | charging sessions, their rules, and meters declared shared |
//! | [`session_list`] | lists of charging sessions |
//! | [`alerts`] | alerts, a page at a time |
//! | [`changes`] | what has changed in the live tables and the alerts since the previous poll |
//!
//! It knows nothing of HTTP or JSON. A function takes a session of the
//! [`ReadPool`](crate::postgres::ReadPool) and returns rows.

pub mod alerts;
pub mod changes;
pub mod export;
pub mod history;
mod ids;
pub mod live;
pub mod reading;
pub mod session_list;
pub mod sessions;

/// A page of rows, and whether more follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, at most as many as the limit.
    pub items: Vec<T>,
    /// Whether the next page has rows.
    pub more: bool,
}

impl<T> Page<T> {
    /// Makes a page of rows that were fetched with a limit of one more than `limit`.
    fn of(mut items: Vec<T>, limit: usize) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        Page { items, more }
    }

    /// The last row, if more follow: the next page begins after it.
    pub fn last_before_more(&self) -> Option<&T> {
        self.items.last().filter(|_| self.more)
    }
}

/// The limit of a statement whose page has at most `limit` rows: one more row shows whether more follow.
const fn limit_of(limit: usize) -> i64 {
    limit as i64 + 1
}
