//! T10: how soon a gateway acknowledges after its start.

use std::time::{Duration, Instant};

use super::TargetsError;
use super::cases::Run;
use super::server::Reset;
use super::table::{Row, Target};

impl Run<'_> {
    pub(super) fn t10(&mut self) -> Result<(), TargetsError> {
        let database = self.clear()?;
        let first = self.time_to_ack(database.as_ref())?;
        let again = self.time_to_ack(database.as_ref())?;
        for (what, seconds, most) in [
            ("first start ever to the first acknowledgement", first, 6.0),
            ("start with an existing cluster to the same", again, 1.5),
        ] {
            self.push(Row {
                unit: "s",
                target: Target::AtMost(most),
                ..self.row("T10", what.to_owned(), seconds)
            });
        }
        self.clear()?;
        Ok(())
    }

    fn time_to_ack(&self, database: Option<&Reset>) -> Result<f64, TargetsError> {
        let began = Instant::now();
        let gateway = self.start(database)?;
        while !gateway.take_one() {
            if began.elapsed() > Duration::from_secs(60) {
                return Err(TargetsError::Gateway("it acknowledges nothing".to_owned()));
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        gateway.wait_ready()?;
        gateway.stop()?;
        Ok(seconds)
    }
}
