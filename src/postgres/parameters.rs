//! libpq's connection parameters: read as libpq reads them, or refused by name.
//!
//! A parameter is never ignored if it changes which server is used or trusted, or what is encrypted. A
//! string that works with psql means the same here, or is refused.

mod tls;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, TargetSessionAttrs};

use super::tls::TlsOptions;
use super::url::{ENCODE, Parameters, parameters};

/// A connection string, read.
pub(super) struct Connection {
    /// One configuration per host, in the order of the connection string.
    pub(super) hosts: Vec<Config>,
    pub(super) tls: TlsOptions,
    /// The operator's name for this client, beside the name of each session.
    pub(super) application: Option<String>,
}

const GSS: &str = "is not supported: the gateway does not speak GSSAPI; leave it out";
const OAUTH: &str = "is not supported: the gateway does not speak OAuth; leave it out";
const SERVICE: &str =
    "is not supported: the gateway reads no service file; write the file's values into the URL";
const REVOKED: &str = "is not supported: the gateway reads no revocation lists; leave it out, and \
                       keep only authorities you trust in sslrootcert";
const PROOF: &str =
    "is not supported: the gateway cannot check it; leave it out, and use sslmode=verify-full";
const SCRAM: &str = "is not supported: write the password itself into the URL";
const WRITES: &str = "must be read-write, primary or any: the gateway writes to its database";

/// Parameters of libpq that the gateway refuses, each with the reason and the next step.
const REFUSED: [(&str, &str); 18] = [
    ("gssdelegation", GSS),
    ("gsslib", GSS),
    ("krbsrvname", GSS),
    ("oauth_client_id", OAUTH),
    ("oauth_client_secret", OAUTH),
    ("oauth_issuer", OAUTH),
    ("oauth_scope", OAUTH),
    (
        "passfile",
        "is not supported: the gateway reads no password file; write the password into the URL",
    ),
    (
        "replication",
        "is not supported: the gateway opens ordinary sessions only; leave it out",
    ),
    ("require_auth", PROOF),
    ("requirepeer", PROOF),
    ("scram_client_key", SCRAM),
    ("scram_server_key", SCRAM),
    ("service", SERVICE),
    ("servicefile", SERVICE),
    ("sslcrl", REVOKED),
    ("sslcrldir", REVOKED),
    (
        "sslkeylogfile",
        "is not supported: the gateway writes no TLS secrets to files; leave it out",
    ),
];

/// Reads a connection string. Missing parameters have the gateway's defaults.
///
/// # Errors
/// Everything that is wrong, a sentence each; no value is repeated.
pub(super) fn connection(text: &str) -> Result<Connection, Vec<String>> {
    let mut reader = Reader {
        values: parameters(text).map_err(|why| vec![why])?,
        faults: Vec::new(),
    };
    let mut config = defaults();
    reader.names(&mut config);
    let servers = reader.servers();
    reader.waits(&mut config);
    reader.choices(&mut config);
    let tls = reader.tls(&mut config, &servers);
    let application = reader.take("application_name");
    // libpq uses it only for a client without a name; the gateway always has one.
    reader.take("fallback_application_name");
    reader.protocol();
    reader.rest();
    if reader.faults.is_empty() {
        Ok(Connection {
            hosts: servers.iter().map(|one| one.of(&config)).collect(),
            tls,
            application,
        })
    } else {
        Err(reader.faults)
    }
}

/// Where one server is.
struct ServerPlace {
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

impl ServerPlace {
    fn of(&self, common: &Config) -> Config {
        let mut config = common.clone();
        config.host(&self.host).port(self.port);
        if let Some(address) = self.address {
            config.hostaddr(address);
        }
        config
    }

    /// Whether it is the directory of a socket, as the driver decides.
    fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

/// The defaults of every session. Each wait for the server is bounded.
pub(super) fn defaults() -> Config {
    let mut config = Config::new();
    config
        .connect_timeout(Duration::from_secs(5))
        .tcp_user_timeout(Duration::from_secs(15))
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    config
}

/// Takes parameters one by one. Those that are left at the end are refused or unknown.
struct Reader {
    values: Parameters,
    faults: Vec<String>,
}

impl Reader {
    /// Takes a parameter. An empty one counts as missing, as in libpq.
    fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name).filter(|value| !value.is_empty())
    }

    fn fault(&mut self, name: &str, rule: impl std::fmt::Display) {
        self.faults.push(format!("{name} {rule}"));
    }

    /// Takes a parameter that must be one of a few words.
    fn choice<T: Copy>(&mut self, name: &str, known: &[(&str, T)], rule: &str) -> Option<T> {
        let value = self.take(name)?;
        let found = known.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            self.fault(name, rule);
        }
        found.map(|(_, choice)| *choice)
    }

    /// Takes a whole number within bounds. The error names them with their unit.
    fn number(&mut self, name: &str, range: RangeInclusive<u32>, unit: &str) -> Option<u32> {
        let value = self.take(name)?;
        let number = value.parse().ok().filter(|n| range.contains(n));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            let unit = if unit.is_empty() {
                String::new()
            } else {
                format!(" {unit}")
            };
            self.fault(name, format!("must be {least} to {most}{unit}"));
        }
        number
    }

    fn names(&mut self, config: &mut Config) {
        if let Some(user) = self.take("user") {
            config.user(user);
        }
        if let Some(password) = self.take("password") {
            config.password(password);
        }
        if let Some(database) = self.take("dbname") {
            config.dbname(database);
        }
        if let Some(options) = self.take("options") {
            config.options(options);
        }
    }

    /// Takes the servers. Returns none if something is wrong with them.
    fn servers(&mut self) -> Vec<ServerPlace> {
        let hosts = self.take("host");
        let addresses = self.take("hostaddr");
        let ports = self.take("port");
        let list = |text: &Option<String>| -> Vec<String> {
            let parts = text.iter().flat_map(|text| text.split(','));
            parts.map(|part| part.trim().to_owned()).collect()
        };
        let (mut hosts, addresses, ports) = (list(&hosts), list(&addresses), list(&ports));
        let parsed: Result<Vec<IpAddr>, _> = addresses.iter().map(|one| one.parse()).collect();
        let Ok(parsed) = parsed else {
            self.fault("hostaddr", "must be IP addresses, separated by commas");
            return Vec::new();
        };
        if hosts.is_empty() {
            // The server's certificate is then compared with the address, as in libpq.
            hosts = addresses;
        } else if !parsed.is_empty() && parsed.len() != hosts.len() {
            self.fault("hostaddr", "must have one address for each host");
        }
        if hosts.is_empty() {
            let rule = "must be named, as in postgres://user@host:5432/database, or with \
                        ?host=/run/postgresql for a socket of this machine";
            self.fault("host", rule);
            return Vec::new();
        }
        if hosts
            .iter()
            .any(|host| host.is_empty() || host.starts_with('@'))
        {
            self.fault(
                "host",
                "must be names, addresses or directories, separated by commas",
            );
        }
        if ports.len() > 1 && ports.len() != hosts.len() {
            self.fault("port", "must be one port, or one for each host");
        }
        let number = |text: &String| {
            let text = if text.is_empty() { "5432" } else { text };
            text.parse::<u16>().ok().filter(|port| *port > 0)
        };
        let Some(ports) = ports.iter().map(number).collect::<Option<Vec<u16>>>() else {
            self.fault("port", "must be 1 to 65535");
            return Vec::new();
        };
        let place = |(at, host)| ServerPlace {
            host,
            address: parsed.get(at).copied(),
            port: *ports.get(at).or(ports.first()).unwrap_or(&5432),
        };
        hosts.into_iter().enumerate().map(place).collect()
    }

    fn waits(&mut self, config: &mut Config) {
        let seconds = |n: u32| Duration::from_secs(n.into());
        if let Some(n) = self.number("connect_timeout", 1..=300, "seconds") {
            config.connect_timeout(seconds(n));
        }
        if let Some(n) = self.number("tcp_user_timeout", 1..=3_600_000, "milliseconds") {
            config.tcp_user_timeout(Duration::from_millis(n.into()));
        }
        if let Some(n) = self.number("keepalives", 0..=1, "") {
            config.keepalives(n == 1);
        }
        if let Some(n) = self.number("keepalives_idle", 1..=7200, "seconds") {
            config.keepalives_idle(seconds(n));
        }
        if let Some(n) = self.number("keepalives_interval", 1..=7200, "seconds") {
            config.keepalives_interval(seconds(n));
        }
        // The first is the driver's name for it, which earlier versions of the gateway read.
        for name in ["keepalives_retries", "keepalives_count"] {
            if let Some(n) = self.number(name, 1..=100, "") {
                config.keepalives_retries(n);
            }
        }
    }

    fn choices(&mut self, config: &mut Config) {
        // All three mean the same here: the gateway needs a server that it can write to.
        let writable = [("any", ()), ("read-write", ()), ("primary", ())];
        self.choice("target_session_attrs", &writable, WRITES);
        let binding = [
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ];
        let rule = "must be disable, prefer or require";
        if let Some(binding) = self.choice("channel_binding", &binding, rule) {
            config.channel_binding(binding);
        }
        let balance = [
            ("disable", LoadBalanceHosts::Disable),
            ("random", LoadBalanceHosts::Random),
        ];
        if let Some(balance) =
            self.choice("load_balance_hosts", &balance, "must be disable or random")
        {
            config.load_balance_hosts(balance);
        }
        let gss = [("disable", ()), ("prefer", ())];
        let rule = "must be disable or prefer: the gateway does not speak GSSAPI; encrypt with \
                    sslmode";
        self.choice("gssencmode", &gss, rule);
    }

    /// Takes the parameters that allow only what the gateway does anyway.
    fn protocol(&mut self) {
        let encodings = ["UTF8", "utf8", "UTF-8", "utf-8", "auto"].map(|name| (name, ()));
        let rule = "must be UTF8: the gateway speaks no other encoding";
        self.choice("client_encoding", &encodings, rule);
        let rule = "must be 0 or 1; it has no effect, since TLS is never compressed";
        self.choice("sslcompression", &[("0", ()), ("1", ())], rule);
        let rule = "must be 3.0: the gateway speaks no newer protocol";
        self.choice("min_protocol_version", &[("3.0", ())], rule);
        let newest = [("3.0", ()), ("3.2", ()), ("latest", ())];
        let rule = "must be 3.0, 3.2 or latest";
        self.choice("max_protocol_version", &newest, rule);
    }

    /// Reports the parameters that are left: refused or unknown ones.
    fn rest(&mut self) {
        for (name, value) in std::mem::take(&mut self.values) {
            let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
            match refused {
                Some(_) if value.is_empty() => {}
                Some((_, why)) => self.fault(&name, why),
                // A piece of a password that was split at its `?` or `&`.
                None if value.contains('@') => self.faults.push(format!(
                    "has a parameter that libpq does not know; {ENCODE}"
                )),
                None => self.fault(
                    &name,
                    "is not a parameter of libpq; check its spelling, or leave it out",
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests;
