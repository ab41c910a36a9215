//! The configurations of the commands beside the gateway: each has the flags that it uses.

use std::time::Duration;

use super::args::{MigrateArgs, QuarantineCommand, ReachArgs, WalCommand};
use super::checks::Checks;
use super::flags::DataDirArgs;
use super::{ConfigErrors, DataConfig, Logging, PartitionWidth};

impl DataConfig {
    /// The data directory alone, for commands that reach no database.
    pub fn of_dir(args: &DataDirArgs) -> Self {
        DataConfig {
            database_url: None,
            data_dir: args.data_dir.clone(),
            pg_bin: None,
            path: None,
        }
    }
}

impl ReachArgs {
    /// Checks the flags of a command that reaches a database.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn check(&self) -> Result<(DataConfig, Logging), ConfigErrors> {
        let mut checks = Checks::default();
        let data = checks.data(&self.data_dir, &self.database);
        let logging = checks.logging(&self.logging);
        ConfigErrors::unless_empty(checks.errors).map(|()| (data, logging))
    }
}

impl WalCommand {
    /// Checks the flags of the command.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn check(&self) -> Result<(DataConfig, Logging), ConfigErrors> {
        match self {
            WalCommand::Inspect { data_dir, .. }
            | WalCommand::Verify { data_dir, .. }
            | WalCommand::Repair { data_dir, .. } => {
                Ok((DataConfig::of_dir(data_dir), Logging::default()))
            }
            WalCommand::Adopt(reach) | WalCommand::AcceptGap(reach) => reach.check(),
        }
    }
}

impl QuarantineCommand {
    /// The flags that say which database.
    pub fn reach(&self) -> &ReachArgs {
        match self {
            QuarantineCommand::List { reach, .. } | QuarantineCommand::Retry { reach, .. } => reach,
        }
    }
}

/// What `wattgate migrate` takes.
pub struct MigrateConfig {
    /// Which database.
    pub data: DataConfig,
    /// What is logged.
    pub logging: Logging,
    /// The width of new partitions; `None` leaves what the database says.
    pub partition: Option<PartitionWidth>,
    /// How long history is kept; `None` means forever.
    pub retention: Option<Duration>,
}

impl MigrateArgs {
    /// Checks the flags of `wattgate migrate`.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn check(&self) -> Result<MigrateConfig, ConfigErrors> {
        let mut checks = Checks::default();
        let (partition, retention) = checks.history(&self.history);
        let config = MigrateConfig {
            data: checks.data(&self.reach.data_dir, &self.reach.database),
            logging: checks.logging(&self.reach.logging),
            partition,
            retention,
        };
        ConfigErrors::unless_empty(checks.errors).map(|()| config)
    }
}
