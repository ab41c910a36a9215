//! The configuration of a command line.

use clap::FromArgMatches;

use super::parts::MAX_AGE_WITH_DAYS;
use super::*;

fn check(args: &[&str]) -> Result<Config, ConfigErrors> {
    let words = std::iter::once("wattgate").chain(args.iter().copied());
    let matches = Cli::prepared().try_get_matches_from(words).unwrap();
    Config::check(&Cli::from_arg_matches(&matches).unwrap().serve)
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let config = check(&[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.listen, "127.0.0.1:3000".parse().unwrap());
    assert_eq!(config.log.limit_bytes, 10 << 30);
    assert_eq!(config.log.retain_bytes, 1 << 30);
    assert_eq!(config.memory_limit_bytes, 256 << 20);
    assert_eq!(config.http.body_bytes_max, 8 << 20);
    assert_eq!(config.auth, AuthMode::Off);
    assert_eq!(config.pipeline.age_max, None);
    assert_eq!(
        check(&["--partition", "day"])
            .ok()
            .unwrap()
            .pipeline
            .age_max,
        Some(MAX_AGE_WITH_DAYS)
    );
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let wrong = [
        ("--listen", "here"),
        ("--shards", "65"),
        ("--wal-limit", "1MiB"),
        ("--linger", "soon"),
        ("--retention", "-5"),
        ("--batch-rows", "many"),
        ("--max-connections", "-1"),
        ("--alert-efficiency", "high"),
        ("--efficiency-good", "101"),
        ("--tariff", "cheap"),
        ("--tariff-zone", "Middle/Earth"),
        ("--tariff-currency", "euro"),
        ("--tls-cert", "/nowhere.pem"),
        ("--database-url", "postgres://h/db?colour=red"),
        ("--pg-bin", "/nowhere"),
        ("--log-level", "a=b=c"),
    ];
    let args: Vec<&str> = wrong
        .iter()
        .flat_map(|(flag, text)| [*flag, *text])
        .collect();
    let Err(ConfigErrors(errors)) = check(&args) else {
        panic!("accepted")
    };
    assert_eq!(errors.len(), wrong.len(), "{errors:#?}");
    for (flag, _) in wrong {
        // Each names its environment variable too.
        let start = format!("{flag} (");
        assert!(
            errors.iter().any(|e| e.starts_with(&start)),
            "{flag}: {errors:#?}"
        );
    }
}

#[test]
fn each_part_of_a_tariff_is_checked_even_without_prices() {
    let errors = |args: &[&str]| check(args).err().map_or(0, |errors| errors.0.len());
    assert_eq!(
        errors(&["--tariff-zone", "Middle/Earth", "--tariff-currency", "€"]),
        2
    );
    assert_eq!(
        errors(&["--tariff", "-0.05,06:00=0.3", "--tariff-currency", "EUR"]),
        0
    );
    assert_eq!(errors(&["--tariff", ""]), 0);
}

#[test]
fn a_bound_is_given_in_the_unit_of_its_flag() {
    let error = |args: &[&str]| check(args).err().unwrap().to_string();
    for page in [
        "fleet.example.org",
        "http://h/?x=1",
        "http://h/|x",
        "ftp://h",
    ] {
        let page = error(&["--dashboard-url", page]);
        assert!(
            page.contains("--dashboard-url (WATTGATE_DASHBOARD_URL)"),
            "{page}"
        );
    }
    let memory = error(&["--memory-limit", "20MiB"]);
    assert!(
        memory.contains("at least 64MiB") && !memory.contains("67108864"),
        "{memory}"
    );
    assert!(
        memory.starts_with("--memory-limit (WATTGATE_MEMORY_LIMIT) 20MiB"),
        "{memory}"
    );
    let linger = error(&["--linger", "1h"]);
    assert!(linger.contains("at most 10s"), "{linger}");
    let timeout = error(&["--body-timeout", "2d"]);
    assert!(timeout.contains("1ms to 1h"), "{timeout}");
    let retention = error(&["--retention", "-5"]);
    assert!(
        retention.contains("--retention (WATTGATE_RETENTION) -5: must be"),
        "{retention}"
    );
}

#[test]
fn each_command_has_only_the_flags_that_it_uses() {
    let parse = |line: &str| Cli::prepared().try_get_matches_from(line.split(' '));
    for line in [
        "wattgate keys list --listen 127.0.0.1:1",
        "wattgate keys create --name a --rights read --database-url x",
        "wattgate wal inspect --database-url postgres://h",
        "wattgate wal verify --log-level debug",
        "wattgate quarantine list --shards 2",
        "wattgate migrate --listen 127.0.0.1:1",
        "wattgate erase --vehicle V --retention 5d",
        "wattgate --data-dir d keys list",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    for line in [
        "wattgate --shards 2",
        "wattgate serve --shards 2",
        "wattgate check --listen 127.0.0.1:1 --database-url postgres://h",
        "wattgate keys list --data-dir d",
        "wattgate wal adopt --data-dir d --database-url postgres://h",
        "wattgate quarantine list --limit 3 --database-url postgres://h --log-level debug",
        "wattgate migrate --partition day",
    ] {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
    }
}

#[test]
fn beyond_loopback_keys_are_required_unless_auth_is_off() {
    let auth = |args: &[&str]| check(args).ok().unwrap().auth;
    assert_eq!(auth(&["--listen", "0.0.0.0:3000"]), AuthMode::Keys);
    assert_eq!(auth(&["--listen", "[::]:3000"]), AuthMode::Keys);
    let by_name = ["--listen", "0.0.0.0:3000", "--auth", "off"];
    assert_eq!(auth(&by_name), AuthMode::Off);
    assert_eq!(auth(&["--listen", "[::1]:3000"]), AuthMode::Off);
    assert_eq!(auth(&["--auth", "keys"]), AuthMode::Keys);
}

#[test]
fn without_keys_a_loopback_address_accepts_local_hosts_only() {
    let alone = |args: &[&str]| check(args).ok().unwrap().http.local_hosts_only;
    assert!(alone(&[]) && alone(&["--listen", "[::1]:3000"]));
    assert!(!alone(&["--auth", "keys"]));
    assert!(!alone(&["--listen", "0.0.0.0:3000", "--auth", "off"]));
    assert!(!alone(&["--trusted-proxies", "127.0.0.1"]));
}

#[test]
fn a_wrong_database_url_is_not_repeated() {
    let Err(errors) = check(&["--database-url", "postgres://u:geheim@h:port/db"]) else {
        panic!("accepted")
    };
    assert!(errors.to_string().contains("DATABASE_URL"));
    assert!(!errors.to_string().contains("geheim"));
}
