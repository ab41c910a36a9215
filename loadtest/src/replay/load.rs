//! Reads files of sessions: plain, gzip, or stdin.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use jiff::civil::Date;
use wattgate_sessions::data::{DataError, Recording, parse, select};

/// Why there are no sessions to replay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{path}: {source}")]
    Open {
        path: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("no session in it can be replayed{}", .day.map(|d| format!(" on {d}")).unwrap_or_default())]
    Empty { day: Option<Date> },
}

/// Reads files of sessions, plain or gzip, or stdin for the path `-`. If a day is given, keeps only the sessions
/// that arrived on that local date.
///
/// # Errors
/// [`LoadError`]: a file cannot be opened or has another format, or none has a session to replay.
pub(super) fn load(paths: &[PathBuf], day: Option<Date>) -> Result<Recording, LoadError> {
    let mut stays = Vec::new();
    for path in paths {
        let wrong = |source| LoadError::Open {
            path: path.display().to_string(),
            source,
        };
        let input: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(std::io::stdin().lock())
        } else {
            Box::new(std::fs::File::open(path).map_err(wrong)?)
        };
        stays.append(&mut parse(unpacked(input).map_err(wrong)?)?);
    }
    if let Some(day) = day {
        stays.retain(|stay| stay.day == day);
    }
    let recording = select(stays);
    if recording.stays.is_empty() {
        return Err(LoadError::Empty { day });
    }
    Ok(recording)
}

/// Opens a file, decompressing it if its first bytes are those of gzip.
fn unpacked(input: Box<dyn Read>) -> std::io::Result<Box<dyn Read>> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let mut input = BufReader::new(input);
    let packed = input.fill_buf()?.starts_with(&GZIP);
    Ok(match packed {
        true => Box::new(MultiGzDecoder::new(input)),
        false => Box::new(input),
    })
}
