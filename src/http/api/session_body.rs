//! A session as a client sends it, alone or in a list: read strictly, with every rule that it breaks.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use crate::http::request::query::shorten;
use crate::http::response::problem::{Kind, Problem};
use crate::ingest::decode::timestamp;
use crate::reading::{ExternalId, Timestamp};
use crate::store::sessions::Wanted;

/// The most faults of one session that are listed: more than it has fields.
const FAULTS_MAX: usize = 16;
/// The fields, in the order in which absent ones are listed. The first three are required.
const FIELDS: [&str; 5] = ["vehicleId", "meterId", "startedAt", "sessionId", "endedAt"];
const REQUIRED: usize = 3;

/// One rule that a session breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The field; `None` means the session as a whole.
    pub(super) field: Option<Cow<'static, str>>,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Fault {
    fn of(field: &'static str, code: &'static str, message: String) -> Self {
        let field = Some(Cow::Borrowed(field));
        Fault {
            field,
            code,
            message,
        }
    }

    pub(super) fn whole(code: &'static str, message: impl Into<String>) -> Self {
        Fault {
            field: None,
            code,
            message: message.into(),
        }
    }
}

/// The answer to a single session that breaks a rule.
impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let kind = match fault.code {
            "malformed" => Kind::UnreadableBody,
            _ => Kind::InvalidContent,
        };
        Problem::new(kind, fault.message).code(fault.code)
    }
}

/// A session that was read and whose values follow the rules.
#[derive(Debug)]
pub(super) struct SessionBody {
    session: Option<String>,
    pub(super) vehicle: String,
    pub(super) meter: String,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl SessionBody {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// The rules that it breaks, at least one: what concerns the fields in the order of the text, then absent fields.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Vec<Fault>> {
        let Members {
            found,
            seen,
            mut faults,
        } = match serde_json::from_slice(text) {
            Ok(members) => members,
            Err(error) if error.classify() == Category::Data => {
                let what = "a session must be a JSON object";
                return Err(vec![Fault::whole("not_an_object", what)]);
            }
            Err(error) => return Err(vec![Fault::whole("malformed", error.to_string())]),
        };
        for (&field, _) in FIELDS
            .iter()
            .zip(seen)
            .take(REQUIRED)
            .filter(|(_, seen)| !seen)
        {
            faults.push(Fault::of(field, "missing", format!("{field} is missing")));
        }
        Self::checked(found, faults)
    }

    fn checked(
        found: [Option<String>; FIELDS.len()],
        mut faults: Vec<Fault>,
    ) -> Result<Self, Vec<Fault>> {
        let [vehicle, meter, started_at, session, ended_at] = found;
        for (field, id) in [
            ("vehicleId", &vehicle),
            ("meterId", &meter),
            ("sessionId", &session),
        ] {
            let wrong = id.as_deref().map(ExternalId::of_new).and_then(Result::err);
            faults
                .extend(wrong.map(|why| Fault::of(field, "invalid_id", format!("{field} {why}"))));
        }
        let mut time = |field, text: Option<String>| {
            let read = text.map(|text| field_time(field, &text)).transpose();
            read.map_err(|fault| faults.push(fault)).ok().flatten()
        };
        let started_at = time("startedAt", started_at);
        let ended_at = time("endedAt", ended_at);
        if let (Some(start), Some(end)) = (started_at, ended_at)
            && end <= start
        {
            let message = "endedAt must be after startedAt".to_owned();
            faults.push(Fault::of("endedAt", "out_of_range", message));
        }
        faults.truncate(FAULTS_MAX);
        match (vehicle, meter, started_at) {
            (Some(vehicle), Some(meter), Some(started_at)) if faults.is_empty() => {
                Ok(SessionBody {
                    session,
                    vehicle,
                    meter,
                    started_at,
                    ended_at,
                })
            }
            _ => Err(faults),
        }
    }

    /// The session to store.
    ///
    /// # Errors
    /// None that [`SessionBody::parse`] has not reported.
    pub(super) fn wanted(&self) -> Result<Wanted<'_>, Fault> {
        let id = |text| {
            ExternalId::of_new(text).map_err(|why| Fault::whole("invalid_id", why.to_string()))
        };
        Ok(Wanted {
            session: self.session.as_deref().map(id).transpose()?,
            vehicle: id(&self.vehicle)?,
            meter: id(&self.meter)?,
            started_at: self.started_at,
            ended_at: self.ended_at,
        })
    }
}

/// Parses the time of a session: any since 2000. Old times are allowed, because chargers report late.
pub(super) fn field_time(field: &'static str, text: &str) -> Result<Timestamp, Fault> {
    let at = timestamp::parse(text).ok_or_else(|| {
        let message = format!("{field} must be an RFC 3339 time with an offset");
        Fault::of(field, "invalid_timestamp", message)
    })?;
    if at < Timestamp::Y2000 {
        let message = format!("{field} must not be before {}", Timestamp::Y2000);
        return Err(Fault::of(field, "too_old", message));
    }
    if !at.is_writable() {
        let message = format!("{field} must be before the end of the year 9999, in any offset");
        return Err(Fault::of(field, "invalid_timestamp", message));
    }
    Ok(at)
}

/// What is kept of the members of a JSON object, so that a large one needs little memory.
#[derive(Default)]
struct Members {
    /// The texts of the fields.
    found: [Option<String>; FIELDS.len()],
    /// Which fields are there.
    seen: [bool; FIELDS.len()],
    /// The rules that members break.
    ///
    /// Shape:  at most [`FAULTS_MAX`]
    /// Order:  that of the text
    faults: Vec<Fault>,
}

impl Members {
    fn add(&mut self, member: Member, value: Content) {
        let fault = match (member, value) {
            _ if self.faults.len() == FAULTS_MAX => return,
            (Member::Unknown(name), _) => {
                let message = format!("{name} is not a field of a session");
                Fault {
                    field: Some(Cow::Owned(name)),
                    code: "unknown_field",
                    message,
                }
            }
            (Member::Field(at), _) if std::mem::replace(&mut self.seen[at], true) => {
                let message = format!("{} must be given once", FIELDS[at]);
                Fault::of(FIELDS[at], "duplicate_field", message)
            }
            (Member::Field(at), Content::Text(text)) => {
                self.found[at] = Some(text);
                return;
            }
            (Member::Field(at), Content::Null) if at >= REQUIRED => return,
            (Member::Field(at), _) => {
                let message = format!("{} must be a string", FIELDS[at]);
                Fault::of(FIELDS[at], "wrong_type", message)
            }
        };
        self.faults.push(fault);
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members::default();
        while let Some((member, value)) = map.next_entry()? {
            members.add(member, value);
        }
        Ok(members)
    }
}

/// The name of a member.
enum Member {
    /// A field, by its place in [`FIELDS`].
    Field(usize),
    /// The beginning of another name.
    Unknown(String),
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(MemberVisitor)
    }
}

struct MemberVisitor;

impl Visitor<'_> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Member, E> {
        let field = FIELDS.iter().position(|field| *field == name);
        Ok(field.map_or_else(|| Member::Unknown(shorten(name)), Member::Field))
    }
}

/// A value of a member. Other values than a text are read, but not kept.
enum Content {
    Text(String),
    Null,
    Other,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Content, E> {
        Ok(Content::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Content, E> {
        Ok(Content::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Content, E> {
        Ok(Content::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Content, E> {
        Ok(Content::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Content, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Content::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Content::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<(String, &'static str)> {
        let faults = SessionBody::parse(text.as_bytes()).unwrap_err();
        let of = |fault: Fault| (fault.field.unwrap_or_default().into_owned(), fault.code);
        faults.into_iter().map(of).collect()
    }

    #[test]
    fn a_session_is_read_strictly() {
        let good = r#"{"vehicleId":"V","meterId":"M","startedAt":"2024-01-01T00:00:00Z"}"#;
        assert!(SessionBody::parse(good.as_bytes()).is_ok());
        let null = good.replace('}', r#","sessionId":null,"endedAt":null}"#);
        assert!(SessionBody::parse(null.as_bytes()).is_ok());
        for (text, code) in [
            ("", "malformed"),
            ("{", "malformed"),
            ("[]", "not_an_object"),
            ("null", "not_an_object"),
            ("1", "not_an_object"),
            (r#"{} {}"#, "malformed"),
        ] {
            assert_eq!(codes(text), [(String::new(), code)], "{text}");
        }
    }

    #[test]
    fn every_rule_that_a_session_breaks_is_reported() {
        let text = r#"{"vehicleId":"V","vehicleId":"W","meterId":1,"x":1,"sessionId":"..",
            "endedAt":"yesterday"}"#;
        let expected = [
            ("vehicleId", "duplicate_field"),
            ("meterId", "wrong_type"),
            ("x", "unknown_field"),
            ("startedAt", "missing"),
            ("sessionId", "invalid_id"),
            ("endedAt", "invalid_timestamp"),
        ];
        let expected = expected.map(|(field, code)| (field.to_owned(), code));
        assert_eq!(codes(text), expected);
        let backwards = r#"{"vehicleId":"V","meterId":"M","startedAt":"2024-01-01T00:00:00Z",
            "endedAt":"2024-01-01T00:00:00Z"}"#;
        assert_eq!(codes(backwards), [("endedAt".to_owned(), "out_of_range")]);
    }

    #[test]
    fn little_is_kept_of_a_large_object() {
        let unknown = r#""a":0,"#.repeat(170_000);
        let nested = r#"{"":0},"#.repeat(140_000);
        for (text, faults) in [
            (format!("{{{unknown}\"b\":0}}"), FAULTS_MAX),
            (format!("{{\"x\":[{nested}0]}}"), 1),
            (format!("{{\"vehicleId\":[{nested}0]}}"), 1),
        ] {
            let members: Members = serde_json::from_str(&text).unwrap();
            assert_eq!(members.faults.len(), faults);
            assert!(members.faults.capacity() <= FAULTS_MAX);
            assert_eq!(members.found, [const { None }; FIELDS.len()]);
            let codes = codes(&text);
            assert!(codes.len() <= FAULTS_MAX, "{}", codes.len());
        }
    }

    #[test]
    fn times_need_an_offset_and_keep_their_microseconds() {
        let at = field_time("startedAt", "2024-02-09T15:30:00.1234569+01:00").unwrap();
        assert_eq!(at.to_string(), "2024-02-09T14:30:00.123456Z");
        for wrong in [
            "2024-02-09T15:30:00",
            "yesterday",
            "",
            "1999-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
            "9999-12-30T00:00:00-23:59",
        ] {
            assert!(field_time("startedAt", wrong).is_err(), "{wrong}");
        }
    }
}
