//! Campaigns: a real gateway under mixed load, with faults at random moments. An oracle checks that no
//! acknowledged reading is lost or doubled, and none is invented.
//!
//! [`faults`] breaks one gateway or its database, [`disks`] fills disks, [`fleet`] replaces gateways one by one,
//! [`failover`] promotes standbys, and [`overload`] sends too much. [`gateway`] runs the processes, [`load`] sends
//! readings and keeps the ledger, [`mod@network`] is a proxy that cuts connections, [`small_disk`] a file system
//! that can be filled, and [`check`] compares the database with the ledger.

mod check;
mod disks;
mod failover;
mod faults;
mod fleet;
mod gateway;
mod load;
mod network;
mod overload;
mod plain;
pub(crate) mod random;
mod small_disk;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::sync::watch;

use self::check::Comparison;
use self::gateway::DataDir;
use self::load::{Ledger, Manner};
use self::random::Random;
use crate::output::{report, say};
use crate::verdict::Verdict;

/// How long the gateway may take after the last fault to store everything.
const DRAIN_WITHIN: Duration = Duration::from_secs(120);

/// Run a gateway under load, break things at random moments, and compare the database with the acknowledged readings
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// What to break
    #[arg(value_enum)]
    fault: Fault,
    /// The gateway's binary
    #[arg(long, value_name = "PATH")]
    gateway: PathBuf,
    /// For `upgrade`: the binary of the earlier build, which is replaced
    #[arg(long, value_name = "PATH", required_if_eq("fault", "upgrade"))]
    previous: Option<PathBuf>,
    /// For `kill`, `database` and `restore`: use a server with PostgreSQL's defaults instead of the
    /// embedded one, with the programs in this directory. For `failover`: the programs of both servers
    /// [default: the newest in /usr/lib/postgresql]
    #[arg(long, value_name = "BIN")]
    server_defaults: Option<PathBuf>,
    /// How often to break it; for `overload`, the duration in seconds
    #[arg(
        long,
        visible_alias = "promotions",
        default_value_t = 10,
        value_name = "N"
    )]
    rounds: u32,
    /// Determines the load and the moments of the faults; it is printed, so that a run can be repeated [default:
    /// random]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// The number of connections that send
    #[arg(long, default_value_t = 8, value_name = "N")]
    connections: u32,
}

/// The fault of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// kill -9 of the gateway
    Kill,
    /// Ended backends, and immediate stops of PostgreSQL
    Database,
    /// PostgreSQL restored from an older copy
    Restore,
    /// Connections to PostgreSQL cut or stalled, around COMMIT too
    Network,
    /// The log's disk filled while the database is unavailable; only root can mount one
    Disk,
    /// PostgreSQL's disk filled; only root can mount one
    DatabaseDisk,
    /// Two gateways on one database restarted in turn, sometimes with two SIGTERMs in a row
    Rolling,
    /// Gateways of an earlier build replaced in turn, and the database migrated under load
    Upgrade,
    /// A standby promoted again and again, while the old primary crashes, keeps running, or comes back
    Failover,
    /// More than three times the load that a slow database can store
    Overload,
}

/// Why a campaign has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CampaignError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the database: {}", crate::output::cause(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error("the gateway did not start: {0}")]
    Start(String),
    #[error("the gateway is stuck: {0}")]
    Stuck(&'static str),
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
        Fault::Kill => faults::kill(options, &dir, &mut random, seed).await?,
        Fault::Database => faults::database(options, &dir, &mut random, seed).await?,
        Fault::Restore => faults::restore(options, &dir, seed).await?,
        Fault::Network => faults::network(options, &dir, seed).await?,
        Fault::Disk => disks::of_the_log(options, &dir, &mut random, seed).await?,
        Fault::DatabaseDisk => disks::of_the_database(options, &dir, &mut random, seed).await?,
        Fault::Rolling => fleet::rolling(options, &dir, &mut random, seed).await?,
        Fault::Upgrade => fleet::upgrade(options, &dir, &mut random, seed).await?,
        Fault::Failover => failover::failover(options, &dir, &mut random, seed).await?,
        Fault::Overload => overload::overload(options, &dir, seed).await?,
    };
    if comparison.verdict() == Verdict::Right {
        dir.remove();
    } else {
        say(&format!("kept for inspection: {}", dir.path().display()));
    }
    Ok((comparison, happened))
}

/// The comparison of a campaign, and its faults in words.
type Outcome = Result<(Comparison, String), CampaignError>;

/// The load while faults happen.
struct Load {
    stop: watch::Sender<bool>,
    taken: watch::Sender<u64>,
    tasks: tokio::task::JoinSet<Ledger>,
}

impl Load {
    fn start(options: &Options, manner: &Manner, seed: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let taken = watch::Sender::new(0);
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..options.connections {
            let (manner, stopped) = (manner.clone(), stopped.clone());
            let worker = load::Worker::new(seed, number, manner, stopped, taken.clone());
            tasks.spawn(worker.run());
        }
        Load { stop, taken, tasks }
    }

    /// How many requests have been acknowledged so far.
    fn taken(&self) -> u64 {
        *self.taken.borrow()
    }

    /// Waits until this many further requests are acknowledged.
    async fn goes_on(&self, requests: u64) -> Result<(), CampaignError> {
        let wanted = self.taken() + requests;
        let mut taken = self.taken.subscribe();
        let waiting = taken.wait_for(|taken| *taken >= wanted);
        match tokio::time::timeout(DRAIN_WITHIN, waiting).await {
            Ok(_) => Ok(()),
            Err(_) => Err(CampaignError::Stuck("nothing is acknowledged")),
        }
    }

    async fn stop(self) -> Vec<Ledger> {
        self.stop.send_replace(true);
        self.tasks.join_all().await
    }
}
