//! When an alert opens, and who is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::alerts::{Settings, Webhook};

/// The flags of alerts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Alerts")]
pub struct AlertArgs {
    /// How often causes of alerts are looked for; 0s: never
    #[arg(
        long,
        global = true,
        env = "WATTGATE_ALERT_INTERVAL",
        default_value = "60s",
        value_name = "TIME"
    )]
    pub alert_interval: String,
    /// Efficiency in percent, of the last 24 hours, below which an alert opens
    #[arg(
        long,
        global = true,
        env = "WATTGATE_ALERT_EFFICIENCY",
        default_value_t = 75.0,
        value_name = "PERCENT"
    )]
    pub alert_efficiency: f64,
    /// Battery temperature in °C above which an alert opens
    #[arg(
        long,
        global = true,
        env = "WATTGATE_ALERT_TEMPERATURE",
        default_value_t = 55.0,
        value_name = "CELSIUS"
    )]
    pub alert_temperature: f64,
    /// How long a device is not heard of before an alert opens, at least; and longer than one and
    /// a half times its longest silence of a week
    #[arg(
        long,
        global = true,
        env = "WATTGATE_ALERT_SILENCE",
        default_value = "30m",
        value_name = "TIME"
    )]
    pub alert_silence: String,
    /// Who is told when an alert opens and closes, by POST
    #[arg(
        long,
        global = true,
        env = "WATTGATE_ALERT_WEBHOOK",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub alert_webhook: Option<String>,
    /// A file with the secret that signs what the webhook is sent (HMAC-SHA256)
    #[arg(
        long,
        global = true,
        env = "WATTGATE_ALERT_WEBHOOK_SECRET_FILE",
        value_name = "FILE"
    )]
    pub alert_webhook_secret_file: Option<PathBuf>,
}

impl super::Checks {
    /// Checks the flags of alerts; none where they are not to be looked for.
    pub(super) fn alerts(&mut self, args: &AlertArgs) -> Option<Settings> {
        let every = self.duration(
            "--alert-interval",
            &args.alert_interval,
            Duration::from_secs(86_400),
        );
        if !(0.0..=100.0).contains(&args.alert_efficiency) {
            let text = format!(
                "--alert-efficiency {}: must be 0 to 100",
                args.alert_efficiency
            );
            self.errors.push(text);
        }
        if !(-60.0..=150.0).contains(&args.alert_temperature) {
            let text = format!(
                "--alert-temperature {}: must be -60 to 150",
                args.alert_temperature
            );
            self.errors.push(text);
        }
        let secret = args.alert_webhook_secret_file.as_ref().and_then(|file| {
            let read = std::fs::read(file).map(|secret| secret.trim_ascii().to_vec());
            match read {
                Ok(secret) if !secret.is_empty() => return Some(secret),
                Ok(_) => self
                    .errors
                    .push("--alert-webhook-secret-file: the file is empty".to_owned()),
                Err(error) => self
                    .errors
                    .push(format!("--alert-webhook-secret-file: {error}")),
            }
            None
        });
        let url = args.alert_webhook.as_ref().filter(|url| !url.is_empty());
        let webhook = url.and_then(|url| {
            Webhook::new(url, secret.as_deref())
                // The URL may hold a secret: it is not repeated.
                .map_err(|why| self.errors.push(format!("--alert-webhook {why}")))
                .ok()
        });
        let silence_min = self.duration(
            "--alert-silence",
            &args.alert_silence,
            Duration::from_secs(7 * 86_400),
        );
        (!every.is_zero()).then(|| Settings {
            every,
            efficiency_below: (args.alert_efficiency * 100.0).round() as i64,
            temperature_above: args.alert_temperature,
            silence_min,
            webhook,
        })
    }
}
