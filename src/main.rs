//! The `wattgate` binary: parses the command line and calls the library.

use std::process::ExitCode;

use clap::Parser;
use wattgate::app::{self, AppError};
use wattgate::config::{Cli, Command, Config};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::check(&cli.serve) {
        Ok(config) => config,
        Err(errors) => {
            say(&errors);
            return ExitCode::from(2);
        }
    };
    #[cfg(debug_assertions)]
    if let (Some(part), Some(file)) = (cli.serve.panic_in, cli.serve.panic_when) {
        wattgate::failpoint::arm_panic(part, file);
    }
    match run(cli.command.unwrap_or(Command::Serve), config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, config: Config) -> Result<(), AppError> {
    if let Command::Keys { command } = &command {
        let said = app::keys::run(&config.data_dir, command)?;
        if let Some(note) = &said.note {
            say(note);
        }
        tell(&said.answer);
        return Ok(());
    }
    app::start_events(&config)?;
    let runtime = app::runtime()?;
    let result = runtime.block_on(async {
        match command {
            Command::Serve => app::serve(config).await,
            Command::Migrate => app::migrate_only(&config).await,
            Command::Check => app::check(&config).await.map(|found| tell(&found)),
            Command::Erase { vehicle } => app::erase(&config, &vehicle)
                .await
                .map(|erased| tell(&erased)),
            Command::Quarantine { command } => {
                let answer = app::quarantine(&config, &command).await?;
                tell(&answer);
                Ok(())
            }
            Command::Wal { command } => {
                let said = app::wal(&config, &command).await?;
                tell(&said.answer);
                said.verdict
            }
            // Done above: it needs neither a runtime nor events.
            Command::Keys { .. } => Ok(()),
        }
    });
    // Everything that matters is done. An answer that is still computed for somebody who has gone is not
    // waited for: its thread looks at no deadline.
    runtime.shutdown_background();
    result
}

#[expect(
    clippy::print_stderr,
    reason = "what a program that reads stdout is not to see is for people"
)]
fn say(error: &dyn std::fmt::Display) {
    eprintln!("wattgate: {error}");
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn tell(answer: &str) {
    println!("{answer}");
}
