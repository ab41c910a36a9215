//! T9: how the cost grows with history, measured by the load of T1 on databases of different sizes.

use super::TargetsError;
use super::cases::Run;
use super::history::{self, MINUTE_US, Shape};
use super::table::{Row, Target};
use crate::output::say;

/// Devices of the history: as many meters as the load has, and as many vehicles again.
const DEVICES: u32 = 40_000;

/// How long before now the history ends: an hour before the load's first reading.
const BEFORE_NOW_US: i64 = 25 * 60 * MINUTE_US;

impl Run<'_> {
    /// Sends T1's load on top of each history. The last result is compared with the first.
    pub(super) fn t9(&mut self) -> Result<(), TargetsError> {
        let seconds = self.options().seconds;
        let mut first = None;
        for rows in self.options().growth_rows.clone() {
            let gateway = self.fresh()?;
            let shape = Shape {
                devices: DEVICES,
                rows,
                end_us: jiff::Timestamp::now().as_microsecond() - BEFORE_NOW_US,
            };
            // The gateway creates the partitions; each day of the history lies in one of them.
            let day = 24 * 60 * MINUTE_US;
            let mut at_us = shape.start_us();
            loop {
                let at = jiff::Timestamp::from_microsecond(at_us.min(shape.end_us));
                gateway.take_both_at(&at.unwrap_or_default().to_string());
                if at_us >= shape.end_us {
                    break;
                }
                at_us += day;
            }
            gateway.wait_stored()?;
            say(&format!("filling {rows} readings"));
            history::fill(&gateway.database_url, shape)?;
            let loaded = self.load(&gateway, seconds, &[])?;
            gateway.stop()?;
            let figure = loaded.committed();
            let limit = first.map(|first| ("the first".to_owned(), first));
            first.get_or_insert(figure);
            self.push(Row {
                unit: "committed/s",
                target: match limit {
                    Some(_) => Target::RatioAtLeast(0.8),
                    // Later results are compared with this one.
                    None => Target::Shown,
                },
                limit,
                is_right: loaded.is_right(),
                detail: loaded.to_json(),
                ..self.row(
                    "T9",
                    format!("T1 for {seconds} s onto {rows} readings of history"),
                    figure,
                )
            });
        }
        Ok(())
    }
}
