//! The quick parser: simd-json's tape over a padded copy of the text. All buffers are reused.

use std::mem;

use simd_json::{Buffers, INPUT_PADDING, Node, StaticNode, Tape};

use super::answer::{Fault, Faults};
use super::fields;
use super::fields::{Draft, Value};
use super::{DEPTH_MAX, Rules};
use crate::reading::{Reading, Stream};

/// How many nodes of a tape are kept for the next text (24 bytes each, 768 KiB).
///
/// Why this many: a text of the largest size with ordinary readings of some 110 bytes needs fewer. Only a text of
/// brackets and commas needs more.
pub(super) const KEPT_NODES_MAX: usize = 32 * 1024;

/// simd-json with its buffers.
///
/// Why it copies the text, although simd-json could parse in place: the parser unescapes strings in place, while
/// the slow parser needs the original text. The copy also has the padding that vector loads need.
pub(super) struct Parser {
    buffers: Buffers,
    tape: Tape<'static>,
    text: Vec<u8>,
}

impl Parser {
    pub(super) fn new() -> Self {
        Parser {
            buffers: Buffers::with_max_depth(0, DEPTH_MAX),
            tape: Tape(Vec::new()),
            text: Vec::new(),
        }
    }

    /// The buffer for the next text, cleared. The caller fills it.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        self.text.clear();
        &mut self.text
    }

    /// Parses the text and passes its tape to `show`. Returns `None` if simd-json refuses the text.
    pub(super) fn parse<R>(&mut self, show: impl FnOnce(&[Node<'_>]) -> R) -> Option<R> {
        let len = self.text.len();
        self.text.resize(len + INPUT_PADDING, b' ');
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(&mut self.text, len, &mut self.buffers, &mut tape);
        let shown = parsed.ok().map(|()| show(&tape.0));
        self.tape = tape.reset();
        shown
    }

    /// Frees memory that only unusual texts need.
    pub(super) fn shrink(&mut self, text_bytes_max: usize) {
        if self.tape.0.capacity() > KEPT_NODES_MAX || self.text.capacity() > 2 * text_bytes_max {
            *self = Parser::new();
        }
    }

    #[cfg(test)]
    pub(super) fn kept_nodes(&self) -> usize {
        self.tape.0.capacity()
    }
}

/// The values of an array, each as all of its nodes.
pub(super) struct Elements<'t, 'a>(pub(super) &'t [Node<'a>]);

impl<'t, 'a> Iterator for Elements<'t, 'a> {
    type Item = &'t [Node<'a>];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let first = self.0.first()?;
        let (element, rest) = self.0.split_at_checked(1 + inner_nodes(first))?;
        self.0 = rest;
        Some(element)
    }
}

/// How many of the nodes after this one belong to it.
#[inline]
fn inner_nodes(node: &Node<'_>) -> usize {
    match node {
        Node::Object { count, .. } | Node::Array { count, .. } => *count,
        Node::String(_) | Node::Static(_) => 0,
    }
}

/// Validates a value's nodes as a reading.
#[inline]
pub(super) fn reading<'a>(
    stream: Stream,
    nodes: &[Node<'a>],
    rules: &Rules,
) -> Result<Reading<'a>, Fault> {
    let [Node::Object { .. }, inner @ ..] = nodes else {
        return Err(super::not_an_object());
    };
    let mut rest = inner;
    let mut draft = Draft::new(stream);
    while let [Node::String(key), value, tail @ ..] = rest {
        draft.field(key, value_of(value), rules)?;
        rest = tail.get(inner_nodes(value)..).unwrap_or_default();
    }
    draft.finish(rules)
}

/// All faults of a value that is not a valid reading; `None` if it is not an object.
#[cold]
pub(super) fn faults(
    stream: Stream,
    nodes: &[Node<'_>],
    rules: &Rules,
    prefix: Option<&str>,
) -> Option<Faults> {
    match nodes {
        [Node::Object { .. }, inner @ ..] => {
            Some(fields::faults(stream, rules, prefix, Fields(inner)))
        }
        _ => None,
    }
}

/// The fields of an object, as nodes.
struct Fields<'t, 'a>(&'t [Node<'a>]);

impl<'a> Iterator for Fields<'_, 'a> {
    type Item = (Option<&'a str>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let [Node::String(key), value, tail @ ..] = self.0 else {
            return None;
        };
        self.0 = tail.get(inner_nodes(value)..).unwrap_or_default();
        Some((Some(*key), value_of(value)))
    }
}

#[inline]
pub(super) fn value_of<'a>(node: &Node<'a>) -> Value<'a> {
    match *node {
        Node::String(text) => Value::Text(text),
        Node::Static(StaticNode::F64(number)) => Value::Number(number),
        // Integers are rounded to the nearest double, as their text would be.
        Node::Static(StaticNode::U64(number)) => Value::Number(number as f64),
        Node::Static(StaticNode::I64(number)) => Value::Number(number as f64),
        Node::Static(StaticNode::Bool(_)) => Value::Bool,
        Node::Static(StaticNode::Null) => Value::Null,
        Node::Object { .. } | Node::Array { .. } => Value::Nested,
    }
}
