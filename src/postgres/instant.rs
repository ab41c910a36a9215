//! Instants as PostgreSQL's `timestamptz`: microseconds since 2000 on the wire, exactly.

use std::error::Error;

use bytes::BytesMut;
use postgres_types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::reading::Timestamp;

impl ToSql for Timestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let epoch = Timestamp::Y2000.as_micros();
        // PostgreSQL would read the least and the greatest i64 as infinities.
        let micros = self
            .as_micros()
            .saturating_sub(epoch)
            .clamp(i64::MIN + 1, i64::MAX - 1);
        micros.to_sql(&Type::INT8, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let micros = i64::from_sql(&Type::INT8, raw)?;
        Ok(Timestamp::from_micros(
            micros.saturating_add(Timestamp::Y2000.as_micros()),
        ))
    }

    accepts!(TIMESTAMPTZ);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_comes_back_as_it_went() {
        for micros in [0, 1, -1, 1_707_492_600_123_456, -62_135_596_800_000_000] {
            let at = Timestamp::from_micros(micros);
            let mut wire = BytesMut::new();
            at.to_sql(&Type::TIMESTAMPTZ, &mut wire).unwrap();
            assert_eq!(Timestamp::from_sql(&Type::TIMESTAMPTZ, &wire).unwrap(), at);
        }
    }

    #[test]
    fn no_instant_is_written_as_an_infinity() {
        for micros in [i64::MIN, i64::MAX] {
            let mut wire = BytesMut::new();
            Timestamp::from_micros(micros)
                .to_sql(&Type::TIMESTAMPTZ, &mut wire)
                .unwrap();
            let written = i64::from_sql(&Type::INT8, &wire).unwrap();
            assert!(written != i64::MIN && written != i64::MAX);
        }
    }
}
