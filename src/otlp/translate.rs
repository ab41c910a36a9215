//! From Prometheus' text to OTLP in JSON.
//!
//! Source: the OTLP specification 1.x (in its JSON encoding, 64-bit integers are texts), and
//! Prometheus' exposition format 0.0.4

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Sums since the start, like Prometheus' counters and histograms.
const CUMULATIVE: u8 = 2;

/// Times of a push, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The start of the process and of all sums.
    pub(super) start_nanos: u128,
    pub(super) now_nanos: u128,
}

/// The gateway that sends the metrics.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub(super) version: &'static str,
    pub(super) instance: String,
}

/// A line of the text.
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, String>,
    value: f64,
}

/// One histogram of one set of labels.
#[derive(Default)]
struct Histogram {
    /// Upper bounds with the sums up to them, in the order of the text.
    buckets: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

/// Makes the body of a request from a scrape.
///
/// Metrics without a type and unreadable lines are skipped.
pub(super) fn export(scrape: &str, times: Times, resource: &Resource) -> Value {
    let mut metrics = Vec::new();
    let (mut name, mut kind) = ("", "");
    let mut samples = Vec::new();
    for line in scrape.lines().chain(["# TYPE  "]) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            metrics.extend(metric(name, kind, &samples, times));
            samples.clear();
            (name, kind) = declared.split_once(' ').unwrap_or((declared, ""));
        } else if !line.starts_with('#') {
            samples.extend(sample(line));
        }
    }
    let attributes = [
        ("service.name", "wattgate"),
        ("service.version", resource.version),
        ("service.instance.id", &resource.instance),
    ];
    json!({"resourceMetrics": [{
        "resource": {"attributes": attributes.map(|(key, value)| attribute(key, value))},
        "scopeMetrics": [{"scope": {"name": "wattgate"}, "metrics": metrics}],
    }]})
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn metric(name: &str, kind: &str, samples: &[Sample<'_>], times: Times) -> Option<Value> {
    let points = || -> Vec<Value> { samples.iter().map(|s| number(s, times)).collect() };
    match kind {
        _ if samples.is_empty() => None,
        "counter" => Some(json!({"name": name, "sum": {
            "aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points(),
        }})),
        "gauge" => Some(json!({"name": name, "gauge": {"dataPoints": points()}})),
        "histogram" => Some(json!({"name": name, "histogram": {
            "aggregationTemporality": CUMULATIVE, "dataPoints": histograms(name, samples, times),
        }})),
        _ => None,
    }
}

fn number(sample: &Sample<'_>, times: Times) -> Value {
    json!({
        "attributes": attributes(&sample.labels),
        "startTimeUnixNano": times.start_nanos.to_string(),
        "timeUnixNano": times.now_nanos.to_string(),
        "asDouble": sample.value,
    })
}

fn attributes(labels: &BTreeMap<&str, String>) -> Vec<Value> {
    labels
        .iter()
        .map(|(key, value)| attribute(key, value))
        .collect()
}

fn histograms(name: &str, samples: &[Sample<'_>], times: Times) -> Vec<Value> {
    let mut found: BTreeMap<BTreeMap<&str, String>, Histogram> = BTreeMap::new();
    for sample in samples {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let histogram = found.entry(labels).or_default();
        match (sample.name.strip_prefix(name), bound) {
            (Some("_sum"), None) => histogram.sum = sample.value,
            (Some("_count"), None) => histogram.count = sample.value,
            (Some("_bucket"), Some(bound)) => {
                let bound = bound.parse().unwrap_or(f64::INFINITY);
                histogram.buckets.push((bound, sample.value));
            }
            _ => {}
        }
    }
    let point = |(labels, histogram): (&BTreeMap<&str, String>, &Histogram)| {
        // Prometheus' buckets are cumulative; OTLP's are separate, and the last has no bound.
        let sums = histogram.buckets.iter().map(|(_, sum)| *sum);
        let before = [0.0].into_iter().chain(sums.clone());
        let counts: Vec<String> = sums
            .zip(before)
            .map(|(sum, before)| whole(sum - before))
            .collect();
        let bounds = histogram.buckets.iter().map(|(bound, _)| *bound);
        json!({
            "attributes": attributes(labels),
            "startTimeUnixNano": times.start_nanos.to_string(),
            "timeUnixNano": times.now_nanos.to_string(),
            "count": whole(histogram.count),
            "sum": histogram.sum,
            "bucketCounts": counts,
            "explicitBounds": bounds.filter(|bound| bound.is_finite()).collect::<Vec<_>>(),
        })
    };
    found.iter().map(point).collect()
}

fn whole(count: f64) -> String {
    format!("{:.0}", count.max(0.0))
}

/// Reads `name{label="value",…} number`.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (head, value) = line.trim_end().rsplit_once(' ')?;
    let value: f64 = value.parse().ok()?;
    let Some((name, labels)) = head.split_once('{') else {
        return value.is_finite().then_some(Sample {
            name: head,
            labels: BTreeMap::new(),
            value,
        });
    };
    Some(Sample {
        name,
        labels: self::labels(labels.strip_suffix('}')?)?,
        value,
    })
    .filter(|s| s.value.is_finite())
}

/// Reads labels. A value may hold commas, braces, and escaped quotes and newlines.
fn labels(mut text: &str) -> Option<BTreeMap<&str, String>> {
    let mut found = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, c) => value.push(c),
            }
        };
        found.insert(key, value);
        text = rest[end + 1..].trim_start_matches(',');
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        start_nanos: 1,
        now_nanos: 2,
    };

    fn exported(scrape: &str) -> Vec<Value> {
        let resource = Resource {
            version: "1",
            instance: "here".to_owned(),
        };
        let body = export(scrape, TIMES, &resource);
        body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
            .as_array()
            .unwrap()
            .clone()
    }

    #[test]
    fn counters_gauges_and_histograms_keep_their_kinds() {
        let scrape = "# HELP a_total Words.\n# TYPE a_total counter\na_total{stream=\"meter\"} 3\n\n\
                      # TYPE g gauge\ng 1.5\n\n# TYPE h histogram\nh_bucket{r=\"x\",le=\"0.1\"} 2\n\
                      h_bucket{r=\"x\",le=\"1\"} 5\nh_bucket{r=\"x\",le=\"+Inf\"} 6\nh_sum{r=\"x\"} 4.5\n\
                      h_count{r=\"x\"} 6\n";
        let metrics = exported(scrape);
        assert_eq!(metrics.len(), 3);
        let sum = &metrics[0]["sum"];
        assert_eq!(
            (&sum["isMonotonic"], &sum["aggregationTemporality"]),
            (&json!(true), &json!(2))
        );
        let point = &sum["dataPoints"][0];
        assert_eq!(point["asDouble"], json!(3.0));
        assert_eq!(point["timeUnixNano"], json!("2"));
        assert_eq!(point["attributes"], json!([attribute("stream", "meter")]));
        assert_eq!(metrics[1]["gauge"]["dataPoints"][0]["asDouble"], json!(1.5));
        let point = &metrics[2]["histogram"]["dataPoints"][0];
        assert_eq!(point["bucketCounts"], json!(["2", "3", "1"]));
        assert_eq!(point["explicitBounds"], json!([0.1, 1.0]));
        assert_eq!((&point["count"], &point["sum"]), (&json!("6"), &json!(4.5)));
    }

    #[test]
    fn hostile_labels_stay_what_they_are() {
        let metrics =
            exported("# TYPE g gauge\ng{a=\"x,}\\\"\\\\y\\n\",b=\"\"} 1\ng{broken 1\ng NaN\n");
        let points = metrics[0]["gauge"]["dataPoints"].as_array().unwrap();
        assert_eq!(points.len(), 1);
        assert_eq!(
            points[0]["attributes"],
            json!([attribute("a", "x,}\"\\y\n"), attribute("b", "")])
        );
    }
}
