//! Replay of real charging sessions, and load generation, for a Wattgate gateway.
//!
//! It shares no code with the gateway, so that the two can be wrong independently. In reading order: [`cli`]
//! parses the command line, and [`target`] the gateway's address. [`replay`] sends real sessions and compares the
//! gateway's results with the data. [`generator`] sends as much as it can. [`oracle`] compares acknowledged
//! readings with the database. [`campaign`] breaks things at random moments. [`listen`] opens many live streams.
//! [`noop`] is a server that stores nothing, to measure the generator's own limit. [`limits`] measures the
//! machine's limits, and [`targets`] compares a gateway with them. [`processor`] reads the CPU time of other
//! processes.

mod campaign;
mod cli;
mod generator;
mod limits;
mod listen;
mod noop;
mod oracle;
mod output;
mod processor;
mod replay;
mod stop;
mod target;
mod targets;
mod verdict;

fn main() -> std::process::ExitCode {
    cli::main()
}
