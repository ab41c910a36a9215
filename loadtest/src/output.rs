//! Reports go to stdout, everything else to stderr.

use std::io::{self, Write};

/// Writes a line to stderr: progress, warnings, errors.
///
/// A closed stderr must not end a load test, so its error is dropped.
pub(crate) fn say(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Writes a report to stdout.
///
/// # Errors
/// Stdout is closed.
pub(crate) fn report(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What the server says, if it has said anything. `tokio_postgres` itself only says "db error".
pub(crate) fn cause(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}
