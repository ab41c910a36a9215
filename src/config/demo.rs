//! The configuration of `wattgate demo`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Args, FromArgMatches};

use super::args::DemoArgs;
use super::flags::ServeArgs;
use super::{Config, ConfigErrors, Logging};

/// The price of the demo's energy, so that losses have a cost.
const PRICE: [&str; 4] = ["--tariff", "0.30", "--tariff-currency", "USD"];
/// The silence after which an alert opens. The stations of the recorded day send nothing between two sessions, which
/// may be a day apart.
const SILENCE: [&str; 2] = ["--alert-silence", "48h"];

impl DemoArgs {
    /// What is logged.
    pub fn logging(&self) -> Logging {
        Logging {
            format: None,
            level: self.log_level.clone(),
        }
    }

    /// The configuration of a gateway that keeps everything in this directory. It ignores the environment and uses the
    /// defaults, because the demo must not touch a database that `DATABASE_URL` names.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn check(&self, dir: &Path) -> Result<Config, ConfigErrors> {
        let mut flags: Vec<OsString> = vec!["demo".into(), "--data-dir".into(), dir.into()];
        // For a demo, a log in memory is as good as one on disk. A small one needs little free space.
        flags.push("--wal-allow-volatile".into());
        flags.extend(["--wal-limit".into(), "64MiB".into()]);
        flags.extend(PRICE.map(OsString::from));
        flags.extend(SILENCE.map(OsString::from));
        flags.extend([
            OsStr::new("--listen").into(),
            OsString::from(&self.listen),
            OsStr::new("--log-level").into(),
            OsString::from(&self.log_level),
        ]);
        if let Some(programs) = &self.pg_bin {
            flags.extend(["--pg-bin".into(), programs.into()]);
        }
        let args = ServeArgs::augment_args(clap::Command::new("demo"))
            .try_get_matches_from(flags)
            .and_then(|matches| ServeArgs::from_arg_matches(&matches))
            .map_err(|error| ConfigErrors(vec![error.to_string()]))?;
        let config = Config::check_to_serve(&args)?;
        if !config.listen.ip().is_loopback() {
            return Err(ConfigErrors(vec![format!(
                "--listen {}: the demo needs no keys, so it listens only on a \
                 loopback address, such as 127.0.0.1:3100",
                self.listen
            )]));
        }
        Ok(Config {
            demo: true,
            ..config
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_station_without_a_session_for_a_day_opens_no_alert() {
        let args = DemoArgs {
            listen: "127.0.0.1:0".to_owned(),
            log_level: "warn".to_owned(),
            pg_bin: None,
        };
        let config = args.check(Path::new("/tmp/demo")).unwrap();
        let silence = config.alerts.unwrap().silence_min;
        assert!(silence > Duration::from_secs(30 * 3600), "{silence:?}");
    }
}
