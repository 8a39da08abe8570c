//! JSON text to a tree; a member name twice in one object is refused.

use super::child;
use crate::refusal::Refusal;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reason of the error that the parser hands through unchanged.
const TWICE: &str = "member name occurs twice in this object";

/// Parses UTF-8 JSON text of one value, at most 128 levels deep, in linear time.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Refusal> {
    let text = utf8(bytes)?;
    let trail = RefCell::new(Vec::new());
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed =
        Tree { trail: &trail }.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
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
    if message.starts_with(TWICE) {
        return Refusal::new(place, format!("{TWICE} (byte {})", offset(text, error)));
    }
    let what = message.split(" at line ").next().unwrap_or_default();
    let inside = if place.is_empty() { String::new() } else { format!(", inside {place}") };
    let at = offset(text, error);
    let before = &text.as_bytes()[..at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    let what = super::clip(what.to_string());
    let reason = format!("invalid JSON at byte {at} (line {line}, column {column}){inside}: {what}");
    Refusal::new("", reason)
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
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            match items.next_element_seed(self) {
                Ok(Some(item)) => array.push(item),
                Ok(None) => return Ok(Value::Array(array)),
                Err(error) => {
                    self.trail.borrow_mut().push(array.len().to_string());
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            match members.next_value_seed(self) {
                Ok(_) if object.contains_key(&name) => {
                    self.trail.borrow_mut().push(name);
                    return Err(A::Error::custom(TWICE));
                }
                Ok(value) => object.insert(name, value),
                Err(error) => {
                    self.trail.borrow_mut().push(name);
                    return Err(error);
                }
            };
        }
        Ok(Value::Object(object))
    }
}
