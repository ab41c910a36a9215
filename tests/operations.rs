//! The files for operators match the gateway: metric names, alerts and the runbook.

use std::collections::BTreeSet;
use std::fs;

const RULES: &str = "ops/prometheus/rules.yml";
const DASHBOARD: &str = "ops/grafana/dashboards/wattgate.json";

#[test]
fn rules_and_dashboard_use_metrics_that_exist() {
    let metrics = fs::read_to_string("src/metrics.rs").unwrap();
    let rules = fs::read_to_string(RULES).unwrap();
    let known: BTreeSet<&str> = quoted_names(&metrics);
    let mut named = 0;
    for file in [RULES, DASHBOARD] {
        let text = fs::read_to_string(file).unwrap();
        for name in names(&text) {
            // The rules themselves record `level:wattgate_…:operation`.
            let recorded = rules.contains(&format!(":{name}:"));
            let group = text.contains(&format!("name: {name}"));
            let base = name.trim_end_matches("_bucket");
            assert!(
                known.contains(base) || recorded || group,
                "{file} uses {name}, which the gateway does not have"
            );
            named += 1;
        }
    }
    assert!(named > 50, "the test looks in the wrong place");
}

#[test]
fn the_runbook_has_a_section_for_each_alert() {
    let rules = fs::read_to_string(RULES).unwrap();
    let runbook = fs::read_to_string("ops/RUNBOOK.md").unwrap();
    let alerts: BTreeSet<&str> = after(&rules, "- alert: ");
    let sections: BTreeSet<&str> = after(&runbook, "## ")
        .into_iter()
        .filter(|section| section.starts_with("Wattgate"))
        .collect();
    assert_eq!(alerts, sections);
    let links: BTreeSet<String> = after(&rules, "runbook: ops/RUNBOOK.md#")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let expected = alerts.iter().map(|alert| alert.to_lowercase()).collect();
    assert_eq!(links, expected);
}

/// What follows a prefix, on the lines that begin with it.
fn after<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix(prefix))
        .collect()
}

/// The gateway's metric names in double quotes, as in its code.
fn quoted_names(code: &str) -> BTreeSet<&str> {
    code.split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| text.starts_with("wattgate_"))
        .collect()
}

/// Every word that begins like a metric of the gateway.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("wattgate_"))
}
