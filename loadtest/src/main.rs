//! Replay of real charging sessions, and load generation, for a Wattgate gateway.
//!
//! A pure HTTP client: it shares no code with the gateway, so that the two can be wrong
//! independently. In reading order: [`cli`] takes the command line apart, [`target`] says where the
//! gateway is, [`replay`] sends real sessions and compares the gateway's answers with the data,
//! [`generator`] sends as much as it can, [`oracle`] compares what was acknowledged with what the
//! database holds, [`campaign`] breaks things at random moments meanwhile, [`listen`] listens to the
//! live stream many times over, [`noop`] is a server that stores nothing, to measure the generator's own
//! limit, [`limits`] measures what nothing can be quicker than, and [`targets`] holds a
//! gateway against it.

mod campaign;
mod cli;
mod generator;
mod limits;
mod listen;
mod noop;
mod oracle;
mod output;
mod replay;
mod stop;
mod target;
mod targets;
mod verdict;

fn main() -> std::process::ExitCode {
    cli::main()
}
