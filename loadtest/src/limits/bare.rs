//! L2 and L3: a bare responder in its own process, so that its CPU time can be measured.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::LimitError;
use crate::generator::{self, Options as Load};
use crate::output::say;
use crate::processor;

/// A load of single readings for a bare responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bare {
    /// 256 connections, one request at a time.
    L2,
    /// 64 connections with 16 pipelined requests each.
    L3,
    /// 64 HTTP/2 connections with 16 streams each.
    L3Http2,
}

/// The result of a bare responder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    /// Responses per second.
    pub(crate) rate: f64,
    /// The responder's CPU time per response, in microseconds.
    pub(crate) processor_us: f64,
}

impl Bare {
    pub(crate) const ALL: [Bare; 3] = [Bare::L2, Bare::L3, Bare::L3Http2];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Bare::L2 => "L2",
            Bare::L3 => "L3",
            Bare::L3Http2 => "L3-http2",
        }
    }

    /// The generator's options. The same load is sent to a gateway.
    pub(crate) const fn load(self) -> &'static [&'static str] {
        match self {
            Bare::L2 => &["--format", "single", "--connections", "256"],
            Bare::L3 => &[
                "--format",
                "single",
                "--connections",
                "64",
                "--pipeline",
                "16",
            ],
            Bare::L3Http2 => &[
                "--format",
                "single",
                "--connections",
                "64",
                "--pipeline",
                "16",
                "--http2",
            ],
        }
    }

    /// Measures a bare responder on one thread.
    ///
    /// # Errors
    /// [`LimitError`]: the responder cannot start, or does not respond.
    pub(crate) fn measure(self, duration: &str) -> Result<Answered, LimitError> {
        say(&format!("{}: a bare responder", self.name()));
        let mut responder = Responder::start(self == Bare::L3Http2)?;
        let url = responder.url()?;
        let mut arguments = self.load().to_vec();
        arguments.extend(["--url", &url, "--duration", duration]);
        let before = responder.seconds();
        let outcome = generator::measure(Load::of(&arguments)?)?;
        let spent = responder.seconds() - before;
        Ok(Answered {
            rate: outcome.stats.acked_rate(),
            processor_us: spent * 1e6 / outcome.stats.acked().max(1) as f64,
        })
    }
}

/// This program as a responder. It is ended when dropped.
struct Responder(Child);

impl Responder {
    fn start(http2: bool) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["noop", "--listen", "127.0.0.1:0"]);
        if http2 {
            command.arg("--http2");
        }
        Ok(Responder(command.stdout(Stdio::piped()).spawn()?))
    }

    fn url(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if let Some(stdout) = self.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let url = line.trim().strip_prefix("listening on ");
        url.map(str::to_owned)
            .ok_or_else(|| std::io::Error::other("the bare responder did not start"))
    }

    fn seconds(&self) -> f64 {
        processor::of(i32::try_from(self.0.id()).unwrap_or(0))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
