//! The results: a row a target, as a table and as JSON.

use serde_json::{Value, json};

/// One target, measured.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) what: String,
    pub(super) figure: f64,
    pub(super) unit: &'static str,
    /// The limit to compare with, if there is one.
    pub(super) limit: Option<(&'static str, f64)>,
    /// The target: for the ratio to the limit, or for the figure if no limit was measured.
    pub(super) target: Target,
    /// Whether the oracle found every acknowledged reading stored once, if it was used.
    pub(super) is_right: bool,
    /// The whole result of the load.
    pub(super) detail: Value,
}

/// A target.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// At least so much, as a ratio to the limit.
    RatioAtLeast(f64),
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.limit.map(|(_, limit)| self.figure / limit)
    }

    pub(super) fn is_met(&self) -> bool {
        match self.target {
            Target::RatioAtLeast(least) => self.ratio().is_some_and(|ratio| ratio >= least),
            Target::AtLeast(least) => self.figure >= least,
            Target::AtMost(most) => self.figure <= most,
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::RatioAtLeast(least) => {
                format!("≥ {least} × {}", self.limit.map_or("", |(name, _)| name))
            }
            Target::AtLeast(least) => format!("≥ {}", number(least)),
            Target::AtMost(most) => format!("≤ {}", number(most)),
        }
    }
}

/// A number with three digits that count, or all before the point.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

/// The table under a heading.
pub(super) fn markdown(heading: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "{heading}\n| | load | figure | limit | ratio | target | met |\n| --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for row in rows {
        let limit = row.limit.map_or_else(String::new, |(name, limit)| {
            format!("{name}: {}", number(limit))
        });
        let ratio = row
            .ratio()
            .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let met = match (row.is_met(), row.is_right) {
            (_, false) => "WRONG",
            (true, true) => "yes",
            (false, true) => "no",
        };
        text.push_str(&format!(
            "| {} | {} | {} {} | {limit} | {ratio} | {} | {met} |\n",
            row.name,
            row.what,
            number(row.figure),
            row.unit,
            row.target_text(),
        ));
    }
    text
}

/// The same as JSON, with the whole result of each load.
pub(super) fn json(machine: Value, began: jiff::Timestamp, seconds: u64, rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "target": row.name,
                "load": row.what,
                "figure": row.figure,
                "unit": row.unit,
                "limit": row.limit.map(|(name, value)| json!({ "name": name, "value": value })),
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

    fn row(figure: f64, limit: Option<(&'static str, f64)>, target: Target) -> Row {
        Row {
            name: "T0",
            what: "nothing".to_owned(),
            figure,
            unit: "/s",
            limit,
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
    }

    #[test]
    fn a_result_that_the_oracle_refuses_is_told_as_wrong() {
        let mut row = row(800.0, Some(("L1", 1000.0)), Target::RatioAtLeast(0.8));
        row.is_right = false;
        let text = markdown("h", &[row]);
        assert!(text.contains("| T0 | nothing | 800 /s | L1: 1000 | 0.80 | ≥ 0.8 × L1 | WRONG |"));
    }
}
