//! The `wattgate` binary: parses the command line and calls the library.

use std::process::ExitCode;

use wattgate::app::{self, AppError};
use wattgate::cli;
use wattgate::config::{Cli, Command, Config, Logging};

fn main() -> ExitCode {
    let cli = Cli::read();
    let command = cli.command;
    let command = command.unwrap_or_else(|| Command::Serve(Box::new(cli.serve)));
    #[cfg(debug_assertions)]
    if let Command::Serve(flags) = &command
        && let (Some(part), Some(file)) = (flags.panic_in.clone(), flags.panic_when.clone())
    {
        wattgate::failpoint::arm_panic(part, file);
    }
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), AppError> {
    match command {
        Command::Serve(args) => {
            let config = Config::check_to_serve(&args)?;
            work(&config.logging.clone(), app::serve(config))
        }
        Command::Migrate(args) => {
            let config = args.check()?;
            work(&config.logging, app::migrate_only(&config))
        }
        Command::Check(args) => {
            let config = Config::check(&args)?;
            let found = work(&config.logging, cli::check(&config))?;
            tell(&found);
            Ok(())
        }
        Command::Erase(args) => {
            let (data, logging) = args.reach.check()?;
            let erased = work(&logging, cli::erase(&data, &args.vehicle))?;
            tell(&erased);
            Ok(())
        }
        Command::Keys { command } => {
            let said = cli::keys::run(&command)?;
            if let Some(note) = &said.note {
                say(note);
            }
            tell(&said.answer);
            Ok(())
        }
        Command::Wal { command } => {
            let (data, logging) = command.check()?;
            let said = work(&logging, cli::wal(&data, &command))?;
            tell(&said.answer);
            said.verdict
        }
        Command::Quarantine { command } => {
            let (data, logging) = command.reach().check()?;
            let answer = work(&logging, cli::quarantine(&data, &command))?;
            tell(&answer);
            Ok(())
        }
    }
}

/// Does the work of a command, and logs what happens meanwhile.
fn work<T>(
    logging: &Logging,
    work: impl Future<Output = Result<T, AppError>>,
) -> Result<T, AppError> {
    app::start_events(logging)?;
    let runtime = app::runtime()?;
    let result = runtime.block_on(work);
    // Everything that matters is done. An answer that is still computed for a client that has gone
    // is not waited for: its thread has no deadline.
    runtime.shutdown_background();
    result
}

#[expect(
    clippy::print_stderr,
    reason = "notes and errors are for people, and not for the reader of stdout"
)]
fn say(error: &dyn std::fmt::Display) {
    eprintln!("wattgate: {error}");
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn tell(answer: &str) {
    println!("{answer}");
}
