//! Which changes a listener gets.

use hashbrown::HashSet;

use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::problem::Problem;
use crate::reading::{ExternalId, Stream};

/// The most devices that one listener may name. A client that needs more must listen to all.
const IDS_MAX: usize = 100;

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A device's live status.
    Status(Stream),
    /// An alert was opened or closed.
    Alert,
}

impl Kind {
    const ALL: [Kind; 3] = [
        Kind::Status(Stream::Meter),
        Kind::Status(Stream::Vehicle),
        Kind::Alert,
    ];

    /// The name in `kind` and in `event:`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Status(stream) => stream.name(),
            Kind::Alert => "alert",
        }
    }

    const fn index(self) -> usize {
        match self {
            Kind::Status(Stream::Meter) => 0,
            Kind::Status(Stream::Vehicle) => 1,
            Kind::Alert => 2,
        }
    }
}

/// The changes that a listener gets.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    kinds: [bool; 3],
    /// Empty means every device.
    ids: HashSet<String>,
}

impl Default for Filter {
    fn default() -> Self {
        Filter::new([true; 3], Vec::new())
    }
}

impl Filter {
    pub(super) fn new(kinds: [bool; 3], ids: Vec<String>) -> Self {
        let ids = ids.into_iter().collect();
        Filter { kinds, ids }
    }

    /// Parses `kind` (`meter`, `vehicle` or `alert`, several with commas) and `id`. `id` may be repeated, because
    /// ids can contain commas.
    pub(super) fn parse(query: &Query<'_>) -> Result<Self, Problem> {
        let mut kinds = [false; 3];
        for name in query.all("kind").flat_map(|names| names.split(',')) {
            let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = known.ok_or_else(|| query::bad("kind must be meter, vehicle or alert"))?;
            kinds[kind.index()] = true;
        }
        if kinds == [false; 3] {
            kinds = [true; 3];
        }
        let mut ids = Vec::new();
        for text in query.all("id") {
            let id = ExternalId::new(text).map_err(|why| query::bad(format!("id {why}")))?;
            ids.push(id.as_str().to_owned());
        }
        if ids.len() > IDS_MAX {
            let detail =
                format!("id may be given at most {IDS_MAX} times; omit it for all devices");
            return Err(query::bad(detail));
        }
        Ok(Filter::new(kinds, ids))
    }

    /// Whether all changes pass.
    pub(super) fn is_all(&self) -> bool {
        self.kinds == [true; 3] && self.ids.is_empty()
    }

    /// Whether an event of this kind and device passes.
    pub(super) fn wants(&self, kind: Kind, id: &str) -> bool {
        self.kinds[kind.index()] && (self.ids.is_empty() || self.ids.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::query::Parameters;

    fn parse(text: &str) -> Result<Filter, Problem> {
        Filter::parse(&Parameters::Repeated(&["kind", "id"]).parse(Some(text))?)
    }

    #[test]
    fn kinds_and_ids_are_read_and_a_comma_is_part_of_an_id() {
        let filter = parse("").unwrap();
        assert!(filter.is_all());
        let all = parse("kind=meter,vehicle&kind=alert");
        assert!(all.unwrap().is_all());
        const METER: Kind = Kind::Status(Stream::Meter);
        const VEHICLE: Kind = Kind::Status(Stream::Vehicle);
        let filter = parse("kind=vehicle&id=a%2Cb&id=c").unwrap();
        assert!(filter.wants(VEHICLE, "a,b") && filter.wants(VEHICLE, "c"));
        assert!(!filter.wants(VEHICLE, "a") && !filter.wants(METER, "c"));
    }

    #[test]
    fn unknown_kinds_and_wrong_ids_are_refused() {
        let many = "id=x&".repeat(IDS_MAX + 1);
        for wrong in [
            "kind=",
            "kind=car",
            "kind=meter,",
            "id=",
            "id=%00",
            "ids=x",
            &many,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
