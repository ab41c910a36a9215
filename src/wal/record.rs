//! The record of one reading in the log. It is compact and holds the device's external id, so that it can be
//! decoded without a database.
//!
//! ```text
//! flags u8 · device bytes - 1 u8 · at i64 µs · kWh f64 · voltage or soc f64 · [battery °C f64]
//! · device utf-8 · [place bytes - 1 u8 · place utf-8]
//! ```
//! All numbers are little-endian. Ids have 1 to 256 bytes, and their lengths are stored as length - 1.

use crate::reading::{
    Details, Energy, EnergyKind, ExternalId, ID_BYTES_MAX, Place, Reading, Timestamp,
};

const VEHICLE: u8 = 1;
const REGISTER: u8 = 1 << 1;
const AT_METER: u8 = 1 << 2;
const IN_SESSION: u8 = 1 << 3;
const KNOWN: u8 = VEHICLE | REGISTER | AT_METER | IN_SESSION;

/// The longest record: a vehicle's reading with two ids of 256 bytes.
pub const RECORD_BYTES_MAX: usize = 2 + 4 * 8 + ID_BYTES_MAX + 1 + ID_BYTES_MAX;

/// Why bytes are not a record: the log is damaged, or was written by a newer version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of the log cannot be read")]
pub struct RecordError;

/// Appends a reading's record to a buffer.
///
/// Shape:  at most [`RECORD_BYTES_MAX`] bytes
pub fn encode(reading: &Reading<'_>, out: &mut Vec<u8>) {
    let mut flags = 0;
    if reading.energy.kind == EnergyKind::Register {
        flags |= REGISTER;
    }
    let device = reading.device.as_str().as_bytes();
    let start = out.len();
    out.extend_from_slice(&[0, (device.len() - 1) as u8]);
    out.extend_from_slice(&reading.at.as_micros().to_le_bytes());
    out.extend_from_slice(&reading.energy.kwh.to_le_bytes());
    let place = match reading.details {
        Details::Meter { voltage } => {
            out.extend_from_slice(&voltage.to_le_bytes());
            None
        }
        Details::Vehicle {
            soc,
            battery_temp,
            place,
        } => {
            flags |= VEHICLE;
            out.extend_from_slice(&soc.to_le_bytes());
            out.extend_from_slice(&battery_temp.to_le_bytes());
            place
        }
    };
    out.extend_from_slice(device);
    if let Some(place) = place {
        let (flag, id) = match place {
            Place::Meter(id) => (AT_METER, id),
            Place::Session(id) => (IN_SESSION, id),
        };
        flags |= flag;
        out.push((id.as_str().len() - 1) as u8);
        out.extend_from_slice(id.as_str().as_bytes());
    }
    out[start] = flags;
}

/// Decodes the first record in a shard's section.
///
/// Shape:  `bytes` is advanced past the record; the reading borrows from it
///
/// # Errors
/// [`RecordError`]: the section has no whole, valid record here. The frame's checksum matched, so this is a defect
/// or a newer format, never a torn write.
pub fn decode<'a>(bytes: &mut &'a [u8]) -> Result<Reading<'a>, RecordError> {
    let mut rest = *bytes;
    let [flags, device_len] = *take::<2>(&mut rest)?;
    if flags & !KNOWN != 0 {
        return Err(RecordError);
    }
    let at = Timestamp::from_micros(i64::from_le_bytes(*take(&mut rest)?));
    let kwh = f64::from_le_bytes(*take(&mut rest)?);
    let kind = if flags & REGISTER == 0 {
        EnergyKind::Interval
    } else {
        EnergyKind::Register
    };
    let first = f64::from_le_bytes(*take(&mut rest)?);
    let battery_temp = if flags & VEHICLE == 0 {
        0.0
    } else {
        f64::from_le_bytes(*take(&mut rest)?)
    };
    let device = take_id(&mut rest, device_len)?;
    let place = if flags & (AT_METER | IN_SESSION) == 0 {
        None
    } else {
        let [len] = *take::<1>(&mut rest)?;
        let id = take_id(&mut rest, len)?;
        Some(if flags & AT_METER != 0 {
            Place::Meter(id)
        } else {
            Place::Session(id)
        })
    };
    let details = if flags & VEHICLE == 0 {
        Details::Meter { voltage: first }
    } else {
        Details::Vehicle {
            soc: first,
            battery_temp,
            place,
        }
    };
    *bytes = rest;
    Ok(Reading {
        device,
        at,
        energy: Energy { kwh, kind },
        details,
    })
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], RecordError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(RecordError)?;
    *bytes = rest;
    Ok(head)
}

fn take_id<'a>(bytes: &mut &'a [u8], len_minus_1: u8) -> Result<ExternalId<'a>, RecordError> {
    let (head, rest) = bytes
        .split_at_checked(usize::from(len_minus_1) + 1)
        .ok_or(RecordError)?;
    *bytes = rest;
    let text = std::str::from_utf8(head).map_err(|_| RecordError)?;
    ExternalId::new(text).map_err(|_| RecordError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id_text() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            any::<char>().prop_filter("printable", |c| !c.is_control()),
            1..=64,
        )
        .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            device in id_text(),
            place_id in id_text(),
            place_kind in 0..3u8,
            vehicle: bool,
            register: bool,
            at: i64,
            numbers: [f64; 3],
        ) {
            let id = ExternalId::new(&place_id).unwrap();
            let details = if vehicle {
                Details::Vehicle {
                    soc: numbers[1],
                    battery_temp: numbers[2],
                    place: match place_kind {
                        0 => None,
                        1 => Some(Place::Meter(id)),
                        _ => Some(Place::Session(id)),
                    },
                }
            } else {
                Details::Meter { voltage: numbers[1] }
            };
            let kind = if register { EnergyKind::Register } else { EnergyKind::Interval };
            let reading = Reading {
                device: ExternalId::new(&device).unwrap(),
                at: Timestamp::from_micros(at),
                energy: Energy { kwh: numbers[0], kind },
                details,
            };
            let mut bytes = Vec::new();
            encode(&reading, &mut bytes);
            prop_assert!(bytes.len() <= RECORD_BYTES_MAX);
            let mut rest = &bytes[..];
            prop_assert_eq!(decode(&mut rest).unwrap(), reading);
            prop_assert!(rest.is_empty());
            // Every truncated record is refused without a panic.
            for len in 0..bytes.len() {
                prop_assert!(decode(&mut &bytes[..len]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while !rest.is_empty() && decode(&mut rest).is_ok() {}
        }
    }
}
