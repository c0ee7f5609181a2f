//! One or two fields of a payload, read without building the rest: keys and times.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// The values of `names` in the JSON object `payload`; of a field that stands twice, the last.
/// An error is a clause: why the payload is no JSON object.
pub(crate) fn fields<const N: usize>(
    payload: &str,
    names: [Option<&str>; N],
) -> Result<[Option<Value>; N], String> {
    let mut deserializer = serde_json::Deserializer::from_str(payload);
    let found = deserializer.deserialize_any(Fields(names)).and_then(|found| {
        deserializer.end()?;
        Ok(found)
    });
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err("it is not a JSON object".to_owned()),
        Err(error) => Err(format!("it is not JSON ({error})")),
    }
}

struct Fields<'a, const N: usize>([Option<&'a str>; N]);

macro_rules! no_object {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self::Value, E> { Ok(None) })*
    };
}

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = Option<[Option<Value>; N]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    no_object!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [const { None }; N];
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let wanted = |name: &Option<&str>| name.is_some_and(|name| name == key);
            if !self.0.iter().any(wanted) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: Value = map.next_value()?;
            for (slot, name) in found.iter_mut().zip(&self.0) {
                if wanted(name) {
                    *slot = Some(value.clone());
                }
            }
        }
        Ok(Some(found))
    }
}

/// A key as text: strings as they are, numbers as JSON prints them. An error is a clause.
pub(crate) fn key_text(field: &str, value: Option<&Value>) -> Result<Bytes, String> {
    match value {
        None => Err(format!("it has no field '{field}', which is its key")),
        Some(Value::String(text)) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Some(Value::Number(number)) => Ok(Bytes::from(number.to_string())),
        Some(Value::Null) => Err(format!("its key field '{field}' is null")),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            Err(format!("its key field '{field}' is neither a string nor a number"))
        }
    }
}
