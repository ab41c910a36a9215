//! What a database error means for a batch: pure decisions from the SQLSTATE and the strategy that was tried.

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// How many clean batches in a row end the search for repeats.
const CLEAN_BATCHES: u32 = 20;

/// How a batch is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// COPY everything: right while nothing is repeated.
    Copy,
    /// Look up only suspects, and COPY the rest. Suspects are rows no newer than the newest that this session stored
    /// for their device, and rows of devices that it does not remember. This makes a few repeats cheap.
    Careful,
    /// Look up every key, and COPY the rows that are new.
    Probe,
    /// Insert with `on conflict do nothing`, because another gateway is storing the same keys right now.
    Insert,
    /// Look up every key, then halve the new rows until the refused ones are found.
    Bisect,
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A key exists already: find out which, and store the rest.
    Repeat,
    /// No partition accepts a row, or something other than a constraint reported a check violation. Which of the
    /// two it is depends on whether the row's partition exists.
    Partition,
    /// A reading's data is refused: find it and set it aside.
    Data,
    /// Any other error is the environment's fault: reconnect and try again.
    Environment,
}

/// Classifies an error of the driver.
pub fn verdict_of(error: &Error) -> Verdict {
    let constraint = error.as_db_error().and_then(DbError::constraint);
    verdict(error.code(), constraint)
}

/// Decides by the SQLSTATE and the constraint's name, never by a message's text.
///
/// Quarantine is an allow-list: a reading is set aside only for errors that it can cause itself. For every other
/// error the writer waits. A missing partition has the SQLSTATE of a broken CHECK constraint, but names no
/// constraint.
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

/// SQLSTATEs of class 22 for a column whose type is not the one that rows are encoded for. The table was altered,
/// and no reading is at fault.
const FORMAT: [SqlState; 2] = [
    SqlState::INVALID_BINARY_REPRESENTATION,
    SqlState::BAD_COPY_FILE_FORMAT,
];

/// Whether the partitions were reloaded since the batch was first tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// They were not.
    NotYet,
    /// They were.
    Done,
}

/// Decides how a refused batch is tried again in the same session.
///
/// Shape:  `None` gives up the session; the same strategy means to try once more after reloading the partitions
pub fn next_strategy(strategy: Strategy, verdict: Verdict, reload: Reload) -> Option<Strategy> {
    match verdict {
        Verdict::Repeat => match strategy {
            Strategy::Copy => Some(Strategy::Careful),
            Strategy::Careful => Some(Strategy::Probe),
            Strategy::Probe | Strategy::Bisect => Some(Strategy::Insert),
            // This strategy skips existing keys, so something else is wrong.
            Strategy::Insert => None,
        },
        Verdict::Partition if reload == Reload::NotYet => Some(strategy),
        Verdict::Partition | Verdict::Data => {
            (strategy != Strategy::Bisect).then_some(Strategy::Bisect)
        }
        Verdict::Environment => None,
    }
}

/// The strategy of the next batch, and how many clean batches came since the last repeat.
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
    /// Records a batch without repeats. If the strategy changed meanwhile, the batch did contain repeats, and is
    /// recorded as one that did.
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

    /// Every code that PostgreSQL can send. The classes that matter are generated more often.
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
            // The name of a constraint decides nothing.
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
                // The same strategy is allowed only once, after reloading the partitions.
                let is_same = next == strategy;
                let may_reload = answer == Verdict::Partition && reload == Reload::NotYet;
                prop_assert!(!is_same || may_reload);
                if is_same {
                    reload = Reload::Done;
                }
                // From any strategy, at most three repeats follow one another.
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
        // A batch that was refused and then stored with another strategy.
        memory.strategy = Strategy::Probe;
        memory.note_clean(Strategy::Copy);
        assert_eq!(memory.strategy, Strategy::Careful);
        assert_eq!(memory.clean_batches, 0);
    }
}
