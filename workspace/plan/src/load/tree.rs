//! JSON text to a tree that borrows its strings from the text; a member name twice in one object is refused.

use super::child;
use crate::refusal::Refusal;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Reason of the error that the parser hands through unchanged.
const TWICE: &str = "member name occurs twice in this object";
/// Objects up to this size are searched member by member, larger ones are sorted at their end.
const SMALL_OBJECT: usize = 16;

/// A JSON value. Objects are lists: most are small, and every member is looked at once.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node<'t> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    /// A number that is not whole, or does not fit in 64 bits.
    Float(f64),
    Text(Cow<'t, str>),
    List(Vec<Node<'t>>),
    Object(Members<'t>),
}

/// Members in the order of the text, no name twice.
pub(super) type Members<'t> = Vec<(Cow<'t, str>, Node<'t>)>;

impl<'t> Node<'t> {
    pub(super) fn members(&self) -> Option<&Members<'t>> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    pub(super) fn members_mut(&mut self) -> Option<&mut Members<'t>> {
        if let Self::Object(members) = self { Some(members) } else { None }
    }

    pub(super) fn list_mut(&mut self) -> Option<&mut Vec<Self>> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    pub(super) fn list(&self) -> Option<&[Self]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The member `name`, when this is an object that has it.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.members()?.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.members_mut()?.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(members) = self.members_mut() {
            members.retain(|(known, _)| known != name);
        }
    }
}

/// Parses UTF-8 JSON text of one value, at most 128 levels deep, in linear time. Of the outermost object, only the
/// members in `read` are kept; the others are checked for syntax alone. Empty: all are kept.
pub(super) fn parse<'t>(bytes: &'t [u8], read: &[&str]) -> Result<Node<'t>, Refusal> {
    let text = utf8(bytes)?;
    let trail = RefCell::new(Vec::new());
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed =
        Tree { trail: &trail, read }.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    parsed.map_err(|error| refusal(text, &error, &trail.into_inner()))
}

fn utf8(bytes: &[u8]) -> Result<&str, Refusal> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Refusal::new("", "invalid JSON at byte 0: the text begins with a byte order mark")
            .hint("save the file as UTF-8 without one"));
    }
    core::str::from_utf8(bytes).map_err(|error| {
        Refusal::new("", format!("invalid JSON at byte {}: the text is not UTF-8", error.valid_up_to()))
    })
}

fn refusal(text: &str, error: &serde_json::Error, trail: &[String]) -> Refusal {
    let place = trail.iter().rev().fold(String::new(), |pointer, name| child(&pointer, name));
    let message = error.to_string();
    let at = offset(text, error);
    if message.starts_with(TWICE) {
        return Refusal::new(place, format!("{TWICE} (before byte {at})"));
    }
    let what = message.split(" at line ").next().unwrap_or_default();
    let inside = if place.is_empty() { String::new() } else { format!(", inside {place}") };
    let before = &text.as_bytes()[..at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    let what = super::words::clip(what);
    Refusal::new("", format!("invalid JSON at byte {at} (line {line}, column {column}){inside}: {what}"))
}

/// Offset of the byte at fault; the column counts the bytes read of the line, that one included.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    if error.is_eof() {
        return text.len();
    }
    let lines_before = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    (lines_before.map(str::len).sum::<usize>() + error.column()).saturating_sub(1).min(text.len())
}

/// Reads one value; `trail` collects the way to an error, innermost name first.
#[derive(Clone, Copy)]
struct Tree<'a> {
    trail: &'a RefCell<Vec<String>>,
    read: &'a [&'a str],
}

impl Tree<'_> {
    /// What lies inside is kept whole.
    fn inner(self) -> Self {
        Self { read: &[], ..self }
    }
}

impl<'t> DeserializeSeed<'t> for Tree<'_> {
    type Value = Node<'t>;
    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Node<'t>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Tree<'_> {
    type Value = Node<'t>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Node<'t>, E> {
        Ok(Node::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Node<'t>, E> {
        Ok(Node::Negative(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Node<'t>, E> {
        Ok(Node::Unsigned(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Node<'t>, E> {
        Ok(Node::Float(value))
    }
    fn visit_borrowed_str<E>(self, value: &'t str) -> Result<Node<'t>, E> {
        Ok(Node::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Node<'t>, E> {
        Ok(Node::Text(Cow::Owned(value.to_string())))
    }
    fn visit_unit<E>(self) -> Result<Node<'t>, E> {
        Ok(Node::Null)
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut items: A) -> Result<Node<'t>, A::Error> {
        let mut list = Vec::new();
        loop {
            match items.next_element_seed(self.inner()) {
                Ok(Some(item)) => list.push(item),
                Ok(None) => return Ok(Node::List(list)),
                Err(error) => {
                    self.trail.borrow_mut().push(list.len().to_string());
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'t>>(self, mut source: A) -> Result<Node<'t>, A::Error> {
        let twice = |name: &str| {
            self.trail.borrow_mut().push(name.to_string());
            Err(A::Error::custom(TWICE))
        };
        let mut members = Members::new();
        while let Some(name) = source.next_key_seed(Name)? {
            if members.len() < SMALL_OBJECT && members.iter().any(|(known, _)| *known == name) {
                return twice(&name);
            }
            if !self.read.is_empty() && !self.read.contains(&&*name) {
                source.next_value::<IgnoredAny>()?;
                continue;
            }
            match source.next_value_seed(self.inner()) {
                Ok(value) => members.push((name, value)),
                Err(error) => {
                    self.trail.borrow_mut().push(name.into_owned());
                    return Err(error);
                }
            }
        }
        if members.len() > SMALL_OBJECT {
            let mut names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
            names.sort_unstable();
            if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                return twice(pair[0]);
            }
        }
        Ok(Node::Object(members))
    }
}

/// Reads a member name.
struct Name;

impl<'t> DeserializeSeed<'t> for Name {
    type Value = Cow<'t, str>;
    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Cow<'t, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'t> for Name {
    type Value = Cow<'t, str>;
    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a member name")
    }
    fn visit_borrowed_str<E>(self, name: &'t str) -> Result<Cow<'t, str>, E> {
        Ok(Cow::Borrowed(name))
    }
    fn visit_str<E>(self, name: &str) -> Result<Cow<'t, str>, E> {
        Ok(Cow::Owned(name.to_string()))
    }
}
