//! The queries and changes behind the HTTP resources, as typed rows.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`reading`] | a stored reading, and the one decoder of its columns |
//! | [`live`] | the newest reading of each device |
//! | [`history`] | the readings of one device, in pages |
//! | [`export`] | the readings of all devices, device by device |
//! | `ids` | the integer ids of text ids |
//! | [`sessions`] | charging sessions, their rules, and shared meters |
//! | [`session_list`] | lists of charging sessions |
//! | [`alerts`] | alerts, in pages |
//! | [`alert_actions`] | what operators do about alerts: acknowledge and mute |
//! | [`changes`] | what has changed in the live tables and the alerts since the previous poll |
//!
//! It knows nothing of HTTP or JSON. Functions take a session of the [`ReadPool`](crate::postgres::ReadPool) and
//! return rows.

pub mod alert_actions;
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
    /// The rows, up to the limit.
    pub items: Vec<T>,
    /// Whether more rows follow this page.
    pub more: bool,
}

impl<T> Page<T> {
    /// Makes a page from rows that were fetched with one more than `limit`.
    fn of(mut items: Vec<T>, limit: usize) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        Page { items, more }
    }

    /// The last row, after which the next page begins; `None` if no more rows follow.
    pub fn last_before_more(&self) -> Option<&T> {
        self.items.last().filter(|_| self.more)
    }
}

/// The SQL limit for a page of at most `limit` rows. The additional row shows whether more follow.
const fn limit_of(limit: usize) -> i64 {
    limit as i64 + 1
}
