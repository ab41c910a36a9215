//! The client's address, for the log: the peer of its connection, or the address that trusted proxies report.
//!
//! Any client can send `X-Forwarded-For`. Each proxy appends the address that called it, so nearer proxies'
//! entries are further right. The header is read from the right, but only as far as the writers of its entries are
//! trusted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::HeaderMap;
use hyper::header::HeaderName;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// An address range with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    mask: u128,
    is_v4: bool,
}

/// A text is not a [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoNetwork;

impl fmt::Display for NoNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be an address, or a network such as 10.0.0.0/8")
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let (bits, width) = bits_of(address);
        let length: u32 = match length {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| NoNetwork)?
            }
            Some(_) => return Err(NoNetwork),
            None => width,
        };
        let host_bits = width.checked_sub(length).ok_or(NoNetwork)?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Ok(Network {
            bits: bits & mask,
            mask,
            is_v4: address.is_ipv4(),
        })
    }
}

impl Network {
    /// Whether the network contains an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_v4 && bits_of(address).0 & self.mask == self.bits
    }
}

/// An address as a number, and the number of its bits.
fn bits_of(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// The client of a request: the nearest address that is not a trusted proxy.
pub(crate) fn client(trusted: &[Network], connected: IpAddr, headers: &HeaderMap) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = connected;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for text in value.as_bytes().rsplit(|byte| *byte == b',') {
            if !is_trusted(client) {
                return client;
            }
            // A trusted proxy would write an address here.
            let Some(forwarded) = address_of(text) else {
                return client;
            };
            client = forwarded;
        }
    }
    client
}

/// Parses an address with or without a port.
fn address_of(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let address = text.parse().ok().or_else(|| {
        let with_port: Option<std::net::SocketAddr> = text.parse().ok();
        with_port.map(|address| address.ip())
    });
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bracketed).map(|a: IpAddr| a.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn of(trusted: &[&str], connected: &str, forwarded: &[&str]) -> String {
        let trusted: Vec<Network> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        let forwarded = forwarded.iter().map(|value| {
            let value: HeaderValue = value.parse().unwrap();
            (X_FORWARDED_FOR, value)
        });
        // Appended, which is how hyper represents a repeated header.
        let mut headers = HeaderMap::new();
        headers.extend(forwarded);
        client(&trusted, connected.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn an_untrusted_proxy_is_ignored() {
        assert_eq!(of(&[], "192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        let trusted = ["10.0.0.0/8"];
        assert_eq!(of(&trusted, "192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        assert_eq!(of(&trusted, "10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(of(&trusted, "10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn addresses_before_those_of_the_proxies_are_ignored() {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"];
        // The client made up the first address; the outer proxy wrote the second.
        let forged = ["198.51.100.7, 203.0.113.9, 10.0.0.2"];
        assert_eq!(of(&trusted, "10.0.0.1", &forged), "203.0.113.9");
        let in_two = ["198.51.100.7", "203.0.113.9", "2001:db8::5"];
        assert_eq!(of(&trusted, "10.0.0.1", &in_two), "203.0.113.9");
        let nonsense = ["203.0.113.9, unknown, 10.0.0.2"];
        assert_eq!(of(&trusted, "10.0.0.1", &nonsense), "10.0.0.2");
        for with_port in ["203.0.113.9:4711", " 203.0.113.9 ", "::ffff:203.0.113.9"] {
            assert_eq!(of(&trusted, "10.0.0.1", &[with_port]), "203.0.113.9");
        }
        let v6 = ["[2001:db9::7]:443"];
        assert_eq!(of(&trusted, "2001:db8::1", &v6), "2001:db9::7");
    }

    #[test]
    fn networks_are_read_strictly() {
        let network = |text: &str| text.parse::<Network>();
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.9".parse().unwrap()));
        assert!(!all.contains("2001:db8::1".parse().unwrap()));
        assert!(network("::/0").unwrap().contains("::1".parse().unwrap()));
        // Bits after the prefix are ignored.
        assert_eq!(network("10.1.2.3/8"), network("10.0.0.0/8"));
        for wrong in [
            "",
            "a",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
        ] {
            assert_eq!(network(wrong), Err(NoNetwork), "{wrong}");
        }
    }
}
