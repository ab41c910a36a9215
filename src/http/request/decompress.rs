//! Decompresses bodies within their limits.
//!
//! The output has the same limit as an uncompressed body. Its memory is reserved piece by piece before it is
//! written, so a body that expands a thousandfold is refused as soon as it passes the limit. A small body is
//! decompressed on the worker that received it. If it turns out to be large, decompression starts again on a
//! blocking thread.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use tokio::sync::Semaphore;

use super::body::{Limits, Received, overloaded, too_large};
use super::negotiate::Encoding;
use crate::http::response::problem::{Kind, Problem};
use crate::ingest::admission::{Gate, Memory, Shed};

/// The largest input and output that is decompressed inline. Why 64 KiB: it takes about 100 µs, no more than an
/// async worker spends on a large uncompressed body.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// The step in which output is decompressed and memory reserved.
const PIECE_BYTES: usize = 64 << 10;
/// The largest zstd window, as a power of two: 8 MiB. RFC 9659 requires this of every decoder of
/// `Content-Encoding: zstd`, and does not allow more.
const WINDOW_LOG_MAX: u32 = 23;

/// The code for a body that does not match its encoding.
pub(crate) const BROKEN_ENCODING: &str = "encoding";

/// Why a body was not decompressed.
#[derive(Debug)]
enum Failure {
    /// The output exceeds the limit.
    TooLarge,
    /// There is no memory for the output.
    Shed(Shed),
    /// The body does not match its encoding, or ends early.
    Broken(io::Error),
}

/// Decompresses a body.
///
/// Shape:  at most `limits.bytes_max` bytes of output, from all members of a gzip body or all frames of a zstd
///         body
/// Blocks: briefly; a large body waits for a free core and a blocking thread
pub(crate) async fn decompress(
    gate: &Gate,
    cores: &Arc<Semaphore>,
    encoding: Encoding,
    received: Received,
    limits: Limits<'_>,
) -> Result<Received, Problem> {
    let bytes_max = limits.bytes_max;
    // The input's memory is released after decompression. The output has its own.
    let Received {
        bytes: compressed,
        memory: _compressed_memory,
    } = received;
    if compressed.len() <= INLINE_BYTES_MAX {
        let most = bytes_max.min(INLINE_BYTES_MAX);
        let memory = gate.memory(limits.share);
        match decompress_now(encoding, compressed.clone(), most, memory) {
            // Too large to decompress inline, but perhaps still within the body's limit.
            Err(Failure::TooLarge) if most < bytes_max => {}
            done => return settle(gate, done, bytes_max),
        }
    }
    let permit = Arc::clone(cores)
        .acquire_owned()
        .await
        .map_err(|_| overloaded(gate, Shed::Closed))?;
    let memory = gate.memory(limits.share);
    let work = move || {
        // Held until the work ends, even if no client waits any more.
        let _permit = permit;
        decompress_now(encoding, compressed, bytes_max, memory)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => settle(gate, done, bytes_max),
        Err(_) => Err(Problem::new(
            Kind::Internal,
            "the body could not be decompressed",
        )),
    }
}

/// Keeps the memory of the output and releases what decompression reserved beyond it, because the log keeps a
/// request's memory until it is written.
fn settle(
    gate: &Gate,
    done: Result<Received, Failure>,
    bytes_max: usize,
) -> Result<Received, Problem> {
    let mut received = done.map_err(|why| problem_of(gate, why, bytes_max))?;
    received.memory.shrink_to(received.bytes.len());
    Ok(received)
}

fn problem_of(gate: &Gate, why: Failure, bytes_max: usize) -> Problem {
    match why {
        Failure::TooLarge => too_large(bytes_max),
        Failure::Shed(shed) => overloaded(gate, shed),
        Failure::Broken(error) => {
            let detail = format!("the body does not match its Content-Encoding: {error}");
            Problem::new(Kind::UnreadableBody, detail).code(BROKEN_ENCODING)
        }
    }
}

fn decompress_now(
    encoding: Encoding,
    compressed: Bytes,
    bytes_max: usize,
    memory: Memory,
) -> Result<Received, Failure> {
    let expected = compressed.len().saturating_mul(4).min(bytes_max);
    match encoding {
        Encoding::Identity => drain(compressed.reader(), expected, bytes_max, memory),
        Encoding::Gzip => {
            let reader = MultiGzDecoder::new(compressed.reader());
            drain(reader, expected, bytes_max, memory)
        }
        Encoding::Zstd => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(compressed.reader())
                .map_err(Failure::Broken)?;
            reader
                .window_log_max(WINDOW_LOG_MAX)
                .map_err(Failure::Broken)?;
            drain(reader, expected, bytes_max, memory)
        }
    }
}

/// Reads to the end, or until the output exceeds the limit.
fn drain(
    mut reader: impl Read,
    expected: usize,
    bytes_max: usize,
    mut memory: Memory,
) -> Result<Received, Failure> {
    let mut out = Vec::with_capacity(expected.min(PIECE_BYTES));
    loop {
        // One more byte distinguishes a body at the limit from one beyond it.
        let room = (bytes_max + 1 - out.len()).min(PIECE_BYTES);
        memory.grow(room).map_err(Failure::Shed)?;
        let before = out.len();
        // Doubled up to the limit, so that copying stays proportional to the size.
        if out.capacity() - before < room {
            let wanted = (2 * out.capacity()).clamp(before + room, bytes_max + 1);
            out.reserve_exact(wanted - before);
        }
        (&mut reader)
            .take(room as u64)
            .read_to_end(&mut out)
            .map_err(Failure::Broken)?;
        if out.len() > bytes_max {
            return Err(Failure::TooLarge);
        }
        if out.len() < before + room {
            let bytes = Bytes::from(out);
            return Ok(Received { bytes, memory });
        }
    }
}
