//! Full disks.

use std::time::{Duration, Instant};

use super::check;
use super::faults::expect_no_refusal;
use super::gateway::{DataDir, Setup};
use super::load::Manner;
use super::random::Random;
use super::small_disk::SmallDisk;
use super::{CampaignError, DRAIN_WITHIN, Load, Options, Outcome};

/// The size of the log's disk. It is larger than the log's limit, so that a freed disk has space for more segments.
const LOG_DISK_MIB: u64 = 96;
/// The size of PostgreSQL's disk: enough for a new cluster and some of its WAL.
const DATABASE_DISK_MIB: u64 = 320;
/// If nothing was acknowledged for this long, the prepared segments are used up.
const FULL_AFTER: Duration = Duration::from_secs(2);
/// How long it may take until a full disk is noticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);
/// How often the counts are checked.
const EVERY: Duration = Duration::from_millis(100);
/// This many acknowledged requests prove that the gateway accepts readings.
const SOME: u64 = 40;

/// Fills the log's disk while the database is stopped, may kill the gateway meanwhile, and frees the disk again.
pub(super) async fn of_the_log(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Outcome {
    let host_dir = dir.beside("host")?;
    let mut host = Setup::new(&options.gateway, &host_dir).start().await?;
    let server = host.database();
    // In the first round the log is not bound to a database yet.
    host.terminate().await?;
    let disk = SmallDisk::mount(dir.path().join("wal"), LOG_DISK_MIB)?;
    let mut gateway = Setup::new(&options.gateway, dir)
        .on(&server)
        .wal_limit("64MiB")
        .flags(&["--wal-allow-volatile"])
        .start()
        .await?;
    let load = Load::start(options, &Manner::quick(gateway.address()), seed);
    let mut kills = 0;
    for round in 0..options.rounds {
        load.goes_on(SOME).await?;
        if round > 0 {
            server.is_used(DRAIN_WITHIN).await?;
            host.terminate().await?;
        }
        disk.fill()?;
        until_nothing_is_taken(&load).await?;
        if round % 2 == 1 {
            gateway.kill().await?;
            gateway = gateway.again().await?;
            kills += 1;
        }
        tokio::time::sleep(random.millis(0, 1000)).await;
        // Space comes either from the test or from storing readings. In the first round it must be the latter, so
        // that the log has to store the database's id on a full disk.
        if round > 0 && random.below(2) == 0 {
            disk.free()?;
            load.goes_on(SOME).await?;
            host = host.again().await?;
        } else {
            host = host.again().await?;
            load.goes_on(SOME).await?;
            disk.free()?;
        }
    }
    let ledgers = load.stop().await;
    let mut comparison = check::compare(&server, ledgers, DRAIN_WITHIN).await?;
    let answers = comparison.answers();
    comparison.expect(answers.shed > 0, "503 with Retry-After from a full disk");
    gateway.terminate().await?;
    host.terminate().await?;
    drop(disk);
    host_dir.remove();
    let happened = format!(
        "the log's disk full {} times, {kills} kills meanwhile",
        options.rounds
    );
    Ok((comparison, happened))
}

/// Fills PostgreSQL's disk and frees it again.
pub(super) async fn of_the_database(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Outcome {
    let disk = SmallDisk::mount(dir.path().join("postgres"), DATABASE_DISK_MIB)?;
    let mut gateway = Setup::new(&options.gateway, dir).start().await?;
    let load = Load::start(options, &Manner::mixed(gateway.address()), seed);
    for _ in 0..options.rounds {
        load.goes_on(SOME).await?;
        let since = gateway.said_bytes()?;
        disk.fill()?;
        let began = Instant::now();
        while !gateway.has_said("cannot reach the database", since)? {
            if began.elapsed() > NOTICED_WITHIN {
                return Err(CampaignError::Stuck(
                    "the writers do not notice a full disk",
                ));
            }
            tokio::time::sleep(EVERY).await;
        }
        tokio::time::sleep(random.millis(1000, 4000)).await;
        disk.free()?;
        gateway.database().is_used(DRAIN_WITHIN).await?;
    }
    let ledgers = load.stop().await;
    let mut comparison = check::compare(&gateway.database(), ledgers, DRAIN_WITHIN).await?;
    expect_no_refusal(&mut comparison);
    gateway.terminate().await?;
    drop(disk);
    Ok((
        comparison,
        format!("PostgreSQL's disk full {} times", options.rounds),
    ))
}

/// Waits until nothing has been acknowledged for a while.
async fn until_nothing_is_taken(load: &Load) -> Result<(), CampaignError> {
    let began = Instant::now();
    let (mut last, mut since) = (load.taken(), Instant::now());
    while since.elapsed() < FULL_AFTER {
        if began.elapsed() > NOTICED_WITHIN {
            return Err(CampaignError::Stuck("a full disk causes no refusal"));
        }
        tokio::time::sleep(EVERY).await;
        if load.taken() != last {
            (last, since) = (load.taken(), Instant::now());
        }
    }
    Ok(())
}
