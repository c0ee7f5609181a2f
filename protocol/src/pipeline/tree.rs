//! A pipeline file as a tree in which everything knows its place, read from TOML or from JSON.
//! What the keys mean is `parse`'s business.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Place, Problem};
use crate::limits::MANIFEST_BYTES_MAX;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub place: Place,
    pub value: Tree,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    /// TOML's own instants and dates, as they were written.
    Datetime(String),
    Text(String),
    List(Vec<Node>),
    /// In file order.
    Table(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    pub node: Node,
}

impl Node {
    /// What this is, for "expected X, found Y".
    pub fn kind(&self) -> &'static str {
        match self.value {
            Tree::Null => "null",
            Tree::Bool(_) => "a boolean",
            Tree::Integer(_) => "an integer",
            Tree::Float(_) => "a number",
            Tree::Datetime(_) => "a date",
            Tree::Text(_) => "a string",
            Tree::List(_) => "a list",
            Tree::Table(_) => "a table",
        }
    }

    /// The place of the deepest part of `path` that exists: of a value, or of a key whose value is
    /// a table.
    pub fn place_of(&self, path: &[&str]) -> Place {
        let mut place = &self.place;
        let mut node = self;
        for part in path {
            let Tree::Table(entries) = &node.value else { break };
            let Some(entry) = entries.iter().find(|entry| entry.key == *part) else { break };
            node = &entry.node;
            place = match node.value {
                Tree::Table(_) => &entry.place,
                _ => &node.place,
            };
        }
        place.clone()
    }
}

fn too_long(len: usize, place: Place) -> Result<(), Problem> {
    if len <= MANIFEST_BYTES_MAX {
        return Ok(());
    }
    Err(Problem::new(
        &place,
        format!("the file has {len} bytes, more than the {MANIFEST_BYTES_MAX} that a pipeline file may have"),
        "split it into several pipelines",
    ))
}

const TOP: Place = Place::Line { line: 1, column: 1 };

/// Reads TOML; every node stands at its line and column.
pub(super) fn from_toml(text: &str) -> Result<Node, Problem> {
    too_long(text.len(), TOP)?;
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|error| {
        let place = error.span().map_or(TOP, |span| lines.place(span.start));
        let message = error.message().trim().replace('\n', ", ");
        let mend = match message.as_str() {
            text if text.contains("duplicate key") => {
                "a key stands once in its table: take one of the two out"
            }
            text if text.contains("key with no value") => "write it as key = value",
            text if text.contains("invalid boolean") || text.contains("must be quoted") => {
                "strings need quotes: check that line"
            }
            _ => "check that line",
        };
        Problem::new(&place, format!("this is not TOML: {message}"), mend)
    })?;
    let table = table.into_inner();
    Ok(Node { place: TOP, value: Tree::Table(toml_table(&table, &lines)) })
}

fn toml_table(table: &DeTable<'_>, lines: &Lines<'_>) -> Vec<Entry> {
    let mut entries: Vec<(usize, Entry)> = table
        .iter()
        .map(|(key, value)| {
            let start = key.span().start;
            let key_text = key.get_ref().to_string();
            (start, Entry { key: key_text, place: lines.place(start), node: toml_node(value, lines) })
        })
        .collect();
    // The crate sorts by key; the order of `map`'s fields is the file's.
    entries.sort_by_key(|(start, _)| *start);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn toml_node(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let tree = match value.get_ref() {
        DeValue::String(text) => Tree::Text(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Tree::Integer(integer.into()),
            // Too large for TOML's integers: a float refuses itself where an integer is asked for.
            Err(_) => Tree::Float(integer.as_str().parse().unwrap_or(f64::INFINITY)),
        },
        DeValue::Float(float) => Tree::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Tree::Bool(*boolean),
        DeValue::Datetime(datetime) => Tree::Datetime(datetime.to_string()),
        DeValue::Array(array) => Tree::List(array.iter().map(|item| toml_node(item, lines)).collect()),
        DeValue::Table(table) => Tree::Table(toml_table(table, lines)),
    };
    Node { place: lines.place(value.span().start), value: tree }
}

/// Turns byte offsets into lines and columns.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Lines<'a> {
        let starts = core::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Lines { text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = 1 + self.text.get(start..offset).map_or(0, |before| before.chars().count());
        Place::Line { line, column }
    }
}

/// Reads JSON; every node stands at its path, errors of the syntax at their line and column.
pub(super) fn from_json(text: &str) -> Result<Node, Problem> {
    too_long(text.len(), Place::Path(String::new()))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = AtPath(String::new()).deserialize(&mut deserializer);
    node.and_then(|node| deserializer.end().map(|()| node)).map_err(|error| {
        let place = Place::Line { line: error.line().max(1), column: error.column().max(1) };
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        Problem::new(&place, format!("this is not JSON: {message}"), "check that line")
    })
}

struct AtPath(String);

impl AtPath {
    fn node<E>(self, value: Tree) -> Result<Node, E> {
        Ok(Node { place: Place::Path(self.0), value })
    }
}

impl<'de> DeserializeSeed<'de> for AtPath {
    type Value = Node;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtPath {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        self.node(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        self.node(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        self.node(Tree::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        self.node(Tree::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        self.node(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        self.node(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(AtPath(format!("{}[{}]", self.0, list.len())))? {
            list.push(item);
        }
        self.node(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut keys = alloc::collections::BTreeSet::new();
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key '{key}' stands twice in one object")));
            }
            let path = match self.0.is_empty() {
                true => key.clone(),
                false => format!("{}.{key}", self.0),
            };
            let node = map.next_value_seed(AtPath(path))?;
            entries.push(Entry { key, place: node.place.clone(), node });
        }
        self.node(Tree::Table(entries))
    }
}

/// The tree as JSON text, fields in their order: what a function sees of its `config`. A number
/// that JSON does not have is a problem.
pub(super) fn to_json(node: &Node) -> Result<String, Problem> {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    Ok(match &node.value {
        Tree::Null => "null".to_owned(),
        Tree::Bool(value) => value.to_string(),
        Tree::Integer(value) => value.to_string(),
        Tree::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => number.to_string(),
            None => {
                return Err(Problem::new(
                    &node.place,
                    format!("{value} cannot be handed to a function, which gets its config as JSON"),
                    "use a finite number or a string",
                ));
            }
        },
        Tree::Datetime(value) | Tree::Text(value) => text(value),
        Tree::List(items) => {
            let items = items.iter().map(to_json).collect::<Result<Vec<String>, Problem>>()?;
            format!("[{}]", items.join(","))
        }
        Tree::Table(entries) => {
            let field = |entry: &Entry| Ok(format!("{}:{}", text(&entry.key), to_json(&entry.node)?));
            let fields = entries.iter().map(field).collect::<Result<Vec<String>, Problem>>()?;
            format!("{{{}}}", fields.join(","))
        }
    })
}
