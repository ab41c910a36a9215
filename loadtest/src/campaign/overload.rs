//! Sends more than the gateway can take, for some time.

use std::time::Duration;

use super::check;
use super::gateway::{DataDir, Setup};
use super::load::Manner;
use super::{CampaignError, DRAIN_WITHIN, Load, Options, Outcome};

/// How often the gateway's memory is read.
const EVERY: Duration = Duration::from_secs(1);
/// How much the process may grow while the load stays the same.
const GROWTH_BYTES_MAX: u64 = 16 << 20;

/// Sends without pauses to a gateway whose database is slow, and watches the gateway's memory.
pub(super) async fn overload(options: &Options, dir: &DataDir, seed: u64) -> Outcome {
    let mut gateway = Setup::new(&options.gateway, dir)
        .wal_limit("64MiB")
        // A large batch would hold its locks for as long as the slow database takes.
        .flags(&["--batch-rows", "1000"])
        .start()
        .await?;
    let database = gateway.database();
    database.is_used(DRAIN_WITHIN).await?;
    database
        .run(include_str!("../../sql/slow_down.sql"))
        .await?;
    let load = Load::start(options, &Manner::quick(gateway.address()), seed);
    let mut resident = Vec::new();
    for _ in 0..options.rounds {
        tokio::time::sleep(EVERY).await;
        resident.push(gateway.resident_bytes()?);
    }
    let ledgers = load.stop().await;
    database.run(include_str!("../../sql/speed_up.sql")).await?;
    let mut comparison = check::compare(&database, ledgers, DRAIN_WITHIN).await?;
    let answers = comparison.answers();
    let enough = answers.shed >= 2 * answers.taken;
    comparison.expect(enough, "three times the load that was accepted");
    // Memory grows at first, while buffers and caches fill up.
    let (first, second) = resident.split_at(resident.len() / 2);
    let most = |of: &[u64]| of.iter().max().copied().unwrap_or(0);
    let flat = most(second) <= most(first) + GROWTH_BYTES_MAX;
    comparison.expect(flat, "flat memory");
    gateway.terminate().await?;
    let mebibytes = |bytes: u64| bytes >> 20;
    let happened = format!(
        "{} s; resident memory {} MiB at most in the first half, {} to {} MiB in the second",
        options.rounds,
        mebibytes(most(first)),
        mebibytes(second.iter().min().copied().unwrap_or(0)),
        mebibytes(most(second)),
    );
    Ok::<_, CampaignError>((comparison, happened))
}
