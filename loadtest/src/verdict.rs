//! The verdict of a tool: its exit code, and the word in its report.

/// The verdict of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything is correct.
    Right,
    /// Something is wrong, and the report names it.
    Wrong,
}
