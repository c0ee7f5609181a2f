//! One table of a pipeline file, read key by key; what does not fit becomes a `Problem` at its place.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::error::{Place, Problem, nearest};
use super::quantity;
use super::tree::{Entry, Node, Tree};
use crate::id::Name;
use crate::time::Span;

pub(super) struct Fields<'a> {
    /// How a sentence calls this table: `stage 'clean'`.
    pub what: String,
    /// Where its name stands.
    pub place: &'a Place,
    pub entries: &'a [Entry],
}

fn expected(what: &str, node: &Node, expected: &str, example: &str) -> Problem {
    Problem::new(
        &node.place,
        format!("{what} must be {expected}, but this is {}", node.kind()),
        format!("write it like {example}"),
    )
}

impl<'a> Fields<'a> {
    pub fn of(what: impl Into<String>, place: &'a Place, node: &'a Node) -> Result<Fields<'a>, Problem> {
        let what = what.into();
        match &node.value {
            Tree::Table(entries) => Ok(Fields { what, place, entries }),
            _ => Err(Problem::new(
                &node.place,
                format!("{what} must be a table, but this is {}", node.kind()),
                "write its settings as key = value pairs",
            )),
        }
    }

    /// The table behind `key`, if there is one.
    pub fn table(&self, key: &str) -> Result<Option<Fields<'a>>, Problem> {
        let Some(entry) = self.entries.iter().find(|entry| entry.key == key) else { return Ok(None) };
        Fields::of(format!("{key} of {}", self.what), &entry.place, &entry.node).map(Some)
    }

    /// Refuses every key that is not in `known`; those in `later` by saying so.
    pub fn only(&self, known: &[&str], later: &[&str]) -> Result<(), Problem> {
        for entry in self.entries {
            let key = entry.key.as_str();
            if later.contains(&key) {
                let reason = format!("{key} (in {}) is not there yet", self.what);
                return Err(Problem::new(&entry.place, reason, "remove it, or wait for a later version"));
            }
            if !known.contains(&key) {
                let reason = format!("{} has no setting '{key}'", self.what);
                return Err(Problem::new(&entry.place, reason, nearest(key, known.iter().copied())));
            }
        }
        Ok(())
    }

    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Where `key` stands; where the table begins when it is missing.
    pub fn key_place(&self, key: &str) -> &'a Place {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.place, |entry| &entry.place)
    }

    pub fn missing(&self, key: &str, example: &str) -> Problem {
        Problem::new(self.place, format!("{} needs '{key}'", self.what), format!("add {example}"))
    }

    /// A string that is not empty.
    pub fn text(&self, key: &str, example: &str) -> Result<Option<String>, Problem> {
        let Some(node) = self.get(key) else { return Ok(None) };
        match &node.value {
            Tree::Text(text) if !text.trim().is_empty() => Ok(Some(text.clone())),
            Tree::Text(_) => Err(Problem::new(
                &node.place,
                format!("{key} of {} is empty", self.what),
                format!("write it like {example}, or leave it out"),
            )),
            _ => Err(expected(&format!("{key} of {}", self.what), node, "a string", example)),
        }
    }

    pub fn need_text(&self, key: &str, example: &str) -> Result<String, Problem> {
        self.text(key, example)?.ok_or_else(|| self.missing(key, example))
    }

    /// Strings, none empty, none twice, at least one; with their places.
    pub fn texts(&self, key: &str, example: &str) -> Result<Option<Vec<(String, &'a Place)>>, Problem> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let what = format!("{key} of {}", self.what);
        let Tree::List(items) = &node.value else {
            return Err(expected(&what, node, "a list of strings", example));
        };
        if items.is_empty() {
            return Err(Problem::new(
                &node.place,
                format!("{what} is empty"),
                format!("write it like {example}"),
            ));
        }
        let mut texts: Vec<(String, &Place)> = Vec::new();
        for item in items {
            let Tree::Text(text) = &item.value else {
                return Err(expected(&format!("an entry in {what}"), item, "a string", example));
            };
            if text.trim().is_empty() {
                return Err(Problem::new(&item.place, format!("an entry in {what} is empty"), "remove it"));
            }
            if texts.iter().any(|(earlier, _)| earlier == text) {
                let reason = format!("'{text}' stands twice in {what}");
                return Err(Problem::new(&item.place, reason, "name it once"));
            }
            texts.push((text.clone(), &item.place));
        }
        Ok(Some(texts))
    }

    pub fn span(&self, key: &str) -> Result<Option<Span>, Problem> {
        self.quantity(
            key,
            "a duration",
            "\"500ms\", \"10s\", \"5m\", \"2h\" or \"7d\"",
            false,
            quantity::span,
        )
        .map(|span| span.map(|(span, _)| span))
    }

    /// A byte count of at least 1.
    pub fn bytes(&self, key: &str) -> Result<Option<(u64, &'a Place)>, Problem> {
        self.quantity(key, "a number of bytes", "\"10GiB\", \"64MiB\" or 65536", true, quantity::bytes)
    }

    /// A count of at least 1.
    pub fn count(&self, key: &str) -> Result<Option<(u64, &'a Place)>, Problem> {
        self.quantity(key, "a count", "\"50M\" or 50000000", true, quantity::count)
    }

    fn quantity<T>(
        &self,
        key: &str,
        kind: &str,
        examples: &str,
        plain_number: bool,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<(T, &'a Place)>, Problem> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let text = match &node.value {
            Tree::Text(text) => text.clone(),
            Tree::Integer(number) if plain_number && *number > 0 => match kind {
                "a number of bytes" => format!("{number}B"),
                _ => number.to_string(),
            },
            Tree::Integer(number) => number.to_string(),
            _ => return Err(expected(&format!("{key} of {}", self.what), node, kind, examples)),
        };
        match read(&text) {
            Some(value) => Ok(Some((value, &node.place))),
            None => Err(Problem::new(
                &node.place,
                format!("'{text}' ({key} of {}) is not {kind}", self.what),
                format!("write it like {examples}"),
            )),
        }
    }

    /// An integer within `from..=to`.
    pub fn integer(&self, key: &str, from: i128, to: i128) -> Result<Option<i128>, Problem> {
        let Some(node) = self.get(key) else { return Ok(None) };
        match node.value {
            Tree::Integer(number) if (from..=to).contains(&number) => Ok(Some(number)),
            Tree::Integer(number) => Err(Problem::new(
                &node.place,
                format!("{key} of {} is {number}, but it must be {from} to {to}", self.what),
                format!("use a number from {from} to {to}"),
            )),
            _ => Err(expected(
                &format!("{key} of {}", self.what),
                node,
                "an integer",
                &format!("{key} = {from}"),
            )),
        }
    }

    /// A finite number.
    pub fn number(&self, key: &str, example: &str) -> Result<Option<(f64, &'a Place)>, Problem> {
        let Some(node) = self.get(key) else { return Ok(None) };
        match node.value {
            Tree::Float(number) if number.is_finite() => Ok(Some((number, &node.place))),
            Tree::Integer(number) => Ok(Some((number as f64, &node.place))),
            _ => Err(expected(&format!("{key} of {}", self.what), node, "a finite number", example)),
        }
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>, Problem> {
        let Some(node) = self.get(key) else { return Ok(None) };
        match node.value {
            Tree::Bool(value) => Ok(Some(value)),
            _ => Err(expected(
                &format!("{key} of {}", self.what),
                node,
                "true or false",
                &format!("{key} = true"),
            )),
        }
    }
}

/// A legal name, or the problem with it.
pub(super) fn name(what: &str, text: &str, place: &Place) -> Result<Name, Problem> {
    text.parse::<Name>().map_err(|bad| {
        Problem::new(
            place,
            format!("'{}' cannot be the name of a {what}: {}", bad.text, bad.why),
            "use up to 63 letters, digits, '_' and '-', a letter or digit first".to_owned(),
        )
    })
}
