//! The command line: one subcommand per tool.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::say;
pub(crate) use crate::verdict::Verdict;
use crate::{campaign, generator, limits, listen, noop, replay, targets};

/// The exit code of a tool without a result: wrong options, or refused requests.
const EXIT_FAILED: u8 = 2;

/// The exit code of a tool that has found the gateway to be wrong.
const EXIT_WRONG: u8 = 1;

#[derive(Debug, Parser)]
#[command(name = "wattgate-loadtest", version, about)]
struct Cli {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Replay real charging sessions and compare the gateway's energy with the data's
    Replay(replay::Options),
    /// Generate load: unique readings, on a schedule or as fast as possible
    Run(generator::Options),
    /// Run a gateway under load, break things at random moments, and compare the database with the
    /// acknowledged readings
    Campaign(campaign::Options),
    /// Open many live streams, to measure what they cost
    Listen(listen::Options),
    /// Serve a responder that stores nothing, to measure the generator's own limit
    Noop(noop::Options),
    /// Measure the limits that results are compared with
    Limits(limits::Options),
    /// Measure a gateway against its targets, along with the limits, and write the results
    Targets(targets::Options),
}

/// Runs the chosen tool. The exit code is 0, 1 (the gateway is wrong) or 2 (no result).
pub(crate) fn main() -> ExitCode {
    let outcome = match Cli::parse().tool {
        Tool::Replay(options) => replay::run(options).map_err(|error| error.to_string()),
        Tool::Run(options) => generator::run(options).map_err(|error| error.to_string()),
        Tool::Limits(options) => limits::run(options)
            .map(|()| Verdict::Right)
            .map_err(|error| error.to_string()),
        Tool::Targets(options) => targets::run(options).map_err(|error| error.to_string()),
        Tool::Campaign(options) => campaign::run(options).map_err(|error| error.to_string()),
        Tool::Listen(options) => listen::run(options)
            .map(|()| Verdict::Right)
            .map_err(|error| error.to_string()),
        Tool::Noop(options) => noop::run(options)
            .map(|()| Verdict::Right)
            .map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(Verdict::Right) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::from(EXIT_WRONG),
        Err(message) => {
            say(&format!("error: {message}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
