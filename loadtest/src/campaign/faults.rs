//! Faults of one gateway, its database, and the way between them.

use std::time::Duration;

use super::check::{self, Comparison};
use super::gateway::{DataDir, Database, Setup};
use super::load::Manner;
use super::network::Proxy;
use super::random::Random;
use super::{DRAIN_WITHIN, Load, Options, Outcome};

/// How long the writers may take to find their database again.
const WRITES_WITHIN: Duration = Duration::from_secs(60);

/// A database that is away refuses nobody but those who ask for its commit.
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
    let mut gateway = Setup::new(&options.gateway, dir).start().await?;
    let load = Load::start(options, &Manner::mixed(gateway.address()), seed);
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

pub(super) async fn database(
    options: &Options,
    dir: &DataDir,
    random: &mut Random,
    seed: u64,
) -> Outcome {
    let mut gateway = Setup::new(&options.gateway, dir).start().await?;
    let load = Load::start(options, &Manner::mixed(gateway.address()), seed);
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
    let mut comparison = check::compare(&gateway.database(), ledgers, DRAIN_WITHIN).await?;
    expect_no_refusal(&mut comparison);
    gateway.terminate().await?;
    let happened = format!("{stops} immediate stops of PostgreSQL, {ended} backends ended");
    Ok((comparison, happened))
}

pub(super) async fn restore(options: &Options, dir: &DataDir, seed: u64) -> Outcome {
    let mut gateway = Setup::new(&options.gateway, dir).start().await?;
    let load = Load::start(options, &Manner::mixed(gateway.address()), seed);
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

pub(super) async fn network(options: &Options, dir: &DataDir, seed: u64) -> Outcome {
    // A gateway of its own is the quickest way to a PostgreSQL server.
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
