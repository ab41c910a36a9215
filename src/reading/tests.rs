use super::*;

#[test]
fn an_id_is_1_to_64_printable_characters() {
    assert_eq!(ExternalId::new(""), Err(IdError::Empty));
    let longest = "x".repeat(64);
    assert!(ExternalId::new(&longest).is_ok());
    assert_eq!(ExternalId::new(&"x".repeat(65)), Err(IdError::TooLong));
    let wide = "\u{1F50B}".repeat(64);
    assert_eq!(wide.len(), ID_BYTES_MAX);
    assert!(ExternalId::new(&wide).is_ok());
    assert_eq!(
        ExternalId::new(&"\u{1F50B}".repeat(65)),
        Err(IdError::TooLong)
    );
    for bad in ["a\0b", "a\nb", "\u{7f}", "\u{85}x"] {
        assert_eq!(ExternalId::new(bad), Err(IdError::Control), "{bad:?}");
    }
    assert!(ExternalId::new("2_39_131_30_2019-05-01 08:18:44.595638").is_ok());
    for dots in [".", ".."] {
        assert_eq!(ExternalId::of_new(dots), Err(IdError::Dots));
        assert!(ExternalId::new(dots).is_ok(), "stored ones are read");
    }
    for good in ["...", ".a", "a.", "%2e", "a/b"] {
        assert!(ExternalId::of_new(good).is_ok(), "{good}");
    }
}

#[test]
fn a_writable_instant_is_written_as_rfc_3339() {
    let last = 253_402_207_199_999_999;
    for (micros, text) in [
        (-62_135_596_800_000_000, "0001-01-01T00:00:00Z"),
        (
            -62_135_596_800_000_000 - 86_400_000_000,
            "0000-12-31T00:00:00Z",
        ),
        (last, "9999-12-30T21:59:59.999999Z"),
    ] {
        assert_eq!(Timestamp(micros).to_string(), text);
    }
    assert!(Timestamp(-62_135_596_800_000_000).is_writable());
    assert!(!Timestamp(-62_135_596_800_000_001).is_writable());
    assert!(Timestamp(last).is_writable() && !Timestamp(last + 1).is_writable());
    assert!(!Timestamp(i64::MIN).is_writable() && !Timestamp(i64::MAX).is_writable());
}

#[test]
fn shards_are_even_and_within_bounds() {
    for shards in [1u16, 2, 3, 64] {
        let mut counts = vec![0u32; usize::from(shards)];
        for n in 0..64_000 {
            let id = format!("M{n:05}");
            let shard = shard_of(Stream::Meter, ExternalId::new(&id).unwrap(), shards);
            counts[usize::from(shard)] += 1;
        }
        let mean = 64_000 / u32::from(shards);
        for count in counts {
            assert!(
                count > mean * 8 / 10 && count < mean * 12 / 10,
                "{count} of {mean}"
            );
        }
    }
}

#[test]
fn the_shard_of_a_device_never_changes() {
    // Existing logs hold these values: a change here would change the format.
    let id = |text| ExternalId::new(text).unwrap();
    let of = |stream, text| shard_of(stream, id(text), 64);
    let now = [
        of(Stream::Meter, "M1"),
        of(Stream::Vehicle, "M1"),
        of(Stream::Meter, "AG-1F11"),
    ];
    assert_eq!(now, FIXED);
}
const FIXED: [u16; 3] = [24, 44, 61];
