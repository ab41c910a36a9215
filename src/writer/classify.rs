//! What an error of the database means for a batch: a pure decision on its SQLSTATE.

use tokio_postgres::error::SqlState;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A key is there already: look which, and store the rest.
    Repeat,
    /// No partition takes a row, or a rule of the table refuses it: which of the two depends on
    /// whether its partition exists.
    CheckViolation,
    /// The data of a reading are refused: find it and set it aside.
    Data,
    /// Everything else: the environment. Connect again and try again.
    Environment,
}

/// Decides by the SQLSTATE, never by the text of a message.
///
/// Quarantine is an allow-list: only what can be a reading's own fault goes there. Whatever is
/// not known to be data is the environment's, and is waited for.
pub fn verdict(code: Option<&SqlState>) -> Verdict {
    let Some(code) = code else {
        return Verdict::Environment;
    };
    if *code == SqlState::UNIQUE_VIOLATION {
        Verdict::Repeat
    } else if *code == SqlState::CHECK_VIOLATION {
        Verdict::CheckViolation
    } else if *code == SqlState::NOT_NULL_VIOLATION || code.code().starts_with("22") {
        Verdict::Data
    } else {
        Verdict::Environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_readings_fault_is_data() {
        for code in ["22003", "22021", "22P02", "23502"] {
            assert_eq!(
                verdict(Some(&SqlState::from_code(code))),
                Verdict::Data,
                "{code}"
            );
        }
        assert_eq!(
            verdict(Some(&SqlState::from_code("23505"))),
            Verdict::Repeat
        );
        assert_eq!(
            verdict(Some(&SqlState::from_code("23514"))),
            Verdict::CheckViolation
        );
        let environment = [
            "23503", "42P01", "42501", "53100", "53200", "53300", "57P01", "57014", "40001",
            "40P01", "55P03", "25006", "08006", "XX000", "42703", "0A000",
        ];
        for code in environment {
            assert_eq!(
                verdict(Some(&SqlState::from_code(code))),
                Verdict::Environment,
                "{code}"
            );
        }
        assert_eq!(verdict(None), Verdict::Environment);
    }
}
