//! Decompressing bodies within their limits.
//!
//! What comes out is bounded by the same limit as a plain body and taken from the same memory,
//! piece by piece, before it is written: a body that unfolds to a thousand times its size is
//! refused as soon as it passes the limit. A small body is unfolded where it was received; one
//! that turns out to be large, from its start again on a thread that may block.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use tokio::sync::Semaphore;

use super::body::{Limits, Received, overloaded, too_large};
use super::negotiate::Encoding;
use crate::http::response::problem::{Kind, Problem};
use crate::ingest::admission::{Gate, Memory, Shed};

/// The most that is unfolded where the body was received, in and out. Why 64 KiB: about 100 µs
/// of work, no more than an async worker spends on a large plain body.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// What is unfolded at once, and accounted for.
const PIECE_BYTES: usize = 64 << 10;
/// The largest window of zstd, as a power of two: 8 MiB, what RFC 9659 asks every decoder of
/// `Content-Encoding: zstd` for, and the most that one may be made to hold.
const WINDOW_LOG_MAX: u32 = 23;

/// The code of a body that is not what its encoding says.
pub(crate) const BROKEN_ENCODING: &str = "encoding";

/// Why a body was not unfolded.
#[derive(Debug)]
enum Folded {
    /// More comes out than the limit allows.
    TooLarge,
    /// There is no memory for it.
    Shed(Shed),
    /// It is not what its encoding says, or ends early.
    Broken(io::Error),
}

/// Undoes the encoding of a body.
///
/// Shape:  at most `limits.bytes_max` bytes out; all members of a gzip body, all frames of a zstd body
/// Blocks: never this thread for long; waits for a free core where the body is large
pub(crate) async fn unfold(
    gate: &Gate,
    cores: &Arc<Semaphore>,
    encoding: Encoding,
    received: Received,
    limits: Limits<'_>,
) -> Result<Received, Problem> {
    if encoding == Encoding::Identity {
        return Ok(received);
    }
    let bytes_max = limits.bytes_max;
    // Given back when the body is unfolded; what comes out has a memory of its own.
    let Received {
        bytes: folded,
        memory: _held,
    } = received;
    if folded.len() <= INLINE_BYTES_MAX {
        let most = bytes_max.min(INLINE_BYTES_MAX);
        match unfold_now(encoding, folded.clone(), most, gate.memory(limits.share)) {
            // It may be within the limit all the same.
            Err(Folded::TooLarge) if most < bytes_max => {}
            done => return settle(gate, done, bytes_max),
        }
    }
    let permit = Arc::clone(cores)
        .acquire_owned()
        .await
        .map_err(|_| overloaded(gate, Shed::Closed))?;
    let memory = gate.memory(limits.share);
    let work = move || {
        // Held until the work ends, whether or not someone still waits for it.
        let _permit = permit;
        unfold_now(encoding, folded, bytes_max, memory)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => settle(gate, done, bytes_max),
        Err(_) => Err(Problem::new(
            Kind::Internal,
            "the body could not be decompressed",
        )),
    }
}

/// Keeps memory for what came out, and gives back what unfolding took beyond that: the log holds
/// a request's memory until it is written.
fn settle(
    gate: &Gate,
    done: Result<Received, Folded>,
    bytes_max: usize,
) -> Result<Received, Problem> {
    let mut received = done.map_err(|why| refuse(gate, why, bytes_max))?;
    received.memory.shrink_to(received.bytes.len());
    Ok(received)
}

fn refuse(gate: &Gate, why: Folded, bytes_max: usize) -> Problem {
    match why {
        Folded::TooLarge => too_large(bytes_max),
        Folded::Shed(shed) => overloaded(gate, shed),
        Folded::Broken(error) => {
            let detail = format!("the body is not what its Content-Encoding says: {error}");
            Problem::new(Kind::UnreadableBody, detail).code(BROKEN_ENCODING)
        }
    }
}

fn unfold_now(
    encoding: Encoding,
    folded: Bytes,
    bytes_max: usize,
    memory: Memory,
) -> Result<Received, Folded> {
    let expected = folded.len().saturating_mul(4).min(bytes_max);
    match encoding {
        Encoding::Identity => drain(folded.reader(), expected, bytes_max, memory),
        Encoding::Gzip => {
            let reader = MultiGzDecoder::new(folded.reader());
            drain(reader, expected, bytes_max, memory)
        }
        Encoding::Zstd => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(folded.reader())
                .map_err(Folded::Broken)?;
            reader
                .window_log_max(WINDOW_LOG_MAX)
                .map_err(Folded::Broken)?;
            drain(reader, expected, bytes_max, memory)
        }
    }
}

/// Reads to the end, or to the first byte beyond the limit.
fn drain(
    mut reader: impl Read,
    expected: usize,
    bytes_max: usize,
    mut memory: Memory,
) -> Result<Received, Folded> {
    let mut out = Vec::with_capacity(expected.min(PIECE_BYTES));
    loop {
        // One byte more than is allowed tells a body that is at the limit from one beyond.
        let room = (bytes_max + 1 - out.len()).min(PIECE_BYTES);
        memory.grow(room).map_err(Folded::Shed)?;
        let before = out.len();
        // Doubled until the limit: what is copied stays in proportion.
        if out.capacity() - before < room {
            let wanted = (2 * out.capacity()).clamp(before + room, bytes_max + 1);
            out.reserve_exact(wanted - before);
        }
        (&mut reader)
            .take(room as u64)
            .read_to_end(&mut out)
            .map_err(Folded::Broken)?;
        if out.len() > bytes_max {
            return Err(Folded::TooLarge);
        }
        if out.len() < before + room {
            let bytes = Bytes::from(out);
            return Ok(Received { bytes, memory });
        }
    }
}
