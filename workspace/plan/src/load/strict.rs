//! The tree as input of the types, stricter than serde_json: an object is only read from an object (derived types
//! also take an array of the members in order) and a closed set only from a string.

use super::child;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::{self, Vec};
use core::cell::RefCell;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value, map};

/// Reads `document` as a `T`; the error is the pointer of the value at fault, and the reason.
pub(super) fn read<T: DeserializeOwned>(document: Value) -> Result<T, (String, String)> {
    let trail = RefCell::new(Vec::new());
    T::deserialize(Strict { value: document, trail: &trail }).map_err(|error| {
        let pointer = trail.borrow().iter().rev().fold(String::new(), |pointer, name| child(&pointer, name));
        (pointer, error.to_string())
    })
}

/// One value; `trail` collects the way to an error, innermost name first.
struct Strict<'a> {
    value: Value,
    trail: &'a RefCell<Vec<String>>,
}

impl Strict<'_> {
    fn wrong_type<'de, V: Visitor<'de>>(&self, visitor: &V) -> serde_json::Error {
        let unexpected = match &self.value {
            Value::Null => Unexpected::Other("null"),
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(_) => Unexpected::Other("a number"),
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Error::invalid_type(unexpected, visitor)
    }
}

impl<'de> Deserializer<'de> for Strict<'_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let trail = self.trail;
        match self.value {
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0, trail }),
            Value::Object(members) => visitor.visit_map(Members::new(members, trail)),
            simple => simple.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
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
        if self.value.is_object() { self.deserialize_any(visitor) } else { Err(self.wrong_type(&visitor)) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match &self.value {
            Value::String(text) => visitor.visit_enum(string(text)),
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

struct Items<'a> {
    items: vec::IntoIter<Value>,
    index: usize,
    trail: &'a RefCell<Vec<String>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = serde_json::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Self::Error> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let element = seed.deserialize(Strict { value, trail: self.trail });
        let element = element.inspect_err(|_| self.trail.borrow_mut().push(format!("{}", self.index)))?;
        self.index += 1;
        Ok(Some(element))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Members<'a> {
    members: map::IntoIter,
    current: Option<(String, Value)>,
    trail: &'a RefCell<Vec<String>>,
}

impl<'a> Members<'a> {
    fn new(members: Map<String, Value>, trail: &'a RefCell<Vec<String>>) -> Self {
        Self { members: members.into_iter(), current: None, trail }
    }
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        self.current = self.members.next();
        self.current.as_ref().map(|(name, _)| seed.deserialize(string(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        let (name, value) =
            self.current.take().ok_or_else(|| Self::Error::custom("a value without a name"))?;
        seed.deserialize(Strict { value, trail: self.trail })
            .inspect_err(|_| self.trail.borrow_mut().push(name))
    }
}
