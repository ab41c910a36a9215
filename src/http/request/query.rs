//! The strict reading of a query: what is not known, or is there twice, is refused.

use std::borrow::Cow;

use crate::http::response::problem::{Kind, Problem};
use crate::reading::ExternalId;

/// Items of a page unless told.
const LIMIT_DEFAULT: usize = 100;
/// The most items of a page: about 200 KiB.
const LIMIT_MAX: usize = 1000;

/// The parameters of a query.
#[derive(Debug)]
pub(crate) struct Query<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Query<'q> {
    /// Reads a query that may have the named parameters.
    pub(crate) fn parse(query: Option<&'q str>, known: &[&str]) -> Result<Self, Problem> {
        Query::read(query, known, false)
    }

    /// Reads a query whose parameters may be there more than once.
    pub(crate) fn parse_repeated(query: Option<&'q str>, known: &[&str]) -> Result<Self, Problem> {
        Query::read(query, known, true)
    }

    fn read(query: Option<&'q str>, known: &[&str], repeated: bool) -> Result<Self, Problem> {
        let mut parameters: Vec<(Cow<'q, str>, Cow<'q, str>)> = Vec::new();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&name.as_ref()) {
                return Err(bad(format!(
                    "unknown parameter {:?}{}",
                    shorten(&name),
                    list(known)
                )));
            }
            if !repeated && parameters.iter().any(|(other, _)| *other == name) {
                return Err(bad(format!("the parameter {name} is there twice")));
            }
            parameters.push((name, value));
        }
        Ok(Query(parameters))
    }

    /// Every value of a parameter that may be repeated.
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
}

impl Query<'_> {
    /// How many items a page is to have: 100 unless told, at most [`LIMIT_MAX`].
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

    /// The value of a parameter that is an id.
    pub(crate) fn id(&self, name: &str) -> Result<Option<ExternalId<'_>>, Problem> {
        let id = self.get(name).map(ExternalId::new).transpose();
        id.map_err(|why| bad(format!("{name} {why}")))
    }
}

/// The id in a path.
pub(crate) fn path_id(text: &str) -> Result<ExternalId<'_>, Problem> {
    ExternalId::new(text).map_err(|why| bad(format!("the id in the path {why}")))
}

/// The id in a path of something that may be new.
pub(crate) fn new_path_id(text: &str) -> Result<ExternalId<'_>, Problem> {
    ExternalId::of_new(text).map_err(|why| bad(format!("the id in the path {why}")))
}

/// A problem with a parameter.
pub(crate) fn bad(detail: String) -> Problem {
    Problem::new(Kind::BadParameter, detail)
}

fn list(known: &[&str]) -> String {
    match known {
        [] => "; there is none here".to_owned(),
        _ => format!("; known: {}", known.join(", ")),
    }
}

/// A text from the client as an answer may repeat it.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Undoes the encoding of forms: `+` is a space.
fn decode(raw: &str) -> Result<Cow<'_, str>, Problem> {
    let wrong = || bad("the query is not percent-encoded UTF-8".to_owned());
    let mut rest = raw.as_bytes();
    if !rest.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Ok(Cow::Borrowed(raw));
    }
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return Err(wrong()),
        }
    }
    let spaced = raw.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .map_err(|_| wrong())?;
    Ok(Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_parameters_are_decoded() {
        let query =
            Query::parse(Some("after=a%2Fb+c%C3%A9&limit=5&"), &["limit", "after"]).unwrap();
        assert_eq!(query.get("after"), Some("a/b cé"));
        assert_eq!(query.get("limit"), Some("5"));
        assert_eq!(query.get("other"), None);
    }

    #[test]
    fn a_limit_is_1_to_1000() {
        let limit = |text| Query::parse(Some(text), &["limit"]).unwrap().limit().ok();
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
            assert!(Query::parse(Some(wrong), &["limit"]).is_err(), "{wrong}");
        }
    }
}
