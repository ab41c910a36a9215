//! What a listener wants to hear of.

use hashbrown::HashSet;

use crate::http::problem::Problem;
use crate::http::query::{self, Query};
use crate::reading::{ExternalId, Stream};

/// The most devices that one listener names; who wants more listens to all.
const IDS_MAX: usize = 100;

/// Which changes a listener is sent.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    streams: [bool; 2],
    /// Empty: every device.
    ids: HashSet<String>,
}

impl Default for Filter {
    fn default() -> Self {
        Filter::new([true; 2], Vec::new())
    }
}

impl Filter {
    pub(super) fn new(streams: [bool; 2], ids: Vec<String>) -> Self {
        let ids = ids.into_iter().collect();
        Filter { streams, ids }
    }

    /// Reads `kind` (`meter`, `vehicle`, or both with a comma) and `id`, which may be repeated: a
    /// comma can be part of an id.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let query = Query::parse_repeated(text, &["kind", "id"])?;
        let mut streams = [false; 2];
        for kind in query.all("kind").flat_map(|kinds| kinds.split(',')) {
            let known = Stream::ALL.into_iter().find(|s| s.name() == kind);
            let stream =
                known.ok_or_else(|| query::bad("kind must be meter or vehicle".to_owned()))?;
            streams[stream.index()] = true;
        }
        if streams == [false; 2] {
            streams = [true; 2];
        }
        let mut ids = Vec::new();
        for text in query.all("id") {
            let id = ExternalId::new(text).map_err(|why| query::bad(format!("id {why}")))?;
            ids.push(id.as_str().to_owned());
        }
        if ids.len() > IDS_MAX {
            return Err(query::bad(format!("id is there more than {IDS_MAX} times")));
        }
        Ok(Filter::new(streams, ids))
    }

    /// Whether nothing is left out.
    pub(super) fn is_all(&self) -> bool {
        self.streams == [true; 2] && self.ids.is_empty()
    }

    pub(super) fn wants(&self, stream: Stream, id: &str) -> bool {
        self.streams[stream.index()] && (self.ids.is_empty() || self.ids.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_ids_are_read_and_a_comma_is_part_of_an_id() {
        let filter = Filter::parse(None).unwrap();
        assert!(filter.is_all());
        assert!(Filter::parse(Some("kind=meter,vehicle")).unwrap().is_all());
        let filter = Filter::parse(Some("kind=vehicle&id=a%2Cb&id=c")).unwrap();
        assert!(filter.wants(Stream::Vehicle, "a,b") && filter.wants(Stream::Vehicle, "c"));
        assert!(!filter.wants(Stream::Vehicle, "a") && !filter.wants(Stream::Meter, "c"));
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
