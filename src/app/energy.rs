//! What the configuration says of judging energy and of alerts.

use super::AppError;
use crate::alerts::{self, Webhook};
use crate::analytics::StatusBounds;
use crate::analytics::queries::{Judgement, SuspectWatts};
use crate::analytics::tariff::{Tariff, TariffError};
use crate::config::{AlertConfig, EnergyBounds, TariffConfig};

/// When something is odd.
pub(super) fn judgement(bounds: EnergyBounds) -> Judgement {
    Judgement {
        bounds: StatusBounds {
            ac_mwh_min: bounds.ac_mwh_min,
            coverage_min: bounds.coverage_min,
            excellent_above: bounds.excellent_above,
            good_from: bounds.good_from,
            warning_from: bounds.warning_from,
            ..StatusBounds::default()
        },
        suspect_watts: SuspectWatts(bounds.suspect_watts),
    }
}

/// What a kWh costs, if the configuration says so.
pub(super) fn tariff(config: &TariffConfig) -> Result<Option<Tariff>, AppError> {
    let Some(prices) = &config.prices else {
        return Ok(None);
    };
    let tariff = Tariff::parse(prices, &config.zone).map_err(|why| {
        let (flag, text) = match why {
            TariffError::Prices => ("--tariff", prices),
            TariffError::Zone => ("--tariff-zone", &config.zone),
        };
        AppError::Start(format!("{flag} {text}: {why}"))
    });
    tariff.map(Some)
}

/// When an alert opens; `None` where they are not looked for.
pub(super) fn alerts(config: &AlertConfig) -> Result<Option<alerts::Settings>, AppError> {
    let Some(every) = config.every else {
        return Ok(None);
    };
    let webhook = config.webhook.as_deref().map(|url| {
        // The URL may hold a secret: it is not repeated.
        Webhook::new(url, config.secret.as_deref())
            .map_err(|why| AppError::Start(format!("--alert-webhook {why}")))
    });
    Ok(Some(alerts::Settings {
        every,
        efficiency_below: config.efficiency_below,
        temperature_above: config.temperature_above,
        silence_min: config.silence_min,
        webhook: webhook.transpose()?,
    }))
}
