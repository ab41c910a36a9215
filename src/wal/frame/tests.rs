use super::*;

fn run() -> Uuid {
    Uuid::from_u128(0x1234_5678)
}

fn counts<T>(meter: T, vehicle: T) -> PerStream<T> {
    PerStream { meter, vehicle }
}

fn frame(at: Position) -> Vec<u8> {
    let sections = [
        Section {
            bytes: b"first".to_vec(),
            readings: counts(1, 2),
        },
        Section::default(),
        Section {
            bytes: b"third section".to_vec(),
            readings: counts(3, 0),
        },
    ];
    let before = [counts(10, 20), counts(30, 40), counts(50, 60)];
    let mut out = Vec::new();
    let head = FrameHead {
        kind: FrameKind::Data,
        salt: Salt::of(run()),
        at,
        appended_at: Timestamp::from_micros(77),
    };
    encode_frame(&head, &sections, &before, &mut out);
    out
}

#[test]
fn a_frame_is_read_as_it_was_written() {
    let at = Position::new(3, 4096);
    let bytes = frame(at);
    let read = Frame::decode(&bytes, Salt::of(run()), at, 3).unwrap();
    assert_eq!(read.kind, FrameKind::Data);
    assert_eq!(read.appended_at, Timestamp::from_micros(77));
    assert_eq!(read.section(0).records, b"first");
    assert_eq!(read.section(0).readings, counts(1, 2));
    assert_eq!(read.section(1).records, b"");
    assert_eq!(read.section(1).before, counts(30, 40));
    assert_eq!(read.section(2).records, b"third section");
    assert_eq!(read.end(), Position::new(3, 4096 + bytes.len() as u32));
}

#[test]
fn every_flipped_bit_is_found() {
    let at = Position::new(0, 4096);
    let bytes = frame(at);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Frame::decode(&bad, Salt::of(run()), at, 3).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn a_frame_of_another_run_or_position_is_refused() {
    let at = Position::new(1, 8192);
    let bytes = frame(at);
    let other = Salt::of(Uuid::from_u128(9));
    assert_eq!(
        Frame::decode(&bytes, other, at, 3).unwrap_err(),
        FrameError::Invalid
    );
    for wrong in [Position::new(2, 8192), Position::new(1, 8200)] {
        assert!(Frame::decode(&bytes, Salt::of(run()), wrong, 3).is_err());
    }
    assert!(Frame::decode(&bytes, Salt::of(run()), at, 2).is_err());
}

#[test]
fn a_truncated_frame_needs_more_bytes() {
    let at = Position::START;
    let bytes = frame(at);
    for len in 0..bytes.len() {
        let result = Frame::decode(&bytes[..len], Salt::of(run()), at, 3);
        assert!(
            matches!(result, Err(FrameError::Short(n)) if n > len),
            "{len}"
        );
    }
}
