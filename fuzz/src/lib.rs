//! What the fuzz targets compare the gateway with: its tests' own reference.

pub mod decode;

/// The checksum of a frame of the log, written a second time by the table in `wal::frame`: salted
/// with that of the run's id, its own four bytes left out.
pub fn frame_checksum(run: uuid::Uuid, frame: &[u8], crc_at: usize) -> u32 {
    let salt = crc32c::crc32c(run.as_bytes());
    let head = crc32c::crc32c_append(salt, &frame[..crc_at]);
    crc32c::crc32c_append(head, &frame[crc_at + 4..])
}
