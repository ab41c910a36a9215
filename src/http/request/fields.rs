//! The header fields that are checked for every request, found in one pass.

use hyper::HeaderMap;
use hyper::header::{GetAll, HeaderName, HeaderValue};

/// The checked fields of a request's head.
///
/// Looking up a field by name hashes the name, and most of the seven checked fields are usually absent. So all are
/// found in one pass over the fields.
#[derive(Debug)]
pub(crate) struct Fields<'h> {
    headers: &'h HeaderMap,
    pub(crate) host: Field<'h>,
    pub(crate) transfer_encoding: Field<'h>,
    pub(crate) content_type: Field<'h>,
    pub(crate) content_encoding: Field<'h>,
    pub(crate) accept: Field<'h>,
    pub(crate) authorization: Field<'h>,
    pub(crate) expect: Field<'h>,
    pub(crate) request_id: Field<'h>,
    pub(crate) read_after: Field<'h>,
}

/// How often a field was sent, with its first value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Field<'h> {
    #[default]
    Absent,
    Once(&'h HeaderValue),
    /// More than once, with this first value.
    Repeated(&'h HeaderValue),
}

impl<'h> Field<'h> {
    fn add(&mut self, value: &'h HeaderValue) {
        *self = match *self {
            Field::Absent => Field::Once(value),
            Field::Once(first) | Field::Repeated(first) => Field::Repeated(first),
        };
    }

    /// The first value.
    pub(crate) fn first(self) -> Option<&'h HeaderValue> {
        match self {
            Field::Absent => None,
            Field::Once(first) | Field::Repeated(first) => Some(first),
        }
    }

    /// Whether it was sent once, with exactly this value.
    pub(crate) fn is(self, value: &[u8]) -> bool {
        matches!(self, Field::Once(sent) if sent.as_bytes() == value)
    }
}

impl<'h> Fields<'h> {
    /// Reads the fields of a head.
    pub(crate) fn of(headers: &'h HeaderMap) -> Self {
        let mut fields = Fields {
            headers,
            host: Field::Absent,
            transfer_encoding: Field::Absent,
            content_type: Field::Absent,
            content_encoding: Field::Absent,
            accept: Field::Absent,
            authorization: Field::Absent,
            expect: Field::Absent,
            request_id: Field::Absent,
            read_after: Field::Absent,
        };
        for (name, value) in headers {
            let field = match name.as_str() {
                "host" => &mut fields.host,
                "content-type" => &mut fields.content_type,
                "accept" => &mut fields.accept,
                "authorization" => &mut fields.authorization,
                "content-encoding" => &mut fields.content_encoding,
                "transfer-encoding" => &mut fields.transfer_encoding,
                "expect" => &mut fields.expect,
                "x-request-id" => &mut fields.request_id,
                "wattgate-read-after" => &mut fields.read_after,
                _ => continue,
            };
            field.add(value);
        }
        fields
    }

    /// All values of a repeated field.
    pub(crate) fn all(&self, name: HeaderName) -> GetAll<'h, HeaderValue> {
        self.headers.get_all(name)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{ACCEPT, HOST};

    use super::*;

    #[test]
    fn a_field_is_absent_sent_once_or_repeated() {
        let value = |text| HeaderValue::from_static(text);
        let mut headers = HeaderMap::new();
        headers.append(HOST, value("a"));
        headers.append(ACCEPT, value("b"));
        headers.append(ACCEPT, value("c"));
        let fields = Fields::of(&headers);
        assert_eq!(fields.expect, Field::Absent);
        assert_eq!(fields.host, Field::Once(&value("a")));
        assert!(fields.host.is(b"a") && !fields.host.is(b"b"));
        assert_eq!(fields.accept, Field::Repeated(&value("b")));
        assert!(!fields.accept.is(b"b"));
        assert_eq!(fields.accept.first(), Some(&value("b")));
        assert!(fields.all(ACCEPT).iter().eq(["b", "c"]));
    }
}
