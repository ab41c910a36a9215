//! Reports go to stdout, everything else to stderr.

use std::io::{self, Write};

/// Writes a line to stderr: progress, warnings, errors.
///
/// A closed stderr must not end a load test, so write errors are ignored.
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

/// The server's own message, if there is one. `tokio_postgres` only prints "db error".
pub(crate) fn cause(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}
