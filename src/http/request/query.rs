//! Parses queries strictly: an unknown or repeated parameter is an error.

use std::borrow::Cow;

use crate::http::response::problem::{Kind, Problem};
use crate::reading::ExternalId;

/// The items of a page if `limit` is not set.
const LIMIT_DEFAULT: usize = 100;
/// The most items of a page: about 200 KiB.
const LIMIT_MAX: usize = 1000;

/// The parameters that a route accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parameters {
    /// The query is ignored.
    Ignored,
    /// These names, at most once each.
    Once(&'static [&'static str]),
    /// These names, any number of times each.
    Repeated(&'static [&'static str]),
}

/// The parameters of a query.
#[derive(Debug)]
pub(crate) struct Query<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl Parameters {
    /// Parses a query.
    ///
    /// # Errors
    /// 400: a parameter is unknown, repeated although it must not be, or not percent-encoded UTF-8.
    pub(crate) fn parse(self, query: Option<&str>) -> Result<Query<'_>, Problem> {
        let mut parameters: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        let (Parameters::Once(known) | Parameters::Repeated(known)) = self else {
            return Ok(Query(parameters));
        };
        let Some(query) = query else {
            return Ok(Query(parameters));
        };
        let is_once = matches!(self, Parameters::Once(_));
        let pairs = query.split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&name.as_ref()) {
                return Err(bad(format!(
                    "unknown parameter {:?}{}",
                    shorten(&name),
                    list(known)
                )));
            }
            if is_once && parameters.iter().any(|(other, _)| *other == name) {
                return Err(bad(format!("the parameter {name} must be given once")));
            }
            parameters.push((name, value));
        }
        Ok(Query(parameters))
    }
}

impl Query<'_> {
    /// All values of a parameter that may be repeated.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(n, _)| n == name);
        named.map(|(_, value)| value.as_ref())
    }

    /// The value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_ref())
    }

    /// The page size: `limit`, or [`LIMIT_DEFAULT`].
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else {
            return Ok(LIMIT_DEFAULT);
        };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|limit| digits && (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| bad(format!("limit must be 1 to {LIMIT_MAX}")))
    }

    /// The value of a parameter that is true or false.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(bad(format!("{name} must be true or false"))),
        }
    }

    /// The value of a parameter that is an id.
    pub(crate) fn id(&self, name: &str) -> Result<Option<ExternalId<'_>>, Problem> {
        let id = self.get(name).map(ExternalId::new).transpose();
        id.map_err(|why| bad(format!("{name} {why}")))
    }
}

/// Checks the id in a path.
pub(crate) fn path_id(text: &str) -> Result<ExternalId<'_>, Problem> {
    ExternalId::new(text).map_err(|why| bad(format!("the id in the path {why}")))
}

/// Checks the id in a path of a device that may still be unknown.
pub(crate) fn new_path_id(text: &str) -> Result<ExternalId<'_>, Problem> {
    ExternalId::of_new(text).map_err(|why| bad(format!("the id in the path {why}")))
}

/// A problem with a parameter.
pub(crate) fn bad(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Kind::BadParameter, detail)
}

fn list(known: &[&str]) -> String {
    match known {
        [] => "; this path accepts none".to_owned(),
        _ => format!("; this path accepts {}", known.join(", ")),
    }
}

/// The beginning of a client's text, short enough to be repeated in a response.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Decodes a form value, in which `+` is a space.
fn decode(raw: &str) -> Result<Cow<'_, str>, Problem> {
    let decoded = if raw.contains('+') {
        let spaced = raw.replace('+', " ");
        percent_decode(&spaced).map(|text| Cow::Owned(text.into_owned()))
    } else {
        percent_decode(raw)
    };
    decoded.ok_or_else(|| bad("the query must be percent-encoded UTF-8"))
}

/// Decodes percent-encoding. `None` means that the text is not percent-encoded UTF-8.
pub(crate) fn percent_decode(raw: &str) -> Option<Cow<'_, str>> {
    let mut escapes = raw.split('%').skip(1).map(str::as_bytes);
    let is_byte = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    if !escapes.all(|escape| escape.get(..2).is_some_and(is_byte)) {
        return None;
    }
    percent_encoding::percent_decode_str(raw).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_parameters_are_decoded() {
        let known = Parameters::Once(&["limit", "after"]);
        let query = known.parse(Some("after=a%2Fb+c%C3%A9&limit=5&")).unwrap();
        assert_eq!(query.get("after"), Some("a/b cé"));
        assert_eq!(query.get("limit"), Some("5"));
        assert_eq!(query.get("other"), None);
    }

    #[test]
    fn a_limit_is_1_to_1000() {
        let known = Parameters::Once(&["limit"]);
        let limit = |text| known.parse(Some(text)).unwrap().limit().ok();
        assert_eq!(limit(""), Some(100));
        assert_eq!(limit("limit=1"), Some(1));
        assert_eq!(limit("limit=1000"), Some(1000));
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=%2B5",
            "limit=-1",
            "limit=",
            "limit=1e2",
        ] {
            assert_eq!(limit(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn unknown_repeated_and_broken_parameters_are_refused() {
        for wrong in [
            "limt=5",
            "limit=1&limit=1",
            "limit=%zz",
            "limit=%4",
            "limit=%ff",
            "=1",
        ] {
            let known = Parameters::Once(&["limit"]);
            assert!(known.parse(Some(wrong)).is_err(), "{wrong}");
        }
        let repeated = Parameters::Repeated(&["id"]).parse(Some("id=1&id=2"));
        assert_eq!(repeated.unwrap().all("id").collect::<Vec<_>>(), ["1", "2"]);
        assert!(Parameters::Ignored.parse(Some("limit=%zz")).is_ok());
    }
}
