//! What a tool found: its exit code, and the word in its report.

/// What a tool found, once it has done its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All that was checked is right.
    Right,
    /// Something that was checked is wrong; the report says what.
    Wrong,
}
