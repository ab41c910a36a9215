//! The hosts of a connection string: their addresses, and their names in messages.

use std::net::IpAddr;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// A configuration for each address of a host: one of them may be an old primary.
pub(super) async fn addresses(host: &Config) -> Vec<Config> {
    let (Some(Host::Tcp(name)), []) = (host.get_hosts().first(), host.get_hostaddrs()) else {
        return vec![host.clone()];
    };
    if name.parse::<IpAddr>().is_ok() {
        return vec![host.clone()];
    }
    let found = tokio::net::lookup_host((name.as_str(), port(host))).await;
    let found: Vec<Config> = found
        .into_iter()
        .flatten()
        .map(|address| {
            let mut config = host.clone();
            config.hostaddr(address.ip());
            config
        })
        .collect();
    // Without an address, the driver reports why.
    if found.is_empty() {
        vec![host.clone()]
    } else {
        found
    }
}

fn port(host: &Config) -> u16 {
    host.get_ports().first().copied().unwrap_or(5432)
}

/// The host's address and port, as errors name it.
pub(super) fn host_name(host: &Config) -> String {
    let port = port(host);
    match (host.get_hostaddrs().first(), host.get_hosts().first()) {
        (Some(address), _) => std::net::SocketAddr::new(*address, port).to_string(),
        (None, Some(Host::Tcp(name))) => format!("{name}:{port}"),
        (None, Some(Host::Unix(path))) => format!("{}:{port}", path.display()),
        (None, None) => String::new(),
    }
}
