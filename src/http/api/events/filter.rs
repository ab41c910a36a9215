//! What a listener wants to hear of.

use hashbrown::HashSet;

use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::problem::Problem;
use crate::reading::{ExternalId, Stream};

/// The most devices that one listener names; who wants more listens to all.
const IDS_MAX: usize = 100;

/// What an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A device's live status.
    Status(Stream),
    /// An alert that has opened or closed.
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
            Kind::Status(stream) => stream.index(),
            Kind::Alert => 2,
        }
    }
}

/// Which changes a listener is sent.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    kinds: [bool; 3],
    /// Empty: every device.
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

    /// Reads `kind` (`meter`, `vehicle`, `alert`, several with commas) and `id`, which may be
    /// repeated: a comma can be part of an id.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let query = Query::parse_repeated(text, &["kind", "id"])?;
        let mut kinds = [false; 3];
        for name in query.all("kind").flat_map(|names| names.split(',')) {
            let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = known
                .ok_or_else(|| query::bad("kind must be meter, vehicle or alert".to_owned()))?;
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
            return Err(query::bad(format!("id is there more than {IDS_MAX} times")));
        }
        Ok(Filter::new(kinds, ids))
    }

    /// Whether nothing is left out.
    pub(super) fn is_all(&self) -> bool {
        self.kinds == [true; 3] && self.ids.is_empty()
    }

    /// Whether it is to hear of something of a device.
    pub(super) fn wants(&self, kind: Kind, id: &str) -> bool {
        self.kinds[kind.index()] && (self.ids.is_empty() || self.ids.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_ids_are_read_and_a_comma_is_part_of_an_id() {
        let filter = Filter::parse(None).unwrap();
        assert!(filter.is_all());
        let all = Filter::parse(Some("kind=meter,vehicle&kind=alert"));
        assert!(all.unwrap().is_all());
        const METER: Kind = Kind::Status(Stream::Meter);
        const VEHICLE: Kind = Kind::Status(Stream::Vehicle);
        let filter = Filter::parse(Some("kind=vehicle&id=a%2Cb&id=c")).unwrap();
        assert!(filter.wants(VEHICLE, "a,b") && filter.wants(VEHICLE, "c"));
        assert!(!filter.wants(VEHICLE, "a") && !filter.wants(METER, "c"));
    }

    #[test]
    fn what_cannot_be_filtered_by_is_refused() {
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
            assert!(Filter::parse(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
