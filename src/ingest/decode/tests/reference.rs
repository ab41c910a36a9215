//! The same rules, written a second time in a plain way over `serde_json::Value`.

use serde_json::Value;

use super::*;

/// A reading as written: keys and JSON texts.
pub(super) type Written = Vec<(String, String)>;

/// The codes and fields of a reading's errors, in order.
pub(super) type Errors = Vec<(Code, Option<String>)>;

/// The required and the optional fields of a reading.
fn fields(vehicle: bool) -> (&'static [&'static str], &'static [&'static str]) {
    let required: &'static [&'static str] = if vehicle {
        &[
            "vehicleId",
            "soc",
            "kwhDeliveredDc",
            "batteryTemp",
            "timestamp",
        ]
    } else {
        &["meterId", "kwhConsumedAc", "voltage", "timestamp"]
    };
    let optional: &'static [&'static str] = if vehicle {
        &["energyKind", "sessionId", "meterId"]
    } else {
        &["energyKind"]
    };
    (required, optional)
}

/// The expected result for a reading: its parts, or all of its errors.
pub(super) fn check(stream: Stream, written: &Written) -> Result<Owned, Errors> {
    let vehicle = stream == Stream::Vehicle;
    let (required, optional) = fields(vehicle);
    let mut seen: Vec<&str> = Vec::new();
    let mut errors = Errors::new();
    for (name, raw) in written {
        if !required.contains(&name.as_str()) && !optional.contains(&name.as_str()) {
            let cut: String = name.chars().take(40).collect();
            let dots = if cut == *name { "" } else { "…" };
            errors.push((Code::UnknownField, Some(cut + dots)));
            continue;
        }
        let code = if seen.contains(&name.as_str()) {
            Some(Code::DuplicateField)
        } else {
            fault(name, raw)
        };
        errors.extend(code.map(|code| (code, Some(name.clone()))));
        seen.push(name);
    }
    for absent in required.iter().filter(|name| !seen.contains(name)) {
        errors.push((Code::Missing, Some((*absent).to_owned())));
    }
    if vehicle && seen.contains(&"sessionId") && seen.contains(&"meterId") {
        errors.push((Code::Conflict, None));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let raw = |name: &str| {
        written
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, raw)| raw.as_str())
    };
    let text = |name: &str| raw(name).map(|raw| serde_json::from_str::<String>(raw).unwrap());
    let number = |name: &str| raw(name).unwrap().parse::<f64>().unwrap() + 0.0;
    let place = text("sessionId").map(|id| (true, id));
    Ok(Owned {
        device: text(required[0]).unwrap(),
        at: by_jiff(&text("timestamp").unwrap()).unwrap(),
        kwh: number(if vehicle {
            "kwhDeliveredDc"
        } else {
            "kwhConsumedAc"
        }),
        register: text("energyKind").as_deref() == Some("register"),
        values: if vehicle {
            [number("soc"), number("batteryTemp")]
        } else {
            [number("voltage"), 0.0]
        },
        place: if vehicle {
            place.or(text("meterId").map(|id| (false, id)))
        } else {
            None
        },
    })
}

/// The code of a field's value, if it is wrong.
fn fault(name: &str, raw: &str) -> Option<Code> {
    let range = match name {
        "kwhConsumedAc" | "kwhDeliveredDc" => Some(0.0..=1e9),
        "voltage" => Some(0.0..=1000.0),
        "soc" => Some(0.0..=100.0),
        "batteryTemp" => Some(-60.0..=150.0),
        _ => None,
    };
    let value = serde_json::from_str::<Value>(raw);
    let is_number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if let Some(range) = range {
        return match is_number {
            false => Some(Code::WrongType),
            true if range.contains(&raw.parse::<f64>().unwrap()) => None,
            true => Some(Code::OutOfRange),
        };
    }
    let text = match value {
        Ok(Value::String(text)) => Some(text),
        Err(_) if raw.starts_with('"') => None,
        _ => return Some(Code::WrongType),
    };
    match name {
        "energyKind" => (!matches!(text.as_deref(), Some("interval" | "register")))
            .then_some(Code::InvalidValue),
        "timestamp" => match text.and_then(|text| by_jiff(&text)) {
            None => Some(Code::InvalidTimestamp),
            Some(at) if at < Timestamp::Y2000.as_micros() => Some(Code::TooOld),
            Some(at) if at > bounds().newest.as_micros() => Some(Code::InFuture),
            Some(_) => None,
        },
        _ => {
            let good = |text: String| {
                (1..=64).contains(&text.chars().count())
                    && !text.chars().any(char::is_control)
                    && ![".", ".."].contains(&text.as_str())
            };
            (!text.is_some_and(good)).then_some(Code::InvalidId)
        }
    }
}

/// A time as jiff parses it, truncated to microseconds. `None` if RFC 3339 does not allow the form, because jiff
/// accepts more of ISO 8601.
///
/// The offset is applied separately, because jiff's instants end a day before the end of the year 9999.
pub(super) fn by_jiff(text: &str) -> Option<i64> {
    let shape_of = |text: &str| -> String {
        let digit = |c: char| if c.is_ascii_digit() { '0' } else { c };
        text.chars().map(digit).collect()
    };
    let (civil, rest) = text.split_at_checked(19)?;
    let shape = shape_of(civil).to_ascii_uppercase();
    if !matches!(
        shape.as_str(),
        "0000-00-00T00:00:00" | "0000-00-00 00:00:00"
    ) {
        return None;
    }
    let fraction = rest.strip_prefix('.').map_or(0, |digits| {
        1 + digits.bytes().take_while(u8::is_ascii_digit).count()
    });
    let (fraction, offset) = rest.split_at(fraction);
    let shape = shape_of(offset);
    if fraction.len() == 1 || !matches!(shape.as_str(), "Z" | "z" | "+00:00" | "-00:00") {
        return None;
    }
    let east_minutes = if offset.eq_ignore_ascii_case("z") {
        0
    } else {
        let (hours, minutes) = (&offset[1..3], &offset[4..6]);
        if hours > "23" || minutes > "59" {
            return None;
        }
        let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
        if offset.starts_with('-') {
            -minutes
        } else {
            minutes
        }
    };
    let cut = format!("{civil}{}", &fraction[..fraction.len().min(7)]);
    let local: jiff::civil::DateTime = cut.parse().ok()?;
    let since = local.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0));
    Some(i64::try_from(since.as_micros()).ok()? - east_minutes * 60_000_000)
}
