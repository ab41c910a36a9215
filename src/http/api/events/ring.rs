//! The latest events, in bounded memory.
//!
//! Every listener reads at its own cursor and has no queue, so a slow one delays only itself.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::filter::{Filter, Kind};
use crate::postgres::Written;

/// The approximate size of a chunk. Why 64 KiB: a connection accepts about that much in one write.
const CHUNK_BYTES: usize = 64 << 10;

/// One change, in the form in which it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: Kind,
    /// The device.
    pub(super) id: String,
    /// The device's status or the alert, as a single line of JSON.
    pub(super) data: String,
}

/// Consecutive events with their concatenated text. A listener without a filter gets the text unchanged.
#[derive(Debug)]
pub(super) struct Chunk {
    first: u64,
    events: Vec<Indexed>,
    text: Bytes,
}

/// One event of a chunk, without its text.
#[derive(Debug)]
struct Indexed {
    kind: Kind,
    id: Box<str>,
    /// The end of its text, as an offset in the chunk's text.
    end: usize,
}

impl Chunk {
    /// The number after the last event in it.
    pub(super) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Its approximate memory, in bytes.
    fn bytes(&self) -> usize {
        let events = self.events.iter();
        let index = events.map(|event| event.id.len() + size_of::<Indexed>());
        self.text.len() + index.sum::<usize>()
    }

    /// The texts of the events from `from` on that pass a filter.
    pub(super) fn text(&self, from: u64, filter: &Filter) -> Bytes {
        let skip = from.saturating_sub(self.first) as usize;
        let mut start = match skip {
            0 => 0,
            n => self
                .events
                .get(n - 1)
                .map_or(self.text.len(), |event| event.end),
        };
        if filter.is_all() {
            return self.text.slice(start..);
        }
        let mut wanted = BytesMut::new();
        for event in self.events.iter().skip(skip) {
            if filter.wants(event.kind, &event.id) {
                wanted.extend_from_slice(&self.text[start..event.end]);
            }
            start = event.end;
        }
        wanted.freeze()
    }
}

/// What the ring holds at a listener's cursor.
#[derive(Debug)]
pub(super) enum At {
    /// Nothing newer yet.
    CaughtUp,
    /// Events. The first is at or before the cursor.
    Chunk(Arc<Chunk>),
    /// The ring no longer has its next event.
    Lost,
}

/// The number of an epoch's first event. The number before it means "none yet".
pub(super) const FIRST: u64 = 1;

/// The latest events of an epoch.
///
/// Events are numbered from [`FIRST`]. An epoch ends when changes may have been missed.
#[derive(Debug)]
pub(super) struct Ring {
    epoch: u64,
    next: u64,
    /// The token of what the events so far rest on; `None` without read replicas.
    seen: Option<Written>,
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    pub(super) fn new(epoch: u64, bytes_max: usize) -> Self {
        Ring {
            epoch,
            next: FIRST,
            seen: None,
            chunks: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// The epoch's number. It distinguishes its events from those of other epochs.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the next event.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The token of a state of the database: what is not in it will be an event.
    pub(super) fn seen(&self) -> Option<Written> {
        self.seen
    }

    /// Sets the token of the state that the events so far rest on.
    pub(super) fn set_seen(&mut self, seen: Option<Written>) {
        self.seen = seen;
    }

    /// Starts a new epoch without events.
    pub(super) fn restart(&mut self, epoch: u64) {
        *self = Ring::new(epoch, self.bytes_max);
    }

    /// Appends events. The oldest are removed if memory is exceeded.
    pub(super) fn push(&mut self, events: Vec<Event>) {
        let mut text = BytesMut::new();
        let mut index = Vec::new();
        for event in events {
            let number = self.next + index.len() as u64;
            write_event(&mut text, &event, self.epoch, number);
            index.push(Indexed {
                kind: event.kind,
                id: event.id.into(),
                end: text.len(),
            });
            if text.len() >= CHUNK_BYTES {
                self.push_chunk(mem::take(&mut text).freeze(), mem::take(&mut index));
            }
        }
        if !index.is_empty() {
            self.push_chunk(text.freeze(), index);
        }
    }

    fn push_chunk(&mut self, text: Bytes, events: Vec<Indexed>) {
        let chunk = Chunk {
            first: self.next,
            events,
            text,
        };
        self.next = chunk.end();
        self.bytes += chunk.bytes();
        self.chunks.push_back(Arc::new(chunk));
        while self.bytes > self.bytes_max && self.chunks.len() > 1 {
            let oldest = self.chunks.pop_front();
            self.bytes -= oldest.map_or(0, |chunk| chunk.bytes());
        }
    }

    /// Looks up a cursor, which is the number of a listener's next event.
    pub(super) fn at(&self, cursor: u64) -> At {
        if cursor == self.next {
            return At::CaughtUp;
        }
        let after = self.chunks.partition_point(|chunk| chunk.end() <= cursor);
        match self.chunks.get(after) {
            Some(chunk) if chunk.first <= cursor => At::Chunk(Arc::clone(chunk)),
            _ => At::Lost,
        }
    }
}

/// Writes an event.
///
/// Source: the HTML standard, §9.2.6: one field per line, an empty line ends the event
fn write_event(text: &mut BytesMut, event: &Event, epoch: u64, number: u64) {
    let head = format!(
        "event: {}\nid: {}\ndata: ",
        event.kind.name(),
        number_text(epoch, number)
    );
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(event.data.as_bytes());
    text.extend_from_slice(b"\n\n");
}

/// An event's number with its epoch, as in `id:` and `Last-Event-ID`.
pub(super) fn number_text(epoch: u64, number: u64) -> String {
    format!("{epoch:016x}-{number}")
}

/// Parses the text of [`number_text`].
pub(super) fn parse_number(text: &str) -> Option<(u64, u64)> {
    let (epoch, number) = text.split_once('-')?;
    let is_plain = epoch.len() == 16 && number.bytes().all(|b| b.is_ascii_digit());
    let epoch = u64::from_str_radix(epoch, 16).ok()?;
    is_plain.then_some((epoch, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Stream;

    fn event(n: u64) -> Event {
        Event {
            kind: if n.is_multiple_of(2) {
                Kind::Status(Stream::Meter)
            } else {
                Kind::Status(Stream::Vehicle)
            },
            id: format!("D{n}"),
            data: format!("{{\"n\":{n}}}"),
        }
    }

    /// All text that a listener gets from a cursor on, and whether it lost events.
    fn read(ring: &Ring, mut cursor: u64, filter: &Filter) -> (String, bool) {
        let mut all = String::new();
        loop {
            match ring.at(cursor) {
                At::CaughtUp => return (all, false),
                At::Lost => return (all, true),
                At::Chunk(chunk) => {
                    all += std::str::from_utf8(&chunk.text(cursor, filter)).unwrap();
                    cursor = chunk.end();
                }
            }
        }
    }

    #[test]
    fn a_listener_gets_each_event_once_and_in_order() {
        let mut ring = Ring::new(7, 1 << 20);
        for pass in 0..6 {
            ring.push((pass * 1000..(pass + 1) * 1000).map(event).collect());
        }
        assert!(ring.chunks.len() > 3, "the test needs several chunks");
        for cursor in [1, 2, 1000, 1001, 1234, 6000, 6001] {
            let (text, lost) = read(&ring, cursor, &Filter::default());
            let numbers: Vec<u64> = text
                .lines()
                .filter_map(|line| line.strip_prefix("id: ").and_then(parse_number))
                .map(|(epoch, number)| {
                    assert_eq!(epoch, 7);
                    number
                })
                .collect();
            assert_eq!(numbers, (cursor..6001).collect::<Vec<_>>());
            assert!(!lost);
        }
    }

    #[test]
    fn an_event_is_its_kind_its_number_and_its_status() {
        let mut ring = Ring::new(255, 1 << 20);
        ring.push(vec![event(0), event(1)]);
        let (text, _) = read(&ring, FIRST, &Filter::default());
        assert_eq!(
            text,
            "event: meter\nid: 00000000000000ff-1\ndata: {\"n\":0}\n\n\
             event: vehicle\nid: 00000000000000ff-2\ndata: {\"n\":1}\n\n"
        );
    }

    #[test]
    fn a_filter_passes_what_it_names_and_no_more() {
        let mut ring = Ring::new(7, 1 << 20);
        ring.push((0..4).map(event).collect());
        let ids = |filter: Filter, cursor| -> Vec<String> {
            let (text, _) = read(&ring, cursor, &filter);
            let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
            lines.map(str::to_owned).collect()
        };
        let meters = Filter::new([true, false, true], Vec::new());
        assert_eq!(ids(meters, FIRST), ["{\"n\":0}", "{\"n\":2}"]);
        let named = Filter::new([true; 3], vec!["D3".to_owned(), "D0".to_owned()]);
        assert_eq!(ids(named.clone(), FIRST), ["{\"n\":0}", "{\"n\":3}"]);
        assert_eq!(ids(named, FIRST + 1), ["{\"n\":3}"]);
    }

    #[test]
    fn memory_is_bounded_and_lost_events_are_noticed() {
        let bytes_max = 100_000;
        let mut ring = Ring::new(7, bytes_max);
        for pass in 0..50 {
            ring.push((pass * 100..(pass + 1) * 100).map(event).collect());
            assert!(ring.bytes <= bytes_max);
            let real: usize = ring.chunks.iter().map(|c| c.bytes()).sum();
            assert_eq!(ring.bytes, real);
        }
        assert!(read(&ring, FIRST, &Filter::default()).1);
        let oldest = ring.chunks[0].first;
        assert!(oldest > FIRST && !read(&ring, oldest, &Filter::default()).1);
        assert!(read(&ring, oldest - 1, &Filter::default()).1);
        // A number that no event ever had counts as lost too.
        assert!(read(&ring, 5002, &Filter::default()).1);
    }

    #[test]
    fn a_number_is_read_only_as_it_was_written() {
        assert_eq!(
            parse_number(&number_text(u64::MAX, 42)),
            Some((u64::MAX, 42))
        );
        for wrong in [
            "",
            "-",
            "1-1",
            "00000000000000ff-",
            "00000000000000ff-+1",
            "00000000000000fg-1",
        ] {
            assert_eq!(parse_number(wrong), None, "{wrong}");
        }
    }
}
