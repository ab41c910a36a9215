//! What an error of the database means for a batch: a pure decision on its SQLSTATE.

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A key is there already: look which, and store the rest.
    Repeat,
    /// No partition takes a row, or something other than a constraint says that a rule is broken:
    /// which of the two depends on whether the row's partition exists.
    Partition,
    /// The data of a reading are refused: find it and set it aside.
    Data,
    /// Everything else: the environment. Connect again and try again.
    Environment,
}

/// Decides on an error as the driver gives it.
pub fn verdict_of(error: &Error) -> Verdict {
    let constraint = error.as_db_error().and_then(DbError::constraint);
    verdict(error.code(), constraint)
}

/// Decides by the SQLSTATE and the constraint's name, never by the text of a message.
///
/// Quarantine is an allow-list: only what can be a reading's own fault goes there. Whatever is
/// not known to be data is the environment's, and is waited for. A missing partition has the
/// SQLSTATE of a broken CHECK, but names no constraint.
pub fn verdict(code: Option<&SqlState>, constraint: Option<&str>) -> Verdict {
    let Some(code) = code else {
        return Verdict::Environment;
    };
    if *code == SqlState::UNIQUE_VIOLATION {
        Verdict::Repeat
    } else if *code == SqlState::CHECK_VIOLATION {
        constraint.map_or(Verdict::Partition, |_| Verdict::Data)
    } else if FORMAT.contains(code) {
        Verdict::Environment
    } else if *code == SqlState::NOT_NULL_VIOLATION || code.code().starts_with("22") {
        Verdict::Data
    } else {
        Verdict::Environment
    }
}

/// States of class 22 that say that a column has another type than the rows are encoded for: the
/// table was altered, and no reading is at fault.
const FORMAT: [SqlState; 2] = [
    SqlState::INVALID_BINARY_REPRESENTATION,
    SqlState::BAD_COPY_FILE_FORMAT,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str, constraint: Option<&str>) -> Verdict {
        verdict(Some(&SqlState::from_code(code)), constraint)
    }

    #[test]
    fn only_what_can_be_a_readings_fault_is_data() {
        for code in ["22003", "22021", "22P02", "23502"] {
            assert_eq!(of(code, None), Verdict::Data, "{code}");
        }
        assert_eq!(of("23505", Some("history_pkey")), Verdict::Repeat);
        assert_eq!(of("23514", Some("voltage_check")), Verdict::Data);
        assert_eq!(of("23514", None), Verdict::Partition);
        let environment = [
            "23503", "42P01", "42501", "53100", "53200", "53300", "57P01", "57014", "40001",
            "40P01", "55P03", "25006", "08006", "XX000", "42703", "0A000", "22P03", "22P04",
        ];
        for code in environment {
            assert_eq!(of(code, None), Verdict::Environment, "{code}");
        }
        assert_eq!(verdict(None, None), Verdict::Environment);
    }
}
