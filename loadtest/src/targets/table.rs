//! The results: one row per target, as a table and as JSON.

use serde_json::{Value, json};

/// The measurement of one target.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// The server on which it was measured.
    pub(super) server: &'static str,
    pub(super) what: String,
    pub(super) figure: f64,
    pub(super) unit: &'static str,
    /// The limit to compare with, if there is one.
    pub(super) limit: Option<(String, f64)>,
    /// The target, for the ratio to the limit or, if no limit was measured, for the figure.
    pub(super) target: Target,
    /// Whether the oracle found every acknowledged reading stored once, if it was used.
    pub(super) is_right: bool,
    /// The complete result of the load.
    pub(super) detail: Value,
}

/// A target.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// At least this much, as a ratio to the limit.
    RatioAtLeast(f64),
    /// At most this much, as a ratio to the limit.
    RatioAtMost(f64),
    /// At least this much.
    AtLeast(f64),
    /// At most this much.
    AtMost(f64),
    /// No target. The figure explains others.
    Shown,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.limit.as_ref().map(|(_, limit)| self.figure / limit)
    }

    pub(super) fn is_met(&self) -> bool {
        match self.target {
            Target::RatioAtLeast(least) => self.ratio().is_some_and(|ratio| ratio >= least),
            Target::RatioAtMost(most) => self.ratio().is_some_and(|ratio| ratio <= most),
            Target::AtLeast(least) => self.figure >= least,
            Target::AtMost(most) => self.figure <= most,
            Target::Shown => true,
        }
    }

    fn target_text(&self) -> String {
        let limit = self.limit.as_ref().map_or("", |(name, _)| name.as_str());
        match self.target {
            Target::RatioAtLeast(least) => format!("≥ {least} × {limit}"),
            Target::RatioAtMost(most) => format!("≤ {most} × {limit}"),
            Target::AtLeast(least) => format!("≥ {}", number(least)),
            Target::AtMost(most) => format!("≤ {}", number(most)),
            Target::Shown => String::new(),
        }
    }

    /// Formats a row of the table.
    pub(super) fn to_text(&self) -> String {
        let limit = self.limit.as_ref();
        let limit = limit.map_or_else(String::new, |(name, limit)| {
            format!("{name}: {}", number(*limit))
        });
        let ratio = self
            .ratio()
            .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let met = match (self.is_met(), self.is_right) {
            (_, false) => "WRONG",
            (true, true) if matches!(self.target, Target::Shown) => "",
            (true, true) => "yes",
            (false, true) => "no",
        };
        format!(
            "| {} | {} | {} | {} {} | {limit} | {ratio} | {} | {met} |",
            self.name,
            self.server,
            self.what,
            number(self.figure),
            self.unit,
            self.target_text(),
        )
    }
}

/// A number with three significant digits, or with all digits before the point.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

/// The table with its heading.
pub(super) fn markdown(heading: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "{heading}\n| | server | load | figure | limit | ratio | target | met |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for row in rows {
        text.push_str(&row.to_text());
        text.push('\n');
    }
    text
}

/// The table as JSON, with the complete result of each load.
pub(super) fn json(machine: Value, began: jiff::Timestamp, seconds: u64, rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "target": row.name,
                "server": row.server,
                "load": row.what,
                "figure": row.figure,
                "unit": row.unit,
                "limit": row.limit.as_ref().map(|(name, value)| json!({ "name": name, "value": value })),
                "ratio": row.ratio(),
                "goal": row.target_text(),
                "met": row.is_met(),
                "right": row.is_right,
                "detail": row.detail,
            })
        })
        .collect();
    json!({ "machine": machine, "began": began.to_string(), "seconds": seconds, "rows": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figure: f64, limit: Option<(&str, f64)>, target: Target) -> Row {
        Row {
            name: "T0",
            server: "embedded",
            what: "nothing".to_owned(),
            figure,
            unit: "/s",
            limit: limit.map(|(name, value)| (name.to_owned(), value)),
            target,
            is_right: true,
            detail: Value::Null,
        }
    }

    #[test]
    fn a_target_is_met_by_its_ratio_or_its_figure() {
        let limit = Some(("L1", 1000.0));
        assert!(row(800.0, limit, Target::RatioAtLeast(0.8)).is_met());
        assert!(!row(799.0, limit, Target::RatioAtLeast(0.8)).is_met());
        assert!(row(10.0, None, Target::AtMost(10.0)).is_met());
        assert!(!row(9.0, None, Target::AtLeast(10.0)).is_met());
        assert!(row(1400.0, limit, Target::RatioAtMost(1.4)).is_met());
        assert!(!row(1401.0, limit, Target::RatioAtMost(1.4)).is_met());
    }

    #[test]
    fn a_result_that_the_oracle_refuses_is_reported_as_wrong() {
        let mut row = row(800.0, Some(("L1", 1000.0)), Target::RatioAtLeast(0.8));
        row.is_right = false;
        let text = markdown("h", &[row]);
        assert!(text.contains(
            "| T0 | embedded | nothing | 800 /s | L1: 1000 | 0.80 | ≥ 0.8 × L1 | WRONG |"
        ));
    }
}
