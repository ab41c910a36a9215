//! Shows the progress of the replay: a bar on a terminal, otherwise a line at intervals.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::send::Tally;
use crate::output::say;

/// The interval between lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The interval between redraws of the bar.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Shows the simulated time, the numbers of sent and acknowledged readings, and the energy.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    from_us: i64,
    began: Instant,
    shown: Instant,
}

impl Progress {
    /// Progress over a known time.
    pub(crate) fn over(from_us: i64, to_us: i64) -> Self {
        let seconds = u64::try_from((to_us - from_us) / 1_000_000).unwrap_or(0);
        Progress::new(from_us, ProgressBar::new(seconds), "{bar:30} {msg}")
    }

    /// Progress of a replay that continues until it is stopped.
    pub(crate) fn endless() -> Self {
        Progress::new(0, ProgressBar::new_spinner(), "{spinner} {msg}")
    }

    fn new(from_us: i64, bar: ProgressBar, template: &str) -> Self {
        let style = ProgressStyle::with_template(template);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress {
            bar: std::io::stderr().is_terminal().then_some(bar),
            from_us,
            began: Instant::now(),
            shown: Instant::now(),
        }
    }

    /// Shows the progress if an update is due.
    pub(crate) fn show(&mut self, at_us: i64, tally: &Tally) {
        let every = if self.bar.is_some() {
            DRAW_EVERY
        } else {
            LINE_EVERY
        };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let at = jiff::Timestamp::from_second(at_us / 1_000_000).unwrap_or_default();
        let line = format!("{at}  {}", self.words(tally));
        match &self.bar {
            Some(bar) => {
                bar.set_position(u64::try_from((at_us - self.from_us) / 1_000_000).unwrap_or(0));
                bar.set_message(line);
            }
            None => say(&line),
        }
    }

    /// Removes the bar and prints its last text.
    pub(crate) fn finish(&self, tally: &Tally) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&self.words(tally));
    }

    fn words(&self, tally: &Tally) -> String {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-3);
        format!(
            "sent {} readings ({:.0}/s), acknowledged {}, {:.3} kWh AC",
            tally.sent,
            tally.sent as f64 / seconds,
            tally.accepted,
            tally.ac_micro_kwh as f64 / 1e6,
        )
    }
}
