//! Replays real charging sessions: sends the readings of a site's stations and vehicles in order of time. At the
//! end it compares the gateway's energy with the data, session by session.
//!
//! In the order of the data: [`load`] reads the recorded stays, and the crate `wattgate-sessions` turns them into
//! one sequence of events. [`send`] sends these in batches through [`client`], and [`report`] compares.

mod client;
mod load;
mod pace;
mod progress;
mod report;
mod send;
mod shuffle;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;

use crate::output::say;
use crate::stop::Stop;
use crate::target::Target;
use crate::verdict::Verdict;
use client::{CallError, Client};
use pace::{Pace, Speed};
use progress::Progress;
use send::Sender;
use wattgate_sessions::timeline::{Booking, Event, Timeline};
use wattgate_sessions::{data, plan};

/// The note on derived values, printed with all results.
pub(crate) const DERIVED: &str = "measured: arrival, departure, station and AC energy of each \
    session; derived by this program, not measured: the power curve, DC energy (charger \
    efficiency), state of charge, battery temperature, voltage, and the vehicle ids";

/// Replay real charging sessions and compare the gateway's energy with the data's.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Sessions as CSV with the columns of ACN-Data, plain or gzip; `-` means stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The gateway
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    url: Target,
    /// Simulated seconds per second, or `max` for as fast as possible
    #[arg(long, default_value = "600", conflicts_with = "as_now")]
    speed: Speed,
    /// Move the sessions so that their busiest moment is now: send the last 24 hours at once, then
    /// continue in real time, day after day, until Ctrl-C
    #[arg(long)]
    as_now: bool,
    /// Replay only sessions that arrived on this local day
    #[arg(long, value_name = "YYYY-MM-DD")]
    day: Option<jiff::civil::Date>,
    /// A fixed charger efficiency instead of the derived curve, 0 to 1
    #[arg(long, value_parser = share)]
    efficiency: Option<f64>,
    /// Register the sessions after all readings instead of when they start and end
    #[arg(long, conflicts_with = "as_now")]
    sessions_late: bool,
    /// Send the readings of all sessions in a random order, the same for a seed
    #[arg(long, value_name = "SEED", requires = "sessions_late", conflicts_with_all = ["as_now", "speed"])]
    shuffle: Option<u64>,
    /// The most readings per request
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    batch: u32,
    /// Sent as `Authorization: Bearer`
    #[arg(long, env = "WATTGATE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A file that contains the key
    #[arg(long, conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// Give up when a request has not succeeded for this many seconds [default: never]
    #[arg(long, value_name = "SECONDS")]
    give_up_after: Option<u64>,
    /// How many seconds to keep requesting a session's energy while it differs
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    settle: u64,
    /// Also write the table as JSON, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("must be above 0 and at most 1".to_owned()),
    }
}

/// Why a replay has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error(transparent)]
    Load(#[from] load::LoadError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{path}: {source}")]
    File {
        path: String,
        source: std::io::Error,
    },
    #[error("the key contains characters that a header cannot")]
    Key,
    #[error("the runtime: {0}")]
    Io(#[from] std::io::Error),
}

impl ReplayError {
    fn file(path: &Path, source: std::io::Error) -> Self {
        ReplayError::File {
            path: path.display().to_string(),
            source,
        }
    }
}

/// Replays files to their end or until Ctrl-C, and compares.
///
/// # Errors
/// [`ReplayError`]: a file is not a recording, the gateway rejects something for good, or it was unreachable for
/// longer than `--give-up-after`.
pub(crate) fn run(options: Options) -> Result<Verdict, ReplayError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(replay(options))
}

async fn replay(options: Options) -> Result<Verdict, ReplayError> {
    let recording = load::load(&options.files, options.day)?;
    for (session, reason) in &recording.left_out {
        say(&format!("left out: {session}: {reason}"));
    }
    say(DERIVED);
    let stop = Stop::on_ctrl_c();
    let client = Client::new(
        options.url.clone(),
        authorization(&options)?,
        stop.clone(),
        options.give_up_after.map(Duration::from_secs),
    );
    let (bookings, pace, mut progress) = schedule(&options, recording.stays, &client).await?;
    let timeline = Timeline::new(bookings, options.efficiency);
    let (timeline, pace): (Events, Pace) = match options.shuffle {
        Some(seed) => (Box::new(shuffle::shuffled(timeline, seed)), pace.at_once()),
        None => (Box::new(timeline), pace),
    };
    let mut sender = Sender::new(&client, options.batch as usize, options.sessions_late);
    play(timeline, pace, &mut sender, &stop, &mut progress).await?;
    progress.finish(sender.tally());

    // From now on only a second Ctrl-C ends the program.
    let mut sender = sender.with_stop(Stop::never());
    sender.settle().await?;
    let settle = Duration::from_secs(options.settle);
    let mut asking = client.fork(Stop::never());
    let report = report::ask(&mut asking, &sender, settle).await?;
    crate::output::report(&report.to_string())?;
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", report.to_json(&recording.left_out));
        std::fs::write(path, text).map_err(|source| ReplayError::file(path, source))?;
    }
    Ok(report.verdict())
}

type Events = Box<dyn Iterator<Item = Event> + Send>;
type Bookings = Box<dyn Iterator<Item = Arc<Booking>> + Send>;

/// Prints when each stay is replayed, and at what speed.
async fn schedule(
    options: &Options,
    stays: Vec<data::Stay>,
    client: &Client,
) -> Result<(Bookings, Pace, Progress), ReplayError> {
    if options.as_now {
        let now_us = jiff::Timestamp::now().as_microsecond();
        let mut live = plan::Live::new(stays, now_us);
        resume(&mut live, now_us, &mut client.fork(Stop::never())).await?;
        let pace = Pace::real_time(now_us);
        return Ok((Box::new(live.bookings()), pace, Progress::endless()));
    }
    let first_us = stays.iter().map(|stay| stay.start_us).min().unwrap_or(0);
    let last_us = stays.iter().map(|stay| stay.end_us).max().unwrap_or(0);
    let pace = Pace::new(options.speed, first_us);
    let progress = Progress::over(first_us, last_us);
    Ok((Box::new(plan::as_recorded(stays)), pace, progress))
}

/// Checks whether the same sessions were replayed live before. If so, continues that replay.
async fn resume(live: &mut plan::Live, now_us: i64, client: &mut Client) -> Result<(), CallError> {
    let Some(vehicle) = live.witness() else {
        return Ok(());
    };
    let sessions = send::sessions_of(client, vehicle).await?;
    if sessions
        .iter()
        .rev()
        .any(|session| live.resume(session, now_us))
    {
        say("continuing with the sessions of an earlier live replay");
    }
    Ok(())
}

/// Sends each event when it is due, until the end or Ctrl-C.
async fn play(
    mut timeline: Events,
    pace: Pace,
    sender: &mut Sender,
    stop: &Stop,
    progress: &mut Progress,
) -> Result<(), CallError> {
    let stopped = |outcome| match outcome {
        Err(CallError::Stopped) => Ok(()),
        other => other,
    };
    let mut next: Option<Event> = timeline.next();
    while let Some(event) = next.as_ref().filter(|_| !stop.is_set()) {
        progress.show(event.at_us().min(pace.now_us()), sender.tally());
        if let Some(wait) = pace.wait_for(event.at_us()) {
            stopped(sender.flush().await)?;
            stop.sleep(wait).await;
            continue;
        }
        stopped(sender.take(event).await)?;
        next = timeline.next();
    }
    stopped(sender.flush().await)
}

fn authorization(options: &Options) -> Result<Option<HeaderValue>, ReplayError> {
    let key = match (&options.key, &options.key_file) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(path)) => {
            Some(std::fs::read_to_string(path).map_err(|source| ReplayError::file(path, source))?)
        }
        (None, None) => None,
    };
    key.map(|key| {
        let mut value = HeaderValue::try_from(format!("Bearer {}", key.trim()))
            .map_err(|_| ReplayError::Key)?;
        value.set_sensitive(true);
        Ok(value)
    })
    .transpose()
}
