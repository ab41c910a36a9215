//! Campaigns: a real gateway under mixed load, faults at random moments, and an oracle that keeps
//! every acknowledged reading as a debt and checks that all are paid: none lost, none twice, none
//! invented.
//!
//! [`gateway`] runs the processes, [`load`] sends and keeps the ledger, [`mod@network`] is a proxy that
//! cuts connections, [`check`] compares the database with the ledger.

mod check;
mod gateway;
mod load;
mod network;
pub(crate) mod random;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::sync::watch;

use self::check::Comparison;
use self::gateway::{DataDir, Database, Gateway};
use self::load::Ledger;
use self::network::Proxy;
use self::random::Random;
use crate::cli::Verdict;
use crate::output::{report, say};

/// How long the gateway may take to store everything after the last fault.
const DRAIN_WITHIN: Duration = Duration::from_secs(120);

/// How long the writers may take to find their database again.
const WRITES_WITHIN: Duration = Duration::from_secs(60);

/// Run a gateway under load, break things at random moments, compare at the end
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// What is broken
    #[arg(value_enum)]
    fault: Fault,
    /// The gateway's binary
    #[arg(long, value_name = "PATH")]
    gateway: PathBuf,
    /// How often it is broken
    #[arg(long, default_value_t = 10, value_name = "N")]
    rounds: u32,
    /// Decides the load and the moments; printed, so that a run can be repeated [default: random]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Connections that send
    #[arg(long, default_value_t = 8, value_name = "N")]
    connections: u32,
}

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// kill -9 of the gateway
    Kill,
    /// Ended backends, and immediate stops of PostgreSQL
    Database,
    /// PostgreSQL put back to an older copy
    Restore,
    /// Connections to PostgreSQL cut or stalled, around COMMIT too
    Network,
}

/// Why a campaign has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CampaignError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the database: {0}")]
    Database(#[from] tokio_postgres::Error),
    #[error("the gateway did not start: {0}")]
    Start(String),
}

/// Runs a campaign.
///
/// Blocks: until everything is compared
///
/// # Errors
/// [`CampaignError`]: there is no result.
pub(crate) fn run(options: Options) -> Result<Verdict, CampaignError> {
    let seed = options.seed.unwrap_or_else(random::seed);
    say(&format!("seed {seed}"));
    let runtime = tokio::runtime::Runtime::new()?;
    let began = Instant::now();
    let (comparison, happened) = runtime.block_on(campaign(&options, seed))?;
    let verdict = comparison.verdict();
    report(&format!(
        "campaign {:?}, seed {seed}, {} rounds in {:.1} s: {happened}\n{}",
        options.fault,
        options.rounds,
        began.elapsed().as_secs_f64(),
        comparison.to_text(),
    ))?;
    Ok(verdict)
}

async fn campaign(options: &Options, seed: u64) -> Result<(Comparison, String), CampaignError> {
    let dir = DataDir::new(seed)?;
    let mut random = Random::new(seed);
    let (comparison, happened) = match options.fault {
        Fault::Kill => kill(options, &dir, &mut random, seed).await?,
        Fault::Database => database(options, &dir, &mut random, seed).await?,
        Fault::Restore => restore(options, &dir, seed).await?,
        Fault::Network => network(options, &dir, seed).await?,
    };
    if comparison.verdict() == Verdict::Right {
        dir.remove();
    } else {
        say(&format!("kept for a look: {}", dir.path().display()));
    }
    Ok((comparison, happened))
}

/// The load beside the faults.
struct Load {
    stop: watch::Sender<bool>,
    tasks: tokio::task::JoinSet<Ledger>,
}

impl Load {
    fn start(options: &Options, address: &str, seed: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..options.connections {
            let worker = load::Worker::new(seed, number, address.to_owned(), stopped.clone());
            tasks.spawn(worker.run());
        }
        Load { stop, tasks }
    }

    async fn stop(self) -> Vec<Ledger> {
        self.stop.send_replace(true);
        self.tasks.join_all().await
    }
}

async fn kill(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Result<(Comparison, String), CampaignError> {
    let mut gateway = Gateway::start(&options.gateway, dir, None).await?;
    let load = Load::start(options, gateway.address(), seed);
    for _ in 0..options.rounds {
        tokio::time::sleep(random.millis(50, 1500)).await;
        gateway.kill().await?;
        gateway = gateway.again().await?;
    }
    let ledgers = load.stop().await;
    let comparison = check::compare(&gateway.database(), ledgers, DRAIN_WITHIN).await?;
    gateway.terminate().await?;
    Ok((comparison, format!("{} kills", options.rounds)))
}

async fn database(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Result<(Comparison, String), CampaignError> {
    let mut gateway = Gateway::start(&options.gateway, dir, None).await?;
    let load = Load::start(options, gateway.address(), seed);
    let (mut stops, mut ended) = (0, 0);
    for round in 0..options.rounds {
        // Only a database that is used can be taken away.
        gateway.database().is_used(WRITES_WITHIN).await?;
        tokio::time::sleep(random.millis(5, 300)).await;
        if round % 5 == 4 {
            stops += u32::from(dir.stop_database_at_once()?);
        } else {
            // One that has gone by itself in this moment is none.
            ended += gateway.database().end_a_writer(random).await.unwrap_or(0);
        }
    }
    let ledgers = load.stop().await;
    let comparison = check::compare(&gateway.database(), ledgers, DRAIN_WITHIN).await?;
    gateway.terminate().await?;
    let happened = format!("{stops} immediate stops of PostgreSQL, {ended} backends ended");
    Ok((comparison, happened))
}

async fn restore(
    options: &Options,
    dir: &DataDir,
    seed: u64,
) -> Result<(Comparison, String), CampaignError> {
    let mut gateway = Gateway::start(&options.gateway, dir, None).await?;
    let load = Load::start(options, gateway.address(), seed);
    for _ in 0..options.rounds {
        tokio::time::sleep(Duration::from_millis(500)).await;
        gateway.terminate().await?;
        dir.back_up()?;
        gateway = gateway.again().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        gateway.terminate().await?;
        dir.restore()?;
        gateway = gateway.again().await?;
    }
    let ledgers = load.stop().await;
    let comparison = check::compare(&gateway.database(), ledgers, DRAIN_WITHIN).await?;
    gateway.terminate().await?;
    Ok((comparison, format!("{} restores", options.rounds)))
}

async fn network(
    options: &Options,
    dir: &DataDir,
    seed: u64,
) -> Result<(Comparison, String), CampaignError> {
    // A gateway of its own is the quickest way to a PostgreSQL server.
    let host_dir = dir.beside("host")?;
    let mut host = Gateway::start(&options.gateway, &host_dir, None).await?;
    let server = host.database();
    let proxy = Proxy::start(&server, dir.path(), seed).await?;
    let through = Database {
        socket_dir: dir.path().to_owned(),
        ..server.clone()
    };
    let mut gateway = Gateway::start(&options.gateway, dir, Some(&through)).await?;
    let load = Load::start(options, gateway.address(), seed);
    while proxy.faults() < options.rounds {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.heal();
    let ledgers = load.stop().await;
    let comparison = check::compare(&server, ledgers, DRAIN_WITHIN).await?;
    gateway.terminate().await?;
    host.terminate().await?;
    host_dir.remove();
    Ok((comparison, proxy.to_text()))
}
