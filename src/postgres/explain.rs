//! An error of the database in words.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// PostgreSQL's own message where there is one, else what happened on the way to it.
pub fn explain(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// What to do about a session that could not be opened or is refused; none where the message
/// says all there is.
pub fn advice(error: &Error) -> Option<&'static str> {
    let Some(code) = error.code() else {
        // The driver gives no kinds: the text of the whole chain is all there is.
        let text = explain(error);
        let known = [
            (
                "Connection refused",
                "nothing listens there: is the server running, and are host and port right?",
            ),
            (
                "failed to lookup address",
                "the host's name is not known: is it spelled as it must be?",
            ),
            (
                "timed out",
                "nobody answers: is a firewall between, or the address wrong?",
            ),
            (
                "No such file or directory",
                "there is no such socket: is the server running, and on this machine?",
            ),
            (
                "password missing",
                "the server asks for a password: put one into DATABASE_URL",
            ),
            (
                "does not allow writes",
                "this is a standby: name the primary, or all of them in one URL",
            ),
        ];
        return known
            .iter()
            .find(|(part, _)| text.contains(part))
            .map(|(_, what)| *what);
    };
    Some(match *code {
        SqlState::INVALID_PASSWORD => "the user or the password in DATABASE_URL is wrong",
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "the server does not let this user in from here: see its pg_hba.conf"
        }
        SqlState::INVALID_CATALOG_NAME => "there is no such database: make it with createdb",
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "the user lacks a right: let it own its database, or grant it what is named"
        }
        SqlState::TOO_MANY_CONNECTIONS => {
            "the server has no connection left: raise its max_connections, or close others"
        }
        SqlState::CANNOT_CONNECT_NOW => "the server is starting or stopping: try again",
        _ => return None,
    })
}
