//! Payloads between JSON text and the values that expressions see.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// A payload, parsed once for all expressions of a chain.
#[derive(Debug)]
pub struct Payload(pub(crate) Box<dyn Val>);

impl Payload {
    /// Integers that fit 64 bits are ints, all other numbers doubles. An error is a clause.
    pub fn parse(json: &[u8]) -> Result<Payload, String> {
        match serde_json::from_slice::<Parsed>(json) {
            Ok(Parsed(value)) if value.downcast_ref::<CelMap>().is_some() => Ok(Payload(value)),
            Ok(_) => Err("the payload is not a JSON object".to_owned()),
            Err(error) => Err(format!("the payload is not JSON ({error})")),
        }
    }

    /// A top-level field.
    pub(crate) fn field(&self, name: &str) -> Option<&dyn Val> {
        let map = self.0.downcast_ref::<CelMap>()?.inner();
        map.get(&CelMapKey::from(name.to_owned())).map(|value| &**value)
    }
}

struct Parsed(Box<dyn Val>);

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_any(ParsedVisitor)
    }
}

struct ParsedVisitor;

impl<'de> Visitor<'de> for ParsedVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed(Box::new(CelNull)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed(Box::new(CelBool::from(value))))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed(Box::new(CelInt::from(value))))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Parsed, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parsed, E> {
        Ok(Parsed(Box::new(CelDouble::from(value))))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed(Box::new(CelString::from(value.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut list: Vec<Box<dyn Val>> = Vec::new();
        while let Some(Parsed(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Parsed(Box::new(CelList::from(list))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        // Looked up only; whoever walks it (`ordered`, `to_json`) sorts.
        let mut fields: HashMap<CelMapKey<'static>, Box<dyn Val>> = HashMap::new();
        while let Some((key, Parsed(value))) = map.next_entry::<String, Parsed>()? {
            fields.insert(CelMapKey::from(key), value);
        }
        if fields.len() > u32::MAX as usize {
            return Err(A::Error::custom("an object has too many fields"));
        }
        Ok(Parsed(Box::new(CelMap::from(fields))))
    }
}

/// A value as JSON text, maps in key order. An error is a clause: why JSON cannot hold it.
pub(crate) fn to_json(value: &dyn Val, json: &mut String) -> Result<(), String> {
    if value.downcast_ref::<CelNull>().is_some() {
        json.push_str("null");
    } else if let Some(value) = value.downcast_ref::<CelBool>() {
        json.push_str(if *value.inner() { "true" } else { "false" });
    } else if let Some(value) = value.downcast_ref::<CelInt>() {
        json.push_str(&value.inner().to_string());
    } else if let Some(value) = value.downcast_ref::<CelUInt>() {
        json.push_str(&value.inner().to_string());
    } else if let Some(value) = value.downcast_ref::<CelDouble>() {
        match serde_json::Number::from_f64(*value.inner()) {
            Some(number) => json.push_str(&number.to_string()),
            None => return Err(format!("{} is not a number that JSON has", value.inner())),
        }
    } else if let Some(value) = value.downcast_ref::<CelString>() {
        json.push_str(&quoted(value.inner()));
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        let fields: BTreeMap<String, &Box<dyn Val + '_>> =
            map.inner().iter().map(|(key, value)| (spell_key(key), value)).collect();
        json.push('{');
        for (index, (key, value)) in fields.into_iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push_str(&quoted(&key));
            json.push(':');
            to_json(&**value, json)?;
        }
        json.push('}');
    } else if let Some(items) = value.as_iterable() {
        json.push('[');
        let mut items = items.iter();
        let mut first = true;
        while let Some(item) = items.next() {
            if !first {
                json.push(',');
            }
            first = false;
            to_json(item, json)?;
        }
        json.push(']');
    } else {
        return Err(format!("JSON has no {}", value.get_type().name()));
    }
    Ok(())
}

pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn spell_key(key: &CelMapKey<'_>) -> String {
    match key {
        CelMapKey::Bool(key) => key.inner().to_string(),
        CelMapKey::Int(key) => key.inner().to_string(),
        CelMapKey::UInt(key) => key.inner().to_string(),
        CelMapKey::String(key) => key.inner().to_owned(),
    }
}

/// A map's keys in order: a map itself gives them in an order that no two processes share.
pub(crate) fn ordered_keys<'v>(map: &CelMap<'v>) -> CelList<'v> {
    let mut keys: Vec<&CelMapKey<'v>> = map.inner().keys().collect();
    keys.sort_by_key(|key| (kind_rank(key), number(key), spell_key(key)));
    let boxed = |key: &CelMapKey<'v>| -> Box<dyn Val + 'v> {
        match key {
            CelMapKey::Bool(key) => Box::new(CelBool::from(*key.inner())),
            CelMapKey::Int(key) => Box::new(CelInt::from(*key.inner())),
            CelMapKey::UInt(key) => Box::new(CelUInt::from(*key.inner())),
            CelMapKey::String(key) => Box::new(CelString::from(key.inner().to_owned())),
        }
    };
    CelList::from(keys.into_iter().map(boxed).collect::<Vec<_>>())
}

fn kind_rank(key: &CelMapKey<'_>) -> u8 {
    match key {
        CelMapKey::Bool(_) => 0,
        CelMapKey::Int(_) | CelMapKey::UInt(_) => 1,
        CelMapKey::String(_) => 2,
    }
}

fn number(key: &CelMapKey<'_>) -> i128 {
    match key {
        CelMapKey::Int(key) => i128::from(*key.inner()),
        CelMapKey::UInt(key) => i128::from(*key.inner()),
        CelMapKey::Bool(_) | CelMapKey::String(_) => 0,
    }
}
