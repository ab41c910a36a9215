//! A delivery as the body of a POST: the alert object, or a message that a chat shows.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the receiver understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The alert object.
    Wattgate,
    /// A message of Slack's incoming webhooks.
    Slack,
    /// An Adaptive Card, as a webhook of Teams' Workflows accepts it.
    Teams,
}

/// How a delivery is written.
#[derive(Debug, Clone)]
pub struct Message {
    /// What the receiver understands.
    pub format: Format,
    /// The URL of the dashboard, without a slash at its end; `None` means that there is no link to it.
    pub dashboard: Option<String>,
}

/// A delivery, as it is stored.
#[derive(Deserialize)]
struct Delivery {
    event: String,
    alert: Alert,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    kind: String,
    severity: String,
    vehicle_id: Option<String>,
    meter_id: Option<String>,
    opened_at: String,
    closed_at: Option<String>,
    value: Option<f64>,
    bound: Option<f64>,
}

impl Message {
    /// Writes a stored delivery. One of another version, which this one cannot read, is sent as it is.
    pub(super) fn body(&self, stored: String) -> String {
        if self.format == Format::Wattgate && self.dashboard.is_none() {
            return stored;
        }
        let Ok(delivery) = serde_json::from_str::<Delivery>(&stored) else {
            return stored;
        };
        let link = delivery.alert.link(self.dashboard.as_deref());
        match self.format {
            Format::Slack => slack(&delivery, link.as_deref()).to_string(),
            Format::Teams => teams(&delivery, link.as_deref()).to_string(),
            Format::Wattgate => with_link(stored, link.as_deref()),
        }
    }
}

/// Adds the link to the stored object.
fn with_link(stored: String, link: Option<&str>) -> String {
    match serde_json::from_str::<Value>(&stored) {
        Ok(mut object) => {
            object["link"] = json!(link);
            object.to_string()
        }
        Err(_) => stored,
    }
}

fn slack(delivery: &Delivery, link: Option<&str>) -> Value {
    let (word, id) = delivery.alert.device();
    // In a code span neither a mention, nor a link, nor any other markup counts. Slack escapes these three characters.
    let id = id.replace('`', "'").replace('&', "&amp;");
    let id = id.replace('<', "&lt;").replace('>', "&gt;");
    let mut lines = vec![format!("{}, {word} `{id}`", delivery.problem())];
    let facts = delivery.facts().into_iter();
    lines.extend(facts.map(|(name, value)| format!("{name}: {value}")));
    if let Some(link) = link {
        lines.push(format!("<{link}|{OPEN}>"));
    }
    json!({ "text": lines.join("\n") })
}

fn teams(delivery: &Delivery, link: Option<&str>) -> Value {
    let (word, id) = delivery.alert.device();
    let facts = delivery.facts().into_iter();
    let facts: Vec<Value> = facts
        .map(|(name, value)| json!({ "title": name, "value": value }))
        .collect();
    let color = match (delivery.is_closed(), delivery.alert.severity.as_str()) {
        (true, _) => "good",
        (false, "critical") => "attention",
        (false, _) => "warning",
    };
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            // The text of a run is shown as it is; that of other elements may hold Markdown.
            {
                "type": "RichTextBlock",
                "inlines": [{
                    "type": "TextRun",
                    "text": format!("{}, {word} {id}", delivery.problem()),
                    "weight": "bolder",
                    "color": color,
                }],
            },
            { "type": "FactSet", "facts": facts },
        ],
    });
    if let Some(link) = link {
        card["actions"] = json!([{ "type": "Action.OpenUrl", "title": OPEN, "url": link }]);
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": card,
        }],
    })
}

/// The words of the link.
const OPEN: &str = "Open the dashboard";

impl Delivery {
    fn is_closed(&self) -> bool {
        self.event == "closed"
    }

    /// Such as `Critical: hot battery`.
    fn problem(&self) -> String {
        let severity = match (self.is_closed(), self.alert.severity.as_str()) {
            (true, _) => "Resolved",
            (false, "critical") => "Critical",
            (false, _) => "Warning",
        };
        let problem = match self.alert.kind.as_str() {
            "efficiency_low" => "low efficiency",
            "efficiency_anomaly" => "efficiency below its usual level",
            "battery_temperature" => "hot battery",
            "silent" => "silent device",
            "implausible_reading" => "implausible readings",
            other => other,
        };
        format!("{severity}: {problem}")
    }

    /// The value, its limit and the times, each with its name.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let alert = &self.alert;
        let text = |value: f64| alert.with_unit(value);
        let facts = [
            ("Value", alert.value.map(text)),
            // Any implausible reading is an alert.
            ("Limit", alert.bound.filter(|limit| *limit != 0.0).map(text)),
            ("Opened", Some(to_the_second(&alert.opened_at))),
            ("Closed", alert.closed_at.as_deref().map(to_the_second)),
        ];
        let present = |(name, value): (_, Option<String>)| Some((name, value?));
        facts.into_iter().filter_map(present).collect()
    }
}

/// An instant without its fraction of a second.
fn to_the_second(instant: &str) -> String {
    match instant.split_once('.') {
        Some((second, _)) => format!("{second}Z"),
        None => instant.to_owned(),
    }
}

impl Alert {
    fn device(&self) -> (&'static str, &str) {
        match (&self.meter_id, &self.vehicle_id) {
            (Some(id), _) => ("meter", id),
            (None, Some(id)) => ("vehicle", id),
            (None, None) => ("device", ""),
        }
    }

    /// The device's page on the dashboard.
    fn link(&self, dashboard: Option<&str>) -> Option<String> {
        let (word, id) = self.device();
        let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
        Some(format!("{}/#/{word}s/{id}", dashboard?))
    }

    /// A value in the unit of this kind (`docs/src/alerts.md`).
    fn with_unit(&self, value: f64) -> String {
        match self.kind.as_str() {
            "efficiency_low" | "efficiency_anomaly" => format!("{value:.1}%"),
            "battery_temperature" => format!("{value:.1} °C"),
            "silent" => span(value),
            "implausible_reading" if value == 1.0 => "1 reading".to_owned(),
            "implausible_reading" => format!("{value:.0} readings"),
            _ => value.to_string(),
        }
    }
}

/// A time in one unit, or two.
///
/// Units:  seconds
fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).max(0.0) as u64;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: &str = r#"{"event":"opened","alert":{"alertId":"17","kind":"silent","severity":"warning",
        "state":"open","meterId":"<M`_@all>","openedAt":"2024-02-09T15:31:00.482913Z","closedAt":null,
        "value":10320,"bound":1800,"details":{"unit":"s"}}}"#;

    fn body(format: Format, dashboard: Option<&str>, stored: &str) -> Value {
        let dashboard = dashboard.map(str::to_owned);
        let message = Message { format, dashboard };
        serde_json::from_str(&message.body(stored.to_owned())).unwrap()
    }

    #[test]
    fn slack_gets_text_in_which_an_id_is_no_markup() {
        let sent = body(Format::Slack, Some("https://fleet.example.org"), OPENED);
        assert_eq!(
            sent["text"],
            "Warning: silent device, meter `&lt;M'_@all&gt;`\nValue: 2 h 52 min\nLimit: 30 min\n\
             Opened: 2024-02-09T15:31:00Z\n\
             <https://fleet.example.org/#/meters/%3CM%60%5F%40all%3E|Open the dashboard>"
        );
    }

    #[test]
    fn teams_gets_a_card_in_which_an_id_is_no_markup() {
        let closed = OPENED
            .replace("opened\",", "closed\",")
            .replace("\"closedAt\":null", "\"closedAt\":\"2024-02-09T16:00:00Z\"");
        let sent = body(Format::Teams, Some("https://fleet.example.org"), &closed);
        assert_eq!(sent["type"], "message");
        let card = &sent["attachments"][0]["content"];
        let title = &card["body"][0]["inlines"][0];
        assert_eq!(title["text"], "Resolved: silent device, meter <M`_@all>");
        assert_eq!(title["color"], "good");
        assert_eq!(card["body"][1]["facts"][3]["value"], "2024-02-09T16:00:00Z");
        assert_eq!(
            card["actions"][0]["url"],
            "https://fleet.example.org/#/meters/%3CM%60%5F%40all%3E"
        );
        assert!(
            body(Format::Teams, None, &closed)["attachments"][0]["content"]["actions"].is_null()
        );
    }

    #[test]
    fn the_alert_object_is_sent_as_it_is_or_with_a_link() {
        let stored: Value = serde_json::from_str(OPENED).unwrap();
        assert_eq!(body(Format::Wattgate, None, OPENED), stored);
        let mut with_link = body(Format::Wattgate, Some("http://h"), OPENED);
        assert_eq!(with_link["link"], "http://h/#/meters/%3CM%60%5F%40all%3E");
        with_link.as_object_mut().unwrap().remove("link");
        assert_eq!(with_link, stored);
    }

    #[test]
    fn a_delivery_that_cannot_be_read_is_sent_as_it_is() {
        let other = r#"{"event":"muted"}"#;
        assert_eq!(body(Format::Slack, None, other)["event"], "muted");
    }

    #[test]
    fn values_have_the_unit_of_their_kind() {
        let of = |kind: &str, value: f64| {
            let stored = OPENED
                .replace("silent", kind)
                .replace("10320", &value.to_string());
            let delivery: Delivery = serde_json::from_str(&stored).unwrap();
            delivery.facts()[0].1.clone()
        };
        assert_eq!(of("efficiency_low", 71.26), "71.3%");
        assert_eq!(of("battery_temperature", 57.0), "57.0 °C");
        assert_eq!(of("implausible_reading", 1.0), "1 reading");
        assert_eq!(of("implausible_reading", 3.0), "3 readings");
        assert_eq!(of("silent", 200_000.0), "2 d 7 h");
        assert_eq!(of("of_the_future", 1.5), "1.5");
    }
}
