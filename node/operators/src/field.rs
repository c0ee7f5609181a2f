//! One or two fields of a payload, read while the whole of it is checked: keys and times.
//!
//! What passes here can be read by every stage behind the door. What could not (nested too deep, a
//! name twice in one object, a number beyond what a double holds, half of a surrogate pair) is told
//! at once, by its line, and not later as one dead letter per stage.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use dunlin_protocol::limits::KEY_BYTES_MAX;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Objects and arrays within one another, the payload itself included. Beyond: it is no payload.
/// Every parser behind the door takes more.
const DEPTH_MAX: usize = 64;
/// How much of a wrong name a sentence repeats, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// The values of `names` in the JSON object `payload`, all of which is checked. An error is a
/// clause: why it is no payload.
pub(crate) fn fields<const N: usize>(
    payload: &[u8],
    names: [Option<&str>; N],
) -> Result<[Option<Value>; N], String> {
    let wrong = RefCell::new(None);
    let mut found = [const { None }; N];
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    let top = Top { walk: Walk { wrong: &wrong, depth: 1 }, names, found: &mut found };
    let outcome = deserializer.deserialize_any(top).and_then(|object| {
        deserializer.end()?;
        Ok(object)
    });
    match (outcome, wrong.into_inner()) {
        (Ok(true), _) => Ok(found),
        (Ok(false), _) => Err("it is not a JSON object".to_owned()),
        (Err(_), Some(why)) => Err(why),
        (Err(error), None) => Err(not_json(&error)),
    }
}

/// A parser's error without its line: a payload is one line, and has a number of its own.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let why = text.split(" at line ").next().unwrap_or(&text);
    format!("it is not JSON ({why} at character {})", error.column())
}

/// Looks at a value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Walk<'a> {
    /// Why the payload is none, when it is JSON all the same.
    wrong: &'a RefCell<Option<String>>,
    /// How many objects and arrays this value may be the innermost of, itself included.
    depth: usize,
}

impl Walk<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth > DEPTH_MAX {
            return Err(self.refuse(format!("it is nested more than {DEPTH_MAX} deep")));
        }
        Ok(Walk { depth: self.depth + 1, ..self })
    }

    fn refuse<E: Error>(self, why: String) -> E {
        *self.wrong.borrow_mut() = Some(why);
        E::custom("refused")
    }

    /// One more name of an object.
    fn name<'de, E: Error>(self, names: &mut Names<'de>, name: Cow<'de, str>) -> Result<(), E> {
        if names.contains(&name) {
            return Err(self.refuse(format!("one of its objects has the field '{}' twice", shown(&name))));
        }
        names.insert(name);
        Ok(())
    }
}

/// Names that are kept side by side. Beyond, and for those with escapes: in a set, which allocates.
const FEW: usize = 16;

/// The names that an object has had so far.
struct Names<'de> {
    few: [&'de str; FEW],
    count: usize,
    more: BTreeSet<Cow<'de, str>>,
}

impl<'de> Names<'de> {
    fn new() -> Names<'de> {
        Names { few: [""; FEW], count: 0, more: BTreeSet::new() }
    }

    fn contains(&self, name: &str) -> bool {
        self.few.iter().take(self.count).any(|known| *known == name) || self.more.contains(name)
    }

    fn insert(&mut self, name: Cow<'de, str>) {
        match (name, self.few.get_mut(self.count)) {
            (Cow::Borrowed(name), Some(place)) => {
                *place = name;
                self.count += 1;
            }
            (name, _) => _ = self.more.insert(name),
        }
    }
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS_MAX).collect()
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($value:expr, $($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self::Value, E> { Ok($value) })*
    };
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    scalars!((), visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut names = Names::new();
        while let Some(name) = map.next_key_seed(Name)? {
            self.name(&mut names, name)?;
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// The payload itself: true when it is an object, whose wanted fields are then in `found`.
struct Top<'a, const N: usize> {
    walk: Walk<'a>,
    names: [Option<&'a str>; N],
    found: &'a mut [Option<Value>; N],
}

impl<'de, const N: usize> Visitor<'de> for Top<'_, N> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    scalars!(false, visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<bool, A::Error> {
        self.walk.visit_seq(items).map(|()| false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let inner = self.walk.deeper()?;
        let mut names = Names::new();
        while let Some(name) = map.next_key_seed(Name)? {
            let wanted = |one: &Option<&str>| one.is_some_and(|one| one == name);
            if self.names.iter().any(wanted) {
                let value: Value = map.next_value()?;
                for (slot, one) in self.found.iter_mut().zip(&self.names) {
                    if wanted(one) {
                        *slot = Some(value.clone());
                    }
                }
            } else {
                map.next_value_seed(inner)?;
            }
            self.walk.name(&mut names, name)?;
        }
        Ok(true)
    }
}

/// A field's name, borrowed where it stands without escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// A key as text: strings as they are, numbers as JSON prints them. An error is a clause.
pub(crate) fn key_text(field: &str, value: Option<&Value>) -> Result<Bytes, String> {
    let key = match value {
        None => return Err(format!("it has no field '{field}', which is its key")),
        Some(Value::String(text)) => Bytes::copy_from_slice(text.as_bytes()),
        Some(Value::Number(number)) if is_exact(number) => Bytes::from(number.to_string()),
        Some(Value::Number(_)) => {
            return Err(format!(
                "its key field '{field}' is a number too large to be kept exactly: write it as a string"
            ));
        }
        Some(Value::Null) => return Err(format!("its key field '{field}' is null")),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(format!("its key field '{field}' is neither a string nor a number"));
        }
    };
    bounded(field, key)
}

/// Whether no other number was read as this one: beyond 64 bits and 53 binary digits several are.
fn is_exact(number: &serde_json::Number) -> bool {
    const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
    !number.is_f64() || number.as_f64().is_some_and(|number| number.abs() < EXACT_BELOW)
}

/// A key that is no longer than a key may be.
pub(crate) fn bounded(field: &str, key: Bytes) -> Result<Bytes, String> {
    if key.len() > KEY_BYTES_MAX {
        return Err(format!(
            "its key field '{field}' has {} bytes, and a key may have {KEY_BYTES_MAX}",
            key.len()
        ));
    }
    Ok(key)
}
