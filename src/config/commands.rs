//! The configurations of the commands other than the gateway itself. Each has only the flags that it uses.

use super::args::{MigrateArgs, QuarantineCommand, ReachArgs, WalCommand};
use super::checks::Checks;
use super::flags::DataDirArgs;
use super::{ConfigErrors, DataConfig, Logging};
use crate::postgres::embedded::ProgramSearch;
use crate::postgres::migrations::HistoryOptions;

impl DataConfig {
    /// The data directory alone, for commands that reach no database.
    pub fn of_dir(args: &DataDirArgs) -> Self {
        DataConfig {
            dir: args.data_dir.clone(),
            server: None,
            programs: ProgramSearch::default(),
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
        checks.into_result((data, logging))
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
    /// The flags that name the database.
    pub fn reach(&self) -> &ReachArgs {
        match self {
            QuarantineCommand::List { reach, .. } | QuarantineCommand::Retry { reach, .. } => reach,
        }
    }
}

/// The configuration of `wattgate migrate`.
pub struct MigrateConfig {
    /// Which database.
    pub data: DataConfig,
    /// What is logged.
    pub logging: Logging,
    /// How history is kept.
    pub history: HistoryOptions,
}

impl MigrateArgs {
    /// Checks the flags of `wattgate migrate`.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn check(&self) -> Result<MigrateConfig, ConfigErrors> {
        let mut checks = Checks::default();
        let config = MigrateConfig {
            history: checks.history(&self.history),
            data: checks.data(&self.reach.data_dir, &self.reach.database),
            logging: checks.logging(&self.reach.logging),
        };
        checks.into_result(config)
    }
}
