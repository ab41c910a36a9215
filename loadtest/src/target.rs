//! The address of the gateway.

use hyper::Uri;

/// A gateway's address, from `--url`. Only plain HTTP, because a load test measures the gateway, not TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`, for connecting and for the Host header.
    pub(crate) authority: String,
    /// The path before every route, without a trailing slash; usually empty.
    pub(crate) base: String,
}

/// Why a text is not a gateway's address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("not a URL")]
    NoUrl,
    #[error("must begin with http://")]
    Scheme,
}

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.parse().map_err(|_| TargetError::NoUrl)?;
        if uri.scheme_str() != Some("http") {
            return Err(TargetError::Scheme);
        }
        let host = uri.host().ok_or(TargetError::NoUrl)?;
        Ok(Target {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_host_port_and_base() {
        let target: Target = "http://127.0.0.1:3000/".parse().unwrap();
        assert_eq!(target.authority, "127.0.0.1:3000");
        assert_eq!(target.base, "");
        let target: Target = "http://gateway/telemetry/".parse().unwrap();
        assert_eq!(target.to_string(), "http://gateway:80/telemetry");
        assert_eq!("https://x".parse::<Target>(), Err(TargetError::Scheme));
        assert_eq!("127.0.0.1:3000".parse::<Target>().ok(), None);
    }
}
