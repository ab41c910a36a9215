//! The process that stops the server when the gateway is killed.
//!
//! No handler runs on SIGKILL, and the server runs outside the gateway's process group, so it would
//! survive. A small shell script waits on a pipe for the gateway's end. Why a shell: every system with
//! PostgreSQL's programs has one, it does not grow with the gateway, and a program that embeds this library
//! needs no hidden subcommand.
//!
//! The process that becomes the server first writes its own id into the pipe (see [`super::server`]). So a
//! kill between any two instructions leaves either no server, or one that the watcher knows.

use std::io::{self, PipeWriter, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

use super::user::ServerUser;

const SCRIPT: &str = include_str!("watch.sh");

/// A running watcher, and the gateway's end of its pipe.
///
/// The pipe closes on exec, so that no other child of the gateway keeps it open. Dropping this closes the
/// pipe; the watcher then stops a running server, and ends.
#[derive(Debug)]
pub(super) struct Watcher {
    process: Child,
    pipe: PipeWriter,
}

impl Watcher {
    /// Starts a watcher as the server's user, in a process group of its own that Ctrl-C does not reach.
    pub(super) fn start(user: &ServerUser) -> io::Result<Self> {
        let (reader, pipe) = io::pipe()?;
        let mut command = user.command(Path::new("/bin/sh"));
        command
            .arg("-c")
            .arg(SCRIPT)
            .arg("wattgate-watch")
            .stdin(Stdio::from(reader));
        let process = Command::from(command).spawn()?;
        Ok(Self { process, pipe })
    }

    /// The write end of the pipe, for the process that becomes the server and writes its id.
    pub(super) fn pipe(&self) -> io::Result<PipeWriter> {
        self.pipe.try_clone()
    }

    /// Writes the id of a running server, for a watcher that replaces a dead one.
    pub(super) fn name(&mut self, pid: u32) -> io::Result<()> {
        self.pipe.write_all(format!("{pid}\n").as_bytes())
    }

    /// Waits until the watcher ends, which only happens if it was killed.
    ///
    /// Cancel: safe
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Ends the watcher, after the server's end.
    pub(super) async fn finish(self) {
        let Self { mut process, pipe } = self;
        drop(pipe);
        if let Err(error) = process.wait().await {
            tracing::debug!("the watcher was lost: {error}");
        }
    }
}
