//! A body of `application/json`: one reading, or an array of them.

use simd_json::Node;

use super::answer::{BodyError, Faults};
use super::tape::Elements;
use super::{Decoder, TEXT_BYTES_MAX, Tally, flat, slow};
use crate::reading::Reading;

impl Decoder {
    pub(super) fn json(
        &mut self,
        body: &[u8],
        tally: &mut Tally<'_, impl FnMut(Reading<'_>)>,
    ) -> Result<(), BodyError> {
        let text = trim(body);
        if text.is_empty() {
            return Err(BodyError::Empty);
        }
        if text.len() <= flat::TEXT_BYTES_MAX
            && text.starts_with(b"{")
            && let Some(reading) = flat::reading(tally.stream, text, tally.rules)
        {
            tally.count(Ok(reading), Faults::from);
            return Ok(());
        }
        let decoded = if text.len() <= TEXT_BYTES_MAX {
            self.whole(text, tally)
        } else {
            self.in_pieces(text, tally).map(Ok)
        };
        decoded.unwrap_or_else(|| self.slowly(body, tally))
    }

    /// Decodes a text as one piece. Returns `None` if the quick parser refuses it.
    fn whole(
        &mut self,
        text: &[u8],
        tally: &mut Tally<'_, impl FnMut(Reading<'_>)>,
    ) -> Option<Result<(), BodyError>> {
        self.parser.text().extend_from_slice(text);
        self.parser.parse(|nodes| {
            match nodes {
                [Node::Array { len: 0, .. }, ..] => return Err(BodyError::Empty),
                [Node::Array { .. }, elements @ ..] => {
                    Elements(elements).for_each(|element| tally.nodes(element));
                }
                value => tally.nodes(value),
            }
            Ok(())
        })
    }

    /// Decodes a large array in pieces. Returns `None` if it cannot be split, or if a piece is refused.
    ///
    /// The array is parsed twice. The first pass checks that all of it is JSON: a body is refused as a whole, so
    /// no reading may be accepted before its end was parsed.
    fn in_pieces(
        &mut self,
        text: &[u8],
        tally: &mut Tally<'_, impl FnMut(Reading<'_>)>,
    ) -> Option<()> {
        let elements = text.strip_prefix(b"[")?.strip_suffix(b"]")?;
        if trim(elements).is_empty() {
            return None;
        }
        self.each_piece(elements, |_| {})?;
        self.each_piece(elements, |nodes| tally.nodes(nodes))
    }

    /// Passes the elements of an array's text to `each`, one piece at a time.
    ///
    /// A piece ends at a comma that appears to separate two objects. If that comma is inside a string or nested
    /// deeper, the piece has an open string or bracket and is refused.
    fn each_piece(&mut self, elements: &[u8], mut each: impl FnMut(&[Node<'_>])) -> Option<()> {
        let mut rest = elements;
        loop {
            let end = piece_end(rest)?;
            let text = self.parser.text();
            text.push(b'[');
            text.extend_from_slice(&rest[..end]);
            text.push(b']');
            self.parser.parse(|nodes| {
                Elements(nodes.get(1..).unwrap_or_default()).for_each(&mut each);
            })?;
            match rest.get(end + 1..) {
                Some(after_comma) => rest = after_comma,
                None => return Some(()),
            }
        }
    }

    /// Decodes a text that the quick parser refused.
    fn slowly(
        &mut self,
        body: &[u8],
        tally: &mut Tally<'_, impl FnMut(Reading<'_>)>,
    ) -> Result<(), BodyError> {
        let text = slow::check(body)?.trim_ascii();
        if !text.starts_with('[') {
            self.one(text.as_bytes(), tally);
            return Ok(());
        }
        slow::elements(text, |element| self.one(element.as_bytes(), tally))?;
        if tally.outcome.accepted + tally.outcome.rejected == 0 {
            return Err(BodyError::Empty);
        }
        Ok(())
    }
}

/// Where the next piece ends: at the last comma between two objects within [`TEXT_BYTES_MAX`], or at the end of
/// the text.
fn piece_end(text: &[u8]) -> Option<usize> {
    if text.len() <= TEXT_BYTES_MAX {
        return Some(text.len());
    }
    let window = &text[..TEXT_BYTES_MAX];
    memchr::memrchr_iter(b',', window).find(|&comma| {
        trim(&window[..comma]).ends_with(b"}") && trim_start(&text[comma + 1..]).starts_with(b"{")
    })
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn trim_start(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|&b| !is_space(b))
        .unwrap_or(text.len());
    &text[start..]
}

/// Trims JSON white space (`trim_ascii` would also trim form feeds).
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let end = text
        .iter()
        .rposition(|&b| !is_space(b))
        .map_or(0, |last| last + 1);
    &text[..end]
}
