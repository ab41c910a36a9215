//! The oracle: each acknowledged reading is a debt that a stored reading must pay.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::{Client, Row};

use super::CampaignError;
use super::gateway::Database;
use super::load::{Answers, Debt, Ledger, START, Values, values};
use crate::verdict::Verdict;

/// How often the database is checked.
const EVERY: Duration = Duration::from_millis(300);

/// What the database holds and what it should hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Comparison {
    answers: Answers,
    sent: u64,
    due: u64,
    stored: u64,
    /// Acknowledged, but not stored.
    lost: u64,
    /// Stored, but never sent, or sent with other values.
    invented: u64,
    /// The difference between the checkpoints' counts and the number of rows. A batch that was stored twice shows
    /// only here, because a row cannot exist twice.
    doubled: u64,
    /// In quarantine, although no readings contradict each other and the database refuses none.
    quarantined: u64,
    /// Further expectations that were not met.
    missed: Vec<&'static str>,
}

/// Waits until every debt is paid or the time is over, and then compares.
///
/// # Errors
/// [`CampaignError`]: the database could not be reached in time.
pub(crate) async fn compare(
    database: &Database,
    ledgers: Vec<Ledger>,
    within: Duration,
) -> Result<Comparison, CampaignError> {
    let deadline = Instant::now() + within;
    loop {
        let seen = async {
            let client = database.connect().await?;
            look(&client, &ledgers).await
        };
        match seen.await {
            Ok(comparison) if comparison.lost == 0 => return Ok(comparison),
            Ok(comparison) if Instant::now() > deadline => return Ok(comparison),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Ok(_) | Err(_) => tokio::time::sleep(EVERY).await,
        }
    }
}

async fn look(client: &Client, ledgers: &[Ledger]) -> Result<Comparison, tokio_postgres::Error> {
    let mut result = Comparison::default();
    // One statement reads the counts and the rows, so that both are from the same moment.
    let sums = client
        .query_one(include_str!("../../sql/campaign_sums.sql"), &[])
        .await?;
    let [rows, stored, quarantined] = [0, 1, 2].map(|column| sums.get::<_, i64>(column));
    result.doubled = rows.abs_diff(stored);
    result.quarantined = quarantined.unsigned_abs();
    let mut there = HashMap::new();
    for sql in [
        include_str!("../../sql/campaign_meters.sql"),
        include_str!("../../sql/campaign_vehicles.sql"),
    ] {
        for row in client.query(sql, &[]).await? {
            let (device, step, values) = reading(&row);
            there.insert((device, step), values);
        }
    }
    result.stored = there.len() as u64;
    let mut known = 0;
    for ledger in ledgers {
        result.answers.add(&ledger.answers);
        for account in &ledger.accounts {
            result.sent += account.debts.len() as u64;
            for (step, debt) in account.debts.iter().enumerate() {
                result.due += u64::from(*debt == Debt::Due);
                match there.get(&(account.device.clone(), step as i64)) {
                    None => result.lost += u64::from(*debt == Debt::Due),
                    Some(found) if *found == values(ledger.seed, &account.device, step) => {
                        known += 1;
                    }
                    Some(_) => {}
                }
            }
        }
    }
    result.invented = result.stored - known;
    Ok(result)
}

/// The device, step and values of a row. A negative step means that no step has this time.
fn reading(row: &Row) -> (String, i64, Values) {
    let at: SystemTime = row.get(1);
    let micros = at
        .duration_since(UNIX_EPOCH)
        .map_or(-1, |since| since.as_micros() as i64);
    let step = micros / 1_000_000 - START;
    let values = Values {
        kwh: row.get::<_, Option<f64>>(2).unwrap_or(f64::NAN),
        level: row.get(3),
        temperature: row.get(4),
    };
    let whole = micros % 1_000_000 == 0;
    (row.get(0), if whole { step } else { -1 }, values)
}

impl Comparison {
    pub(crate) fn answers(&self) -> Answers {
        self.answers
    }

    /// Records a further expectation.
    pub(crate) fn expect(&mut self, holds: bool, what: &'static str) {
        if !holds {
            self.missed.push(what);
        }
    }

    /// Right if every debt is paid once and nothing else is stored.
    pub(crate) fn verdict(&self) -> Verdict {
        let wrong = self.lost + self.doubled + self.invented + self.quarantined;
        if wrong + self.answers.wrong == 0 && self.missed.is_empty() && self.due > 0 {
            Verdict::Right
        } else {
            Verdict::Wrong
        }
    }

    pub(crate) fn to_text(&self) -> String {
        let Answers {
            taken,
            shed,
            uncommitted,
            refused,
            cut,
            wrong,
        } = self.answers;
        let missed: String = self
            .missed
            .iter()
            .map(|it| format!("MISSED: {it}\n"))
            .collect();
        format!(
            "{} requests: {taken} accepted, {shed} shed, {uncommitted} not committed in time, \
             {refused} found no gateway, {cut} cut off, {wrong} answered wrongly\n\
             {} readings sent, {} of them due, {} stored\n\
             {} lost, {} doubled, {} invented, {} in quarantine: {:?}\n{missed}",
            self.answers.requests(),
            self.sent,
            self.due,
            self.stored,
            self.lost,
            self.doubled,
            self.invented,
            self.quarantined,
            self.verdict(),
        )
    }
}
