//! The log's frames: any bytes are read or refused, and what is read can be written again unchanged.
//!
//! The checksum would stop nearly every input at once: it is made right first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uuid::Uuid;
use wattgate::reading::StreamCounts;
use wattgate::wal::frame::{Frame, FrameHead, Position, Salt, Section, encode_frame};
use wattgate::wal::header::{SHARDS_MAX, SegmentHeader};
use wattgate::wal::record;

/// Where the checksum is in a frame, by the table in `wal::frame`.
const CRC_AT: usize = 20;

fuzz_target!(|data: &[u8]| {
    let _ = SegmentHeader::decode(data);
    let run = Uuid::from_u128(7);
    let (salt, at) = (Salt::of(run), Position::START);
    let _ = Frame::decode_any(data, salt, at);
    let mut bytes = data.to_vec();
    if bytes.len() < 32 {
        return;
    }
    let len = (bytes.len() & !7) as u32;
    bytes.truncate(len as usize);
    bytes[..4].copy_from_slice(b"WFRM");
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..16].copy_from_slice(&at.segment().to_le_bytes());
    bytes[16..20].copy_from_slice(&at.offset().to_le_bytes());
    let crc = wattgate_fuzz::frame_checksum(run, &bytes, CRC_AT);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    let Ok(frame) = Frame::decode_any(&bytes, salt, at) else {
        return;
    };
    assert!((1..=SHARDS_MAX).contains(&frame.shards()));
    let mut sections = Vec::new();
    let mut before = Vec::new();
    for shard in 0..frame.shards() {
        let section = frame.section(shard);
        records(section.records);
        sections.push(Section {
            bytes: section.records.to_vec(),
            readings: section.readings,
        });
        before.push(section.before);
    }
    again(&frame, salt, &sections, &before);
});

/// Each record that can be read is written back unchanged.
fn records(mut rest: &[u8]) {
    while !rest.is_empty() {
        let Ok(reading) = record::decode(&mut rest) else {
            return;
        };
        let mut written = Vec::new();
        record::encode(&reading, &mut written);
        let again = record::decode(&mut &written[..]).expect("what was written is read");
        // As bits, because NaN is not equal to itself.
        let mut twice = Vec::new();
        record::encode(&again, &mut twice);
        assert_eq!(written, twice);
    }
}

/// The frame's parts make a frame with the same parts.
fn again(frame: &Frame<'_>, salt: Salt, sections: &[Section], before: &[StreamCounts]) {
    let mut out = Vec::new();
    let head = FrameHead {
        kind: frame.kind,
        salt,
        at: frame.position,
        appended_at: frame.appended_at,
    };
    encode_frame(&head, sections, before, &mut out);
    let read =
        Frame::decode(&out, salt, frame.position, frame.shards()).expect("it was just written");
    assert_eq!(
        (read.kind, read.appended_at, read.shards()),
        (frame.kind, frame.appended_at, frame.shards())
    );
    for shard in 0..frame.shards() {
        let (a, b) = (frame.section(shard), read.section(shard));
        assert_eq!(
            (a.records, a.readings, a.before),
            (b.records, b.readings, b.before)
        );
    }
}
