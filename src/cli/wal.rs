//! `wattgate wal`: inspects and repairs the log, and binds it to another database.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;

use super::gap;
use crate::app::{AppError, Database};
use crate::config::{DataConfig, WalCommand};
use crate::postgres::{Use, copy_servers, explain};
use crate::reading::{PerStream, StreamCounts};
use crate::wal::frame::Position;
use crate::wal::inspect::{InspectedRun, InspectedSegment, Inspection, inspect};
use crate::wal::repair::{Repaired, repair};
use crate::wal::storage::{Directory, DirectoryError, DirectoryView};
use crate::writer::binding;
use crate::writer::binding::Binding;

/// The output of a command.
#[derive(Debug)]
pub struct Output {
    /// The answer, for stdout.
    pub answer: String,
    /// The result of the program: an error if the log is damaged.
    pub verdict: Result<(), AppError>,
}

/// Runs one of the commands about the log.
///
/// Blocks: until the log is read
///
/// # Errors
/// [`AppError`]: there is no log, it is in use, or the system or the database refuses.
pub async fn wal(config: &DataConfig, command: &WalCommand) -> Result<Output, AppError> {
    let path = config.wal_dir();
    let view = DirectoryView::new(&path).map_err(|source| AppError::NoLog {
        path: path.clone(),
        source,
    })?;
    match command {
        WalCommand::Inspect { json, .. } => {
            let found = off_the_runtime(move || look(&view, &path)).await??;
            Ok(Output {
                answer: if *json { found.json() } else { found.text() },
                verdict: Ok(()),
            })
        }
        WalCommand::Verify { json, .. } => {
            let found = off_the_runtime(move || look(&view, &path)).await??;
            let answer = if *json {
                found.json()
            } else {
                found.faults_text()
            };
            let verdict = match found.inspection.faults() {
                0 => Ok(()),
                n => Err(AppError::Wal(format!(
                    "the write-ahead log is damaged in {}; `wattgate wal repair` copies the intact \
                     part to another directory",
                    places(n)
                ))),
            };
            Ok(Output { answer, verdict })
        }
        WalCommand::Repair { into, .. } => {
            let into = into.clone();
            let answer = off_the_runtime(move || repaired(&view, &path, &into)).await??;
            Ok(Output {
                answer,
                verdict: Ok(()),
            })
        }
        WalCommand::AcceptGap(_) => gap::accept_all(config, &path).await.map(|answer| Output {
            answer,
            verdict: Ok(()),
        }),
        WalCommand::Adopt(_) => adopt(config, &path).await.map(|answer| Output {
            answer,
            verdict: Ok(()),
        }),
    }
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AppError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| AppError::Wal(e.to_string()))
}

fn refused(path: &Path) -> impl FnOnce(std::io::Error) -> AppError {
    let path = path.display().to_string();
    move |e| AppError::Wal(format!("{path}: {e}"))
}

/// The content of a log's directory, and whether a gateway uses it.
struct Found {
    path: PathBuf,
    inspection: Inspection,
    in_use: bool,
    database: Option<Uuid>,
}

fn look(view: &DirectoryView, path: &Path) -> Result<Found, AppError> {
    let in_use = match view.hold() {
        Ok(_) => false,
        Err(DirectoryError::InUse(_)) => true,
        Err(error) => return Err(error.into()),
    };
    Ok(Found {
        inspection: inspect(view).map_err(refused(path))?,
        path: path.to_owned(),
        in_use,
        database: Binding::load(path).map_err(refused(path))?.bound(),
    })
}

impl Found {
    fn text(&self) -> String {
        let Inspection {
            runs,
            spares,
            total_bytes,
        } = &self.inspection;
        let mut text = format!(
            "{}\n{total_bytes} bytes, {} runs, {spares} spare segments; {}\n",
            self.path.display(),
            runs.len(),
            if self.in_use {
                "a gateway is using it"
            } else {
                "no gateway is using it"
            },
        );
        match self.database {
            Some(id) => writeln!(text, "bound to the database {id}"),
            None => writeln!(text, "not bound to a database yet"),
        }
        .ok();
        for run in runs {
            run_text(run, &mut text).ok();
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// The damage only, and a last line with the totals.
    fn faults_text(&self) -> String {
        let mut text = String::new();
        let (mut lost, mut readings) = (0, 0);
        for run in &self.inspection.runs {
            lost += run.lost;
            readings += run.readings.iter().map(|held| held.sum()).sum::<u64>();
            for segment in &run.segments {
                faults_text(segment, &mut text).ok();
            }
        }
        let files: usize = self.inspection.runs.iter().map(|r| r.segments.len()).sum();
        write!(text, "{files} segments read, {readings} readings intact").ok();
        match self.inspection.faults() {
            0 => text.push_str(", no damage"),
            n => {
                let places = places(n);
                write!(text, ", {lost} readings lost, damage in {places}").ok();
            }
        }
        text
    }

    fn json(&self) -> String {
        let runs: Vec<Value> = self.inspection.runs.iter().map(run_json).collect();
        json!({
            "directory": self.path.display().to_string(),
            "inUse": self.in_use,
            "database": self.database.map(|id| id.to_string()),
            "bytes": self.inspection.total_bytes,
            "spareSegments": self.inspection.spares,
            "faults": self.inspection.faults(),
            "runs": runs,
        })
        .to_string()
    }
}

fn run_text(run: &InspectedRun, text: &mut String) -> std::fmt::Result {
    let first = run
        .segments
        .first()
        .map_or(Position::START, |s| Position::start_of(s.number));
    let state = if run.ended { "ended" } else { "not ended" };
    writeln!(
        text,
        "\nrun {} {}: {} shards, from {} to {}, {state}",
        run.sequence,
        run.id,
        run.shards,
        place_text(first),
        place_text(run.end),
    )?;
    for (shard, (held, appended)) in run.readings.iter().zip(&run.appended).enumerate() {
        let PerStream { meter, vehicle } = held;
        let all = appended.sum();
        writeln!(
            text,
            "  shard {shard}: {meter} meter and {vehicle} vehicle readings, {all} since the \
             run began"
        )?;
    }
    for segment in &run.segments {
        let begun = segment
            .created_at
            .map_or("?".to_owned(), |at| at.to_string());
        writeln!(
            text,
            "  {}: begun {begun}, {} frames, {} readings, {} of {} bytes used",
            segment.name,
            segment.frames,
            segment.readings.sum(),
            segment.used_bytes,
            segment.file_bytes,
        )?;
        faults_text(segment, text)?;
    }
    Ok(())
}

fn faults_text(segment: &InspectedSegment, text: &mut String) -> std::fmt::Result {
    for fault in &segment.faults {
        write!(
            text,
            "{} at byte {}: {}",
            segment.name, fault.offset, fault.what
        )?;
        match fault.bytes {
            0 => writeln!(text)?,
            bytes => writeln!(text, " after {bytes} bytes")?,
        }
    }
    Ok(())
}

/// A position as text, and as `wal_checkpoints` holds it.
fn place_text(at: Position) -> String {
    format!("{}/{} ({})", at.segment(), at.offset(), at.to_i64())
}

fn run_json(run: &InspectedRun) -> Value {
    let counts = |n: StreamCounts| json!({"meter": n.meter, "vehicle": n.vehicle});
    let shards = run.readings.iter().zip(&run.appended);
    let shards: Vec<Value> = shards
        .map(|(held, all)| json!({"readings": counts(*held), "appended": counts(*all)}))
        .collect();
    let segment_json = |segment: &InspectedSegment| {
        let faults = segment.faults.iter();
        let faults: Vec<Value> = faults
            .map(|f| json!({"offset": f.offset, "bytes": f.bytes, "what": f.what}))
            .collect();
        json!({
            "number": segment.number,
            "file": segment.name,
            "bytes": segment.file_bytes,
            "usedBytes": segment.used_bytes,
            "frames": segment.frames,
            "readings": counts(segment.readings),
            "createdAt": segment.created_at.map(|at| at.to_string()),
            "faults": faults,
        })
    };
    let segments: Vec<Value> = run.segments.iter().map(segment_json).collect();
    json!({
        "sequence": run.sequence,
        "id": run.id.to_string(),
        "ended": run.ended,
        "end": {
            "segment": run.end.segment(),
            "offset": run.end.offset(),
            "position": run.end.to_i64(),
        },
        "lost": run.lost,
        "shards": shards,
        "segments": segments,
    })
}

fn places(n: usize) -> String {
    match n {
        1 => "1 place".to_owned(),
        n => format!("{n} places"),
    }
}

/// Copies the sound frames, the binding and the record of servers into a new directory.
fn repaired(view: &DirectoryView, path: &Path, into: &Path) -> Result<String, AppError> {
    // Locked until the end, because a gateway that writes meanwhile would make the copy incomplete.
    let _held = view.hold()?;
    let empty = match std::fs::read_dir(into) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => return Err(refused(into)(e)),
    };
    if !empty {
        let into = into.display();
        let rule = "must be empty; name a new directory";
        return Err(AppError::Arguments(format!("--into {into}: {rule}")));
    }
    let bound = Binding::load(path).map_err(refused(path))?.bound();
    let target = Directory::open(into)?;
    let Repaired {
        segments,
        readings,
        lost,
        faults,
    } = repair(view, &target).map_err(refused(into))?;
    if let Some(id) = bound {
        let copy = Binding::load(into).map_err(refused(into))?;
        copy.adopt(id).map_err(refused(into))?;
    }
    copy_servers(path, into).map_err(refused(path))?;
    Ok(format!(
        "copied {segments} segments with {readings} readings to {}; {lost} readings lost, damage \
         in {}\nto use the copy: move {} away, and put the copy in its place",
        into.display(),
        places(usize::try_from(faults).unwrap_or(usize::MAX)),
        path.display(),
    ))
}

/// Binds the log to the configured database.
async fn adopt(config: &DataConfig, path: &Path) -> Result<String, AppError> {
    let failed = |e: tokio_postgres::Error| AppError::Database(explain(&e));
    let database = Database::reach(config).await?;
    let target = database.target.clone();
    let found = async {
        let session = database
            .target
            .connect("wattgate wal adopt", Use::Command)
            .await
            .map_err(failed)?;
        let sql = sql!("database_id");
        let row = session.client().query_one(sql, &[]).await.map_err(failed)?;
        Ok::<Uuid, AppError>(row.get(0))
    }
    .await;
    database.close().await;
    let found = found?;
    let binding = Binding::load(path).map_err(refused(path))?;
    let file = binding::FILE_NAME;
    // An embedded server is always the only one.
    let server = match &config.server {
        Some(_) => {
            let adopted = target.adopt_server(path).map_err(refused(path))?;
            format!("\n{adopted}")
        }
        None => String::new(),
    };
    match binding.bound() {
        Some(bound) if bound == found => Ok(format!(
            "the log is already bound to the database {found}{server}"
        )),
        before => {
            binding.adopt(found).map_err(refused(&path.join(file)))?;
            let before = before.map_or("no database".to_owned(), |id| id.to_string());
            Ok(format!(
                "the log is now bound to the database {found}; before: {before}{server}"
            ))
        }
    }
}
