//! COPY's binary format: rows with any values are read back unchanged by a reader of PostgreSQL's format.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wattgate::reading::Timestamp;
use wattgate::wal::frame::Position;
use wattgate::writer::rows::{HistoryRow, MeterRow, Origin, RowEnergy, VehicleRow};

/// Bytes of the input for one row.
const ROW: usize = 46;

fuzz_target!(|data: &[u8]| {
    for input in data.chunks_exact(ROW) {
        let number = |at: usize| i64::from_le_bytes(std::array::from_fn(|n| input[at + n]));
        let id = |at: usize| i32::from_le_bytes(std::array::from_fn(|n| input[at + n]));
        let float = |at: usize| f64::from_bits(number(at) as u64);
        // Years 1970 to about 10000: no accepted reading is outside them.
        let at = Timestamp::from_micros(number(0).rem_euclid(253_402_300_800_000_000));
        let origin = Origin {
            position: Position::START,
            index: 0,
            received_at: at,
        };
        let energy = RowEnergy {
            kwh: float(8),
            register: input[44] & 1 == 1,
        };
        let (soc, battery_temp) = (float(16), float(24));
        let (named_meter, named_session) = (id(36), id(40));
        let (mut meter, mut vehicle) = (BytesMut::new(), BytesMut::new());
        MeterRow {
            id: id(32),
            at,
            energy,
            voltage: soc,
            origin,
        }
        .encode(&mut meter);
        let row = VehicleRow {
            id: id(32),
            at,
            energy,
            soc,
            battery_temp,
            named_meter,
            named_session,
            origin,
        };
        row.encode(&mut vehicle);
        // The database counts from 2000.
        let time = (at.as_micros() - Timestamp::Y2000.as_micros())
            .to_be_bytes()
            .to_vec();
        let kwh = energy.kwh.to_be_bytes().to_vec();
        let (interval, register) = if energy.register {
            (None, Some(kwh))
        } else {
            (Some(kwh), None)
        };
        let float = |value: f64| Some(value.to_be_bytes().to_vec());
        let named = |id: i32| (id != 0).then(|| id.to_be_bytes().to_vec());
        let device = Some(id(32).to_be_bytes().to_vec());
        let common = [Some(time), interval, register, float(soc)];
        assert_eq!(fields(&meter), [&common[..], &[device.clone()]].concat());
        let rest = [
            float(battery_temp),
            device,
            named(named_meter),
            named(named_session),
        ];
        assert_eq!(fields(&vehicle), [&common[..], &rest].concat());
    }
});

/// The fields of one row: a count, and for each a length (-1 for null) and so many bytes.
fn fields(mut row: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut take = |count: usize| {
        let (head, rest) = row.split_at(count);
        row = rest;
        head.to_vec()
    };
    let count = i16::from_be_bytes([take(1)[0], take(1)[0]]);
    let mut all = Vec::new();
    for _ in 0..count {
        let length = take(4);
        let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        all.push(usize::try_from(length).ok().map(&mut take));
    }
    assert!(row.is_empty(), "bytes behind the last field");
    all
}
