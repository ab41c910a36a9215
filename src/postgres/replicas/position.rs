//! A position in the WAL, and the token of what was written before it.

use std::fmt;
use std::str::FromStr;

use super::super::lineage::Server;

/// The token of a position that is not known: only the primary is sure to hold what was written.
const UNKNOWN: &str = "primary";
/// The most digits of a system identifier, a timeline and a position, in hexadecimal.
const DIGITS_MAX: [usize; 3] = [16, 8, 16];

/// A position in the WAL of a server.
///
/// Positions of different servers cannot be compared: each timeline has a WAL of its own from its beginning on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalPosition {
    /// Whose WAL it is.
    pub(in crate::postgres) server: Server,
    /// Bytes from its beginning.
    pub(in crate::postgres) lsn: u64,
}

impl WalPosition {
    /// Whether everything before the other position lies before this one, as far as that is known.
    pub fn contains(&self, other: &WalPosition) -> bool {
        self.server == other.server && self.lsn >= other.lsn
    }

    /// What an answer of a primary is sure to hold, whose WAL ended here before the query began.
    ///
    /// A commit is in the WAL before others see it, and only then acknowledged. So the last record before this position
    /// may be a commit that the query did not see; its client then gets this same position as its token. A lower token
    /// was returned before this position was read, so the query has seen all that it stands for.
    pub(in crate::postgres) fn before_end(self) -> Self {
        WalPosition {
            lsn: self.lsn.saturating_sub(1),
            ..self
        }
    }
}

/// What an answer must hold, for example what a client has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// All of it lies before this position. It is a lower bound to wait for, and says nothing about an answer.
    Before(WalPosition),
    /// The position is not known, so the primary must answer.
    Unknown,
}

/// A text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAToken;

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Written::Before(WalPosition { server, lsn }) => {
                let system = server.system.cast_unsigned();
                write!(f, "{system:x}.{:x}.{lsn:x}", server.timeline)
            }
            Written::Unknown => f.write_str(UNKNOWN),
        }
    }
}

impl FromStr for Written {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        if text == UNKNOWN {
            return Ok(Written::Unknown);
        }
        let mut numbers = [0; 3];
        let mut parts = text.split('.');
        for (number, digits_max) in numbers.iter_mut().zip(DIGITS_MAX) {
            let digits = parts.next().ok_or(NotAToken)?;
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if digits.len() > digits_max || !digits.bytes().all(is_digit) {
                return Err(NotAToken);
            }
            *number = u64::from_str_radix(digits, 16).map_err(|_| NotAToken)?;
        }
        if parts.next().is_some() {
            return Err(NotAToken);
        }
        let [system, timeline, lsn] = numbers;
        let server = Server {
            system: system.cast_signed(),
            timeline: u32::try_from(timeline).map_err(|_| NotAToken)?,
        };
        if server.timeline == 0 {
            return Err(NotAToken);
        }
        Ok(Written::Before(WalPosition { server, lsn }))
    }
}

/// Reads a position as PostgreSQL writes it: two numbers of 32 bits in hexadecimal.
pub(in crate::postgres) fn lsn_of(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let high = u32::from_str_radix(high, 16).ok()?;
    let low = u32::from_str_radix(low, 16).ok()?;
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(system: i64, timeline: u32, lsn: u64) -> WalPosition {
        let server = Server { system, timeline };
        WalPosition { server, lsn }
    }

    #[test]
    fn a_token_survives_writing_and_reading() {
        let tokens = [
            Written::Unknown,
            Written::Before(at(7_583_512_345_678_901_234, 3, 0x16_b374_d848)),
            Written::Before(at(i64::MIN, u32::MAX, u64::MAX)),
            Written::Before(at(-1, 1, 0)),
        ];
        for token in tokens {
            let text = token.to_string();
            assert_eq!(text.parse(), Ok(token), "{text}");
        }
        for wrong in [
            "",
            "Primary",
            "1.2",
            "1.2.",
            "1.2.3.4",
            "+1.2.3",
            "1.2.g",
            "A.1.2",
            "1.000000001.2",
            "1.2.11111111111111111",
            "16/B374D848",
            "1.0.2",
            "..",
        ] {
            assert_eq!(wrong.parse::<Written>(), Err(NotAToken), "{wrong}");
        }
    }

    #[test]
    fn an_answer_of_the_primary_may_lack_the_commit_at_the_end_of_its_wal() {
        let end = at(1, 1, 5);
        assert!(!end.before_end().contains(&end));
        assert!(end.before_end().contains(&at(1, 1, 4)));
    }

    #[test]
    fn positions_of_other_servers_hold_nothing() {
        assert!(at(1, 1, 5).contains(&at(1, 1, 5)));
        assert!(!at(1, 1, 4).contains(&at(1, 1, 5)));
        assert!(!at(1, 2, 9).contains(&at(1, 1, 5)));
        assert!(!at(2, 1, 9).contains(&at(1, 1, 5)));
    }

    #[test]
    fn a_position_is_read_as_postgresql_writes_it() {
        assert_eq!(lsn_of("16/B374D848"), Some(0x16_b374_d848));
        assert_eq!(lsn_of("0/0"), Some(0));
        for wrong in ["", "16", "16/", "1/100000000"] {
            assert_eq!(lsn_of(wrong), None, "{wrong}");
        }
    }
}
