//! Faults of one gateway, its database, and the connection between them.

use std::time::Duration;

use super::check::{self, Comparison};
use super::gateway::{DataDir, Database, Setup};
use super::load::Manner;
use super::network::Proxy;
use super::plain::Plain;
use super::random::Random;
use super::{CampaignError, DRAIN_WITHIN, Load, Options, Outcome};

/// How long the writers may take to reconnect to their database.
const WRITES_WITHIN: Duration = Duration::from_secs(60);

/// Even without a database, only requests that wait for a commit may be refused.
pub(super) fn expect_no_refusal(comparison: &mut Comparison) {
    let answers = comparison.answers();
    comparison.expect(answers.shed == 0, "no request refused for the database");
    comparison.expect(answers.cut + answers.refused == 0, "every request answered");
}

pub(super) async fn kill(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Outcome {
    let (setup, mut server) = setup(options, dir).await?;
    let mut gateway = setup.start().await?;
    let load = Load::start(options, &Manner::mixed(gateway.address()), seed);
    for _ in 0..options.rounds {
        tokio::time::sleep(random.millis(50, 1500)).await;
        gateway.kill().await?;
        gateway = gateway.again().await?;
    }
    let ledgers = load.stop().await;
    let comparison = check::compare(&gateway.database(), ledgers, DRAIN_WITHIN).await?;
    gateway.terminate().await?;
    stop(&mut server).await?;
    Ok((comparison, format!("{} kills", options.rounds)))
}

pub(super) async fn database(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Outcome {
    let (setup, mut server) = setup(options, dir).await?;
    let mut gateway = setup.start().await?;
    let load = Load::start(options, &Manner::mixed(gateway.address()), seed);
    let (mut stops, mut ended) = (0, 0);
    for round in 0..options.rounds {
        // Stop the database only once it is in use.
        gateway.database().is_used(WRITES_WITHIN).await?;
        tokio::time::sleep(random.millis(5, 300)).await;
        if round % 5 == 4 {
            stops += u32::from(dir.stop_database_at_once()?);
            start(&mut server).await?;
        } else {
            // A backend that happens to end by itself does not count.
            ended += gateway.database().end_a_writer(random).await.unwrap_or(0);
        }
    }
    let ledgers = load.stop().await;
    let mut comparison = check::compare(&gateway.database(), ledgers, DRAIN_WITHIN).await?;
    expect_no_refusal(&mut comparison);
    gateway.terminate().await?;
    stop(&mut server).await?;
    let happened = format!("{stops} immediate stops of PostgreSQL, {ended} backends ended");
    Ok((comparison, happened))
}

pub(super) async fn restore(options: &Options, dir: &DataDir, seed: u64) -> Outcome {
    let (setup, mut server) = setup(options, dir).await?;
    let mut gateway = setup.start().await?;
    let load = Load::start(options, &Manner::mixed(gateway.address()), seed);
    for _ in 0..options.rounds {
        tokio::time::sleep(Duration::from_millis(500)).await;
        gateway.terminate().await?;
        stop(&mut server).await?;
        dir.back_up()?;
        start(&mut server).await?;
        gateway = gateway.again().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        gateway.terminate().await?;
        stop(&mut server).await?;
        dir.restore()?;
        start(&mut server).await?;
        gateway = gateway.again().await?;
    }
    let ledgers = load.stop().await;
    let comparison = check::compare(&gateway.database(), ledgers, DRAIN_WITHIN).await?;
    gateway.terminate().await?;
    stop(&mut server).await?;
    Ok((comparison, format!("{} restores", options.rounds)))
}

/// How the gateway is started: with its embedded server, or on one with PostgreSQL's defaults.
async fn setup(options: &Options, dir: &DataDir) -> Result<(Setup, Option<Plain>), CampaignError> {
    let setup = Setup::new(&options.gateway, dir);
    let Some(bin) = &options.server_defaults else {
        return Ok((setup, None));
    };
    let server = Plain::start(bin, dir).await?;
    Ok((setup.on(&server.database()), Some(server)))
}

/// Stops the server, unless the gateway manages it.
async fn stop(server: &mut Option<Plain>) -> Result<(), CampaignError> {
    match server {
        Some(server) => server.stop().await,
        None => Ok(()),
    }
}

/// Starts the server again, unless the gateway manages it.
async fn start(server: &mut Option<Plain>) -> Result<(), CampaignError> {
    match server {
        Some(server) => server.again().await,
        None => Ok(()),
    }
}

pub(super) async fn network(options: &Options, dir: &DataDir, seed: u64) -> Outcome {
    // Running another gateway is the quickest way to a PostgreSQL server.
    let host_dir = dir.beside("host")?;
    let mut host = Setup::new(&options.gateway, &host_dir).start().await?;
    let server = host.database();
    let proxy = Proxy::start(&server, dir.path(), seed).await?;
    let through = Database {
        socket_dir: dir.path().to_owned(),
        ..server.clone()
    };
    let mut gateway = Setup::new(&options.gateway, dir)
        .on(&through)
        .start()
        .await?;
    let load = Load::start(options, &Manner::mixed(gateway.address()), seed);
    while proxy.faults() < options.rounds {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.heal();
    let ledgers = load.stop().await;
    let mut comparison = check::compare(&server, ledgers, DRAIN_WITHIN).await?;
    expect_no_refusal(&mut comparison);
    gateway.terminate().await?;
    host.terminate().await?;
    host_dir.remove();
    Ok((comparison, proxy.to_text()))
}
