//! The window of a question: (from, to], at most 400 days.

use super::runs::Run;
use crate::reading::Timestamp;

/// A day.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// The longest window: 400 days, a year and the month that it is compared with.
pub const WINDOW_MICROS_MAX: i64 = 400 * DAY_MICROS;

/// Why a window is refused; the caller asks for another (HTTP 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// `from` is not before `to` (or, without `to`, not before now).
    #[error("from must be before to")]
    Empty,
    /// The window is longer than [`WINDOW_MICROS_MAX`].
    #[error("the window must not be longer than 400 days")]
    TooLong,
}

/// Makes the window (from, to] of a question.
///
/// `from` alone: until now. `to` alone: the 24 hours before. Neither: the last 24 hours.
///
/// # Errors
/// [`WindowError`]: the window is empty or too long; exactly 400 days are allowed.
pub fn window(
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    now: Timestamp,
) -> Result<Run, WindowError> {
    let to = to.unwrap_or(now);
    let from = from.unwrap_or_else(|| to.plus_micros(-DAY_MICROS));
    let run = Run::new(from, to).ok_or(WindowError::Empty)?;
    if run.micros() > i128::from(WINDOW_MICROS_MAX) {
        return Err(WindowError::TooLong);
    }
    Ok(run)
}
