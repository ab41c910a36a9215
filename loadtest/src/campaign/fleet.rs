//! Two gateways on one database, replaced in turn under load.

use std::path::Path;
use std::time::Duration;

use super::check::{self, Comparison};
use super::gateway::{DataDir, Database, Gateway, Setup};
use super::load::{Ledger, Manner};
use super::random::Random;
use super::{DRAIN_WITHIN, Load, Options, Outcome};

/// This many requests prove that both gateways accept readings.
const SOME: u64 = 40;

/// The gateways, each with its own directory, and the server with their database.
struct Fleet {
    host: Gateway,
    gateways: Vec<Gateway>,
    dirs: Vec<DataDir>,
    server: Database,
}

impl Fleet {
    async fn start(binary: &Path, dir: &DataDir) -> Result<Self, super::CampaignError> {
        let host_dir = dir.beside("host")?;
        let host = Setup::new(binary, &host_dir).start().await?;
        let server = host.database();
        let mut fleet = Fleet {
            host,
            gateways: Vec::new(),
            dirs: vec![host_dir],
            server,
        };
        for name in ["one", "other"] {
            let dir = dir.beside(name)?;
            let setup = Setup::new(binary, &dir).on(&fleet.server);
            fleet.gateways.push(setup.start().await?);
            fleet.dirs.push(dir);
        }
        Ok(fleet)
    }

    /// Clients that know both gateways and repeat a request until one of them accepts it.
    fn clients(&self) -> Manner {
        let addresses = self.gateways.iter().map(|it| it.address().to_owned());
        Manner {
            addresses: addresses.collect(),
            insists: true,
            ..Manner::mixed("")
        }
    }

    /// Compares, and stops everything.
    async fn end(mut self, ledgers: Vec<Ledger>) -> Result<Comparison, super::CampaignError> {
        let comparison = check::compare(&self.server, ledgers, DRAIN_WITHIN).await?;
        for gateway in &mut self.gateways {
            gateway.terminate().await?;
        }
        self.host.terminate().await?;
        for dir in &self.dirs {
            dir.remove();
        }
        Ok(comparison)
    }
}

/// Restarts the gateways in turn. Every other stop is two SIGTERMs in a row.
pub(super) async fn rolling(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Outcome {
    let mut fleet = Fleet::start(&options.gateway, dir).await?;
    let load = Load::start(options, &fleet.clients(), seed);
    for round in 0..options.rounds {
        tokio::time::sleep(random.millis(50, 500)).await;
        let mut gateway = fleet.gateways.remove(0);
        if round % 4 < 2 {
            gateway.terminate().await?;
        } else {
            gateway.terminate_twice(random.millis(0, 40)).await?;
        }
        fleet.gateways.push(gateway.again().await?);
        load.goes_on(SOME).await?;
    }
    let mut comparison = fleet.end(load.stop().await).await?;
    let answers = comparison.answers();
    comparison.expect(answers.cut == 0, "no request cut off");
    Ok((comparison, format!("{} restarts in turn", options.rounds)))
}

/// Replaces gateways of an earlier build with this one.
pub(super) async fn upgrade(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Outcome {
    let previous = options.previous.as_deref().unwrap_or(&options.gateway);
    let mut fleet = Fleet::start(previous, dir).await?;
    // A gateway accepts readings before its database is migrated. Its writers start after that.
    fleet.server.is_used(DRAIN_WITHIN).await?;
    let before = fleet.server.migrations().await?;
    let load = Load::start(options, &fleet.clients(), seed);
    for _ in 0..2 {
        load.goes_on(SOME).await?;
        tokio::time::sleep(random.millis(500, 2000)).await;
        let mut gateway = fleet.gateways.remove(0);
        gateway.terminate().await?;
        fleet
            .gateways
            .push(gateway.again_as(&options.gateway).await?);
        load.goes_on(SOME).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let after = fleet.server.migrations().await?;
    let mut comparison = fleet.end(load.stop().await).await?;
    // With an earlier build of the same schema, the test would pass without testing a migration.
    comparison.expect(
        options.previous.is_none() || before < after,
        "a migration between the earlier build and this one",
    );
    Ok((comparison, format!("from migration {before} to {after}")))
}
