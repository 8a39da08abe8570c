//! The tree as input of the types, stricter than serde_json: an object is only read from an object (derived types
//! also take an array of the members in order) and a closed set only from a string.

use super::child;
use super::tree::{Members, Node};
use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::{self, Vec};
use core::cell::RefCell;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

/// Reads `document` as a `T`; the error is the pointer of the value at fault, and the reason.
pub(super) fn read<T: DeserializeOwned>(document: Node<'_>) -> Result<T, (String, String)> {
    let trail = RefCell::new(Vec::new());
    T::deserialize(Strict { value: document, trail: &trail }).map_err(|error| {
        let pointer = trail.borrow().iter().rev().fold(String::new(), |pointer, name| child(&pointer, name));
        (pointer, error.to_string())
    })
}

/// One value; `trail` collects the way to an error, innermost name first.
struct Strict<'t, 'a> {
    value: Node<'t>,
    trail: &'a RefCell<Vec<String>>,
}

impl Strict<'_, '_> {
    fn wrong_type<'de, V: Visitor<'de>>(&self, visitor: &V) -> serde_json::Error {
        let unexpected = match &self.value {
            Node::Null => Unexpected::Other("null"),
            Node::Bool(value) => Unexpected::Bool(*value),
            Node::Unsigned(value) => Unexpected::Unsigned(*value),
            Node::Negative(value) => Unexpected::Signed(*value),
            Node::Float(value) => Unexpected::Float(*value),
            Node::Text(text) => Unexpected::Str(text),
            Node::List(_) => Unexpected::Seq,
            Node::Object(_) => Unexpected::Map,
        };
        Error::invalid_type(unexpected, visitor)
    }
}

impl<'de> Deserializer<'de> for Strict<'de, '_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let trail = self.trail;
        match self.value {
            Node::Null => Err(self.wrong_type(&visitor)),
            Node::Bool(value) => visitor.visit_bool(value),
            Node::Unsigned(value) => visitor.visit_u64(value),
            Node::Negative(value) => visitor.visit_i64(value),
            Node::Float(value) => visitor.visit_f64(value),
            Node::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Node::Text(Cow::Owned(text)) => visitor.visit_string(text),
            Node::List(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0, trail }),
            Node::Object(members) => visitor.visit_map(Fields::new(members, trail)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.value == Node::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.value {
            Node::Object(members) => visitor.visit_map(Fields::new(members, self.trail)),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match &self.value {
            Node::Text(text) => visitor.visit_enum(string(text)),
            _ => Err(self.wrong_type(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

fn string(text: &str) -> StrDeserializer<'_, serde_json::Error> {
    text.into_deserializer()
}

struct Items<'t, 'a> {
    items: vec::IntoIter<Node<'t>>,
    index: usize,
    trail: &'a RefCell<Vec<String>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = serde_json::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Self::Error> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let element = seed.deserialize(Strict { value, trail: self.trail });
        let element = element.inspect_err(|_| self.trail.borrow_mut().push(self.index.to_string()))?;
        self.index += 1;
        Ok(Some(element))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'t, 'a> {
    members: vec::IntoIter<(Cow<'t, str>, Node<'t>)>,
    current: Option<(Cow<'t, str>, Node<'t>)>,
    trail: &'a RefCell<Vec<String>>,
}

impl<'t, 'a> Fields<'t, 'a> {
    fn new(members: Members<'t>, trail: &'a RefCell<Vec<String>>) -> Self {
        Self { members: members.into_iter(), current: None, trail }
    }
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        self.current = self.members.next();
        self.current.as_ref().map(|(name, _)| seed.deserialize(string(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        let (name, value) =
            self.current.take().ok_or_else(|| Self::Error::custom("a value without a name"))?;
        let value = seed.deserialize(Strict { value, trail: self.trail });
        value.inspect_err(|_| self.trail.borrow_mut().push(name.into_owned()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.members.len())
    }
}
