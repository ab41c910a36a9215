//! Writes events as request bodies for a gateway.

use std::io::Write;

use serde_json::{Value, json};

use crate::curve::Sample;
use crate::timeline::Booking;

/// Formats an instant as RFC 3339 in UTC.
///
/// Units:  microseconds since 1970 UTC
pub fn rfc3339(at_us: i64) -> String {
    jiff::Timestamp::from_microsecond(at_us)
        .unwrap_or_default()
        .to_string()
}

/// Appends the meter's reading, with a newline.
pub fn push_meter(lines: &mut Vec<u8>, booking: &Booking, sample: &Sample) {
    push(
        lines,
        format_args!(
            r#"{{"meterId":{},"kwhConsumedAc":{},"voltage":{}.{},"timestamp":"{}"}}"#,
            json!(booking.stay.station_id),
            kwh(sample.ac_micro_kwh),
            sample.volt_deci / 10,
            sample.volt_deci % 10,
            rfc3339(sample.at_us + booking.shift_us),
        ),
    );
}

/// Appends the vehicle's reading, with a newline.
pub fn push_vehicle(lines: &mut Vec<u8>, booking: &Booking, sample: &Sample) {
    push(
        lines,
        format_args!(
            r#"{{"vehicleId":{},"soc":{}.{:02},"kwhDeliveredDc":{},"batteryTemp":{}.{},"timestamp":"{}"}}"#,
            json!(booking.vehicle_id),
            sample.soc_centi / 100,
            sample.soc_centi % 100,
            kwh(sample.dc_micro_kwh),
            sample.temp_deci / 10,
            sample.temp_deci % 10,
            rfc3339(sample.at_us + booking.shift_us),
        ),
    );
}

/// The session of a booking that has begun.
pub fn session(booking: &Booking) -> Value {
    json!({
        "sessionId": booking.session_id,
        "vehicleId": booking.vehicle_id,
        "meterId": booking.stay.station_id,
        "startedAt": rfc3339(booking.start_us()),
    })
}

fn push(lines: &mut Vec<u8>, line: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    drop(writeln!(lines, "{line}"));
}

/// Formats millionths of a kWh as a decimal number.
fn kwh(micro: i64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}
