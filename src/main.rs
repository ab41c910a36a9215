//! The `wattgate` binary: parses the command line and calls the library.

use std::process::ExitCode;

use wattgate::app::{self, AppError};
use wattgate::cli;
use wattgate::config::{Cli, Command, Config, Logging};

/// What the demo is, before it starts.
const DEMO: &str = "demo with 86 real charging sessions of one day (ACN-Data, CC BY 4.0), as if they were \
    happening now. Open the address below in a browser. Ctrl-C ends the demo and removes its data.";

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
            print_note(&error);
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
        Command::Demo(args) => {
            print_note(&DEMO);
            work(&args.logging(), app::demo(|dir| args.check(dir)))
        }
        Command::Migrate(args) => {
            let config = args.check()?;
            work(&config.logging, app::migrate_only(&config))
        }
        Command::Check(args) => {
            let config = Config::check(&args)?;
            let found = work(&config.logging, cli::check(&config))?;
            print_answer(&found);
            Ok(())
        }
        Command::Erase(args) => {
            let (data, logging) = args.reach.check()?;
            let erased = work(&logging, cli::erase(&data, &args.vehicle))?;
            print_answer(&erased);
            Ok(())
        }
        Command::Keys { command } => {
            let output = cli::keys::run(&command)?;
            if let Some(note) = &output.note {
                print_note(note);
            }
            print_answer(&output.answer);
            Ok(())
        }
        Command::Wal { command } => {
            let (data, logging) = command.check()?;
            let output = work(&logging, cli::wal(&data, &command))?;
            print_answer(&output.answer);
            output.verdict
        }
        Command::Quarantine { command } => {
            let (data, logging) = command.reach().check()?;
            let answer = work(&logging, cli::quarantine(&data, &command))?;
            print_answer(&answer);
            Ok(())
        }
    }
}

/// Runs a command, with events logged meanwhile.
fn work<T>(
    logging: &Logging,
    work: impl Future<Output = Result<T, AppError>>,
) -> Result<T, AppError> {
    app::start_events(logging)?;
    let runtime = app::runtime()?;
    let result = runtime.block_on(work);
    // Do not wait for an answer that is still computed for a disconnected client: its thread has no
    // deadline.
    runtime.shutdown_background();
    result
}

#[expect(
    clippy::print_stderr,
    reason = "notes and errors are for the operator, not for a program that reads stdout"
)]
fn print_note(note: &dyn std::fmt::Display) {
    eprintln!("wattgate: {note}");
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn print_answer(answer: &str) {
    println!("{answer}");
}
