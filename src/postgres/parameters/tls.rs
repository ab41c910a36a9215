//! The parameters of TLS.

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};

use super::{Reader, ServerPlace};
use crate::postgres::tls::{ClientFiles, TlsOptions, Verify};

impl Reader {
    pub(super) fn tls(&mut self, config: &mut Config, servers: &[ServerPlace]) -> TlsOptions {
        let root = self.take("sslrootcert");
        let (ssl, verify) = self.ssl_mode(root.as_deref());
        // libpq ignores sslmode on a unix socket, where PostgreSQL has no TLS.
        let sockets_only = !servers.is_empty() && servers.iter().all(ServerPlace::is_socket);
        let ssl = if sockets_only { SslMode::Disable } else { ssl };
        config.ssl_mode(ssl);
        if ssl == SslMode::Disable && config.get_channel_binding() == ChannelBinding::Require {
            self.fault(
                "channel_binding",
                "require needs TLS; write sslmode=require or stronger",
            );
        }
        let direct = self.choice(
            "sslnegotiation",
            &[("postgres", false), ("direct", true)],
            "must be postgres or direct",
        );
        if direct == Some(true) {
            if ssl == SslMode::Prefer {
                let rule = "direct needs sslmode=require, verify-ca or verify-full";
                self.fault("sslnegotiation", rule);
            }
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        let sni = self.number("sslsni", 0..=1, "") != Some(0);
        let oldest_is_13 = self.choice(
            "ssl_min_protocol_version",
            &[
                ("TLSv1", false),
                ("TLSv1.1", false),
                ("TLSv1.2", false),
                ("TLSv1.3", true),
            ],
            "must be TLSv1.2 or TLSv1.3",
        );
        let newest_is_12 = self.choice(
            "ssl_max_protocol_version",
            &[("TLSv1.2", true), ("TLSv1.3", false)],
            "must be TLSv1.2 or TLSv1.3",
        );
        if oldest_is_13 == Some(true) && newest_is_12 == Some(true) {
            self.fault(
                "ssl_min_protocol_version",
                "is newer than ssl_max_protocol_version",
            );
        }
        TlsOptions {
            used: ssl != SslMode::Disable,
            verify,
            root,
            client: self.client_files(),
            sni,
            direct: direct == Some(true),
            oldest_is_13: oldest_is_13 == Some(true),
            newest_is_12: newest_is_12 == Some(true),
        }
    }

    fn ssl_mode(&mut self, root: Option<&str>) -> (SslMode, Verify) {
        let rule = "must be disable, prefer, require, verify-ca or verify-full";
        let mode = self.take("sslmode");
        if let Some(ssl) = self.take("ssl") {
            // JDBC writes this, and libpq reads it as sslmode=require.
            if ssl != "true" {
                self.fault("ssl", "must be true; write sslmode instead");
            }
            return (SslMode::Require, Verify::Nothing);
        }
        let system = root == Some("system");
        if system && mode.as_deref().is_some_and(|mode| mode != "verify-full") {
            self.fault("sslrootcert", "system needs sslmode=verify-full");
        }
        match mode.as_deref() {
            None if system => (SslMode::Require, Verify::Full),
            None | Some("prefer") => (SslMode::Prefer, Verify::Nothing),
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            Some("require") if root.is_some() => (SslMode::Require, Verify::Chain),
            Some("require") => (SslMode::Require, Verify::Nothing),
            Some("verify-ca") => (SslMode::Require, Verify::Chain),
            Some("verify-full") => (SslMode::Require, Verify::Full),
            Some("allow") => {
                let why = "the gateway does not try without TLS first; write sslmode=prefer";
                self.fault("sslmode", format!("{rule}: {why}"));
                (SslMode::Prefer, Verify::Nothing)
            }
            Some(_) => {
                self.fault("sslmode", rule);
                (SslMode::Prefer, Verify::Nothing)
            }
        }
    }

    /// Takes the files of the client's certificate and key.
    fn client_files(&mut self) -> Option<ClientFiles> {
        let (cert, key) = (self.take("sslcert"), self.take("sslkey"));
        if self.take("sslpassword").is_some() {
            let rule = "is not supported: the gateway reads no encrypted keys; decrypt the file of \
                        sslkey with `openssl pkey`, and leave sslpassword out";
            self.fault("sslpassword", rule);
        }
        let used = self.choice(
            "sslcertmode",
            &[("allow", true), ("disable", false)],
            "must be allow or disable: the gateway cannot see whether the server requested a \
             certificate",
        );
        match (cert, key) {
            _ if used == Some(false) => None,
            (Some(cert), Some(key)) => Some(ClientFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => {
                self.fault("sslcert", "needs sslkey, the file of its private key");
                None
            }
            (None, Some(_)) => {
                self.fault("sslkey", "needs sslcert, the file of its certificate");
                None
            }
        }
    }
}
