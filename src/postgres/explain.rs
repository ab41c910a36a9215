//! Errors of the database in words.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::refused::refusal;

/// Returns PostgreSQL's own message, or else the error of the connection.
pub fn explain(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    if let Some(why) = refusal(error) {
        return why.to_string();
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Returns what to do about a session that is refused or cannot be opened. `None` means that the message
/// needs no advice.
pub fn advice(error: &Error) -> Option<&'static str> {
    let Some(code) = error.code() else {
        // The driver has no error kinds here, only the text of the whole chain.
        let text = explain(error);
        let known = [
            (
                "Connection refused",
                "nothing listens there: check that the server is running, and its host and port",
            ),
            (
                "failed to lookup address",
                "the host's name is not known: check its spelling",
            ),
            (
                "timed out",
                "the server does not answer: check the address, and any firewall on the way",
            ),
            (
                "No such file or directory",
                "there is no such socket: check that the server is running on this machine",
            ),
            (
                "password missing",
                "the server requires a password: put it into DATABASE_URL",
            ),
            (
                "does not allow writes",
                "this is a standby, or default_transaction_read_only is on: name the primary, list all \
                 servers in one URL, or set it off for this role",
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
            "the server does not admit this user from here: check its pg_hba.conf"
        }
        SqlState::INVALID_CATALOG_NAME => "there is no such database: create it with createdb",
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "the user lacks a privilege: make it the owner of its database, or grant the named \
             privilege"
        }
        SqlState::TOO_MANY_CONNECTIONS => {
            "the server has no free connection: raise its max_connections, or close others"
        }
        SqlState::CANNOT_CONNECT_NOW => "the server is starting or stopping: try again",
        _ => return None,
    })
}
