//! When an alert opens, and where it is sent.

use std::path::PathBuf;

use clap::Args;

use super::checks::{Checks, given};
use crate::alerts::{Format, Message, Settings, Webhook};

/// The flags of alerts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Alerts")]
pub struct AlertArgs {
    /// How often the gateway checks for alerts; 0s turns alerts off
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub alert_interval: String,
    /// Open an alert when efficiency over the last 24 hours falls below this, in percent
    #[arg(long, default_value = "75", value_name = "PERCENT")]
    pub alert_efficiency: String,
    /// Open an alert when a battery is hotter than this, in °C
    #[arg(long, default_value = "55", value_name = "CELSIUS")]
    pub alert_temperature: String,
    /// Open an alert when a device has been silent for this long, and for 1.5 times its longest
    /// silence of the last week [default: 30m, and three of the device's usual intervals]
    #[arg(long, value_name = "TIME")]
    pub alert_silence: Option<String>,
    /// A URL that receives a POST request when an alert opens or closes
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub alert_webhook: Option<String>,
    /// What the webhook's receiver understands: wattgate (the alert object), slack, or teams
    #[arg(long, default_value = "wattgate", value_name = "FORMAT")]
    pub alert_webhook_format: String,
    /// The URL of this dashboard, for links in the webhook's bodies [default: no links]
    #[arg(long, value_name = "URL")]
    pub dashboard_url: Option<String>,
    /// A file with the secret that signs the webhook's bodies (HMAC-SHA256)
    #[arg(long, value_name = "FILE")]
    pub alert_webhook_secret_file: Option<PathBuf>,
}

impl Checks {
    /// The URL of a page, without a slash at its end.
    fn page(&mut self, url: &str) -> Option<String> {
        // The address of a view in a browser has a fragment.
        let url = url.split('#').next().unwrap_or_default();
        let parsed: Option<hyper::Uri> = url.parse().ok();
        let is_page = parsed.is_some_and(|uri| {
            let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
            let host = uri.host().is_some_and(|host| !host.is_empty());
            let user = uri.authority().is_some_and(|at| at.as_str().contains('@'));
            scheme && host && !user && uri.query().is_none()
        });
        // These would end a link in a message early.
        if is_page && !url.contains(['|', '<', '>']) {
            return Some(url.trim_end_matches('/').to_owned());
        }
        let why = "must be a URL that begins with http:// or https://, without a user, a password \
                   or a query";
        self.wrong_value("--dashboard-url", url, why);
        None
    }

    /// Checks the flags of alerts; `None` means that they are turned off.
    pub(super) fn alerts(&mut self, args: &AlertArgs) -> Option<Settings> {
        let every = self.duration(
            "--alert-interval",
            &args.alert_interval,
            Settings::EVERY_MAX,
        );
        let (text, range) = (&args.alert_efficiency, Settings::EFFICIENCY_PERCENT);
        let efficiency = self.decimal("--alert-efficiency", text, range, " percent");
        let (text, range) = (&args.alert_temperature, Settings::TEMPERATURE_CELSIUS);
        let temperature = self.decimal("--alert-temperature", text, range, " °C");
        let secret = args.alert_webhook_secret_file.as_ref().and_then(|file| {
            let flag = "--alert-webhook-secret-file";
            match std::fs::read(file).map(|secret| secret.trim_ascii().to_vec()) {
                Ok(secret) if !secret.is_empty() => return Some(secret),
                Ok(_) => self.wrong_value(flag, file.display(), "the file is empty"),
                Err(error) => self.wrong_value(flag, file.display(), error),
            }
            None
        });
        let format = self.choice(
            "--alert-webhook-format",
            &args.alert_webhook_format,
            &[
                ("wattgate", Format::Wattgate),
                ("slack", Format::Slack),
                ("teams", Format::Teams),
            ],
        );
        let dashboard = given(args.dashboard_url.as_deref()).and_then(|url| self.page(url));
        let message = Message { format, dashboard };
        let webhook = given(args.alert_webhook.as_deref()).and_then(|url| {
            Webhook::new(url, message, secret.as_deref())
                // The URL may hold a secret, so it is not repeated.
                .map_err(|why| self.wrong("--alert-webhook", why))
                .ok()
        });
        let silence = given(args.alert_silence.as_deref());
        let silence_min = self.duration(
            "--alert-silence",
            silence.unwrap_or(Settings::SILENCE_MIN),
            Settings::SILENCE_MAX,
        );
        (!every.is_zero()).then(|| Settings {
            every,
            efficiency_below: (efficiency * 100.0).round() as i64,
            temperature_above: temperature,
            silence_min,
            silence_is_fixed: silence.is_some(),
            webhook,
        })
    }
}
