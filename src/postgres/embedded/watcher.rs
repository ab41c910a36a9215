//! The process that stops the server when the gateway is killed.
//!
//! No handler runs on SIGKILL, and the server, started outside the gateway's process group, would
//! live on. So a small shell script waits on a pipe for the gateway's end. Why a shell and not the
//! gateway's own program: it is there on every system with PostgreSQL's programs, it does not grow
//! with the gateway, and a program that embeds this library needs no hidden subcommand.
//!
//! The server's id reaches it without a gap: the process that becomes the server writes its own
//! id into the pipe before it does (see [`super::server`]). A kill between any two instructions
//! leaves either no server, or one that the watcher knows.

use std::io::{self, PipeWriter, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

use super::user::ServerUser;

const SCRIPT: &str = include_str!("watch.sh");

/// A running watcher, and the gateway's end of its pipe.
///
/// The pipe closes on exec, so that no other child of the gateway holds it open. Dropping this
/// closes it: then the watcher stops a server that still runs, and ends.
#[derive(Debug)]
pub(super) struct Watcher {
    process: Child,
    pipe: PipeWriter,
}

impl Watcher {
    /// Starts a watcher as the server's user, in a process group of its own, deaf to Ctrl-C.
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

    /// Gives the write end for the process that becomes the server, which names itself.
    pub(super) fn pipe(&self) -> io::Result<PipeWriter> {
        self.pipe.try_clone()
    }

    /// Names a server that runs already, to a watcher that replaces one that died.
    pub(super) fn name(&mut self, pid: u32) -> io::Result<()> {
        self.pipe.write_all(format!("{pid}\n").as_bytes())
    }

    /// Waits until the watcher ends, which it should not while this is held.
    ///
    /// Cancel: safe
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Lets the watcher go, after the server's end.
    pub(super) async fn finish(self) {
        let Self { mut process, pipe } = self;
        drop(pipe);
        if let Err(error) = process.wait().await {
            tracing::debug!("the watcher was lost: {error}");
        }
    }
}
