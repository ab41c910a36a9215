//! What an error of the database means for a batch: pure decisions on its SQLSTATE, and on the strategy with
//! which the batch was tried.

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// How many clean batches in a row end the search for repeats.
const CLEAN_BATCHES: u32 = 20;

/// How a batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// COPY everything: right when nothing is repeated.
    Copy,
    /// Look up those rows that are not newer than all that this session has stored of their
    /// device, COPY the rest: a few repeats then cost little.
    Careful,
    /// Look up which keys are there, COPY the rest.
    Probe,
    /// Insert, passing over keys that are there, because another gateway stores the same keys at this moment.
    Insert,
    /// Look up, then halve until the rows are found that the database refuses.
    Bisect,
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A key is there already: find out which, and store the rest.
    Repeat,
    /// No partition accepts a row, or something other than a constraint reports a broken rule: whether the row's
    /// partition exists decides which of the two it is.
    Partition,
    /// The data of a reading are refused: find it and set it aside.
    Data,
    /// Everything else is the environment's fault. Connect again and try again.
    Environment,
}

/// Decides on an error as the driver gives it.
pub fn verdict_of(error: &Error) -> Verdict {
    let constraint = error.as_db_error().and_then(DbError::constraint);
    verdict(error.code(), constraint)
}

/// Decides by the SQLSTATE and the constraint's name, never by the text of a message.
///
/// Quarantine is an allow-list: only what can be a reading's own fault is set aside. Every other error belongs
/// to the environment, and the writer waits. A missing partition has the SQLSTATE of a broken CHECK, but
/// names no constraint.
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

/// States of class 22 for a column of another type than the rows are encoded for: the table was altered, and
/// no reading is at fault.
const FORMAT: [SqlState; 2] = [
    SqlState::INVALID_BINARY_REPRESENTATION,
    SqlState::BAD_COPY_FILE_FORMAT,
];

/// Whether the partitions were read again since a batch was tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// They were not.
    NotYet,
    /// They were.
    Done,
}

/// Decides how a batch is tried again in the same session, after it was refused.
///
/// Shape:  `None` means that the session is given up; the same strategy means once more, after the partitions
///         were read again
pub fn next_strategy(strategy: Strategy, verdict: Verdict, reload: Reload) -> Option<Strategy> {
    match verdict {
        Verdict::Repeat => match strategy {
            Strategy::Copy => Some(Strategy::Careful),
            Strategy::Careful => Some(Strategy::Probe),
            Strategy::Probe | Strategy::Bisect => Some(Strategy::Insert),
            // This strategy inserts no key that exists, so something else is wrong.
            Strategy::Insert => None,
        },
        Verdict::Partition if reload == Reload::NotYet => Some(strategy),
        Verdict::Partition | Verdict::Data => {
            (strategy != Strategy::Bisect).then_some(Strategy::Bisect)
        }
        Verdict::Environment => None,
    }
}

/// The strategy of the next batch, and for how long nothing has repeated.
#[derive(Debug)]
pub(super) struct StrategyMemory {
    pub(super) strategy: Strategy,
    clean_batches: u32,
}

impl Default for StrategyMemory {
    fn default() -> Self {
        StrategyMemory {
            strategy: Strategy::Copy,
            clean_batches: 0,
        }
    }
}

impl StrategyMemory {
    /// Records a batch without repeats. A batch during which the strategy changed did meet some.
    pub(super) fn note_clean(&mut self, before: Strategy) {
        if self.strategy != before {
            return self.note_repeats();
        }
        self.clean_batches += 1;
        self.settle();
    }

    pub(super) fn note_repeats(&mut self) {
        self.clean_batches = 0;
        self.settle();
    }

    /// Stays careful until enough batches in a row were clean.
    fn settle(&mut self) {
        self.strategy = match self.strategy {
            Strategy::Copy => Strategy::Copy,
            _ if self.clean_batches >= CLEAN_BATCHES => Strategy::Copy,
            _ => Strategy::Careful,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    // The other `Strategy` is proptest's.
    use super::Strategy;

    const STRATEGIES: [Strategy; 5] = [
        Strategy::Copy,
        Strategy::Careful,
        Strategy::Probe,
        Strategy::Insert,
        Strategy::Bisect,
    ];
    const VERDICTS: [Verdict; 4] = [
        Verdict::Repeat,
        Verdict::Partition,
        Verdict::Data,
        Verdict::Environment,
    ];

    /// Every code that PostgreSQL can send; the classes that matter come more often.
    fn codes() -> impl proptest::strategy::Strategy<Value = String> {
        prop_oneof![
            "2[0-9A-Z][0-9A-Z]{3}",
            "23[0-9]{3}",
            "22[0-9A-Z]{3}",
            "[0-9A-Z]{5}"
        ]
    }

    proptest! {
        #[test]
        fn nothing_outside_the_list_is_ever_taken_for_data(
            code in codes(),
            constraint in proptest::option::of("[a-z_]{1,12}"),
        ) {
            let may_be_data = code.starts_with("22") && !["22P03", "22P04"].contains(&&*code)
                || code == "23502"
                || code == "23514" && constraint.is_some();
            let found = of(&code, constraint.as_deref());
            prop_assert_eq!(found == Verdict::Data, may_be_data);
            prop_assert_eq!(found == Verdict::Repeat, code == "23505");
            // Whatever a constraint is called decides nothing.
            let renamed = constraint.as_ref().map(|_| "another");
            prop_assert_eq!(of(&code, renamed), found);
        }

        #[test]
        fn any_errors_of_the_database_lead_to_sensible_strategies(
            first in proptest::sample::select(&STRATEGIES[..]),
            answers in proptest::collection::vec(proptest::sample::select(&VERDICTS[..]), 0..40),
        ) {
            let (mut strategy, mut reload, mut since_data) = (first, Reload::NotYet, 0);
            for answer in answers {
                let next = next_strategy(strategy, answer, reload);
                prop_assert!(answer != Verdict::Environment || next.is_none());
                let Some(next) = next else { return Ok(()) };
                // Only refused data leads to setting single readings aside.
                let refused = matches!(answer, Verdict::Data | Verdict::Partition);
                prop_assert!(next != Strategy::Bisect || strategy == Strategy::Bisect || refused);
                // The same strategy again only after the partitions were read again, and once.
                let is_same = next == strategy;
                let may_reload = answer == Verdict::Partition && reload == Reload::NotYet;
                prop_assert!(!is_same || may_reload);
                if is_same {
                    reload = Reload::Done;
                }
                // From any strategy, repeats alone come to an end.
                since_data = if answer == Verdict::Repeat { since_data + 1 } else { 0 };
                prop_assert!(since_data <= 3);
                strategy = next;
            }
        }
    }

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
    #[test]
    fn repeats_are_looked_up_until_twenty_batches_are_clean() {
        let mut memory = StrategyMemory {
            strategy: Strategy::Probe,
            clean_batches: 0,
        };
        memory.note_repeats();
        for _ in 0..CLEAN_BATCHES - 1 {
            assert_eq!(memory.strategy, Strategy::Careful);
            memory.note_clean(Strategy::Careful);
        }
        assert_eq!(memory.strategy, Strategy::Careful);
        memory.note_clean(Strategy::Careful);
        assert_eq!(memory.strategy, Strategy::Copy);
        // A batch that was refused, and then stored with another strategy.
        memory.strategy = Strategy::Probe;
        memory.note_clean(Strategy::Copy);
        assert_eq!(memory.strategy, Strategy::Careful);
        assert_eq!(memory.clean_batches, 0);
    }
}
